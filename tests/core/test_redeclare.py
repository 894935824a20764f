"""A queue or exchange that is there is declared with other properties, in each mode."""

from typing import cast

import pytest

from broker.core.arguments import COMPARED_ARGUMENTS, QUEUE_ARGUMENTS
from broker.core.policies import Policy
from broker.core.redeclare import Redeclare, gets_argument
from broker.core.rules import QueueRules
from broker.core.vhost import VHost
from broker.errors import AMQPError, ReplyCode
from broker.wire.table import Field, Table
from tests.core.fakes import Notes, make_broker, publish


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def vhost(notes: Notes) -> VHost:
    return make_broker(notes=notes).add_vhost("/")


def number(value: int) -> Field:
    return Field("signedint", value)


def text(value: str) -> Field:
    return Field("longstr", value)


def refusal(vhost: VHost, **declared: object) -> str:
    """With which text a declaration of q is refused."""
    with pytest.raises(AMQPError) as caught:
        vhost.declare_queue("q", **declared)  # type: ignore[arg-type]
    assert caught.value.code is ReplyCode.PRECONDITION_FAILED
    return caught.value.explanation


def let(vhost: VHost, mode: Redeclare) -> None:
    vhost.broker.redeclare = {vhost.name: mode}


ONE: Table = {"x-max-length": number(1), "x-message-ttl": number(50)}
TWO: Table = {"x-max-length": number(2), "x-overflow": text("reject-publish")}
FIRST = (
    "inequivalent arg 'x-message-ttl' for queue 'q' in vhost '/': received none but current is "
    "the value '50' of type 'signedint'"
)
OTHERS = [
    "inequivalent arg 'x-max-length' for queue 'q' in vhost '/': received '2' but current is '1'",
    (
        "inequivalent arg 'x-overflow' for queue 'q' in vhost '/': received the value "
        "'reject-publish' of type 'longstr' but current is none"
    ),
]


def test_strict_refuses_the_first_difference_and_is_what_holds_by_default(
    vhost: VHost, notes: Notes
) -> None:
    queue = vhost.declare_queue("q", arguments=ONE)
    assert refusal(vhost, arguments=TWO) == FIRST
    let(vhost, Redeclare.STRICT)
    assert refusal(vhost, arguments=TWO) == FIRST
    assert refusal(vhost, durable=True, arguments=ONE) == (
        "inequivalent arg 'durable' for queue 'q' in vhost '/': received 'true' but current is "
        "'false'"
    )
    assert queue.arguments == ONE
    assert "redeclared" not in notes.events()
    counters = vhost.broker.counters
    assert (counters.redeclares_kept, counters.redeclares_adopted) == (0, 0)


def test_mode_is_that_of_the_virtual_host_alone(vhost: VHost) -> None:
    other = vhost.broker.add_vhost("other")
    let(other, Redeclare.WARN)
    vhost.declare_queue("q", arguments=ONE)
    assert refusal(vhost, arguments=TWO) == FIRST


# Warn


def test_warn_leaves_the_queue_as_it_is_and_notes_all_that_differs(
    vhost: VHost, notes: Notes
) -> None:
    let(vhost, Redeclare.WARN)
    queue = vhost.declare_queue("q", arguments=ONE)
    epoch = vhost.epoch
    notes.clear()
    assert vhost.declare_queue("q", durable=True, auto_delete=True, arguments=TWO) is queue
    assert (queue.durable, queue.auto_delete, queue.arguments) == (False, False, ONE)
    assert queue.rules == QueueRules(max_length=1, message_ttl=50)
    differences = [
        (
            "inequivalent arg 'durable' for queue 'q' in vhost '/': received 'true' but current is "
            "'false'"
        ),
        (
            "inequivalent arg 'auto_delete' for queue 'q' in vhost '/': received 'true' but "
            "current is 'false'"
        ),
        FIRST,
        *OTHERS,
    ]
    assert notes == [("redeclared", {"differences": differences, "is_adopted": False})]
    assert vhost.broker.counters.redeclares_kept == 1
    assert vhost.epoch == epoch


@pytest.mark.parametrize("mode", [Redeclare.WARN, Redeclare.ADOPT])
def test_nothing_is_noted_where_nothing_differs(
    vhost: VHost, notes: Notes, mode: Redeclare
) -> None:
    let(vhost, mode)
    queue = vhost.declare_queue("q", arguments={**ONE, "x-queue-type": text("classic")})
    notes.clear()
    assert vhost.declare_queue("q", arguments={**ONE, "x-unknown": number(1)}) is queue
    assert notes == []
    assert queue.arguments.keys() == {*ONE, "x-queue-type"}


@pytest.mark.parametrize("mode", Redeclare)
def test_queue_of_another_connection_stays_locked(vhost: VHost, mode: Redeclare) -> None:
    let(vhost, mode)
    vhost.declare_queue("q", owner=object())
    for owner in (None, object()):
        with pytest.raises(AMQPError) as caught:
            vhost.declare_queue("q", owner=owner)
        assert caught.value.code is ReplyCode.RESOURCE_LOCKED


def test_warn_lets_an_exchange_be_declared_as_anything(vhost: VHost, notes: Notes) -> None:
    let(vhost, Redeclare.WARN)
    exchange = vhost.declare_exchange("x", "direct")
    arguments = {"alternate-exchange": text("a")}
    again = vhost.declare_exchange("x", "topic", durable=True, internal=True, arguments=arguments)
    assert again is exchange
    assert (exchange.type, exchange.durable, exchange.alternate) == ("direct", False, None)
    [(event, details)] = notes
    assert event == "redeclared"
    assert [str(line).split("'")[1] for line in cast(list[object], details["differences"])] == [
        "type",
        "durable",
        "internal",
        "alternate-exchange",
    ]


# Adopt


def test_adopt_takes_new_arguments_over_at_once(vhost: VHost, notes: Notes) -> None:
    let(vhost, Redeclare.ADOPT)
    queue = vhost.declare_queue("q", arguments={**ONE, "x-unknown": number(3)})
    epoch = vhost.epoch
    notes.clear()
    assert vhost.declare_queue("q", arguments=TWO) is queue
    # What nobody compares stays.
    assert queue.arguments == {**TWO, "x-unknown": number(3)}
    assert queue.rules == QueueRules(max_length=2, overflow="reject-publish")
    assert notes == [("redeclared", {"differences": [FIRST, *OTHERS], "is_adopted": True})]
    assert vhost.broker.counters.redeclares_adopted == 1
    assert vhost.epoch > epoch
    vhost.declare_queue("q", arguments=TWO)
    assert vhost.broker.counters.redeclares_adopted == 1


def test_adopted_limit_holds_for_what_is_in_the_queue(vhost: VHost) -> None:
    let(vhost, Redeclare.ADOPT)
    queue = vhost.declare_queue("q")
    publish(queue, b"1", b"2", b"3")
    vhost.declare_queue("q", arguments={"x-max-length": number(2)})
    vhost.broker.run_deliveries()
    assert queue.messages_ready == 2


def test_adopted_arguments_and_policies_are_merged_as_ever(vhost: VHost) -> None:
    let(vhost, Redeclare.ADOPT)
    vhost.set_policy(Policy("p", "", {"max-length": 5, "message-ttl": 9}))
    queue = vhost.declare_queue("q", arguments=ONE)
    assert queue.rules == QueueRules(max_length=1, message_ttl=9)
    vhost.declare_queue("q", arguments={"x-max-length": number(7)})
    assert queue.rules == QueueRules(max_length=5, message_ttl=9)


def test_adopt_takes_over_what_rabbitmq_lets_differ(vhost: VHost) -> None:
    arguments = {"x-consumer-timeout": number(5)}
    queue = vhost.declare_queue("q")
    vhost.declare_queue("q", arguments=arguments)
    assert queue.arguments == {}
    let(vhost, Redeclare.ADOPT)
    vhost.declare_queue("q", arguments=arguments)
    assert (queue.arguments, queue.rules.consumer_timeout) == (arguments, 5)


@pytest.mark.parametrize(
    ("declared", "key"),
    [
        ({"durable": True}, "durable"),
        ({"auto_delete": True}, "auto_delete"),
        ({"arguments": {"x-queue-type": text("quorum")}}, "x-queue-type"),
        ({"arguments": {"x-max-priority": number(5)}}, "x-max-priority"),
        ({"arguments": {"x-single-active-consumer": Field("bool", True)}}, None),
        ({"arguments": {"x-dispatch": text("least-loaded")}}, None),
    ],
)
def test_adopt_refuses_what_cannot_change_as_strict_does(
    vhost: VHost, declared: dict[str, object], key: str | None
) -> None:
    queue = vhost.declare_queue("q")
    text_of_strict = refusal(vhost, **declared)
    let(vhost, Redeclare.ADOPT)
    arguments = {"x-max-length": number(3), **cast(Table, declared.get("arguments", {}))}
    assert refusal(vhost, **{**declared, "arguments": arguments}) == text_of_strict
    assert key is None or f"'{key}'" in text_of_strict
    assert queue.arguments == {}
    assert vhost.broker.counters.redeclares_adopted == 0


def test_every_argument_can_be_taken_over_or_is_refused(vhost: VHost) -> None:
    let(vhost, Redeclare.ADOPT)
    fixed = {
        "x-queue-type",
        "x-max-priority",
        "x-single-active-consumer",
        "x-dispatch",
        "x-group-by",
        "x-fair-by",
    }
    assert fixed < set(COMPARED_ARGUMENTS)
    vhost.declare_queue("q")
    adopted = 0
    # Some wait for others (a routing key for its exchange), some take but few values.
    for key in QUEUE_ARGUMENTS:
        for value in (number(1), text("classic"), text("1D"), Field("bool", True)):
            try:
                vhost.declare_queue("new", arguments={key: value})
            except AMQPError:
                continue
            vhost.delete_queue(vhost.queues["new"])
            if key in fixed and key != "x-queue-type":
                assert f"'{key}'" in refusal(vhost, arguments={key: value})
            else:
                vhost.declare_queue("q", arguments={key: value})
                vhost.declare_queue("q")
                adopted += 1
    assert adopted > 10


def test_adopt_refuses_a_bad_argument(vhost: VHost, notes: Notes) -> None:
    let(vhost, Redeclare.ADOPT)
    queue = vhost.declare_queue("q", arguments=ONE)
    bad = {**ONE, "x-message-ttl": number(-1)}
    assert refusal(vhost, arguments=bad) == (
        "invalid arg 'x-message-ttl' for queue 'q' in vhost '/': {value_negative,-1}"
    )
    assert queue.arguments == ONE
    assert "redeclared" not in notes.events()


def test_adopt_changes_the_alternate_of_an_exchange_and_nothing_else(vhost: VHost) -> None:
    let(vhost, Redeclare.ADOPT)
    exchange = vhost.declare_exchange("x", "direct", arguments={"x-other": number(1)})
    both = {"x-other": number(1), "alternate-exchange": text("a")}
    found = []
    for arguments in ({"alternate-exchange": text("a")}, {}):
        vhost.declare_exchange("x", "direct", arguments=arguments)
        found.append((exchange.alternate, exchange.arguments))
    assert found == [("a", both), (None, {"x-other": number(1)})]
    with pytest.raises(AMQPError, match="inequivalent arg 'type'"):
        vhost.declare_exchange("x", "topic", arguments={"alternate-exchange": text("a")})
    assert exchange.arguments == {"x-other": number(1)}


def test_only_what_may_be_given_anew_asks_for_permission_anew(vhost: VHost) -> None:
    key = "x-dead-letter-exchange"
    theirs, ours = {key: text("theirs")}, {key: text("ours")}
    assert gets_argument(vhost, None, key, {})
    queue = vhost.declare_queue("q", arguments=ours)
    asked = []
    for mode in Redeclare:
        let(vhost, mode)
        asked.append([gets_argument(vhost, queue, key, table) for table in (ours, theirs, {})])
    assert asked == [[False] * 3, [False] * 3, [False, True, True]]

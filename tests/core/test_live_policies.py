"""Policies in a virtual host: queues and exchanges follow each change at once."""

import pytest

from broker.core.broker import Broker
from broker.core.policies import NOTHING, Policy, PolicyError
from broker.core.queue import Queue
from broker.core.rules import NO_RULES, QueueRules, rules_of
from broker.core.vhost import VHost
from broker.wire.table import Field
from tests.core.fakes import Notes, make_broker

DAY_MS = 86_400_000


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def broker(notes: Notes) -> Broker:
    return make_broker(notes=notes)


@pytest.fixture
def vhost(broker: Broker) -> VHost:
    return broker.add_vhost("/")


def policy(name: str, pattern: str, definition: dict[str, object], **more: object) -> Policy:
    return Policy(name, pattern, definition, **more)  # type: ignore[arg-type]


def number(value: int) -> Field:
    return Field("signedint", value)


def text(value: str) -> Field:
    return Field("longstr", value)


def routed(vhost: VHost, exchange: str) -> list[str]:
    queues, _ = vhost.route(vhost.get_exchange(exchange), ["k"])
    return [queue.name for queue in queues]


def test_queues_follow_a_policy_that_is_set_changed_and_cleared(vhost: VHost) -> None:
    ours, other = vhost.declare_queue("orders"), vhost.declare_queue("other")
    vhost.set_policy(policy("p", "^ord", {"max-length": 5, "overflow": "reject-publish"}))
    assert ours.rules == QueueRules(max_length=5, overflow="reject-publish")
    assert other.rules == NO_RULES
    vhost.set_policy(policy("p", "^oth", {"max-length": 6}))
    assert ours.rules == NO_RULES
    assert other.rules == QueueRules(max_length=6)
    vhost.clear_policy("p")
    assert (ours.rules, other.rules) == (NO_RULES, NO_RULES)


def test_queue_that_is_declared_later_follows_too(vhost: VHost) -> None:
    vhost.set_policy(policy("p", "", {"message-ttl": 7}))
    vhost.set_policy(policy("o", "", {"message-ttl": 5}, is_operator=True))
    assert vhost.declare_queue("q").rules == QueueRules(message_ttl=5)
    vhost.clear_policy("o", is_operator=True)
    assert vhost.queues["q"].rules == QueueRules(message_ttl=7)


def test_policy_of_another_virtual_host_is_none(broker: Broker, vhost: VHost) -> None:
    queue = broker.add_vhost("other").declare_queue("q")
    vhost.set_policy(policy("p", "", {"max-length": 5}))
    assert queue.rules == NO_RULES


def test_next_policy_holds_where_the_first_one_is_cleared(vhost: VHost) -> None:
    queue = vhost.declare_queue("q")
    vhost.set_policy(policy("low", "", {"max-length": 1}))
    vhost.set_policy(policy("high", "q", {"expires": DAY_MS}, priority=1))
    assert queue.rules == QueueRules(expires=DAY_MS)
    assert vhost.policies.of(queue) == ("high", None, {"expires": DAY_MS})
    vhost.clear_policy("high")
    assert queue.rules == QueueRules(max_length=1)
    assert vhost.policies.of(queue).policy == "low"


def test_apply_to_tells_quorum_queues_from_classic_ones(vhost: VHost) -> None:
    quorum = vhost.declare_queue("a", durable=True, arguments={"x-queue-type": text("quorum")})
    classic = vhost.declare_queue("b", arguments={"x-queue-type": text("classic")})
    vhost.set_policy(policy("p", "", {"delivery-limit": 3}, apply_to="quorum_queues"))
    assert (quorum.rules.delivery_limit, classic.rules.delivery_limit) == (3, None)


def test_argument_wins_but_for_limits_of_which_the_lower_one_does(vhost: VHost) -> None:
    arguments = {
        "x-message-ttl": number(10),
        "x-max-length": number(10),
        "x-dead-letter-exchange": text("ours"),
        "x-overflow": text("drop-head"),
    }
    queue = vhost.declare_queue("q", arguments=arguments)
    definition: dict[str, object] = {
        "message-ttl": 20,
        "max-length": 5,
        "dead-letter-exchange": "theirs",
        "dead-letter-routing-key": "k",
        "overflow": "reject-publish",
    }
    vhost.set_policy(policy("p", "", definition))
    assert queue.rules == QueueRules(
        message_ttl=10,
        max_length=5,
        dead_letter_exchange="ours",
        dead_letter_routing_key="k",
        overflow="drop-head",
    )


def test_negative_delivery_limit_is_none_and_gives_way_to_one(vhost: VHost) -> None:
    queue = vhost.declare_queue("q", arguments={"x-delivery-limit": number(-1)})
    seen = [queue.rules.delivery_limit]
    for limit in (4, -1):
        vhost.set_policy(policy("p", "", {"delivery-limit": limit}))
        seen.append(queue.rules.delivery_limit)
    assert seen == [None, 4, None]


def test_duration_of_a_policy_is_bounded_as_one_of_an_argument() -> None:
    assert rules_of({}, {"message-ttl": 10**40, "expires": 10**30}) == QueueRules(
        message_ttl=3650 * DAY_MS, expires=3650 * DAY_MS
    )


def test_alternate_exchange_comes_and_goes_with_a_policy(vhost: VHost) -> None:
    queue = vhost.declare_queue("unrouted")
    rest = vhost.declare_exchange("rest", "fanout")
    vhost.bind(rest, queue, "", {})
    vhost.declare_exchange("orders", "direct")
    epoch = vhost.epoch
    vhost.set_policy(policy("ae", "^orders$", {"alternate-exchange": "rest"}))
    assert vhost.epoch > epoch
    assert routed(vhost, "orders") == ["unrouted"]
    epoch = vhost.epoch
    vhost.clear_policy("ae")
    assert vhost.epoch > epoch
    assert routed(vhost, "orders") == []
    vhost.set_policy(policy("ae", "", {"alternate-exchange": "rest"}, apply_to="queues"))
    assert routed(vhost, "orders") == []


def test_alternate_exchange_of_the_arguments_wins(vhost: VHost) -> None:
    vhost.set_policy(policy("ae", "", {"alternate-exchange": "theirs"}))
    ours = vhost.declare_exchange("a", "direct", arguments={"alternate-exchange": text("ours")})
    assert ours.alternate == "ours"
    assert vhost.declare_exchange("b", "direct").alternate == "theirs"
    assert vhost.exchanges["amq.topic"].alternate == "theirs"


def test_default_exchange_follows_no_policy(vhost: VHost) -> None:
    vhost.set_policy(policy("ae", "", {"alternate-exchange": "amq.fanout"}))
    assert vhost.exchanges[""].alternate is None
    assert vhost.policies.of(vhost.exchanges[""]) is NOTHING


def test_only_what_a_policy_covers_or_covered_is_told(
    vhost: VHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []
    monkeypatch.setattr(Queue, "apply_rules", lambda queue, _: told.append(queue.name))
    for name in "abc":
        vhost.declare_queue(name)
    told.clear()
    vhost.set_policy(policy("p", "a", {"max-length": 1}))
    assert told == ["a"]
    told.clear()
    vhost.set_policy(policy("p", "b", {"max-length": 1}))
    assert told == ["a", "b"]
    vhost.set_policy(policy("p", "b", {"max-length": 1}))
    assert told == ["a", "b"]


def test_policy_that_cannot_be_changes_nothing(vhost: VHost, notes: Notes) -> None:
    queue = vhost.declare_queue("q")
    vhost.set_policy(policy("p", "", {"max-length": 1}))
    notes.clear()
    epoch = vhost.epoch
    with pytest.raises(PolicyError, match="-1 is not a valid maximum length"):
        vhost.set_policy(policy("p", "", {"max-length": -1}))
    assert queue.rules == QueueRules(max_length=1)
    for name, is_operator in (("q", False), ("p", True)):
        with pytest.raises(PolicyError, match="does not exist"):
            vhost.clear_policy(name, is_operator=is_operator)
    assert (vhost.epoch, notes.events()) == (epoch, [])
    assert [each.name for each in vhost.policies.all()] == ["p"]


def test_each_change_is_noted_with_the_keys_that_do_nothing(vhost: VHost, notes: Notes) -> None:
    made = policy("p", "", {"ha-mode": "all", "alternate-exchange": "x"})
    vhost.set_policy(made)
    vhost.clear_policy("p")
    assert notes == [
        ("policy_set", {"vhost": "/", "policy": made, "ignored": ["ha-mode"]}),
        ("policy_cleared", {"vhost": "/", "policy": made}),
    ]

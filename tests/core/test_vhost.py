"""Queues, exchanges and bindings of a virtual host: declared, compared, deleted."""

import pytest

from broker.core.exchange import check_type
from broker.core.message import MESSAGE_OVERHEAD
from broker.core.queue import Queue
from broker.core.vhost import VHost
from broker.errors import AMQPError, ReplyCode
from broker.wire.table import Field, Table
from tests.core.fakes import (
    add_consumer,
    header_with,
    make_vhost,
    publish,
)


class Owner:
    """A connection with exclusive queues."""


@pytest.fixture
def vhost() -> VHost:
    return make_vhost()


def text(value: str) -> Field:
    return Field("longstr", value)


class refused:  # noqa: N801  # reads as a statement
    """Expects an error with just this code and text."""

    def __init__(self, code: ReplyCode, explanation: str) -> None:
        self.wanted = (code, explanation)

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: object, trace: object) -> bool:
        assert isinstance(error, AMQPError), "nothing was raised"
        assert (error.code, error.explanation) == self.wanted
        return True


PRECONDITION = ReplyCode.PRECONDITION_FAILED
LOCKED = (
    "cannot obtain exclusive access to locked queue 'q' in vhost '/'. It could be originally "
    "declared on another connection or the exclusive property value does not match that of the "
    "original declaration."
)


def routed(vhost: VHost, exchange: str, key: str = "", headers: Table | None = None) -> list[str]:
    queues, _ = vhost.route(vhost.get_exchange(exchange), [key], header_with(headers or {}))
    return [queue.name for queue in queues]


# Queues


def test_declared_queue_is_there_and_declaring_it_again_finds_it(vhost: VHost) -> None:
    queue = vhost.declare_queue("q", durable=True)
    assert vhost.declare_queue("q", durable=True) is queue
    assert vhost.get_queue("q") is queue
    assert vhost.broker.counters.queues_created == 1


@pytest.mark.parametrize("flag", ["durable", "auto_delete"])
@pytest.mark.parametrize("was", [False, True])
def test_queue_with_other_flags_is_refused(vhost: VHost, flag: str, *, was: bool) -> None:
    vhost.declare_queue("q", **{flag: was})  # type: ignore[arg-type]
    with refused(PRECONDITION, other_flag(flag, "queue 'q'", was=was)):
        vhost.declare_queue("q", **{flag: not was})  # type: ignore[arg-type]


def other_flag(flag: str, title: str, *, was: bool) -> str:
    told, have = ("false", "true") if was else ("true", "false")
    what = f"inequivalent arg '{flag}' for {title} in vhost '/'"
    return f"{what}: received '{told}' but current is '{have}'"


def test_queue_with_other_arguments_is_refused(vhost: VHost) -> None:
    vhost.declare_queue("q")
    with refused(
        PRECONDITION,
        "inequivalent arg 'x-max-length' for queue 'q' in vhost '/': "
        "received the value '1' of type 'byte' but current is none",
    ):
        vhost.declare_queue("q", arguments={"x-max-length": Field("byte", 1)})


def test_exclusive_queue_is_its_owners_alone(vhost: VHost) -> None:
    owner, other = Owner(), Owner()
    queue = vhost.declare_queue("q", owner=owner, durable=True)
    assert not queue.durable
    assert vhost.declare_queue("q", owner=owner, durable=True) is queue
    assert vhost.get_queue("q", owner) is queue
    for stranger in (other, None):
        with refused(ReplyCode.RESOURCE_LOCKED, LOCKED):
            vhost.get_queue("q", stranger)
        # Whose it is comes before how it is.
        with refused(ReplyCode.RESOURCE_LOCKED, LOCKED):
            vhost.declare_queue("q", owner=stranger, auto_delete=True)


def test_shared_queue_cannot_be_declared_exclusive(vhost: VHost) -> None:
    vhost.declare_queue("q")
    with refused(ReplyCode.RESOURCE_LOCKED, LOCKED):
        vhost.declare_queue("q", owner=Owner())


def test_missing_queue_is_not_found(vhost: VHost) -> None:
    with refused(ReplyCode.NOT_FOUND, "no queue 'q' in vhost '/'"):
        vhost.get_queue("q")


def test_wrong_arguments_make_no_queue(vhost: VHost) -> None:
    with refused(
        PRECONDITION, "invalid arg 'x-expires' for queue 'q' in vhost '/': {value_zero,0}"
    ):
        vhost.declare_queue("q", arguments={"x-expires": Field("byte", 0)})
    assert vhost.queues == {}


def test_deleted_queue_is_gone_with_its_messages_and_bindings(vhost: VHost) -> None:
    queue = vhost.declare_queue("q")
    vhost.bind(vhost.get_exchange("amq.fanout"), queue, "", {})
    publish(queue, b"1", b"2")
    assert vhost.delete_queue(queue) == 2
    assert queue.is_deleted
    assert vhost.queues == {}
    assert vhost.broker.memory_used == 0
    assert routed(vhost, "amq.fanout") == routed(vhost, "", "q") == []
    assert vhost._sources == {}
    assert vhost.delete_queue(queue) == 0
    assert vhost.broker.counters.queues_deleted == 1


def test_queue_in_use_or_not_empty_may_refuse_to_go(vhost: VHost) -> None:
    queue = vhost.declare_queue("q")
    publish(queue, b"1")
    with refused(PRECONDITION, "queue 'q' in vhost '/' not empty"):
        vhost.delete_queue(queue, if_empty=True)
    consumer = add_consumer(queue)
    vhost.broker.run_deliveries()
    # Unacknowledged messages are none that wait.
    with refused(PRECONDITION, "queue 'q' in vhost '/' in use"):
        vhost.delete_queue(queue, if_unused=True, if_empty=True)
    queue.remove_consumer(consumer)
    assert vhost.delete_queue(queue, if_unused=True, if_empty=True) == 0


def test_queue_of_the_same_name_is_another_one(vhost: VHost) -> None:
    first = vhost.declare_queue("q")
    vhost.delete_queue(first)
    second = vhost.declare_queue("q")
    publish(second, b"1")
    assert vhost.delete_queue(first) == 0
    assert vhost.get_queue("q") is second
    assert vhost.broker.memory_used == second.ready_bytes > MESSAGE_OVERHEAD


# Exchanges


def test_predeclared_exchanges_are_there(vhost: VHost) -> None:
    found = {name: (e.type, e.durable, e.internal) for name, e in vhost.exchanges.items()}
    assert found == {
        "": ("direct", True, False),
        "amq.direct": ("direct", True, False),
        "amq.fanout": ("fanout", True, False),
        "amq.topic": ("topic", True, False),
        "amq.headers": ("headers", True, False),
        "amq.match": ("headers", True, False),
        "amq.rabbitmq.trace": ("topic", True, True),
    }


def test_declared_exchange_is_there_and_declaring_it_again_finds_it(vhost: VHost) -> None:
    exchange = vhost.declare_exchange("x", "topic", durable=True, internal=True, auto_delete=True)
    assert (exchange.type, exchange.durable, exchange.internal, exchange.auto_delete) == (
        "topic",
        True,
        True,
        True,
    )
    again = vhost.declare_exchange("x", "topic", durable=True, internal=True, auto_delete=True)
    assert again is exchange


@pytest.mark.parametrize("flag", ["durable", "auto_delete", "internal"])
@pytest.mark.parametrize("was", [False, True])
def test_exchange_with_other_flags_is_refused(vhost: VHost, flag: str, *, was: bool) -> None:
    vhost.declare_exchange("x", "direct", **{flag: was})  # type: ignore[arg-type]
    with refused(PRECONDITION, other_flag(flag, "exchange 'x'", was=was)):
        vhost.declare_exchange("x", "direct", **{flag: not was})  # type: ignore[arg-type]


def test_exchange_of_another_type_or_alternate_is_refused(vhost: VHost) -> None:
    vhost.declare_exchange("x", "direct")
    title = "exchange 'x' in vhost '/'"
    with refused(
        PRECONDITION,
        f"inequivalent arg 'type' for {title}: received 'topic' but current is 'direct'",
    ):
        vhost.declare_exchange("x", "topic", durable=True)
    with refused(
        PRECONDITION,
        f"inequivalent arg 'alternate-exchange' for {title}: "
        "received the value 'a' of type 'longstr' but current is none",
    ):
        vhost.declare_exchange("x", "direct", arguments={"alternate-exchange": text("a")})


def test_other_arguments_of_an_exchange_are_not_compared(vhost: VHost) -> None:
    exchange = vhost.declare_exchange("x", "direct", arguments={"mine": text("a")})
    assert vhost.declare_exchange("x", "direct", arguments={}) is exchange


def test_unknown_exchange_type_is_invalid() -> None:
    for kind in ("direct", "fanout", "topic", "headers"):
        check_type(kind)
    with refused(ReplyCode.COMMAND_INVALID, "unknown exchange type 'x-nope'"):
        check_type("x-nope")


def test_missing_exchange_is_not_found(vhost: VHost) -> None:
    with refused(ReplyCode.NOT_FOUND, "no exchange 'x' in vhost '/'"):
        vhost.get_exchange("x")


def test_deleted_exchange_is_gone_with_its_bindings(vhost: VHost) -> None:
    exchange = vhost.declare_exchange("x", "fanout")
    queue = vhost.declare_queue("q")
    vhost.bind(exchange, queue, "a", {})
    vhost.bind(vhost.get_exchange("amq.fanout"), exchange, "", {})
    with refused(PRECONDITION, "exchange 'x' in vhost '/' in use"):
        vhost.delete_exchange(exchange, if_unused=True)
    assert routed(vhost, "amq.fanout") == ["q"]
    vhost.delete_exchange(exchange)
    assert "x" not in vhost.exchanges
    assert vhost._sources == {}
    assert routed(vhost, "amq.fanout") == []
    # Twice is fine, and so is another one of that name.
    other = vhost.declare_exchange("x", "fanout")
    vhost.delete_exchange(exchange)
    assert vhost.get_exchange("x") is other


def test_exchange_that_is_only_a_destination_is_unused(vhost: VHost) -> None:
    exchange = vhost.declare_exchange("x", "fanout")
    vhost.bind(vhost.get_exchange("amq.fanout"), exchange, "", {})
    vhost.delete_exchange(exchange, if_unused=True)
    assert "x" not in vhost.exchanges


# Auto-delete


def test_auto_delete_exchange_goes_with_its_last_binding(vhost: VHost) -> None:
    exchange = vhost.declare_exchange("x", "fanout", auto_delete=True)
    queue = vhost.declare_queue("q")
    assert "x" in vhost.exchanges
    vhost.bind(exchange, queue, "a", {})
    vhost.bind(exchange, queue, "b", {})
    vhost.unbind(exchange, queue, "a", {}, None)
    assert "x" in vhost.exchanges
    vhost.unbind(exchange, queue, "b", {}, None)
    assert "x" not in vhost.exchanges


def test_auto_delete_exchange_goes_with_its_last_queue(vhost: VHost) -> None:
    exchange = vhost.declare_exchange("x", "direct", auto_delete=True)
    for name in ("q1", "q2"):
        vhost.bind(exchange, vhost.declare_queue(name), "k", {})
    vhost.delete_queue(vhost.get_queue("q1"))
    assert "x" in vhost.exchanges
    vhost.delete_queue(vhost.get_queue("q2"))
    assert "x" not in vhost.exchanges


def test_chain_of_auto_delete_exchanges_goes_however_long_it_is(vhost: VHost) -> None:
    queue = vhost.declare_queue("q")
    behind: Queue | object = queue
    for number in range(3000):
        exchange = vhost.declare_exchange(f"x{number}", "fanout", auto_delete=True)
        vhost.bind(exchange, behind, "", {})  # type: ignore[arg-type]
        behind = exchange
    assert routed(vhost, "x2999") == ["q"]
    vhost.delete_queue(queue)
    assert len(vhost.exchanges) == 7
    assert vhost._sources == {}


def test_auto_delete_exchanges_in_a_ring_all_go(vhost: VHost) -> None:
    ring = [vhost.declare_exchange(name, "fanout", auto_delete=True) for name in "abc"]
    for source, destination in zip(ring, [*ring[1:], ring[0]], strict=True):
        vhost.bind(source, destination, "", {})
    vhost.delete_exchange(ring[0])
    assert not vhost.exchanges.keys() & set("abc")
    assert vhost._sources == {}


def test_auto_delete_exchange_bound_to_itself_goes(vhost: VHost) -> None:
    exchange = vhost.declare_exchange("x", "fanout", auto_delete=True)
    vhost.bind(exchange, exchange, "", {})
    vhost.unbind(exchange, exchange, "", {}, None)
    assert "x" not in vhost.exchanges
    assert vhost._sources == {}


# Bindings


def test_binding_is_made_once_and_removed_by_all_it_is_made_of(vhost: VHost) -> None:
    exchange, queue = vhost.get_exchange("amq.direct"), vhost.declare_queue("q")
    arguments = {"a": text("b")}
    for _ in range(2):
        vhost.bind(exchange, queue, "k", arguments)
    vhost.unbind(exchange, queue, "k", {}, None)
    vhost.unbind(exchange, queue, "other", arguments, None)
    assert routed(vhost, "amq.direct", "k") == ["q"]
    vhost.unbind(exchange, queue, "k", {"a": text("b")}, None)
    assert routed(vhost, "amq.direct", "k") == []
    assert vhost._sources == {}


def test_type_of_an_argument_is_part_of_a_binding(vhost: VHost) -> None:
    exchange, queue = vhost.get_exchange("amq.headers"), vhost.declare_queue("q")
    vhost.bind(exchange, queue, "", {"n": Field("byte", 5)})
    vhost.bind(exchange, queue, "", {"n": Field("long", 5)})
    vhost.unbind(exchange, queue, "", {"n": Field("byte", 5)}, None)
    assert routed(vhost, "amq.headers", headers={"n": Field("short", 5)}) == ["q"]
    vhost.unbind(exchange, queue, "", {"n": Field("long", 5)}, None)
    assert routed(vhost, "amq.headers", headers={"n": Field("short", 5)}) == []


def test_wrong_binding_argument_is_refused_and_binds_nothing(vhost: VHost) -> None:
    exchange, queue = vhost.get_exchange("amq.headers"), vhost.declare_queue("q")
    for field, wanted in (
        (
            text("foo"),
            'Invalid x-match field value <<"foo">>; expected all, any, all-with-x, or any-with-x',
        ),
        (Field("signedint", 1), "Invalid x-match field type signedint (value 1); expected longstr"),
    ):
        with refused(PRECONDITION, wanted):
            vhost.bind(exchange, queue, "", {"x-match": field})
    assert len(exchange.router) == 0
    assert vhost._sources == {}


def test_binding_of_an_exclusive_queue_is_removed_by_its_owner_alone(vhost: VHost) -> None:
    owner = Owner()
    exchange, queue = vhost.get_exchange("amq.fanout"), vhost.declare_queue("q", owner=owner)
    vhost.bind(exchange, queue, "k", {})
    with refused(ReplyCode.RESOURCE_LOCKED, LOCKED):
        vhost.unbind(exchange, queue, "k", {}, Owner())
    # One that is not there is nobody's.
    vhost.unbind(exchange, queue, "other", {}, Owner())
    assert routed(vhost, "amq.fanout") == ["q"]
    vhost.unbind(exchange, queue, "k", {}, owner)
    assert routed(vhost, "amq.fanout") == []

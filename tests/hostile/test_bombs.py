"""Things that are cheap to ask for and dear to have: the broker's work and memory stay bounded.

Work is counted in lines of code, so that no slow machine fails a test.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from broker.core.message import MESSAGE_OVERHEAD
from broker.protocol.output import OUTPUT_MAX
from broker.protocol.publish import ROUTES_MAX
from broker.protocol.reader import WORK_MAX
from conformance.fields import long
from conformance.fuzz.world import World, method
from exchanges import TopicExchange

from .client import Client, opened, publish, steps, world

TURN_STEPS_MAX = 2_000_000
"""Lines of code that one chunk may cost before the others have a turn: some 100 ms."""


def chunk_steps(client: Client, octets: bytes) -> int:
    """The work of one turn: what handling a chunk costs until others are let in."""
    return steps(lambda: client.connection.receive_data(octets, 0.0))


# Topic patterns

HASHES = [
    "#." * 30 + "zz",
    "#.a." * 20 + "zz",
    "*.#." * 20 + "zz",
    "#.*." * 20 + "#",
    ".".join(["#"] * 120),
    "a.#." * 15 + "b",
]


@pytest.mark.parametrize("pattern", HASHES)
@pytest.mark.parametrize("key", [".".join("a" * 20), ".".join("abcdefghijklmnopqrst"), "." * 127])
def test_topic_pattern_with_many_hashes_costs_words_times_words(pattern: str, key: str) -> None:
    exchange: TopicExchange[str] = TopicExchange()
    exchange.bind(pattern, "q", {})
    words = (len(key.split(".")) + 1) * (len(pattern.split(".")) + 1)
    assert steps(lambda: exchange.route(key, {})) < 20 * words


def test_topic_patterns_of_every_kind_together_cost_no_more_than_their_number() -> None:
    exchange: TopicExchange[str] = TopicExchange()
    count = 0
    for number in range(3**6):
        words = [("a", "*", "#")[number // 3**place % 3] for place in range(6)]
        count += exchange.bind(".".join(words), number % 7, {})  # type: ignore[arg-type]
    key = ".".join("a" * 20)
    assert steps(lambda: exchange.route(key, {})) < 20 * 6 * count * 20


@pytest.mark.parametrize("pattern", HASHES)
def test_publishing_to_patterns_with_many_hashes_goes_on(pattern: str) -> None:
    client = opened(world())
    client.ask(1, "queue.declare", queue="q")
    client.ask(1, "queue.bind", queue="q", exchange="amq.topic", routing_key=pattern[:255])
    keys = [".".join("abcdefghij"[n % 10] * 2 for n in range(k, k + 20)) for k in range(10)]
    octets = b"".join(publish(key, exchange="amq.topic") for key in keys * 10)
    assert chunk_steps(client, octets) < TURN_STEPS_MAX
    assert client.is_open


# Consumers


def consumers(
    count: int, *, first: int = 0, prefetch: int = 0, own_priority: bool = False
) -> bytes:
    """Starts consumers on the queue `q`."""
    qos = method(1, "basic.qos", prefetch_count=prefetch) if prefetch else b""
    return qos + b"".join(
        method(
            1,
            "basic.consume",
            queue="q",
            consumer_tag=f"t{number}",
            nowait=True,
            arguments={"x-priority": long((1 << 62) - number)} if own_priority else {},
        )
        for number in range(first, first + count)
    )


def with_consumers(count: int, *, prefetch: int = 1, own_priority: bool = False) -> Client:
    client = opened(world())
    client.ask(1, "queue.declare", queue="q")
    client.tell(consumers(count, prefetch=prefetch, own_priority=own_priority))
    assert len(client.world.vhost.queues["q"].consumers) == count
    return client


def grows_little(cost: Callable[[int], int], few: int = 20, many: int = 400) -> bool:
    """Whether a cost is (nearly) the same for few and for many."""
    return cost(many) < 2 * cost(few) + 200


@pytest.mark.parametrize("own_priority", [False, True])
def test_starting_a_consumer_costs_the_same_beside_many(*, own_priority: bool) -> None:
    def cost(count: int) -> int:
        client = with_consumers(count, own_priority=own_priority)
        more = consumers(1, first=count, own_priority=own_priority)
        return steps(lambda: client.tell(more))

    assert grows_little(cost)


@pytest.mark.parametrize("own_priority", [False, True])
@pytest.mark.parametrize("prefetch", [0, 1, 10])
def test_message_for_one_of_many_consumers_costs_the_same(
    prefetch: int, *, own_priority: bool
) -> None:
    def cost(count: int) -> int:
        client = with_consumers(count, prefetch=prefetch, own_priority=own_priority)
        return steps(lambda: [client.tell(publish("q")) for _ in range(10)])

    assert grows_little(cost)


def test_backlog_for_many_consumers_costs_its_messages() -> None:
    def cost(count: int) -> int:
        client = opened(world())
        client.ask(1, "queue.declare", queue="q")
        client.tell(publish("q") * 500)
        return steps(lambda: client.tell(consumers(count, prefetch=1))) // count

    assert cost(500) < 2 * cost(50)


@pytest.mark.parametrize("own_priority", [False, True])
@pytest.mark.parametrize("end", ["channel", "socket", "queue"])
def test_many_consumers_leave_at_a_cost_that_is_linear(end: str, *, own_priority: bool) -> None:
    def cost(count: int) -> int:
        client = with_consumers(count, own_priority=own_priority)
        leave = {
            "channel": lambda: client.feed(method(1, "channel.close")),
            "socket": client.leave,
            "queue": lambda: client.feed(method(1, "queue.delete", queue="q")),
        }[end]
        return steps(leave) // count

    assert cost(500) < 2 * cost(50) + 10


def test_flood_of_qos_on_a_channel_with_many_consumers_costs_its_frames() -> None:
    def cost(count: int) -> int:
        client = with_consumers(count)
        flood = method(1, "basic.qos", prefetch_count=1) * 20
        return steps(lambda: client.tell(flood + method(1, "basic.qos", prefetch_count=2) * 20))

    assert grows_little(cost)


def test_consumers_of_a_channel_can_be_limited() -> None:
    client = opened(world(consumers_per_channel=3))
    client.ask(1, "queue.declare", queue="q")
    client.tell(consumers(3))
    error = client.error(consumers(1, first=3))
    text = "NOT_ALLOWED - reached maximum (3) of consumers per channel"
    assert error == ("connection.close", 530, text)


@pytest.mark.parametrize("priority", [-(1 << 63), -1, 0, 1, 255, (1 << 63) - 1])
def test_priority_of_a_consumer_may_be_any_number(priority: int) -> None:
    client = opened(world())
    client.ask(1, "queue.declare", queue="q")
    fields = {"queue": "q", "consumer_tag": "t", "arguments": {"x-priority": long(priority)}}
    assert client.ask(1, "basic.consume", **fields).name == "basic.consume-ok"
    [delivery] = client.tell(publish("q"))
    assert delivery.name == "basic.deliver"


@pytest.mark.parametrize("most", [256, 1 << 16, (1 << 63) - 1])
def test_queue_with_more_than_255_priorities_is_refused(most: int) -> None:
    client = opened(world())
    fields = {"queue": "q", "arguments": {"x-max-priority": long(most)}}
    name, code, text = client.error(method(1, "queue.declare", **fields))
    assert (name, code) == ("channel.close", 406)
    assert text.endswith(f"{{max_value_exceeded,{most}}}")
    assert not client.world.vhost.queues


# Work of one turn


def with_unacked(count: int) -> Client:
    client = opened(world(), channels=1)
    client.ask(1, "queue.declare", queue="q")
    client.tell(publish("q") * count)
    client.tell(consumers(1))
    assert len(client.connection.channels[1].unacked) == count
    return client


REPEATED: dict[str, bytes] = {
    "recover": method(1, "basic.recover", requeue=True),
    "nack all": method(1, "basic.nack", delivery_tag=0, multiple=True, requeue=True),
    "nack and declare": method(1, "basic.nack", delivery_tag=0, multiple=True, requeue=True)
    + method(1, "queue.declare", queue="q", passive=True),
}


@pytest.mark.parametrize("name", REPEATED)
def test_short_frames_that_move_many_messages_are_cut_into_turns(name: str) -> None:
    client = with_unacked(2000)
    work = client.world.broker.work
    assert chunk_steps(client, REPEATED[name] * 30) < TURN_STEPS_MAX
    assert client.connection.wants_turn
    assert client.world.broker.work - work < 3 * WORK_MAX
    other = opened(client.world)
    assert other.ask(1, "queue.declare", queue="other").name == "queue.declare-ok"


def test_flood_to_a_headers_exchange_with_many_bindings_is_cut_into_turns() -> None:
    client = opened(world())
    client.ask(1, "queue.declare", queue="q")
    client.tell(
        b"".join(
            method(
                1,
                "queue.bind",
                queue="q",
                exchange="amq.headers",
                routing_key=f"{number}",
                nowait=True,
                arguments={"a": number},
            )
            for number in range(1000)
        )
    )
    flood = publish("", b"", {"headers": {"b": 1}}, exchange="amq.headers") * 2000
    assert chunk_steps(client, flood) < TURN_STEPS_MAX
    assert client.connection.wants_turn


def test_flood_through_many_exchanges_is_cut_into_turns() -> None:
    client = opened(world())
    count = 500
    for number in range(count):
        client.feed(
            method(1, "exchange.declare", exchange=f"x{number}", type="fanout", nowait=True)
            + method(1, "exchange.bind", source="amq.fanout", destination=f"x{number}", nowait=True)
        )
    flood = publish("", b"", {"expiration": "1000"}, exchange="amq.fanout") * 2000
    assert chunk_steps(client, flood) < TURN_STEPS_MAX
    assert client.connection.wants_turn


def test_large_answers_to_short_requests_wait_until_they_are_written() -> None:
    client = opened(world())
    client.ask(1, "queue.declare", queue="q")
    body = b"x" * 100_000
    client.tell(publish("q", body))
    flood = b"".join(
        method(1, "basic.get", queue="q")
        + method(1, "basic.reject", delivery_tag=tag, requeue=True)
        for tag in range(1, 2001)
    )
    output = client.connection.output
    client.connection.receive_data(flood, 0.0)
    assert output.size <= OUTPUT_MAX + 2 * len(body)
    turns = 0
    while client.connection.wants_turn:
        assert sum(map(len, output.take())) <= OUTPUT_MAX + 2 * len(body)
        client.connection.resume_input()
        turns += 1
    assert turns > 100
    client.world.flush()
    assert client.ask(1, "basic.get", queue="q").method["delivery_tag"] == 2001


def test_fan_out_to_many_queues_stops_soon_after_memory_is_short() -> None:
    limit = 1_000_000
    client = opened(world(memory=limit))
    client.tell(
        b"".join(
            method(1, "queue.declare", queue=f"q{number}", nowait=True)
            + method(1, "queue.bind", queue=f"q{number}", exchange="amq.fanout", nowait=True)
            for number in range(500)
        )
    )
    client.feed(publish("", exchange="amq.fanout") * 2000)
    assert client.connection.is_blocked
    overshoot = client.world.broker.memory_used - limit
    assert overshoot <= 2 * 16_384 * (MESSAGE_OVERHEAD + 100)


def test_publishes_of_a_transaction_count_as_used_memory_and_stop_their_publisher() -> None:
    client = opened(world(memory=1_000_000))
    client.ask(1, "queue.declare", queue="q")
    client.ask(1, "tx.select")
    client.tell(*[publish("q", b"x" * 10_000)] * 200)
    broker = client.world.broker
    assert client.connection.is_blocked
    assert 1_000_000 < broker.memory_used < 1_100_000
    client.leave()
    assert broker.memory_used == 0
    assert not broker.blocked


@pytest.mark.parametrize("end", ["tx.commit", "tx.rollback", "channel.close"])
def test_memory_of_a_transaction_comes_back(end: str) -> None:
    client = opened(world())
    client.ask(1, "queue.declare", queue="q")
    client.ask(1, "tx.select")
    client.tell(*[publish("q", b"x" * 1000)] * 20)
    broker = client.world.broker
    assert broker.memory_used >= 20_000
    client.tell(method(1, end))
    assert broker.memory_used == client.world.vhost.queues["q"].ready_bytes
    assert (broker.memory_used > 0) == (end == "tx.commit")


# What grows while nobody looks


def test_channel_remembers_a_bounded_number_of_routes() -> None:
    client = opened(world())
    for start in range(0, 3 * ROUTES_MAX, 100):
        client.feed(b"".join(publish(f"key.{number}") for number in range(start, start + 100)))
    assert len(client.connection.channels[1].routes) <= ROUTES_MAX


def test_channel_does_not_remember_deleted_queues() -> None:
    client = opened(world())
    for _ in range(50):
        client.tell(
            method(1, "queue.declare", queue="q")
            + publish("q")
            + method(1, "basic.get", queue="q")
            + method(1, "basic.ack", delivery_tag=0, multiple=True)
            + method(1, "queue.delete", queue="q")
        )
    assert not client.connection.channels[1].getters


@pytest.mark.parametrize("late", ["ack", "no-ack"])
def test_one_old_delivery_does_not_make_the_record_of_a_channel_grow(late: str) -> None:
    client = opened(world())
    client.ask(1, "queue.declare", queue="q")
    client.tell(publish("q"))
    client.ask(1, "basic.get", queue="q")
    client.tell(method(1, "basic.consume", queue="q", consumer_tag="t", no_ack=late == "no-ack"))
    unacked = client.connection.channels[1].unacked
    for turn in range(100):
        client.feed(publish("q") * 100)
        if late == "ack":
            first = 2 + turn * 100
            acks = [method(1, "basic.ack", delivery_tag=first + n) for n in range(100)]
            client.feed(b"".join(acks))
        client.take()
    assert len(unacked) == 1
    assert len(unacked._entries) < 5000
    [answer] = client.tell(
        method(1, "basic.nack", delivery_tag=1, requeue=False)
        + method(1, "queue.declare", queue="q")
    )
    assert answer.method["message_count"] == 0
    assert len(unacked) == 0


def chain(count: int) -> tuple[Client, World]:
    """Auto-delete exchanges, each bound to the next."""
    client = opened(world())
    for number in range(count):
        client.feed(
            method(1, "exchange.declare", exchange=f"x{number}", type="fanout", auto_delete=True)
        )
    for number in range(count - 1):
        client.feed(method(1, "exchange.bind", source=f"x{number}", destination=f"x{number + 1}"))
    client.take()
    return client, client.world


def test_long_chain_of_auto_delete_exchanges_goes_as_a_whole() -> None:
    client, site = chain(2000)
    before = len(site.vhost.exchanges)
    assert client.ask(1, "exchange.delete", exchange="x1999").name == "exchange.delete-ok"
    assert not site.errors
    assert len(site.vhost.exchanges) == before - 2000
    assert not site.vhost._sources


def test_message_goes_through_a_long_chain_of_exchanges() -> None:
    client, site = chain(2000)
    client.ask(1, "queue.declare", queue="q")
    client.ask(1, "queue.bind", queue="q", exchange="x1999")
    client.ask(1, "exchange.bind", source="x1999", destination="x0")
    client.tell(publish("", exchange="x0"))
    assert site.vhost.queues["q"].messages_ready == 1
    assert not site.errors


def test_alternate_exchanges_in_a_circle_end() -> None:
    client = opened(world())
    for name, other in (("a", "b"), ("b", "c"), ("c", "a")):
        client.ask(
            1,
            "exchange.declare",
            exchange=name,
            type="direct",
            arguments={"alternate-exchange": other},
        )
    [answer] = client.tell(publish("nowhere", exchange="a", mandatory=True))
    assert answer.name == "basic.return"


@pytest.mark.parametrize("size", [2000, 60_000, 120_000])
def test_remembered_shapes_of_headers_stay_small(size: int) -> None:
    client = opened(world())
    for number in range(80):
        text = "x" * (size + number)
        client.feed(publish("", b"", {"headers": {"a": text, "b": [None] * 100}}))
    shapes = client.connection.channels[1].shapes._shapes
    assert sum(len(shape._sample) + 100 * len(shape._spans) for shape in shapes.values()) < 2**20

"""Things that are cheap to ask for and dear to have: the broker's work and memory stay bounded.

Work is counted in lines of code, so that no slow machine fails a test.
"""

from __future__ import annotations

import pytest

from broker.core.message import MESSAGE_OVERHEAD
from broker.protocol.route import ROUTES_MAX
from conformance.fuzz.world import World, method
from exchanges import TopicExchange

from .client import TURN_STEPS_MAX, Client, chunk_steps, opened, publish, steps, world

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


# Memory


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


def test_publishes_of_a_transaction_above_the_memory_limit_end_their_connection() -> None:
    client = opened(world(memory=1_000_000))
    client.ask(1, "queue.declare", queue="q")
    client.ask(1, "tx.select")
    name, code, text = client.error(*[publish("q", b"x" * 10_000)] * 200)
    assert (name, code) == ("connection.close", 506)
    assert "more than the memory limit (1000000)" in text
    broker = client.world.broker
    assert broker.memory_used == 0
    assert not broker.check_memory()


def test_publishes_of_transactions_together_count_as_used_memory() -> None:
    site = world(memory=1_000_000)
    clients = [opened(site) for _ in range(5)]
    for client in clients:
        client.ask(1, "tx.select")
        client.tell(*[publish("q", b"x" * 10_000)] * 30)
    assert [client.connection.is_blocked for client in clients] == [False] * 3 + [True] * 2
    assert 1_000_000 < site.broker.memory_used < 1_100_000
    clients[0].leave()
    assert not site.broker.blocked
    for client in clients[1:]:
        client.leave()
    assert site.broker.memory_used == 0


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


def test_connection_remembers_a_bounded_number_of_routes() -> None:
    client = opened(world())
    client.ask(2, "channel.open")
    for start in range(0, 3 * ROUTES_MAX, 100):
        keys = [f"key.{number}" for number in range(start, start + 100)]
        client.feed(b"".join(publish(key, channel=1 + start // 100 % 2) for key in keys))
    assert len(client.connection.routes) <= ROUTES_MAX


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

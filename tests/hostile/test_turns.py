"""Few octets that make much work: the broker does it in turns, and lets the others in between."""

from __future__ import annotations

import pytest

from broker.protocol.output import OUTPUT_MAX
from broker.protocol.reader import WORK_MAX
from conformance.fuzz.world import method

from .client import TURN_STEPS_MAX, Client, chunk_steps, opened, publish, world


def with_unacked(count: int) -> Client:
    client = opened(world(), channels=1)
    client.ask(1, "queue.declare", queue="q")
    client.tell(publish("q") * count)
    client.tell(method(1, "basic.consume", queue="q"))
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
    flood = publish("", b"", {"user_id": "guest"}, exchange="amq.fanout") * 2000
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


def test_commit_of_a_fan_out_stays_within_the_memory_limit() -> None:
    limit = 1_000_000
    client = opened(world(memory=limit))
    client.tell(
        b"".join(
            method(1, "queue.declare", queue=f"q{number}", nowait=True)
            + method(1, "queue.bind", queue=f"q{number}", exchange="amq.fanout", nowait=True)
            for number in range(200)
        )
    )
    client.ask(1, "tx.select")
    client.feed(publish("", exchange="amq.fanout") * 1000)
    client.feed(method(1, "tx.commit"))
    assert client.world.broker.memory_used < 10 * limit

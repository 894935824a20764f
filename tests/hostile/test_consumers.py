"""Thousands of consumers, each with a priority of its own: each costs the same, start to end."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from conformance.fields import long
from conformance.fuzz.world import method

from .client import Client, opened, publish, steps, world


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

"""Celery's native delayed delivery: 28 queues with a TTL, in a chain of topic exchanges."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from kombu.connection import Connection
from kombu.entity import Exchange, Queue
from kombu.transport.native_delayed_delivery import (
    MAX_LEVEL,
    bind_queue_to_native_delayed_delivery_exchange,
    calculate_routing_key,
    declare_native_delayed_delivery_exchanges_and_queues,
    level_name,
)

from tests.conftest import RunningBroker

DEADLINE_SECONDS = 20.0


class Delays:
    """The topology, with a prefix of its own, and a queue whose messages are delayed by it."""

    def __init__(self, connection: Connection, queue_type: str, name: str) -> None:
        self.connection = connection
        self.name = name
        self.queue_type = queue_type
        declare_native_delayed_delivery_exchanges_and_queues(connection, queue_type, prefix=name)
        self.channel = connection.channel()
        arguments = {"x-queue-type": queue_type}
        exchange = Exchange(name, type="topic")
        self.queue = Queue(name, exchange, routing_key=name, queue_arguments=arguments)
        self.queue(self.channel).declare()
        bind_queue_to_native_delayed_delivery_exchange(connection, self.queue, prefix=name)
        self.producer = connection.Producer(self.channel)

    def publish(self, body: Any, seconds: int) -> None:
        """As Celery publishes a task with a countdown."""
        key = calculate_routing_key(seconds, self.name)
        self.producer.publish(body, exchange=self.level(MAX_LEVEL), routing_key=key)

    def level(self, number: int) -> str:
        """The name of a queue and its exchange, through which go delays of 2**number seconds."""
        return level_name(number, prefix=self.name)

    def count(self, number: int) -> int:
        """How many messages wait at this level."""
        declared = self.channel.queue_declare(self.level(number), passive=True)
        return int(declared.message_count)

    def receive(self, count: int) -> list[Any]:
        """What arrives, and when: (body, time, x-death)."""
        arrived: list[Any] = []

        def on_message(message: Any) -> None:
            arrived.append((message.payload, time.time(), message.headers["x-death"]))
            message.ack()

        with self.connection.Consumer(self.queue, on_message=on_message):
            while len(arrived) < count:
                self.connection.drain_events(timeout=DEADLINE_SECONDS)
        return arrived

    def delete(self) -> None:
        for number in range(MAX_LEVEL + 1):
            self.channel.queue_delete(self.level(number))
            self.channel.exchange_delete(self.level(number))
        self.channel.queue_delete(self.name)
        self.channel.exchange_delete(self.name)
        self.channel.exchange_delete(f"{self.name}_celery_delayed_delivery")


@pytest.fixture(params=["classic", "quorum"])
def delays(request: pytest.FixtureRequest, broker: RunningBroker, name: str) -> Iterator[Delays]:
    with Connection(broker.url) as connection:
        delays = Delays(connection, request.param, name)
        yield delays
        delays.delete()


def test_many_delayed_messages_pass_through_their_levels_in_time(delays: Delays) -> None:
    due = {}
    for number in range(300):
        seconds = 1 + number % 3
        due[number] = time.time() + seconds
        delays.publish(number, seconds)
    assert [delays.count(number) for number in (0, 1, 2)] == [100, 200, 0]
    arrived = delays.receive(len(due))
    assert sorted(body for body, _, _ in arrived) == sorted(due)
    levels = {delays.level(0): 1, delays.level(1): 2}
    for body, at, deaths in arrived:
        assert due[body] - 0.05 <= at < due[body] + DEADLINE_SECONDS
        passed = [(death["queue"], death["reason"]) for death in deaths]
        # Three seconds are two and one: the last one is named first.
        assert passed == [(name, "expired") for name, s in levels.items() if (1 + body % 3) & s]


def test_declaring_the_levels_again_changes_nothing(delays: Delays, broker: RunningBroker) -> None:
    delays.publish("later", 2**27 + 2**3)
    with Connection(broker.url) as other:
        again = Delays(other, delays.queue_type, delays.name)
        assert again.count(MAX_LEVEL) == 1
        again.publish("soon", 1)
        [(body, _, _)] = again.receive(1)
    assert body == "soon"

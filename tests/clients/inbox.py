"""What a blocking pika consumer has received, awaited with a deadline."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

DEADLINE_SECONDS = 10.0


class Delivery(NamedTuple):
    """One basic.deliver with its content."""

    method: Any
    properties: Any
    body: bytes


def pump(connection: Any, until: Callable[[], bool]) -> None:
    """Handle what arrives on `connection` until `until` is true; fail at the deadline."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not until():
        assert time.monotonic() < deadline, "nothing more arrived"
        connection.process_data_events(time_limit=0.1)


class Inbox:
    """A consumer on `channel` that keeps its deliveries in order, and does not acknowledge them."""

    def __init__(self, channel: Any, queue: str, **arguments: Any) -> None:
        self.channel = channel
        self.queue = queue
        self.deliveries: list[Delivery] = []
        self.consumer_tag: str = channel.basic_consume(
            queue, on_message_callback=self._receive, **arguments
        )

    def _receive(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        self.deliveries.append(Delivery(method, properties, body))

    @property
    def bodies(self) -> list[bytes]:
        return [delivery.body for delivery in self.deliveries]

    def wait(self, count: int) -> list[Delivery]:
        """Wait for `count` deliveries in all, then make sure that no more are under way."""
        pump(self.channel.connection, lambda: len(self.deliveries) >= count)
        self.settle()
        assert len(self.deliveries) == count, self.bodies
        return self.deliveries

    def settle(self) -> None:
        """Receive what the queue had delivered by now: the queue answers after its deliveries."""
        self.channel.queue_declare(self.queue, passive=True)
        self.channel.connection.process_data_events(time_limit=0)

"""Consumers, and the turns they take on one queue."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from broker.core.message import Entry
from broker.wire.table import Table

if TYPE_CHECKING:
    from broker.core.queue import Queue

BATCH_MAX = 4096
"""Messages one consumer gets at once. A bound on one turn of the loop; octets are bounded too."""


class Sink(Protocol):
    """Where a consumer's messages go: a channel."""

    def room(self) -> int:
        """How many more messages this channel may hold unsettled or unsent; 0 if none."""

    def output_room(self) -> int:
        """How many octets its connection may still take before they are written."""

    def deliver(self, consumer: Consumer, entries: Sequence[Entry], size: int) -> None:
        """Sends these entries, of `size` octets in all, in order."""

    def cancelled(self, consumer: Consumer) -> None:
        """The queue of this consumer is gone."""


class Consumer:
    """One basic.consume. `unacked` counts deliveries that are not settled yet."""

    __slots__ = (
        "arguments",
        "exclusive",
        "heads",
        "is_waiting",
        "no_ack",
        "prefetch",
        "priority",
        "queue",
        "sink",
        "tag",
        "unacked",
    )

    def __init__(
        self,
        sink: Sink,
        queue: Queue,
        tag: str,
        *,
        no_ack: bool,
        exclusive: bool = False,
        prefetch: int = 0,
        priority: int = 0,
        arguments: Table | None = None,
    ) -> None:
        self.sink = sink
        self.queue = queue
        self.tag = tag
        self.no_ack = no_ack
        self.exclusive = exclusive
        # Automatic acknowledgement leaves nothing to limit (RabbitMQ, "Consumer Prefetch").
        self.prefetch = 0 if no_ack else prefetch
        self.priority = priority
        self.arguments: Table = arguments or {}
        self.unacked = 0
        # Whether it stands in its queue's line of consumers that can take a message.
        self.is_waiting = False
        # The start of a deliver frame for this consumer, by the length of what is behind it.
        self.heads: dict[int, bytes] = {}

    def room(self) -> int:
        """How many messages this consumer may get now."""
        if self.prefetch:
            return min(self.prefetch - self.unacked, BATCH_MAX, self.sink.room())
        return min(BATCH_MAX, self.sink.room())

    def wake(self) -> None:
        """Stand in line again, after room was made."""
        if not self.is_waiting:
            self.queue.consumers.wake(self)
            self.queue.touch()


class ConsumerLine:
    """The consumers of one queue. Those that may have room stand in a line for each priority and
    take turns; a full one leaves the line until `Consumer.wake`, so that no turn scans all."""

    __slots__ = ("_all", "_lines", "_priorities")

    def __init__(self) -> None:
        self._all: dict[Consumer, None] = {}
        self._lines: dict[int, deque[Consumer]] = {}
        self._priorities: list[int] = []

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Consumer]:
        return iter(list(self._all))

    def add(self, consumer: Consumer) -> None:
        """A new consumer joins, at the end of the line of its priority."""
        self._all[consumer] = None
        if consumer.priority not in self._lines:
            self._lines[consumer.priority] = deque()
            self._priorities = sorted(self._lines, reverse=True)
        self.wake(consumer)

    def remove(self, consumer: Consumer) -> None:
        """A consumer leaves; one that is not there is no error."""
        if self._all.pop(consumer, False) is False:
            return
        if consumer.is_waiting:
            self._lines[consumer.priority].remove(consumer)
            consumer.is_waiting = False
        if not any(other.priority == consumer.priority for other in self._all):
            del self._lines[consumer.priority]
            self._priorities.remove(consumer.priority)

    def wake(self, consumer: Consumer) -> None:
        """Puts a consumer that may have room (again) at the end of its line."""
        if not consumer.is_waiting and consumer in self._all:
            consumer.is_waiting = True
            self._lines[consumer.priority].append(consumer)

    def line(self) -> deque[Consumer] | None:
        """The line with the highest priority in which somebody has room, its first one having
        room for sure; None if nobody has any."""
        for priority in self._priorities:
            line = self._lines[priority]
            while line:
                if line[0].room() > 0:
                    return line
                line.popleft().is_waiting = False
        return None

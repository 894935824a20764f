"""Consumers, and the turns they take on one queue."""

from __future__ import annotations

from bisect import insort
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

from broker.core.arguments import EXPIRY_MAX_MS
from broker.core.message import Entry
from broker.core.rules import QueueRules
from broker.wire.table import Table

if TYPE_CHECKING:
    from broker.core.queue import Queue

BATCH_MAX = 4096
"""Messages one consumer gets at once. A bound on one turn of the loop; octets are bounded too."""


class Owner(Protocol):
    """What an exclusive queue belongs to: a connection."""


class Sink(Protocol):
    """Where a consumer's messages go: a channel. `prefetch` is how many messages all its consumers
    together may hold; 0 for any number."""

    prefetch: int

    def room(self) -> int:
        """How many more messages this channel may hold unsettled or unsent; 0 if none."""

    def output_room(self) -> int:
        """How many octets its connection may still take before they are written."""

    def deliver(self, consumer: Consumer, entries: Sequence[Entry], size: int) -> None:
        """Sends these entries, of `size` octets in all, in order."""

    def cancelled(self, consumer: Consumer) -> None:
        """The queue of this consumer is gone."""

    def timeout_changed(self, consumer: Consumer) -> None:
        """What this consumer holds has another time to be settled in, from now on."""


class Consumer:
    """One basic.consume. `unacked` counts deliveries that are not settled yet."""

    __slots__ = (
        "arguments",
        "exclusive",
        "heads",
        "is_waiting",
        "left_at",
        "no_ack",
        "prefetch",
        "priority",
        "queue",
        "sink",
        "tag",
        "timeout",
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
        # Milliseconds in which a delivery is to be settled; 0 for any time.
        self.timeout = 0 if no_ack else self._timeout(queue.rules)
        # Whether it stands in its queue's line of consumers that can take a message.
        self.is_waiting = False
        # When it left the line, by the line's own count.
        self.left_at = 0
        # The start of a deliver frame for this consumer, by the length of what is behind it.
        self.heads: dict[int, bytes] = {}

    def room(self) -> int:
        """How many messages this consumer may get now."""
        if self.prefetch:
            return min(self.prefetch - self.unacked, BATCH_MAX, self.sink.room())
        return min(BATCH_MAX, self.sink.room())

    def _timeout(self, rules: QueueRules) -> int:
        own = self.arguments.get("x-consumer-timeout")
        timeout = rules.consumer_timeout if own is None else own.value
        assert timeout is None or isinstance(timeout, int)
        return min(timeout or 0, EXPIRY_MAX_MS)

    def follow(self, rules: QueueRules) -> None:
        """The rules of its queue have changed. Its own argument comes before them."""
        timeout = 0 if self.no_ack else self._timeout(rules)
        if timeout != self.timeout:
            self.timeout = timeout
            self.sink.timeout_changed(self)

    def wake(self) -> None:
        """Stand in line again, after room was made."""
        if not self.is_waiting:
            self.queue.wake(self)


Line: TypeAlias = "OrderedDict[Consumer, None]"
"""Consumers of one priority in the order of their turns."""


class ConsumerLine:
    """The consumers of one queue. Those that may have room stand in a line for each priority and
    take turns; a full one leaves the line until `Consumer.wake`, so that no turn scans all.

    With `single_active` only the one that came first stands in line; when it goes, the next one
    takes over (RabbitMQ, "Single Active Consumer").
    """

    __slots__ = (
        "_all",
        "_left",
        "_lines",
        "_priorities",
        "exclusive_count",
        "limited_count",
        "single_active",
        "timed_out",
    )

    def __init__(self, *, single_active: bool = False) -> None:
        self.single_active = single_active
        self._all: dict[Consumer, None] = {}
        self._lines: dict[int, Line] = {}
        # Priorities whose line is not empty, negated so that the highest is first.
        self._priorities: list[int] = []
        self.exclusive_count = 0
        # Consumers on a channel that is limited as a whole: they share its room with others, and
        # perhaps with those of other queues.
        self.limited_count = 0
        self._left = 0
        # Deliveries that they did not settle in time, and those of basic.get.
        self.timed_out = 0

    def __len__(self) -> int:
        return len(self._all)

    @property
    def may_have_room(self) -> bool:
        """Whether somebody stands in line."""
        return bool(self._priorities)

    def __iter__(self) -> Iterator[Consumer]:
        return iter(list(self._all))

    def add(self, consumer: Consumer) -> None:
        """A new consumer joins, at the end of the line of its priority."""
        self._all[consumer] = None
        self.exclusive_count += consumer.exclusive
        self.limited_count += consumer.sink.prefetch > 0
        self.wake(consumer)

    def remove(self, consumer: Consumer) -> None:
        """A consumer leaves; one that is not there is no error."""
        if self._all.pop(consumer, False) is False:
            return
        self.exclusive_count -= consumer.exclusive
        self.limited_count -= consumer.sink.prefetch > 0
        if consumer.is_waiting:
            self._step_out(consumer)
        if self.single_active and self._all:
            self.wake(next(iter(self._all)))

    def wake(self, consumer: Consumer) -> None:
        """Puts a consumer that may have room (again) at the end of its line."""
        if consumer.is_waiting or consumer not in self._all:
            return
        if self.single_active and consumer is not next(iter(self._all)):
            return
        consumer.is_waiting = True
        line = self._lines.get(consumer.priority)
        if line is None:
            line = self._lines[consumer.priority] = OrderedDict()
            insort(self._priorities, -consumer.priority)
        line[consumer] = None

    def follow(self, rules: QueueRules) -> None:
        """The rules of the queue have changed."""
        for consumer in self._all:
            consumer.follow(rules)

    def step_back(self, consumer: Consumer) -> None:
        """Others of its priority have their turns before this consumer has its next one."""
        if consumer.is_waiting:
            self._lines[consumer.priority].move_to_end(consumer)

    def _step_out(self, consumer: Consumer) -> None:
        consumer.is_waiting = False
        self._left += 1
        consumer.left_at = self._left
        line = self._lines[consumer.priority]
        del line[consumer]
        if not line:
            del self._lines[consumer.priority]
            self._priorities.remove(-consumer.priority)

    def line(self) -> tuple[Line, Consumer, int] | None:
        """The line with the highest priority in which somebody has room, with its first consumer
        and how much room that one has; None if nobody has any."""
        while self._priorities:
            line = self._lines[-self._priorities[0]]
            first = next(iter(line))
            room = first.room()
            if room > 0:
                return line, first, room
            self._step_out(first)
        return None

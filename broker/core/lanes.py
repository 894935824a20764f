"""The lines in which the messages of a queue with priorities stand (`broker.core.priorities`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.core.message import ORIGIN, TTL, Entry, Origin, bodies_bytes
from broker.core.queue import Queue
from broker.core.rules import QueueRules

if TYPE_CHECKING:
    from broker.core.priorities import PriorityQueue

SHIFT: Final = 54
"""The numbers of a lane begin at its priority, shifted by this: none of 256 lanes has as many
messages, and all numbers are below `sys.maxsize`."""


class Part(Queue):
    """Some of the messages of a queue with priorities, which has its consumers."""

    __slots__ = ("whole",)

    def __init__(self, whole: PriorityQueue) -> None:
        super().__init__(whole.broker, whole.vhost_name, whole.name, durable=whole.durable)
        self.whole = whole
        self.consumers = whole.consumers
        # It never asks for a turn of its own.
        self._is_touched = True


class Lane(Part):
    """The messages of one priority. What of them is unsettled counts in the whole queue."""

    __slots__ = ("is_filled", "priority", "rank")

    def __init__(self, whole: PriorityQueue, priority: int) -> None:
        super().__init__(whole)
        self.priority = priority
        # What lanes are sorted by.
        self.rank = -priority
        self.next_number = (priority << SHIFT) + 1
        # Whether it is among those that may have messages.
        self.is_filled = False

    def apply_rules(self, rules: QueueRules) -> None:
        """From now on these rules hold for its messages; consumers are not its own."""
        self.follow(rules)

    def touch(self) -> None:
        """Asks for a turn of the whole queue."""
        self.whole.note(self)

    def append(self, entries: list[Entry], size: int) -> None:
        """Messages that have their numbers already, and count as memory, stand in line here."""
        if self.paged is None:
            self.ready.extend(entries)
            self.ready_bytes += size
        else:
            self.paged.add(entries, size)
        endless: Origin | None = None
        for number, message, _ in entries:
            if message[ORIGIN] is endless:
                continue
            if message[ORIGIN][TTL] is not None:
                self.expect([message], number)
            else:
                endless = message[ORIGIN]
        if self.rules.max_length_bytes is not None:
            self.body_bytes += bodies_bytes(entries)
        if self.broker.memory_used > self.broker.pager.mark:
            self.broker.pager.want(self)
        self.touch()

    def leave(self, entries: list[Entry], size: int, *, is_settled: bool) -> None:
        """Entries that left the ready ones are handed out."""
        super().leave(entries, size, is_settled=is_settled)
        if not is_settled:
            self.unacked_count = self.unacked_bytes = 0
            self.whole.count_unacked(len(entries), size)


class Arrivals(Part):
    """Messages of this batch, of any priority, in the order in which they came."""

    __slots__ = ()

    def add(self, entries: list[Entry], size: int) -> None:
        """They came."""
        self.ready.extend(entries)
        self.ready_bytes += size
        self.broker.memory_used += size
        self.broker.work += len(entries)

    def leave(self, entries: list[Entry], size: int, *, is_settled: bool) -> None:
        """Entries are handed out."""
        self.ready_bytes -= size
        if self.whole.lasting is not None:
            for lane, some in self.whole.by_lane(entries):
                if lane.lasting is not None:
                    lane.lasting.handed_out(some, is_settled=is_settled)
        if is_settled:
            if self.present is not None:
                self.present.gone(entries)
            self.broker.memory_used -= size
        else:
            self.whole.count_unacked(len(entries), size)

    def take_all(self) -> tuple[list[Entry], int]:
        """Takes what is left of them, and how many octets of memory that is."""
        entries, size = list(self.ready), self.ready_bytes
        self.ready.clear()
        self.ready_bytes = 0
        return entries, size

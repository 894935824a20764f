"""Least-loaded dispatch: a message goes to the consumer with the fewest unacknowledged ones.

Theory of operation. A heap for each priority holds (load, turn, consumer). A consumer that has
settled something is entered anew with what it holds then; its former entry stays until it comes to
the top, or until there are too many of those. `Consumer.is_waiting` is never set, so that whoever
releases deliveries always wakes the consumer: queues with other dispatch pay nothing for this.
"""

from __future__ import annotations

from bisect import insort
from collections import OrderedDict
from heapq import heapify, heappop, heappush

from broker.core.consumer import Consumer, ConsumerLine, Line
from broker.wire.table import Table

_STALE_MIN = 64
"""Entries of a heap that no longer hold, beyond twice those that do."""

Place = tuple[int, int, Consumer]
"""(load, turn, consumer): who has the lowest is next. No two have the same turn."""


class LeastLoadedLine(ConsumerLine):
    """Among the consumers of the highest priority that have room, the next one is who holds the
    fewest unacknowledged messages of this queue; among equals, who has not had a turn for the
    longest time, or never."""

    __slots__ = ("_heaps", "_places", "_served", "_turns")

    def __init__(self) -> None:
        super().__init__()
        self._heaps: dict[int, list[Place]] = {}
        # The entry of each consumer that may have room.
        self._places: dict[Consumer, Place] = {}
        # Who has its turn, with room for more than is known before the next one is asked for.
        self._served: Consumer | None = None
        # The turn each consumer had last.
        self._turns: dict[Consumer, int] = {}

    def add(self, consumer: Consumer) -> None:
        """A new consumer joins; among equals the last."""
        self._end_turn()
        self._take_turn(consumer)
        super().add(consumer)

    def remove(self, consumer: Consumer) -> None:
        """A consumer leaves; one that is not there is no error."""
        self._end_turn()
        self._places.pop(consumer, None)
        self._turns.pop(consumer, None)
        super().remove(consumer)

    def wake(self, consumer: Consumer) -> None:
        """A consumer may have room (again), or holds fewer than before."""
        self._end_turn()
        if consumer in self._all:
            self._enter(consumer)

    def step_back(self, consumer: Consumer) -> None:
        """Others that hold as many have their turns before this consumer has its next one."""
        self._end_turn()
        if consumer in self._all:
            self._take_turn(consumer)
            if self._places.pop(consumer, None) is not None:
                self._enter(consumer)

    def _take_turn(self, consumer: Consumer) -> None:
        self._left += 1
        self._turns[consumer] = consumer.left_at = self._left

    def _enter(self, consumer: Consumer) -> None:
        place = (consumer.unacked, self._turns[consumer], consumer)
        if self._places.get(consumer) == place:
            return
        self._places[consumer] = place
        heap = self._heaps.get(consumer.priority)
        if heap is None:
            heap = self._heaps[consumer.priority] = []
            insort(self._priorities, -consumer.priority)
        heappush(heap, place)
        if len(heap) > _STALE_MIN + 2 * len(self._places):
            heap[:] = [each for each in heap if self._places.get(each[2]) is each]
            heapify(heap)

    def _end_turn(self) -> None:
        """Who was served stands in line again, with what it holds now."""
        consumer, self._served = self._served, None
        if consumer is not None:
            self._take_turn(consumer)
            self._enter(consumer)

    def _first(self, heap: list[Place]) -> Place | None:
        """The lowest entry that holds."""
        while heap:
            if self._places.get(heap[0][2]) is heap[0]:
                return heap[0]
            heappop(heap)
        return None

    def line(self) -> tuple[Line, Consumer, int] | None:
        """Who is next, alone in a line, with how many messages it is to get before the next one is
        asked for; None if nobody has room. To be asked for only if there is a message."""
        self._end_turn()
        while self._priorities:
            heap = self._heaps[-self._priorities[0]]
            place = self._first(heap)
            if place is None:
                del self._heaps[-self._priorities.pop(0)]
                continue
            load, _, consumer = heappop(heap)
            del self._places[consumer]
            room = consumer.room()
            if room <= 0:
                continue
            self._served = consumer
            second = self._first(heap)
            if second is not None and not (consumer.no_ack and second[0] > load):
                # As one by one: with as many as the second it has had its turn.
                room = min(room, max(1, second[0] - load))
            return OrderedDict.fromkeys((consumer,)), consumer, room
        return None


def make_line(arguments: Table) -> ConsumerLine:
    """The line for the consumers of a queue with these (checked) arguments. Where a single one is
    active there is nobody to choose from."""
    single_active = arguments.get("x-single-active-consumer")
    if single_active is not None and single_active.value is True:
        return ConsumerLine(single_active=True)
    dispatch = arguments.get("x-dispatch")
    is_by_load = dispatch is not None and dispatch.value == "least-loaded"
    return LeastLoadedLine() if is_by_load else ConsumerLine()

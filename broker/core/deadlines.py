"""Deadlines by number: when something is due that can be anywhere in a queue.

Theory of operation. Sixteen octets for each, in buckets of time. A bucket near now is a 64th of a
second wide, one further away 64 times as wide, and so on: what is far away is put down once and
taken up a few times as it comes nearer, so that neither how many there are nor how far away they
are makes one cost more. What is settled before it is due stays until then, or until `keep`.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from heapq import heapify, heappop, heappush

SPAN = 64
"""Buckets of one width until the next wider one."""
WIDTH_MS = 16
"""The narrowest bucket."""
OPENED_AT_ONCE = 4096
"""Deadlines that are taken up in one turn."""
DEADLINE_BYTES = 16
"""Octets of memory for each deadline."""


class Deadlines:
    """(deadline, number) pairs; both are not negative and fit into eight octets. Time is in
    milliseconds, of whatever clock the caller has."""

    __slots__ = ("_buckets", "_due", "_starts", "count")

    def __init__(self) -> None:
        # By (start, width): deadlines, and the numbers they are of.
        self._buckets: dict[tuple[int, int], tuple[array[int], array[int]]] = {}
        # A heap of the keys of `_buckets`.
        self._starts: list[tuple[int, int]] = []
        # A heap of what is in the buckets that have begun.
        self._due: list[tuple[int, int]] = []
        self.count = 0

    def __len__(self) -> int:
        return self.count

    def add(self, deadline: int, number: int, now: int) -> None:
        """This number is due then."""
        self.count += 1
        self._put(deadline, number, now)

    def _put(self, deadline: int, number: int, now: int) -> None:
        width = WIDTH_MS
        ahead = deadline - now
        while ahead >= width * SPAN:
            width *= SPAN
        start = deadline - deadline % width
        while start <= now and width > WIDTH_MS:
            # That bucket has begun: what is in it is in narrower ones.
            width //= SPAN
            start = deadline - deadline % width
        if start <= now:
            heappush(self._due, (deadline, number))
            return
        key = start, width
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = array("Q"), array("Q")
            heappush(self._starts, key)
        bucket[0].append(deadline)
        bucket[1].append(number)

    @property
    def next(self) -> int | None:
        """When to ask for `take` again: not later than the first deadline, perhaps before it; None
        if there is none."""
        if self._due:
            if self._starts and self._starts[0][0] < self._due[0][0]:
                return self._starts[0][0]
            return self._due[0][0]
        return self._starts[0][0] if self._starts else None

    def take(self, now: int, most: int) -> list[int]:
        """Takes the numbers that are due, in the order of their deadlines, at most so many. None
        while what was put down for about now is still being taken up: that is done in parts."""
        room = OPENED_AT_ONCE
        while room > 0 and self._starts and self._starts[0][0] <= now:
            room -= self._open(now, room)
        due = self._due
        numbers: list[int] = []
        if not self._starts or self._starts[0][0] > now:
            while due and due[0][0] <= now and len(numbers) < most:
                numbers.append(heappop(due)[1])
        self.count -= len(numbers)
        return numbers

    def _open(self, now: int, most: int) -> int:
        """The first bucket has begun: what is in it goes to narrower ones, at most so many. Returns
        how many."""
        key = self._starts[0]
        deadlines, numbers = self._buckets[key]
        count = min(most, len(numbers))
        for deadline, number in zip(deadlines[-count:], numbers[-count:], strict=True):
            self._put(deadline, number, now)
        del deadlines[-count:], numbers[-count:]
        if not numbers:
            del self._buckets[key]
            # What it was opened into begins later.
            heappop(self._starts)
        return count

    def keep(self, is_wanted: Callable[[int], bool]) -> None:
        """Forgets all but what is wanted."""
        self._due = [pair for pair in self._due if is_wanted(pair[1])]
        heapify(self._due)
        self.count = len(self._due)
        for key, (deadlines, numbers) in list(self._buckets.items()):
            kept = [place for place, number in enumerate(numbers) if is_wanted(number)]
            self.count += len(kept)
            if kept:
                times = array("Q", [deadlines[place] for place in kept])
                self._buckets[key] = times, array("Q", [numbers[place] for place in kept])
            else:
                del self._buckets[key]
        self._starts = list(self._buckets)
        heapify(self._starts)

    def clear(self) -> None:
        """Forgets all."""
        self._buckets.clear()
        self._starts.clear()
        self._due.clear()
        self.count = 0

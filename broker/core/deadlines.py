"""Deadlines by number: when something is due that can be anywhere in a queue.

Theory of operation. Sixteen octets for each, in buckets of time. A bucket near now is a 64th of a
second wide, one further away 64 times as wide, and so on: what is far away is put down once and
taken up a few times as it comes nearer, so that neither how many there are nor how far away they
are makes one cost more. A bucket is taken up before it begins, in parts if it has many, so that no
turn takes long, and so that it is told what is due within a second or two (`near`). What is settled
before it is due stays until then, or until `keep`.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import TypeAlias

SPAN = 64
"""Buckets of one width until the next wider one."""
WIDTH_MS = 16
"""The narrowest bucket."""
NEAR_MS = WIDTH_MS * SPAN
"""What is due soon is near at least so long before it is due, if it was far away before."""
OPENED_AT_ONCE = 4096
"""Deadlines that are taken up in one turn."""
DEADLINE_BYTES = 16
"""Octets of memory for each deadline."""


_Start: TypeAlias = tuple[int, tuple[int, int]]


class Deadlines:
    """(deadline, number) pairs; both are not negative and fit into eight octets. Time is in
    milliseconds, of whatever clock the caller has."""

    __slots__ = ("_buckets", "_due", "_starts", "count", "near")

    def __init__(self) -> None:
        # By (start, width): deadlines, and the numbers they are of.
        self._buckets: dict[tuple[int, int], tuple[array[int], array[int]]] = {}
        # By width, the narrowest first: heaps of when each bucket is taken up, and its key.
        self._starts: dict[int, list[_Start]] = {WIDTH_MS: []}
        # A heap of what is in the buckets that have begun.
        self._due: list[tuple[int, int]] = []
        # What the last `take` found to be near, in no order.
        self.near: list[tuple[int, int]] = []
        self.count = 0

    def __len__(self) -> int:
        return self.count

    def add(self, deadline: int, number: int, now: int) -> None:
        """This number is due then."""
        self.count += 1
        self._put(deadline, number, now)

    def _put(self, deadline: int, number: int, now: int, widest: int = sys.maxsize) -> bool:
        """Whether it is near."""
        width = WIDTH_MS
        # A wider bucket begins after what is near.
        ahead = deadline - now - NEAR_MS
        while ahead >= width * SPAN and width * SPAN <= widest:
            width *= SPAN
        start = deadline - deadline % width
        while start <= now and width > WIDTH_MS:
            # That bucket has begun: what is in it is in narrower ones.
            width //= SPAN
            start = deadline - deadline % width
        if start <= now:
            heappush(self._due, (deadline, number))
            return True
        key = start, width
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = array("Q"), array("Q")
            if width not in self._starts:
                self._starts = dict(sorted([*self._starts.items(), (width, [])]))
            heappush(self._starts[width], (_open_at(key), key))
        bucket[0].append(deadline)
        bucket[1].append(number)
        return width == WIDTH_MS

    @property
    def next(self) -> int | None:
        """When to ask for `take` again: not later than the first deadline, perhaps before it; None
        if there is none."""
        firsts = [starts[0][0] for starts in self._starts.values() if starts]
        if self._due:
            firsts.append(self._due[0][0])
        return min(firsts, default=None)

    @property
    def has_near(self) -> bool:
        """Whether anything is near, or due."""
        return bool(self._due or self._starts[WIDTH_MS])

    def may_be_due(self, now: int) -> bool:
        """Whether some are due, as far as is known without a look at those of wider buckets."""
        is_due = bool(self._due) and self._due[0][0] <= now
        return is_due or any(heap and heap[0][1][0] <= now for heap in self._starts.values())

    def is_behind(self, now: int) -> bool:
        """Whether the next `take` will take up more that comes nearer."""
        return any(heap and heap[0][0] <= now for heap in self._starts.values())

    def take(self, now: int, most: int) -> list[int]:
        """Takes the numbers that are due, in the order of their deadlines, at most so many. None
        while some that may be due are still being taken up."""
        due = self._due
        numbers: list[int] = []
        self.near = []
        room = OPENED_AT_ONCE
        for starts in list(self._starts.values()):
            while room > 0 and starts and starts[0][0] <= now:
                room -= self._open(starts, now, room)
        if room <= 0 and any(heap and heap[0][1][0] <= now for heap in self._starts.values()):
            return numbers
        while len(numbers) < most:
            if not due or due[0][0] > now:
                break
            numbers.append(heappop(due)[1])
        self.count -= len(numbers)
        return numbers

    def _open(self, starts: list[_Start], now: int, most: int) -> int:
        """The first bucket is taken up: what is in it goes to narrower ones, at most so many at a
        time. Returns how many went."""
        key = starts[0][1]
        bucket = deadlines, numbers = self._buckets[key]
        some = list(zip(deadlines[:most], numbers[:most], strict=True))
        if len(some) == len(deadlines):
            heappop(starts)
            del self._buckets[key]
        else:
            for column in bucket:
                del column[:most]
        width = key[1]
        if width == WIDTH_MS:
            for pair in some:
                heappush(self._due, pair)
        else:
            for pair in some:
                if self._put(*pair, now, width // SPAN):
                    self.near.append(pair)
        return len(some)

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
        for width in self._starts:
            self._starts[width] = [(_open_at(key), key) for key in self._buckets if key[1] == width]
            heapify(self._starts[width])

    def clear(self) -> None:
        """Forgets all."""
        self._buckets.clear()
        for starts in self._starts.values():
            starts.clear()
        self._due.clear()
        self.near.clear()
        self.count = 0


def _open_at(key: tuple[int, int]) -> int:
    """When a bucket is taken up: a wide one so early that its parts are done before they are
    near."""
    start, width = key
    return start if width == WIDTH_MS else start - NEAR_MS - width // SPAN

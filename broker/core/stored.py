"""Where the messages of one queue are in the log: an index of runs, a few octets each.

A run is messages with consecutive numbers that were stored by one record. Only what says where it
is and how much of it is still wanted is kept, in columns, so that a backlog of millions fits into
memory although its messages do not.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import compress
from operator import mul
from typing import NamedTuple

Freed = Callable[[int, int], None]
"""Told (position, octets) of what is not wanted any more."""

Grown = Callable[[int], None]
"""Told how many octets of memory the index takes more, or less."""

_COMPACT_FROM = 256
"""Empty runs that are kept before the columns are moved up: in front, or between others."""
_EMPTY_FROM = 8
"""The same where no others are behind them: many queues are empty most of the time."""
_NO_STOP = 2**64 - 1
"""More than the number of any message."""
_TYPES = "QIQIIII"
RUN_BYTES = sum(array(code).itemsize for code in (*_TYPES, "I"))
"""Octets of memory for each run."""
SETTLED_BYTES = 72
"""The same for each settled message of a run that has others: a number, and its place in a set."""


class Run(NamedTuple):
    """Messages `first` to `first + total - 1` of a queue."""

    first: int
    total: int
    position: int
    """The batch they are in."""
    offset: int
    """Where the payload of their record begins in the batch."""
    size: int
    """Octets of that payload."""
    skipped: int
    """Messages of the record that come before the first of these."""
    share: int
    """Octets in the log that count for each message in this queue."""

    @property
    def stop(self) -> int:
        """The number behind the last one."""
        return self.first + self.total

    def part(self, low: int, high: int) -> Run:
        """The messages `low` to `high - 1` of it."""
        return self._replace(first=low, total=high - low, skipped=self.skipped + low - self.first)


_FIRST, _TOTAL, _POSITION, _, _, _SKIPPED, _SHARE = range(len(Run._fields))


class _Columns(NamedTuple):
    """Runs and how much of each is live, in columns."""

    values: list[array[int]]
    live: array[int]

    def add(self, run: Run, live: int) -> None:
        for values, value in zip(self.values, run, strict=True):
            values.append(value)
        self.live.append(live)

    def copy(self, columns: list[array[int]], live: array[int], low: int, high: int) -> None:
        for values, others in zip(self.values, columns, strict=True):
            values.extend(others[low:high])
        self.live.extend(live[low:high])


class StoredRuns:
    """The runs of one queue, by number. `freed` is told whenever octets in the log are let go,
    `grown` what memory the index takes."""

    __slots__ = (
        "_columns",
        "_empty",
        "_firsts",
        "_freed",
        "_grown",
        "_live",
        "_settled",
        "_start",
        "count",
    )

    def __init__(self, freed: Freed, grown: Grown) -> None:
        self._freed = freed
        self._grown = grown
        # The fields of `Run`, one column each.
        self._columns = [array(code) for code in _TYPES]
        self._firsts = self._columns[0]
        # Messages of each run that are not settled.
        self._live = array("I")
        # Settled numbers in runs that have others which are not.
        self._settled: set[int] = set()
        # Runs of which nothing is live: those before `_start`, and others.
        self._empty = 0
        self._start = 0
        # Messages that are stored and not settled.
        self.count = 0

    def __bool__(self) -> bool:
        return self.count > 0

    def add(self, run: Run) -> None:
        """Messages were stored whose numbers are above all that are here."""
        # Written out: a loop takes twice as long, and a start does this for each record.
        first, total, position, offset, size, skipped, share = run
        firsts, totals, positions, offsets, sizes, skips, shares = self._columns
        firsts.append(first)
        totals.append(total)
        positions.append(position)
        offsets.append(offset)
        sizes.append(size)
        skips.append(skipped)
        shares.append(share)
        self._live.append(total)
        self.count += total
        self._grown(RUN_BYTES)

    def settle(self, first: int, count: int) -> None:
        """Messages `first` to `first + count - 1` are gone; what is not stored is passed over."""
        stop = first + count
        low = max(self._start, bisect_right(self._firsts, first, self._start) - 1)
        high = bisect_left(self._firsts, stop, low)
        places = range(low, high)
        if len(places) > 2:
            # Those between the first one and the last one go as a whole.
            self._settle_whole(low + 1, high - 1)
            places = range(low, high, high - low - 1)
        for place in places:
            if self._live[place]:
                run = self._run(place)
                begin, end = max(first, run.first), min(stop, run.stop)
                if begin < end:
                    self._settle_in(place, run, begin, end)
        self._pass_empty()

    def _settle_whole(self, low: int, high: int) -> None:
        """All messages of the runs from one place up to another are gone."""
        lives = self._live[low:high]
        places = self._columns[_POSITION][low:high]
        for position, octets in zip(
            places, map(mul, self._columns[_SHARE][low:high], lives), strict=True
        ):
            if octets:
                self._freed(position, octets)
        self.count -= sum(lives)
        self._empty += len(lives) - lives.count(0)
        self._live[low:high] = array("I", bytes(len(lives) * lives.itemsize))
        if self._settled:
            self._forget_settled(self._firsts[low], self._run(high - 1).stop)

    def _settle_in(self, place: int, run: Run, low: int, high: int) -> None:
        taken = high - low
        if self._settled:
            taken -= len(self._settled.intersection(range(low, high)))
        is_in_order = low == run.first and self._live[place] == run.total
        self._live[place] -= taken
        self.count -= taken
        if self._live[place] and is_in_order:
            self._cut(place, taken)
        elif self._live[place]:
            self._settled.update(range(low, high))
            self._grown(taken * SETTLED_BYTES)
        else:
            self._empty += 1
            if taken < run.total:
                self._forget_settled(run.first, run.stop)
        self._freed(run.position, run.share * taken)

    def _cut(self, place: int, count: int) -> None:
        """The first ones of a run are settled, the others are not: it begins behind them."""
        columns = self._columns
        columns[_FIRST][place] += count
        columns[_TOTAL][place] -= count
        columns[_SKIPPED][place] += count

    def _forget_settled(self, first: int, stop: int) -> None:
        """Nothing is left of these numbers: what was settled of them before says nothing more."""
        before = len(self._settled)
        if stop - first < before:
            self._settled.difference_update(range(first, stop))
        else:
            self._settled = {n for n in self._settled if not first <= n < stop}
        self._grown((len(self._settled) - before) * SETTLED_BYTES)

    def _pass_empty(self) -> None:
        start = self._start
        live = self._live
        while start < len(live) and not live[start]:
            start += 1
        self._start = start
        if (start > _COMPACT_FROM and start * 2 > len(live)) or _EMPTY_FROM <= start == len(live):
            for values in self._columns:
                del values[:start]
            del live[:start]
            self._start = 0
            self._empty -= start
            self._grown(-start * RUN_BYTES)
        elif self._empty - start > _COMPACT_FROM + 2 * (len(live) - self._empty):
            self._drop_empty()

    def _drop_empty(self) -> None:
        # One old message may have settled ones without end behind it. It takes a look at all runs,
        # so most of them have to be empty.
        for values in self._columns:
            values[:] = array(values.typecode, compress(values, self._live))
        self._live[:] = array("I", filter(None, self._live))
        self._start = 0
        self._grown(-self._empty * RUN_BYTES)
        self._empty = 0

    def clear(self) -> None:
        """The queue is deleted."""
        if self.count:
            self._settle_whole(self._start, len(self._live))
        self._grown(-len(self._live) * RUN_BYTES)
        for values in self._columns:
            del values[:]
        del self._live[:]
        self._grown(-len(self._settled) * SETTLED_BYTES)
        self._settled.clear()
        self._start = self._empty = self.count = 0

    def _run(self, place: int) -> Run:
        return Run(*[values[place] for values in self._columns])

    def _place(self, number: int) -> int:
        """Where the run is that has this number, if any has."""
        return bisect_right(self._firsts, number, self._start) - 1

    def runs_from(self, number: int, stop: int = _NO_STOP) -> Iterator[Run]:
        """The runs that have unsettled messages, from the one with this number on, as far as they
        begin before `stop`; those behind are not looked at. Nothing may be added, settled or moved
        while they are taken."""
        end = bisect_left(self._firsts, stop, self._start)
        for place in range(max(self._start, self._place(number)), end):
            if self._live[place]:
                run = self._run(place)
                if run.stop > number:
                    yield run

    def durable_stop(self, first: int, stop: int, durable: int) -> int:
        """The number up to which everything from `first` on, but not beyond `stop`, is in the log
        in a batch up to `durable`: what is not settled of it can be read."""
        number = first
        for run in self.runs_from(first, stop):
            if run.first > number or run.position > durable:
                break
            number = run.stop
        return min(number, stop)

    def has_all(self, first: int, stop: int) -> bool:
        """Whether these numbers are those of one run, and none of them is settled."""
        place = self._place(first)
        if place < self._start or self._settled or not self._live[place]:
            return False
        return stop <= self._firsts[place] + self._columns[_TOTAL][place]

    def __contains__(self, number: int) -> bool:
        """Whether the message with this number is stored, and not settled."""
        place = self._place(number)
        if place < self._start or not self._live[place] or number in self._settled:
            return False
        return number < self._firsts[place] + self._columns[_TOTAL][place]

    def find(self, number: int) -> Run | None:
        """The run with this number; None if the message is settled, or not stored."""
        return self._run(self._place(number)) if number in self else None

    def numbers(self, first: int, stop: int) -> list[int]:
        """Those of the numbers `first` to `stop - 1` that are stored and not settled."""
        numbers: list[int] = []
        for run in self.runs_from(first, stop):
            numbers += range(max(first, run.first), min(stop, run.stop))
        if self._settled:
            return [number for number in numbers if number not in self._settled]
        return numbers

    def unsettled(self, run: Run) -> list[int]:
        """The numbers of a run that are not settled."""
        numbers = range(run.first, run.stop)
        if not self._settled:
            return list(numbers)
        return [number for number in numbers if number not in self._settled]

    def insert_all(self, news: Sequence[Run]) -> None:
        """Messages were stored anew, elsewhere, or come back with a log that is read again: their
        old places, if there are any, are not wanted any more. The runs are in ascending order
        and share no number. Each run that they touch is looked at once, and all others are moved
        once."""
        low = max(self._start, self._place(news[0].first))
        high = bisect_left(self._firsts, news[-1].stop, low)
        made = _Columns([array(code) for code in _TYPES], array("I"))
        at = low
        rest: Run | None = None
        for new in news:
            if rest is not None and rest.first < new.first:
                self._keep(made, rest.part(rest.first, min(rest.stop, new.first)))
                rest = rest.part(new.first, rest.stop) if rest.stop > new.first else None
            if rest is None:
                before = bisect_left(self._firsts, new.first, at, high)
                if before > at and self._live[before - 1]:
                    last = self._run(before - 1)
                    if last.stop > new.first:
                        made.copy(self._columns, self._live, at, before - 1)
                        self._keep(made, last.part(last.first, new.first))
                        rest = last.part(new.first, last.stop)
                        at = before
                made.copy(self._columns, self._live, at, before)
                at = max(at, before)
            while rest is not None or (at < high and self._firsts[at] < new.stop):
                if rest is None:
                    self._empty -= not self._live[at]
                    rest = self._run(at) if self._live[at] else None
                    at += 1
                    continue
                end = min(rest.stop, new.stop)
                count = len(self.unsettled(rest.part(rest.first, end)))
                self._freed(rest.position, rest.share * count)
                self.count -= count
                if end < rest.stop:
                    rest = rest.part(end, rest.stop)
                    break
                rest = None
            if self._settled:
                self._forget_settled(new.first, new.stop)
            made.add(new, new.total)
            self.count += new.total
        if rest is not None:
            self._keep(made, rest)
        made.copy(self._columns, self._live, at, high)
        self._grown((len(made.live) - (high - low)) * RUN_BYTES)
        for values, made_values in zip(self._columns, made.values, strict=True):
            values[low:high] = made_values
        self._live[low:high] = made.live

    def _keep(self, made: _Columns, part: Run) -> None:
        """What is left of a run beside what was stored anew."""
        live = len(self.unsettled(part))
        if live:
            made.add(part, live)
        else:
            self._forget_settled(part.first, part.stop)

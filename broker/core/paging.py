"""Ready messages that are in the log alone, and reading them again.

A queue keeps a head in memory, from which it delivers, and a tail, where messages come in; what is
between is only indexed (`broker.core.stored`). The next ones are asked for while the head is being
delivered, so that consumers seldom wait for the disk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from broker.core import records
from broker.core.message import NUMBER, Entry, entry_size
from broker.core.stored import Run
from broker.storage.log import Position

if TYPE_CHECKING:
    from broker.core.journal import Journal
    from broker.core.lasting import Lasting
    from broker.core.queue import Queue

HEAD_BYTES = 1 << 19
"""Octets of ready messages that a queue keeps in memory to deliver from; the next ones are read
when there are less."""
FETCH_BYTES = 1 << 20
"""Octets that are read at once, if the queue has as many."""
FETCH_RUNS = 1024
"""Runs that are read at once."""


class Paged:
    """Messages `first` to `stop - 1` of a queue, as far as they are stored and not settled: there
    are `count` of them. `tail` are those behind, in memory."""

    __slots__ = ("count", "first", "is_reading", "lasting", "stop", "tail", "tail_bytes", "waiting")

    def __init__(self, lasting: Lasting, first: int, stop: int, count: int) -> None:
        self.lasting = lasting
        self.first = first
        self.stop = stop
        self.count = count
        self.tail: deque[Entry] = deque()
        self.tail_bytes = 0
        self.is_reading = False
        # Called when the next messages are there.
        self.waiting: list[Callable[[bool], None]] = []

    def __len__(self) -> int:
        return self.count + len(self.tail)

    def add_tail(self, entries: Iterable[Entry], size: int) -> None:
        """New messages, behind all others."""
        self.tail.extend(entries)
        self.tail_bytes += size

    def tell(self, *, is_there: bool) -> None:
        """Those who wait for the next messages go on."""
        waiting, self.waiting = self.waiting, []
        for callback in waiting:
            callback(is_there)

    def page_out(self, stop: int) -> int:
        """Lets those of the tail go that the log has, and returns how many octets of memory that
        were. All numbers are below `stop`."""
        tail = self.tail
        if not tail:
            return 0
        first = tail[0][NUMBER]
        durable = self.lasting.journal.durable
        end = self.lasting.stored.durable_stop(first, stop, durable)
        if not self.count:
            # What is before is in memory, or gone.
            self.first = first
        size = 0
        while tail and tail[0][NUMBER] < end:
            size += entry_size(tail.popleft())
            self.count += 1
        if not size:
            return 0
        self.stop = end
        self.tail_bytes -= size
        return size

    def settle_all(self) -> None:
        """The queue is purged: none of them is wanted any more."""
        stored = self.lasting.stored
        numbers = [entry[NUMBER] for entry in self.tail]
        for run in stored.runs_from(self.first):
            if run.first >= self.stop:
                break
            numbers += [n for n in stored.unsettled(run) if self.first <= n < self.stop]
        self.lasting.settled_numbers(numbers)


def take_head(entries: deque[Entry], octets: int) -> tuple[deque[Entry], int]:
    """Takes entries from the front until they have so many octets of memory; and how many."""
    head: deque[Entry] = deque()
    size = 0
    while entries and size < octets:
        entry = entries.popleft()
        size += entry_size(entry)
        head.append(entry)
    return head, size


class Pager:
    """Reads messages again, for the queues that want them."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def fetch(self, queue: Queue) -> None:
        """Asks for the next messages of this queue, unless that is under way."""
        paged = queue.paged
        if paged is None or paged.is_reading:
            return
        runs = _next_runs(paged, self._journal.durable)
        paged.is_reading = True
        if runs and runs[0].position > self._journal.durable:
            # It was stored anew just now.
            again = partial(self._fetch_again, queue, paged)
            self._journal.when_durable(runs[0].position, again)
            return
        locations = [(run.position, run.offset, run.size) for run in runs]

        def done(pieces: list[bytes] | None) -> None:
            paged.is_reading = False
            if pieces is not None and queue.paged is paged:
                _take(queue, paged, runs, pieces)
            paged.tell(is_there=pieces is not None)
            self._journal.on_progress()

        self._journal.log.read(locations, done)

    def _fetch_again(self, queue: Queue, paged: Paged, is_durable: bool) -> None:
        paged.is_reading = False
        if is_durable:
            self.fetch(queue)
        else:
            paged.tell(is_there=False)


def _next_runs(paged: Paged, durable: Position) -> list[Run]:
    """The runs to read next: what is durable, or the first one that is not yet."""
    runs: list[Run] = []
    size = 0
    for run in paged.lasting.stored.runs_from(paged.first):
        if run.first >= paged.stop or len(runs) >= FETCH_RUNS or size >= FETCH_BYTES:
            break
        if run.position > durable and runs:
            break
        runs.append(run)
        size += run.size
    return runs


def _take(queue: Queue, paged: Paged, runs: list[Run], pieces: list[bytes]) -> None:
    lasting = paged.lasting
    entries: list[Entry] = []
    for run, piece in zip(runs, pieces, strict=True):
        messages = records.read_put(piece, 0).messages(piece)
        # It may have been stored anew since, in parts.
        for number in range(max(run.first, paged.first), min(run.stop, paged.stop)):
            if lasting.stored.find(number) is not None:
                message = messages[run.skipped + number - run.first]
                entries.append((number, message, lasting.times_returned(number)))
        paged.first = max(paged.first, min(run.stop, paged.stop))
    paged.count = paged.count - len(entries) if runs else 0
    size = sum(map(entry_size, entries))
    queue.page_in(entries, size)

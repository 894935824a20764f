"""Ready messages that are in a log alone, and reading them again.

Theory of operation. Above the paging mark a queue keeps a head in memory, from which it delivers,
and a tail, where messages come in; what is between is only indexed (`broker.core.stored`). The
next ones are asked for while the head is being delivered, so that consumers seldom wait for the
disk. What lasts is in the broker's log already. What does not is written to a scratch log, which
nobody waits for and which ends with the broker; it is opened when it is needed first.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from broker.core import records
from broker.core.lasting import Lasting
from broker.core.message import FRAMING, MESSAGE, NUMBER, ORIGIN, PERSISTENT, Entry, entry_size
from broker.core.stored import Run

if TYPE_CHECKING:
    from broker.core.broker import Broker
    from broker.core.journal import Journal
    from broker.core.queue import Queue

MARK_SHARE = 0.5
"""Of the memory limit: above it queues page out."""
MARK_LOW_SHARE = 0.9
"""Of the mark: below it all is forgotten that could be paged out. A gap, since it takes a look at
every queue to begin anew."""
HEAD_BYTES = 1 << 19
"""Octets of ready messages that a queue keeps in memory to deliver from; the next ones are read
when there are less."""
HEAD_BYTES_MIN = 1 << 14
"""The same where there are so many queues that their heads would take all memory."""
FETCH_BYTES = 1 << 20
"""Octets that are read at once, if the queue has as many."""
FETCH_RUNS = 1024
"""Runs that are read at once."""
STEP_BYTES = 2 << 20
"""Octets that are paged out in one turn of the loop."""
STEP_QUEUES = 64
"""Queues that are looked at in one turn of the loop."""
RUN_BYTES = 1 << 18
"""Octets of one record in the scratch log: it is read again as a whole."""
DROP_MAX = 8192
"""Messages that are let go at once."""


class Paged:
    """Messages `first` to `stop - 1` of a queue, as far as they are stored and not settled: there
    are `count` of them. Behind them, in memory, are those of `tail`, which are stored or about to
    be, and then those of `fresh`, which nobody has stored for the sake of memory yet."""

    __slots__ = (
        "count",
        "first",
        "fresh",
        "is_reading",
        "queue",
        "stop",
        "tail",
        "tail_bytes",
        "waiting",
    )

    def __init__(self, queue: Queue, first: int, stop: int, count: int) -> None:
        self.queue = queue
        self.first = first
        self.stop = stop
        self.count = count
        self.tail: deque[Entry] = deque()
        self.fresh: deque[Entry] = deque()
        # Octets of both.
        self.tail_bytes = 0
        self.is_reading = False
        # Called when the next messages are there.
        self.waiting: list[Callable[[bool], None]] = []

    def __len__(self) -> int:
        return self.count + len(self.tail) + len(self.fresh)

    @property
    def stores(self) -> list[Lasting]:
        """Where its messages may be."""
        queue = self.queue
        return [store for store in (queue.lasting, queue.scratch) if store is not None]

    def add(self, entries: Iterable[Entry], size: int) -> None:
        """New messages, behind all others."""
        self.fresh.extend(entries)
        self.tail_bytes += size

    def tell(self, *, is_there: bool) -> None:
        """Those who wait for the next messages go on."""
        waiting, self.waiting = self.waiting, []
        for callback in waiting:
            callback(is_there)

    def store(self, octets: int) -> int:
        """Sees to it that messages of so many octets are stored, and returns how many are now."""
        fresh = self.fresh
        size = 0
        while fresh and size < octets:
            if self.queue.lasting is None or not fresh[0][MESSAGE][ORIGIN][PERSISTENT]:
                scratch = self.queue.broker.pager.scratch_of(self.queue)
                if scratch is None:
                    break
                run, run_bytes = self._next_run()
                messages = [entry[MESSAGE] for entry in run]
                scratch.journal.put([scratch], [run[0][NUMBER]], messages)
            else:
                run, run_bytes = self._next_run()
            self.tail.extend(run)
            size += run_bytes
        return size

    def _next_run(self) -> tuple[list[Entry], int]:
        """Takes what can be one record, and how many octets of memory that is."""
        fresh = self.fresh
        entry = fresh.popleft()
        run = [entry]
        size = entry_size(entry)
        origin, framing = entry[MESSAGE][ORIGIN], entry[MESSAGE][FRAMING]
        while fresh and size < RUN_BYTES:
            number, message, _ = fresh[0]
            is_next = number == run[-1][NUMBER] + 1
            if not is_next or message[ORIGIN] is not origin or message[FRAMING] != framing:
                break
            size += entry_size(fresh[0])
            run.append(fresh.popleft())
        return run, size

    def drop(self, octets: int) -> int:
        """Lets those of the tail go that can be read again, of about so many octets, and returns
        how many octets of memory that were."""
        tail = self.tail
        if not tail:
            return 0
        first = tail[0][NUMBER]
        end = self._durable_stop(first, min(tail[-1][NUMBER] + 1, first + DROP_MAX))
        if not self.count:
            # What is before is in memory, or gone.
            self.first = self.stop = first
        size = 0
        while tail and tail[0][NUMBER] < end and size < octets:
            self.stop = tail[0][NUMBER] + 1
            size += entry_size(tail.popleft())
            self.count += 1
        self.tail_bytes -= size
        return size

    def _durable_stop(self, first: int, stop: int) -> int:
        """The number up to which everything from `first` on can be read again."""
        number, reached = first - 1, first
        while number < reached < stop:
            number = reached
            reached = max(
                store.stored.durable_stop(number, stop, store.journal.durable)
                for store in self.stores
            )
        return reached

    def next_runs(self, octets: int) -> tuple[Lasting, list[Run]]:
        """The runs to read next, and where they are stored: what is durable of them, or the first
        one that is not yet."""
        begins = sorted(
            (max(run.first, self.first), place)
            for place, store in enumerate(self.stores)
            for run in [next(store.stored.runs_from(self.first), None)]
            if run is not None
        )
        store = self.stores[begins[0][1]]
        stop = min([self.stop, *(first for first, _ in begins[1:])])
        runs: list[Run] = []
        size = 0
        for run in store.stored.runs_from(self.first):
            if run.first >= stop or len(runs) >= FETCH_RUNS or size >= octets:
                break
            if run.position > store.journal.durable and runs:
                break
            runs.append(run)
            size += run.size
        return store, runs


class Pager:
    """Keeps the messages of a broker within its memory: above `mark` octets queues page out, a
    little in each turn. `open_scratch` makes the log for what does not last."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.limit = broker.limits.memory or sys.maxsize
        self.mark = int(broker.limits.memory * MARK_SHARE) or sys.maxsize
        self.open_scratch: Callable[[], Journal | None] = lambda: None
        self.scratch: Journal | None = None
        self._is_opened = False
        self._is_paging = False
        self._next_id = 1
        # Queues that have something in memory that could be paged out.
        self._queues: dict[Queue, None] = {}
        # Queues that read no more, since what they have handed out fills the memory.
        self._stalled: dict[Queue, None] = {}

    @property
    def head_bytes(self) -> int:
        """Octets that each queue keeps in memory."""
        count = sum(len(vhost.queues) for vhost in self._broker.vhosts.values())
        return min(HEAD_BYTES, max(HEAD_BYTES_MIN, self.mark // (4 * count or 1)))

    def want(self, queue: Queue) -> None:
        """Messages came to this queue, and memory is short."""
        self._queues[queue] = None

    def scratch_of(self, queue: Queue) -> Lasting | None:
        """Where messages of this queue go that do not last; None if there is no room for them."""
        if not self._is_opened:
            self._is_opened = True
            self.scratch = self.open_scratch()
            if self.scratch is not None:
                self._broker.journals.append(self.scratch)
        scratch = self.scratch
        if scratch is None or scratch.has_failed or scratch.is_behind:
            return None
        if queue.scratch is None:
            queue.scratch = Lasting(scratch, self._next_id)
            self._next_id += 1
        return queue.scratch

    def run(self) -> None:
        """One turn: pages out, if memory is short; lets queues read that had to wait."""
        broker = self._broker
        if broker.memory_used > self.mark:
            self._page_out()
        elif self._is_paging and broker.memory_used < self.mark * MARK_LOW_SHARE:
            self._is_paging = False
            self._queues.clear()
        if self._stalled and broker.memory_used <= self.limit:
            stalled, self._stalled = self._stalled, {}
            for queue in stalled:
                queue.touch()
            broker.run_deliveries()

    def _page_out(self) -> None:
        broker = self._broker
        if not self._is_paging:
            self._is_paging = True
            for vhost in broker.vhosts.values():
                self._queues |= dict.fromkeys(vhost.queues.values())
        octets = STEP_BYTES
        for _ in range(min(STEP_QUEUES, len(self._queues))):
            queue = next(iter(self._queues))
            del self._queues[queue]
            octets -= page_out(queue, octets)
            if queue.paged is not None and queue.paged.tail_bytes:
                self._queues[queue] = None
            if octets <= 0 or broker.memory_used <= self.mark:
                break

    def close(self) -> None:
        """Lets the scratch log go: what is in it ends with the broker. Blocks."""
        if self.scratch is not None:
            self._broker.journals.remove(self.scratch)
            self.scratch.log.close()
            self.scratch = None

    def must_wait(self, queue: Queue) -> bool:
        """Whether a queue may read nothing now: what its consumers hold fills the memory."""
        if self._broker.memory_used <= self.limit or queue.unacked_bytes <= self.head_bytes:
            return False
        self._stalled[queue] = None
        return True


def page_out(queue: Queue, octets: int) -> int:
    """Memory is short: ready messages behind the first ones stay in a log alone, as far as they
    can be read there. Returns how many octets were written or let go: about so many at most."""
    head_bytes = queue.broker.pager.head_bytes
    paged = queue.paged
    if paged is None:
        # Those that came back stay in memory.
        if queue.is_deleted or queue.ready_bytes - queue.returned_bytes <= 2 * head_bytes:
            return 0
        first = queue.ready[0][NUMBER]
        head, size = take_head(queue.ready, head_bytes)
        queue.paged = paged = Paged(queue, first, first, 0)
        size += queue.returned_bytes
        paged.add(queue.ready, queue.ready_bytes - size)
        queue.ready, queue.ready_bytes = head, size
    stored = paged.store(octets)
    dropped = paged.drop(octets)
    queue.broker.memory_used -= dropped
    return stored + dropped


def take_head(entries: deque[Entry], octets: int) -> tuple[deque[Entry], int]:
    """Takes entries from the front until they have so many octets of memory; and how many."""
    head: deque[Entry] = deque()
    size = 0
    while entries and size < octets:
        entry = entries.popleft()
        size += entry_size(entry)
        head.append(entry)
    return head, size


def fetch(queue: Queue, *, may_wait: bool = True) -> None:
    """Asks for the next messages of this queue, unless that is under way, or may wait and has to.
    If all are in memory, they are ready at once."""
    paged = queue.paged
    pager = queue.broker.pager
    if paged is None or paged.is_reading:
        return
    if not paged.count:
        _page_in(queue, paged, [], 0)
        return
    if may_wait and pager.must_wait(queue):
        return
    store, runs = paged.next_runs(min(FETCH_BYTES, 2 * pager.head_bytes))
    journal = store.journal
    paged.is_reading = True
    if runs[0].position > journal.durable:
        # It was stored anew just now.
        journal.when_durable(runs[0].position, partial(_fetch_again, queue, paged))
        return
    locations = [(run.position, run.offset, run.size) for run in runs]

    def done(pieces: list[bytes] | None) -> None:
        paged.is_reading = False
        if pieces is not None and queue.paged is paged:
            _take(queue, paged, store, list(zip(runs, pieces, strict=True)))
        paged.tell(is_there=pieces is not None)
        journal.on_progress()

    journal.log.read(locations, done)


def _fetch_again(queue: Queue, paged: Paged, is_durable: bool) -> None:
    paged.is_reading = False
    if is_durable and queue.paged is paged:
        fetch(queue, may_wait=not paged.waiting)
    else:
        paged.tell(is_there=is_durable)


def _take(queue: Queue, paged: Paged, store: Lasting, read: list[tuple[Run, bytes]]) -> None:
    entries: list[Entry] = []
    for run, piece in read:
        messages = records.read_put(piece, 0).messages(piece)
        first, stop = max(run.first, paged.first), min(run.stop, paged.stop)
        # It may have been stored anew since, in parts.
        for number in range(first, stop):
            if store.stored.find(number) is not None:
                message = messages[run.skipped + number - run.first]
                entries.append((number, message, store.times_returned(number)))
        if store is queue.scratch and first < stop:
            # In memory again, and nothing of it lasts.
            store.stored.settle(first, stop - first)
        paged.first = max(paged.first, stop)
    paged.count -= len(entries)
    _page_in(queue, paged, entries, sum(map(entry_size, entries)))


def _page_in(queue: Queue, paged: Paged, entries: list[Entry], size: int) -> None:
    """Ready messages were read again, the next ones behind those in memory."""
    queue.ready.extend(entries)
    queue.ready_bytes += size
    queue.broker.memory_used += size
    if not paged.count:
        queue.ready.extend(paged.tail)
        queue.ready.extend(paged.fresh)
        queue.ready_bytes += paged.tail_bytes
        queue.paged = None
        if queue.scratch is not None:
            queue.scratch.stored.clear()
    queue.touch()

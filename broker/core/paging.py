"""Ready messages that are in a log alone, and reading them again.

Theory of operation. Above the paging mark a queue keeps a head in memory, from which it delivers,
and a tail, where messages come in; what is between is only indexed (`broker.core.stored`). The
next ones are asked for while the head is being delivered, so that consumers seldom wait for the
disk. What lasts is in the broker's log already. What does not is written to a scratch log, which
nobody waits for and which ends with the broker; it is opened when it is needed first.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from broker.core.expiring import can_join
from broker.core.lasting import Lasting
from broker.core.message import (
    FRAMING,
    MESSAGE,
    NUMBER,
    ORIGIN,
    PERSISTENT,
    Entry,
    entries_size,
    entry_size,
)
from broker.core.sparse import Ready
from broker.core.stored import Run

if TYPE_CHECKING:
    from broker.core.broker import Broker
    from broker.core.journal import Journal
    from broker.core.queue import Queue

MARK_SHARE = 0.5
"""Of the memory limit: above it queues page out."""
MARK_SHARE_MIN = 0.125
"""The same, however much memory the indexes of what is stored take: they count too."""
MARK_LOW_SHARE = 0.9
"""Of the mark: below it all is forgotten that could be paged out. A gap, since it takes a look at
every queue to begin anew."""
HEAD_BYTES = 1 << 19
"""Octets of ready messages that a queue keeps in memory to deliver from."""
AHEAD_HEADS = 4
"""So many of these a queue has while it delivers; where there is less, the next ones are read. What
is read comes milliseconds later: the thread that reads and the loop wait for each other's turns."""
AHEAD_SHARE = 1.25
"""Of the mark: above it a queue that delivers has one of them only."""
HEAD_BYTES_MIN = 1 << 14
"""The same where there are so many queues that their heads would take all memory."""
FETCH_RUNS = 1024
"""Runs that are read at once."""
STEP_BYTES = 2 << 20
"""Octets that are paged out in one turn of the loop."""
STEP_QUEUES = 64
"""Queues that are looked at in one turn of the loop."""
RECORD_BYTES = 1 << 18
"""Octets of one record in the scratch log: it is read again as a whole."""
TAKEN_AT_ONCE = 64
"""Entries whose sizes are looked at together."""
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
    )

    def __init__(self, queue: Queue, first: int, stop: int, count: int) -> None:
        self.queue = queue
        self.first = first
        self.stop = stop
        self.count = count
        self.tail: Ready = queue.line_type()
        self.fresh: Ready = queue.line_type()
        # Octets of both.
        self.tail_bytes = 0
        self.is_reading = False

    def __len__(self) -> int:
        return self.count + len(self.tail) + len(self.fresh)

    @property
    def is_read(self) -> bool:
        """Whether nothing of it has to be read: neither messages nor, since the start, the keys of
        those that wait for a retry."""
        queue = self.queue
        if self.count or queue.keyed is None or queue.retries is None:
            return not self.count
        return not queue.retries.unread_count

    def add(self, entries: Iterable[Entry], size: int) -> None:
        """New messages, behind all others."""
        self.fresh.extend(entries)
        self.tail_bytes += size

    def store(self, octets: int) -> int:
        """Sees to it that messages of so many octets are stored, and returns how many are now."""
        fresh = self.fresh
        size = 0
        while fresh and size < octets:
            lasts = self.queue.lasting is not None and fresh[0][MESSAGE][ORIGIN][PERSISTENT]
            scratch = None if lasts else self.queue.broker.pager.scratch_of(self.queue)
            if scratch is None and not lasts:
                break
            run, run_bytes = self._next_run()
            # What was in the scratch log before, and was read, is still there.
            if scratch is not None and run[0][NUMBER] >= scratch.next_number:
                messages = [entry[MESSAGE] for entry in run]
                scratch.journal.put([scratch], [run[0][NUMBER]], messages)
            self.tail.extend(run)
            size += run_bytes
        return size

    def _next_run(self) -> tuple[list[Entry], int]:
        """Takes what can be one record, and how many octets of memory that is."""
        fresh = self.fresh
        entry = fresh.popleft()
        run = [entry]
        size = entry_size(entry)
        framing = entry[MESSAGE][FRAMING]
        scratch = self.queue.scratch
        while fresh and size < RECORD_BYTES:
            number, message, _ = fresh[0]
            is_next = number == run[-1][NUMBER] + 1
            is_next = is_next and (scratch is None or number != scratch.next_number)
            if not is_next or message[FRAMING] != framing:
                break
            if message[ORIGIN] is not run[-1][MESSAGE][ORIGIN] and not can_join(
                run[-1][MESSAGE], message, len(run)
            ):
                break
            size += entry_size(fresh[0])
            run.append(fresh.popleft())
        return run, size

    def drop(self, octets: int) -> int:
        """Lets those of the tail go that can be read again, of about so many octets, and returns
        how many octets of memory that were."""
        size = 0
        while self.tail and size < octets:
            # What is settled between them ends what goes at once.
            dropped = self._drop_some(octets - size)
            if not dropped:
                break
            size += dropped
        return size

    def _drop_some(self, octets: int) -> int:
        tail = self.tail
        first = tail[0][NUMBER]
        end = self._durable_stop(first, min(tail[-1][NUMBER] + 1, first + DROP_MAX))
        if self.is_read:
            # What is before is in memory, or gone.
            self.first = self.stop = first
        dropped, size = take_head(tail, octets, end - first)
        while dropped and dropped[-1][NUMBER] >= end:
            size -= entry_size(dropped[-1])
            tail.appendleft(dropped.pop())
        if dropped:
            self.stop = dropped[-1][NUMBER] + 1
        self.count += len(dropped)
        self.tail_bytes -= size
        return size

    def _durable_stop(self, first: int, stop: int) -> int:
        """The number up to which everything from `first` on can be read again."""
        number, reached = first - 1, first
        while number < reached < stop:
            number = reached
            reached = max(
                store.stored.durable_stop(number, stop, store.journal.durable)
                for store in self.queue.stores
            )
        return reached

    def next_runs(self, octets: int, start: int = 0) -> tuple[Lasting, list[Run]]:
        """The runs to read next, those with `start` and higher numbers, and where they are stored:
        what is durable of them, or the first one that is not yet. IndexError if there are none."""
        start = max(start, self.first)
        begins = sorted(
            (max(run.first, start), place)
            for place, store in enumerate(self.queue.stores)
            for run in [next(store.stored.runs_from(start, stop=self.stop), None)]
            if run is not None
        )
        store = self.queue.stores[begins[0][1]]
        stop = min([self.stop, *(first for first, _ in begins[1:])])
        runs: list[Run] = []
        size = 0
        for run in store.stored.runs_from(start, stop=stop):
            if len(runs) >= FETCH_RUNS or size >= octets:
                break
            if run.position > store.journal.durable and runs:
                break
            runs.append(run)
            size += run.size
        return store, runs


class Pager:
    """Keeps the messages of a broker within its memory: above `mark` octets of messages queues
    page out, a little in each turn. `open_scratch` makes the log for what does not last."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.mark = int(broker.limits.memory * MARK_SHARE) or sys.maxsize
        # Octets of memory that indexes take, which `mark` leaves room for.
        self._index = 0
        self._least_mark = int(broker.limits.memory * MARK_SHARE_MIN) or sys.maxsize
        self.open_scratch: Callable[[], Journal | None] = lambda: None
        self.scratch: Journal | None = None
        # Lines of messages beyond one for each queue.
        self.more_lanes = 0
        self._is_opened = False
        self._is_paging = False
        self._next_id = 1
        # Queues that have something in memory that could be paged out.
        self._queues: dict[Queue, None] = {}

    @property
    def head_bytes(self) -> int:
        """Octets that each queue keeps in memory, of each of its lanes."""
        count = sum(len(vhost.queues) for vhost in self._broker.vhosts.values()) + self.more_lanes
        return min(HEAD_BYTES, max(HEAD_BYTES_MIN, self.mark // (4 * count or 1)))

    @property
    def ahead_bytes(self) -> int:
        """Octets in memory below which a queue that delivers reads on."""
        is_short = self._broker.memory_used > AHEAD_SHARE * self.mark
        return self.head_bytes if is_short else AHEAD_HEADS * self.head_bytes

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
            queue.stores += (queue.scratch,)
            self._next_id += 1
        return queue.scratch

    def run(self) -> None:
        """One turn: pages out, if memory is short."""
        broker = self._broker
        if broker.memory_used < self._least_mark and not self._is_paging:
            return
        self._set_mark()
        if broker.memory_used > self.mark:
            self._page_out()
        elif self._is_paging and broker.memory_used < self.mark * MARK_LOW_SHARE:
            self._is_paging = False
            self._queues.clear()

    def _set_mark(self) -> None:
        index = 0
        for journal in self._broker.journals:
            index += journal.index_bytes
        limit = self._broker.limits.memory
        if limit and index != self._index:
            self._index = index
            self.mark = int(max(limit * MARK_SHARE - index, limit * MARK_SHARE_MIN))

    def _page_out(self) -> None:
        broker = self._broker
        if not self._is_paging:
            self._is_paging = True
            for vhost in broker.vhosts.values():
                for queue in vhost.all_queues():
                    self._queues |= dict.fromkeys(queue.lanes)
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


def page_out(queue: Queue, octets: int) -> int:
    """Memory is short: ready messages behind the first ones stay in a log alone, as far as they
    can be read there. Returns how many octets were written or let go: about so many at most."""
    head_bytes = queue.broker.pager.head_bytes
    paged = queue.paged
    if paged is None:
        # Those that came back stay in memory.
        if queue.is_deleted or queue.ready_bytes - queue.returned_bytes <= 2 * head_bytes:
            return 0
        head, size = take_head(queue.ready, head_bytes)
        size += _take_unstored(queue, head)
        if not queue.ready:
            queue.ready = head
            return 0
        first = queue.ready[0][NUMBER]
        queue.paged = paged = Paged(queue, first, first, 0)
        if queue.keyed is not None:
            # What was settled behind the first one must not be read.
            for store in queue.stores:
                store.journal.end_changes()
        size += queue.returned_bytes
        paged.fresh, paged.tail_bytes = queue.ready, queue.ready_bytes - size
        queue.ready, queue.ready_bytes = head, size
    stored = paged.store(octets)
    dropped = paged.drop(octets)
    queue.broker.memory_used -= dropped
    return stored + dropped


def _take_unstored(queue: Queue, head: Ready) -> int:
    """Takes messages to the head that can be in no log any more, since others behind them are in
    the scratch log already; returns how many octets these are."""
    scratch, ready = queue.scratch, queue.ready
    size = 0
    while scratch is not None and ready and ready[0][NUMBER] < scratch.next_number:
        if any(ready[0][NUMBER] in store.stored for store in queue.stores):
            break
        size += entry_size(ready[0])
        head.append(ready.popleft())
    return size


def take_head(entries: Ready, octets: int, most: int = sys.maxsize) -> tuple[Ready, int]:
    """Takes entries from the front until they have so many octets of memory, or are so many; and
    how many octets."""
    head: Ready = type(entries)()
    size = 0
    popleft = entries.popleft
    while entries and size < octets and len(head) < most:
        count = min(len(entries), most - len(head), TAKEN_AT_ONCE)
        some = [popleft() for _ in range(count)]
        size += entries_size(some)
        while size - entry_size(some[-1]) >= octets:
            size -= entry_size(some[-1])
            entries.appendleft(some.pop())
        head.extend(some)
    return head, size

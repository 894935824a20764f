"""Reading messages again that are in a log alone: the next ones of a backlog, and those that came
back after memory was short.

Theory of operation. What is handed out while memory is short is remembered without its content
(`lightened`), if a log has it: a consumer may hold as many messages as it likes. When such a bare
entry comes back, its queue stands still until the content is read, so that order is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from broker.core import records
from broker.core.expiring import messages_at
from broker.core.message import (
    CONTENT,
    MESSAGE,
    NUMBER,
    Entry,
    Message,
    bodies_bytes,
    entries_size,
    make_origin,
)
from broker.core.paging import Paged
from broker.core.records import HEAD
from broker.core.stored import Run
from broker.storage.log import Location

if TYPE_CHECKING:
    from broker.core.lasting import Lasting
    from broker.core.queue import Queue

FETCH_BYTES = 1 << 21
"""Octets that are read at once, if the queue has as many."""
READ_AGAIN_MS = 1000
"""After so long it is tried again to read what dies."""
BARE: Message = (b"", 0, make_origin("", ""), 0)
"""A message of which nothing is in memory."""
Span = tuple[Location, list[Run]]
"""Where records are that lie one behind the other, and which of their messages are wanted."""


# The next ones


def fetch(queue: Queue, octets: int = 0) -> None:
    """Asks for the next messages of this queue, about so many octets of them, unless that is under
    way. If all are in memory, they are ready at once."""
    paged = queue.paged
    if paged is None or paged.is_reading:
        return
    if paged.is_read:
        _page_in(queue, paged, [], 0)
        return
    store, runs = paged.next_runs(octets or octets_at_once(queue))
    journal = store.journal
    paged.is_reading = True
    if runs[0].position > journal.durable:
        # It was stored anew just now.
        journal.when_durable(runs[0].position, partial(_fetch_again, queue, paged))
        return

    def done(pieces: list[bytes] | None) -> None:
        paged.is_reading = False
        if pieces is None and len(runs) > 1 and queue.paged is paged:
            # What cannot be read need not be the first of them.
            fetch(queue, 1)
            return
        if pieces is not None and queue.paged is paged:
            _take(queue, paged, store, zip(spans, pieces, strict=False))
        queue.tell(is_there=pieces is not None)
        journal.on_progress()

    spans = spans_of(runs)
    journal.log.read([location for location, _ in spans], done, some=True)


def octets_at_once(queue: Queue) -> int:
    """Octets that are read at once for this queue."""
    pager = queue.broker.pager
    return min(FETCH_BYTES, max(2 * pager.head_bytes, pager.ahead_bytes))


def _fetch_again(queue: Queue, paged: Paged, is_durable: bool) -> None:
    paged.is_reading = False
    if is_durable and queue.paged is paged:
        fetch(queue)
    else:
        queue.tell(is_there=is_durable)


def spans_of(runs: list[Run]) -> list[Span]:
    """Runs that are stored one behind the other are read as one."""
    spans: list[Span] = []
    reached = -1, 0
    for run in runs:
        if reached != (run.position, run.offset - HEAD.size):
            spans.append(((run.position, run.offset, 0), []))
        (position, start, _), among = spans.pop()
        among.append(run)
        stop = run.offset + run.size
        spans.append(((position, start, stop - start), among))
        reached = position, stop
    return spans


def _take(queue: Queue, paged: Paged, store: Lasting, read: Iterable[tuple[Span, bytes]]) -> None:
    entries: list[Entry] = []
    size = 0
    for ((_, start, _), runs), octets in read:
        for run in runs:
            put = records.read_put(octets, run.offset - start)
            first, stop = max(run.first, paged.first), min(run.stop, paged.stop)
            if first < stop:
                messages = put.messages(octets)
                if stop - first < len(messages):
                    at = run.skipped + first - run.first
                    messages = messages[at : at + stop - first]
                some = store.entries(first, messages)
                if queue.dying or queue.out:
                    some = without_gone(queue, some)
                if queue.retries is not None:
                    some = queue.retries.without_waiting(some)
                paged.count -= len(some)
                alive = some if queue.expiry is None else queue.expiry.bury_expired(some)
                if queue.rules.max_length_bytes is not None:
                    _count_bodies(queue, some, alive)
                some = alive
                entries += some
                # What is known need not be looked up in each message.
                size += put.memory if len(some) == len(put.sizes) else entries_size(some)
                paged.first = stop
    _page_in(queue, paged, entries, size)


def without_gone(queue: Queue, entries: list[Entry]) -> list[Entry]:
    """Those of these, which were read, that are still ready."""
    dying, out = queue.dying, queue.out
    return [each for each in entries if each[NUMBER] not in dying and each[NUMBER] not in out]


def _count_bodies(queue: Queue, read: list[Entry], alive: list[Entry]) -> None:
    """Bodies that were in the log at the start count from now on; those of others that have expired
    count no more."""
    known = [entry for entry in read if entry[NUMBER] >= queue.bodies_from]
    queue.body_bytes += bodies_bytes(alive) - bodies_bytes(known)


def _page_in(queue: Queue, paged: Paged, entries: list[Entry], size: int) -> None:
    """Ready messages, of `size` octets of memory, were read again: the next ones behind those in
    memory."""
    queue.ready.extend(entries)
    queue.ready_bytes += size
    queue.broker.memory_used += size
    if paged.is_read:
        queue.ready.extend(paged.tail)
        queue.ready.extend(paged.fresh)
        queue.ready_bytes += paged.tail_bytes
        queue.paged = None
    if queue.keyed is not None:
        queue.keyed.read_in(entries)
    queue.touch()


# Those that came back


def is_bare(entry: Entry) -> bool:
    """Whether its content is in a log alone."""
    return not entry[MESSAGE][CONTENT]


def keep(queue: Queue, entries: Sequence[Entry]) -> Sequence[Entry]:
    """What is remembered of messages that were handed out and are not settled: all of it, or while
    memory is short only which they are, as far as they can be read again."""
    if queue.broker.memory_used <= queue.broker.pager.mark:
        return entries
    # If they are limited it must be known how long they are, when they come back.
    if queue.rules.max_length_bytes is not None or not any(lane.stores for lane in queue.lanes):
        return entries
    return lightened(queue, entries)


def lightened(queue: Queue, entries: Sequence[Entry]) -> list[Entry]:
    """Entries that were handed out, without their contents as far as these can be read again. What
    that frees counts no longer."""
    kept = without_contents(queue, entries)
    freed = entries_size(entries) - entries_size(kept)
    queue.unacked_bytes -= freed
    queue.broker.memory_used -= freed
    return kept


def without_contents(queue: Queue, entries: Sequence[Entry]) -> list[Entry]:
    """Entries without their contents, as far as these can be read again."""
    kept: list[Entry] = []
    for entry in entries:
        number, (_, _, origin, framing), returns = entry
        found = where(queue, number)
        if found is not None and found[1].position <= found[0].journal.durable:
            kept.append((number, (b"", 0, origin, framing), returns))
        else:
            kept.append(entry)
    return kept


def where(queue: Queue, number: int) -> tuple[Lasting, Run] | None:
    """Which log has this message of the queue, and in which run; None if it is settled."""
    for store in queue.lane_of(number).stores:
        run = store.stored.find(number)
        if run is not None:
            return store, run
    return None


def is_stored(queue: Queue, number: int) -> bool:
    """Whether a log has this message of the queue, which is not settled."""
    return any(number in store.stored for store in queue.lane_of(number).stores)


Piece = tuple[Run, list[Entry]]
"""A record, and the bare entries whose contents are in it."""


def read_returned(queue: Queue, octets_max: int = 0) -> None:
    """Reads the first messages that came back bare. They are out of the queue's reach until they
    are there, and it stands still."""
    store, pieces = _first_bare(queue, octets_max or octets_at_once(queue))
    journal = store.journal
    reading = queue.reading = [entry for _, entries in pieces for entry in entries]
    first = pieces[0][0]
    if first.position > journal.durable:
        # It was stored anew just now.
        def again(is_durable: bool) -> None:
            if queue.reading is reading:
                _give_back(queue, reading)
                if is_durable:
                    queue.touch()
            queue.tell(is_there=is_durable)

        journal.when_durable(first.position, again)
        return

    def done(octets: list[bytes] | None) -> None:
        if queue.reading is reading:
            if octets is None:
                _give_back(queue, reading)
                if len(pieces) > 1 and is_bare(queue.returned[0]):
                    # What cannot be read need not be the first of them.
                    read_returned(queue, 1)
                    return
            else:
                whole = map(filled, pieces, octets)
                _give_back(queue, [entry for entries in whole for entry in entries])
                queue.touch()
        queue.tell(is_there=octets is not None)
        journal.on_progress()

    journal.log.read([(run.position, run.offset, run.size) for run, _ in pieces], done)


def _first_bare(queue: Queue, octets_max: int) -> tuple[Lasting, list[Piece]]:
    """Takes the first bare entries of those that came back, and says in which records of one log
    they are: in durable ones, or in the first one that is not yet."""
    pieces: list[Piece] = []
    size = 0
    found = where(queue, queue.returned[0][NUMBER])
    assert found is not None, "a message without its content is in a log"
    first_store, _ = found
    while found is not None:
        store, run = found
        place = run.position, run.offset
        is_new = not pieces or place != (pieces[-1][0].position, pieces[-1][0].offset)
        is_late = run.position > store.journal.durable
        # The same place of another log is another place.
        is_other = store is not first_store
        if pieces and (is_other or (is_new and (size >= octets_max or is_late))):
            break
        if is_new:
            pieces.append((run.part(run.first - run.skipped, run.stop), []))
            size += run.size
        pieces[-1][1].append(heappop(queue.returned))
        found = None
        if queue.returned and is_bare(queue.returned[0]):
            found = where(queue, queue.returned[0][NUMBER])
    return first_store, pieces


def filled(piece: Piece, octets: bytes) -> list[Entry]:
    """The bare entries of a piece with their contents, which are in the octets of its record."""
    run, entries = piece
    messages = messages_at(octets, [entry[NUMBER] - run.first for entry in entries])
    return [(entry[0], message, entry[2]) for entry, message in zip(entries, messages, strict=True)]


def _give_back(queue: Queue, entries: list[Entry]) -> None:
    """They are among those that came back again, in whatever state."""
    before, queue.reading = queue.reading, []
    queue.ready_bytes -= entries_size(before)
    queue.returned_bytes -= entries_size(before)
    queue.broker.memory_used -= entries_size(before)
    if queue.expiry is not None:
        entries = queue.expiry.bury_expired(entries)
        queue.expiry.returned(entries)
    if queue.rules.max_length_bytes is not None:
        queue.body_bytes += bodies_bytes(entries) - bodies_bytes(before)
    size = entries_size(entries)
    push_all(queue.returned, entries)
    queue.ready_bytes += size
    queue.returned_bytes += size
    queue.broker.memory_used += size


# Those that die


class Again:
    """Tries again to read what could not be read."""

    __slots__ = ("_then", "due")

    def __init__(self, then: Callable[[], None]) -> None:
        self.due: int | None = None
        self._then = then

    def on_time(self, now: int) -> None:
        """It is time."""
        self._then()


def read_contents(queue: Queue, entries: list[Entry], done: Callable[[list[Entry]], None]) -> None:
    """Calls back with these entries and their contents, in order, when they are read; without those
    that no log has any more. What cannot be read is tried again, and again."""
    whole: dict[int, Entry] = {}
    pieces: list[Piece] = []
    store: Lasting | None = None
    is_complete = True
    for entry in entries:
        number = entry[NUMBER]
        found = where(queue, number) if is_bare(entry) else None
        if found is None:
            if not is_bare(entry):
                whole[number] = entry
            continue
        if store is not None and store is not found[0]:
            # Another log comes next.
            is_complete = False
            whole[number] = entry
            continue
        store, run = found
        if not pieces or (run.position, run.offset) != pieces[-1][0][2:4]:
            pieces.append((run.part(run.first - run.skipped, run.stop), []))
        pieces[-1][1].append(entry)
        whole[number] = entry
    if store is None:
        done(list(whole.values()))
        return
    journal = store.journal

    def told(octets: list[bytes] | None) -> None:
        if octets is None:
            again = Again(partial(read_contents, queue, entries, done))
            timers = queue.broker.timers
            timers.set(again, timers.now + READ_AGAIN_MS)
            return
        for some in map(filled, pieces, octets):
            whole.update((entry[NUMBER], entry) for entry in some)
        if is_complete:
            done(list(whole.values()))
        else:
            read_contents(queue, list(whole.values()), done)
        journal.on_progress()

    last = max(run.position for run, _ in pieces)
    if last > journal.durable:
        # Some were stored just now.
        def stored(is_durable: bool) -> None:
            if is_durable:
                read_contents(queue, entries, done)
            else:
                told(None)

        journal.when_durable(last, stored)
        return
    journal.log.read([(run.position, run.offset, run.size) for run, _ in pieces], told)


def push_all(heap: list[Entry], entries: list[Entry]) -> None:
    """Adds entries to a heap."""
    if len(entries) * 8 > len(heap):
        # What is sorted is a heap.
        heap += entries
        heap.sort()
    else:
        for entry in entries:
            heappush(heap, entry)

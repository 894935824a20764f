"""The lines in which the ready messages of a queue stand: first those that came back, by number,
then `ready`, then what is paged out, with its tail and what came since. Whatever leaves them here
is not handed out: it expires, or is dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

from broker.core.message import NUMBER, Entry, bodies_bytes, entries_size, entry_size
from broker.core.reading import BARE, is_stored
from broker.core.sparse import SPARSE_BYTES, Sparse

if TYPE_CHECKING:
    from broker.core.paging import Paged
    from broker.core.queue import Queue


def first(queue: Queue) -> Entry | None:
    """The first ready message in memory, which may be without its content; None if the first one
    has to be read, or there is none."""
    if queue.reading:
        return None
    if queue.keyed is not None:
        return queue.keyed.first_ready()
    if queue.returned:
        return queue.returned[0]
    return queue.ready[0] if queue.ready else None


def take_first(queue: Queue) -> Entry:
    """Takes it."""
    near = None if queue.keyed is None else queue.keyed.lowest_near
    if near is not None:
        return take_returned(queue, {near})[0]
    if queue.returned:
        entry = heappop(queue.returned)
        queue.returned_bytes -= entry_size(entry)
    else:
        entry = queue.ready.popleft()
    leave_ready(queue, [entry], entry_size(entry))
    return entry


def leave_ready(queue: Queue, entries: Sequence[Entry], size: int) -> None:
    """Messages that were ready in memory, of this size, are counted no more."""
    queue.ready_bytes -= size
    queue.broker.memory_used -= size
    forget_bodies(queue, entries)


def take_returned(queue: Queue, wanted: AbstractSet[int]) -> list[Entry]:
    """Takes those of these numbers that came back, or were read ahead of others."""
    if queue.keyed is not None:
        taken = list(queue.keyed.near.take_all(wanted))
    else:
        taken = [entry for entry in queue.returned if entry[NUMBER] in wanted]
        if taken:
            queue.returned = [entry for entry in queue.returned if entry[NUMBER] not in wanted]
            heapify(queue.returned)
    if taken:
        size = entries_size(taken)
        queue.returned_bytes -= size
        leave_ready(queue, taken, size)
    return taken


def put_before(queue: Queue, number: int) -> None:
    """A message with this number comes back. Those before it that stand in line behind what came
    back, as after a start, go with it, so that order is kept."""
    ready = queue.ready
    if queue.keyed is not None:
        return
    while ready and ready[0][NUMBER] < number:
        entry = ready.popleft()
        queue.returned_bytes += entry_size(entry)
        heappush(queue.returned, entry)


def forget_bodies(queue: Queue, entries: Sequence[Entry]) -> None:
    """Ready messages are no longer."""
    if queue.rules.max_length_bytes is not None:
        queue.body_bytes -= bodies_bytes(entries)


def count_bodies(queue: Queue) -> int:
    """Octets of the bodies of what is ready in memory. What is in a log alone counts when it is
    read (`Queue.bodies_from`)."""
    octets = bodies_bytes(queue.returned) + bodies_bytes(queue.ready)
    if queue.keyed is not None:
        octets += bodies_bytes(queue.keyed.near.values())
    if queue.paged is None:
        return octets
    queue.bodies_from = queue.paged.stop
    return octets + bodies_bytes(queue.paged.tail) + bodies_bytes(queue.paged.fresh)


def first_number(queue: Queue) -> int | None:
    """No more than the least number among `ready` and those behind it, be they ready or waiting for
    a retry; None if there is none."""
    if queue.ready:
        return queue.ready[0][NUMBER]
    paged = queue.paged
    if paged is None:
        return None
    if paged.count or queue.retries is not None:
        return paged.first
    for line in (paged.tail, paged.fresh):
        if line:
            return line[0][NUMBER]
    return None


def ready_numbers(queue: Queue) -> Iterator[int]:
    """The numbers of all ready messages."""
    near = () if queue.keyed is None else queue.keyed.near.values()
    for entries in (queue.returned, near, queue.reading, queue.ready):
        for entry in entries:
            yield entry[NUMBER]
    paged = queue.paged
    if paged is not None:
        for store in queue.stores:
            stored = store.stored.numbers(paged.first, paged.stop)
            yield from (number for number in stored if number not in queue.out)
        for line in (paged.tail, paged.fresh):
            for entry in line:
                yield entry[NUMBER]


def settle_all(queue: Queue) -> None:
    """All that is ready is purged, and what waits to come back."""
    waiting = queue.retries.clear() if queue.retries is not None else []
    leaving: list[Entry] = []
    if queue.present is not None or queue.stores:
        near = () if queue.keyed is None else queue.keyed.near.values()
        leaving = [*queue.returned, *near, *queue.reading, *queue.ready, *waiting]
    ranges = [] if queue.paged is None else list(_ranges(queue, queue.paged.first))
    if queue.present is not None:
        queue.present.gone(leaving)
        for first, stop in ranges:
            queue.present.gone_range(first, stop)
    elif queue.duplicates is not None:
        queue.duplicates.clear()
    for store in queue.stores:
        store.settled(leaving)
        for first, stop in ranges:
            store.settled_range(first, stop)


def _ranges(queue: Queue, first: int) -> Iterator[tuple[int, int]]:
    """The numbers from one on of which none is out, as (first, behind the last)."""
    for number in sorted(number for number in queue.out if number >= first):
        if first < number:
            yield first, number
        first = number + 1
    if first < queue.next_number:
        yield first, queue.next_number


def use_sparse(queue: Queue) -> None:
    """From now on any message of this queue can be taken by its number."""
    if queue.line_type is Sparse:
        return
    queue.line_type = Sparse
    queue.ready = Sparse(queue.ready)
    if queue.paged is not None:
        queue.paged.tail = Sparse(queue.paged.tail)
        queue.paged.fresh = Sparse(queue.paged.fresh)


def sparse_bytes(queue: Queue) -> int:
    """Octets of memory that sparse lines take beyond the messages in them."""
    if queue.line_type is not Sparse:
        return 0
    count = len(queue.ready)
    if queue.paged is not None:
        count += len(queue.paged.tail) + len(queue.paged.fresh)
    return count * SPARSE_BYTES


def discard(queue: Queue, number: int) -> Entry | None:
    """Takes the message with this number from `ready` or what is behind it, or from those that wait
    for a retry, if it is there; one that is in a log alone comes without its content, and is
    `dying`. The queue uses sparse lines."""
    assert isinstance(queue.ready, Sparse)
    entry = queue.ready.discard(number)
    if entry is not None:
        leave_ready(queue, [entry], entry_size(entry))
    elif queue.retries is not None:
        entry = queue.retries.take(number)
        if entry is not None and queue.keyed is not None:
            queue.keyed.release([entry])
    if entry is None and queue.paged is not None and number not in queue.out:
        entry = _discard_paged(queue, queue.paged, number)
    if entry is not None and queue.stores and number not in queue.dying:
        # Until it is settled, it must not be read again.
        queue.out.add(number)
    return entry


def _discard_paged(queue: Queue, paged: Paged, number: int) -> Entry | None:
    if paged.count and paged.first <= number < paged.stop:
        if number in queue.dying or not is_stored(queue, number):
            return None
        paged.count -= 1
        queue.dying.add(number)
        return number, BARE, 0
    for line in (paged.tail, paged.fresh):
        assert isinstance(line, Sparse)
        entry = line.discard(number)
        if entry is not None:
            size = entry_size(entry)
            paged.tail_bytes -= size
            queue.broker.memory_used -= size
            forget_bodies(queue, [entry])
            return entry
    return None

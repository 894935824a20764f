"""What is in the queues of a broker with keys and windows: what nobody is told."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from operator import itemgetter

from broker.core.keyed.queue import KeyedQueue
from broker.core.message import NUMBER, Entry
from broker.core.queue import Queue
from broker.core.reading import BARE
from tests.durable.combined_contents import Found, _deadlines, _found, contents, memory_of
from tests.durable.site import DurableSite


def contents_of(queue: Queue) -> list[Found]:
    """The messages of any queue that nobody holds, the first one first; those that wait come last.
    The disk has done all it had to."""
    keyed = queue.keyed
    if keyed is None:
        return contents(queue)
    found = [_found(keyed, entry, None) for entry in sorted(_ready(keyed), key=itemgetter(NUMBER))]
    if keyed.retries is not None:
        untils = dict(_deadlines(keyed.retries._deadlines))
        waiting = keyed.retries._waiting.values()
        found += [_found(keyed, entry, untils[entry[NUMBER]]) for entry in waiting]
    return found


def _ready(queue: KeyedQueue) -> Iterator[Entry]:
    yield from queue.near.values()
    yield from queue.reading
    yield from queue.ready
    yield from queue.arrivals
    paged = queue.paged
    if paged is not None:
        waiting = queue.retries._waiting if queue.retries is not None else {}
        there = (store.stored.numbers(paged.first, paged.stop) for store in queue.stores)
        for number in sorted(chain.from_iterable(there)):
            if number not in queue.dying and number not in waiting and number not in queue.out:
                yield number, BARE, 0
        yield from paged.tail
        yield from paged.fresh


def whole_memory_of(site: DurableSite, unacked: int) -> int:
    """Octets of memory that all messages, keys and ids of a broker count for, of which `unacked`
    are handed out."""
    return memory_of(site, unacked) + sum(each.memory for each in site.broker.windows)

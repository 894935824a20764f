"""What is in the queues of a broker, read from its memory and its logs: what nobody is told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import cast

from broker.core import records
from broker.core.deadlines import DEADLINE_BYTES, Deadlines
from broker.core.expiry import Expiry
from broker.core.message import (
    CONTENT,
    MESSAGE_OVERHEAD,
    NUMBER,
    ORIGIN,
    PUBLISHED,
    TTL,
    Entry,
    Message,
    body_of,
    entries_size,
    header_of,
)
from broker.core.queue import Queue
from broker.core.reading import BARE, is_bare, where
from broker.wire import properties
from broker.wire.table import Field, Table
from tests.durable.sim_log import SimLog
from tests.durable.site import DurableSite

Death = tuple[str, str, int]
"""Queue, reason, how often."""


@dataclass(frozen=True)
class Found:
    """A message in a queue. `until` is when its wait is over, None for one that is ready."""

    body: bytes
    returns: int
    until: int | None
    deaths: tuple[Death, ...]
    published: int | None
    ttl: int | None
    number: int


def contents(queue: Queue) -> list[Found]:
    """The messages of a queue that nobody holds, the next one first; those that wait come last.
    The disk has done all it had to."""
    ready: list[Found] = []
    waiting: list[Found] = []
    for lane in queue.lanes:
        ready += [_found(lane, entry, None) for entry in _ready(lane)]
        if lane.retries is not None:
            untils = dict(_deadlines(lane.retries._deadlines))
            entries = lane.retries._waiting.values()
            waiting += [_found(lane, entry, untils[entry[NUMBER]]) for entry in entries]
    return ready + waiting


def _ready(lane: Queue) -> Iterator[Entry]:
    yield from sorted(lane.returned)
    yield from lane.reading
    yield from lane.ready
    paged = lane.paged
    if paged is None:
        return
    waiting = lane.retries._waiting if lane.retries is not None else {}
    stored = (store.stored.numbers(paged.first, paged.stop) for store in lane.stores)
    for number in sorted(chain.from_iterable(stored)):
        if number not in lane.dying and number not in waiting:
            yield number, BARE, 0
    yield from paged.tail
    yield from paged.fresh


def _found(lane: Queue, entry: Entry, until: int | None) -> Found:
    number, message, returns = entry
    if is_bare(entry):
        message, returns = _read(lane, entry)
    if until is not None and lane.lasting is not None and number in lane.lasting.stored:
        # As it will be after a start.
        until = lane.lasting.held.get(number, 0)
    published, ttl = message[ORIGIN][PUBLISHED], message[ORIGIN][TTL]
    deaths = deaths_of(header_of(message))
    return Found(body_of(message), returns, until, deaths, published, ttl, number)


def _read(lane: Queue, entry: Entry) -> tuple[Message, int]:
    """A message, and how often it came back, as its log has it."""
    number = entry[NUMBER]
    place = where(lane, number)
    assert place is not None, f"{number} of {lane.name} is in no log"
    store, run = place
    octets = cast(SimLog, store.journal.log)._read(run.position, run.offset, run.size)
    message = records.read_put(octets, 0).messages(octets)[number - run.first + run.skipped]
    return message, max(entry[2], store.times_returned(number))


def _deadlines(deadlines: Deadlines) -> Iterator[tuple[int, int]]:
    """Number and time of each."""
    for time, number in deadlines._due:
        yield number, time
    for times, numbers in deadlines._buckets.values():
        yield from zip(numbers, times, strict=True)


@lru_cache(1 << 12)
def deaths_of(header: bytes) -> tuple[Death, ...]:
    """What x-death says, the newest first."""
    field = properties.headers_table(header).get("x-death")
    events = cast("list[Field]", field.value) if field is not None else []
    return tuple(_death(cast(Table, event.value)) for event in events)


def _death(event: Table) -> Death:
    count = event["count"].value
    assert isinstance(count, int)
    return str(event["queue"].value), str(event["reason"].value), count


def memory_of(site: DurableSite, unacked: int) -> int:
    """Octets of memory that all messages of a broker count for, of which `unacked` are handed
    out: recomputed from each of them."""
    octets = unacked
    for queue in site.vhost.all_queues():
        for lane in queue.lanes:
            octets += sum(map(entries_size, _lines(lane)))
            if lane.expiry is not None:
                octets += lane.expiry._extra + _foreseen_bytes(lane.expiry)
            if lane.keyed is not None:
                octets += lane.keyed._extra + entries_size(list(lane.keyed.near.values()))
            if lane.retries is not None:
                waiting = list(lane.retries._waiting.values())
                octets += entries_size(waiting) + DEADLINE_BYTES * len(waiting)
            for burial in site.broker.graves.lines.get(lane, ()):
                octets += entries_size(burial.entries)
    return octets


def _foreseen_bytes(expiry: Expiry) -> int:
    """Octets of what was read before it is due, or is to be, as far as it is not due yet."""
    foreseen = expiry._foreseen
    pending = dict(_deadlines(expiry._deadlines))
    messages = [m for number, m in foreseen._contents.items() if m and number in pending]
    octets = sum(len(message[CONTENT]) + MESSAGE_OVERHEAD for message in messages)
    return octets + (DEADLINE_BYTES * foreseen._coming.count if pending else 0)


def _lines(lane: Queue) -> Iterator[Sequence[Entry]]:
    yield lane.returned
    yield lane.reading
    yield list(lane.ready)
    if lane.paged is not None:
        yield list(lane.paged.tail)
        yield list(lane.paged.fresh)

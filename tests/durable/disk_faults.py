"""Planted bugs of paging, and of what a disk in trouble does."""

from __future__ import annotations

from typing import Any

from broker.core import reading, records
from broker.core.broker import Broker
from broker.core.journal import Journal
from broker.core.lasting import Lasting
from broker.core.message import Entry
from broker.core.paging import Paged
from broker.core.queue import Queue
from broker.errors import storage_failed
from broker.protocol.channel import Channel
from broker.protocol.connection import Connection
from tests.durable.faults import Fault

page_in = reading._page_in
filled = reading.filled
purge = Queue.purge
settled = Lasting.settled
drop_ready = Queue._drop_ready
tell = Queue.tell
store_anew = Journal.store_anew
note_written = Channel.note_written
answer = Channel.answer
decide_later = Channel._decide_later


def page_in_twice(queue: Queue, paged: Paged, entries: list[Any], size: int) -> None:
    page_in(queue, paged, entries + entries, 2 * size)


def page_in_backwards(queue: Queue, paged: Paged, entries: list[Any], size: int) -> None:
    page_in(queue, paged, entries[::-1], size)


def page_in_without_the_last(queue: Queue, paged: Paged, entries: list[Any], size: int) -> None:
    if not paged.count:
        paged.fresh.clear()
    page_in(queue, paged, entries, size)


def purge_but_for_the_scratch_log(queue: Queue) -> int:
    stores, queue.stores = queue.stores, tuple(s for s in queue.stores if s is queue.lasting)
    count = purge(queue)
    queue.stores = stores
    return count


def settled_but_in_the_scratch_log(lasting: Lasting, entries: list[Any]) -> None:
    if not lasting.journal.is_scratch:
        settled(lasting, entries)


def fill_unmarked(piece: reading.Piece, octets: bytes) -> list[Entry]:
    return [(number, message, 0) for number, message, _ in filled(piece, octets)]


def fill_with_the_first(piece: reading.Piece, octets: bytes) -> list[Entry]:
    _, entries = piece
    first = records.read_put(octets, 0).messages(octets)[0]
    return [(number, first, returns) for number, _, returns in entries]


def drop_but_for_the_tail(queue: Queue) -> None:
    tail_bytes = queue.paged.tail_bytes if queue.paged is not None else 0
    drop_ready(queue)
    queue.broker.memory_used += tail_bytes


def tell_that_it_is_there(queue: Queue, *, is_there: bool) -> None:
    tell(queue, is_there=True)


def tell_what_is_there(queue: Queue, *, is_there: bool) -> None:
    if is_there:
        tell(queue, is_there=True)


def tell_nobody(journal: Journal) -> None:
    callbacks, journal._callbacks = journal._callbacks, {}
    for callback in [each for waiting in callbacks.values() for each in waiting]:
        # Queues that wait, to read or to deliver, are told; clients are not.
        if not getattr(callback, "func", callback).__module__.startswith("broker.protocol"):
            callback(False)
    journal.on_progress()


def store_anew_backwards(journal: Journal, queues: Any, firsts: Any, messages: Any) -> None:
    store_anew(journal, queues, firsts, messages[::-1])


def decide_as_durable(channel: Channel, last: int, is_durable: bool) -> None:
    decide_later(channel, last, True)


def note_what_is_kept(channel: Channel) -> None:
    journal = channel.connection.broker.journal
    if journal is not None and not journal.has_failed:
        note_written(channel)


def refuse_after_a_failure(channel: Channel, method: Any, *, lasts: bool) -> None:
    journal = channel.connection.broker.journal
    if journal is not None and journal.has_failed:
        raise storage_failed(journal.log.reason, 0)
    answer(channel, method, lasts=lasts)


DISK_FAULTS: dict[str, Fault] = {
    "what is settled stays in the scratch log": Fault(
        "live bytes", Lasting, "settled", settled_but_in_the_scratch_log, "backlog"
    ),
    "what came back is unmarked when it was read": Fault(
        "redelivered", reading, "filled", fill_unmarked, "backlog"
    ),
    "what came back has the content of another": Fault(
        "conservation", reading, "filled", fill_with_the_first, "backlog"
    ),
    "a page comes back twice": Fault("conservation", reading, "_page_in", page_in_twice, "backlog"),
    "a page comes back backwards": Fault(
        "order", reading, "_page_in", page_in_backwards, "backlog"
    ),
    "what came last is forgotten with the last page": Fault(
        "conservation", reading, "_page_in", page_in_without_the_last, "backlog"
    ),
    "what is stored anew is stored backwards": Fault(
        "order", Journal, "store_anew", store_anew_backwards
    ),
    "a purge forgets what is behind the pages": Fault(
        "memory", Queue, "_drop_ready", drop_but_for_the_tail, "backlog"
    ),
    "a purge forgets the scratch log": Fault(
        "live bytes", Queue, "purge", purge_but_for_the_scratch_log, "backlog"
    ),
    "a read that fails is told as one that works": Fault(
        "answers", Queue, "tell", tell_that_it_is_there, "disk"
    ),
    "a read that fails is not told": Fault("answers", Queue, "tell", tell_what_is_there, "disk"),
    "publishers go on though the disk is full": Fault(
        "pauses", Broker, "_is_log_full", lambda broker: False, "disk"
    ),
    "publishers do not go on when there is room": Fault(
        "pauses", Connection, "unblock", lambda connection, now: None, "disk"
    ),
    "a disk that fails confirms": Fault(
        "confirms", Channel, "_decide_later", decide_as_durable, "disk"
    ),
    "nobody is told that the disk has failed": Fault(
        "answers", Journal, "_refuse", tell_nobody, "disk"
    ),
    "what a failed log cannot forget is answered": Fault(
        "answers",
        Channel,
        "note_written",
        note_what_is_kept,
        "disk",
    ),
    "what a failed log does not have is defined": Fault(
        "answers", Broker, "check_can_change", lambda broker: None, "disk"
    ),
    "a failed log refuses what it need not keep": Fault(
        "answers", Channel, "answer", refuse_after_a_failure, "disk"
    ),
}

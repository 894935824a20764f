"""Messages of a queue with keys (`broker.core.keyed.queue`) on their way to consumers."""

from __future__ import annotations

import sys
from itertools import islice, takewhile
from typing import TYPE_CHECKING

from broker.core.consumer import Consumer, Line
from broker.core.least_loaded import LeastLoadedLine
from broker.core.message import (
    MESSAGE,
    NUMBER,
    ORIGIN,
    PUBLISHED,
    RETURNS,
    Entry,
    entries_size,
    entry_size,
    with_time,
)
from broker.core.reading import is_bare

if TYPE_CHECKING:
    from broker.core.keyed.queue import KeyedQueue

ALL = sys.maxsize
"""More than the number of any message."""
DEALT_MAX = 64
"""Consumers that are looked at for one message."""


def hand_out(queue: KeyedQueue) -> bool:
    """False if more will be given when the disk has answered."""
    consumers = queue.consumers
    if queue.index.is_fair and queue.arrivals and not _has_room_for_all(queue):
        queue.stand_in_line()
    while consumers.may_have_room and (number := _next(queue)) is not None:
        if number > queue.reserved_to:
            assert queue.lasting is not None
            queue.lasting.reserve(number)
            return consumers.line() is None
        turn = consumers.line()
        if turn is None:
            break
        line, first, room = turn
        if len(line) == 1:
            keeps = not first.no_ack
            _give(queue, first, _take(queue, room, first.sink.output_room(), keeps=keeps))
        elif not _deal(queue, line):
            entries = _take(queue, 1, 1, keeps=not first.no_ack)
            _give(queue, first, entries)
            if entries and first.is_waiting:
                line.move_to_end(first)
    return True


def _has_room_for_all(queue: KeyedQueue) -> bool:
    """Whether all that came can go out as they came, so that nobody has to choose."""
    if queue.index.count or queue.arrivals[-1][NUMBER] > queue.reserved_to:
        return False
    if isinstance(queue.consumers, LeastLoadedLine):
        # Who is asked for has had a turn.
        return False
    turn = queue.consumers.line()
    if turn is None:
        return False
    output_room = turn[1].sink.output_room()
    return turn[2] >= len(queue.arrivals) and output_room >= queue.arrivals_bytes


def _next(queue: KeyedQueue) -> int | None:
    """The number of the message that is next, which is in memory; None if there is none now."""
    number = next_waiting(queue)
    if number is None and queue.arrivals and _is_all_known(queue):
        return queue.arrivals[0][NUMBER]
    return number


def _is_all_known(queue: KeyedQueue) -> bool:
    """Whether new messages may pass those that wait, as far as their keys allow it."""
    return queue.learned_to == ALL and not queue.read_ahead.is_full


def next_waiting(queue: KeyedQueue) -> int | None:
    """The same among those that stand in line. What must be read first stands apart then."""
    index = queue.index
    while (number := index.peek()) is not None:
        entry = queue.find(number)
        if entry is not None and not is_bare(entry):
            # Those that die before it may have to be read.
            return None if queue.rules.message_ttl and _is_late(queue, entry) else number
        if entry is None and not queue.is_stored(number):
            index.skip()
            continue
        if queue.read_ahead.is_full:
            return None
        queue.read_ahead.want(index)
        index.set_apart()
    return None


def _is_late(queue: KeyedQueue, entry: Entry) -> bool:
    """Whether a message has expired under the TTL of the queue. One whose own time is over is gone,
    unless it lives no time at all, and is for who has room."""
    assert queue.expiry is not None
    origin = entry[MESSAGE][ORIGIN]
    deadline = queue.expiry.deadline(with_time(origin, origin[PUBLISHED]))
    return deadline is not None and deadline <= queue.broker.timers.now


def _take(queue: KeyedQueue, limit: int, octets: int, *, keeps: bool) -> list[Entry]:
    """Takes messages that go out now, at most so many, until they have so many octets of
    memory."""
    taken: list[Entry] = []
    size = 0
    octets = max(octets, 1)
    while len(taken) < limit and size < octets:
        number = next_waiting(queue)
        if number is None:
            if queue.arrivals and _is_all_known(queue):
                taken += _take_arrivals(queue, limit - len(taken), octets - size, keeps=keeps)
            break
        if number > queue.reserved_to:
            break
        entry = queue.take_out(number)
        queue.index.hold(keeps=keeps)
        taken.append(entry)
        size += entry_size(entry)
    return taken


def _take_arrivals(queue: KeyedQueue, limit: int, octets: int, *, keeps: bool) -> list[Entry]:
    """Takes them from those that came in this batch. Those that may not go out stand in line."""
    arrivals, last = queue.arrivals, queue.reserved_to
    size = queue.arrivals_bytes
    if limit >= len(arrivals) and size <= octets and arrivals[-1][NUMBER] <= last:
        entries = list(arrivals)
        arrivals.clear()
    else:
        if arrivals[-1][NUMBER] > last:
            reserved = takewhile(lambda entry: entry[NUMBER] <= last, islice(arrivals, limit))
            limit = sum(1 for _ in reserved)
        fits = 1 + octets * len(arrivals) // size
        entries = [arrivals.popleft() for _ in range(min(limit, len(arrivals), fits))]
        size = entries_size(entries)
        while entries and size - entry_size(entries[-1]) >= octets:
            size -= entry_size(entries[-1])
            arrivals.appendleft(entries.pop())
    queue.arrivals_bytes -= size
    taken, left = queue.index.take_new(entries, keeps=keeps)
    if left:
        left_size = entries_size(left)
        queue.append(left, left_size)
        size -= left_size
    queue.ready_bytes += size
    return taken


def _give(queue: KeyedQueue, consumer: Consumer, entries: list[Entry]) -> None:
    if entries:
        again = sum([1 for entry in entries if entry[RETURNS]])
        queue.broker.counters.messages_redelivered += again
        queue.hand_over(consumer, entries, entries_size(entries))


def _deal(queue: KeyedQueue, line: Line) -> bool:
    """Deals messages to the consumers of a line, one to each in turn. False if that is to be
    done one by one, since somebody could tell the difference, or there are too many."""
    count = len(line)
    if count > DEALT_MAX:
        return False
    consumers = list(line)
    keeps = not consumers[0].no_ack
    if any(consumer.no_ack is keeps for consumer in consumers):
        return False
    room = min([consumer.room() for consumer in consumers])
    if room < 1 or len({id(consumer.sink) for consumer in consumers}) < count:
        return False
    octets = min([consumer.sink.output_room() for consumer in consumers])
    entries = _take(queue, room * count, octets, keeps=keeps)
    for place, consumer in enumerate(consumers):
        _give(queue, consumer, entries[place::count])
    for consumer in consumers[: len(entries) % count]:
        if consumer.is_waiting:
            line.move_to_end(consumer)
    return True

"""Ready messages on their way to consumers, in order and in turn; and to basic.get."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop
from itertools import islice, takewhile
from typing import TYPE_CHECKING

from broker.core.consumer import Consumer
from broker.core.message import NUMBER, Entry, entries_size, entry_size
from broker.core.reading import fetch, is_bare, read_returned
from broker.core.rounds import count_again, deal_rounds

if TYPE_CHECKING:
    from broker.core.queue import Queue


def hand_out(queue: Queue) -> bool:
    """Gives ready messages to consumers while both are there. False if more will be given when the
    disk has answered, so that what is left is not to be judged yet."""
    consumers = queue.consumers
    if queue.reading:
        return False
    while queue.returned or (queue.ready and queue.ready[0][NUMBER] <= queue.reserved_to):
        turn = consumers.line()
        if turn is None:
            break
        line, first, room = turn
        if queue.returned and is_bare(queue.returned[0]):
            read_returned(queue)
            return False
        if len(line) == 1:
            _give(queue, first, room)
        elif queue.returned or not deal_rounds(queue, line):
            _give(queue, first, 1)
            if first.is_waiting:
                line.move_to_end(first)
    if queue.paged is not None and _wants_more(queue):
        is_empty = not queue.ready
        fetch(queue)
        if is_empty:
            # Who has room is given what comes now.
            return consumers.line() is None
    if not queue.ready or queue.lasting is None:
        return True
    if len(consumers):
        queue.lasting.reserve(queue.ready[0][NUMBER])
    return queue.ready[0][NUMBER] <= queue.reserved_to or consumers.line() is None


def _wants_more(queue: Queue) -> bool:
    """Whether the next ones are to be read before those in memory have all gone."""
    return len(queue.consumers) > 0 and queue.ready_bytes < queue.broker.pager.ahead_bytes


def _give(queue: Queue, consumer: Consumer, limit: int) -> None:
    """Up to `limit` messages from the front to one consumer, as its output has room."""
    output_room = consumer.sink.output_room()
    if queue.returned:
        entry = _take_returned(queue)
        queue.broker.counters.messages_redelivered += 1
        queue.hand_over(consumer, [entry], entry_size(entry))
        return
    ready, last = queue.ready, queue.reserved_to
    if limit >= len(ready) and queue.ready_bytes <= output_room and ready[-1][NUMBER] <= last:
        entries = list(ready)
        ready.clear()
        if queue.lasting is not None:
            count_again(queue, entries)
        queue.hand_over(consumer, entries, queue.ready_bytes)
        return
    if ready[-1][NUMBER] > last:
        reserved = takewhile(lambda entry: entry[NUMBER] <= last, islice(ready, limit))
        limit = sum(1 for _ in reserved)
    fits = 1 + output_room * len(ready) // queue.ready_bytes
    popleft = ready.popleft
    entries = [popleft() for _ in range(min(limit, len(ready), fits))]
    size = entries_size(entries)
    while size - entry_size(entries[-1]) >= output_room:
        # The first ones are larger than most.
        size -= entry_size(entries[-1])
        ready.appendleft(entries.pop())
    if queue.lasting is not None:
        count_again(queue, entries)
    queue.hand_over(consumer, entries, size)


def _take_returned(queue: Queue) -> Entry:
    """Takes the first of those that came back."""
    entry = heappop(queue.returned)
    queue.returned_bytes -= entry_size(entry)
    return entry


def get(queue: Queue, *, no_ack: bool) -> Entry | None:
    """Takes the first ready message for basic.get; None if none can be handed out now
    (`when_ready`)."""
    queue, whole = queue.front, queue
    while queue.expiry is not None:
        if not queue.expiry.make_ready():
            return None
        if queue is whole.front:
            break
        queue = whole.front
    if queue.keyed is not None:
        return queue.keyed.get(no_ack=no_ack)
    if queue.returned and is_bare(queue.returned[0]) and not queue.reading:
        read_returned(queue)
    elif not queue.returned and not queue.ready:
        fetch(queue)
    if queue.reading:
        return None
    if not queue.returned and (not queue.ready or queue.ready[0][NUMBER] > queue.reserved_to):
        return None
    entry = _take_returned(queue) if queue.returned else queue.ready.popleft()
    queue.leave([entry], entry_size(entry), is_settled=no_ack)
    if queue.expiry is not None:
        # Another one is the first.
        queue.touch()
    return entry


def is_coming(queue: Queue) -> bool:
    """Whether there will be a message for basic.get when the disk has answered, where there is none
    that can be handed out now."""
    return queue.messages_ready > 0 if queue.keyed is None else queue.keyed.is_coming


def when_ready(queue: Queue, callback: Callable[[bool], None]) -> None:
    """Calls back when the first ready message can be handed out, or cannot be read."""
    queue = queue.front
    if queue.keyed is not None:
        queue.keyed.when_next(callback)
        return
    is_behind = queue.expiry is not None and queue.expiry.is_behind
    if queue.ready and not queue.reading and not is_behind:
        assert queue.lasting is not None
        queue.lasting.reserve(queue.ready[0][NUMBER])
        queue.lasting.journal.when_durable(queue.lasting.reserved_at, callback)
    else:
        queue.waiting.append(callback)

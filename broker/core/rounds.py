"""Rounds: many messages dealt to the consumers of one line at once, as one after the other would
be."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from broker.core.consumer import Line
from broker.core.message import NUMBER, RETURNS, Entry, entries_size

if TYPE_CHECKING:
    from broker.core.queue import Queue


def deal_rounds(queue: Queue, line: Line) -> bool:
    """Deals whole rounds at once, one message to each in a round, as many as everybody in the
    line has room for. False if nothing was dealt, since somebody could tell the difference:
    rounds are dealt at once only if each consumer is on a channel of its own."""
    ready = queue.ready
    count = len(line)
    rounds = len(ready) // count
    for consumer in line:
        if rounds < 2:
            return False
        rounds = min(rounds, consumer.room())
    if rounds < 2 or len({id(consumer.sink) for consumer in line}) < count:
        return False
    room = min(consumer.sink.output_room() for consumer in line)
    rounds = min(rounds, room * len(ready) // (queue.ready_bytes * count))
    if rounds < 2:
        return False
    entries = list(islice(ready, rounds * count))
    if entries[-1][NUMBER] > queue.reserved_to:
        return False
    shares = [entries[place::count] for place in range(count)]
    sizes = [entries_size(share) for share in shares]
    if sum(sizes) > room:
        return False
    for _ in entries:
        ready.popleft()
    count_again(queue, entries)
    for consumer, share, size in zip(line, shares, sizes, strict=True):
        queue.hand_over(consumer, share, size)
    return True


def count_again(queue: Queue, entries: list[Entry]) -> None:
    """Counts those of these new deliveries that had been handed out before the broker started."""
    if queue.lasting is not None and entries[0][NUMBER] <= queue.lasting.recovered_to:
        again = sum([1 for entry in entries if entry[RETURNS]])
        queue.broker.counters.messages_redelivered += again

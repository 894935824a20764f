"""How many messages a queue may hold ready, and how many octets of bodies (RabbitMQ, "Queue Length
Limit"). Judged after what ready consumers could take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from broker.core.lines import first, take_first
from broker.core.message import Entry, Message, body_bytes
from broker.core.reading import fetch

if TYPE_CHECKING:
    from broker.core.queue import Queue

MAXLEN: Final = "maxlen"
"""Why messages are dropped."""
DROPPED_AT_ONCE = 1000
"""Messages that are dropped in one go."""


def has_room(queue: Queue, messages: Sequence[Message]) -> bool:
    """Whether all of these fit into the queue as it is now."""
    length, octets = queue.rules.max_length, queue.rules.max_length_bytes
    if length is not None and queue.messages_ready + len(messages) > length:
        return False
    return octets is None or queue.octets_ready + sum(map(body_bytes, messages)) <= octets


def is_full(queue: Queue, message: Message) -> bool:
    """Whether one more message, this one, is too much for the queue."""
    return not has_room(queue, (message,))


def is_over(queue: Queue) -> bool:
    """Whether the queue holds more than it may."""
    rules = queue.rules
    if rules.max_length is not None and queue.messages_ready > rules.max_length:
        return True
    return rules.max_length_bytes is not None and queue.octets_ready > rules.max_length_bytes


def drop_head(queue: Queue) -> None:
    """Drops the oldest messages, those of the lowest priority first, until the queue is within its
    limits."""
    for lane in queue.lanes if queue.rules.message_ttl is not None else ():
        if lane.messages_ready and first(lane) is None:
            # What is over makes room first, and is read for that.
            fetch(lane)
            return
    for lane in reversed(queue.lanes):
        _drop_head_of(lane, queue)
        if lane.messages_ready:
            # It is within its limits, or more of this lane goes first, later.
            return


def _drop_head_of(lane: Queue, queue: Queue) -> None:
    """Drops the oldest messages of a lane while the queue is beyond its limits."""
    dropped: list[Entry] = []
    while is_over(queue) and not queue.broker.graves.is_full(lane):
        entry = first(lane)
        if entry is None:
            if lane.messages_ready and not lane.reading:
                fetch(lane)
            break
        dropped.append(take_first(lane))
        if len(dropped) >= DROPPED_AT_ONCE:
            queue.touch()
            break
    if dropped:
        queue.broker.graves.bury(lane, dropped, MAXLEN)

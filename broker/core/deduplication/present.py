"""Which messages a queue holds, so that an equal one is not taken meanwhile: as RabbitMQ's
deduplication plugin has it for queues that are not asked to remember any longer.

A message is in the queue until it is acknowledged, dies, or is purged. All that comes is known,
also dead letters; only what is published is judged.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from broker.core.deduplication.asked import Deduplication
from broker.core.deduplication.duplicates import SHRINK_AT_ONCE, Duplicates, Mark
from broker.core.deduplication.remembered import Remembered, Row
from broker.core.deduplication.window import NUMBER, Original
from broker.core.message import CONTENT, HEADER_SIZE, ORIGIN, PERSISTENT, Entry, Message
from broker.core.message import NUMBER as ENTRY_NUMBER
from broker.core.priorities import PriorityQueue

if TYPE_CHECKING:
    from broker.core.broker import Broker
    from broker.core.queue import Queue

NUMBER_BYTES: Final = 100
"""Octets of memory for finding an id by the number of its message."""


class Present(Duplicates):
    """The ids of the messages in one queue. Their numbers are those of the messages."""

    __slots__ = ("_keys", "_marks", "_queue")

    def __init__(self, broker: Broker, queue: Queue, asked: Deduplication) -> None:
        super().__init__(broker, queue, asked._replace(size=sys.maxsize, ttl=None))
        self._queue = queue
        # Each id by the number of its message.
        self._keys: dict[int, bytes] = {}
        # What the messages say that are about to come: (the messages, their ids).
        self._marks: tuple[Sequence[Message], list[bytes | None]] = (), []
        self.follow(queue, self)
        broker.present_count += 1

    def follow(self, queue: Queue, present: Present | None) -> None:
        """The queue tells of what leaves, if there is somebody to tell."""
        queue.present = present
        for lane in queue.lanes:
            lane.present = present
        if isinstance(queue, PriorityQueue):
            queue.arrivals.present = present

    def last(self, remembered: Remembered, originals: Sequence[tuple[bytes, Original]]) -> None:
        """It lasts from now on; the log has these, and others that are gone."""
        there = []
        for key, original in originals:
            if self._is_stored(original[NUMBER]):
                there.append((key, original))
                self._keys[original[NUMBER]] = key
            else:
                remembered.let_go(key, original)
        super().last(remembered, there)

    def _is_stored(self, number: int) -> bool:
        owners = (self._queue, *self._queue.lanes)
        stores = [each.lasting.stored for each in owners if each.lasting is not None]
        return any(number in stored for stored in stores)

    def find(self, key: bytes) -> int | None:
        """As in `Duplicates`."""
        original = self.window.get(key)
        if original is None:
            return None
        journal = self._broker.journal
        lasting = self._queue.lane_of(original[NUMBER]).lasting
        run = lasting.stored.find(original[NUMBER]) if lasting is not None else None
        if run is None or journal is None or run.position <= journal.durable:
            return 0
        return None if journal.has_failed else run.position

    def take(
        self, messages: Sequence[Message], *, is_written: bool
    ) -> tuple[list[Message], int | None]:
        """As in `Duplicates`; they are known when they have come (`arrive`)."""
        fresh: list[Message] = []
        keys: list[bytes | None] = []
        seen: set[bytes] = set()
        last: int | None = None
        journal = self._broker.journal
        for message in messages:
            key = self._key_of(message)
            if key is not None:
                batch = self.find(key)
                if batch is None and key in seen:
                    batch = journal.position if is_written and journal is not None else 0
                if batch is not None:
                    last = max(last or 0, batch)
                    continue
                seen.add(key)
            fresh.append(message)
            keys.append(key)
        if len(fresh) < len(messages):
            self.drop(len(messages) - len(fresh))
        self._marks = fresh, keys
        return fresh, last

    def _key_of(self, message: Message) -> bytes | None:
        mark = self.mark(message[CONTENT][: message[HEADER_SIZE]])
        return None if mark is None else mark[0]

    def remember(self, mark: Mark, *, is_written: bool) -> None:
        """It came already."""

    def arrive(self, messages: Sequence[Message]) -> None:
        """These have just come to the end of the queue."""
        queue = self._queue
        if isinstance(queue, PriorityQueue):
            for lane, some in queue.sorted(messages).items():
                self._arrive(some, lane.next_number - len(some))
        else:
            self._arrive(messages, queue.next_number - len(messages))

    def _arrive(self, messages: Sequence[Message], number: int) -> None:
        known, keys = self._marks
        if known is not messages:
            keys = [self._key_of(message) for message in messages]
        self._marks = (), []
        now = self._broker.timers.now
        is_written = messages[0][ORIGIN][PERSISTENT] and self.stored is not None
        rows: list[Row] = []
        for key in keys:
            if key is not None:
                position = 0
                if is_written and self.stored is not None:
                    position = self.stored.hold(key)
                    rows.append((key, None, number))
                self.window.add(key, now, (None, position, number))
                self._keys[number] = key
            number += 1
        self._end(rows)

    def gone(self, entries: Iterable[Entry]) -> None:
        """These messages are in the queue no more."""
        if self._keys:
            self._forget([entry[ENTRY_NUMBER] for entry in entries])

    def gone_range(self, first: int, stop: int) -> None:
        """Nor are messages `first` to `stop - 1`."""
        if stop - first < len(self._keys):
            self._forget(range(first, stop))
        else:
            self._forget([number for number in self._keys if first <= number < stop])

    def _forget(self, numbers: Iterable[int]) -> None:
        window, pop = self.window, self._keys.pop
        for number in numbers:
            key = pop(number, None)
            if key is not None:
                original = window.get(key)
                if original is not None and original[NUMBER] == number:
                    window.forget(key)
        self._count()

    def shrink(self) -> None:
        """Lets some of the oldest go."""
        for _ in range(min(SHRINK_AT_ONCE, len(self.window) // 2)):
            oldest = self.window.oldest
            assert oldest is not None
            self._keys.pop(oldest[NUMBER], None)
            self.window.drop_oldest()
        self._count()

    def change(self, asked: Deduplication) -> None:
        """From now on it is asked for this."""
        super().change(asked._replace(size=sys.maxsize, ttl=None))

    def clear(self) -> None:
        """It knows nothing any more."""
        self._keys.clear()
        super().clear()

    def close(self) -> None:
        """Nobody asks any more."""
        self._keys.clear()
        self.follow(self._queue, None)
        self._broker.present_count -= 1
        super().close()

    @property
    def memory(self) -> int:
        """Octets of memory that it takes."""
        return super().memory + len(self._keys) * NUMBER_BYTES

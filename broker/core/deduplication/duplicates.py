"""What an exchange or queue knows of duplicates: a message that says to be one that it has taken
lately is not taken again.

Theory of operation. Only what clients publish is judged: dead letters, retries and what is copied
from a history were judged when they were published. Who publishes asks first and tells what was
taken (`Judged`), so that what is refused, returned or not written leaves nothing. An id
knows the batch of the log that its message is in: a duplicate is confirmed when that is durable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

from broker.core.deduplication.asked import MESSAGE_ID, Deduplication
from broker.core.deduplication.remembered import SHIFT, Remembered, Row, next_number
from broker.core.deduplication.window import EXPIRES, NUMBER, Original, Window, id_of, id_of_text
from broker.core.exchange import Exchange
from broker.core.message import CONTENT, HEADER_SIZE, Message
from broker.wire import properties
from broker.wire.table import INTEGER_TYPES

if TYPE_CHECKING:
    from broker.core.broker import Broker
    from broker.core.queue import Queue

MEMORY_SHARE: Final = 0.25
"""Of the memory limit: all ids together take no more, or the oldest ones of the largest window go.
Nothing else would ever make them go while publishers wait for memory."""
SHRINK_AT_ONCE: Final = 1000
TELL_AGAIN_MS: Final = 60_000
"""It is told at most so often of one window."""
EXPIRED_IN_TURN: Final = 1000
SWEEP_MS: Final = 1000
"""So seldom it is looked for ids that have expired: they count no more anyway."""
SWEEP_ON_MS: Final = 20
"""But so soon, if some were found and not all could go."""
OWN_TTL: Final = "x-cache-ttl"
"""The header of a message that says for how long it is remembered."""
_OWN_TTL_OCTETS: Final = b"\x0bx-cache-ttl"
_TTL_MAX: Final = 2**62

Mark: TypeAlias = "tuple[bytes, int | None]"
"""What a message says of itself: (id, for how many milliseconds that is remembered, or None)."""


class Duplicates:
    """What one exchange or queue has taken lately. `dropped` counts duplicates."""

    __slots__ = (
        "_broker",
        "_counted",
        "_label",
        "asked",
        "dropped",
        "due",
        "owner",
        "stored",
        "told_again_at",
        "window",
    )

    def __init__(self, broker: Broker, owner: Queue | Exchange, asked: Deduplication) -> None:
        self._broker = broker
        self.owner = owner
        self.asked = asked
        self.dropped = 0
        self.due: int | None = None
        # When it may be told again that it has too little memory.
        self.told_again_at = 0
        self.stored: Remembered | None = None
        self.window = Window(asked.size, asked.ttl)
        # How a header says it; empty for a property.
        self._label = _label_of(asked.header)
        # Octets of memory that are counted for it.
        self._counted = 0
        broker.windows[self] = None

    def last(self, remembered: Remembered, originals: Sequence[tuple[bytes, Original]]) -> None:
        """It lasts from now on; the log has these, the oldest first."""
        self.stored = remembered
        self.window = Window(self.window.size, self.window.ttl, remembered.let_go)
        remembered.connect(self.window)
        now = self._broker.timers.now
        for key, original in originals:
            if original[EXPIRES] is None or original[EXPIRES] > now:
                self.window.restore(key, original)
            else:
                remembered.let_go(key, original)
        self._count()
        self._watch(now)

    def mark(self, header: bytes) -> Mark | None:
        """What the message with this header frame says of itself; None if nothing."""
        label = self._label
        if not label:
            message_id = properties.message_id(header)
            key = id_of_text(message_id) if message_id else None
        elif label in header:
            # Most say it so.
            first = properties.first_text(header, label)
            if first is not None:
                key = id_of_text(first)
            else:
                key = id_of(properties.header_field(header, self.asked.header))
        else:
            return None
        if key is None:
            return None
        if _OWN_TTL_OCTETS not in header:
            return key, None
        own = properties.header_field(header, OWN_TTL)
        if own is None or own.type not in INTEGER_TYPES:
            return key, None
        assert isinstance(own.value, int)
        return key, (min(own.value, _TTL_MAX) if own.value >= 0 else None)

    def find(self, key: bytes) -> int | None:
        """The batch of the log with the message that this id is a duplicate of, 0 if it need not
        be waited for; None if it is new."""
        original = self.window.original(key, self._broker.timers.now)
        if original is None:
            return None
        batch = original[NUMBER] >> SHIFT
        journal = self._broker.journal
        if batch <= 0 or journal is None or batch <= journal.durable:
            return 0
        if journal.has_failed:
            # It never will be: whoever sent it was told so.
            self.window.forget(key)
            self._count()
            return None
        return batch

    def take(
        self, messages: Sequence[Message], *, is_written: bool
    ) -> tuple[list[Message], int | None]:
        """Those of these messages that are new; they are taken, in the pending batch of the log if
        `is_written`. And the last batch with one that another is a duplicate of, if any is."""
        fresh: list[Message] = []
        rows: list[Row] = []
        last: int | None = None
        for message in messages:
            mark = self.mark(message[CONTENT][: message[HEADER_SIZE]])
            if mark is not None:
                batch = self.find(mark[0])
                if batch is not None:
                    last = max(last or 0, batch)
                    continue
                self._add(mark, rows, is_written=is_written)
            fresh.append(message)
        if len(fresh) < len(messages):
            self.drop(len(messages) - len(fresh))
        self._end(rows)
        return fresh, last

    def remember(self, mark: Mark, *, is_written: bool) -> None:
        """A message that says so was taken."""
        rows: list[Row] = []
        self._add(mark, rows, is_written=is_written)
        self._end(rows)

    def _add(self, mark: Mark, rows: list[Row], *, is_written: bool) -> None:
        """Adds what the log has to know to `rows`."""
        key, own = mark
        now = self._broker.timers.now
        expires = self.window.expiry(now, own)
        if expires is not None and expires <= now:
            return
        journal = self._broker.journal
        number = next_number(journal) if journal is not None else 0
        position = 0
        if not is_written:
            number = -number
        elif self.stored is not None:
            position = self.stored.hold(key)
            rows.append((key, expires, number))
        self.window.add(key, now, (expires, position, number))

    def _end(self, rows: list[Row]) -> None:
        if rows and self.stored is not None:
            self.stored.write(rows)
        self._count()
        if self.due is None:
            self._watch(self._broker.timers.now)
        if self._broker.window_bytes > MEMORY_SHARE * self._broker.limits.memory > 0:
            shrink_largest(self._broker)

    def drop(self, count: int = 1) -> None:
        """So many duplicates were not taken."""
        self.dropped += count
        self._broker.counters.messages_deduplicated += count

    def change(self, asked: Deduplication) -> None:
        """From now on it is asked for this."""
        if asked.header != self.asked.header:
            self.clear()
        self.asked = asked
        self._label = _label_of(asked.header)
        self.window.change(asked.size, asked.ttl)
        self._count()

    def clear(self) -> None:
        """Nothing was taken lately."""
        if self.stored is not None:
            self.stored.forget_all()
        self.window.clear()
        self._count()

    def close(self) -> None:
        """Nobody asks any more."""
        if self.stored is not None:
            self.stored.close()
        self.window.clear()
        self._count()
        self._broker.windows.pop(self, None)
        self._broker.timers.set(self, None)

    def on_time(self, now: int) -> None:
        """Some may have expired."""
        self.window.expire(now, EXPIRED_IN_TURN)
        self._count()
        self._watch(now)

    def _watch(self, now: int) -> None:
        oldest = self.window.oldest
        if oldest is not None and oldest[EXPIRES] is not None:
            soonest = now + (SWEEP_MS if oldest[EXPIRES] > now else SWEEP_ON_MS)
            self._broker.timers.set(self, max(oldest[EXPIRES], soonest))

    def shrink(self) -> None:
        """Lets some of the oldest go."""
        for _ in range(min(SHRINK_AT_ONCE, len(self.window) // 2)):
            self.window.drop_oldest()
        self._count()

    @property
    def memory(self) -> int:
        """Octets of memory that it takes."""
        return self.window.memory

    def _count(self) -> None:
        memory = self.memory
        if memory != self._counted:
            self._broker.memory_used += memory - self._counted
            self._broker.window_bytes += memory - self._counted
            self._counted = memory


class Judged:
    """What those who know duplicates say of one publish. `batch` is None if it is new to all, else
    the last batch of the log with one that it is a duplicate of."""

    __slots__ = ("_header", "batch", "marks")

    def __init__(self, header: bytes) -> None:
        self._header = header
        self.batch: int | None = None
        # Who remembers it if it is taken, and what.
        self.marks: list[tuple[Duplicates, Mark]] = []

    def is_dropped(self, duplicates: Duplicates) -> bool:
        """Whether it is a duplicate there, which is counted."""
        mark = duplicates.mark(self._header)
        if mark is None:
            return False
        batch = duplicates.find(mark[0])
        if batch is None:
            self.marks.append((duplicates, mark))
            return False
        duplicates.drop()
        self.batch = max(self.batch or 0, batch)
        return True

    def among(self, queues: Sequence[Queue]) -> list[Queue]:
        """Those of these queues to which it is new."""
        return [
            queue
            for queue in queues
            if queue.duplicates is None or not self.is_dropped(queue.duplicates)
        ]

    def remember(
        self, taking: Sequence[Queue], *, persistent: bool, is_refused: bool = False
    ) -> None:
        """These queues have taken it. So have the exchanges on its way, unless one refused it and
        its publisher is told so."""
        lasting = [queue for queue in taking if persistent and queue.lasting is not None]
        for duplicates, mark in self.marks:
            owner = duplicates.owner
            if isinstance(owner, Exchange):
                if is_refused or not taking:
                    continue
                duplicates.remember(mark, is_written=bool(lasting))
            elif owner in taking:
                duplicates.remember(mark, is_written=owner in lasting)


def _label_of(header: str) -> bytes:
    if header in MESSAGE_ID:
        return b""
    name = header.encode("utf-8", "surrogateescape")
    return bytes([len(name)]) + name


def shrink_largest(broker: Broker) -> None:
    """All ids together take too much memory: the largest window has to be content with less."""
    largest = max(broker.windows, key=lambda each: each.memory)
    owner = largest.owner
    kind = "exchange" if isinstance(owner, Exchange) else "queue"
    now = broker.timers.now
    if now >= largest.told_again_at:
        largest.told_again_at = now + TELL_AGAIN_MS
        details: dict[str, object] = {"vhost": owner.vhost_name, "kind": kind, "name": owner.name}
        broker.note("deduplication_short", {**details, "remembered": len(largest.window)})
    largest.shrink()

"""What the log has of the ids that were published lately: which of them, until when.

Theory of operation. An id is written in the same batch as its message, so that after a crash there
are both or neither. Its number is above all that were written before; so what the cleaner has
moved to the end of the log goes back to its place. Nothing is written when an id leaves: each
record says the number of the oldest one that is left (the floor), and what is below the last floor
counts no more. What is not there any more is not wanted, either: the cleaner does not move it.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Final, TypeAlias

from broker.core.deduplication.window import NUMBER, POSITION, Original, Window
from broker.core.records import HEAD, Kind, column, read_column
from broker.storage.log import Position

if TYPE_CHECKING:
    from broker.core.batches import Batches
    from broker.core.journal import Journal

SHIFT: Final = 24
"""The number of an id is that of the batch of its message, shifted by this, and its place in it."""
PRESENT: Final = 1 << 63
"""Beside the id of a queue: these are the messages that it has, by their own numbers."""
ROW_BYTES: Final = 17
"""Octets of one id in a record, beside itself."""
_FIRST: Final = struct.Struct("<QQI")
_NEVER: Final = 2**64 - 1
_PRUNE_FROM: Final = 1024

Row: TypeAlias = "tuple[bytes, int | None, int]"
"""(id, when it expires, number)."""


def record(window_id: int, floor: int, rows: Sequence[Row]) -> bytes:
    """A record of the ids of one window."""
    payload = b"".join(
        [
            _FIRST.pack(window_id, floor, len(rows)),
            column("Q", [number for _, _, number in rows]),
            column("Q", [_NEVER if expires is None else expires for _, expires, _ in rows]),
            bytes([len(key) for key, _, _ in rows]),
            *[key for key, _, _ in rows],
        ]
    )
    return HEAD.pack(Kind.REMEMBERED, len(payload)) + payload


def read_record(batch: bytes, at: int) -> tuple[int, int, list[Row]]:
    """(window id, floor, rows) of the record whose payload begins at `at`."""
    window_id, floor, count = _FIRST.unpack_from(batch, at)
    at += _FIRST.size
    numbers = read_column("Q", batch, at, count)
    times = read_column("Q", batch, at + 8 * count, count)
    at += 16 * count
    ends = accumulate(batch[at : at + count], initial=at + count)
    keys = [batch[start:end] for start, end in pairwise(ends)]
    columns = zip(keys, times, numbers, strict=True)
    return (
        window_id,
        floor,
        [(key, None if time == _NEVER else time, number) for key, time, number in columns],
    )


def next_number(journal: Journal) -> int:
    """A number for an id whose message goes to the pending batch: above all before it."""
    journal.last_number = max(journal.last_number + 1, journal.position << SHIFT)
    return journal.last_number


class Remembered:
    """The durable side of one window. `id` names it in the log, and no other there ever. Without
    `has_floor` its owner knows which numbers count."""

    __slots__ = ("_has_floor", "_window", "id", "journal")

    def __init__(self, journal: Journal, window_id: int, *, has_floor: bool = True) -> None:
        self.journal = journal
        self._has_floor = has_floor
        self.id = window_id
        self._window = Window(1)

    def connect(self, window: Window) -> None:
        """It is of this window, which tells of what leaves (`let_go`)."""
        self._window = window
        self.journal.windows[self.id] = self

    def hold(self, key: bytes) -> Position:
        """This id goes to the pending batch. Returns which one that is, 0 if there is none any
        more."""
        journal = self.journal
        if journal.has_failed:
            return 0
        position = journal.position
        journal.batches.hold(position, ROW_BYTES + len(key))
        return position

    def write(self, rows: Sequence[Row]) -> None:
        """Adds these, which are held, to the pending batch."""
        self.journal.add_record(record(self.id, self._floor(rows), rows))

    def _floor(self, rows: Sequence[Row]) -> int:
        if not self._has_floor:
            return 0
        oldest = self._window.oldest
        # Messages that do not last have negative numbers.
        return abs(oldest[NUMBER]) if oldest is not None else rows[0][2]

    def let_go(self, key: bytes, original: Original) -> None:
        """An id left the window."""
        if original[POSITION]:
            self.journal.batches.free(original[POSITION], ROW_BYTES + len(key))

    def forget_all(self) -> None:
        """Those that are there now count no more, also after a restart."""
        octets: Counter[Position] = Counter()
        for key, original in self._window:
            if original[POSITION]:
                octets[original[POSITION]] += ROW_BYTES + len(key)
        for position, count in octets.items():
            self.journal.batches.free(position, count)
        if self._has_floor and not self.journal.has_failed:
            self.journal.add_record(record(self.id, next_number(self.journal), ()))

    def close(self) -> None:
        """There is no such window any more; there may be one with its id later."""
        self.forget_all()
        self.journal.windows.pop(self.id, None)

    def store_anew(self, position: Position, rows: Sequence[Row]) -> int:
        """Writes those again that are wanted of this batch, and returns how many."""
        wanted: list[Row] = []
        get = self._window.get
        for row in rows:
            original = get(row[0])
            if original is not None and original[POSITION] == position and original[2] == row[2]:
                wanted.append(row)
        for key, expires, number in wanted:
            self.journal.batches.free(position, ROW_BYTES + len(key))
            self._window.replace(key, (expires, self.hold(key), number))
        if wanted:
            self.write(wanted)
        return len(wanted)


class ReadWindows:
    """The windows in a log that is being read, by id."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self._originals: dict[int, dict[bytes, Original]] = {}
        self._floors: dict[int, int] = {}
        # How many there may be before those are dropped that count no more.
        self._most: dict[int, int] = {}
        self.highest_id = 0

    def read(self, position: Position, batch: bytes, at: int) -> None:
        """A record of this batch."""
        window_id, floor, rows = read_record(batch, at)
        self.highest_id = max(self.highest_id, window_id & ~PRESENT)
        self._floors[window_id] = max(floor, self._floors.get(window_id, 0))
        originals = self._originals.setdefault(window_id, {})
        self._batches.hold(position, _octets(rows))
        for key, expires, number in rows:
            known = originals.get(key)
            if known is not None:
                # The same one was moved, or it expired and came again.
                self._free(key, known)
            originals[key] = expires, position, number
        if len(originals) > self._most.get(window_id, _PRUNE_FROM):
            self._prune(window_id)

    def _prune(self, window_id: int) -> None:
        floor = self._floors.get(window_id, 0)
        originals = self._originals[window_id]
        for key in [key for key, each in originals.items() if each[NUMBER] < floor]:
            self._free(key, originals.pop(key))
        self._most[window_id] = 2 * len(originals) + _PRUNE_FROM

    def _free(self, key: bytes, original: Original) -> None:
        self._batches.free(original[POSITION], ROW_BYTES + len(key))

    def take(self, window_id: int) -> list[tuple[bytes, Original]]:
        """What is left of a window, the oldest first; it is not in the log for anybody else."""
        if window_id not in self._originals:
            return []
        self._prune(window_id)
        originals = self._originals.pop(window_id)
        return sorted(originals.items(), key=_number)

    def drop_others(self) -> None:
        """Nobody has the others any more."""
        for originals in self._originals.values():
            for key, original in originals.items():
                self._free(key, original)
        self._originals.clear()


def _number(item: tuple[bytes, Original]) -> int:
    return item[1][NUMBER]


def _octets(rows: Iterable[Row]) -> int:
    return sum([ROW_BYTES + len(key) for key, _, _ in rows])

"""A log that lasts as long as its process: for tests, and for a broker that keeps nothing."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial

from broker.storage.log import Appended, Caller, Location, LogState, Oldest, Position, Read


class MemoryLog:
    """Keeps batches in memory: see `broker.storage.log.Log` for what it promises.

    `keep=False` forgets each batch at once, for an owner that never reads anything again.
    """

    def __init__(self, call: Caller, *, keep: bool = True) -> None:
        self.epoch = 1
        self.state = LogState.OPEN
        self.reason = ""
        self.unreadable: list[str] = []
        self.on_state = _nothing
        self._call = call
        self._keep = keep
        self._batches: deque[bytes] = deque()
        self._first: Position = 1
        self._size = 0
        self._appended = False

    @property
    def first(self) -> Position:
        """The oldest batch that is still kept."""
        return self._first

    @property
    def next(self) -> Position:
        """The position of the next batch."""
        return self._first + len(self._batches)

    @property
    def size_bytes(self) -> int:
        """Octets of the batches."""
        return self._size

    @property
    def room_bytes(self) -> int:
        """It is never full."""
        return sys.maxsize

    @property
    def oldest(self) -> Oldest:
        """The first batch."""
        return Oldest(self._first + 1, len(self._batches[0]) if self._batches else 0)

    def replay(self) -> Iterator[tuple[Position, bytes]]:
        """Every batch that is kept, oldest first. Only before the first `append`."""
        if self._appended:
            raise RuntimeError("a log is replayed before anything is appended")
        return enumerate(tuple(self._batches), self._first)

    def append(self, records: Sequence[bytes], done: Appended) -> Position:
        """Adds one batch; `done` is called from the loop."""
        position = self.next
        self._appended = True
        if self._keep:
            batch = b"".join(records)
            self._batches.append(batch)
            self._size += len(batch)
        else:
            self._first = position + 1
        self._call(partial(done, position))
        return position

    def read(self, locations: Sequence[Location], done: Read, *, some: bool = False) -> None:
        """Reads parts of batches again that are not truncated."""
        octets = self._read(locations)
        is_told = len(octets) == len(locations) or (some and octets)
        self._call(partial(done, octets if is_told else None))

    def truncate(self, before: Position) -> None:
        """Lets batches before this one go."""
        while self._batches and self._first < before:
            self._size -= len(self._batches.popleft())
            self._first += 1

    def close(self) -> None:
        """Leaves the batches to whoever opens it again."""

    def reopen(self) -> None:
        """As after a restart that lost nothing: a new epoch, and a replay is possible."""
        self.epoch += 1
        self._appended = False

    def _read(self, locations: Sequence[Location]) -> list[bytes]:
        octets: list[bytes] = []
        for position, offset, length in locations:
            if not self._first <= position < self.next:
                return octets
            batch = self._batches[position - self._first]
            if min(offset, length) < 0 or offset + length > len(batch):
                return octets
            octets.append(batch[offset : offset + length])
        return octets


def _nothing() -> None:
    """What a new log tells."""

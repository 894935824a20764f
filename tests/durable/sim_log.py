"""A log whose disk does what the test says, when it says it. No threads, no files.

Whatever the interface forbids fails at once: reading what is not durable or was truncated,
appending to a log that is closed, replaying one that was written to.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice, takewhile

from broker.storage.log import Appended, Location, LogState, Oldest, Position, Read

BATCH_BYTES = 1 << 10
"""Octets of a batch, for which a full disk has room."""
GRANULE = 4
"""Batches whose room comes back when all of them have gone."""


class SimLog:
    """Batches are durable from `work` on; who asked hears of it at `tell`, readers at `answer`.
    `disk` is how the disk is, `state` what the owner was told of it; a full one still has room for
    `room` batches."""

    def __init__(self, batches: Sequence[bytes] = (), first: Position = 1, epoch: int = 1) -> None:
        self.epoch = epoch
        self.disk = self.state = LogState.OPEN
        self.room = 0
        self.reason = ""
        self.unreadable: list[str] = []
        # What has these octets in it cannot be read, if there are any.
        self.bad = b""
        self.on_state: Callable[[], None] = lambda: None
        self.first: Position = first
        self.batches = deque(batches)
        # The last position that a crash would leave.
        self.durable: Position = first + len(batches) - 1
        self.told: deque[Callable[[], None]] = deque()
        self.reads: deque[tuple[list[Location], Read, bool]] = deque()
        self.is_closed = self.was_written = False
        self._done: deque[Appended] = deque()
        self._truncates: deque[tuple[Position, Position]] = deque()

    @property
    def next(self) -> Position:
        return self.first + len(self.batches)

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.batches))

    @property
    def room_bytes(self) -> int:
        """The rest is there for all else."""
        return self.room * BATCH_BYTES if self.disk is LogState.FULL else sys.maxsize

    @property
    def oldest(self) -> Oldest:
        """The first GRANULE batches, if they are all durable."""
        if self.durable < self.first + GRANULE:
            return Oldest(self.first, 0)
        return Oldest(self.first + GRANULE, sum(map(len, islice(self.batches, GRANULE))))

    @property
    def undurable(self) -> int:
        """Batches that a crash may take."""
        return self.next - 1 - self.durable

    @property
    def has_news(self) -> bool:
        """Whether there is something that the owner was not told."""
        return bool(self.told or self.reads)

    @property
    def can_work(self) -> bool:
        """Whether the disk has something to do, and does it."""
        return self.undurable > 0 and self._has_room

    @property
    def _has_room(self) -> bool:
        return self.disk is LogState.OPEN or (self.disk is LogState.FULL and self.room > 0)

    def replay(self) -> Iterator[tuple[Position, bytes]]:
        assert not self.was_written, "a replay after an append"
        return enumerate(tuple(self.batches), self.first)

    def append(self, records: Sequence[bytes], done: Appended) -> Position:
        assert not self.is_closed, "an append after the end"
        assert self.state is not LogState.FAILED, "an append after the failure"
        assert all(type(piece) is bytes for piece in records)
        assert sum(map(len, records)), "an empty batch"
        self.was_written = True
        position = self.next
        self.batches.append(b"".join(records))
        self._done.append(done)
        return position

    def read(self, locations: Sequence[Location], done: Read, *, some: bool = False) -> None:
        assert not self.is_closed
        for position, _, _ in locations:
            assert self.first <= position <= self.durable, (
                f"batch {position} cannot be read: there are {self.first} to {self.durable}"
            )
        self.reads.append((list(locations), done, some))

    def truncate(self, before: Position) -> None:
        assert before <= self.next
        self._truncates.append((before, self.next))
        self._truncate()

    def close(self) -> None:
        if self.disk is not LogState.FAILED:
            self.disk = LogState.OPEN
            self.work(self.undurable)
        self.is_closed = True

    # What the test decides

    def work(self, count: int) -> None:
        """Makes up to so many batches durable; none while the disk is full or has failed."""
        for _ in range(min(count, self.undurable)):
            if not self._has_room:
                return
            self.room -= 1
            self.durable += 1
            self.told.append(partial(self._done.popleft(), self.durable))
        self._truncate()

    def tell(self, count: int) -> None:
        """Tells up to so much of what happened, in order."""
        for _ in range(min(count, len(self.told))):
            self.told.popleft()()

    def answer(self, count: int, *, fail: bool = False) -> None:
        """Answers up to so many reads, in order."""
        for _ in range(min(count, len(self.reads))):
            locations, done, some = self.reads.popleft()
            read = [self._read(*location) for location in locations]
            good = list(takewhile(lambda piece: not self.bad or self.bad not in piece, read))
            is_answer = len(good) == len(read) or (some and good)
            done(good if is_answer and not fail else None)

    def become(self, state: LogState, room: int = 0) -> None:
        """The disk is full or failed, or there is room again; told like all else."""
        assert self.disk is not LogState.FAILED
        self.disk, self.room = state, room
        self.told.append(partial(self._tell_state, state))

    def crashed(self, keep: int = 0) -> SimLog:
        """What the next owner finds: all that is durable, and `keep` batches more."""
        left = self.durable - self.first + 1 + min(keep, self.undurable)
        return SimLog(list(self.batches)[:left], self.first, self.epoch + 1)

    def _tell_state(self, state: LogState) -> None:
        self.state = state
        self.reason = "" if state is LogState.OPEN else f"the test said {state.value}"
        self.on_state()

    def _read(self, position: Position, offset: int, length: int) -> bytes:
        batch = self.batches[position - self.first]
        assert 0 <= offset <= offset + length <= len(batch)
        return batch[offset : offset + length]

    def _truncate(self) -> None:
        # A read that is under way keeps what it reads.
        while self._truncates and self._truncates[0][1] <= self.durable + 1 and not self.reads:
            before = self._truncates.popleft()[0]
            while self.first < before:
                self.batches.popleft()
                self.first += 1

"""A log without a disk whose durability a test decides: when, whether, and what a crash leaves."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

from broker.storage.log import Appended, Caller, Location, LogState, Oldest, Position, Read
from broker.storage.memory_log import MemoryLog


class _Pending(NamedTuple):
    batch: bytes
    done: Appended


class FaultyLog:
    """Keeps batches in memory. With `holding` they become durable only by `flush`.

    What was told to be durable survives `crash`; what was not may.
    """

    def __init__(self, call: Caller, *, holding: bool = False) -> None:
        self.holding = holding
        self.on_state = _nothing
        self.state = LogState.OPEN
        self.reason = ""
        self.unreadable: list[str] = []
        self._call = call
        self._durable = MemoryLog(call)
        self._pending: deque[_Pending] = deque()
        self._truncates: deque[tuple[Position, Position]] = deque()

    @property
    def epoch(self) -> int:
        """Grows by one at each crash."""
        return self._durable.epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._durable.epoch = epoch

    @property
    def first(self) -> Position:
        """The oldest batch that is still kept."""
        return self._durable.first

    @property
    def next(self) -> Position:
        """The position of the next batch."""
        return self._durable.next + len(self._pending)

    @property
    def pending(self) -> int:
        """How many batches wait to be durable."""
        return len(self._pending)

    @property
    def size_bytes(self) -> int:
        """Octets of the durable batches."""
        return self._durable.size_bytes

    @property
    def room_bytes(self) -> int:
        """None: a full one takes nothing."""
        return 0

    @property
    def oldest(self) -> Oldest:
        """The first durable batch."""
        return self._durable.oldest

    def replay(self) -> Iterator[tuple[Position, bytes]]:
        """Every batch that is kept, oldest first. Only before the first `append`."""
        return self._durable.replay()

    def append(self, records: Sequence[bytes], done: Appended) -> Position:
        """Adds one batch. Told at once unless it is held, the log is full or has failed."""
        position = self.next
        self._pending.append(_Pending(b"".join(records), done))
        if not self.holding:
            self.flush()
        return position

    def read(self, locations: Sequence[Location], done: Read, *, some: bool = False) -> None:
        """Reads what is durable."""
        self._durable.read(locations, done, some=some)

    def truncate(self, before: Position) -> None:
        """Lets batches go once what was appended so far is durable."""
        self._truncates.append((before, self.next))
        self._truncate()

    def close(self) -> None:
        """Makes everything durable that can be."""
        self.flush()

    def flush(self, count: int | None = None) -> int:
        """Makes that many batches durable, oldest first, or all; none unless the log is open.

        Returns how many.
        """
        flushed = 0
        while self._pending and self.state is LogState.OPEN and flushed != count:
            batch, done = self._pending.popleft()
            self._durable.append([batch], done)
            flushed += 1
        self._truncate()
        return flushed

    def fail(self, reason: str = "Input/output error") -> None:
        """A write or a flush failed: for ever."""
        self._become(LogState.FAILED, reason)

    def fill(self, reason: str = "No space left on device") -> None:
        """There is no room until `make_room`."""
        self._become(LogState.FULL, reason)

    def make_room(self) -> None:
        """What waited is written, unless it is held."""
        self._become(LogState.OPEN, "")
        if not self.holding:
            self.flush()

    def crash(self, keep: int = 0) -> None:
        """Ends the owner and opens anew: of what was pending only the oldest `keep` are there.

        Callbacks of the old owner that have not run yet are the test's to throw away.
        """
        for batch, _ in [self._pending.popleft() for _ in range(min(keep, len(self._pending)))]:
            self._durable.append([batch], _untold)
        self._pending.clear()
        self._truncates.clear()
        self._durable.reopen()
        self.state, self.reason = LogState.OPEN, ""
        self.on_state = _nothing

    def _truncate(self) -> None:
        while self._truncates and self._truncates[0][1] <= self._durable.next:
            self._durable.truncate(self._truncates.popleft()[0])

    def _become(self, state: LogState, reason: str) -> None:
        if state is not self.state and self.state is not LogState.FAILED:
            self.state = state
            self._call(partial(self._tell, state, reason))

    def _tell(self, state: LogState, reason: str) -> None:
        if state is self.state:
            self.reason = reason
            self.on_state()


def _untold(_position: Position) -> None:
    """Whoever asked is gone."""


def _nothing() -> None:
    """What a new log tells."""

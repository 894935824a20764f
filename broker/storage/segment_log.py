"""The default log: preallocated segment files in a directory, written by one thread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from broker.storage.directory import Directory
from broker.storage.files import Files
from broker.storage.log import (
    Appended,
    Caller,
    Location,
    LogError,
    LogState,
    Oldest,
    Position,
    Read,
)
from broker.storage.reader import Passed, Reader, Wanted
from broker.storage.segment import GROUP_OCTETS, HEADER_OCTETS, MARK_OCTETS, Segment
from broker.storage.tail import Discarded, read_tail, replay_segments
from broker.storage.writer import Append, Truncate, Writer

SEGMENT_OCTETS = 64 << 20
SEGMENT_OCTETS_MIN = HEADER_OCTETS + GROUP_OCTETS + MARK_OCTETS
# How long a full disk is left alone before it is asked again.
RETRY_S = 1.0


class SegmentLog:
    """An open log in a directory: see `broker.storage.log.Log` for what it promises.

    `discarded` tells what a crash had left unfinished at the end, which was never durable.
    `unreadable` has one line for each segment; `on_unreadable` is called whenever that has changed.
    A read that is asked for anew may work.
    Whole segments are dropped, so `first` may be before what was truncated.
    """

    def __init__(
        self,
        directory: Directory,
        segments: list[Segment],
        epoch: int,
        call: Caller,
        *,
        discarded: Discarded | None,
        retry_s: float,
    ) -> None:
        self.epoch = epoch
        self.state = LogState.OPEN
        self.reason = ""
        self.on_state = _nothing
        self.unreadable: list[str] = []
        self.on_unreadable = _nothing
        self.discarded = discarded
        self._directory = directory
        self._call = call
        self._next = segments[-1].next
        self._replayable = True
        self._closed = False
        self._truncated: Position = 0
        self._writer = Writer(
            directory, segments, epoch, call, self._state_changed, retry_s=retry_s
        )
        self._reader = Reader(
            directory.files, lambda: self._writer.segments, call, self._unreadable_changed
        )
        self._writer.start()
        self._reader.start()

    @classmethod
    def open(
        cls,
        directory: Path,
        call: Caller,
        *,
        segment_bytes: int = SEGMENT_OCTETS,
        sync: bool = True,
        files: Files | None = None,
        retry_s: float = RETRY_S,
    ) -> SegmentLog:
        """Opens the log in a directory, which is made if there is none, and owns it until `close`.

        `sync=False` waits for no disk: then a power cut loses what was told to be durable.
        Raises LogLockedError, LogDamagedError, and LogError if it cannot be read or written.
        """
        if segment_bytes < SEGMENT_OCTETS_MIN:
            raise ValueError(f"segments of less than {SEGMENT_OCTETS_MIN} octets")
        files = Files(durable=sync) if files is None else files
        owned = Directory(directory, files, segment_bytes)
        opened = False
        try:
            last_epoch = owned.lock()
            owned.check_format()
            segments, epoch, discarded = read_tail(owned, last_epoch)
            log = cls(owned, segments, epoch, call, discarded=discarded, retry_s=retry_s)
            opened = True
        except OSError as error:
            raise LogError(f"{error.filename or directory}: {error.strerror}") from error
        finally:
            if not opened:
                owned.unlock()
        return log

    @property
    def segments(self) -> list[Segment]:
        """The segments, oldest first. For looking only."""
        return self._writer.segments

    @property
    def first(self) -> Position:
        """The oldest batch that is still kept."""
        return self.segments[0].first

    @property
    def next(self) -> Position:
        """The position of the next batch."""
        return self._next

    @property
    def size_bytes(self) -> int:
        """Octets of the segments, the rest of the last one not counted."""
        *older, last = self.segments
        return sum(each.header.capacity for each in older) + last.end

    @property
    def room_bytes(self) -> int:
        """Octets that the last segment still takes."""
        return self.segments[-1].room

    @property
    def oldest(self) -> Oldest:
        """The oldest segment, if it is not the last one."""
        segments = self.segments
        if len(segments) == 1:
            return Oldest(segments[0].first, 0)
        return Oldest(segments[1].first, segments[0].header.capacity)

    def replay(self) -> Iterator[tuple[Position, bytes]]:
        """Every batch that is kept, oldest first. Only before the first `append`. Blocks.

        Raises LogDamagedError, also for a segment that cannot be read.
        """
        if not self._replayable:
            raise RuntimeError("a log is replayed before anything is appended")
        return replay_segments(self._directory.files, self.segments)

    def append(self, records: Sequence[bytes], done: Appended) -> Position:
        """Adds one batch; `done` is called when it is durable."""
        position = self._next
        self._next = position + 1
        self._replayable = False
        self._writer.orders.put(Append(position, records, done))
        return position

    def read(self, locations: Sequence[Location], done: Read, *, some: bool = False) -> None:
        """Reads parts of batches again that are durable and not truncated; with `some`, as far as
        they can be read."""
        if any(position < self._truncated for position, _, _ in locations):
            self._call(partial(done, None))
            return
        self._reader.requests.put(Wanted(locations, done, some))

    def truncate(self, before: Position) -> None:
        """Lets batches before this one go, once all that was appended so far is durable."""
        if before <= self._truncated:
            return
        self._truncated = before
        order = Truncate(before, self._next)
        # By way of the reader: what was asked for until now is read before it goes.
        self._reader.requests.put(Passed(before, partial(self._writer.orders.put, order)))

    def close(self) -> None:
        """Makes everything durable that can be, tells so, and lets the log go. Blocks."""
        if self._closed:
            return
        self._closed = True
        self._reader.stop()
        self._writer.stop()
        self._directory.unlock()

    def _state_changed(self, state: LogState, reason: str) -> None:
        self.state = state
        self.reason = reason
        self.on_state()

    def _unreadable_changed(self, unreadable: list[str]) -> None:
        self.unreadable = unreadable
        self.on_unreadable()


def _nothing() -> None:
    """What a new log tells."""

"""The thread that writes the segment log: nothing else writes once the log is open.

What was appended while a group was being made durable is the next group. Per group there is one
join, one checksum, one write, one flush and one call back, each of which lets the interpreter go
when there is much to do: a busy event loop beside it is not held up, and holds nothing up.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from typing import NamedTuple, TypeAlias

from broker.storage.directory import Directory, Seal
from broker.storage.files import NO_SPACE, Files, FlushError, flushing
from broker.storage.log import Appended, Caller, LogLockedError, LogState, Position
from broker.storage.segment import (
    GROUP_OCTETS,
    HEADER_OCTETS,
    LENGTH_OCTETS,
    MARK_OCTETS,
    Segment,
    encode_group,
)

# More than this is not joined with what came before: the memory that it takes is taken twice.
_GROUP_OCTETS_MAX = 32 << 20
# The share of a segment that is written before the next one is allocated. Early, so that most of
# it is left for what is under way when the disk is found to be full, which may be half of a
# segment, and for settlements behind that; but what is written by then is more than what an owner
# leaves at the end of a log that it wants nothing of, so that the segment before can go.
_RESERVE_FROM = 4
# How often it is looked whether the log still has this owner, while it is written.
_OWNER_S = 0.1
_ENDED = frozenset({LogState.FAILED, LogState.FENCED})


class Append(NamedTuple):
    """A batch that waits to be written."""

    position: Position
    records: Sequence[bytes]
    done: Appended


class Truncate(NamedTuple):
    """Segments that may go once everything before `durable` is on the disk."""

    before: Position
    durable: Position


class Stop(NamedTuple):
    """Write what waits, as far as it can be written, and end."""


Order: TypeAlias = Append | Truncate | Stop
StateChanged: TypeAlias = Callable[[LogState, str], None]


class Writer:
    """Takes orders through `orders`. Its attributes are for its own thread, `segments` excepted:
    that list is replaced, never changed, and the last one of it is being written.
    """

    def __init__(
        self,
        directory: Directory,
        segments: list[Segment],
        epoch: int,
        call: Caller,
        state_changed: StateChanged,
        *,
        retry_s: float,
    ) -> None:
        self.orders: SimpleQueue[Order] = SimpleQueue()
        self.segments = segments
        self.state = LogState.OPEN
        self._directory = directory
        self._files = directory.files
        self._epoch = epoch
        self._call = call
        self._state_changed = state_changed
        self._retry_s = retry_s
        self._retry_at = 0.0
        self._owner_at = 0.0
        self._waiting: deque[Append] = deque()
        self._truncates: deque[Truncate] = deque()
        self._before: Position = 0
        self._held = False
        # The next segment, while the mark that leads to it cannot be written.
        self._made: Segment | None = None
        self._stopping = False
        self._descriptor = self._files.open(segments[-1].path, os.O_RDWR)
        self._thread = threading.Thread(target=self._run, name="log writer", daemon=True)

    def start(self) -> None:
        """Begins to take orders. A disk that is full already is told before anything else is."""
        self._turn()
        self._thread.start()

    def stop(self) -> None:
        """Ends when everything that can be written is; waits for it."""
        self.orders.put(Stop())
        self._thread.join()

    def _run(self) -> None:
        ended = False
        try:
            while not self._stopping:
                self._take_orders()
                self._turn()
            self._finish()
            ended = True
        finally:
            if not ended:
                self._become(LogState.FAILED, "the writer ended by an error of its own")
            self._files.close(self._descriptor)

    def _take_orders(self) -> None:
        """Waits for orders, unless there is something to do without any, and takes them all."""
        busy = self.state not in _ENDED and (
            (bool(self._waiting) and (not self._held or self._may_try()))
            or self._droppable() is not None
        )
        timeout = None
        if self.state is LogState.FULL:
            timeout = max(0.0, self._retry_at - time.monotonic())
        try:
            order = self.orders.get(not busy, timeout)
            while True:
                if isinstance(order, Append):
                    self._waiting.append(order)
                elif isinstance(order, Truncate):
                    self._truncates.append(order)
                else:
                    self._stopping = True
                order = self.orders.get_nowait()
        except Empty:
            pass

    def _turn(self) -> None:
        """One group, and at most one segment dropped."""
        if self.state in _ENDED:
            self._waiting.clear()
            return
        try:
            if self._waiting and (not self._held or self._may_try()):
                self._write()
            self._drop()
            self._keep_reserve()
        except LogLockedError as error:
            self._waiting.clear()
            self._become(LogState.FENCED, str(error))
        except OSError as error:
            self._waiting.clear()
            self._become(LogState.FAILED, self._reason(error))

    def _finish(self) -> None:
        """Writes what still waits and says where the log ends."""
        self._retry_at = 0.0
        while self._waiting and not (self._held and self._retry_at):
            self._turn()
        if self.state in _ENDED:
            return
        tail = self.segments[-1]
        # If it cannot be said, nothing is lost: the next owner reads the tail as after a crash.
        with contextlib.suppress(OSError, LogLockedError):
            self._directory.check_owner()
            if self._made is not None:
                self._directory.drop_segment(self._made, recycle=True)
            self._directory.write_seal(Seal(tail.header.number, tail.end, tail.next, self._epoch))

    # Writing.

    def _write(self) -> None:
        """Writes the batches that wait as one group, or holds them for want of space."""
        group, octets = self._fitting(self.segments[-1].room)
        if not group:
            if not self._next_segment(octets):
                return
            group, octets = self._fitting(self.segments[-1].room)
        self._keep_reserve(octets)
        tail = self.segments[-1]
        batches = [each.records for each in group]
        pieces, sizes = encode_group(tail.header, self._epoch, group[0].position, batches)
        if time.monotonic() >= self._owner_at:
            self._check_owner()
        try:
            self._files.write(self._descriptor, pieces, tail.end)
        except OSError as error:
            self._hold(error)
            return
        self._files.sync(self._descriptor)
        self._held = False
        end = tail.end + octets
        tail.add(end - sum(sizes), sizes, end)
        for _ in group:
            self._waiting.popleft()
        self._tell(partial(_told, group))

    def _fitting(self, room: int) -> tuple[list[Append], int]:
        """The batches that go into one group of at most that many octets, and the octets.

        None go if the first one does not fit; then the octets are what it alone needs.
        """
        group: list[Append] = []
        total = GROUP_OCTETS
        for each in self._waiting:
            octets = LENGTH_OCTETS + sum(map(len, each.records))
            if total + octets > room or (group and total + octets > _GROUP_OCTETS_MAX):
                return (group, total) if group else ([], total + octets)
            group.append(each)
            total += octets
        return group, total

    def _next_segment(self, octets: int) -> bool:
        """Goes on in a new segment with room for this group, or holds it for want of space."""
        tail = self.segments[-1]
        octets += HEADER_OCTETS + MARK_OCTETS
        self._check_owner()
        try:
            made = self._made = self._made or self._directory.make_segment(
                tail.header.number + 1, self._epoch, tail.next, octets
            )
            descriptor = self._files.open(made.path, os.O_RDWR)
        except OSError as error:
            self._hold(error)
            return False
        try:
            # Only now that the next one exists: a log that loses its last one is found out.
            write_mark(self._files, self._descriptor, tail, self._epoch)
        except OSError as error:
            self._files.close(descriptor)
            self._hold(error)
            return False
        self._files.close(self._descriptor)
        self._descriptor = descriptor
        self.segments = [*self.segments, made]
        self._made = None
        return True

    # Space.

    def _hold(self, error: OSError) -> None:
        """Keeps what waits until there is space. Raises any other error."""
        if isinstance(error, FlushError) or error.errno not in NO_SPACE:
            raise error
        self._held = True
        self._no_space(error)

    def _no_space(self, error: OSError) -> None:
        self._retry_at = time.monotonic() + self._retry_s
        self._become(LogState.FULL, self._reason(error))

    def _may_try(self) -> bool:
        return time.monotonic() >= self._retry_at

    def _droppable(self) -> Segment | None:
        """The oldest segment, if it may go."""
        durable = self.segments[-1].next
        while self._truncates and self._truncates[0].durable <= durable:
            self._before = max(self._before, self._truncates.popleft().before)
        if len(self.segments) > 1 and self.segments[1].first <= self._before:
            return self.segments[0]
        return None

    def _drop(self) -> None:
        segment = self._droppable()
        if segment is not None:
            self._check_owner()
            self.segments = self.segments[1:]
            self._directory.drop_segment(segment, recycle=self._wants_reserve())
            self._retry_at = 0.0

    def _wants_reserve(self, octets: int = 0) -> bool:
        tail = self.segments[-1]
        return tail.end + octets > tail.header.capacity // _RESERVE_FROM

    def _keep_reserve(self, octets: int = 0) -> None:
        """Has a segment in reserve from early on in the last one, of which so many octets are about
        to be written: a disk is found to be full while that one has room for what is under way
        then, and for settlements behind it."""
        if self._wants_reserve(octets) and not self._directory.has_reserve:
            if not self._may_try():
                return
            self._check_owner()
            try:
                self._directory.make_reserve()
            except OSError as error:
                if error.errno not in NO_SPACE:
                    raise
                self._no_space(error)
                return
        if self.state is LogState.FULL and not self._held:
            self._become(LogState.OPEN, "")

    def _check_owner(self) -> None:
        """Raises LogLockedError once the log has another owner. Before names in the directory are
        touched, and now and then: it costs too much for each group."""
        try:
            self._directory.check_owner()
        except OSError as error:
            # With too many files open nobody can tell; it is looked at again.
            if error.errno not in NO_SPACE:
                raise
        self._owner_at = time.monotonic() + _OWNER_S

    # Telling the owner.

    def _reason(self, error: OSError) -> str:
        return f"{self._directory.path}: {error.strerror or error}"

    def _become(self, state: LogState, reason: str) -> None:
        if state is not self.state:
            self.state = state
            self._tell(partial(self._state_changed, state, reason))

    def _tell(self, what: Callable[[], None]) -> None:
        # A loop that has ended says so; then there is nobody to tell.
        with contextlib.suppress(RuntimeError):
            self._call(what)


def _told(group: list[Append]) -> None:
    for each in group:
        each.done(each.position)


def write_mark(files: Files, descriptor: int, segment: Segment, epoch: int) -> None:
    """Ends a segment: another one follows. Any OSError but a FlushError leaves it open for another
    try."""
    pieces, _ = encode_group(segment.header, epoch, segment.next, [])
    files.write(descriptor, pieces, segment.end)
    with flushing():
        files.sync(descriptor)
    segment.end += MARK_OCTETS

"""The thread that reads batches of the segment log again.

What lies close together is read by one call: with a busy event loop beside it, each call costs a
wait for the interpreter, and most of what is read again was written together.
"""

from __future__ import annotations

import bisect
import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from queue import SimpleQueue
from typing import NamedTuple, TypeAlias

from broker.storage.files import Files
from broker.storage.log import Caller, Location, Position, Read
from broker.storage.segment import Scan, Segment, index

_DESCRIPTORS_MAX = 16
# Octets between two locations that are cheaper read than skipped.
_GAP_OCTETS_MAX = 64 << 10
_PIECE_OCTETS_MAX = 4 << 20


class Wanted(NamedTuple):
    """Locations to be read, and who is told."""

    locations: Sequence[Location]
    done: Read


class Passed(NamedTuple):
    """Called when everything before it was read: what is read later is not before `position`."""

    position: Position
    then: Callable[[], None]


class Stop(NamedTuple):
    """Nothing is read after this."""


Request: TypeAlias = Wanted | Passed | Stop
Unreadable: TypeAlias = Callable[[list[str]], None]


class _Failure(NamedTuple):
    """Octets of a segment that could not be read."""

    start: int
    end: int
    reason: str


class Reader:
    """Takes requests through `requests`, one after the other. `unreadable` is told, where `call`
    leads to, what cannot be read: a line for each segment, whenever these lines have changed.
    """

    def __init__(
        self,
        files: Files,
        segments: Callable[[], list[Segment]],
        call: Caller,
        unreadable: Unreadable,
    ) -> None:
        self.requests: SimpleQueue[Request] = SimpleQueue()
        self._files = files
        self._segments = segments
        self._call = call
        self._unreadable = unreadable
        # The first failure in each segment by its number, until what failed can be read.
        self._failures: dict[int, _Failure] = {}
        self._descriptors: OrderedDict[int, int] = OrderedDict()
        self._thread = threading.Thread(target=self._run, name="log reader", daemon=True)

    def start(self) -> None:
        """Begins to take requests."""
        self._thread.start()

    def stop(self) -> None:
        """Ends when everything asked for was read; waits for it."""
        self.requests.put(Stop())
        self._thread.join()

    def _run(self) -> None:
        try:
            while not isinstance(request := self.requests.get(), Stop):
                if isinstance(request, Wanted):
                    octets = self._read(request.locations)
                    self._tell(partial(request.done, octets))
                else:
                    self._close_before(request.position)
                    request.then()
        finally:
            for descriptor in self._descriptors.values():
                self._files.close(descriptor)

    def _read(self, locations: Sequence[Location]) -> list[bytes] | None:
        """The octets, in order; None if any of them cannot be read."""
        segments = self._segments()
        found: list[tuple[int, int, int, int]] = []
        try:
            for place, location in enumerate(locations):
                at, start, end = self._find(segments, location)
                found.append((at, start, end, place))
            found.sort()
            result = [b""] * len(found)
            for piece in _pieces(found):
                self._read_piece(segments[piece[0][0]], piece, result)
        except (LookupError, OSError):
            return None
        return result

    def _find(self, segments: list[Segment], location: Location) -> tuple[int, int, int]:
        """Which segment it is in, where it starts and ends there. LookupError if nowhere."""
        position, offset, length = location
        at = bisect.bisect_right(segments, position, key=attrgetter("first")) - 1
        if at < 0:
            raise LookupError
        segment = segments[at]
        if not segment.indexed:
            self._index(segment)
        batch = position - segment.first
        start, end = segment.starts[batch], segment.ends[batch]
        if offset < 0 or length < 0 or start + offset + length > end:
            raise LookupError
        return at, start + offset, start + offset + length

    def _read_piece(
        self, segment: Segment, piece: list[tuple[int, int, int, int]], result: list[bytes]
    ) -> None:
        base = piece[0][1]
        stop = max(end for _, _, end, _ in piece)
        try:
            octets = self._files.read(self._descriptor(segment), stop - base, base)
        except OSError as error:
            self._has_failed(segment, base, stop, error.strerror or str(error))
            raise
        if len(octets) != stop - base:
            self._has_failed(segment, base, stop, "the file is too short")
            raise LookupError
        self._has_worked(segment, base, stop)
        for _, start, end, place in piece:
            result[place] = octets[start - base : end - base]

    def _index(self, segment: Segment) -> None:
        scan = Scan(self._files, self._descriptor(segment), segment.header)
        for _ in index(segment, scan.groups()):
            pass

    def _has_failed(self, segment: Segment, start: int, end: int, reason: str) -> None:
        number = segment.header.number
        if number not in self._failures:
            text = f"{segment.path} from offset {start} on: {reason}"
            self._failures[number] = _Failure(start, end, text)
            self._tell_failures()

    def _has_worked(self, segment: Segment, start: int, end: int) -> None:
        failure = self._failures.get(segment.header.number)
        if failure is not None and start <= failure.start and failure.end <= end:
            del self._failures[segment.header.number]
            self._tell_failures()

    def _tell_failures(self) -> None:
        reasons = [failure.reason for failure in self._failures.values()]
        self._tell(partial(self._unreadable, reasons))

    def _tell(self, what: Callable[[], None]) -> None:
        # A loop that has ended says so; then there is nobody to tell.
        with contextlib.suppress(RuntimeError):
            self._call(what)

    def _descriptor(self, segment: Segment) -> int:
        number = segment.header.number
        descriptor = self._descriptors.get(number)
        if descriptor is None:
            descriptor = self._files.open(segment.path, os.O_RDONLY)
            self._descriptors[number] = descriptor
            if len(self._descriptors) > _DESCRIPTORS_MAX:
                self._files.close(self._descriptors.popitem(last=False)[1])
        else:
            self._descriptors.move_to_end(number)
        return descriptor

    def _close_before(self, position: Position) -> None:
        """Closes what is about to be dropped, so that its room is free then."""
        segments = self._segments()
        kept = bisect.bisect_right(segments, position, key=attrgetter("first")) - 1
        oldest = segments[max(kept, 0)].header.number
        dropped = [number for number in self._failures if number < oldest]
        for number in dropped:
            del self._failures[number]
        if dropped:
            self._tell_failures()
        for number in [each for each in self._descriptors if each < oldest]:
            self._files.close(self._descriptors.pop(number))


def _pieces(found: list[tuple[int, int, int, int]]) -> list[list[tuple[int, int, int, int]]]:
    """Cuts what was found, in the order of the log, into what is read at once."""
    pieces: list[list[tuple[int, int, int, int]]] = []
    segment, base, reached = -1, 0, 0
    for each in found:
        at, start, end, _ = each
        if (
            at != segment
            or start - reached > _GAP_OCTETS_MAX
            or max(end, reached) - base > _PIECE_OCTETS_MAX
        ):
            pieces.append([])
            segment, base, reached = at, start, start
        pieces[-1].append(each)
        reached = max(reached, end)
    return pieces

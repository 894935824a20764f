"""The thread that reads batches of the segment log again.

What lies close together is read by one call: with a busy event loop beside it, each call costs a
wait for the interpreter, and most of what is read again was written together. Where that fails,
each location is read alone, so that nothing else is withheld with what cannot be read.
"""

from __future__ import annotations

import bisect
import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
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
    some: bool


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


class _UnreadError(Exception):
    """Octets of a segment cannot be read."""

    def __init__(self, segment: Segment, start: int, end: int, reason: str) -> None:
        super().__init__(reason)
        self.segment = segment
        text = f"{segment.path} from offset {start} on: {reason}"
        self.failure = _Failure(start, end, text)


_Found: TypeAlias = tuple[int, int, int, int]
"""Which segment a location is in, where it starts and ends there, and its place among those asked
for."""


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
        # Reads that an error of our own has ended, by their first location, until they work.
        self._errors: dict[Location, str] = {}
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
        while not isinstance(request := self.requests.get(), Stop):
            if isinstance(request, Wanted):
                octets = self._answer(request)
                self._tell(partial(request.done, octets))
            else:
                self._pass(request.position)
                request.then()
        for descriptor in self._descriptors.values():
            self._close(descriptor)

    def _answer(self, wanted: Wanted) -> list[bytes] | None:
        """What was asked for, as far as that is wanted. Whatever is wrong is told, and does not
        keep anything else from being read."""
        locations = wanted.locations
        first = locations[0] if locations else (0, 0, 0)
        try:
            octets = self._read(locations)
        except LookupError as error:
            self._has_erred(first, error)
            return None
        except Exception as error:  # noqa: BLE001  # without this thread queues would stand still
            if self._has_erred(first, error):
                trace = error.__traceback__
                threading.excepthook(
                    threading.ExceptHookArgs((type(error), error, trace, self._thread))
                )
            return None
        if len(octets) < len(locations):
            return octets if wanted.some and octets else None
        if self._errors.pop(first, None) is not None:
            self._tell_failures()
        return octets

    def _read(self, locations: Sequence[Location]) -> list[bytes]:
        """The octets, in order, of those locations that can be read before one that cannot."""
        segments = self._segments()
        try:
            found = [
                (*self._find(segments, location), place) for place, location in enumerate(locations)
            ]
        except _UnreadError as unread:
            self._has_failed(unread)
            return []
        result = [b""] * len(found)
        try:
            for piece in _pieces(sorted(found)):
                self._read_piece(segments, piece, result)
        except _UnreadError as unread:
            if len(found) > 1:
                return self._read_each(segments, found)
            self._has_failed(unread)
            return []
        return result

    def _read_each(self, segments: list[Segment], found: list[_Found]) -> list[bytes]:
        result = [b""] * len(found)
        for each in found:
            try:
                self._read_piece(segments, [each], result)
            except _UnreadError as unread:
                self._has_failed(unread)
                return result[: each[3]]
        return result

    def _find(self, segments: list[Segment], location: Location) -> tuple[int, int, int]:
        """Which segment it is in, where it starts and ends there. LookupError if nowhere."""
        position, offset, length = location
        at = bisect.bisect_right(segments, position, key=attrgetter("first")) - 1
        if at < 0:
            raise LookupError(f"batch {position} is not there any more")
        segment = segments[at]
        if not segment.indexed:
            self._index(segment)
        batch = position - segment.first
        if batch >= len(segment.starts):
            raise LookupError(f"batch {position} is not there")
        start, end = segment.starts[batch], segment.ends[batch]
        if offset < 0 or length < 0 or start + offset + length > end:
            raise LookupError(f"batch {position} has {end - start} octets, not {offset + length}")
        return at, start + offset, start + offset + length

    def _read_piece(
        self, segments: list[Segment], piece: list[_Found], result: list[bytes]
    ) -> None:
        """Reads what is close together by one call. Raises _UnreadError."""
        segment, base = segments[piece[0][0]], piece[0][1]
        stop = max(end for _, _, end, _ in piece)
        with self._reading(segment, base, stop):
            octets = self._files.read(self._descriptor(segment), stop - base, base)
        if len(octets) != stop - base:
            raise _UnreadError(segment, base, stop, "the file is too short")
        self._has_worked(segment, base, stop)
        for _, start, end, place in piece:
            result[place] = octets[start - base : end - base]

    def _index(self, segment: Segment) -> None:
        capacity = segment.header.capacity
        with self._reading(segment, 0, capacity):
            scan = Scan(self._files, self._descriptor(segment), segment.header)
            for _ in index(segment, scan.groups()):
                pass
        self._has_worked(segment, 0, capacity)

    @contextlib.contextmanager
    def _reading(self, segment: Segment, start: int, end: int) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # Another try begins with another descriptor.
            descriptor = self._descriptors.pop(segment.header.number, None)
            if descriptor is not None:
                self._close(descriptor)
            raise _UnreadError(segment, start, end, error.strerror or str(error)) from None

    # Telling what cannot be read.

    def _has_failed(self, unread: _UnreadError) -> None:
        number = unread.segment.header.number
        new = unread.failure
        known = self._failures.setdefault(number, new)
        if known is new:
            self._tell_failures()
        elif known.start <= new.start and new.end <= known.end:
            # Now it is known more closely which part of that it was. It is said already.
            self._failures[number] = new._replace(reason=known.reason)

    def _has_worked(self, segment: Segment, start: int, end: int) -> None:
        failure = self._failures.get(segment.header.number)
        if failure is None or end <= failure.start or failure.end <= start:
            return
        # What is left of it at either end; what is read is seldom in the middle.
        if start <= failure.start:
            failure = failure._replace(start=min(end, failure.end))
        elif failure.end <= end:
            failure = failure._replace(end=start)
        if failure.start < failure.end:
            self._failures[segment.header.number] = failure
        else:
            del self._failures[segment.header.number]
            self._tell_failures()

    def _has_erred(self, location: Location, error: Exception) -> bool:
        """What was asked for is not there, or an error of our own; whether that is news."""
        if location in self._errors:
            return False
        path = self._segments()[0].path.parent
        kind = type(error).__name__
        self._errors[location] = f"{path}: batch {location[0]}: {kind}: {error}"
        self._tell_failures()
        return True

    def _tell_failures(self) -> None:
        reasons = [failure.reason for failure in self._failures.values()]
        self._tell(partial(self._unreadable, [*reasons, *self._errors.values()]))

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
                self._close(self._descriptors.popitem(last=False)[1])
        else:
            self._descriptors.move_to_end(number)
        return descriptor

    def _close(self, descriptor: int) -> None:
        # What was read is known; some file systems say at the end what went wrong before.
        with contextlib.suppress(OSError):
            self._files.close(descriptor)

    def _pass(self, position: Position) -> None:
        """Closes what is about to be dropped, so that its room is free then."""
        segments = self._segments()
        kept = bisect.bisect_right(segments, position, key=attrgetter("first")) - 1
        oldest = segments[max(kept, 0)].header.number
        failures = [number for number in self._failures if number < oldest]
        for number in failures:
            del self._failures[number]
        errors = [location for location in self._errors if location[0] < position]
        for location in errors:
            del self._errors[location]
        if failures or errors:
            self._tell_failures()
        for number in [each for each in self._descriptors if each < oldest]:
            self._close(self._descriptors.pop(number))


def _pieces(found: list[_Found]) -> list[list[_Found]]:
    """Cuts what was found, in the order of the log, into what is read at once."""
    pieces: list[list[_Found]] = []
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

"""Contents of messages that are in a log alone and due soon, read before they are due.

Theory of operation. What is due at one time is anywhere in the line, each message in a record of
its own: to read them takes longer than there is time when they are due. `Deadlines` tells of them a
second or two before. They are read in the order in which they are stored, since what lies close
together is read by one call, and wait here until they are due. Nothing else changes: whoever else
gets such a message reads it as ever, and what is not here in time is read when it is due.
"""

from __future__ import annotations

from array import array
from collections.abc import Container, Iterable
from typing import TYPE_CHECKING

from broker.core.deadlines import DEADLINE_BYTES
from broker.core.message import MESSAGE_OVERHEAD, Entry, Message
from broker.core.reading import BARE, Piece, filled, where
from broker.core.stored import Run

if TYPE_CHECKING:
    from broker.core.lasting import Lasting
    from broker.core.queue import Queue

READ_AT_ONCE = 250
"""Messages that are read by one request: some five milliseconds to take them in."""
READ_BYTES = 1 << 21
"""Octets of their records, beyond the first one."""
LOOKED_AT = 1000
"""Messages that are looked at for one request."""
SORTED_AT_ONCE = 1 << 13
"""Messages, those that are due first, that are read in the order in which they are stored."""
WINDOW_MS = 32
"""It makes no difference which of those is read first that are due within such a time."""
COMING_MAX = 1 << 17
"""Messages that are remembered to be read. If more are due within two seconds, they cannot all be
in time anyway."""
ROOM_SHARE = 1 / 8
"""Of the memory above which queues page out: one queue does not read more before it is due."""

ABOVE_SHARE = 1 / 4
"""Of the memory limit: nothing is read before it is due while so much more is used."""


class Foreseen:
    """What one queue will need soon. `octets` is the memory that it takes, which counts."""

    __slots__ = ("_asked", "_coming", "_contents", "_contents_bytes", "_queue", "octets")

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self.octets = 0
        self._coming = _Coming()
        # By number; None while it is being read.
        self._contents: dict[int, Message | None] = {}
        self._contents_bytes = 0
        self._asked: list[int] = []

    def expect(self, near: Iterable[tuple[int, int]]) -> None:
        """These (deadline, number) pairs are due soon."""
        paged = self._queue.paged
        coming = self._coming
        coming.forget(self._queue.broker.timers.now)
        if paged is not None and coming.count < COMING_MAX:
            first, stop = paged.first, paged.stop
            coming.add([pair for pair in near if first <= pair[1] < stop])
        self._measure()

    def pop(self, number: int) -> Message | None:
        """Takes the message with this number, which is due; None if it was not read."""
        message = self._contents.pop(number, None)
        if message is not None:
            self._contents_bytes -= len(message[0]) + MESSAGE_OVERHEAD
        return message

    def keep(self, wanted: Container[int]) -> None:
        """Nobody will ask for others than these any more."""
        for number in [number for number in self._contents if number not in wanted]:
            self.pop(number)
        self._measure()

    def _measure(self) -> None:
        octets = self._contents_bytes + self._coming.count * DEADLINE_BYTES
        self._queue.broker.memory_used += octets - self.octets
        self.octets = octets

    def read_on(self) -> None:
        """Asks for the next ones, unless that is under way or there is no room for them."""
        if self._asked or not self._coming.count:
            return
        broker = self._queue.broker
        most = int(broker.pager.mark * ROOM_SHARE)
        above = int(broker.limits.memory * ABOVE_SHARE)
        room = broker.pager.mark + above - broker.memory_used
        store, pieces = self._next_pieces(min(room, most - self._contents_bytes), most)
        self._measure()
        if store is None:
            return
        asked = self._asked = [entry[0] for _, entries in pieces for entry in entries]
        self._contents.update(dict.fromkeys(asked))

        def told(octets: list[bytes] | None) -> None:
            if self._asked is not asked:
                return
            self._asked = []
            # What could not be read is asked for again when it is due.
            for some in map(filled, pieces, octets or ()):
                self._keep(some)
            self._measure()
            self.read_on()

        store.journal.log.read([(run.position, run.offset, run.size) for run, _ in pieces], told)

    def _next_pieces(self, room: int, most: int) -> tuple[Lasting | None, list[Piece]]:
        """The records to read next, which are in one log, and what of them: as many octets as there
        is room for now. One that is larger than `most` is left out."""
        pieces: list[Piece] = []
        store: Lasting | None = None
        count = size = 0
        first = 0 if self._queue.paged is None else self._queue.paged.first
        for _ in range(LOOKED_AT):
            following = self._coming.next(self._queue.broker.timers.now, first)
            if following is None or count == READ_AT_ONCE or room <= 0:
                break
            number = following[1]
            found = self._where(number)
            if found is None:
                self._coming.pop()
                continue
            run = found[1]
            is_new = not pieces or (run.position, run.offset) != pieces[-1][0][2:4]
            more = run.size if is_new else 0
            if more <= most:
                # The other log comes next, or what there is room for then.
                if store is not None and (found[0] is not store or size + more > READ_BYTES):
                    break
                if size + more > room:
                    break
                store = found[0]
                if is_new:
                    pieces.append((run.part(run.first - run.skipped, run.stop), []))
                pieces[-1][1].append((number, BARE, 0))
                size += more
                count += 1
            self._coming.pop()
        return store, pieces

    def _where(self, number: int) -> tuple[Lasting, Run] | None:
        """Which log has it, and in which run; None if it need not be read, or cannot be yet."""
        queue = self._queue
        paged = queue.paged
        if paged is None or number in self._contents:
            return None
        if not paged.first <= number < paged.stop or number in queue.dying or number in queue.out:
            return None
        found = where(queue, number)
        is_there = found is not None and found[1].position <= found[0].journal.durable
        return found if is_there else None

    def _keep(self, entries: list[Entry]) -> None:
        contents = self._contents
        for number, message, _ in entries:
            # It may have been taken meanwhile, or be due twice.
            if contents.get(number, message) is None:
                contents[number] = message
                self._contents_bytes += len(message[0]) + MESSAGE_OVERHEAD

    def clear(self) -> None:
        """None of it is needed any more."""
        if self._contents or self.octets:
            self._coming.clear()
            self._contents.clear()
            self._contents_bytes = 0
            self._asked = []
            self._measure()


class _Coming:
    """(deadline, number) pairs, those that are due first in the order of their numbers."""

    __slots__ = ("_line", "_windows", "count")

    def __init__(self) -> None:
        self.count = 0
        # By when they are due: deadlines, and numbers.
        self._windows: dict[int, tuple[array[int], array[int]]] = {}
        # The next ones, the last one first.
        self._line = array("Q"), array("Q")

    def add(self, pairs: list[tuple[int, int]]) -> None:
        """These come."""
        windows = self._windows
        for deadline, number in pairs:
            window = windows.get(deadline // WINDOW_MS)
            if window is None:
                window = windows[deadline // WINDOW_MS] = array("Q"), array("Q")
            window[0].append(deadline)
            window[1].append(number)
        self.count += len(pairs)

    def next(self, now: int, least: int) -> tuple[int, int] | None:
        """The next one that is not due yet, if there is any; lower numbers are not looked at."""
        deadlines, numbers = self._line
        while deadlines or self._sort():
            if deadlines[-1] > now and numbers[-1] >= least:
                return deadlines[-1], numbers[-1]
            self.pop()
        return None

    def pop(self) -> None:
        """Takes it."""
        for column in self._line:
            column.pop()
        self.count -= 1

    def _sort(self) -> bool:
        """Puts some in line. False if there are none."""
        pairs: list[tuple[int, int]] = []
        while self._windows and len(pairs) < SORTED_AT_ONCE:
            window = min(self._windows)
            deadlines, numbers = self._windows[window]
            some = slice(SORTED_AT_ONCE - len(pairs))
            pairs += zip(numbers[some], deadlines[some], strict=True)
            del deadlines[some], numbers[some]
            if not numbers:
                del self._windows[window]
        pairs.sort(reverse=True)
        self._line[0].extend([deadline for _, deadline in pairs])
        self._line[1].extend([number for number, _ in pairs])
        return bool(pairs)

    def forget(self, now: int) -> None:
        """What is due already is taken by now, or will be before it is read."""
        while self._windows and (window := min(self._windows)) * WINDOW_MS + WINDOW_MS <= now:
            self.count -= len(self._windows.pop(window)[1])

    def clear(self) -> None:
        """None comes."""
        self._windows.clear()
        self._line = array("Q"), array("Q")
        self.count = 0

"""Contents of messages that are in a log alone and due soon, read before they are due.

Theory of operation. What is due at one time is anywhere in the line, each message in a record of
its own: to read them takes longer than there is time when they are due. `Deadlines` tells of them a
second or two before. They are read in the order in which they are stored, since what lies close
together is read by one call, and wait here until they are due. Nothing else changes: whoever else
gets such a message reads it as ever, and what is not here in time is read when it is due.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter
from typing import TYPE_CHECKING

from broker.core.message import MESSAGE_OVERHEAD, Entry, Message
from broker.core.reading import BARE, Piece, filled, where
from broker.core.stored import Run

if TYPE_CHECKING:
    from broker.core.lasting import Lasting
    from broker.core.queue import Queue

READ_AT_ONCE = 250
"""Messages that are read by one request: some five milliseconds to take them in."""
LOOKED_AT = 1000
"""Messages that are looked at for one request."""
SORTED_AT_ONCE = 1 << 14
"""Messages, those that are due first, that are read in the order in which they are stored."""
COMING_MAX = 1 << 17
"""Messages that are remembered to be read. If more are due within two seconds, they cannot all be
in time anyway."""
ROOM_SHARE = 1 / 8
"""Of the memory above which queues page out: more is not read before it is due."""


class Foreseen:
    """What one queue will need soon. `octets` is the memory that it takes."""

    __slots__ = ("_asked", "_coming", "_contents", "_line", "_queue", "octets")

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self.octets = 0
        # (deadline, number): those to be read, and of these the next ones, the last one first.
        self._coming: list[tuple[int, int]] = []
        self._line: list[tuple[int, int]] = []
        # By number; None while it is being read.
        self._contents: dict[int, Message | None] = {}
        self._asked: list[int] = []

    def expect(self, near: Iterable[tuple[int, int]]) -> None:
        """These (deadline, number) pairs are due soon."""
        paged = self._queue.paged
        if paged is None or len(self._coming) > COMING_MAX:
            return
        first, stop = paged.first, paged.stop
        self._coming += [pair for pair in near if first <= pair[1] < stop]
        self.read_on()

    def pop(self, number: int) -> Message | None:
        """Takes the message with this number, which is due; None if it was not read."""
        message = self._contents.pop(number, None)
        if message is not None:
            self.octets -= len(message[0]) + MESSAGE_OVERHEAD
        return message

    def read_on(self) -> None:
        """Asks for the next ones, unless that is under way or there is no room for them."""
        if self._asked or not (self._line or self._coming):
            return
        if self.octets >= self._queue.broker.pager.mark * ROOM_SHARE:
            return
        store, pieces = self._next_pieces()
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
            self.read_on()

        store.journal.log.read([(run.position, run.offset, run.size) for run, _ in pieces], told)

    def _next_pieces(self) -> tuple[Lasting | None, list[Piece]]:
        """The records to read next, which are in one log, and what of them."""
        pieces: list[Piece] = []
        store: Lasting | None = None
        count = 0
        for _ in range(LOOKED_AT):
            if count == READ_AT_ONCE or not (self._line or self._sort()):
                break
            found = self._where(*self._line[-1])
            if found is not None and store is not None and found[0] is not store:
                # The other log comes next.
                break
            _, number = self._line.pop()
            if found is None:
                continue
            store, run = found
            if not pieces or (run.position, run.offset) != pieces[-1][0][2:4]:
                pieces.append((run.part(run.first - run.skipped, run.stop), []))
            pieces[-1][1].append((number, BARE, 0))
            count += 1
        return store, pieces

    def _sort(self) -> bool:
        """Puts those that are due first in line. False if there are none."""
        self._coming.sort()
        self._line = self._coming[:SORTED_AT_ONCE]
        del self._coming[:SORTED_AT_ONCE]
        self._line.sort(key=itemgetter(1), reverse=True)
        return bool(self._line)

    def _where(self, deadline: int, number: int) -> tuple[Lasting, Run] | None:
        """Which log has it, and in which run; None if it need not be read, or cannot be yet."""
        queue = self._queue
        paged = queue.paged
        # What is due already is taken by now, or will be before it is read.
        if paged is None or deadline <= queue.broker.timers.now or number in self._contents:
            return None
        if not paged.first <= number < paged.stop or number in queue.dying or number in queue.out:
            return None
        found = where(queue, number)
        is_there = found is not None and found[1].position <= found[0].journal.durable
        return found if is_there else None

    def _keep(self, entries: list[Entry]) -> None:
        contents = self._contents
        for number, message, _ in entries:
            # It may have been taken meanwhile.
            if number in contents:
                contents[number] = message
                self.octets += len(message[0]) + MESSAGE_OVERHEAD

    def clear(self) -> None:
        """None of it is needed any more."""
        self._coming.clear()
        self._line.clear()
        self._contents.clear()
        self._asked = []
        self.octets = 0

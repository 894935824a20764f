"""Messages that die, in line: those of one queue in order, and so many at a time that nobody else
has to wait for them.

A message that dies may make others die where it goes, and these others again; so what one publish
leads to has no bound but the one here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from broker.core.dead_letters import DELIVERY_LIMIT, Letters
from broker.core.lines import forget_bodies
from broker.core.message import (
    CONTENT,
    HEADER_SIZE,
    MESSAGE,
    NUMBER,
    RETURNS,
    Entry,
    Message,
    entries_size,
    number_of,
)
from broker.core.reading import is_bare, read_contents, where

if TYPE_CHECKING:
    from broker.core.broker import Broker
    from broker.core.queue import Queue

BURIED_AT_ONCE = 200
"""Messages that die in one turn: some ten milliseconds."""
HEADER_AS_ONE = 1024
"""Octets of a header frame that are as much work as one more message: a table of thousands of
fields takes milliseconds."""
CONTENT_AS_ONE = 1 << 18
"""Octets of content for which the same holds: they are copied."""
FULL_FROM = 1000
"""Messages of one queue in line from which it lets no others die that could live on for a while."""
READ_AT_ONCE = 5
"""Burials that are read as one, so that the disk is asked less often."""
READ_BYTES = 1 << 22
"""Octets of them, beyond the first burial."""
RETRY_MS = 1000
"""After so long it is tried again to find a place for what must not be lost."""


class Burial(NamedTuple):
    """Messages that die for one reason. `is_kept` is whether the queue has them in its stores."""

    entries: list[Entry]
    reason: str
    is_kept: bool


class Graves:
    """The lines of all queues in which messages die."""

    def __init__(self, broker: Broker) -> None:
        self.due: int | None = None
        self._broker = broker
        # Those of queues with something in them, in turn.
        self.lines: dict[Queue, deque[Burial]] = {}
        self._counts: dict[Queue, int] = {}
        # Queues that wait for the disk, or for a place for what they must not lose.
        self._waiting: set[Queue] = set()

    def bury(self, queue: Queue, entries: list[Entry], reason: str) -> None:
        """These messages die: they go to the dead-letter exchange of the queue, if it has one, and
        the queue lets go of them. They are in none of its lines any more, and count nowhere there.
        All of it is in one batch of the log: after a crash a message is where it was, or where it
        went."""
        if not wants_contents(queue) and queue not in self.lines:
            self._broker.counters.count_dead_letters(reason, len(entries), queue.rules)
            let_go(queue, entries)
            return
        # In parts, since what is left of one is looked at again in each turn.
        for start in range(0, len(entries), BURIED_AT_ONCE):
            part = entries[start : start + BURIED_AT_ONCE]
            self._add(queue, Burial(part, reason, is_kept=True))

    def refuse(self, queue: Queue, message: Message, reason: str) -> None:
        """A queue refuses a message, which dies of that."""
        self._add(queue, Burial([(0, message, 0)], reason, is_kept=False))

    def _add(self, queue: Queue, burial: Burial) -> None:
        self.lines.setdefault(queue, deque()).append(burial)
        self._counts[queue] = self._counts.get(queue, 0) + len(burial.entries)
        self._broker.memory_used += entries_size(burial.entries)

    @property
    def is_busy(self) -> bool:
        """Whether there is something to do for `run`."""
        return len(self.lines) > len(self._waiting)

    def is_full(self, queue: Queue) -> bool:
        """Whether so many are in line that others should not die yet."""
        return self._counts.get(queue, 0) >= FULL_FROM

    def run(self, room: int) -> int:
        """Buries about so many messages at most, and returns how many, but at least 1. What is left
        has its turn soon."""
        before = room
        while room > 0:
            queue = next((each for each in self.lines if each not in self._waiting), None)
            if queue is None:
                break
            line = self.lines.pop(queue)
            if line:
                room -= max(1, self._bury_first(queue, line, room))
            # What was read may be gone, so that there was nothing left to bury.
            if line:
                # The others have their turns first.
                self.lines[queue] = line
            else:
                del self._counts[queue]
                self._waiting.discard(queue)
                if queue.rules.drops:
                    queue.touch()
        if self.is_busy:
            self._broker.timers.set(self, self._broker.timers.now + 1)
        return max(1, before - room)

    def on_time(self, now: int) -> None:
        """It goes on at the end of this batch."""

    def _bury_first(self, queue: Queue, line: deque[Burial], room: int) -> int:
        """Buries the first messages of a line, at most so many, large ones fewer, and returns how
        many they count for."""
        entries = line[0].entries
        if any(map(is_bare, entries)):
            if queue.is_deleted:
                # They went with it.
                self._replace(queue, line, [entry for entry in entries if not is_bare(entry)])
                return 0
            if wants_contents(queue):
                self._read(queue, line)
                return 0
        burial = line[0]
        some, work = first_of(entries, room)
        count = Letters(queue, burial.reason).send([entry[MESSAGE] for entry in some])
        self._replace(queue, line, entries[count:])
        if burial.is_kept and not queue.is_deleted:
            let_go(queue, some[:count])
        if count < len(some):
            self._wait(queue)
        self._broker.work += 10 * work
        return work

    def _replace(self, queue: Queue, line: deque[Burial], entries: list[Entry]) -> None:
        """The first ones in a line are these from now on."""
        burial = line.popleft()
        self._counts[queue] += len(entries) - len(burial.entries)
        self._broker.memory_used += entries_size(entries) - entries_size(burial.entries)
        if entries:
            line.appendleft(burial._replace(entries=entries))

    def _read(self, queue: Queue, line: deque[Burial]) -> None:
        self._waiting.add(queue)
        burials = _read_as_one(queue, line)

        def filled(whole: list[Entry]) -> None:
            self._waiting.discard(queue)
            found = iter(whole)
            following = next(found, None)
            read: list[list[Entry]] = []
            for burial in burials:
                # In order, but some may be gone.
                numbers = set(map(number_of, burial.entries))
                read.append([])
                while following is not None and following[NUMBER] in numbers:
                    read[-1].append(following)
                    following = next(found, None)
            behind = [line.popleft() for _ in burials]
            for burial, entries in zip(reversed(behind), reversed(read), strict=True):
                line.appendleft(burial)
                self._replace(queue, line, entries)
            self._broker.timers.set(self, self._broker.timers.now)

        read_contents(queue, [entry for burial in burials for entry in burial.entries], filled)

    def _wait(self, queue: Queue) -> None:
        """There is no place for what must not be lost: it is tried again after a while."""
        self._waiting.add(queue)
        timers = self._broker.timers
        timers.set(_Retry(self, queue), timers.now + RETRY_MS)

    def go_on(self, queue: Queue) -> None:
        """It is tried again."""
        self._waiting.discard(queue)

    def close(self, queue: Queue) -> None:
        """The queue is deleted: what waited for a place is gone."""
        if queue in self._waiting and not any(map(is_bare, self.lines[queue][0].entries)):
            while self.lines[queue]:
                self._replace(queue, self.lines[queue], [])
            del self.lines[queue], self._counts[queue]
            self._waiting.discard(queue)


def first_of(entries: list[Entry], room: int) -> tuple[list[Entry], int]:
    """The first ones that are as much work as so many small messages, at least one; and how many
    small ones they count for."""
    left = room
    for count, (_, message, _) in enumerate(entries, 1):
        left -= 1 + message[HEADER_SIZE] // HEADER_AS_ONE + len(message[CONTENT]) // CONTENT_AS_ONE
        if left <= 0:
            return entries[:count], room - left
    return entries, room - left


class _Retry:
    """The time to try again."""

    __slots__ = ("_graves", "_queue", "due")

    def __init__(self, graves: Graves, queue: Queue) -> None:
        self.due: int | None = None
        self._graves = graves
        self._queue = queue

    def on_time(self, now: int) -> None:
        """It is."""
        self._graves.go_on(self._queue)


def _read_as_one(queue: Queue, line: Iterable[Burial]) -> list[Burial]:
    """The first burials of a line: as many as are read at once."""
    burials: list[Burial] = []
    size = 0
    for burial in line:
        for entry in burial.entries:
            found = where(queue, entry[NUMBER]) if is_bare(entry) else None
            size += found[1].share if found is not None else 0
        if burials and (not burial.is_kept or size > READ_BYTES or len(burials) >= READ_AT_ONCE):
            break
        burials.append(burial)
    return burials


def without_worn(queue: Queue, entries: list[Entry]) -> list[Entry]:
    """Those of these entries, which come back, that may: the others came back as often as the
    delivery limit of the queue allows, and die."""
    limit = queue.rules.delivery_limit
    assert limit is not None
    worn = [entry for entry in entries if entry[RETURNS] >= limit]
    if not worn:
        return entries
    queue.broker.graves.bury(queue, worn, DELIVERY_LIMIT)
    return [entry for entry in entries if entry[RETURNS] < limit]


def wants_contents(queue: Queue) -> bool:
    """Whether it matters what is in the messages that die in this queue."""
    rules = queue.rules
    return rules.dead_letter_exchange is not None or rules.max_length_bytes is not None


def let_go(queue: Queue, entries: list[Entry]) -> None:
    """The queue has no use for these messages any more."""
    if queue.present is not None:
        queue.present.gone(entries)
    dying, out = queue.dying, queue.out
    gone: list[Entry] = []
    if dying or out:
        gone = [entry for entry in entries if entry[NUMBER] in dying or entry[NUMBER] in out]
    if gone:
        numbers = set(map(number_of, gone))
        unread = [each for each in gone if each[NUMBER] in dying]
        forget_bodies(queue, [each for each in unread if each[NUMBER] >= queue.bodies_from])
        dying -= numbers
        out -= numbers
        for store in queue.stores:
            # They must not be read again from now on.
            store.settled_now(gone)
        entries = [entry for entry in entries if entry[NUMBER] not in numbers]
    if entries:
        for store in queue.stores:
            store.settled(entries)

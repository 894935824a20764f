"""Groups: messages of one key go one at a time, in order; those of different keys side by side.

Theory of operation. A key is *busy* while a message of it is held: handed out and not settled, or
waiting for a retry. Of each key that is not, the first message that waits is in a heap by number,
so the next one is found in O(log n) however many wait behind busy keys. Messages are known here by
number alone; their lines are those of the queue, and what left these other than by being handed out
is found out when its turn comes (`skip`), or by `keep`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from heapq import heapify, heappop, heappush

from broker.core.keyed.keys import Key, Reader
from broker.core.keyed.number_line import NumberLines
from broker.core.message import NUMBER, Entry

KEY_BYTES = 220
"""Octets of memory for a key of which something waits: a place in a dictionary, one in the heap,
and three numbers."""
HELD_BYTES = 150
"""The same for a message that is held: its number in a dictionary, its key in a set."""


class Groups:
    """Which messages of a queue may go out, by number. `read` tells their keys."""

    __slots__ = (
        "_apart", "_busy", "_free", "_held", "_is_loose", "_waiting", "read",
    )  # fmt: skip

    is_fair = False

    def __init__(self, read: Reader) -> None:
        self.read = read
        # Messages that wait, or did until they left otherwise, by key.
        self._waiting = NumberLines()
        self._busy: set[Key] = set()
        # A heap of the first number of each key that is not busy.
        self._free: list[tuple[int, int]] = []
        # Whether the next message is one without a key.
        self._is_loose = False
        # The keys of messages that are held, by number.
        self._held: dict[int, Key] = {}
        # Whose next message is being read, so that others go on.
        self._apart: set[Key] = set()

    @property
    def count(self) -> int:
        """Messages that wait, or did until they left otherwise."""
        return self._waiting.count

    @property
    def octets(self) -> int:
        """What counts as memory for all this."""
        return self._waiting.octets(KEY_BYTES) + len(self._held) * HELD_BYTES

    # Messages come

    def add(self, entries: Sequence[Entry]) -> None:
        """These wait from now on, behind all others that do."""
        append, busy = self._waiting.append, self._busy
        for (number, _, _), key in zip(entries, self.read(entries), strict=True):
            if append(key, number) and key is not None and key not in busy:
                heappush(self._free, (number, key))

    def take_new(self, entries: list[Entry], *, keeps: bool) -> tuple[list[Entry], list[Entry]]:
        """Messages came, behind all others, and there is room for all of them: those that go out
        now, and the others, which wait. `keeps` is whether they are to be settled."""
        if not keeps and not self._busy and not self._waiting:
            return entries, []
        keys = self.read(entries)
        found = set(keys)
        if self._busy.isdisjoint(found) and self._waiting.keys().isdisjoint(found):
            if not keeps or found == {None}:
                return entries, []
            if len(found) == len(keys) and None not in found:
                self._busy |= found
                self._held.update(zip([entry[NUMBER] for entry in entries], keys, strict=True))
                return entries, []
        return self._take_some(entries, keys, keeps=keeps)

    def _take_some(
        self, entries: list[Entry], keys: list[Key], *, keeps: bool
    ) -> tuple[list[Entry], list[Entry]]:
        waiting, busy = self._waiting, self._busy
        taken: list[Entry] = []
        left: list[Entry] = []
        for entry, key in zip(entries, keys, strict=True):
            if key in waiting or key in busy:
                # Something before it waits, or is held.
                waiting.append(key, entry[NUMBER])
                left.append(entry)
                continue
            taken.append(entry)
            if keeps and key is not None:
                self._held[entry[NUMBER]] = key
                busy.add(key)
        return taken, left

    def withhold(self, entries: Sequence[Entry]) -> None:
        """These were read for the first time, and wait for their retry: their keys are busy."""
        for (number, _, _), key in zip(entries, self.read(entries), strict=True):
            if key is not None:
                self._held[number] = key
                self._busy.add(key)

    def give_back(self, number: int) -> None:
        """A message that was held waits again, before all others of its key."""
        key = self._held.pop(number, None)
        self._waiting.put_back(key, number)
        if key is not None:
            self._busy.discard(key)
            heappush(self._free, (number, key))

    # Messages go

    def peek(self) -> int | None:
        """The message that is next, if there is any that may go out."""
        free = self._free
        if None in self._waiting and None not in self._apart:
            number = self._waiting.first(None)
            self._is_loose = not free or number < free[0][0]
            return number if self._is_loose else free[0][0]
        self._is_loose = False
        return free[0][0] if free else None

    def hold(self, *, keeps: bool) -> None:
        """The next message, which was peeked at, goes out; others of its key wait until it is
        released, if it is to be settled (`keeps`)."""
        if self._is_loose:
            self._waiting.pop_first(None)
            return
        number, key = heappop(self._free)
        has_more = self._waiting.pop_first(key)
        if keeps:
            self._held[number] = key
            self._busy.add(key)
        elif has_more:
            heappush(self._free, (self._waiting.first(key), key))

    def skip(self) -> None:
        """The next message is not there any more."""
        self.hold(keeps=False)

    def ahead(self, most: int) -> list[int]:
        """The next message, and those that wait behind it in its line; at most so many."""
        return self._waiting.ahead(None if self._is_loose else self._free[0][1], most)

    def set_apart(self) -> None:
        """The next message has to be read first: others go on, but for those of its key."""
        self._apart.add(None if self._is_loose else heappop(self._free)[1])

    def rejoin(self) -> None:
        """Those that were set apart may be there now."""
        apart, self._apart = self._apart, set()
        for key in apart:
            if key is not None and key in self._waiting:
                heappush(self._free, (self._waiting.first(key), key))

    def release(self, numbers: Iterable[int]) -> bool:
        """These are held no more. Whether others may go out for that."""
        pop, waiting = self._held.pop, self._waiting
        keys = [pop(number, None) for number in numbers]
        self._busy.difference_update(keys)
        if not waiting:
            return False
        freed = [key for key in keys if key is not None and key in waiting]
        for key in freed:
            heappush(self._free, (waiting.first(key), key))
        return bool(freed)

    def pause(self, numbers: Iterable[int]) -> None:
        """These came back and wait for their retry; their keys stay busy."""

    # Messages leave otherwise

    def keep(self, is_there: Callable[[int], bool]) -> None:
        """Forgets all that wait no more."""
        waiting = self._waiting
        waiting.keep(is_there)
        others = self._busy | self._apart | {None}
        self._free = [
            (waiting.first(key), key) for key in waiting if key is not None and key not in others
        ]
        heapify(self._free)

    def clear(self) -> None:
        """Nothing waits any more; what is held, is."""
        self._waiting.clear()
        self._free.clear()
        self._apart.clear()

    def close(self) -> None:
        """Nothing is held any more, either."""
        self.clear()
        self._held.clear()
        self._busy.clear()

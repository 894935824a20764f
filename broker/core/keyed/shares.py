"""Fair shares: the next message is of the value with the fewest unacknowledged ones, so that the
backlog of one does not starve another.

Theory of operation. A heap has a place for each value of which something may go out: (load, turn,
value), where the load is how many of its messages are unacknowledged, and the turn is when it had
its last one, or began to wait. A value whose load changes gets a new place; its former one stays in
the heap until it comes to the top, or until there are too many of those. Within a value messages go
in order.

With groups only the first message of each key that is not busy may go out; these stand, by value,
in heaps of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush

from broker.core.keyed.groups import KEY_BYTES
from broker.core.keyed.keys import Key, Reader
from broker.core.keyed.number_line import NumberLines
from broker.core.keyed.turns import Turns
from broker.core.message import NUMBER, Entry

VALUE_BYTES = 350
"""Octets of memory for a value of which something waits: places in three dictionaries and in the
heap, and their numbers."""
HELD_BYTES = 100
"""The same for a message that is held."""


class Shares:
    """Which message of a queue is next, by number. `read` tells their values. It promises what
    `broker.core.groups.Groups` does, where no value is ever busy."""

    __slots__ = ("_held", "_turns", "_value", "_waiting", "read")

    is_fair = True

    def __init__(self, read: Reader) -> None:
        self.read = read
        # Messages that wait, or did until they left otherwise, by value.
        self._waiting = NumberLines()
        self._turns = Turns()
        # The value whose turn it is.
        self._value: Key = None
        # The values of messages that are held, by number; those that wait for a retry count no
        # more, and are told by their complement.
        self._held: dict[int, Key] = {}

    @property
    def count(self) -> int:
        """Messages that wait, or did until they left otherwise."""
        return self._waiting.count

    @property
    def octets(self) -> int:
        """What counts as memory for all this."""
        return self._waiting.octets(VALUE_BYTES) + len(self._held) * HELD_BYTES

    def add(self, entries: Sequence[Entry]) -> None:
        """These wait from now on, behind all others that do."""
        append, join = self._waiting.append, self._turns.join
        for (number, _, _), value in zip(entries, self.read(entries), strict=True):
            if append(value, number):
                join(value)

    def take_new(self, entries: list[Entry], *, keeps: bool) -> tuple[list[Entry], list[Entry]]:
        """Messages came, and there is room for all of them; nothing else waits."""
        if keeps:
            values = self.read(entries)
            self._held.update(zip([entry[NUMBER] for entry in entries], values, strict=True))
            self._turns.load_all(values)
        return entries, []

    def withhold(self, entries: Sequence[Entry]) -> None:
        """These were read for the first time, and wait for their retry."""
        for (number, _, _), value in zip(entries, self.read(entries), strict=True):
            self._held[~number] = value

    def give_back(self, number: int) -> None:
        """A message that was held waits again, before all others of its value."""
        if ~number in self._held:
            value = self._held.pop(~number)
        else:
            value = self._held.pop(number)
            self._turns.unload(value)
        self._waiting.put_back(value, number)
        self._turns.join(value)

    def peek(self) -> int | None:
        """The message that is next, if there is any."""
        place = self._turns.first()
        if place is None:
            return None
        self._value = place[2]
        return self._waiting.first(self._value)

    def hold(self, *, keeps: bool) -> None:
        """The next message, which was peeked at, goes out; it counts for its value until it is
        released, if it is to be settled (`keeps`)."""
        value = self._value
        if keeps:
            self._held[self._waiting.first(value)] = value
            self._turns.load(value)
        self._turns.end_turn(value, has_more=self._waiting.pop_first(value))

    def skip(self) -> None:
        """The next message is not there any more: its value has its turn still."""
        value = self._value
        if not self._waiting.pop_first(value):
            self._turns.end_turn(value, has_more=False)

    def ahead(self, most: int) -> list[int]:
        """The next message, and those that wait behind it in its line; at most so many."""
        return self._waiting.ahead(self._value, most)

    def set_apart(self) -> None:
        """The next message has to be read first: others go on, but for those of its value."""
        self._turns.set_apart(self._value)

    def rejoin(self) -> None:
        """Those that were set apart may be there now."""
        self._turns.rejoin(self._waiting.__contains__)

    def release(self, numbers: Iterable[int]) -> bool:
        """These are held no more. Nothing else may go out for that."""
        held, unload = self._held, self._turns.unload
        for number in numbers:
            if number in held:
                unload(held.pop(number))
            else:
                held.pop(~number, None)
        return False

    def pause(self, numbers: Iterable[int]) -> None:
        """These came back and wait for their retry: they do not count any more."""
        for number in numbers:
            value = self._held.pop(number)
            self._turns.unload(value)
            self._held[~number] = value

    def keep(self, is_there: Callable[[int], bool]) -> None:
        """Forgets all that wait no more."""
        self._waiting.keep(is_there)
        self._turns.keep(self._waiting.__contains__)

    def clear(self) -> None:
        """Nothing waits any more; what is held, is."""
        self._waiting.clear()
        self._turns.clear()

    def close(self) -> None:
        """Nothing is held any more, either."""
        self.clear()
        self._held.clear()
        self._turns.close()


class SharedGroups:
    """Both: `groups` tells the keys of messages of which one goes at a time, `read` the values
    that share."""

    __slots__ = (
        "_busy", "_eligible", "_held", "_turns", "_value", "_values", "_waiting", "groups", "read",
    )  # fmt: skip

    is_fair = True

    def __init__(self, groups: Reader, read: Reader) -> None:
        self.groups = groups
        self.read = read
        # Messages that wait by key; those without one do not.
        self._waiting = NumberLines()
        # And the values of all that wait.
        self._values: dict[int, Key] = {}
        # Those that may go out, by value: heaps of number and key.
        self._eligible: dict[Key, list[tuple[int, Key]]] = {}
        self._busy: set[Key] = set()
        self._turns = Turns()
        self._value: Key = None
        # Keys and values of messages that are held, as in `Shares`.
        self._held: dict[int, tuple[Key, Key]] = {}

    @property
    def count(self) -> int:
        """Messages that wait, or did until they left otherwise."""
        return len(self._values)

    @property
    def octets(self) -> int:
        """What counts as memory for all this."""
        octets = self._waiting.octets(KEY_BYTES) + len(self._eligible) * VALUE_BYTES
        return octets + (len(self._values) + 2 * len(self._held)) * HELD_BYTES

    def _keys(self, entries: Sequence[Entry]) -> Iterable[tuple[int, Key, Key]]:
        numbers = [entry[NUMBER] for entry in entries]
        return zip(numbers, self.groups(entries), self.read(entries), strict=True)

    def add(self, entries: Sequence[Entry]) -> None:
        """These wait from now on, behind all others that do."""
        for number, key, value in self._keys(entries):
            self._values[number] = value
            if key is None or (self._waiting.append(key, number) and key not in self._busy):
                self._offer(number, key)

    def _offer(self, number: int, key: Key) -> None:
        """A message may go out."""
        value = self._values[number]
        heappush(self._eligible.setdefault(value, []), (number, key))
        self._turns.join(value)

    def take_new(self, entries: list[Entry], *, keeps: bool) -> tuple[list[Entry], list[Entry]]:
        """Messages came, and there is room for all of them, while nothing else may go out: those
        that go out now, and the others, which wait."""
        taken: list[Entry] = []
        left: list[Entry] = []
        for entry, (number, key, value) in zip(entries, self._keys(entries), strict=True):
            if key in self._busy or key in self._waiting:
                self._values[number] = value
                self._waiting.append(key, number)
                left.append(entry)
                continue
            taken.append(entry)
            if keeps:
                self._hold(number, key, value)
        return taken, left

    def _hold(self, number: int, key: Key, value: Key) -> None:
        self._held[number] = key, value
        self._turns.load(value)
        if key is not None:
            self._busy.add(key)

    def withhold(self, entries: Sequence[Entry]) -> None:
        """These were read for the first time, and wait for their retry: their keys are busy."""
        for number, key, value in self._keys(entries):
            self._held[~number] = key, value
            if key is not None:
                self._busy.add(key)

    def give_back(self, number: int) -> None:
        """A message that was held waits again, before all others of its key."""
        if ~number in self._held:
            key, value = self._held.pop(~number)
        else:
            key, value = self._held.pop(number)
            self._turns.unload(value)
        self._values[number] = value
        if key is not None:
            self._busy.discard(key)
            self._waiting.put_back(key, number)
        self._offer(number, key)

    def peek(self) -> int | None:
        """The message that is next, if there is any that may go out."""
        place = self._turns.first()
        if place is None:
            return None
        self._value = place[2]
        return self._eligible[self._value][0][0]

    def hold(self, *, keeps: bool) -> None:
        """The next message, which was peeked at, goes out; others of its key wait until it is
        released, and it counts for its value, if it is to be settled (`keeps`)."""
        self._pop(keeps=keeps)
        self._end(is_turn=True)

    def skip(self) -> None:
        """The next message is not there any more: its value has its turn still."""
        self._pop(keeps=False)
        self._end(is_turn=False)

    def _pop(self, *, keeps: bool) -> None:
        value = self._value
        number, key = heappop(self._eligible[value])
        del self._values[number]
        has_more = key is not None and self._waiting.pop_first(key)
        if keeps:
            self._hold(number, key, value)
        elif has_more and key is not None:
            self._offer(self._waiting.first(key), key)

    def _end(self, *, is_turn: bool) -> None:
        value = self._value
        has_more = bool(self._eligible[value])
        if not has_more:
            del self._eligible[value]
        if is_turn or not has_more:
            self._turns.end_turn(value, has_more=has_more)

    def ahead(self, most: int) -> list[int]:
        """The next message, and those that wait behind it in its line; at most so many."""
        number, key = self._eligible[self._value][0]
        return [number] if key is None else self._waiting.ahead(key, most)

    def set_apart(self) -> None:
        """The next message has to be read first: others go on, but for those of its value."""
        self._turns.set_apart(self._value)

    def rejoin(self) -> None:
        """Those that were set apart may be there now."""
        self._turns.rejoin(self._eligible.__contains__)

    def release(self, numbers: Iterable[int]) -> bool:
        """These are held no more. Whether others may go out for that."""
        found = False
        for number in numbers:
            if number in self._held:
                key, value = self._held.pop(number)
                self._turns.unload(value)
            else:
                key, _ = self._held.pop(~number, (None, None))
            self._busy.discard(key)
            if key in self._waiting:
                self._offer(self._waiting.first(key), key)
                found = True
        return found

    def pause(self, numbers: Iterable[int]) -> None:
        """These came back and wait for their retry: they do not count any more, and their keys stay
        busy."""
        for number in numbers:
            key, value = self._held.pop(number)
            self._turns.unload(value)
            self._held[~number] = key, value

    def keep(self, is_there: Callable[[int], bool]) -> None:
        """Forgets all that wait no more."""
        self._values = {n: value for n, value in self._values.items() if is_there(n)}
        self._waiting.keep(is_there)
        before, self._eligible = self._eligible, {}
        for line in before.values():
            for number, key in line:
                if key is None and number in self._values:
                    self._offer(number, None)
        for key in self._waiting:
            if key not in self._busy:
                self._offer(self._waiting.first(key), key)
        self._turns.keep(self._eligible.__contains__)

    def clear(self) -> None:
        """Nothing waits any more; what is held, is."""
        self._waiting.clear()
        self._values.clear()
        self._eligible.clear()
        self._turns.clear()

    def close(self) -> None:
        """Nothing is held any more, either."""
        self.clear()
        self._held.clear()
        self._busy.clear()
        self._turns.close()

"""Numbers of messages that wait in one line: they only grow behind and leave in front, and some
come back to the front."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from heapq import heappop, heappush, nsmallest

_PASSED_MAX = 256
"""Numbers that have left and are kept anyway, beyond as many as there are."""
LINE_BYTES = 170
"""Octets of memory for a line."""
NUMBER_BYTES = 8
"""The same for each number in it."""


class NumberLine:
    """Eight octets for each number, in order."""

    __slots__ = ("_back", "_rest", "_start")

    def __init__(self, numbers: Iterable[int] = ()) -> None:
        self._rest = array("Q", numbers)
        # What is before has left.
        self._start = 0
        # A heap.
        self._back: list[int] = []

    def __len__(self) -> int:
        return len(self._rest) - self._start + len(self._back)

    @property
    def first(self) -> int:
        """The lowest one; IndexError if there is none."""
        return self._back[0] if self._is_back_next else self._rest[self._start]

    @property
    def _is_back_next(self) -> bool:
        back, rest = self._back, self._rest
        return bool(back) and (self._start == len(rest) or back[0] < rest[self._start])

    def append(self, number: int) -> None:
        """Adds one behind all others."""
        self._rest.append(number)

    def extend(self, numbers: Iterable[int]) -> None:
        """Adds some behind all others."""
        self._rest.extend(numbers)

    def put_back(self, number: int) -> None:
        """One that left is here again."""
        heappush(self._back, number)

    def pop(self) -> int:
        """Takes the lowest one; IndexError if there is none."""
        if self._back and self._is_back_next:
            return heappop(self._back)
        start = self._start
        number = self._rest[start]
        self._start = start = start + 1
        if start > _PASSED_MAX and start * 2 > len(self._rest):
            del self._rest[:start]
            self._start = 0
        return number

    def ahead(self, count: int) -> list[int]:
        """The lowest ones, at most so many, in order."""
        rest = self._rest[self._start : self._start + count]
        return sorted([*nsmallest(count, self._back), *rest])[:count]

    def keep(self, is_there: Callable[[int], bool]) -> None:
        """Forgets all others."""
        self._back = sorted(filter(is_there, self._back))
        self._rest = array("Q", filter(is_there, self._rest[self._start :]))
        self._start = 0


class NumberLines(dict["int | None", "int | NumberLine"]):
    """Lines of numbers by key. Most have one number, which then takes no line."""

    __slots__ = ("count", "several")

    def __init__(self) -> None:
        super().__init__()
        # Numbers in all of them, and lines of several.
        self.count = 0
        self.several = 0

    def octets(self, key_bytes: int) -> int:
        """What counts as memory for them, where a key takes so much."""
        return len(self) * key_bytes + self.several * LINE_BYTES + self.count * NUMBER_BYTES

    def append(self, key: int | None, number: int) -> bool:
        """Adds one behind the others of its key. Whether it is the first of them."""
        self.count += 1
        line = self.get(key)
        if line is None:
            self[key] = number
            return True
        if isinstance(line, int):
            self[key] = NumberLine((line, number))
            self.several += 1
        else:
            line.append(number)
        return False

    def put_back(self, key: int | None, number: int) -> None:
        """One that left is the first of its key again, or among the first."""
        self.count += 1
        line = self.get(key)
        if line is None:
            self[key] = number
            return
        if isinstance(line, int):
            line = self[key] = NumberLine((line,))
            self.several += 1
        line.put_back(number)

    def first(self, key: int | None) -> int:
        """The first number of a key that is here."""
        line = self[key]
        return line if isinstance(line, int) else line.first

    def pop_first(self, key: int | None) -> bool:
        """Takes it. Whether the key has others."""
        self.count -= 1
        line = self[key]
        if isinstance(line, int):
            del self[key]
            return False
        line.pop()
        if line:
            return True
        del self[key]
        self.several -= 1
        return False

    def ahead(self, key: int | None, most: int) -> list[int]:
        """The first numbers of a key, at most so many."""
        line = self[key]
        return [line] if isinstance(line, int) else line.ahead(most)

    def keep(self, is_there: Callable[[int], bool]) -> None:
        """Forgets all other numbers."""
        self.count = self.several = 0
        for key, line in list(self.items()):
            if isinstance(line, int):
                left = int(is_there(line))
            else:
                line.keep(is_there)
                left = len(line)
                self.several += left > 0
            self.count += left
            if not left:
                del self[key]

    def clear(self) -> None:
        """Forgets all."""
        super().clear()
        self.count = self.several = 0

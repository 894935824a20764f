"""Ready messages of which any may leave before it is the first: as a deque, and by number.

A queue has these instead of deques from the first message on that expires by itself: they take
three times the memory of a place in a deque, and three times as long.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from typing import TypeAlias

from broker.core.message import NUMBER, Entry

SPARSE_BYTES = 150
"""Octets of memory that one entry takes here beyond its place in a deque."""


class Sparse:
    """Entries in the order of their numbers, which only grow behind and shrink in front."""

    __slots__ = ("_entries",)

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._entries: OrderedDict[int, Entry] = OrderedDict()
        self.extend(entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def __getitem__(self, place: int) -> Entry:
        """The first entry (0) or the last one (-1)."""
        if place == 0:
            return next(iter(self._entries.values()))
        assert place == -1, "only the ends are asked for"
        return next(reversed(self._entries.values()))

    def __contains__(self, number: object) -> bool:
        """Whether the one with this number is here."""
        return number in self._entries

    def get(self, number: int) -> Entry | None:
        """The one with this number, if it is here."""
        return self._entries.get(number)

    def append(self, entry: Entry) -> None:
        """Adds one behind all others."""
        self._entries[entry[NUMBER]] = entry

    def appendleft(self, entry: Entry) -> None:
        """Adds one before all others."""
        self._entries[entry[NUMBER]] = entry
        self._entries.move_to_end(entry[NUMBER], last=False)

    def extend(self, entries: Iterable[Entry]) -> None:
        """Adds some behind all others."""
        for entry in entries:
            self._entries[entry[NUMBER]] = entry

    def popleft(self) -> Entry:
        """Takes the first one; KeyError if there is none."""
        return self._entries.popitem(last=False)[1]

    def pop(self) -> Entry:
        """Takes the last one; KeyError if there is none."""
        return self._entries.popitem()[1]

    def clear(self) -> None:
        """Drops all."""
        self._entries.clear()

    def discard(self, number: int) -> Entry | None:
        """Takes the one with this number, if it is here."""
        return self._entries.pop(number, None)


Ready: TypeAlias = "deque[Entry] | Sparse"
"""Where ready messages are in memory."""

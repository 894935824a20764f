"""What is noted of single messages of a queue, and lasts: how often they came back, until when they
are held."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from broker.core.stored import StoredRuns

NOTE_BYTES = 72
"""Octets of memory for each message of which something is noted: a number, and its place in a
dictionary."""


class Noted(dict[int, int]):
    """One thing, by the numbers of messages. `write` adds a record about some of them to the log,
    `grown` is told what memory all of them take."""

    def __init__(
        self, write: Callable[[dict[int, int]], None], grown: Callable[[int], None]
    ) -> None:
        super().__init__()
        self._write = write
        self._grown = grown
        self._counted = 0

    def note(self, values: dict[int, int]) -> None:
        """From now on this is so."""
        if values:
            self.update(values)
            self.count()
            self._write(values)

    def note_anew(self, first: int, stop: int) -> None:
        """Messages `first` to `stop - 1` were stored anew: so is what is noted of them."""
        values = {number: self[number] for number in range(first, stop) if number in self}
        if values:
            self._write(values)

    def forget(self, numbers: Iterable[int]) -> None:
        """These messages are gone."""
        if self:
            for number in numbers:
                self.pop(number, None)
            if not self:
                # One that is emptied would keep its room.
                self.clear()
            self.count()

    def forget_range(self, first: int, stop: int) -> None:
        """Messages `first` to `stop - 1` are gone."""
        if stop - first < len(self):
            self.forget(range(first, stop))
        else:
            self.forget([number for number in self if first <= number < stop])

    def keep(self, stored: StoredRuns | tuple[()]) -> None:
        """All others are gone."""
        self.forget([number for number in self if number not in stored])
        self.count()

    def count(self) -> None:
        """Tells what memory it takes."""
        octets = len(self) * NOTE_BYTES
        self._grown(octets - self._counted)
        self._counted = octets

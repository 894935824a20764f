"""Messages of a queue that are in memory and in none of its lines: those that came back, and those
that were read ahead of others. By number, and with the lowest one known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heappush

from broker.core.message import NUMBER, Entry

NEAR_BYTES = 120
"""Octets of memory that one takes here: places in a dictionary and in a heap."""
_STALE_MIN = 64
"""Numbers that have left, beyond twice those that are here."""


class Near(dict[int, Entry]):
    """Entries by number."""

    __slots__ = ("_order",)

    def __init__(self) -> None:
        super().__init__()
        self._order: list[int] = []

    def put(self, entries: Iterable[Entry]) -> None:
        """These are here from now on."""
        order = self._order
        for entry in entries:
            self[entry[NUMBER]] = entry
            heappush(order, entry[NUMBER])
        if len(order) > _STALE_MIN + 3 * len(self):
            order[:] = self
            heapify(order)

    @property
    def lowest(self) -> int | None:
        """The lowest number, if there is any."""
        order = self._order
        while order and order[0] not in self:
            heappop(order)
        return order[0] if order else None

    def take_all(self, numbers: Iterable[int]) -> Iterator[Entry]:
        """Takes those of these numbers that are here."""
        for number in numbers:
            entry = self.pop(number, None)
            if entry is not None:
                yield entry

    def clear(self) -> None:
        """Nothing is here any more."""
        super().clear()
        self._order.clear()

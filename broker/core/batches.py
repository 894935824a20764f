"""What is in the log, batch by batch: how much, and how much of it is still wanted."""

from __future__ import annotations

from array import array

from broker.storage.log import Position

_COMPACT_FROM = 4096
"""Batches that were dropped and are kept before the columns are moved up."""


class Batches:
    """Octets of each batch from `first` on, and how many of them are wanted. The last one is
    pending: it is not in the log yet."""

    __slots__ = ("_base", "_live", "_sizes", "first", "live_bytes", "total_bytes")

    def __init__(self, first: Position) -> None:
        self.first = first
        # The position of the first place in the columns.
        self._base = first
        self._sizes = array("Q", [0])
        self._live = array("Q", [0])
        self.total_bytes = 0
        self.live_bytes = 0

    @property
    def pending(self) -> Position:
        """The batch that is pending."""
        return self._base + len(self._sizes) - 1

    @property
    def pending_bytes(self) -> int:
        """Octets of the pending batch."""
        return self._sizes[-1]

    def grow(self, octets: int) -> None:
        """The pending batch gets more."""
        self._sizes[-1] += octets
        self.total_bytes += octets

    def end(self) -> None:
        """The pending batch is in the log; the next one begins."""
        self._sizes.append(0)
        self._live.append(0)

    def size(self, position: Position) -> int:
        """Octets of a batch."""
        return self._sizes[position - self._base]

    def live(self, position: Position) -> int:
        """Octets of a batch that are wanted."""
        return self._live[position - self._base]

    def live_before(self, stop: Position) -> int:
        """Octets that are wanted of all batches from `first` to `stop - 1`."""
        return sum(self._live[self.first - self._base : stop - self._base])

    def hold(self, position: Position, octets: int) -> None:
        """Something in this batch is wanted."""
        self._live[position - self._base] += octets
        self.live_bytes += octets

    def free(self, position: Position, octets: int) -> None:
        """It is not wanted any more."""
        self._live[position - self._base] -= octets
        self.live_bytes -= octets

    def drop(self, before: Position) -> None:
        """The log lets these go."""
        count = before - self._base
        start = self.first - self._base
        self.total_bytes -= sum(self._sizes[start:count])
        self.live_bytes -= sum(self._live[start:count])
        self.first = before
        if count > _COMPACT_FROM and count * 2 > len(self._sizes):
            del self._sizes[:count]
            del self._live[:count]
            self._base = before

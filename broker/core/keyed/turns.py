"""The turns of values that share a queue (`broker.core.keyed.shares`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush

from broker.core.keyed.keys import Key

_STALE_MIN = 64
"""Places that no longer hold, beyond twice those that do."""

Place = tuple[int, int, Key]
"""(load, turn, value): the lowest is next. No two have the same turn."""


class Turns:
    """Values in the order of their turns."""

    __slots__ = ("_apart", "_heap", "_loads", "_places", "_turn")

    def __init__(self) -> None:
        self._heap: list[Place] = []
        self._places: dict[Key, Place] = {}
        # Unacknowledged messages, of values that have any.
        self._loads: dict[Key, int] = {}
        self._turn = 0
        # Places of those whose next message is being read.
        self._apart: dict[Key, Place] = {}

    def join(self, value: Key) -> None:
        """Something of this value may go out, for the first time in a while: it stands behind
        others with as many unacknowledged ones."""
        if value not in self._places and value not in self._apart:
            self._enter(value)

    def _enter(self, value: Key) -> None:
        self._turn += 1
        self._put((self._loads.get(value, 0), self._turn, value))

    def _put(self, place: Place) -> None:
        self._places[place[2]] = place
        heap = self._heap
        heappush(heap, place)
        if len(heap) > _STALE_MIN + 3 * len(self._places):
            heap[:] = self._places.values()
            heapify(heap)

    def first(self) -> Place | None:
        """Whose turn it is."""
        heap, places = self._heap, self._places
        while heap:
            place = heap[0]
            if places.get(place[2]) is place:
                return place
            heappop(heap)
        return None

    def end_turn(self, value: Key, *, has_more: bool) -> None:
        """The value whose turn it is had it."""
        if self._heap[0] is self._places.pop(value):
            heappop(self._heap)
        if has_more:
            self._enter(value)

    def load(self, value: Key) -> None:
        """One more message of it is unacknowledged. To be followed by `end_turn`."""
        self._loads[value] = self._loads.get(value, 0) + 1

    def load_all(self, values: Iterable[Key]) -> None:
        """The same for values of which nothing waits."""
        loads = self._loads
        for value in values:
            loads[value] = loads.get(value, 0) + 1

    def unload(self, value: Key) -> None:
        """One message less is."""
        load = self._loads[value] - 1
        if load:
            self._loads[value] = load
        else:
            del self._loads[value]
        place = self._places.get(value)
        if place is not None:
            self._put((load, place[1], value))
        elif value in self._apart:
            self._apart[value] = load, self._apart[value][1], value

    def set_apart(self, value: Key) -> None:
        """Others go on until `rejoin`."""
        self._apart[value] = self._places.pop(value)

    def rejoin(self, is_waiting: Callable[[Key], bool]) -> None:
        """Those that were set apart stand where they stood, as far as they still wait."""
        apart, self._apart = self._apart, {}
        for value, place in apart.items():
            if is_waiting(value):
                self._put(place)

    def keep(self, is_waiting: Callable[[Key], bool]) -> None:
        """Forgets all others."""
        for places in (self._places, self._apart):
            for value in [value for value in places if not is_waiting(value)]:
                del places[value]
        self._heap[:] = self._places.values()
        heapify(self._heap)

    def clear(self) -> None:
        """Nothing waits any more."""
        self._heap.clear()
        self._places.clear()
        self._apart.clear()

    def close(self) -> None:
        """Nothing is unacknowledged, either."""
        self.clear()
        self._loads.clear()

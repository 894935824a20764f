"""The deliveries of one channel that are not settled yet, in order of their delivery tags."""

from __future__ import annotations

from collections.abc import Sequence

from broker.core.consumer import Consumer
from broker.core.message import Entry

_COMPACT_FROM = 512
"""Settled places in front that are kept before the lists are moved up."""

Group = tuple[Consumer, list[Entry]]


class Unacked:
    """What was delivered and by which consumer, in two lists that run side by side.

    Tags are consecutive, so a tag is a place in the lists. Nearly all settling happens at the
    front: it moves `_start`, and copies nothing but what it returns. What is settled out of order
    leaves a hole (None) until the front reaches it.
    """

    __slots__ = ("_base", "_consumers", "_entries", "_holes", "_start")

    def __init__(self) -> None:
        self._entries: list[Entry | None] = []
        self._consumers: list[Consumer] = []
        self._base = 1
        self._start = 0
        self._holes = 0

    def __len__(self) -> int:
        return len(self._entries) - self._start - self._holes

    @property
    def next_tag(self) -> int:
        """The delivery tag of the next delivery that wants an acknowledgement."""
        return self._base + len(self._entries)

    @property
    def front_tag(self) -> int:
        """The lowest tag that is not settled; `next_tag` if there is none."""
        return self._base + self._start

    def run_length(self) -> int:
        """How many tags from `front_tag` on are unsettled without a hole between; 0 stands for
        "not known" while there are holes."""
        return 0 if self._holes else len(self._entries) - self._start

    def add(self, consumer: Consumer, entries: Sequence[Entry]) -> None:
        """Records deliveries; the first gets `next_tag`."""
        self._entries += entries
        self._consumers += [consumer] * len(entries)

    def skip(self, count: int) -> None:
        """Lets tags pass that want no acknowledgement."""
        if self._start == len(self._entries):
            self._entries.clear()
            self._consumers.clear()
            self._base += count + self._start
            self._start = 0
            return
        self._entries += [None] * count
        self._consumers += [self._consumers[-1]] * count
        self._holes += count

    def take_front(self, count: int) -> list[Group]:
        """Settles the first `count` places, holes included."""
        start = self._start
        end = start + count
        entries = self._entries[start:end]
        consumers = self._consumers[start:end]
        self._start = end
        if self._holes:
            kept = [i for i, entry in enumerate(entries) if entry is not None]
            self._holes -= len(entries) - len(kept)
            entries = [entries[i] for i in kept]
            consumers = [consumers[i] for i in kept]
            self._pass_holes()
        if self._start > _COMPACT_FROM and self._start * 2 > len(self._entries):
            self._compact()
        return _grouped(consumers, entries)  # type: ignore[arg-type]  # holes are gone

    def take(self, tag: int, *, multiple: bool) -> list[Group] | None:
        """Settles one tag, or all up to it (all there are for tag 0); None if it is unknown."""
        place = tag - self._base
        if multiple:
            if tag == 0:
                return self.take_front(len(self._entries) - self._start)
            if not self._start <= place < len(self._entries) or self._entries[place] is None:
                return None
            return self.take_front(place + 1 - self._start)
        if not self._start <= place < len(self._entries):
            return None
        entry = self._entries[place]
        if entry is None:
            return None
        if place == self._start:
            return self.take_front(1)
        self._entries[place] = None
        self._holes += 1
        return [(self._consumers[place], [entry])]

    def tags(self, tag: int, *, multiple: bool) -> list[int]:
        """The unsettled tags that `take` would settle; none if the tag is unknown."""
        last = self.next_tag - 1 if multiple and tag == 0 else tag
        first = self.front_tag if multiple else last
        if not self.front_tag <= last < self.next_tag or (
            tag and self._entries[tag - self._base] is None
        ):
            return []
        return [t for t in range(first, last + 1) if self._entries[t - self._base] is not None]

    def take_all(self) -> list[Group]:
        """Settles everything."""
        return self.take_front(len(self._entries) - self._start)

    def _pass_holes(self) -> None:
        entries = self._entries
        start = self._start
        while start < len(entries) and entries[start] is None:
            start += 1
        self._holes -= start - self._start
        self._start = start

    def _compact(self) -> None:
        del self._entries[: self._start]
        del self._consumers[: self._start]
        self._base += self._start
        self._start = 0


def _grouped(consumers: list[Consumer], entries: list[Entry]) -> list[Group]:
    if not entries:
        return []
    first = consumers[0]
    if consumers.count(first) == len(consumers):
        return [(first, entries)]
    groups: dict[Consumer, list[Entry]] = {}
    for consumer, entry in zip(consumers, entries, strict=True):
        groups.setdefault(consumer, []).append(entry)
    return list(groups.items())

"""The deliveries of one channel that are not settled yet, in order of their delivery tags."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, takewhile
from operator import itemgetter

from broker.core.consumer import Consumer
from broker.core.message import Entry

_COMPACT_FROM = 512
"""Settled places in front that are kept before the lists are moved up."""
_HOLES_MAX = 1024
"""Holes beyond twice the unsettled deliveries before these are kept apart."""

Group = tuple[Consumer, list[Entry]]


class Unacked:
    """What was delivered and by which consumer, in two lists that run side by side.

    Tags are consecutive, so a tag is a place in the lists. Nearly all settling happens at the
    front: it moves `_start`, and copies nothing but what it returns. What is settled out of order
    leaves a hole (None) until the front reaches it. When a few old deliveries keep many holes
    from going, these few move to `_old`, by tag, so that the record stays as small as what is
    unsettled.
    """

    __slots__ = ("_base", "_consumers", "_entries", "_holes", "_old", "_start")

    def __init__(self) -> None:
        self._base = 1
        self._entries: list[Entry | None] = []
        self._consumers: list[Consumer] = []
        self._start = 0
        self._holes = 0
        self._old: dict[int, tuple[Consumer, Entry]] = {}

    def __len__(self) -> int:
        return len(self._old) + len(self._entries) - self._start - self._holes

    @property
    def next_tag(self) -> int:
        """The delivery tag of the next delivery."""
        return self._base + len(self._entries)

    @property
    def front_tag(self) -> int:
        """Where a run of tags begins that are not settled; `next_tag` if there is none."""
        return self._base + self._start

    def run_length(self) -> int:
        """How many tags from `front_tag` on are unsettled without a hole between; 0 stands for
        "not known" while some are settled out of order."""
        return 0 if self._holes or self._old else len(self._entries) - self._start

    def add(self, consumer: Consumer, entries: Sequence[Entry]) -> None:
        """Records deliveries; the first gets `next_tag`."""
        self._entries += entries
        self._consumers += [consumer] * len(entries)

    def skip(self, count: int) -> None:
        """Lets tags pass that want no acknowledgement."""
        if self._start == len(self._entries):
            self._base += count + self._start
            self._entries.clear()
            self._consumers.clear()
            self._start = 0
            return
        self._entries += [None] * count
        self._consumers += [self._consumers[-1]] * count
        self._holes += count
        self._shed_holes()

    def take_front(self, count: int) -> list[Group]:
        """Settles the first `count` places from `front_tag` on, holes included."""
        start = self._start
        end = start + count
        entries = self._entries[start:end]
        consumers = self._consumers[start:end]
        # The places stay until the lists are moved up; the messages must not.
        self._entries[start:end] = [None] * count
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
        if multiple and tag == 0:
            return self.take_all()
        if not self._is_unsettled(tag):
            return None
        if multiple:
            return self.take_to(tag)
        if tag in self._old:
            return self._take_old([tag])
        place = tag - self._base
        if place == self._start:
            return self.take_front(1)
        entry = self._entries[place]
        assert entry is not None
        self._entries[place] = None
        self._holes += 1
        group = (self._consumers[place], [entry])
        self._shed_holes()
        return [group]

    def take_to(self, tag: int) -> list[Group]:
        """Settles all up to this tag, whether or not it is one itself."""
        last = min(tag + 1 - self._base, len(self._entries))
        front = self.take_front(max(0, last - self._start))
        return self._take_old(self._old_until(tag)) + front if self._old else front

    def tags(self, tag: int, *, multiple: bool) -> list[int]:
        """The unsettled tags that `take` would settle; none if the tag is unknown."""
        if multiple and tag == 0:
            tag = self.next_tag - 1
        elif not self._is_unsettled(tag):
            return []
        return self.tags_to(tag) if multiple else [tag]

    def tags_to(self, tag: int) -> list[int]:
        """The unsettled tags up to this one."""
        base = self._base
        new = range(self.front_tag, min(tag + 1, self.next_tag))
        unsettled = [known for known in new if self._entries[known - base] is not None]
        return self._old_until(tag) + unsettled

    def tags_of(self, consumer: Consumer, stop: int) -> list[int]:
        """The unsettled tags below `stop` that this consumer got."""
        old = [tag for tag in self._old_until(stop - 1) if self._old[tag][0] is consumer]
        places = range(self._start, min(stop, self.next_tag) - self._base)
        consumers, entries = self._consumers, self._entries
        return old + [
            self._base + place
            for place in places
            if consumers[place] is consumer and entries[place] is not None
        ]

    def take_all(self) -> list[Group]:
        """Settles everything."""
        return self._take_old(list(self._old)) + self.take_front(len(self._entries) - self._start)

    def _is_unsettled(self, tag: int) -> bool:
        if tag in self._old:
            return True
        place = tag - self._base
        return self._start <= place < len(self._entries) and self._entries[place] is not None

    def _old_until(self, tag: int) -> list[int]:
        return list(takewhile(lambda known: known <= tag, self._old))

    def _take_old(self, tags: list[int]) -> list[Group]:
        taken = [self._old.pop(tag) for tag in tags]
        return _grouped([consumer for consumer, _ in taken], [entry for _, entry in taken])

    def _pass_holes(self) -> None:
        entries = self._entries
        start = self._start
        while start < len(entries) and entries[start] is None:
            start += 1
        self._holes -= start - self._start
        self._start = start

    def _shed_holes(self) -> None:
        """Moves what is unsettled to `_old`, if it keeps too many holes."""
        unsettled = len(self._entries) - self._start - self._holes
        if self._holes <= _HOLES_MAX + 2 * unsettled:
            return
        for place in range(self._start, len(self._entries)):
            entry = self._entries[place]
            if entry is not None:
                self._old[self._base + place] = self._consumers[place], entry
        self._base = self.next_tag
        self._entries.clear()
        self._consumers.clear()
        self._start = self._holes = 0

    def _compact(self) -> None:
        del self._entries[: self._start]
        del self._consumers[: self._start]
        self._base += self._start
        self._start = 0


def _grouped(consumers: list[Consumer], entries: list[Entry]) -> list[Group]:
    """Runs of deliveries by one consumer, in order."""
    if not entries:
        return []
    first = consumers[0]
    if consumers.count(first) == len(consumers):
        return [(first, entries)]
    pairs = zip(consumers, entries, strict=True)
    return [
        (consumer, [entry for _, entry in run])
        for consumer, run in groupby(pairs, key=itemgetter(0))
    ]

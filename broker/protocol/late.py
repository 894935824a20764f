"""Delivery tags that timed out, and whose settlement is still to come."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter

from broker.core.consumer import Consumer

LATE_MAX = 4096
"""Late tags that a channel remembers one by one, at about a hundred octets each."""

Places = Counter[Consumer]
"""How many places in their prefetch consumers have back."""


class LateTags:
    """What timed out on one channel. A late delivery may keep its place in the prefetch of its
    consumer until the client settles it.

    If there are too many, the oldest tags are forgotten: from then on any tag up to these counts
    as late, unless it is unsettled. A client that is slow is not to be taken for one that errs.
    """

    __slots__ = ("_forgotten_to", "_keepers", "_tags")

    def __init__(self) -> None:
        # In order.
        self._tags: list[int] = []
        self._keepers: dict[int, Consumer] = {}
        self._forgotten_to = 0

    def __len__(self) -> int:
        return len(self._tags)

    def __contains__(self, tag: int) -> bool:
        place = bisect_left(self._tags, tag)
        return 0 < tag <= self._forgotten_to or self._tags[place : place + 1] == [tag]

    def add(self, tags: list[int], keeper: Consumer | None = None) -> Places:
        """These are late now. With a `keeper` they keep their places; returned are those that are
        free since their tags are forgotten."""
        if keeper is not None:
            self._keepers |= dict.fromkeys(tags, keeper)
        self._tags = sorted([*self._tags, *tags])
        if len(self._tags) <= LATE_MAX:
            return Counter()
        forgotten = self._tags[: -LATE_MAX // 2]
        self._forgotten_to = forgotten[-1]
        return self._drop(len(forgotten))

    def take(self, tag: int, *, multiple: bool) -> tuple[int, Places]:
        """The client settles this tag, or all up to it (all there are for tag 0). How many of
        these were late, and which places are free now."""
        if not multiple:
            place = bisect_left(self._tags, tag)
            if self._tags[place : place + 1] != [tag]:
                return int(tag in self), Counter()
            del self._tags[place]
            keeper = self._keepers.pop(tag, None)
            return 1, Counter(() if keeper is None else (keeper,))
        count = bisect_right(self._tags, tag) if tag else len(self._tags)
        return count, self._drop(count)

    def _drop(self, count: int) -> Places:
        taken = self._tags[:count]
        del self._tags[:count]
        keepers = self._keepers
        return Counter(keepers.pop(tag) for tag in taken if tag in keepers)

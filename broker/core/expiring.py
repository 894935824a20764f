"""Messages that came with an expiration of their own, in a log."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import Final

from broker.core.message import CONTENT, ORIGIN, PUBLISHED, TTL, Message, with_time
from broker.core.records import read_put

JOINED_MAX: Final = 16
"""Messages with expirations of their own that are one record. More would save little, and each may
be due alone: all of its record is read then."""
JOINED_BYTES: Final = 1 << 13
"""Octets of them, about."""


def can_join(before: Message, message: Message, count: int) -> bool:
    """Whether a message can be put in one record with `count` others, the last of which is given,
    although it is of another origin: they differ in how long they live."""
    last, origin = before[ORIGIN], message[ORIGIN]
    return (
        count < JOINED_MAX
        and count * len(message[CONTENT]) < JOINED_BYTES
        and origin[TTL] is not None
        and last[TTL] is not None
        and origin[:TTL] == last[:TTL]
    )


def messages_at(record: bytes, places: Sequence[int]) -> list[Message]:
    """Some of the messages of a put record; one of them without a look at the others."""
    put = read_put(record, 0)
    if len(places) > 1:
        messages = put.messages(record)
        return [messages[place] for place in places]
    [place] = places
    at = put.contents_at + sum(put.sizes[:place])
    origin = put.origin
    if put.ttls:
        origin = with_time(origin, origin[PUBLISHED], put.ttls[place])
    return [(record[at : at + put.sizes[place]], put.header_sizes[place], origin, put.framing)]


class Expiring:
    """What is noted of them while it is read, by runs with one deadline: when, the first number,
    how many. Twenty octets for each, since there may be millions."""

    __slots__ = ("_counts", "_deadlines", "_firsts")

    def __init__(self) -> None:
        self._deadlines = array("Q")
        self._firsts = array("Q")
        self._counts = array("I")

    def __len__(self) -> int:
        return len(self._firsts)

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        """(deadline, first number, number behind the last one)."""
        for deadline, first, count in zip(self._deadlines, self._firsts, self._counts, strict=True):
            yield deadline, first, first + count

    def add(self, published: int, ttls: Sequence[int], first: int, count: int) -> None:
        """Messages `first` to `first + count - 1` live so long, each of them or all."""
        each = count // len(ttls)
        for ttl in ttls:
            self._deadlines.append(published + ttl)
            self._firsts.append(first)
            self._counts.append(each)
            first += each

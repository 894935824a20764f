"""Recognises content headers that look like some that were checked before.

Messages of one program differ in few values of their properties, seldom in their shape: which
properties and header fields there are, of which types and lengths. A shape is the octets that
stayed the same, cut out in one call of struct and compared at once: it replaces the walk over
every field. What tells the structure (flags, lengths, types, names) is always among them, so what
is recognised is as sound as what was checked.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from broker.wire.properties import HEADERS, REPLY_TO, property_shapes
from broker.wire.table import FIELD_SIZES

SHAPES_MAX: Final = 64
"""Shapes a connection remembers, by flags and size; then it starts anew."""
SIZE_MAX: Final = 1024
"""Octets of the largest property list that is learnt: a shape takes several times that."""
LESSONS: Final = 16
"""Headers of one size and flags that are learnt from at once; then only each 64th, so that what
has no common shape costs little."""

Span = tuple[int, int]

_TABLE, _ARRAY = ord("F"), ord("A")


class Shapes:
    """The shapes of plain property lists on one connection, by flags and size."""

    __slots__ = ("_shapes",)

    def __init__(self) -> None:
        self._shapes: dict[int, _Shape] = {}

    def knows(self, octets: bytes, at: int, end: int, flags: int) -> bool:
        """Whether the property list `octets[at:end]` has a shape that was learnt."""
        shape = self._shapes.get((end - at) << 16 | flags)
        return shape is not None and shape.cut(octets, at) == shape.same

    def learn(self, octets: bytes, at: int, end: int, flags: int) -> None:
        """Learns from a property list that was checked and found plain."""
        if end - at > SIZE_MAX:
            return
        key = (end - at) << 16 | flags
        shape = self._shapes.get(key)
        if shape is None:
            if len(self._shapes) >= SHAPES_MAX:
                self._shapes.clear()
            self._shapes[key] = _Shape(octets[at:end], flags)
        else:
            shape.learn(octets[at:end], flags)


class _Shape:
    """`cut` takes the octets out of a property list that must equal `same`."""

    __slots__ = ("_gaps", "_lessons", "_sample", "_spans", "cut", "same")

    def __init__(self, sample: bytes, flags: int) -> None:
        self._lessons = 0
        self._start(sample, value_spans(sample, flags))

    def _start(self, sample: bytes, spans: list[Span]) -> None:
        self._sample = sample
        self._spans = spans
        self._gaps: set[Span] = set()
        self._compile()

    def learn(self, octets: bytes, flags: int) -> None:
        """A list of the same size and flags did not fit: values that differ become gaps."""
        self._lessons += 1
        if self._lessons > LESSONS and self._lessons % 64:
            return
        spans = value_spans(octets, flags)
        if spans != self._spans:
            self._start(octets, spans)
            return
        sample = self._sample
        self._gaps |= {(a, b) for a, b in spans if octets[a:b] != sample[a:b]}
        self._compile()

    def _compile(self) -> None:
        layout = []
        at = 0
        for start, stop in sorted(self._gaps):
            layout.append(f"{start - at}s{stop - start}x")
            at = stop
        layout.append(f"{len(self._sample) - at}s")
        packer = struct.Struct("".join(layout))
        self.cut: Callable[[bytes, int], tuple[bytes, ...]] = packer.unpack_from
        self.same: tuple[bytes, ...] = packer.unpack(self._sample)


def value_spans(octets: bytes, flags: int) -> list[Span]:
    """Where values are in a checked property list: octets that may change without changing its
    structure. A reply-to is left out, since it may say something to the broker."""
    spans: list[Span] = []
    at = 0
    for flag, shape in property_shapes(flags):
        if flag == HEADERS:
            start = at + 4
            at = start + int.from_bytes(octets[at:start], "big")
            _add_field_spans(spans, octets, start, at, named=True)
        elif shape == 0:
            start = at + 1
            at = start + octets[at]
            if flag != REPLY_TO:
                spans.append((start, at))
        else:
            spans.append((at, at + shape))
            at += shape
    return spans


def _add_field_spans(spans: list[Span], octets: bytes, at: int, end: int, *, named: bool) -> None:
    """The values in a table, or in an array."""
    while at < end:
        if named:
            at += 1 + octets[at]
        code = octets[at]
        size = FIELD_SIZES[code]
        if size >= 0:
            spans.append((at + 1, at + 1 + size))
            at += 1 + size
            continue
        start = at + 5
        at = start + int.from_bytes(octets[at + 1 : start], "big")
        if code in (_TABLE, _ARRAY):
            _add_field_spans(spans, octets, start, at, named=code == _TABLE)
        else:
            spans.append((start, at))

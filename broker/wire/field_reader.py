"""Reading one field of the `headers` property, for each message on its way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from broker.wire.frames import CONTENT_HEADER
from broker.wire.methods import shortstr
from broker.wire.table import FIELD_SIZES

_FLAGS: Final = CONTENT_HEADER.size - 2
_HEADERS, _CONTENT_TYPE, _CONTENT_ENCODING = 0x20, 0x80, 0x40
"""In the first octet of the property flags."""
_VOID: Final = ord("V")
_TEXT: Final = ord("S")


def field_reader(name: str) -> Callable[[bytes], bytes | None]:
    """What reads the top-level field of this name from the header frame, which was checked before,
    at the beginning of some octets: its type and its value as they came; None for a void one, and
    if there is none. Of equal names the first counts."""
    label = shortstr(name)
    width = len(label)

    def read(octets: bytes) -> bytes | None:
        flags = octets[_FLAGS]
        if not flags & _HEADERS:
            return None
        at = _FLAGS + 2
        if flags & _CONTENT_TYPE:
            at += 1 + octets[at]
        if flags & _CONTENT_ENCODING:
            at += 1 + octets[at]
        start = at + 4
        end = start + int.from_bytes(octets[at:start], "big")
        # A look for its octets is quick, but they may be part of something else.
        if octets.startswith(label, start):
            at = start + width
        elif octets.find(label, start, end) < 0:
            return None
        else:
            at = _find(octets, start, end, label)
            if at < 0:
                return None
        code = octets[at]
        if code == _TEXT:
            return octets[at : at + 5 + int.from_bytes(octets[at + 1 : at + 5], "big")]
        return None if code == _VOID else octets[at : _end(octets, at)]

    return read


def _find(octets: bytes, at: int, end: int, label: bytes) -> int:
    """Where the type of the field is that has this name; -1 if there is none."""
    while at < end:
        start = at
        at += 1 + octets[at]
        if octets[start:at] == label:
            return at
        at = _end(octets, at)
    return -1


def _end(octets: bytes, at: int) -> int:
    """Where the value ends whose type is at this place."""
    size = FIELD_SIZES[octets[at]]
    return at + 1 + (size if size >= 0 else 4 + int.from_bytes(octets[at + 1 : at + 5], "big"))

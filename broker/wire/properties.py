"""Content headers as raw octets: checked for shape, read one property at a time, edited by
splicing (AMQP 0-9-1, sections 2.3.5.2 and 4.2.6).

The hot path only calls `check_properties`. What nobody asks for is never decoded, and what is
edited leaves its neighbours untouched to the bit.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from broker.wire.frames import CONTENT_HEADER, CONTENT_HEADER_MIN, HEADER, frame
from broker.wire.table import (
    Field,
    Table,
    TableError,
    check_table,
    decode_table,
    encode_table,
    find_field,
    remove_fields,
)

CONTENT_TYPE: Final = 0x8000
CONTENT_ENCODING: Final = 0x4000
HEADERS: Final = 0x2000
DELIVERY_MODE: Final = 0x1000
PRIORITY: Final = 0x0800
CORRELATION_ID: Final = 0x0400
REPLY_TO: Final = 0x0200
EXPIRATION: Final = 0x0100
MESSAGE_ID: Final = 0x0080
TIMESTAMP: Final = 0x0040
TYPE: Final = 0x0020
USER_ID: Final = 0x0010
APP_ID: Final = 0x0008
CLUSTER_ID: Final = 0x0004
_UNUSED: Final = 0x0003

_LONGSTR = ord("S")
_PAYLOAD_AT = 7
_PERSISTENT = 2
_FIRST_PROPERTY = CONTENT_HEADER.size

_SHORTSTR, _TABLE = 0, -1
_SHAPES = dict.fromkeys((32768 >> bit for bit in range(14)), _SHORTSTR) | {
    HEADERS: _TABLE,
    DELIVERY_MODE: 1,
    PRIORITY: 1,
    TIMESTAMP: 8,
}


class PropertiesError(ValueError):
    """The octets are no property list of class basic."""


@lru_cache(maxsize=1024)
def property_shapes(flags: int) -> tuple[tuple[int, int], ...]:
    """(flag, shape) of each property that is there, in wire order. The shape is 0 for a short
    string, -1 for a table, else a size. Raises PropertiesError for unknown flags."""
    if flags & _UNUSED:
        raise PropertiesError(f"unknown property flags {flags & _UNUSED}")
    return tuple((flag, shape) for flag, shape in _SHAPES.items() if flags & flag)


def check_properties(octets: bytes, at: int, end: int, flags: int) -> None:
    """Checks that `octets[at:end]` holds exactly the properties that `flags` announces.

    Raises PropertiesError. What passes can be forwarded to any client.
    """
    try:
        for _, shape in property_shapes(flags):
            if shape == _SHORTSTR:
                at += 1 + octets[at]
            elif shape == _TABLE:
                start = at + 4
                at = start + int.from_bytes(octets[at:start], "big")
                if at > end:
                    raise PropertiesError("a header table is cut off")
                check_table(octets, start, at)
            else:
                at += shape
    except (IndexError, TableError) as error:
        raise PropertiesError(str(error)) from None
    if at != end:
        raise PropertiesError("the property list has another length than announced")


def flags_of(header: bytes) -> int:
    """The property flags of a header frame."""
    return int.from_bytes(header[_FIRST_PROPERTY - 2 : _FIRST_PROPERTY], "big")


def is_persistent(octets: bytes, at: int, flags: int) -> bool:
    """Whether the checked property list that begins at `octets[at]` has delivery mode 2."""
    if not flags & DELIVERY_MODE:
        return False
    if flags & CONTENT_TYPE:
        at += 1 + octets[at]
    if flags & CONTENT_ENCODING:
        at += 1 + octets[at]
    if flags & HEADERS:
        at += 4 + int.from_bytes(octets[at : at + 4], "big")
    return octets[at] == _PERSISTENT


def says_persistent(header: bytes) -> bool:
    """Whether a header frame, checked before, has delivery mode 2."""
    return is_persistent(header, _FIRST_PROPERTY, flags_of(header))


def priority(octets: bytes) -> int:
    """The priority that the header frame at the beginning of these octets has, checked before; 0 if
    it has none."""
    flags = octets[_FIRST_PROPERTY - 2] << 8
    if not flags & PRIORITY:
        return 0
    at = _FIRST_PROPERTY
    if flags & CONTENT_TYPE:
        at += 1 + octets[at]
    if flags & CONTENT_ENCODING:
        at += 1 + octets[at]
    if flags & HEADERS:
        at += 4 + int.from_bytes(octets[at : at + 4], "big")
    if flags & DELIVERY_MODE:
        at += 1
    return octets[at]


def _find(header: bytes, wanted: int) -> tuple[int, int]:
    """Where the octets of one property are in a header frame, its length octets included; an
    absent property has the empty place where it would be."""
    flags = flags_of(header)
    at = _FIRST_PROPERTY
    for flag, shape in property_shapes(flags):
        if flag < wanted:
            break
        start = at
        if shape == _SHORTSTR:
            at += 1 + header[at]
        elif shape == _TABLE:
            at += 4 + int.from_bytes(header[at : at + 4], "big")
        else:
            at += shape
        if flag == wanted:
            return start, at
    return at, at


def text_property(header: bytes, flag: int) -> str | None:
    """A short-string property of a header frame; None if it is absent."""
    start, end = _find(header, flag)
    if start == end:
        return None
    return header[start + 1 : end].decode("utf-8", "surrogateescape")


def message_id(header: bytes) -> bytes:
    """The octets of the message id of a header frame; empty if it is absent."""
    start, end = _find(header, MESSAGE_ID)
    return header[start + 1 : end]


def octet_property(header: bytes, flag: int) -> int | None:
    """`DELIVERY_MODE` or `PRIORITY` of a header frame; None if it is absent."""
    start, end = _find(header, flag)
    return header[start] if start != end else None


def timestamp_property(header: bytes) -> int | None:
    """The timestamp of a header frame, in seconds since 1970; None if it is absent."""
    start, end = _find(header, TIMESTAMP)
    return int.from_bytes(header[start:end], "big") if start != end else None


def headers_table(header: bytes) -> Table:
    """The `headers` property of a header frame, with wire types; empty if it is absent."""
    start, end = _find(header, HEADERS)
    return decode_table(header[start + 4 : end]) if start != end else {}


def header_field(header: bytes, name: str) -> Field | None:
    """One top-level entry of the `headers` property of a header frame; None if it is absent."""
    start, end = _find(header, HEADERS)
    octets = name.encode("utf-8", "surrogateescape")
    return find_field(header, start + 4, end, octets) if start != end else None


def first_text(header: bytes, label: bytes) -> bytes | None:
    """The octets of the first field of the `headers` property, if it is called so (its name as a
    short string) and a long string; None in all other cases, about which `header_field` knows."""
    flags = header[_FIRST_PROPERTY - 2]
    at = _FIRST_PROPERTY + 4
    if not flags & 0x20 or flags & 0x40:
        return None
    if flags & 0x80:
        at += 1 + header[_FIRST_PROPERTY]
    if not header.startswith(label, at):
        return None
    at += len(label)
    if header[at] != _LONGSTR:
        return None
    start = at + 5
    return header[start : start + int.from_bytes(header[at + 1 : start], "big")]


def replace_property(header: bytes, flag: int, octets: bytes | None) -> bytes:
    """The header frame with one property set to these octets (None takes it out)."""
    start, end = _find(header, flag)
    flags = flags_of(header) & ~flag
    if octets is not None:
        flags |= flag
    payload = (
        header[_PAYLOAD_AT : _FIRST_PROPERTY - 2]
        + flags.to_bytes(2, "big")
        + header[_FIRST_PROPERTY:start]
        + (octets or b"")
        + header[end:-1]
    )
    return frame(HEADER, int.from_bytes(header[1:3], "big"), payload)


def without_header(header: bytes, name: str) -> bytes:
    """The header frame with one top-level entry cut out of its `headers` table."""
    start, end = _find(header, HEADERS)
    table = remove_fields(header[start + 4 : end], [name])
    return replace_property(header, HEADERS, len(table).to_bytes(4, "big") + table)


def with_headers(header: bytes, fields: Table, dropped: Iterable[str] = ()) -> bytes:
    """The header frame with these top-level entries in its `headers` table instead of those of the
    same names, and without those that are dropped; all others stay as they are."""
    start, end = _find(header, HEADERS)
    table = header[start + 4 : end]
    if table:
        table = remove_fields(table, (*fields, *dropped))
    table += encode_table(fields)[4:]
    return replace_property(header, HEADERS, len(table).to_bytes(4, "big") + table)


def with_more_headers(header: bytes, fields: bytes) -> bytes:
    """The header frame with these encoded fields at the end of its `headers` table, where none of
    the same names are, and without an expiration."""
    return with_table(header, table_octets(header) + fields)


def table_octets(header: bytes) -> bytes:
    """The octets of the `headers` property of a header frame, without the length."""
    start, end = _find(header, HEADERS)
    return header[start + 4 : end]


def with_table(header: bytes, table: bytes) -> bytes:
    """The header frame with these encoded fields as its `headers` table, and without an
    expiration."""
    start, end = _find(header, HEADERS)
    cut, behind = _find(header, EXPIRATION)
    payload = (
        header[_PAYLOAD_AT : _FIRST_PROPERTY - 2]
        + (flags_of(header) & ~EXPIRATION | HEADERS).to_bytes(2, "big")
        + header[_FIRST_PROPERTY:start]
        + len(table).to_bytes(4, "big")
        + table
        + header[end:cut]
        + header[behind:-1]
    )
    return frame(HEADER, int.from_bytes(header[1:3], "big"), payload)


def header_frame(channel: int, body_size: int, flags: int, octets: bytes) -> bytes:
    """A header frame of class basic from a property list that is encoded already."""
    payload = b"\x00\x3c\x00\x00" + body_size.to_bytes(8, "big") + flags.to_bytes(2, "big")
    assert len(payload) + 8 == CONTENT_HEADER_MIN
    return frame(HEADER, channel, payload + octets)

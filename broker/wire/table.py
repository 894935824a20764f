"""Field tables, read with their wire types kept (AMQP 0-9-1, section 4.2.5.5).

pamqp forgets which integer a value was; RabbitMQ's error texts and argument comparison need to
know, and what is only passed on must not change. The type names are RabbitMQ's
(rabbit_binary_parser). `check_table` bounds depth and number of fields; nothing is decoded that has
not passed it.
"""

from __future__ import annotations

import struct
from collections.abc import Container, Iterable, Mapping
from typing import NamedTuple

TABLE_DEPTH_MAX = 100
"""Tables and arrays inside each other. Far above real use, far below Python's recursion limit."""


TABLE_FIELDS_MAX = 8192
"""Fields and array items in one table, nested ones included: some 20 ms of work. A frame of 128 KiB
has room for 60,000."""


class TableError(ValueError):
    """The octets are no field table."""


class Field(NamedTuple):
    """A value with its wire type: 'longstr', 'signedint', 'table', ...

    Strings are `str` (octets that are not UTF-8 are kept as surrogates), 'binary' is `bytes`,
    'table' a `Table`, 'array' a `list[Field]`, 'timestamp' seconds as `int`, 'decimal' a pair
    (scale, value), 'void' `None`.
    """

    type: str
    value: object


Table = dict[str, Field]

_FIXED: dict[int, tuple[str, struct.Struct]] = {
    ord("t"): ("bool", struct.Struct(">B")),
    ord("b"): ("byte", struct.Struct(">b")),
    ord("B"): ("unsignedbyte", struct.Struct(">B")),
    ord("s"): ("short", struct.Struct(">h")),
    ord("u"): ("unsignedshort", struct.Struct(">H")),
    ord("I"): ("signedint", struct.Struct(">i")),
    ord("i"): ("unsignedint", struct.Struct(">I")),
    ord("l"): ("long", struct.Struct(">q")),
    ord("L"): ("long", struct.Struct(">q")),
    ord("f"): ("float", struct.Struct(">f")),
    ord("d"): ("double", struct.Struct(">d")),
    ord("T"): ("timestamp", struct.Struct(">Q")),
    ord("D"): ("decimal", struct.Struct(">BI")),
    ord("V"): ("void", struct.Struct("")),
}
FIELD_SIZES = [_FIXED[code][1].size if code in _FIXED else -1 for code in range(256)]
"""Octets of a value by its type octet; -1 where a length is in front, or the type is unknown."""
_LONG = {ord("S"): "longstr", ord("x"): "binary", ord("F"): "table", ord("A"): "array"}
_CODES = {name: bytes([code]) for code, (name, _) in _FIXED.items() if code != ord("L")} | {
    name: bytes([code]) for code, name in _LONG.items()
}
_PACKERS = dict(_FIXED.values())
_F = ord("F")
_STRINGS = b"Sx"
_NESTED = b"FA"

INTEGER_TYPES = frozenset(
    {
        "byte",
        "unsignedbyte",
        "short",
        "unsignedshort",
        "signedint",
        "unsignedint",
        "long",
    }
)


def plain(field: Field) -> object:
    """The value of a field as RabbitMQ compares it: whatever its width, an integer is an integer
    (a timestamp too), a string is its octets; a boolean equals booleans alone."""
    value = field.value
    if isinstance(value, bool):
        return field.type, value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return value


def decode_table(payload: bytes) -> Table:
    """Reads the octets of a table (without the length in front). Of equal names the first counts.

    Raises TableError.
    """
    check_table(payload, 0, len(payload))
    return _read_table(payload, 0, len(payload))


def _read_table(octets: bytes, at: int, end: int) -> Table:
    table: Table = {}
    while at < end:
        start = at + 1
        at = start + octets[at]
        name = octets[start:at].decode("utf-8", "surrogateescape")
        field, at = _read_value(octets, at)
        table.setdefault(name, field)
    return table


def _read_array(octets: bytes, at: int, end: int) -> list[Field]:
    array: list[Field] = []
    while at < end:
        field, at = _read_value(octets, at)
        array.append(field)
    return array


def _read_value(octets: bytes, at: int) -> tuple[Field, int]:
    code = octets[at]
    at += 1
    fixed = _FIXED.get(code)
    if fixed is not None:
        name, packer = fixed
        return Field(name, _fixed_value(name, packer.unpack_from(octets, at))), at + packer.size
    kind = _LONG[code]
    start = at + 4
    stop = start + int.from_bytes(octets[at:start], "big")
    if kind == "longstr":
        return Field(kind, octets[start:stop].decode("utf-8", "surrogateescape")), stop
    if kind == "binary":
        return Field(kind, octets[start:stop]), stop
    if kind == "table":
        return Field(kind, _read_table(octets, start, stop)), stop
    return Field(kind, _read_array(octets, start, stop)), stop


def _fixed_value(name: str, values: tuple[int | float, ...]) -> object:
    if name == "bool":
        return values[0] != 0
    if name == "decimal":
        return values
    return values[0] if values else None


def check_table(octets: bytes, at: int, end: int) -> None:
    """Walks over the table in `octets[at:end]` without building it; raises TableError.

    What passes here can be decoded by `decode_table` and by any client. It runs for each
    published message with headers of a new shape.
    """
    try:
        _count_fields(octets, at, end, TABLE_DEPTH_MAX, TABLE_FIELDS_MAX, 1)
    except IndexError:
        raise TableError("a table is cut off") from None


def _count_fields(octets: bytes, at: int, end: int, depth: int, most: int, named: int) -> int:
    """How many of `most` fields are left after those of a table (`named` 1) or array (0)."""
    sizes = FIELD_SIZES
    while at < end and most:
        most -= 1
        if named:
            at += 1 + octets[at]
        code = octets[at]
        size = sizes[code]
        if size >= 0:
            at += 1 + size
            continue
        start = at + 5
        at = start + int.from_bytes(octets[at + 1 : start], "big")
        if code in _STRINGS:
            continue
        if code not in _NESTED:
            raise TableError(f"unknown field type {code}")
        if depth == 0 or at > end:
            raise TableError("nested too deep, or a value is cut off")
        most = _count_fields(octets, start, at, depth - 1, most, code == _F)
    if at < end:
        raise TableError(f"more than {TABLE_FIELDS_MAX} fields")
    if at > end:
        raise TableError("a value is cut off")
    return most


def encode_table(table: Mapping[str, Field]) -> bytes:
    """The octets of a table, length in front, each value in its own wire type."""
    payload = b"".join(
        bytes([len(raw := name.encode("utf-8", "surrogateescape"))]) + raw + _encode_value(field)
        for name, field in table.items()
    )
    return len(payload).to_bytes(4, "big") + payload


def _encode_value(field: Field) -> bytes:
    name, value = field
    code = _CODES[name]
    if name == "table":
        assert isinstance(value, dict)
        return code + encode_table(value)
    if name == "array":
        assert isinstance(value, list)
        octets = b"".join(map(_encode_value, value))
        return code + len(octets).to_bytes(4, "big") + octets
    if name in ("longstr", "binary"):
        raw = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
        assert isinstance(raw, bytes)
        return code + len(raw).to_bytes(4, "big") + raw
    if name == "void":
        return code
    if name == "decimal":
        assert isinstance(value, tuple)
        return code + _PACKERS[name].pack(*value)
    return code + _PACKERS[name].pack(value)


def find_field(octets: bytes, at: int, end: int, name: bytes) -> Field | None:
    """The top-level field of this name of the table in `octets[at:end]`, which has passed
    `check_table`; no other is decoded. Of equal names the first counts."""
    sizes = FIELD_SIZES
    while at < end:
        start = at + 1
        at = start + octets[at]
        if octets[start:at] == name:
            return _read_value(octets, at)[0]
        size = sizes[octets[at]]
        at += 1 + (size if size >= 0 else 4 + int.from_bytes(octets[at + 1 : at + 5], "big"))
    return None


def read_fields(octets: bytes, names: Container[str]) -> Table:
    """The top-level fields of these names; no other is decoded. The octets of the table (without
    the length) have passed `check_table`. Of equal names the first counts."""
    sizes = FIELD_SIZES
    found: Table = {}
    at = 0
    end = len(octets)
    while at < end:
        start = at + 1
        place = start + octets[at]
        size = sizes[octets[place]]
        at = place + 1 + size
        if size < 0:
            at = place + 5 + int.from_bytes(octets[place + 1 : place + 5], "big")
        name = octets[start:place].decode("utf-8", "surrogateescape")
        if name in names and name not in found:
            found[name] = _read_value(octets, place)[0]
    return found


def remove_fields(payload: bytes, names: Iterable[str]) -> bytes:
    """The octets of a table (without the length) with the top-level fields of these names cut
    out and every other octet as it was. `payload` has passed `check_table`."""
    return take_fields(payload, {name.encode(): True for name in names})[0]


def take_fields(payload: bytes, names: Mapping[bytes, bool]) -> tuple[bytes, dict[bytes, bytes]]:
    """As `remove_fields` of those names that are mapped to True; and what the fields of all these
    names are, by name: the octets of the first value, its type in front."""
    sizes = FIELD_SIZES
    found: dict[bytes, bytes] = {}
    kept: list[bytes] = []
    at = since = 0
    end = len(payload)
    while at < end:
        start = at
        place = at = at + 1 + payload[at]
        size = sizes[payload[at]]
        at += 1 + size if size >= 0 else 5 + int.from_bytes(payload[at + 1 : at + 5], "big")
        name = payload[start + 1 : place]
        if name in names:
            found.setdefault(name, payload[place:at])
            if names[name]:
                kept.append(payload[since:start])
                since = at
    kept.append(payload[since:])
    return b"".join(kept), found

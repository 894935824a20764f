"""Field tables, read with their wire types kept (AMQP 0-9-1, section 4.2.5.5).

pamqp forgets which integer a value was; RabbitMQ's error texts and argument comparison need to
know, and what is only passed on must not change. The type names are RabbitMQ's
(rabbit_binary_parser). Both readers are bounded in depth, and no input makes them raise anything
but `TableError`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import NamedTuple

TABLE_DEPTH_MAX = 100
"""Tables and arrays inside each other. Far above real use, far below Python's recursion limit."""


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
_F, _A = b"FA"
_STRINGS = b"Sx"

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
    try:
        return _read_table(payload, 0, len(payload), TABLE_DEPTH_MAX)
    except (IndexError, struct.error) as error:
        raise TableError(str(error)) from None


def _read_table(octets: bytes, at: int, end: int, depth: int) -> Table:
    table: Table = {}
    while at < end:
        size = octets[at]
        name = octets[at + 1 : at + 1 + size].decode("utf-8", "surrogateescape")
        at += 1 + size
        if at >= end:
            raise TableError("a field without a value")
        field, at = _read_value(octets, at, end, depth)
        table.setdefault(name, field)
    return table


def _read_array(octets: bytes, at: int, end: int, depth: int) -> list[Field]:
    array: list[Field] = []
    while at < end:
        field, at = _read_value(octets, at, end, depth)
        array.append(field)
    return array


def _read_value(octets: bytes, at: int, end: int, depth: int) -> tuple[Field, int]:
    code = octets[at]
    at += 1
    fixed = _FIXED.get(code)
    if fixed is not None:
        name, packer = fixed
        stop = at + packer.size
        if stop > end:
            raise TableError("a value is cut off")
        values = packer.unpack_from(octets, at)
        return Field(name, _fixed_value(name, values)), stop
    kind = _LONG.get(code)
    if kind is None:
        raise TableError(f"unknown field type {code}")
    start = at + 4
    stop = start + int.from_bytes(octets[at:start], "big")
    if start > end or stop > end:
        raise TableError("a value is cut off")
    if kind == "longstr":
        return Field(kind, octets[start:stop].decode("utf-8", "surrogateescape")), stop
    if kind == "binary":
        return Field(kind, octets[start:stop]), stop
    if depth == 0:
        raise TableError("nested too deep")
    read: Callable[[bytes, int, int, int], object] = _read_table if kind == "table" else _read_array
    return Field(kind, read(octets, start, stop, depth - 1)), stop


def _fixed_value(name: str, values: tuple[int | float, ...]) -> object:
    if name == "bool":
        return values[0] != 0
    if name == "decimal":
        return values
    return values[0] if values else None


def check_table(octets: bytes, at: int, end: int, depth: int = TABLE_DEPTH_MAX) -> None:
    """Walks over the table in `octets[at:end]` without building it; raises TableError.

    What passes here can be decoded by `decode_table` and by any client. It runs for each
    published message with headers.
    """
    sizes = FIELD_SIZES
    try:
        while at < end:
            at += 1 + octets[at]
            code = octets[at]
            size = sizes[code]
            if size >= 0:
                at += 1 + size
                continue
            start = at + 5
            at = start + int.from_bytes(octets[at + 1 : start], "big")
            if code == _F and start <= at <= end and depth:
                check_table(octets, start, at, depth - 1)
            elif code == _A and start <= at <= end and depth:
                _check_array(octets, start, at, depth - 1)
            elif code not in _STRINGS:
                raise TableError(f"unknown field type {code}, or nested too deep")
    except IndexError:
        raise TableError("a table is cut off") from None
    if at != end:
        raise TableError("a value is cut off")


def _check_array(octets: bytes, at: int, end: int, depth: int) -> None:
    while at < end:
        code = octets[at]
        size = FIELD_SIZES[code]
        if size >= 0:
            at += 1 + size
            continue
        start = at + 5
        at = start + int.from_bytes(octets[at + 1 : start], "big")
        if code == _F and start <= at <= end and depth:
            check_table(octets, start, at, depth - 1)
        elif code == _A and start <= at <= end and depth:
            _check_array(octets, start, at, depth - 1)
        elif code not in _STRINGS:
            raise TableError(f"unknown field type {code}, or nested too deep")
    if at != end:
        raise TableError("a value is cut off")


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


def remove_field(payload: bytes, name: str) -> bytes:
    """The octets of a table (without the length) with the top-level fields called `name` cut
    out and every other octet as it was. `payload` has passed `check_table`."""
    wanted = name.encode()
    kept: list[bytes] = []
    at = 0
    while at < len(payload):
        start = at
        at += 1 + payload[at]
        label = payload[start + 1 : at]
        code = payload[at]
        size = FIELD_SIZES[code]
        at += 1 + (size if size >= 0 else 4 + int.from_bytes(payload[at + 1 : at + 5], "big"))
        if label != wanted:
            kept.append(payload[start:at])
    return b"".join(kept)

"""Field values and tables of AMQP 0-9-1 with their wire types (RabbitMQ's set of type letters).

Plain Python values get the type a client would choose: bool `t`, int `I` (`l` beyond 32 bits),
float `d`, str and bytes `S`, None `V`, dict `F`, list `A`. Where the wire type matters, wrap the
value: `short(5)`, `timestamp(0)`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Table = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Typed:
    """A field value with its wire type letter."""

    tag: str
    value: Any


def signedint(value: int) -> Typed:
    """32 bits, signed (`I`)."""
    return Typed("I", value)


def long(value: int) -> Typed:
    """64 bits, signed (`l`)."""
    return Typed("l", value)


def short(value: int) -> Typed:
    """16 bits, signed (`s`)."""
    return Typed("s", value)


def byte(value: int) -> Typed:
    """8 bits, signed (`b`)."""
    return Typed("b", value)


def unsignedbyte(value: int) -> Typed:
    """8 bits, unsigned (`B`)."""
    return Typed("B", value)


def unsignedshort(value: int) -> Typed:
    """16 bits, unsigned (`u`)."""
    return Typed("u", value)


def unsignedint(value: int) -> Typed:
    """32 bits, unsigned (`i`)."""
    return Typed("i", value)


def boolean(value: bool) -> Typed:
    """One octet, 0 or 1 (`t`)."""
    return Typed("t", value)


def float32(value: float) -> Typed:
    """IEEE 754, 32 bits (`f`)."""
    return Typed("f", value)


def double(value: float) -> Typed:
    """IEEE 754, 64 bits (`d`)."""
    return Typed("d", value)


def timestamp(seconds: int) -> Typed:
    """Seconds since the epoch, 64 bits, unsigned (`T`)."""
    return Typed("T", seconds)


def decimal(scale: int, value: int) -> Typed:
    """`value` divided by ten to the power of `scale` (`D`)."""
    return Typed("D", (scale, value))


def longstr(value: str | bytes) -> Typed:
    """A string of up to 2^32 - 1 octets (`S`)."""
    return Typed("S", value)


def byte_array(value: bytes) -> Typed:
    """Octets that are no text (`x`)."""
    return Typed("x", value)


def void() -> Typed:
    """No value (`V`)."""
    return Typed("V", None)


_NUMBERS = {
    "t": ">?",
    "b": ">b",
    "B": ">B",
    "s": ">h",
    "u": ">H",
    "I": ">i",
    "i": ">I",
    "l": ">q",
    "f": ">f",
    "d": ">d",
    "T": ">Q",
}


def octets(text: str | bytes) -> bytes:
    """UTF-8 of a text; octets that were not UTF-8 when decoded come back as they were."""
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")


def encode_shortstr(text: str | bytes) -> bytes:
    """Length octet and octets; raises struct.error beyond 255 octets."""
    raw = octets(text)
    return struct.pack(">B", len(raw)) + raw


def encode_longstr(text: str | bytes) -> bytes:
    """Four octets of length, then the octets."""
    raw = octets(text)
    return struct.pack(">I", len(raw)) + raw


def typed(value: Any) -> Typed:
    """The wire type that a plain Python value gets; a Typed is returned unchanged."""
    if isinstance(value, Typed):
        return value
    if isinstance(value, bool):
        return Typed("t", value)
    if isinstance(value, int):
        return Typed("I" if -(2**31) <= value < 2**31 else "l", value)
    if isinstance(value, float):
        return Typed("d", value)
    if isinstance(value, str | bytes):
        return Typed("S", value)
    if value is None:
        return Typed("V", None)
    if isinstance(value, Mapping):
        return Typed("F", value)
    if isinstance(value, Sequence):
        return Typed("A", value)
    raise TypeError(f"no wire type for {value!r}")


def encode_field(value: Any) -> bytes:
    """Type letter and value, as in a table or an array."""
    field = typed(value)
    return field.tag.encode("latin-1") + _encode_bare(field)


def _encode_bare(field: Typed) -> bytes:
    if field.tag in _NUMBERS:
        return struct.pack(_NUMBERS[field.tag], field.value)
    if field.tag in ("S", "x"):
        return encode_longstr(field.value)
    if field.tag == "V":
        return b""
    if field.tag == "D":
        scale, value = field.value
        return struct.pack(">Bi", scale, value)
    if field.tag == "F":
        return encode_table(field.value)
    if field.tag == "A":
        return encode_longstr(b"".join(encode_field(item) for item in field.value))
    raise ValueError(f"unknown type letter {field.tag!r}")


def encode_table(table: Table | bytes) -> bytes:
    """A table with its four octets of length; bytes are taken as the table's content, unchecked."""
    if isinstance(table, bytes):
        return encode_longstr(table)
    return encode_longstr(b"".join(encode_shortstr(k) + encode_field(v) for k, v in table.items()))


class Reader:
    """Reads wire values one after the other; raises ValueError when the octets end too early."""

    def __init__(self, raw: bytes, offset: int = 0) -> None:
        self.raw = raw
        self.offset = offset

    @property
    def at_end(self) -> bool:
        """Whether every octet was read."""
        return self.offset >= len(self.raw)

    def take(self, count: int) -> bytes:
        """The next `count` octets."""
        end = self.offset + count
        if end > len(self.raw):
            raise ValueError(f"{count} octets wanted at {self.offset}, {len(self.raw)} in all")
        piece = self.raw[self.offset : end]
        self.offset = end
        return piece

    def number(self, layout: str) -> Any:
        """One number of a struct layout."""
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def shortstr(self) -> str:
        """A short string; octets that are not UTF-8 become surrogates."""
        return self.take(self.number(">B")).decode("utf-8", "surrogateescape")

    def longstr(self) -> str:
        """A long string; octets that are not UTF-8 become surrogates."""
        return self.take(self.number(">I")).decode("utf-8", "surrogateescape")

    def table(self) -> dict[str, Typed]:
        """A table, every value with its wire type."""
        inner = Reader(self.take(self.number(">I")))
        found: dict[str, Typed] = {}
        while not inner.at_end:
            key = inner.shortstr()
            found[key] = inner.field()
        return found

    def field(self) -> Typed:
        """A type letter and its value."""
        tag = self.take(1).decode("latin-1")
        if tag in _NUMBERS:
            return Typed(tag, self.number(_NUMBERS[tag]))
        if tag == "S":
            return Typed(tag, self.longstr())
        if tag == "x":
            return Typed(tag, self.take(self.number(">I")))
        if tag == "V":
            return Typed(tag, None)
        if tag == "D":
            return Typed(tag, (self.number(">B"), self.number(">i")))
        if tag == "F":
            return Typed(tag, self.table())
        if tag == "A":
            inner = Reader(self.take(self.number(">I")))
            items = []
            while not inner.at_end:
                items.append(inner.field())
            return Typed(tag, items)
        raise ValueError(f"unknown type letter {tag!r}")


def plain(value: Any) -> Any:
    """The same value without wire types, tables and arrays included."""
    if isinstance(value, Typed):
        return plain(value.value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value

"""Method frames off the hot path: decoded into pamqp's classes, encoded from them.

pamqp's generated classes are the schema (names, order and types of the arguments). The loops are
ours, since pamqp's refuse names that RabbitMQ takes (`é`, `a=b`, more than 127 octets), forget the
wire types in tables and raise whatever comes on bad input.
"""

from __future__ import annotations

import struct
from typing import ClassVar, TypeVar, cast

from pamqp import base, commands

from broker.errors import AMQPError, ReplyCode
from broker.wire.frames import METHOD, frame
from broker.wire.table import Table, TableError, decode_table, encode_table
from exchanges.erlang import erlang_term

__all__ = [
    "Method",
    "commands",
    "decode_method",
    "encode_method",
    "make",
    "method_name",
    "shortstr",
]

Method = base.Frame
M = TypeVar("M", bound=Method)

_PUBLISH = 0x003C0028
_CONNECTION = 10
_FIXED = {"octet": ">B", "short": ">H", "long": ">L", "longlong": ">Q", "timestamp": ">Q"}
_STRUCTS = {name: struct.Struct(layout) for name, layout in _FIXED.items()}


class AccessRequest(base.Frame):
    """access.request of AMQP 0-8, which RabbitMQ still answers for old clients."""

    __slots__: ClassVar[list[str]] = ["realm", "flags"]  # noqa: RUF023  # in wire order
    frame_id = 10
    index = 0x001E000A
    name = "Access.Request"
    synchronous = True
    _realm = "shortstr"
    _flags = "octet"


class AccessRequestOk(base.Frame):
    """The answer to access.request: always ticket 1."""

    __slots__: ClassVar[list[str]] = ["ticket"]
    frame_id = 11
    index = 0x001E000B
    name = "Access.RequestOk"
    _ticket = "short"

    def __init__(self, ticket: int = 1) -> None:
        self.ticket = ticket


_CLASSES: dict[int, type[Method]] = {
    **cast("dict[int, type[Method]]", commands.INDEX_MAPPING),
    AccessRequest.index: AccessRequest,
    AccessRequestOk.index: AccessRequestOk,
}
_SCHEMAS: dict[type[Method], list[tuple[str, str]]] = {
    cls: [(name, cls.amqp_type(name)) for name in cls.__slots__] for cls in _CLASSES.values()
}


def make(cls: type[M], **arguments: object) -> M:
    """A method object without pamqp's validation of names; all arguments must be given."""
    method = cls.__new__(cls)
    for name, value in arguments.items():
        setattr(method, name, value)
    return method


def decode_method(payload: bytes) -> Method:
    """The method in the payload of a method frame.

    Tables become `broker.wire.table.Table`, long strings `bytes`, short strings `str`. Raises
    AMQPError: NOT_IMPLEMENTED for an unknown method (RabbitMQ drops the socket without a word;
    the spec wants 540), FRAME_ERROR for octets that are not the method's arguments.
    """
    index = int.from_bytes(payload[:4], "big")
    cls = _CLASSES.get(index) if len(payload) >= 4 else None
    if cls is None:
        raise AMQPError(
            ReplyCode.NOT_IMPLEMENTED,
            f"unknown method {index >> 16}.{index & 0xFFFF}",
            method_index=index,
        )
    method = cls.__new__(cls)
    try:
        _read_arguments(method, _SCHEMAS[cls], payload)
    except UnicodeDecodeError:
        raise AMQPError(ReplyCode.FRAME_ERROR, "Malformed UTF-8 in shortstr", 0) from None
    except (struct.error, IndexError, TableError):
        # What belongs to a login is not repeated, neither to the client nor in the log.
        shown = "the method's fields" if index >> 16 == _CONNECTION else erlang_term(payload[4:])
        text = f"cannot decode {shown}"
        raise AMQPError(ReplyCode.FRAME_ERROR, text, index) from None
    return method


def _read_arguments(method: Method, schema: list[tuple[str, str]], payload: bytes) -> None:
    # RabbitMQ takes any octets as a message's address, and UTF-8 alone for all other names.
    errors = "surrogateescape" if method.index == _PUBLISH else "strict"
    at, bit = 4, 0
    for name, kind in schema:
        if kind == "bit":
            if bit == 0:
                at += 1
            setattr(method, name, bool(payload[at - 1] >> bit & 1))
            bit = (bit + 1) % 8
            continue
        bit = 0
        value: object
        if kind == "shortstr":
            start, at = at + 1, at + 1 + payload[at]
            value = _slice(payload, start, at).decode("utf-8", errors)
        elif kind in ("longstr", "table"):
            start = at + 4
            at = start + int.from_bytes(_slice(payload, at, start), "big")
            raw = _slice(payload, start, at)
            value = decode_table(raw) if kind == "table" else raw
        else:
            packer = _STRUCTS[kind]
            (value,) = packer.unpack_from(payload, at)
            at += packer.size
        setattr(method, name, value)
    if at != len(payload):
        raise IndexError("octets are left over")


def _slice(payload: bytes, start: int, end: int) -> bytes:
    if end > len(payload):
        raise IndexError("the payload is cut off")
    return payload[start:end]


def encode_method(channel: int, method: Method) -> bytes:
    """A whole method frame. The opposite of `decode_method`; nothing is validated, but that
    strings fit their length octet."""
    pieces = [method.index.to_bytes(4, "big")]
    bits, used = 0, 0
    for name, kind in _SCHEMAS[type(method)]:
        value = getattr(method, name)
        if kind == "bit":
            bits |= bool(value) << used
            used += 1
            continue
        if used:
            pieces.append(bytes([bits]))
            bits, used = 0, 0
        pieces.append(_encode_argument(kind, value))
    if used:
        pieces.append(bytes([bits]))
    return frame(METHOD, channel, b"".join(pieces))


def _encode_argument(kind: str, value: object) -> bytes:
    if kind == "shortstr":
        return shortstr(cast(str, value))
    if kind == "longstr":
        raw = value.encode() if isinstance(value, str) else cast(bytes, value)
        return len(raw).to_bytes(4, "big") + raw
    if kind == "table":
        return encode_table(cast(Table, value or {}))
    return _STRUCTS[kind].pack(value)


def shortstr(text: str) -> bytes:
    """A short string: one octet of length, UTF-8. Raises ValueError above 255 octets."""
    raw = text.encode("utf-8", "surrogateescape")
    return bytes([len(raw)]) + raw


def method_name(index: int) -> str:
    """`queue.declare` for 0x0032000A."""
    cls = _CLASSES.get(index)
    return str(cls.name).lower() if cls else f"{index >> 16}.{index & 0xFFFF}"

"""The methods of AMQP 0-9-1 with RabbitMQ's extensions, as octets.

A codec of its own rather than a library's: a library refuses names, values and flags that a
scenario wants to send, and a fault shared with the broker under test would stay hidden.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from conformance.fields import (
    Reader,
    Typed,
    encode_longstr,
    encode_shortstr,
    encode_table,
    octets,
    plain,
)

_TABLE = """
connection.start 10 10 version_major:octet version_minor:octet server_properties:table
    mechanisms:longstr locales:longstr
connection.start-ok 10 11 client_properties:table mechanism:shortstr response:longstr
    locale:shortstr
connection.secure 10 20 challenge:longstr
connection.secure-ok 10 21 response:longstr
connection.tune 10 30 channel_max:short frame_max:long heartbeat:short
connection.tune-ok 10 31 channel_max:short frame_max:long heartbeat:short
connection.open 10 40 virtual_host:shortstr capabilities:shortstr insist:bit
connection.open-ok 10 41 known_hosts:shortstr
connection.close 10 50 reply_code:short reply_text:shortstr class_id:short method_id:short
connection.close-ok 10 51
connection.blocked 10 60 reason:shortstr
connection.unblocked 10 61
connection.update-secret 10 70 new_secret:longstr reason:shortstr
connection.update-secret-ok 10 71
channel.open 20 10 out_of_band:shortstr
channel.open-ok 20 11 channel_id:longstr
channel.flow 20 20 active:bit
channel.flow-ok 20 21 active:bit
channel.close 20 40 reply_code:short reply_text:shortstr class_id:short method_id:short
channel.close-ok 20 41
access.request 30 10 realm:shortstr exclusive:bit passive:bit active:bit write:bit read:bit
access.request-ok 30 11 ticket:short
exchange.declare 40 10 ticket:short exchange:shortstr type:shortstr passive:bit durable:bit
    auto_delete:bit internal:bit nowait:bit arguments:table
exchange.declare-ok 40 11
exchange.delete 40 20 ticket:short exchange:shortstr if_unused:bit nowait:bit
exchange.delete-ok 40 21
exchange.bind 40 30 ticket:short destination:shortstr source:shortstr routing_key:shortstr
    nowait:bit arguments:table
exchange.bind-ok 40 31
exchange.unbind 40 40 ticket:short destination:shortstr source:shortstr routing_key:shortstr
    nowait:bit arguments:table
exchange.unbind-ok 40 51
queue.declare 50 10 ticket:short queue:shortstr passive:bit durable:bit exclusive:bit
    auto_delete:bit nowait:bit arguments:table
queue.declare-ok 50 11 queue:shortstr message_count:long consumer_count:long
queue.bind 50 20 ticket:short queue:shortstr exchange:shortstr routing_key:shortstr nowait:bit
    arguments:table
queue.bind-ok 50 21
queue.purge 50 30 ticket:short queue:shortstr nowait:bit
queue.purge-ok 50 31 message_count:long
queue.delete 50 40 ticket:short queue:shortstr if_unused:bit if_empty:bit nowait:bit
queue.delete-ok 50 41 message_count:long
queue.unbind 50 50 ticket:short queue:shortstr exchange:shortstr routing_key:shortstr
    arguments:table
queue.unbind-ok 50 51
basic.qos 60 10 prefetch_size:long prefetch_count:short global_:bit
basic.qos-ok 60 11
basic.consume 60 20 ticket:short queue:shortstr consumer_tag:shortstr no_local:bit no_ack:bit
    exclusive:bit nowait:bit arguments:table
basic.consume-ok 60 21 consumer_tag:shortstr
basic.cancel 60 30 consumer_tag:shortstr nowait:bit
basic.cancel-ok 60 31 consumer_tag:shortstr
basic.publish 60 40 ticket:short exchange:shortstr routing_key:shortstr mandatory:bit
    immediate:bit
basic.return 60 50 reply_code:short reply_text:shortstr exchange:shortstr routing_key:shortstr
basic.deliver 60 60 consumer_tag:shortstr delivery_tag:longlong redelivered:bit
    exchange:shortstr routing_key:shortstr
basic.get 60 70 ticket:short queue:shortstr no_ack:bit
basic.get-ok 60 71 delivery_tag:longlong redelivered:bit exchange:shortstr routing_key:shortstr
    message_count:long
basic.get-empty 60 72 cluster_id:shortstr
basic.ack 60 80 delivery_tag:longlong multiple:bit
basic.reject 60 90 delivery_tag:longlong requeue:bit
basic.recover-async 60 100 requeue:bit
basic.recover 60 110 requeue:bit
basic.recover-ok 60 111
basic.nack 60 120 delivery_tag:longlong multiple:bit requeue:bit
confirm.select 85 10 nowait:bit
confirm.select-ok 85 11
tx.select 90 10
tx.select-ok 90 11
tx.commit 90 20
tx.commit-ok 90 21
tx.rollback 90 30
tx.rollback-ok 90 31
"""

_PROPERTIES = (
    ("content_type", "shortstr"),
    ("content_encoding", "shortstr"),
    ("headers", "table"),
    ("delivery_mode", "octet"),
    ("priority", "octet"),
    ("correlation_id", "shortstr"),
    ("reply_to", "shortstr"),
    ("expiration", "shortstr"),
    ("message_id", "shortstr"),
    ("timestamp", "longlong"),
    ("type", "shortstr"),
    ("user_id", "shortstr"),
    ("app_id", "shortstr"),
    ("cluster_id", "shortstr"),
)

_LAYOUTS = {"octet": ">B", "short": ">H", "long": ">I", "longlong": ">Q"}
_DEFAULTS: dict[str, Any] = {"shortstr": "", "longstr": "", "table": {}}


@dataclass(frozen=True, slots=True)
class Layout:
    """What a method looks like on the wire."""

    name: str
    class_id: int
    method_id: int
    fields: tuple[tuple[str, str], ...]


def _read_layouts() -> dict[str, Layout]:
    found = {}
    for line in _TABLE.replace("\n    ", " ").strip().splitlines():
        name, class_id, method_id, *fields = line.split()
        pairs = tuple((pair.split(":")[0], pair.split(":")[1]) for pair in fields)
        found[name] = Layout(name, int(class_id), int(method_id), pairs)
    return found


LAYOUTS = _read_layouts()
BY_ID = {(layout.class_id, layout.method_id): layout for layout in LAYOUTS.values()}
WITH_CONTENT = frozenset({"basic.publish", "basic.return", "basic.deliver", "basic.get-ok"})


@dataclass(slots=True)
class Content:
    """A content header's payload as it came, and the body.

    `body_frames` holds the sizes of the body frames it came in.
    """

    header: bytes
    body: bytes
    body_frames: list[int] = field(default_factory=list)

    @property
    def typed_properties(self) -> dict[str, Any]:
        """Properties; header values keep their wire types (see `fields.Typed`)."""
        return decode_properties(self.header)

    @property
    def properties(self) -> dict[str, Any]:
        """Properties as plain values; those that were not sent are missing."""
        return {name: plain(value) for name, value in self.typed_properties.items()}

    @property
    def headers(self) -> dict[str, Any]:
        """The headers table as plain values, empty if there was none."""
        headers: dict[str, Any] = self.properties.get("headers", {})
        return headers

    @property
    def typed_headers(self) -> dict[str, Typed]:
        """The headers table with wire types, empty if there was none."""
        headers: dict[str, Typed] = self.typed_properties.get("headers", {})
        return headers

    @property
    def property_octets(self) -> bytes:
        """Property flags and list, octet for octet as they came."""
        return self.header[12:]


@dataclass(slots=True)
class Method:
    """A method that the broker sent, with its content if it carries one."""

    name: str
    fields: dict[str, Any]
    content: Content | None = None

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]

    @property
    def body(self) -> bytes:
        """The body of the content; raises ValueError if the method carries none."""
        return self.message.body

    @property
    def message(self) -> Content:
        """The content; raises ValueError if the method carries none."""
        if self.content is None:
            raise ValueError(f"{self.name} carries no content")
        return self.content

    def __str__(self) -> str:
        shown = ", ".join(f"{name}={plain(value)!r}" for name, value in self.fields.items())
        return f"{self.name}({shown})"


def encode_method(name: str, **values: Any) -> bytes:
    """Payload of a method frame; fields not named are 0, false or empty.

    Raises TypeError for a field that the method does not have.
    """
    layout = LAYOUTS[name]
    unknown = set(values) - {field_name for field_name, _ in layout.fields}
    if unknown:
        raise TypeError(f"{name} has no field {sorted(unknown)}")
    out = [struct.pack(">HH", layout.class_id, layout.method_id)]
    bits: list[bool] = []
    for field_name, kind in layout.fields:
        if kind == "bit":
            bits.append(bool(values.get(field_name, False)))
            continue
        out.append(_pack_bits(bits))
        bits = []
        out.append(_encode_value(kind, values.get(field_name, _DEFAULTS.get(kind, 0))))
    out.append(_pack_bits(bits))
    return b"".join(out)


def _pack_bits(bits: list[bool]) -> bytes:
    return bytes([sum(1 << n for n, bit in enumerate(bits) if bit)]) if bits else b""


def _encode_value(kind: str, value: Any) -> bytes:
    if kind == "shortstr":
        return encode_shortstr(value)
    if kind == "longstr":
        return encode_longstr(value)
    if kind == "table":
        return encode_table(value)
    return struct.pack(_LAYOUTS[kind], value)


def _decode_value(kind: str, reader: Reader) -> Any:
    if kind == "shortstr":
        return reader.shortstr()
    if kind == "longstr":
        return reader.longstr()
    if kind == "table":
        return reader.table()
    return reader.number(_LAYOUTS[kind])


def decode_method(payload: bytes) -> Method:
    """A method from the payload of its frame; tables keep their wire types.

    Raises ValueError if it is malformed.
    """
    reader = Reader(payload)
    ids = (reader.number(">H"), reader.number(">H"))
    if ids not in BY_ID:
        raise ValueError(f"unknown method {ids}")
    layout = BY_ID[ids]
    values: dict[str, Any] = {}
    bit = 8
    octet = 0
    for name, kind in layout.fields:
        if kind != "bit":
            bit = 8
            values[name] = _decode_value(kind, reader)
            continue
        if bit == 8:
            octet, bit = reader.number(">B"), 0
        values[name] = bool(octet >> bit & 1)
        bit += 1
    if not reader.at_end:
        raise ValueError(f"{layout.name} has {len(payload) - reader.offset} octets too many")
    return Method(layout.name, values)


def encode_properties(properties: Mapping[str, Any]) -> bytes:
    """Property flags and property list of a content header."""
    unknown = set(properties) - {name for name, _ in _PROPERTIES}
    if unknown:
        raise TypeError(f"no property {sorted(unknown)}")
    flags = 0
    out = b""
    for position, (name, kind) in enumerate(_PROPERTIES):
        if name in properties:
            flags |= 1 << (15 - position)
            out += _encode_value(kind, properties[name])
    return struct.pack(">H", flags) + out


def encode_header(
    size: int, properties: Mapping[str, Any] | bytes = b"\0\0", class_id: int = 60
) -> bytes:
    """Payload of a content header frame; `properties` may be the octets of flags and list."""
    raw = properties if isinstance(properties, bytes) else encode_properties(properties)
    return struct.pack(">HHQ", class_id, 0, size) + raw


def decode_properties(header: bytes) -> dict[str, Any]:
    """Properties of a content header's payload, table values with their wire types."""
    reader = Reader(header, 12)
    flags = reader.number(">H")
    found: dict[str, Any] = {}
    for position, (name, kind) in enumerate(_PROPERTIES):
        if flags & 1 << (15 - position):
            found[name] = _decode_value(kind, reader)
    return found


def body_size(header: bytes) -> int:
    """The body size that a content header announces."""
    size: int = struct.unpack_from(">Q", header, 4)[0]
    return size


def encode_frame(kind: int, channel: int, payload: str | bytes, end: int = 0xCE) -> bytes:
    """A whole frame: type, channel, size, payload, frame end."""
    raw = octets(payload)
    return struct.pack(">BHI", kind, channel, len(raw)) + raw + bytes([end])

"""Properties and header tables reach the consumer bit for bit.

What is compared are the octets of flags and property list, so that no codec can hide a change.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence
from typing import Any

from conformance import fields
from conformance.failure import check_equal
from conformance.fields import encode_longstr, encode_shortstr, encode_table
from conformance.methods import encode_header, encode_properties
from conformance.registry import deviation, scenario
from conformance.session import Session

_HEADERS = 0x2000


def _headers(entries: bytes) -> bytes:
    """Property flags and list that hold nothing but a header table with these entries."""
    return struct.pack(">H", _HEADERS) + encode_longstr(entries)


def _entry(name: bytes, type_and_value: bytes) -> bytes:
    return encode_shortstr(name) + type_and_value


def _check_kept(s: Session, lists: Sequence[bytes]) -> None:
    """Messages with these flags and property lists are delivered and fetched unchanged."""
    channel, consumer = s.channel(), s.channel()
    exchange = s.exchange(channel, "fanout")
    polled, consumed = s.queue(channel), s.queue(channel)
    channel.bind(polled, exchange)
    channel.bind(consumed, exchange)
    consumer.consume(consumed, no_ack=True)
    for raw in lists:
        channel.publish(b"body", exchange, properties=raw)
        delivery = consumer.expect_delivery(b"body")
        check_equal(delivery.message.property_octets, raw, "properties of basic.deliver")
        check_equal(delivery.message.header[:4], b"\0\x3c\0\0", "class and weight")
        channel.send("basic.get", queue=polled, no_ack=True)
        got = channel.expect("basic.get-ok")
        check_equal(got.message.property_octets, raw, "properties of basic.get-ok")


@scenario("content.properties", covers=["rule:header-kept"])
def every_property_is_kept(s: Session) -> None:
    everything: dict[str, Any] = {
        "content_type": "application/json",
        "content_encoding": "gzip",
        "headers": {"a": 1, "b": "two"},
        "delivery_mode": 2,
        "priority": 9,
        "correlation_id": "c" * 255,
        "reply_to": "reply é",
        "expiration": "100000",
        "message_id": "m",
        "timestamp": 1_700_000_000,
        "type": "t",
        "user_id": s.address.user,
        "app_id": "a",
        "cluster_id": "k",
    }
    each = [encode_properties({name: value}) for name, value in everything.items()]
    _check_kept(s, [encode_properties({}), encode_properties(everything), *each])


@scenario("content.properties.limits", covers=["rule:header-kept"])
def properties_at_their_limits_are_kept(s: Session) -> None:
    limits: list[dict[str, Any]] = [
        {"timestamp": 2**64 - 1},
        {"timestamp": 0},
        {"timestamp": 253_402_300_800},
        {"priority": 255},
        {"priority": 0},
        {"headers": {}},
        {"content_type": "", "correlation_id": "", "message_id": "", "app_id": ""},
        {"content_type": b"\xff\xfe", "message_id": b"\x80\x00\xc3", "type": b"\n"},
    ]
    _check_kept(s, [encode_properties(properties) for properties in limits])


@scenario("content.headers.types", covers=["rule:header-kept"])
def every_type_of_header_value_is_kept(s: Session) -> None:
    values: list[Any] = [
        *(fields.boolean(value) for value in (True, False)),
        *(fields.byte(value) for value in (-128, 0, 127)),
        *(fields.unsignedbyte(value) for value in (0, 255)),
        *(fields.short(value) for value in (-(2**15), 5, 2**15 - 1)),
        *(fields.unsignedshort(value) for value in (0, 2**16 - 1)),
        *(fields.signedint(value) for value in (-(2**31), 5, 2**31 - 1)),
        *(fields.unsignedint(value) for value in (0, 2**32 - 1)),
        *(fields.long(value) for value in (-(2**63), 5, 2**63 - 1)),
        *(fields.float32(value) for value in (0.0, -0.0, 1.5, 2.0**-149)),
        *(fields.double(value) for value in (0.0, -0.0, 0.1, 1e308, 5e-324)),
        *(fields.timestamp(value) for value in (0, 253_402_300_800, 2**64 - 1)),
        *(fields.decimal(scale, value) for scale, value in ((0, 0), (2, 314), (255, -(2**31)))),
        *(fields.longstr(value) for value in ("", "text é", b"\xff\xfe\x00", b"x" * 70_000)),
        *(fields.byte_array(value) for value in (b"", b"\x00\xff")),
        fields.void(),
        {},
        {"a": {"b": [{"c": fields.short(1)}]}},
        [],
        [fields.byte(1), [fields.void(), "two"], {"three": fields.double(3.0)}],
    ]
    _check_kept(s, [encode_properties({"headers": {"value": value}}) for value in values])
    table = {f"value {number}": value for number, value in enumerate(values)}
    _check_kept(s, [encode_properties({"headers": table, "message_id": "after"})])


@scenario("content.headers.names", covers=["rule:header-kept"])
def names_order_and_repetitions_in_a_table_are_kept(s: Session) -> None:
    one = b"I\0\0\0\x01"
    tables = [
        [b"z", b"a", b"m"],
        [b"same", b"same", b"Same"],
        [b"", b"n" * 255, "é☃".encode(), b"\xff\xfe"],
        [b"x-death", b"x-first-death-queue", b"x-delivery-count"],
    ]
    _check_kept(s, [_headers(b"".join(_entry(name, one) for name in names)) for names in tables])


@scenario("content.headers.odd-octets", covers=["rule:header-kept"])
def octets_that_a_codec_would_not_write_are_kept(s: Session) -> None:
    nested = encode_table({"a": fields.boolean(True)}).replace(b"t\x01", b"t\x07")
    _check_kept(
        s,
        [
            _headers(_entry(b"true", b"t\x02") + _entry(b"true", b"t\xff")),
            _headers(_entry(b"long", b"L\0\0\0\0\0\0\0\x05")),
            _headers(_entry(b"table", b"F" + nested)),
            _headers(
                _entry(b"array", b"A" + encode_longstr(b"t\x09L\xff\xff\xff\xff\xff\xff\xff\xfe"))
            ),
            _headers(_entry(b"decimal", b"D\xff\x80\0\0\0")),
        ],
    )


@scenario(
    "content.headers.no-number",
    covers=["rule:header-kept"],
    deviations=[
        deviation("rabbitmq", "has no such floats: the channel's process dies, 541 without a text")
    ],
)
def infinities_and_nan_are_kept(s: Session) -> None:
    floats = [
        *(b"d" + struct.pack(">d", value) for value in (math.inf, -math.inf, math.nan)),
        *(b"f" + struct.pack(">f", value) for value in (math.inf, -math.inf, math.nan)),
        b"d\x7f\xf8\0\0\0\0\0\x01",
    ]
    lists = [_headers(_entry(b"value", octets)) for octets in floats]
    if not s.deviates:
        _check_kept(s, lists)
        return
    for raw in lists:
        channel = s.channel()
        channel.publish(b"m", routing_key=s.queue(channel), properties=raw)
        channel.connection.expect_close(541, "INTERNAL_ERROR")


@scenario("content.headers.deep", covers=["rule:header-kept"])
def nested_tables_and_arrays_are_kept(s: Session) -> None:
    table: Any = {"end": fields.short(1)}
    array: Any = [fields.short(1)]
    for depth in range(50):
        table = {f"level {depth}": table, "beside": depth}
        array = [depth, array]
    _check_kept(s, [encode_properties({"headers": {"table": table, "array": array}})])


@scenario("content.headers.large", covers=["rule:header-kept"])
def a_header_table_of_a_whole_frame_is_kept(s: Session) -> None:
    table = {f"header {number:05}": fields.unsignedint(number) for number in range(7000)}
    raw = encode_properties({"headers": table})
    check_equal(125_000 < len(raw) < 131_000, True, "the table fits into one frame")
    _check_kept(s, [raw])


@scenario("content.headers.bcc", covers=["rule:header-kept", "rule:sender-selected"])
def taking_bcc_out_leaves_the_other_headers_untouched(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    others: dict[str, Any] = {
        "first": fields.decimal(2, 5),
        "CC": ["nowhere"],
        "second": [fields.byte(-1), fields.timestamp(2**40), None, {"BCC": ["kept"]}],
        "third": b"\xff\x00",
    }
    around: dict[str, Any] = {"content_type": "t", "message_id": "m", "cluster_id": "k"}
    expected = encode_properties(around | {"headers": others})
    for position in range(len(others) + 1):
        entries = list(others.items())
        entries.insert(position, ("BCC", ["nowhere", "nobody"]))
        raw = encode_properties(around | {"headers": dict(entries)})
        channel.publish(b"m", routing_key=queue, properties=raw)
    for _ in range(len(others) + 1):
        channel.send("basic.get", queue=queue, no_ack=True)
        got = channel.expect("basic.get-ok")
        check_equal(got.message.property_octets, expected, "properties")
    channel.publish(b"m", routing_key=queue, properties={"headers": {"BCC": ["nowhere"]}})
    channel.send("basic.get", queue=queue, no_ack=True)
    got = channel.expect("basic.get-ok")
    check_equal(got.message.property_octets, encode_properties({"headers": {}}), "properties")


@scenario(
    "content.malformed",
    covers=["error:malformed-properties"],
    deviations=[
        deviation("rabbitmq", "the channel's process dies: 541, with neither text nor method")
    ],
)
def a_malformed_property_list_ends_the_connection(s: Session) -> None:
    malformed = {
        "content_type missing": b"\x80\x00",
        "timestamp cut": b"\x00\x40\0\0\0",
        "short string cut": b"\x80\x00\x10abc",
        "octets left": b"\x80\x00\x03abcX",
        "octets without flags": b"\x00\x00X",
        "table cut": b"\x20\x00" + struct.pack(">I", 100) + b"\x01aI",
        "value beyond its table": _headers(b"\x01aI\0\0"),
        "name beyond its table": _headers(b"\x09aI"),
        "unknown type": _headers(b"\x01aZ\0\0\0\0"),
        "array value cut": _headers(_entry(b"a", b"A" + encode_longstr(b"I\0\0"))),
        "nested table cut": _headers(_entry(b"a", b"F" + encode_longstr(b"\x05ab"))),
    }
    queue = s.queue(s.channel())
    for raw in malformed.values():
        channel = s.channel()
        channel.publish(b"m", routing_key=queue, properties=raw)
        if s.deviates:
            channel.connection.expect_close(541, "INTERNAL_ERROR")
        else:
            text = re.compile(r"SYNTAX_ERROR - .+")
            channel.connection.expect_close(502, text, "basic.publish")
    check_equal(s.channel().get_all(queue), [], "messages")


@scenario(
    "content.unknown-flags",
    covers=["error:malformed-properties"],
    deviations=[
        deviation(
            "rabbitmq",
            "forwards flags of properties that do not exist; clients read on after the first flag",
        )
    ],
)
def flags_of_properties_that_do_not_exist_are_refused(s: Session) -> None:
    for flags in (0x8001, 0x8002, 0x8003):
        channel = s.channel()
        queue = s.queue(channel)
        raw = struct.pack(">H", flags) + encode_shortstr("text/plain")
        channel.publish(b"m", routing_key=queue, properties=raw)
        if not s.deviates:
            text = re.compile(r"SYNTAX_ERROR - .+")
            channel.connection.expect_close(502, text, "basic.publish")
            continue
        channel.send("basic.get", queue=queue, no_ack=True)
        got = channel.expect("basic.get-ok")
        check_equal(got.message.property_octets, raw, "properties")


@scenario("content.weight", covers=["error:header-weight"])
def a_content_header_with_a_weight_is_no_content_header(s: Session) -> None:
    for weight in (b"\x00\x01", b"\xff\xff"):
        channel = s.channel()
        channel.send("basic.publish", routing_key=s.queue(channel))
        header = encode_header(1)
        channel.connection.send_frame(2, channel.number, header[:2] + weight + header[4:])
        text = (
            "UNEXPECTED_FRAME - expected content header for class 60, "
            "got non content header frame instead"
        )
        channel.connection.expect_close(505, text, "basic.publish")

"""Frames: order, size, end octet, type, and methods that cannot be decoded."""

from __future__ import annotations

import struct
from collections.abc import Callable

from conformance.channel import Channel
from conformance.client import BODY, HEADER, HEARTBEAT, METHOD, Connection
from conformance.failure import check_equal
from conformance.fields import octets
from conformance.methods import encode_frame, encode_header, encode_method
from conformance.registry import deviation, scenario
from conformance.session import Session

_NO_HEADER = (
    "UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead"
)
_NO_BODY = "UNEXPECTED_FRAME - expected content body, got non content body frame instead"
_NO_METHOD = "UNEXPECTED_FRAME - expected method frame, got non method frame instead"
_WAITS_ON = "3.10 does not compare the two and waits for more"


def _publishing(s: Session, size: int | None = None) -> tuple[Connection, Channel]:
    connection = s.connect()
    channel = connection.channel()
    channel.send("basic.publish", routing_key=s.name("nowhere"))
    if size is not None:
        connection.send_frame(HEADER, 1, encode_header(size))
    return connection, channel


@scenario("framing.header-expected", covers=["error:header-expected-got-method"])
def anything_but_a_header_after_publish_is_unexpected(s: Session) -> None:
    for kind, payload in ((METHOD, encode_method("basic.qos")), (BODY, b"body")):
        connection, _ = _publishing(s)
        connection.send_frame(kind, 1, payload)
        connection.expect_close(505, _NO_HEADER, "basic.publish")


@scenario("framing.header-of-other-class", covers=["error:header-of-other-class"])
def a_header_of_another_class_is_unexpected(s: Session) -> None:
    connection, _ = _publishing(s)
    connection.send_frame(HEADER, 1, encode_header(0, class_id=50))
    text = "UNEXPECTED_FRAME - expected content header for class 60, got one for class 50 instead"
    connection.expect_close(505, text, "basic.publish")


@scenario("framing.body-expected", covers=["error:body-expected"])
def anything_but_a_body_after_a_header_is_unexpected(s: Session) -> None:
    for kind, payload in ((METHOD, encode_method("basic.qos")), (HEADER, encode_header(4))):
        connection, _ = _publishing(s, 4)
        connection.send_frame(kind, 1, payload)
        connection.expect_close(505, _NO_BODY, "basic.publish")


@scenario("framing.method-expected", covers=["error:method-expected"])
def content_without_a_method_is_unexpected(s: Session) -> None:
    for kind, payload in ((BODY, b"body"), (HEADER, encode_header(4))):
        connection = s.connect()
        connection.channel()
        connection.send_frame(kind, 1, payload)
        connection.expect_close(505, _NO_METHOD)
    connection, _ = _publishing(s, 0)
    connection.send_frame(BODY, 1, b"")
    connection.expect_close(505, _NO_METHOD)


@scenario("framing.heartbeat-on-channel", covers=["error:heartbeat-on-channel"])
def heartbeats_belong_to_channel_0(s: Session) -> None:
    for channel in (1, 9):
        connection = s.connect()
        connection.channel(1)
        connection.send_frame(HEARTBEAT, channel, b"")
        connection.expect_close(505, "UNEXPECTED_FRAME - type 8, all octets = <<>>")


@scenario("framing.content-on-channel-0", covers=["error:content-on-channel-0"])
def content_on_channel_0_is_unexpected(s: Session) -> None:
    header = "type 2, all octets = <<0,60,0,0,0,0,0,0,0,0,0,4,0,0>>"
    for kind, payload, shown in (
        (HEADER, encode_header(4), header),
        (BODY, b"", "type 3, all octets = <<>>"),
        (BODY, b"0123456789abcdefghi", 'type 3, first 16 octets = <<"0123456789abcdef">>'),
    ):
        connection = s.connect()
        connection.send_frame(kind, 0, payload)
        connection.expect_close(505, f"UNEXPECTED_FRAME - {shown}")


@scenario("framing.channel-before-open", covers=["error:channel-frame-before-open"])
def a_channels_frame_before_connection_open_is_unexpected(s: Session) -> None:
    connection = s.dial()
    connection.start()
    connection.start_ok()
    connection.tune_ok()
    connection.send_frame(METHOD, 1, encode_method("channel.open"))
    connection.expect_close(505, "UNEXPECTED_FRAME - type 1, all octets = <<0,20,0,10,0>>")


@scenario(
    "framing.body-too-long",
    covers=["error:body-too-long"],
    deviations=[deviation("rabbitmq", _WAITS_ON)],
)
def a_body_longer_than_announced_is_refused(s: Session) -> None:
    for pieces in ([b"12345"], [b"123", b"45"]):
        connection, channel = _publishing(s, 4)
        for piece in pieces:
            connection.send_frame(BODY, 1, piece)
        if s.deviates:
            channel.send("basic.qos")
            connection.expect_close(505, _NO_BODY, "basic.publish")
        else:
            text = "FRAME_ERROR - content body frame exceeds remaining content size"
            connection.expect_close(501, text, "basic.publish")


@scenario(
    "framing.body-size-too-large",
    covers=["error:body-size-too-large"],
    deviations=[deviation("rabbitmq", "3.10 has no such limit and waits for the body")],
)
def an_announced_size_beyond_reason_is_refused_at_once(s: Session) -> None:
    for size in (536870913, 2**60, 2**64 - 1):
        connection, channel = _publishing(s, size)
        if s.deviates:
            channel.send("basic.qos")
            connection.expect_close(505, _NO_BODY, "basic.publish")
        else:
            text = f"FRAME_ERROR - content body size {size} exceeds maximum allowed size 536870912"
            connection.expect_close(501, text, "basic.publish")


@scenario("framing.frame-too-large", covers=["error:frame-too-large"], slow=True)
def a_frame_over_frame_max_is_refused_by_its_header(s: Session) -> None:
    for kind, size, frame_max in (
        (BODY, 200000, 131072),
        (METHOD, 2**32 - 1, 131072),
        (BODY, 131073, 131072),
        (BODY, 4097, 4096),
    ):
        connection = s.connect(frame_max=frame_max)
        connection.channel()
        connection.send_raw(struct.pack(">BHI", kind, 1, size))
        text = (
            f"FRAME_ERROR - type {kind}, all octets = <<>>:"
            f" {{frame_too_large,{size},{frame_max - 8}}}"
        )
        connection.channel0.expect_closing("connection.close", 501, text, None)


@scenario("framing.frame-max-reached", covers=["rule:frame-max-kept"])
def a_frame_may_be_as_large_as_frame_max_and_a_little_more(s: Session) -> None:
    # Eight octets more are forgiven: clients that forget the frame's own octets are common.
    for size in (131064, 131065, 131072):
        channel = s.channel()
        queue = s.queue(channel)
        body = b"x" * size
        channel.publish(body, routing_key=queue, body_frame_size=size)
        check_equal(channel.get_all(queue), [body], "bodies")


@scenario("framing.frame-too-large.handshake", covers=["error:frame-too-large"], slow=True)
def before_login_frames_are_small(s: Session) -> None:
    failing = []
    for size in (10000, 2**31, 2**32 - 1):
        connection = s.dial()
        connection.start()
        connection.send_raw(struct.pack(">BHI", METHOD, 0, size))
        failing.append(connection)
    for connection in failing:
        connection.expect_end(8)


@scenario("framing.bad-frame-end", covers=["error:bad-frame-end"], slow=True)
def a_wrong_frame_end_is_refused(s: Session) -> None:
    cases: list[tuple[int, int, bytes, int, str]] = [
        (METHOD, 1, encode_method("channel.flow", active=True), 0, "<<0,20,0,20,1>>"),
        (HEARTBEAT, 0, b"", 0xCF, "<<>>"),
    ]
    for kind, channel, payload, end, shown in cases:
        connection = s.connect()
        connection.channel()
        connection.send_frame(kind, channel, payload, end)
        text = (
            f"FRAME_ERROR - type {kind}, all octets = {shown}: {{invalid_frame_end_marker,{end}}}"
        )
        connection.channel0.expect_closing("connection.close", 501, text, None)
    connection, _ = _publishing(s, 4)
    connection.send_frame(BODY, 1, b"1234", 0x41)
    text = 'FRAME_ERROR - type 3, all octets = <<"1234">>: {invalid_frame_end_marker,65}'
    connection.channel0.expect_closing("connection.close", 501, text, None)


@scenario("framing.unknown-type", covers=["error:unknown-frame-type"])
def unknown_frame_types_are_refused(s: Session) -> None:
    for kind, channel, payload, shown in (
        (9, 1, b"hello", '<<"hello">>'),
        (0, 0, b"", "<<>>"),
        (4, 0, b"\x00\x01", "<<0,1>>"),
        (HEARTBEAT, 0, b"abc", '<<"abc">>'),
    ):
        connection = s.connect()
        connection.channel()
        connection.send_frame(kind, channel, payload)
        text = f"FRAME_ERROR - type {kind}, all octets = {shown}: unknown_frame"
        connection.expect_close(501, text)


@scenario("framing.short-payload", covers=["error:unknown-frame-type"])
def a_payload_too_short_for_its_type_is_an_unknown_frame(s: Session) -> None:
    for payload, shown in ((b"", "<<>>"), (b"\x00\x3c\x00", "<<0,60,0>>")):
        connection = s.connect()
        connection.channel()
        connection.send_frame(METHOD, 1, payload)
        text = f"FRAME_ERROR - type 1, all octets = {shown}: unknown_frame"
        connection.expect_close(501, text)
    connection, _ = _publishing(s)
    connection.send_frame(HEADER, 1, b"\x00\x3c\x00\x00")
    connection.expect_close(501, "FRAME_ERROR - type 2, all octets = <<0,60,0,0>>: unknown_frame")


@scenario("framing.undecodable-method", covers=["error:undecodable-method"])
def fields_that_do_not_fit_are_refused(s: Session) -> None:
    cut_table = encode_method("queue.declare", queue="q")[:-4] + b"\x00\x00\x00\xff"
    for payload, method, shown in (
        (b"\x00\x32\x00\x0a\x00\x00", "queue.declare", "<<0,0>>"),
        (encode_method("basic.qos") + b"zz", "basic.qos", "<<0,0,0,0,0,0,0,122,122>>"),
        (cut_table, "queue.declare", "<<0,0,1,113,0,0,0,0,255>>"),
    ):
        connection = s.connect()
        connection.channel()
        connection.send_frame(METHOD, 1, payload)
        connection.expect_close(501, f"FRAME_ERROR - cannot decode {shown}", method)


@scenario("framing.shortstr-not-utf8", covers=["error:shortstr-not-utf8"])
def short_strings_that_are_not_utf8_are_refused(s: Session) -> None:
    for name, fields in (
        ("queue.declare", {"queue": b"\xff\xfe"}),
        ("exchange.declare", {"exchange": b"a\xc3", "type": "direct"}),
        ("basic.consume", {"queue": "q", "consumer_tag": b"\xff"}),
        ("basic.cancel", {"consumer_tag": b"\xff"}),
        ("queue.bind", {"queue": "q", "exchange": "amq.direct", "routing_key": b"\xff"}),
        ("channel.close", {"reply_text": b"\xff"}),
    ):
        connection = s.connect()
        connection.channel().send(name, **fields)
        connection.expect_close(501, "FRAME_ERROR - Malformed UTF-8 in shortstr")


@scenario("framing.publish-not-utf8", covers=["method:basic.publish"])
def keys_and_properties_of_a_message_need_not_be_utf8(s: Session) -> None:
    channel = s.channel()
    queue, exchange = s.queue(channel), s.exchange(channel, "fanout")
    channel.bind(queue, exchange)
    channel.publish(b"x", exchange, b"k\xff", properties={"content_type": b"\xfe"})
    channel.settle(queue)
    channel.consume(queue, no_ack=True)
    delivery = channel.expect_delivery(b"x")
    check_equal(octets(delivery["routing_key"]), b"k\xff", "routing key")
    check_equal(octets(delivery.message.properties["content_type"]), b"\xfe", "content type")


@scenario("framing.unimplemented-method", covers=["error:unimplemented-method"])
def methods_that_only_brokers_send_are_refused(s: Session) -> None:
    for name in (
        "queue.declare-ok",
        "exchange.declare-ok",
        "basic.get-empty",
        "basic.consume-ok",
        "basic.cancel-ok",
        "basic.qos-ok",
        "channel.open-ok",
        "channel.flow-ok",
        "channel.close-ok",
        "confirm.select-ok",
        "tx.select-ok",
    ):
        connection = s.connect()
        connection.channel().send(name)
        connection.expect_close(503, "COMMAND_INVALID - unimplemented method", name)


@scenario(
    "framing.unknown-method",
    covers=["error:unknown-method"],
    deviations=[deviation("rabbitmq", "drops the socket without a frame")],
)
def unknown_methods_and_classes_are_not_implemented(s: Session) -> None:
    for ids in ((50, 99), (99, 10)):
        connection = s.connect()
        connection.channel()
        connection.send_frame(METHOD, 1, struct.pack(">HH", *ids))
        if s.deviates:
            connection.expect_end()
        else:
            closed = connection.channel0.expect("connection.close")
            check_equal(closed["reply_code"] in (503, 540), True, f"reply code of {closed}")
            check_equal((closed["class_id"], closed["method_id"]), ids, "class and method id")


@scenario("framing.interleaved", covers=["method:basic.publish"])
def channels_and_heartbeats_may_come_between_the_frames_of_a_message(s: Session) -> None:
    connection = s.connect()
    first, second = connection.channel(), connection.channel()
    queue = s.queue(first)
    between: list[Callable[[], object]] = [
        lambda: second.call("channel.flow", active=True),
        connection.send_heartbeat,
        lambda: second.publish(b"whole", routing_key=queue),
        lambda: second.settle(queue),
    ]
    first.send("basic.publish", routing_key=queue)
    for step in between:
        step()
    connection.send_frame(HEADER, 1, encode_header(6))
    connection.send_frame(BODY, 1, b"abc")
    for step in between:
        step()
    connection.send_frame(BODY, 1, b"")
    connection.send_frame(BODY, 1, b"def")
    check_equal(first.get_all(queue), [b"whole", b"whole", b"abcdef"], "bodies")


@scenario("framing.octet-by-octet", covers=["method:basic.publish"])
def frames_may_come_octet_by_octet(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    frames = (
        encode_frame(METHOD, 1, encode_method("basic.publish", routing_key=queue))
        + encode_frame(HEADER, 1, encode_header(5, {"message_id": "m"}))
        + encode_frame(BODY, 1, b"he")
        + encode_frame(BODY, 1, b"llo")
    )
    for octet in frames:
        channel.connection.send_raw(bytes([octet]))
    check_equal(channel.get_all(queue), [b"hello"], "bodies")

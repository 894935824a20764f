"""Bodies reach the consumer whole, however they were cut, and contents whatever way they go."""

from __future__ import annotations

from collections.abc import Callable

from conformance import fields
from conformance.channel import Channel
from conformance.failure import check_equal
from conformance.methods import encode_frame, encode_header, encode_method, encode_properties
from conformance.registry import scenario
from conformance.session import Session


def _publish_cut(channel: Channel, queue: str, body: bytes, cuts: Callable[[int], int]) -> None:
    """Publishes a body in frames of `cuts(0)`, `cuts(1)`, ... octets, all in one write."""
    out = [
        encode_frame(1, channel.number, encode_method("basic.publish", routing_key=queue)),
        encode_frame(2, channel.number, encode_header(len(body))),
    ]
    start = number = 0
    while start < len(body):
        size = min(cuts(number), len(body) - start)
        out.append(encode_frame(3, channel.number, body[start : start + size]))
        start += size
        number += 1
    channel.connection.send_raw(b"".join(out))


@scenario("content.body.odd-frames", covers=["rule:body-many-frames"])
def bodies_arrive_whole_however_they_were_cut(s: Session) -> None:
    channel, consumer = s.channel(), s.channel()
    queue = s.queue(channel)
    consumer.consume(queue, no_ack=True)
    body = bytes(range(256)) * 20
    patterns: list[Callable[[int], int]] = [
        lambda _: 1,
        lambda _: 7,
        lambda number: number + 1,
        lambda number: 5000 if number == 0 else 1,
        lambda number: 1 if number < 10 else 4096,
        lambda number: (0, 3, 0, 0, 250)[number % 5],
        lambda _: 5120,
    ]
    for cuts in patterns:
        _publish_cut(channel, queue, body, cuts)
        consumer.expect_delivery(body)
    channel.expect_silence(queue)


@scenario("content.body.empty-frame-after", covers=["error:method-expected"])
def an_empty_body_frame_after_the_last_octet_is_one_too_many(s: Session) -> None:
    for body in (b"", b"body"):
        channel = s.channel()
        channel.publish(body, routing_key=s.queue(channel))
        channel.connection.send_frame(3, channel.number, b"")
        text = "UNEXPECTED_FRAME - expected method frame, got non method frame instead"
        channel.connection.expect_close(505, text)


@scenario("content.body.empty", covers=["rule:body-empty"])
def empty_bodies_have_no_body_frame(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    channel.consume(queue, no_ack=True)
    bodies = [b"", b"", b"x", b"", b""]
    for body in bodies:
        channel.publish(body, routing_key=queue, properties={"message_id": "m"})
    for body in bodies:
        delivery = channel.expect_delivery(body)
        check_equal(len(delivery.message.body_frames), len(body), "body frames")
    channel.expect_silence(queue)


@scenario("content.body.frame-sizes", covers=["rule:body-many-frames", "rule:frame-max-kept"])
def bodies_just_around_the_frame_size_arrive(s: Session) -> None:
    channel = s.channel(frame_max=4096)
    queue = s.queue(channel)
    channel.consume(queue, no_ack=True)
    for size in (1, 4087, 4088, 4089, 8175, 8176, 8177, 12264):
        body = bytes(number % 251 for number in range(size))
        channel.publish(body, routing_key=queue)
        delivery = channel.expect_delivery(body)
        check_equal(len(delivery.message.body_frames), -(-size // 4088), "body frames")


@scenario("content.body.smaller-frame-max", covers=["rule:frame-max-kept", "rule:header-kept"])
def each_consumer_gets_frames_of_its_own_size(s: Session) -> None:
    publisher = s.channel()
    exchange = s.exchange(publisher, "fanout")
    consumers = []
    for frame_max in (131072, 4096, 5000, 100_001):
        channel = s.channel(frame_max=frame_max)
        queue = s.queue(channel)
        channel.bind(queue, exchange)
        channel.consume(queue, no_ack=True)
        consumers.append(channel)
    raw = encode_properties({"headers": {"d": fields.decimal(1, 2)}, "timestamp": 2**50})
    for size in (0, 10, 4088, 4089, 131_064, 300_000):
        body = bytes(number % 253 for number in range(size))
        publisher.publish(body, exchange, properties=raw)
        for channel in consumers:
            delivery = channel.expect_delivery(body)
            check_equal(delivery.message.property_octets, raw, "properties")


@scenario("content.body.larger-frame-max", covers=["rule:frame-max-kept", "rule:body-many-frames"])
def publishers_with_small_frames_reach_consumers_with_large_ones(s: Session) -> None:
    publisher, consumer = s.channel(frame_max=4096), s.channel()
    queue = s.queue(publisher)
    consumer.consume(queue, no_ack=True)
    for size in (4088, 5000, 100_000, 500_000):
        body = bytes(number % 253 for number in range(size))
        publisher.publish(body, routing_key=queue)
        consumer.expect_delivery(body)


@scenario("content.channel-numbers", covers=["rule:header-kept", "method:basic.deliver"])
def contents_reach_channels_of_other_numbers_unchanged(s: Session) -> None:
    connection = s.connect()
    numbers = (1, 2, 255, 256, 2047)
    channels = [connection.channel(number) for number in numbers]
    exchange = s.exchange(channels[0], "fanout")
    for channel in channels:
        queue = s.queue(channel)
        channel.bind(queue, exchange)
        channel.consume(queue, no_ack=True)
    raw = encode_properties({"headers": {"a": fields.short(1)}, "app_id": "\xce"})
    for sender in channels:
        body = b"\xce\x01\x00\x01" * (50 + sender.number)
        sender.publish(body, exchange, properties=raw, body_frame_size=150)
        for channel in channels:
            delivery = channel.expect_delivery(body)
            check_equal(delivery.message.property_octets, raw, "properties")


@scenario("content.redelivered", covers=["rule:header-kept", "rule:redelivered-requeue"])
def a_content_is_the_same_the_second_time(s: Session) -> None:
    channel, other = s.channel(), s.channel(frame_max=4096)
    queue = s.queue(channel, durable=True)
    headers = {"n": fields.unsignedint(7), "list": [fields.byte(1), None], "s": b"\xff"}
    raw = encode_properties({"headers": headers, "delivery_mode": 2, "timestamp": 2**63})
    body = bytes(range(256)) * 100
    channel.call("confirm.select")
    channel.publish(body, routing_key=queue, properties=raw)
    channel.confirms({1})
    channel.consume(queue)
    for tag in (1, 2):
        delivery = channel.expect_delivery(body, redelivered=tag > 1)
        check_equal(delivery.message.property_octets, raw, "properties")
        if tag == 1:
            channel.send("basic.nack", delivery_tag=1, requeue=True)
    channel.call("channel.close")
    other.send("basic.get", queue=queue, no_ack=True)
    got = other.expect("basic.get-ok", redelivered=True)
    check_equal(got.body, body, "body")
    check_equal(got.message.property_octets, raw, "properties")


@scenario("content.returned", covers=["rule:header-kept", "rule:return-content"])
def a_returned_content_is_what_was_published(s: Session) -> None:
    channel = s.channel()
    raw = encode_properties({"headers": {"a": True, "b": fields.decimal(5, -2)}})
    for body in (b"", b"x", bytes(range(256)) * 1000):
        missing = s.name("missing")
        channel.publish(body, routing_key=missing, mandatory=True, properties=raw)
        back = channel.expect("basic.return", routing_key=missing)
        check_equal(back.body, body, "body")
        check_equal(back.message.property_octets, raw, "properties")

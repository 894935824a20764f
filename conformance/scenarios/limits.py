"""Limits on numbers and sizes."""

from __future__ import annotations

from conformance.channel import Channel
from conformance.client import BODY, HEADER
from conformance.failure import check_equal
from conformance.methods import encode_frame, encode_header
from conformance.registry import scenario
from conformance.session import Session

_LARGEST_MESSAGE = 128 * 1024 * 1024


@scenario("limits.channel-max", covers=["error:channel-max"])
def more_channels_than_negotiated_are_not_allowed(s: Session) -> None:
    connection = s.connect(channel_max=3)
    for number in (1, 2, 3):
        connection.channel(number)
    Channel(connection, 4).send("channel.open")
    text = "NOT_ALLOWED - number of channels opened (3) has reached the negotiated channel_max (3)"
    connection.expect_close(530, text)


@scenario("limits.channel-max.freed", covers=["error:channel-max"])
def closed_channels_do_not_count(s: Session) -> None:
    connection = s.connect(channel_max=2)
    first, second = connection.channel(), connection.channel()
    for _ in range(3):
        first.call("channel.close")
        second.send("queue.declare", queue=s.name("missing"), passive=True)
        second.expect_close(404, None, "queue.declare")
        first.reopen()
        second.reopen()


@scenario("limits.message-size", covers=["error:message-too-large"], slow=True)
def a_message_over_128_mib_closes_the_channel(s: Session) -> None:
    channel = s.channel()
    size = _LARGEST_MESSAGE + 1
    step = channel.connection.frame_max - 8
    channel.send("basic.publish", routing_key=s.name("nowhere"))
    channel.connection.send_frame(HEADER, 1, encode_header(size))
    frame = encode_frame(BODY, 1, b"x" * step)
    for _ in range(size // step):
        channel.connection.send_raw(frame)
    channel.connection.send_frame(BODY, 1, b"x" * (size % step))
    text = (
        f"PRECONDITION_FAILED - message size {size} is larger than"
        f" configured max size {_LARGEST_MESSAGE}"
    )
    channel.expect_close(406, text, "basic.publish")
    channel.reopen()


@scenario("limits.body.megabytes", covers=["rule:body-many-frames"])
def a_body_of_megabytes_arrives_whole(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    body = bytes(range(256)) * 12289
    channel.publish(body, routing_key=queue)
    channel.publish(body, routing_key=queue, body_frame_size=100_003)
    for found in channel.get_all(queue):
        check_equal(len(found), len(body), "length of the body")
        check_equal(found == body, True, "body is the same")


@scenario("limits.body.empty", covers=["rule:body-empty"])
def a_body_of_no_octets_has_no_body_frame(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    channel.consume(queue, no_ack=True)
    for _ in range(2):
        channel.publish(b"", routing_key=queue, properties={"message_id": "empty"})
    for delivery in channel.deliveries(2):
        check_equal(delivery.message.body_frames, [], "body frames")
        check_equal(delivery.message.properties, {"message_id": "empty"}, "properties")


@scenario("limits.headers.deep", covers=["rule:header-kept"])
def headers_nested_thirty_deep_arrive(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    headers: dict[str, object] = {"leaf": "x"}
    for _ in range(30):
        headers = {"nested": headers, "list": [1, "two"]}
    channel.publish(b"", routing_key=queue, properties={"headers": headers})
    channel.settle(queue)
    found = channel.get(queue)
    check_equal(found and found.message.headers, headers, "headers")


@scenario("limits.names.255", covers=["rule:names-utf8"])
def names_and_keys_have_up_to_255_octets(s: Session) -> None:
    channel = s.channel()
    stem = s.name("ünï")
    name = stem + "ö" * ((255 - len(stem.encode())) // 2)
    name += "x" * (255 - len(name.encode()))
    check_equal(channel.declare_queue(name), name, "queue name")
    channel.declare_exchange(name, "direct")
    channel.bind(name, name, name)
    channel.consume(name, "t" * 255, no_ack=True)
    channel.publish(b"x", name, name)
    channel.expect_delivery(b"x", consumer_tag="t" * 255, exchange=name, routing_key=name)

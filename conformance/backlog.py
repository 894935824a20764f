"""Backlogs that are several times as large as the memory of a broker that has little."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from conformance.channel import Channel
from conformance.failure import ConformanceError, check_equal
from conformance.limited import MEMORY_BYTES
from conformance.messages import PERSISTENT
from conformance.methods import Method
from conformance.session import Session

BODY_OCTETS = 16_000
COUNT = 4 * MEMORY_BYTES // BODY_OCTETS
"""Messages of a backlog."""
_DIGITS = 8
_WINDOW = 500
_FILLING = bytes(range(256)) * (BODY_OCTETS // 256 + 2)


def body_of(number: int) -> bytes:
    """The body of this message: its number, and octets that no other of the next 256 has there."""
    start = number % 256
    return b"%0*d" % (_DIGITS, number) + _FILLING[start : start + BODY_OCTETS - _DIGITS]


def number_of(message: Method) -> int:
    """The number of a message; raises ConformanceError if its body is not the one of this."""
    body = message.body
    if not body[:_DIGITS].isdigit() or body != body_of(int(body[:_DIGITS])):
        raise ConformanceError(f"body of {len(body)} octets is none that was sent: {body[:40]!r}")
    return int(body[:_DIGITS])


def publish_bodies(
    channel: Channel,
    numbers: Iterable[int],
    routing_key: str,
    exchange: str = "",
    properties: dict[str, Any] | None = None,
) -> None:
    """Publishes these messages over another channel of the connection; returns when all of them
    are confirmed."""
    publisher = channel.connection.channel()
    publisher.call("confirm.select")
    sent = confirmed = 0
    for number in numbers:
        publisher.publish(body_of(number), exchange, routing_key, properties=properties or {})
        sent += 1
        if sent - confirmed == _WINDOW:
            publisher.confirms(range(confirmed + 1, sent + 1))
            confirmed = sent
    publisher.confirms(range(confirmed + 1, sent + 1))
    publisher.call("channel.close")


def backlog(s: Session, channel: Channel, *, persistent: bool = False) -> str:
    """A queue with messages 1 to COUNT; a durable one, and messages that last, if `persistent`."""
    queue = s.queue(channel, durable=persistent)
    publish_bodies(channel, range(1, COUNT + 1), queue, properties=PERSISTENT if persistent else {})
    return queue


def expect_numbers(
    channel: Channel, numbers: Iterable[int], *, redelivered: bool = False, ack_each: int = 0
) -> int:
    """The next deliveries are these messages, so marked; every `ack_each` are acked at once, and
    what is left of them at the end. Returns the last delivery tag."""
    tag = unacked = 0
    for number in numbers:
        delivery = channel.expect("basic.deliver", redelivered=redelivered)
        check_equal(number_of(delivery), number, "number of the message")
        tag = delivery["delivery_tag"]
        unacked += 1
        if unacked == ack_each:
            channel.send("basic.ack", delivery_tag=tag, multiple=True)
            unacked = 0
    if ack_each and unacked:
        channel.send("basic.ack", delivery_tag=tag, multiple=True)
    return tag


def drain(
    channel: Channel, queue: str, numbers: Iterable[int], *, redelivered: bool = False
) -> None:
    """A queue holds these messages and no others, so marked; it is empty afterwards."""
    tag = channel.consume(queue, no_ack=True)
    expect_numbers(channel, numbers, redelivered=redelivered)
    channel.expect_silence(queue)
    channel.call("basic.cancel", consumer_tag=tag)
    check_equal(channel.message_count(queue), 0, "messages that are left")

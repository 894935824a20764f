"""How many scenarios start: a queue with numbered messages, some of them delivered."""

from __future__ import annotations

from typing import Any

from conformance.channel import Channel
from conformance.session import Session

PERSISTENT = {"delivery_mode": 2}


def publish_numbers(
    channel: Channel, queue: str, first: int, last: int, *, persistent: bool = False
) -> None:
    """Publishes bodies b"first" to b"last"; returns when the queue has them.

    They go over another channel of the same connection: only a confirm says that a queue has a
    message (RabbitMQ lets a passive declare overtake messages that wait for the queue).
    """
    publisher = channel.connection.channel()
    publisher.call("confirm.select")
    for number in range(first, last + 1):
        properties = PERSISTENT if persistent else {}
        publisher.publish(b"%d" % number, routing_key=queue, properties=properties)
    publisher.confirms(range(1, last - first + 2))
    publisher.call("channel.close")


def publish_at_once(channel: Channel, queue: str, count: int, **options: Any) -> list[bytes]:
    """Publishes bodies b"0", b"1", ... in one write, with options of `Channel.publish`; returns
    the bodies."""
    bodies = [b"%d" % number for number in range(count)]
    frames = [channel.publish_frames(body, "", queue, **options) for body in bodies]
    channel.connection.send_raw(b"".join(frames))
    return bodies


def numbered_queue(s: Session, channel: Channel, count: int, **fields: Any) -> str:
    """Declares a queue holding the bodies b"1" to b"count"; returns its name."""
    queue = s.queue(channel, **fields)
    publish_numbers(channel, queue, 1, count)
    return queue


def lasting_queue(s: Session, channel: Channel, count: int, **fields: Any) -> str:
    """Declares a durable queue holding the persistent bodies b"1" to b"count"; returns its name."""
    queue = s.queue(channel, durable=True, **fields)
    publish_numbers(channel, queue, 1, count, persistent=True)
    return queue


def unacked_queue(s: Session, channel: Channel, count: int) -> str:
    """A numbered queue whose messages are unacked on this channel, with delivery tags 1 to count.

    They were fetched by basic.get, so that what is requeued stays in the queue. Returns its name.
    """
    queue = numbered_queue(s, channel, count)
    for _ in range(count):
        channel.get(queue, no_ack=False)
    return queue


def consumed_queue(s: Session, channel: Channel, count: int, consumer_tag: str = "consumer") -> str:
    """A numbered queue whose messages were delivered to a consumer of this channel and wait for
    acks, with delivery tags 1 to count. Returns its name.
    """
    queue = numbered_queue(s, channel, count)
    channel.consume(queue, consumer_tag)
    channel.deliveries(count)
    return queue


def next_bodies(channel: Channel, count: int) -> list[bytes]:
    """The bodies of the next `count` deliveries."""
    return [delivery.body for delivery in channel.deliveries(count)]


def get_redelivered(channel: Channel, queue: str) -> list[tuple[bytes, bool]]:
    """Empties a queue by basic.get; (body, redelivered) in order."""
    found = []
    while (message := channel.get(queue)) is not None:
        found.append((message.body, message["redelivered"]))
    return found

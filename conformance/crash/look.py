"""Looks at every message of every queue and leaves it there."""

from __future__ import annotations

import time

from conformance.channel import Channel
from conformance.client import Address, Connection
from conformance.crash.bodies import properties_of, read_body
from conformance.crash.record import Record, Seen
from conformance.failure import check_equal, eventually
from conformance.methods import Method


def seen_in(method: Method) -> Seen:
    """What a delivery shows."""
    key = read_body(method.body)
    intact = False
    if key is not None:
        found = method.message.properties
        sent = properties_of(
            *key, persistent=found.get("delivery_mode") == 2, priority=found.get("priority", 0)
        )
        intact = found == sent
    return Seen(key, method["redelivered"], method["exchange"], method["routing_key"], intact)


def look_at(address: Address, record: Record, timeout_s: float = 30.0) -> dict[str, list[Seen]]:
    """The messages of the record's queues in order; a queue that is missing is left out.

    Every message is delivered once and put back where it was.
    """
    connection = Connection(address, timeout_s=timeout_s).open()
    look = {}
    for queue in record.queues:
        channel = connection.channel()
        channel.send("queue.declare", queue=queue, passive=True)
        answer = channel.expect("queue.declare-ok", "channel.close")
        if answer.name == "queue.declare-ok":
            look[queue] = _look_at_queue(channel, queue, answer["message_count"])
    connection.close()
    return look


def _look_at_queue(channel: Channel, queue: str, count: int) -> list[Seen]:
    channel.consume(queue, "look")
    seen = [seen_in(delivery) for delivery in channel.deliveries(count)]
    channel.call("basic.cancel", consumer_tag="look")
    check_equal(channel.message_count(queue), 0, f"messages of {queue} that were not delivered")
    if count:
        channel.send("basic.nack", multiple=True, requeue=True)
    eventually(lambda: channel.message_count(queue) == count, f"{queue}: messages come back")
    return seen


def drain(address: Address, record: Record, timeout_s: float = 30.0) -> None:
    """Takes and acks every message of the record's queues, and notes it."""
    connection = Connection(address, timeout_s=timeout_s).open()
    channel = connection.channel()
    for queue, copies in record.queues.items():
        count = channel.message_count(queue)
        channel.consume(queue, "drain")
        for delivery in channel.deliveries(count):
            key = read_body(delivery.body)
            if key in copies:
                copies[key].acked = True
                copies[key].settled_at = time.monotonic()
        channel.call("basic.cancel", consumer_tag="drain")
        if count:
            channel.send("basic.ack", multiple=True)
        channel.settle(queue)
    connection.close()

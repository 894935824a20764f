"""x-priority of basic.consume."""

from __future__ import annotations

from typing import Any

from conformance import fields
from conformance.failure import check_equal
from conformance.messages import numbered_queue, publish_numbers
from conformance.registry import scenario
from conformance.session import Session


@scenario("priority.highest-first", covers=["rule:consumer-priority"])
def the_consumer_of_the_highest_priority_gets_all_while_it_can(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    for tag, priority in (("low", -1), ("high", 10), ("middle", 5)):
        channel.consume(queue, tag, no_ack=True, arguments={"x-priority": priority})
    channel.consume(queue, "default", no_ack=True)
    for left in ("high", "middle", "default", "low"):
        for _ in range(5):
            channel.publish(b"m", routing_key=queue)
            channel.expect_delivery(consumer_tag=left)
        channel.call("basic.cancel", consumer_tag=left)


@scenario("priority.full", covers=["rule:consumer-priority"])
def lower_priorities_get_what_a_full_consumer_cannot_take(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    channel.call("basic.qos", prefetch_count=2)
    channel.consume(queue, "high", arguments={"x-priority": 1})
    channel.consume(queue, "low")
    for tag, delivery_tag in (("high", 1), ("high", 2), ("low", 3)):
        channel.publish(b"m", routing_key=queue)
        channel.expect_delivery(consumer_tag=tag, delivery_tag=delivery_tag)
    channel.send("basic.ack", delivery_tag=2)
    for tag, delivery_tag in (("high", 4), ("low", 5)):
        channel.publish(b"m", routing_key=queue)
        channel.expect_delivery(consumer_tag=tag, delivery_tag=delivery_tag)
    channel.publish(b"waits", routing_key=queue)
    channel.expect_silence(queue)
    channel.send("basic.ack", delivery_tag=5)
    channel.expect_delivery(b"waits", consumer_tag="low")


@scenario("priority.equal", covers=["rule:consumer-priority", "rule:round-robin"])
def consumers_of_one_priority_take_turns(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    channel.consume(queue, "other", no_ack=True)
    for tag in ("a", "b", "c"):
        channel.consume(queue, tag, no_ack=True, arguments={"x-priority": 3})
    turns = []
    for _ in range(9):
        channel.publish(b"m", routing_key=queue)
        turns.append(channel.expect_delivery()["consumer_tag"])
    check_equal(turns, ["a", "b", "c"] * 3, "turns")


@scenario("priority.newcomer", covers=["rule:consumer-priority"])
def a_newcomer_of_higher_priority_is_served_first_from_then_on(s: Session) -> None:
    old, new = s.channel(), s.channel()
    queue = numbered_queue(s, old, 2)
    old.consume(queue, "old", no_ack=True)
    old.deliveries(2)
    new.consume(queue, "new", no_ack=True, arguments={"x-priority": 1})
    publish_numbers(old, queue, 3, 6)
    for number in range(3, 7):
        new.expect_delivery(b"%d" % number, consumer_tag="new")
    old.expect_silence(queue)


@scenario("priority.requeued", covers=["rule:consumer-priority", "rule:redelivered-requeue"])
def a_requeued_message_goes_to_the_highest_that_is_ready(s: Session) -> None:
    low, high = s.channel(), s.channel()
    queue = numbered_queue(s, low, 1)
    low.consume(queue, "low")
    low.expect_delivery(b"1", redelivered=False)
    high.consume(queue, "high", arguments={"x-priority": 1})
    low.send("basic.nack", delivery_tag=1, requeue=True)
    high.expect_delivery(b"1", consumer_tag="high", redelivered=True)


@scenario("priority.integers", covers=["rule:consumer-priority", "rule:integer-widths-equal"])
def priorities_are_integers_of_any_width(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    rising: list[Any] = [
        fields.long(-(2**63)),
        fields.signedint(-5),
        fields.byte(-3),
        fields.short(2),
        fields.unsignedbyte(200),
        fields.unsignedshort(40000),
        fields.unsignedint(4_000_000_000),
        fields.long(2**63 - 1),
    ]
    for number, priority in enumerate(rising):
        arguments = {"x-priority": priority}
        channel.consume(queue, f"{number}", no_ack=True, arguments=arguments)
        channel.publish(b"m", routing_key=queue)
        channel.expect_delivery(consumer_tag=f"{number}")


@scenario("priority.wrong-type", covers=["error:consumer-argument-refused"])
def a_priority_that_is_no_integer_is_refused(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    wrong: dict[str, Any] = {
        "longstr": "5",
        "bool": True,
        "double": 1.0,
        "float": fields.float32(1.0),
        "decimal": fields.decimal(0, 5),
        "timestamp": fields.timestamp(5),
        "void": None,
        "binary": fields.byte_array(b"5"),
        "array": [1],
        "table": {"a": 1},
    }
    for kind, priority in wrong.items():
        channel.send("basic.consume", queue=queue, arguments={"x-priority": priority})
        text = (
            f"PRECONDITION_FAILED - invalid arg 'x-priority' for queue '{queue}' in vhost '/': "
            f'"expected integer, got {kind}"'
        )
        channel.expect_close(406, text, "basic.consume")
        channel.reopen()
    check_equal(channel.consumer_count(queue), 0, "consumers")

"""Ready consumers of a queue take turns."""

from __future__ import annotations

from conformance.failure import check, check_equal
from conformance.messages import next_bodies, numbered_queue, publish_numbers
from conformance.registry import scenario
from conformance.session import Session


@scenario("round-robin.connections", covers=["rule:round-robin"])
def consumers_of_different_connections_take_turns(s: Session) -> None:
    publisher = s.channel()
    queue = s.queue(publisher)
    consumers = [s.channel() for _ in range(3)]
    for channel in consumers:
        channel.consume(queue, no_ack=True)
    publish_numbers(publisher, queue, 1, 30)
    for first, channel in enumerate(consumers, start=1):
        expected = [b"%d" % number for number in range(first, 31, 3)]
        check_equal(next_bodies(channel, 10), expected, f"bodies of consumer {first}")


@scenario("round-robin.one-channel", covers=["rule:round-robin"])
def consumers_of_one_channel_take_turns(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    for tag in ("a", "b", "c"):
        channel.consume(queue, tag)
    turns = []
    for _ in range(7):
        channel.publish(b"m", routing_key=queue)
        turns.append(channel.expect_delivery()["consumer_tag"])
    check_equal(turns, ["a", "b", "c", "a", "b", "c", "a"], "turns")


@scenario("round-robin.full", covers=["rule:round-robin"])
def a_full_consumer_is_passed_over(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    channel.call("basic.qos", prefetch_count=1)
    channel.consume(queue, "slow")
    channel.call("basic.qos", prefetch_count=0)
    for tag in ("a", "b"):
        channel.consume(queue, tag)
    turns = []
    for _ in range(7):
        channel.publish(b"m", routing_key=queue)
        turns.append(channel.expect_delivery()["consumer_tag"])
    check_equal(turns, ["slow", "a", "b", "a", "b", "a", "b"], "turns")
    channel.send("basic.ack", delivery_tag=1)
    channel.settle(queue)
    publish_numbers(channel, queue, 1, 3)
    after = sorted(delivery["consumer_tag"] for delivery in channel.deliveries(3))
    check_equal(after, ["a", "b", "slow"], "consumers once the slow one acked")


@scenario("round-robin.waiting", covers=["rule:round-robin"])
def the_one_that_makes_room_gets_the_message_that_waits(s: Session) -> None:
    channel = s.channel()
    queue = numbered_queue(s, channel, 5)
    channel.call("basic.qos", prefetch_count=1)
    for number, tag in enumerate(("a", "b", "c"), start=1):
        channel.consume(queue, tag)
        channel.expect_delivery(b"%d" % number, consumer_tag=tag)
    channel.send("basic.ack", delivery_tag=2)
    channel.expect_delivery(b"4", consumer_tag="b")
    channel.send("basic.ack", delivery_tag=1)
    channel.expect_delivery(b"5", consumer_tag="a")


@scenario("round-robin.leave-and-join", covers=["rule:round-robin"])
def those_that_leave_and_join_change_the_round(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)

    def turns(count: int) -> list[str]:
        found = []
        for _ in range(count):
            channel.publish(b"m", routing_key=queue)
            found.append(channel.expect_delivery()["consumer_tag"])
        return found

    for tag in ("a", "b", "c"):
        channel.consume(queue, tag, no_ack=True)
    check_equal(turns(3), ["a", "b", "c"], "turns of three")
    channel.call("basic.cancel", consumer_tag="b")
    check_equal(turns(4), ["a", "c", "a", "c"], "turns of two")
    channel.consume(queue, "d", no_ack=True)
    check_equal(sorted(turns(3)), ["a", "c", "d"], "turns with a new one")


@scenario("round-robin.fair", covers=["rule:round-robin"])
def a_backlog_is_shared_by_those_that_ack(s: Session) -> None:
    one, two = s.channel(), s.channel()
    queue = numbered_queue(s, one, 60)
    for channel in (one, two):
        channel.call("basic.qos", prefetch_count=1)
        channel.consume(queue)
    bodies: list[bytes] = []
    for number in range(1, 21):
        for channel in (one, two):
            delivery = channel.expect_delivery(delivery_tag=number)
            bodies.append(delivery.body)
            channel.send("basic.ack", delivery_tag=number)
    check(len(set(bodies)) == 40, f"{len(set(bodies))} different messages of 40")

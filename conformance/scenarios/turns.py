"""Whose turn it is: single active consumers, consumer priorities, and both beside other rules."""

from __future__ import annotations

from typing import Any

from conformance.dead_letters import mortal_queue, publish_confirmed
from conformance.failure import check_equal, eventually
from conformance.messages import next_bodies, publish_numbers
from conformance.registry import Restart, scenario
from conformance.session import Session

_SINGLE = {"x-single-active-consumer": True}
_HIGH: dict[str, Any] = {"arguments": {"x-priority": 5}}


@scenario("turns.single.socket", covers=["rule:single-active-consumer"])
def the_next_takes_over_when_the_socket_of_the_active_one_ends(s: Session) -> None:
    first, second = s.channel(), s.channel()
    queue = s.queue(second, arguments=_SINGLE)
    first.consume(queue)
    second.consume(queue)
    publish_numbers(second, queue, 1, 5)
    check_equal(next_bodies(first, 5), [b"%d" % n for n in range(1, 6)], "bodies")
    first.send("basic.ack", delivery_tag=2, multiple=True)
    first.settle(queue)
    first.connection.drop()
    for number in (3, 4, 5):
        second.expect_delivery(b"%d" % number, redelivered=True)
    publish_numbers(second, queue, 6, 6)
    second.expect_delivery(b"6", redelivered=False)


@scenario("turns.single.rejoined", covers=["rule:single-active-consumer"])
def who_comes_back_waits_behind_the_others(s: Session) -> None:
    channels = first, second, third = s.channel(), s.channel(), s.channel()
    queue = s.queue(third, arguments=_SINGLE)
    for channel in channels:
        channel.consume(queue, "mine", no_ack=True)
    first.call("basic.cancel", consumer_tag="mine")
    first.consume(queue, "mine", no_ack=True)
    for active, number in ((second, 1), (third, 2), (first, 3)):
        publish_numbers(first, queue, number, number)
        active.expect_delivery(b"%d" % number)
        active.call("basic.cancel", consumer_tag="mine")


@scenario("turns.single.priority", covers=["rule:single-active-consumer", "rule:consumer-priority"])
def a_higher_priority_does_not_take_over(s: Session) -> None:
    first, second, third = s.channel(), s.channel(), s.channel()
    queue = s.queue(first, arguments=_SINGLE)
    first.consume(queue, "first", no_ack=True)
    second.consume(queue, "second", no_ack=True)
    third.consume(queue, "third", no_ack=True, **_HIGH)
    publish_numbers(second, queue, 1, 3)
    check_equal(next_bodies(first, 3), [b"1", b"2", b"3"], "bodies")
    for channel in (second, third):
        channel.expect_silence(queue)


@scenario(
    "turns.single.quorum", covers=["rule:single-active-consumer", "rule:quorum-queue-accepted"]
)
def quorum_queues_have_one_active_consumer_as_well(s: Session) -> None:
    first, second = s.channel(), s.channel()
    arguments = {**_SINGLE, "x-queue-type": "quorum"}
    queue = s.queue(first, durable=True, arguments=arguments)
    first.consume(queue, "first")
    second.consume(queue, "second")
    publish_numbers(second, queue, 1, 3)
    first.deliveries(3)
    first.send("basic.ack", delivery_tag=1)
    second.expect_silence(queue)
    first.connection.close()
    for number in (2, 3):
        second.expect_delivery(b"%d" % number, redelivered=True)


@scenario("turns.single.dead-letters", covers=["rule:single-active-consumer", "expiry:zero"])
def ttl_0_expires_while_only_those_who_wait_have_room(s: Session) -> None:
    first, second = s.channel(), s.channel()
    mortal = mortal_queue(s, first, {**_SINGLE, "x-message-ttl": 0})
    first.call("basic.qos", prefetch_count=1)
    first.consume(mortal.queue)
    second.consume(mortal.queue)
    publish_confirmed(second, mortal.queue, b"1", b"2")
    first.expect_delivery(b"1")
    mortal.expect(b"2")
    second.expect_silence(mortal.queue)


@scenario("turns.single.priorities", covers=["rule:single-active-consumer", "priority:order"])
def the_active_consumer_gets_the_highest_messages_first(s: Session) -> None:
    first, second = s.channel(), s.channel()
    queue = s.queue(first, arguments={**_SINGLE, "x-max-priority": 5})
    for priority in (1, 5, 3):
        publish_confirmed(first, queue, b"%d" % priority, priority=priority)
    first.consume(queue, no_ack=True)
    second.consume(queue, no_ack=True)
    check_equal(next_bodies(first, 3), [b"5", b"3", b"1"], "bodies")
    second.expect_silence(queue)


@scenario(
    "turns.single.restart",
    covers=["rule:single-active-consumer", "durability:queue"],
    restarts=[Restart.STOP, Restart.KILL],
)
def a_queue_has_one_active_consumer_after_a_restart(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel, durable=True, arguments=_SINGLE)
    s.restart_broker()
    first, second = s.channel(), s.channel()
    first.consume(queue, "first", no_ack=True)
    second.consume(queue, "second", no_ack=True)
    publish_numbers(second, queue, 1, 4)
    check_equal(next_bodies(first, 4), [b"1", b"2", b"3", b"4"], "bodies")
    second.expect_silence(queue)


@scenario("turns.priority.channel-full", covers=["rule:consumer-priority", "rule:qos-global"])
def a_consumer_whose_channel_is_full_is_passed_over(s: Session) -> None:
    high, low = s.channel(), s.channel()
    queue, other = s.queue(high), s.queue(high)
    high.call("basic.qos", prefetch_count=2, global_=True)
    high.consume(queue, "high", **_HIGH)
    high.consume(other, "other")
    low.consume(queue, "low", no_ack=True)
    publish_numbers(low, other, 1, 1)
    high.expect_delivery(consumer_tag="other")
    for number, channel in ((1, high), (2, low), (3, low)):
        publish_numbers(low, queue, number, number)
        channel.expect_delivery(b"%d" % number)
    high.send("basic.ack", delivery_tag=1)
    high.settle(queue)
    publish_numbers(low, queue, 4, 4)
    high.expect_delivery(b"4", consumer_tag="high")


@scenario("turns.priority.levels", covers=["rule:consumer-priority", "rule:round-robin"])
def of_several_levels_the_highest_with_room_takes_turns(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    channel.call("basic.qos", prefetch_count=1)
    for tag, priority in (("b1", 1), ("a1", 2), ("b2", 1), ("a2", 2)):
        channel.consume(queue, tag, arguments={"x-priority": priority})
    publish_numbers(channel, queue, 1, 5)
    found = [channel.expect_delivery()["consumer_tag"] for _ in range(4)]
    check_equal(found[:2] + sorted(found[2:]), ["a1", "a2", "b1", "b2"], "turns")
    channel.expect_silence(queue)
    channel.send("basic.ack", delivery_tag=1)
    channel.expect_delivery(b"5", consumer_tag="a1")


@scenario("turns.priority.gone", covers=["rule:consumer-priority"])
def lower_ones_take_over_from_a_consumer_that_is_gone(s: Session) -> None:
    high, low = s.channel(), s.channel()
    queue = s.queue(low)
    high.consume(queue, "high", **_HIGH)
    low.consume(queue, "low")
    publish_numbers(low, queue, 1, 3)
    high.deliveries(3)
    high.connection.drop()
    for number in (1, 2, 3):
        low.expect_delivery(b"%d" % number, redelivered=True)


@scenario("turns.priority.quorum", covers=["rule:consumer-priority", "rule:quorum-queue-accepted"])
def quorum_queues_serve_the_highest_first(s: Session) -> None:
    high, low = s.channel(), s.channel()
    queue = s.queue(low, durable=True, arguments={"x-queue-type": "quorum"})
    low.consume(queue, "low", no_ack=True)
    high.call("basic.qos", prefetch_count=2)
    high.consume(queue, "high", **_HIGH)
    eventually(lambda: low.consumer_count(queue) == 2, "both consume")
    for number, channel in ((1, high), (2, high), (3, low)):
        publish_numbers(low, queue, number, number)
        channel.expect_delivery(b"%d" % number)

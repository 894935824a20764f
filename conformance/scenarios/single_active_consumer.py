"""Queues declared with x-single-active-consumer."""

from __future__ import annotations

from typing import Any

from conformance.failure import check_equal
from conformance.messages import next_bodies, publish_numbers
from conformance.registry import scenario
from conformance.session import Session

_SINGLE_ACTIVE: dict[str, Any] = {"arguments": {"x-single-active-consumer": True}}


@scenario("single-active.one", covers=["rule:single-active-consumer"])
def only_the_first_consumer_gets_messages(s: Session) -> None:
    first, second = s.channel(), s.channel()
    queue = s.queue(first, **_SINGLE_ACTIVE)
    first.consume(queue, "first", no_ack=True)
    second.consume(queue, "second", no_ack=True, arguments={"x-priority": 0})
    publish_numbers(second, queue, 1, 5)
    check_equal(next_bodies(first, 5), [b"%d" % n for n in range(1, 6)], "bodies")
    second.expect_silence(queue)
    check_equal(second.consumer_count(queue), 2, "consumers")


@scenario("single-active.full", covers=["rule:single-active-consumer"])
def messages_wait_while_the_active_consumer_is_full(s: Session) -> None:
    first, second = s.channel(), s.channel()
    queue = s.queue(first, **_SINGLE_ACTIVE)
    first.call("basic.qos", prefetch_count=1)
    first.consume(queue, "first")
    second.consume(queue, "second")
    publish_numbers(second, queue, 1, 3)
    for number in (1, 2, 3):
        first.expect_delivery(b"%d" % number, delivery_tag=number)
        second.expect_silence(queue)
        first.send("basic.ack", delivery_tag=number)


@scenario("single-active.next", covers=["rule:single-active-consumer"])
def the_next_takes_over_in_order_of_arrival(s: Session) -> None:
    channels = [s.channel() for _ in range(4)]
    cancels, closes, ends, last = channels
    queue = s.queue(last, **_SINGLE_ACTIVE)
    for channel in channels:
        channel.consume(queue, "mine", no_ack=True)
    publish_numbers(last, queue, 1, 1)
    cancels.expect_delivery(b"1")
    cancels.call("basic.cancel", consumer_tag="mine")
    publish_numbers(last, queue, 2, 2)
    closes.expect_delivery(b"2")
    closes.call("channel.close")
    publish_numbers(last, queue, 3, 3)
    ends.expect_delivery(b"3")
    ends.connection.close()
    publish_numbers(last, queue, 4, 4)
    last.expect_delivery(b"4")


@scenario(
    "single-active.unacked", covers=["rule:single-active-consumer", "rule:unacked-survive-cancel"]
)
def what_the_former_one_left_unacked_goes_to_the_next(s: Session) -> None:
    first, second = s.channel(), s.channel()
    queue = s.queue(first, **_SINGLE_ACTIVE)
    publish_numbers(second, queue, 1, 3)
    first.call("basic.qos", prefetch_count=2)
    first.consume(queue, "first")
    first.deliveries(2)
    second.consume(queue, "second")
    second.expect_silence(queue)
    first.call("basic.cancel", consumer_tag="first")
    first.send("basic.nack", delivery_tag=2, requeue=True)
    # When the one that waited is delivered, at the cancel or at the next event, is left open.
    got = sorted((d.body, d["redelivered"]) for d in second.deliveries(2))
    check_equal(got, [(b"2", True), (b"3", False)], "deliveries to the next")
    first.call("channel.close")
    second.expect_delivery(b"1", redelivered=True)


@scenario("single-active.exclusive", covers=["error:exclusive-consume-single-active"])
def exclusive_consumers_are_refused(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel, **_SINGLE_ACTIVE)
    for _ in range(2):
        channel.send("basic.consume", queue=queue, exclusive=True)
        text = f"ACCESS_REFUSED - queue '{queue}' in vhost '/' in exclusive use"
        channel.expect_close(403, text, "basic.consume")
        channel.reopen().consume(queue)


@scenario("single-active.get", covers=["rule:single-active-consumer", "method:basic.get"])
def get_is_possible_beside_the_active_consumer(s: Session) -> None:
    first, second = s.channel(), s.channel()
    queue = s.queue(first, **_SINGLE_ACTIVE)
    publish_numbers(second, queue, 1, 2)
    first.call("basic.qos", prefetch_count=1)
    first.consume(queue)
    first.expect_delivery(b"1")
    got = second.get(queue)
    check_equal(got and got.body, b"2", "body")

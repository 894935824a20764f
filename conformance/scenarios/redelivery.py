"""What comes back to a queue: where it goes and how it is marked."""

from __future__ import annotations

from conformance.channel import Channel
from conformance.failure import check_equal
from conformance.messages import (
    consumed_queue,
    get_redelivered,
    next_bodies,
    numbered_queue,
    publish_numbers,
    unacked_queue,
)
from conformance.registry import scenario
from conformance.session import Session


def _expect_again(channel: Channel, numbers: range, fresh: range = range(0)) -> None:
    """These bodies are delivered marked as redelivered, then the fresh ones unmarked."""
    for number in numbers:
        channel.expect_delivery(b"%d" % number, redelivered=True)
    for number in fresh:
        channel.expect_delivery(b"%d" % number, redelivered=False)


@scenario("redelivery.position", covers=["rule:requeue-position", "rule:redelivered-get"])
def a_requeued_message_is_before_those_that_came_after_it(s: Session) -> None:
    channel = s.channel()
    queue = numbered_queue(s, channel, 6)
    for _ in range(3):
        channel.get(queue, no_ack=False)
    channel.send("basic.nack", delivery_tag=2, requeue=True)
    expected = [(b"2", True), (b"4", False), (b"5", False), (b"6", False)]
    check_equal(get_redelivered(channel, queue), expected, "messages")


@scenario("redelivery.position.each", covers=["rule:requeue-position"])
def requeued_one_by_one_in_any_order_they_keep_their_order(s: Session) -> None:
    channel = s.channel()
    queue = unacked_queue(s, channel, 7)
    publish_numbers(channel, queue, 8, 9)
    for tag in (5, 2, 7, 1, 4):
        channel.send("basic.reject", delivery_tag=tag, requeue=True)
    expected = [(b"%d" % n, n < 8) for n in (1, 2, 4, 5, 7, 8, 9)]
    check_equal(get_redelivered(channel, queue), expected, "messages")


@scenario("redelivery.position.two-channels", covers=["rule:requeue-position"])
def what_two_channels_give_back_is_merged(s: Session) -> None:
    one, two, three = s.channel(), s.channel(), s.channel()
    queue = numbered_queue(s, one, 8)
    for channel in (one, two) * 3:
        channel.get(queue, no_ack=False)
    for channel in (two, one):
        channel.call("basic.recover", requeue=True)
    expected = [(b"%d" % n, n < 7) for n in range(1, 9)]
    check_equal(get_redelivered(three, queue), expected, "messages")


@scenario("redelivery.get", covers=["rule:redelivered-get", "method:basic.get-ok"])
def get_marks_what_was_fetched_before(s: Session) -> None:
    channel = s.channel()
    queue = numbered_queue(s, channel, 1)
    for tag in range(1, 5):
        channel.send("basic.get", queue=queue)
        channel.expect("basic.get-ok", delivery_tag=tag, redelivered=tag > 1, message_count=0)
        channel.send("basic.nack", delivery_tag=tag, requeue=True)


@scenario("redelivery.other-consumer", covers=["rule:redelivered-requeue"])
def another_consumer_may_get_the_requeued_message(s: Session) -> None:
    one, two = s.channel(), s.channel()
    queue = numbered_queue(s, one, 2)
    one.call("basic.qos", prefetch_count=1)
    two.call("basic.qos", prefetch_count=2)
    one.consume(queue, "one")
    one.expect_delivery(b"1", redelivered=False)
    two.consume(queue, "two")
    two.expect_delivery(b"2", redelivered=False)
    one.send("basic.cancel", consumer_tag="one", nowait=True)
    one.send("basic.reject", delivery_tag=1, requeue=True)
    two.expect_delivery(b"1", consumer_tag="two", delivery_tag=2, redelivered=True)


@scenario("redelivery.no-ack", covers=["rule:redelivered-requeue"])
def a_no_ack_consumer_sees_the_mark_too(s: Session) -> None:
    channel = s.channel()
    queue = unacked_queue(s, channel, 2)
    channel.send("basic.nack", delivery_tag=2, multiple=True, requeue=True)
    channel.consume(queue, no_ack=True)
    _expect_again(channel, range(1, 3))
    publish_numbers(channel, queue, 3, 3)
    _expect_again(channel, range(0), range(3, 4))


@scenario("redelivery.undelivered", covers=["rule:redelivered-channel-closed"])
def what_was_not_delivered_before_is_not_marked(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    queue = numbered_queue(s, channel, 5)
    channel.call("basic.qos", prefetch_count=2)
    channel.consume(queue)
    channel.deliveries(2)
    channel.call("channel.close")
    expected = [(b"%d" % n, n < 3) for n in range(1, 6)]
    check_equal(get_redelivered(other, queue), expected, "messages")


@scenario("redelivery.channel-closed", covers=["rule:redelivered-channel-closed"])
def a_closed_channel_gives_back_what_it_had_in_order(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    queue = consumed_queue(s, channel, 6)
    for tag in (2, 5):
        channel.send("basic.ack", delivery_tag=tag)
    channel.call("channel.close")
    publish_numbers(other, queue, 7, 7)
    expected = [(b"%d" % n, n < 7) for n in (1, 3, 4, 6, 7)]
    check_equal(get_redelivered(other, queue), expected, "messages")


@scenario("redelivery.channel-error", covers=["rule:channel-error-releases"])
def a_channel_error_gives_back_before_it_is_told(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    queue = consumed_queue(s, channel, 3)
    channel.send("basic.ack", delivery_tag=99)
    channel.expect_closing(
        "channel.close", 406, "PRECONDITION_FAILED - unknown delivery tag 99", "basic.ack"
    )
    expected = [(b"%d" % n, True) for n in (1, 2, 3)]
    check_equal(get_redelivered(other, queue), expected, "messages before close-ok")
    channel.send("channel.close-ok")
    channel.reopen()


@scenario("redelivery.connection-closed", covers=["rule:redelivered-channel-closed"])
def a_closed_connection_gives_back_what_all_its_channels_had(s: Session) -> None:
    connection, other = s.connect(), s.channel()
    one, two = connection.channel(), connection.channel()
    queue = numbered_queue(s, one, 5)
    for channel in (one, two):
        channel.call("basic.qos", prefetch_count=2)
        channel.consume(queue)
        channel.deliveries(2)
    one.call("basic.qos", prefetch_count=1, global_=True)
    one.send("basic.ack", delivery_tag=1)
    connection.close()
    other.consume(queue)
    _expect_again(other, range(2, 5), range(5, 6))


@scenario("redelivery.socket-dropped", covers=["rule:redelivered-channel-closed"])
def a_dropped_connection_gives_back_what_it_had(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    queue = consumed_queue(s, channel, 5)
    other.call("basic.qos", prefetch_count=10)
    other.consume(queue)
    channel.connection.drop()
    _expect_again(other, range(1, 6))
    publish_numbers(other, queue, 6, 7)
    _expect_again(other, range(0), range(6, 8))


@scenario("redelivery.connection-error", covers=["rule:redelivered-channel-closed"])
def a_connection_error_gives_back_what_it_had(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    queue = consumed_queue(s, channel, 3)
    other.consume(queue)
    channel.send("basic.qos", prefetch_size=1)
    channel.connection.expect_close(540, "NOT_IMPLEMENTED - prefetch_size!=0 (1)", "basic.qos")
    _expect_again(other, range(1, 4))


@scenario("redelivery.consumer-gone", covers=["rule:redelivered-channel-closed"])
def a_closed_channels_consumers_are_gone(s: Session) -> None:
    connection, other = s.connect(), s.channel()
    channel = connection.channel()
    queue = s.queue(other)
    channel.consume(queue, "gone", no_ack=True)
    other.consume(queue, "stays", no_ack=True)
    channel.call("channel.close")
    publish_numbers(other, queue, 1, 4)
    check_equal(next_bodies(other, 4), [b"1", b"2", b"3", b"4"], "bodies")
    channel.reopen().expect_silence(queue)


@scenario("redelivery.acks-in-flight", covers=["method:basic.ack", "method:channel.close"])
def acks_sent_before_the_end_count(s: Session) -> None:
    connection, other = s.connect(), s.channel()
    one, two = connection.channel(), connection.channel()
    first, second = consumed_queue(s, one, 50), consumed_queue(s, two, 50)
    for tag in range(1, 50):
        one.send("basic.ack", delivery_tag=tag)
        two.send("basic.ack", delivery_tag=tag)
    one.call("channel.close")
    connection.close()
    for queue in (first, second):
        check_equal(get_redelivered(other, queue), [(b"50", True)], "messages")


@scenario(
    "redelivery.waiting-consumer", covers=["rule:requeue-position", "rule:redelivered-requeue"]
)
def waiting_consumers_get_returned_messages_before_newer_ones(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    queue = numbered_queue(s, other, 6)
    for waiting, prefetch in ((channel, 4), (other, 1)):
        waiting.call("basic.qos", prefetch_count=prefetch)
    channel.consume(queue)
    channel.deliveries(4)
    channel.call("channel.close")
    other.consume(queue)
    for number in range(1, 7):
        other.expect_delivery(b"%d" % number, delivery_tag=number, redelivered=number < 5)
        other.send("basic.ack", delivery_tag=number)

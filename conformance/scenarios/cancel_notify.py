"""basic.cancel by the broker: the queue of a consumer is gone."""

from __future__ import annotations

from conformance.failure import check_equal
from conformance.messages import consumed_queue, numbered_queue
from conformance.registry import scenario
from conformance.session import Session


@scenario("cancel-notify", covers=["rule:cancel-notify", "method:basic.cancel.server"])
def consumers_are_told_that_their_queue_was_deleted(s: Session) -> None:
    connection, other = s.connect(), s.channel()
    channel, bystander = connection.channel(), connection.channel()
    queue, stays = s.queue(other), s.queue(other)
    channel.consume(queue, "mine")
    bystander.consume(stays, "mine")
    other.call("queue.delete", queue=queue)
    channel.expect("basic.cancel", consumer_tag="mine", nowait=True)
    channel.expect_silence()
    other.publish(b"m", routing_key=stays)
    bystander.expect_delivery(b"m")


@scenario("cancel-notify.each", covers=["rule:cancel-notify"])
def each_consumer_of_the_queue_is_told(s: Session) -> None:
    connection, other = s.connect(), s.channel()
    one, two = connection.channel(), connection.channel()
    queue, stays = s.queue(other), s.queue(other)
    for channel, tag in ((one, "a"), (one, "b"), (two, "a")):
        channel.consume(queue, tag)
    one.consume(stays, "stays")
    other.call("queue.delete", queue=queue)
    told = sorted(one.expect("basic.cancel", nowait=True)["consumer_tag"] for _ in range(2))
    check_equal(told, ["a", "b"], "cancelled on the first channel")
    two.expect("basic.cancel", consumer_tag="a", nowait=True)
    other.publish(b"m", routing_key=stays)
    one.expect_delivery(b"m", consumer_tag="stays")


@scenario("cancel-notify.own-delete", covers=["rule:cancel-notify", "method:queue.delete-ok"])
def the_channel_that_deletes_is_answered_first_and_told_then(s: Session) -> None:
    channel = s.channel()
    queue = numbered_queue(s, channel, 3)
    channel.call("basic.qos", prefetch_count=1)
    channel.consume(queue, "mine")
    channel.expect_delivery(b"1")
    channel.send("queue.delete", queue=queue)
    channel.expect("queue.delete-ok", message_count=2)
    channel.expect("basic.cancel", consumer_tag="mine", nowait=True)


@scenario("cancel-notify.without-capability", covers=["rule:no-cancel-without-capability"])
def without_the_capability_the_end_is_silent(s: Session) -> None:
    other = s.channel()
    for capabilities in ({}, {"consumer_cancel_notify": False}, {"basic.nack": True}):
        channel = s.channel(capabilities=capabilities)
        queue = s.queue(other)
        channel.consume(queue, "mine")
        other.call("queue.delete", queue=queue)
        channel.expect_silence()
        other.declare_queue(queue)
        channel.consume(queue, "mine", no_ack=True)
        other.publish(b"m", routing_key=queue)
        channel.expect_delivery(b"m", consumer_tag="mine")


@scenario("cancel-notify.tag-free", covers=["rule:cancel-notify", "rule:cancel-unknown-tag"])
def the_cancelled_tag_is_free_and_unknown(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    queue = s.queue(other)
    channel.consume(queue, "mine")
    other.call("queue.delete", queue=queue)
    channel.expect("basic.cancel", consumer_tag="mine")
    channel.send("basic.cancel", consumer_tag="mine")
    channel.expect("basic.cancel-ok", consumer_tag="mine")
    other.declare_queue(queue)
    channel.consume(queue, "mine")
    other.publish(b"m", routing_key=queue)
    channel.expect_delivery(b"m", consumer_tag="mine")


@scenario("cancel-notify.unacked", covers=["rule:cancel-notify", "method:basic.ack"])
def what_was_delivered_before_can_still_be_acked_once(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    queue = consumed_queue(s, channel, 3, "mine")
    other.call("queue.delete", queue=queue)
    channel.expect("basic.cancel", consumer_tag="mine")
    channel.send("basic.ack", delivery_tag=2, multiple=True)
    channel.send("basic.nack", delivery_tag=3, requeue=True)
    channel.expect_silence()
    channel.send("basic.ack", delivery_tag=3)
    channel.expect_close(406, "PRECONDITION_FAILED - unknown delivery tag 3", "basic.ack")


@scenario("cancel-notify.limits", covers=["rule:cancel-notify", "rule:qos-global"])
def messages_of_a_deleted_queue_count_on_the_channels_limit_until_settled(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    first, second = numbered_queue(s, channel, 2), numbered_queue(s, channel, 3)
    channel.call("basic.qos", prefetch_count=2, global_=True)
    channel.consume(first, "first")
    channel.deliveries(2)
    channel.consume(second, "second")
    other.call("queue.delete", queue=first)
    channel.expect("basic.cancel", consumer_tag="first")
    channel.expect_silence(second)
    channel.send("basic.ack", delivery_tag=1)
    channel.expect_delivery(b"1", consumer_tag="second")
    channel.expect_silence(second)


@scenario("cancel-notify.exclusive-queue", covers=["rule:cancel-notify"])
def other_channels_of_the_connection_are_told_as_well(s: Session) -> None:
    connection = s.connect()
    one, two = connection.channel(), connection.channel()
    queue = s.queue(one, exclusive=True)
    two.consume(queue, "mine")
    one.call("queue.delete", queue=queue)
    two.expect("basic.cancel", consumer_tag="mine", nowait=True)


@scenario("cancel-notify.answered", covers=["error:unimplemented-method"])
def a_cancel_ok_from_the_client_is_no_method_a_broker_takes(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    queue = s.queue(other)
    channel.consume(queue, "mine")
    other.call("queue.delete", queue=queue)
    channel.expect("basic.cancel", consumer_tag="mine", nowait=True)
    channel.send("basic.cancel-ok", consumer_tag="mine")
    text = "COMMAND_INVALID - unimplemented method"
    channel.connection.expect_close(503, text, "basic.cancel-ok")

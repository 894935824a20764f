"""Auto-delete queues: what their last consumer takes with it."""

from __future__ import annotations

from conformance.channel import Channel
from conformance.failure import check_equal
from conformance.messages import next_bodies, numbered_queue, publish_numbers
from conformance.registry import scenario
from conformance.session import Session


def _expect_gone(channel: Channel, queue: str) -> None:
    channel.send("queue.declare", queue=queue, passive=True)
    text = f"NOT_FOUND - no queue '{queue}' in vhost '/'"
    channel.expect_close(404, text, "queue.declare")
    channel.reopen()


@scenario("auto-delete.last", covers=["rule:auto-delete-last-consumer"])
def the_queue_stays_until_consumers_of_all_channels_are_gone(s: Session) -> None:
    one, two, other = s.channel(), s.channel(), s.channel()
    queue = s.queue(other, auto_delete=True)
    one.consume(queue, "mine")
    two.consume(queue, "mine")
    one.call("basic.cancel", consumer_tag="mine")
    check_equal(other.consumer_count(queue), 1, "consumers")
    two.call("basic.cancel", consumer_tag="mine")
    _expect_gone(other, queue)


@scenario("auto-delete.nowait", covers=["rule:auto-delete-last-consumer", "nowait:basic.cancel"])
def a_cancel_with_nowait_deletes_the_queue_as_well(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel, auto_delete=True)
    channel.send("basic.consume", queue=queue, consumer_tag="mine", nowait=True)
    channel.send("basic.cancel", consumer_tag="mine", nowait=True)
    _expect_gone(channel, queue)


@scenario("auto-delete.connection", covers=["rule:auto-delete-last-consumer"])
def the_queue_goes_with_the_connection_of_its_last_consumer(s: Session) -> None:
    consumer, other = s.channel(), s.channel()
    queue = s.queue(other, auto_delete=True)
    consumer.consume(queue)
    consumer.connection.close()
    _expect_gone(other, queue)


@scenario("auto-delete.channel-error", covers=["rule:auto-delete-last-consumer"])
def the_queue_goes_with_a_channel_error(s: Session) -> None:
    consumer, other = s.channel(), s.channel()
    queue = s.queue(other, auto_delete=True)
    consumer.consume(queue)
    consumer.send("basic.ack", delivery_tag=1)
    consumer.expect_close(406, "PRECONDITION_FAILED - unknown delivery tag 1", "basic.ack")
    _expect_gone(other, queue)


@scenario("auto-delete.messages", covers=["rule:auto-delete-last-consumer"])
def messages_and_bindings_go_with_the_queue(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "fanout")
    queue = numbered_queue(s, channel, 5, auto_delete=True)
    channel.bind(queue, exchange)
    channel.call("basic.qos", prefetch_count=1)
    channel.consume(queue, "mine")
    channel.expect_delivery(b"1")
    channel.call("basic.cancel", consumer_tag="mine")
    for name, key in ((exchange, "any"), ("", queue)):
        channel.publish(b"m", name, key, mandatory=True)
        channel.expect("basic.return", exchange=name, routing_key=key)
    channel.send("basic.ack", delivery_tag=1)
    channel.expect_silence()
    channel.declare_queue(queue, auto_delete=True)
    check_equal(channel.get_all(queue), [], "messages of the queue that was declared anew")


@scenario("auto-delete.get", covers=["rule:auto-delete-never-consumed"])
def get_is_no_consumer(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    queue = numbered_queue(s, channel, 2, auto_delete=True)
    channel.get(queue, no_ack=False)
    channel.call("channel.close")
    other.consume(queue)
    check_equal(sorted(next_bodies(other, 2)), [b"1", b"2"], "messages left")


@scenario("auto-delete.refused-consumer", covers=["rule:auto-delete-never-consumed"])
def a_consumer_that_was_refused_does_not_count(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    queue = numbered_queue(s, channel, 1, auto_delete=True)
    channel.send("basic.consume", queue=queue, arguments={"x-priority": "high"})
    channel.expect_close(
        406,
        f"PRECONDITION_FAILED - invalid arg 'x-priority' for queue '{queue}' in vhost '/': "
        '"expected integer, got longstr"',
        "basic.consume",
    )
    check_equal(other.get_all(queue), [b"1"], "messages left")


@scenario("auto-delete.exclusive", covers=["rule:auto-delete-last-consumer"])
def an_exclusive_queue_goes_with_its_last_consumer_too(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel, exclusive=True, auto_delete=True)
    publish_numbers(channel, queue, 1, 1)
    channel.consume(queue, "mine")
    channel.expect_delivery(b"1")
    channel.call("basic.cancel", consumer_tag="mine")
    _expect_gone(channel, queue)


@scenario("auto-delete.cancel-notify", covers=["rule:auto-delete-last-consumer"])
def the_last_consumer_is_not_told_of_the_end_it_brought(s: Session) -> None:
    connection = s.connect()
    channel, other = connection.channel(), connection.channel()
    queue = s.queue(channel, auto_delete=True)
    channel.consume(queue, "mine")
    channel.call("basic.cancel", consumer_tag="mine")
    _expect_gone(other, queue)
    channel.expect_silence()

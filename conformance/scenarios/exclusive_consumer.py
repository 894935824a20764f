"""basic.consume with exclusive: a consumer that is alone on its queue."""

from __future__ import annotations

from conformance.channel import Channel
from conformance.failure import check_equal
from conformance.messages import numbered_queue
from conformance.registry import scenario
from conformance.session import Session


def _expect_in_use(channel: Channel, queue: str, **consume: bool) -> None:
    """basic.consume is refused; the channel is open again afterwards."""
    channel.send("basic.consume", queue=queue, **consume)
    text = f"ACCESS_REFUSED - queue '{queue}' in vhost '/' in exclusive use"
    channel.expect_close(403, text, "basic.consume")
    channel.reopen()


@scenario("exclusive.second", covers=["rule:exclusive-consumer", "error:exclusive-consumer-second"])
def nobody_consumes_beside_an_exclusive_consumer(s: Session) -> None:
    connection, other = s.connect(), s.channel()
    owner, same_connection = connection.channel(), connection.channel()
    queue = s.queue(owner)
    owner.consume(queue, "alone", exclusive=True)
    for channel in (other, same_connection):
        for exclusive in (False, True):
            for nowait in (False, True):
                _expect_in_use(channel, queue, exclusive=exclusive, nowait=nowait)
    owner.publish(b"m", routing_key=queue)
    owner.expect_delivery(b"m", consumer_tag="alone")


@scenario("exclusive.late", covers=["rule:exclusive-consumer", "error:exclusive-consumer-second"])
def exclusive_is_refused_where_others_consume(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    queue = s.queue(channel)
    channel.consume(queue, "first")
    _expect_in_use(other, queue, exclusive=True)
    other.consume(queue, "second")
    check_equal(other.consumer_count(queue), 2, "consumers")


@scenario("exclusive.same-channel", covers=["error:exclusive-consumer-second"])
def the_channel_of_the_exclusive_consumer_is_no_exception(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    queue = numbered_queue(s, channel, 1)
    channel.consume(queue, "alone", exclusive=True)
    channel.expect_delivery(b"1")
    _expect_in_use(channel, queue)
    other.consume(queue, "after", exclusive=True)
    other.expect_delivery(b"1", redelivered=True)


@scenario("exclusive.free-again", covers=["rule:exclusive-consumer"])
def the_queue_is_free_when_the_exclusive_consumer_went(s: Session) -> None:
    other = s.channel()
    queue = s.queue(other)
    cancels, closes, ends = s.channel(), s.channel(), s.channel()
    cancels.consume(queue, "alone", exclusive=True)
    cancels.call("basic.cancel", consumer_tag="alone")
    closes.consume(queue, exclusive=True)
    closes.call("channel.close")
    ends.consume(queue, exclusive=True)
    ends.connection.close()
    other.consume(queue, "one")
    other.consume(queue, "two")
    other.publish(b"m", routing_key=queue)
    other.expect_delivery(b"m")


@scenario("exclusive.get", covers=["rule:exclusive-consumer", "method:basic.get"])
def get_is_possible_beside_an_exclusive_consumer(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    queue = numbered_queue(s, channel, 2)
    channel.call("basic.qos", prefetch_count=1)
    channel.consume(queue, exclusive=True)
    channel.expect_delivery(b"1")
    got = other.get(queue)
    check_equal(got and got.body, b"2", "body")


@scenario("exclusive.checked-after-tag", covers=["error:exclusive-consumer-second"])
def a_queue_of_its_own_may_have_an_exclusive_consumer(s: Session) -> None:
    connection = s.connect()
    one, two = connection.channel(), connection.channel()
    queue = s.queue(one, exclusive=True)
    one.consume(queue, "plain")
    two.consume(queue, "plain too")
    _expect_in_use(two, queue, exclusive=True)
    one.call("basic.cancel", consumer_tag="plain")
    two.consume(queue, "alone", exclusive=True)
    _expect_in_use(one, queue)

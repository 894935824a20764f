"""Messages that expire at once unless a consumer is ready: a TTL of 0."""

from __future__ import annotations

from conformance.dead_letters import (
    how_it_died,
    let_pass,
    mortal_queue,
    publish_confirmed,
)
from conformance.failure import check_equal
from conformance.messages import next_bodies, publish_at_once
from conformance.registry import scenario
from conformance.session import Session


@scenario("expiry.zero.nobody", covers=["expiry:zero", "expiry:confirmed"])
def ttl_0_without_a_consumer_expires_and_is_confirmed(s: Session) -> None:
    channel = s.channel()
    of_queue = mortal_queue(s, channel, {"x-message-ttl": 0})
    of_message = mortal_queue(s, channel)
    channel.call("confirm.select")
    for mortal in (of_queue, of_message):
        expiration = {} if mortal is of_queue else {"expiration": "0"}
        channel.publish(b"m", "", mortal.queue, mandatory=True, properties=expiration)
    check_equal(channel.confirms({1, 2}), ({1, 2}, set()), "acked and nacked")
    for mortal in (of_queue, of_message):
        (letter,) = mortal.expect(b"m")
        check_equal(how_it_died(letter), [(mortal.queue, "expired", 1)], "x-death")
        check_equal(channel.get(mortal.queue), None, "what is left")


@scenario("expiry.zero.ready", covers=["expiry:zero"])
def ttl_0_is_delivered_to_a_consumer_that_is_ready(s: Session) -> None:
    channel, sender = s.channel(), s.channel()
    of_queue = mortal_queue(s, channel, {"x-message-ttl": 0})
    of_message = mortal_queue(s, channel)
    for mortal, properties in ((of_queue, {}), (of_message, {"expiration": "0"})):
        tag = channel.consume(mortal.queue)
        for number in range(30):
            sender.publish(b"%d" % number, "", mortal.queue, properties=properties)
        check_equal(next_bodies(channel, 30), [b"%d" % n for n in range(30)], "bodies")
        channel.send("basic.ack", delivery_tag=0, multiple=True)
        channel.call("basic.cancel", consumer_tag=tag)
    of_message.expect_none(channel)


@scenario("expiry.zero.one-write", covers=["expiry:zero"])
def ttl_0_in_one_write_reaches_a_ready_consumer(s: Session) -> None:
    channel, sender = s.channel(), s.channel()
    queue = s.queue(channel, arguments={"x-message-ttl": 0})
    channel.consume(queue, no_ack=True)
    bodies = publish_at_once(sender, queue, 50)
    check_equal(next_bodies(channel, 50), bodies, "bodies")


@scenario("expiry.zero.full", covers=["expiry:zero"])
def ttl_0_expires_where_the_consumer_has_no_room(s: Session) -> None:
    channel, sender = s.channel(), s.channel()
    mortal = mortal_queue(s, channel, {"x-message-ttl": 0})
    channel.call("basic.qos", prefetch_count=1)
    channel.consume(mortal.queue)
    publish_confirmed(sender, mortal.queue, b"1", b"2", b"3")
    channel.expect_delivery(b"1")
    mortal.expect(b"2", b"3")
    channel.send("basic.ack", delivery_tag=1)
    channel.expect_silence(mortal.queue)


@scenario("expiry.zero.requeued", covers=["expiry:zero", "expiry:requeued"])
def ttl_0_expires_when_it_is_requeued(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    mortal = mortal_queue(s, channel, {"x-message-ttl": 0})
    channel.consume(mortal.queue, "first")
    publish_confirmed(other, mortal.queue, b"m")
    channel.expect_delivery(b"m")
    let_pass(s, 10)
    channel.call("basic.cancel", consumer_tag="first")
    channel.send("basic.nack", delivery_tag=1, requeue=True)
    mortal.expect(b"m")
    check_equal(channel.get(mortal.queue), None, "what is left")

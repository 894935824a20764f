"""basic.cancel by the client; `cancel_notify` has the broker's."""

from __future__ import annotations

from conformance.failure import check, check_equal
from conformance.messages import consumed_queue, get_redelivered, next_bodies, numbered_queue
from conformance.registry import scenario
from conformance.session import Session


@scenario("cancel", covers=["method:basic.cancel", "method:basic.cancel-ok"])
def a_cancelled_consumer_gets_nothing_more(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    channel.consume(queue, "mine", no_ack=True)
    channel.publish(b"before", routing_key=queue)
    channel.expect_delivery(b"before")
    channel.send("basic.cancel", consumer_tag="mine")
    channel.expect("basic.cancel-ok", consumer_tag="mine")
    channel.publish(b"after", routing_key=queue)
    channel.expect_silence(queue)
    check_equal(channel.get_all(queue), [b"after"], "messages")
    check_equal(channel.consumer_count(queue), 0, "consumers")


@scenario("cancel.unknown", covers=["rule:cancel-unknown-tag"])
def cancel_of_an_unknown_tag_is_answered(s: Session) -> None:
    channel = s.channel()
    for tag in ("nobody", "", "t" * 255):
        channel.send("basic.cancel", consumer_tag=tag)
        channel.expect("basic.cancel-ok", consumer_tag=tag)
    channel.send("basic.cancel", consumer_tag="nobody", nowait=True)
    channel.expect_silence()


@scenario("cancel.twice", covers=["rule:cancel-unknown-tag"])
def cancel_twice_is_answered_twice(s: Session) -> None:
    channel = s.channel()
    channel.consume(s.queue(channel), "mine")
    for _ in range(2):
        channel.send("basic.cancel", consumer_tag="mine")
        channel.expect("basic.cancel-ok", consumer_tag="mine")


@scenario("cancel.nowait", covers=["nowait:basic.cancel"])
def cancel_with_nowait_is_not_answered(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    channel.consume(queue, "mine")
    channel.send("basic.cancel", consumer_tag="mine", nowait=True)
    channel.publish(b"m", routing_key=queue)
    channel.expect_silence(queue)
    check_equal(channel.get_all(queue), [b"m"], "messages")
    check_equal(channel.consumer_count(queue), 0, "consumers")


@scenario("cancel.other-channel", covers=["rule:cancel-unknown-tag"])
def a_tag_of_another_channel_is_unknown(s: Session) -> None:
    connection = s.connect()
    one, two = connection.channel(), connection.channel()
    queue = s.queue(one)
    one.consume(queue, "mine")
    two.send("basic.cancel", consumer_tag="mine")
    two.expect("basic.cancel-ok", consumer_tag="mine")
    two.publish(b"m", routing_key=queue)
    one.expect_delivery(b"m", consumer_tag="mine")


@scenario("cancel.one-of-two", covers=["method:basic.cancel"])
def other_consumers_of_the_queue_go_on(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    channel.consume(queue, "goes", no_ack=True)
    channel.consume(queue, "stays", no_ack=True)
    channel.call("basic.cancel", consumer_tag="goes")
    for number in range(1, 5):
        channel.publish(b"%d" % number, routing_key=queue)
        channel.expect_delivery(b"%d" % number, consumer_tag="stays")


@scenario("cancel.unacked", covers=["rule:unacked-survive-cancel"])
def unacked_messages_outlive_their_consumer(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    queue = consumed_queue(s, channel, 4, "mine")
    channel.call("basic.cancel", consumer_tag="mine")
    check_equal(other.get_all(queue), [], "ready messages after cancel")
    channel.send("basic.ack", delivery_tag=2)
    channel.send("basic.reject", delivery_tag=3, requeue=True)
    channel.expect_silence()
    check_equal(get_redelivered(other, queue), [(b"3", True)], "requeued by the channel")
    channel.call("channel.close")
    other.consume(queue)
    for body in (b"1", b"4"):
        other.expect_delivery(body, redelivered=True)
    other.expect_silence(queue)


@scenario("cancel.last-delivery", covers=["rule:cancel-ok-after-deliver"])
def nothing_is_delivered_after_cancel_ok(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    queue = numbered_queue(s, channel, 2000)
    channel.consume(queue, "mine", no_ack=True)
    channel.send("basic.cancel", consumer_tag="mine")
    delivered = []
    while (method := channel.expect("basic.deliver", "basic.cancel-ok")).name == "basic.deliver":
        delivered.append(method.body)
    other.publish(b"later", routing_key=queue)
    other.settle(queue)
    channel.expect_silence(queue)
    left = other.get_all(queue)
    check(left[-1:] == [b"later"], f"message published after cancel-ok is lost: {left[-1:]}")
    check_equal(delivered + left[:-1], [b"%d" % n for n in range(1, 2001)], "delivered and left")


@scenario("cancel.from-the-middle", covers=["rule:cancel-ok-after-deliver"])
def a_consumer_may_leave_while_another_gets_on_with_its_queue(s: Session) -> None:
    stays, leaves = s.channel(), s.channel()
    queue = s.queue(stays)
    stays.consume(queue, "stays", no_ack=True)
    leaves.consume(queue, "leaves", no_ack=True)
    for number in range(400):
        stays.publish(b"%d" % number, routing_key=queue)
    leaves.send("basic.cancel", consumer_tag="leaves")
    got = 0
    while leaves.expect("basic.deliver", "basic.cancel-ok").name == "basic.deliver":
        got += 1
    check_equal(len(next_bodies(stays, 400 - got)), 400 - got, "deliveries to the one that stays")
    stays.expect_silence(queue)
    leaves.expect_silence()

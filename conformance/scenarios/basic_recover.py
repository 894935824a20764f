"""basic.recover and basic.recover-async."""

from __future__ import annotations

from conformance.failure import check_equal
from conformance.messages import consumed_queue, get_redelivered, numbered_queue, unacked_queue
from conformance.registry import scenario
from conformance.session import Session


@scenario(
    "recover", covers=["method:basic.recover", "method:basic.recover-ok", "rule:recover-requeues"]
)
def recover_requeues_all_then_answers(s: Session) -> None:
    channel = s.channel()
    consumed_queue(s, channel, 3, "mine")
    channel.send("basic.ack", delivery_tag=2)
    channel.send("basic.recover", requeue=True)
    channel.expect("basic.recover-ok")
    for tag, body in ((4, b"1"), (5, b"3")):
        channel.expect_delivery(body, consumer_tag="mine", delivery_tag=tag, redelivered=True)
    channel.expect_silence()


@scenario("recover.async", covers=["method:basic.recover-async", "rule:recover-async-silent"])
def recover_async_requeues_all_and_does_not_answer(s: Session) -> None:
    channel = s.channel()
    consumed_queue(s, channel, 3, "mine")
    channel.send("basic.recover-async", requeue=True)
    for number in (1, 2, 3):
        channel.expect_delivery(b"%d" % number, delivery_tag=number + 3, redelivered=True)
    channel.expect_silence()


@scenario("recover.many-queues", covers=["rule:recover-requeues", "rule:requeue-position"])
def recover_returns_gets_and_deliveries_to_their_places(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    first, second = numbered_queue(s, channel, 4), numbered_queue(s, channel, 4)
    for queue in (second, first, first, second):
        channel.get(queue, no_ack=False)
    channel.call("basic.recover", requeue=True)
    expected = [(b"1", True), (b"2", True), (b"3", False), (b"4", False)]
    for queue in (first, second):
        check_equal(get_redelivered(other, queue), expected, "messages")


@scenario("recover.nothing", covers=["method:basic.recover"])
def recover_is_answered_when_nothing_is_unacked(s: Session) -> None:
    channel = s.channel()
    channel.call("basic.recover", requeue=True)
    queue = numbered_queue(s, channel, 2)
    channel.consume(queue, no_ack=True)
    channel.deliveries(2)
    channel.call("basic.recover", requeue=True)
    channel.expect_silence(queue)


@scenario("recover.own-channel", covers=["rule:recover-requeues"])
def recover_leaves_other_channels_alone(s: Session) -> None:
    connection = s.connect()
    one, two = connection.channel(), connection.channel()
    queue = consumed_queue(s, one, 2)
    two.call("basic.recover", requeue=True)
    one.expect_silence(queue)
    one.send("basic.ack", delivery_tag=2, multiple=True)
    one.expect_silence(queue)


@scenario("recover.tags", covers=["rule:recover-requeues"])
def tags_from_before_recover_are_unknown(s: Session) -> None:
    channel = s.channel()
    unacked_queue(s, channel, 2)
    channel.call("basic.recover", requeue=True)
    channel.send("basic.ack", delivery_tag=1)
    channel.expect_close(406, "PRECONDITION_FAILED - unknown delivery tag 1", "basic.ack")


@scenario("recover.without-requeue", covers=["error:recover-without-requeue"])
def recover_without_requeue_is_refused(s: Session) -> None:
    for method in ("basic.recover", "basic.recover-async"):
        channel, other = s.channel(), s.channel()
        queue = consumed_queue(s, channel, 1)
        channel.send(method, requeue=False)
        channel.connection.expect_close(540, "NOT_IMPLEMENTED - requeue=false", method)
        check_equal(get_redelivered(other, queue), [(b"1", True)], "messages")

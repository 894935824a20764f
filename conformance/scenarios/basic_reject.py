"""basic.reject."""

from __future__ import annotations

from conformance.failure import check_equal
from conformance.messages import consumed_queue, get_redelivered, unacked_queue
from conformance.registry import scenario
from conformance.session import Session


@scenario("reject.requeue", covers=["method:basic.reject", "rule:redelivered-requeue"])
def a_rejected_message_returns_to_its_queue(s: Session) -> None:
    channel = s.channel()
    queue = unacked_queue(s, channel, 3)
    channel.send("basic.reject", delivery_tag=2, requeue=True)
    check_equal(get_redelivered(channel, queue), [(b"2", True)], "messages")


@scenario("reject.drop", covers=["method:basic.reject"])
def without_requeue_a_rejected_message_is_gone(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    queue = consumed_queue(s, channel, 3)
    channel.send("basic.reject", delivery_tag=2)
    channel.call("channel.close")
    check_equal(other.get_all(queue), [b"1", b"3"], "messages left")


@scenario("reject.consumer", covers=["method:basic.reject", "rule:redelivered-requeue"])
def a_consumer_gets_again_what_it_rejected(s: Session) -> None:
    channel = s.channel()
    consumed_queue(s, channel, 3, "mine")
    channel.send("basic.reject", delivery_tag=1)
    channel.send("basic.reject", delivery_tag=2, requeue=True)
    channel.expect_delivery(b"2", consumer_tag="mine", delivery_tag=4, redelivered=True)
    channel.expect_silence()


@scenario("reject.unknown", covers=["error:unknown-delivery-tag-reject"])
def reject_of_an_unknown_tag_closes_the_channel(s: Session) -> None:
    for tag, requeue in ((1, True), (0, False), (2**64 - 1, True)):
        channel = s.channel()
        channel.send("basic.reject", delivery_tag=tag, requeue=requeue)
        text = f"PRECONDITION_FAILED - unknown delivery tag {tag}"
        channel.expect_close(406, text, "basic.reject")
        channel.reopen()


@scenario("reject.settled", covers=["error:unknown-delivery-tag-reject"])
def reject_of_a_settled_tag_closes_the_channel_and_releases_the_rest(s: Session) -> None:
    for method in ("basic.ack", "basic.nack", "basic.reject"):
        channel, other = s.channel(), s.channel()
        queue = consumed_queue(s, channel, 3)
        channel.send(method, delivery_tag=1)
        channel.send("basic.reject", delivery_tag=1, requeue=True)
        text = "PRECONDITION_FAILED - unknown delivery tag 1"
        channel.expect_close(406, text, "basic.reject")
        left = get_redelivered(other, queue)
        check_equal(left, [(b"2", True), (b"3", True)], "messages left")

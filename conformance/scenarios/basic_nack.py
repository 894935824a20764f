"""basic.nack by the client."""

from __future__ import annotations

from conformance.failure import check_equal
from conformance.messages import consumed_queue, get_redelivered, unacked_queue
from conformance.registry import scenario
from conformance.session import Session


@scenario("nack.requeue", covers=["method:basic.nack", "rule:redelivered-requeue"])
def a_nacked_message_returns_to_its_queue(s: Session) -> None:
    channel = s.channel()
    queue = unacked_queue(s, channel, 3)
    channel.send("basic.nack", delivery_tag=2, requeue=True)
    check_equal(get_redelivered(channel, queue), [(b"2", True)], "messages")


@scenario("nack.drop", covers=["method:basic.nack"])
def without_requeue_a_nacked_message_is_gone(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    queue = consumed_queue(s, channel, 3)
    channel.send("basic.nack", delivery_tag=2)
    channel.call("channel.close")
    check_equal(other.get_all(queue), [b"1", b"3"], "messages left")


@scenario("nack.multiple.requeue", covers=["method:basic.nack", "rule:requeue-position"])
def multiple_requeues_everything_up_to_the_tag(s: Session) -> None:
    channel = s.channel()
    queue = unacked_queue(s, channel, 5)
    channel.send("basic.ack", delivery_tag=2)
    channel.send("basic.nack", delivery_tag=4, multiple=True, requeue=True)
    expected = [(b"1", True), (b"3", True), (b"4", True)]
    check_equal(get_redelivered(channel, queue), expected, "messages")
    channel.send("basic.ack", delivery_tag=5)
    channel.expect_silence()


@scenario("nack.multiple.drop", covers=["method:basic.nack"])
def multiple_without_requeue_drops_everything_up_to_the_tag(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    queue = consumed_queue(s, channel, 5)
    channel.send("basic.nack", delivery_tag=3, multiple=True)
    channel.call("channel.close")
    check_equal(other.get_all(queue), [b"4", b"5"], "messages left")


@scenario("nack.zero-multiple", covers=["method:basic.nack"])
def tag_0_with_multiple_means_everything_also_nothing(s: Session) -> None:
    channel = s.channel()
    channel.send("basic.nack", delivery_tag=0, multiple=True, requeue=True)
    channel.send("basic.nack", delivery_tag=0, multiple=True)
    channel.expect_silence()
    queue = unacked_queue(s, channel, 3)
    channel.send("basic.nack", delivery_tag=0, multiple=True, requeue=True)
    for number in (1, 2, 3):
        channel.send("basic.get", queue=queue)
        got = channel.expect("basic.get-ok", delivery_tag=3 + number, redelivered=True)
        check_equal(got.body, b"%d" % number, "body")
    channel.send("basic.nack", delivery_tag=0, multiple=True)
    channel.call("channel.close")
    check_equal(channel.reopen().get_all(queue), [], "messages left")


@scenario("nack.unknown", covers=["error:unknown-delivery-tag-nack"])
def nack_of_an_unknown_tag_closes_the_channel(s: Session) -> None:
    for tag, multiple, requeue in ((1, False, True), (9, True, False), (0, False, False)):
        channel = s.channel()
        channel.send("basic.nack", delivery_tag=tag, multiple=multiple, requeue=requeue)
        text = f"PRECONDITION_FAILED - unknown delivery tag {tag}"
        channel.expect_close(406, text, "basic.nack")
        channel.reopen()


@scenario("nack.settled", covers=["error:unknown-delivery-tag-nack"])
def nack_of_a_settled_tag_closes_the_channel_and_releases_the_rest(s: Session) -> None:
    for method in ("basic.ack", "basic.nack", "basic.reject"):
        channel, other = s.channel(), s.channel()
        queue = consumed_queue(s, channel, 3)
        channel.send(method, delivery_tag=2)
        channel.send("basic.nack", delivery_tag=2, multiple=True)
        text = "PRECONDITION_FAILED - unknown delivery tag 2"
        channel.expect_close(406, text, "basic.nack")
        left = get_redelivered(other, queue)
        check_equal(left, [(b"1", True), (b"3", True)], "messages left")


@scenario("nack.consumer", covers=["method:basic.nack", "rule:redelivered-requeue"])
def a_consumer_gets_again_what_it_nacked(s: Session) -> None:
    channel = s.channel()
    consumed_queue(s, channel, 3, "mine")
    refused = 2
    for tag in range(4, 12):
        channel.send("basic.nack", delivery_tag=refused, requeue=True)
        channel.expect_delivery(b"2", consumer_tag="mine", delivery_tag=tag, redelivered=True)
        refused = tag

"""basic.ack by the client."""

from __future__ import annotations

from conformance.failure import check_equal
from conformance.messages import (
    consumed_queue,
    get_redelivered,
    next_bodies,
    numbered_queue,
    unacked_queue,
)
from conformance.registry import scenario
from conformance.session import Session


@scenario("ack", covers=["method:basic.ack"])
def an_acked_message_is_gone_and_the_others_stay(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    queue = consumed_queue(s, channel, 3)
    channel.send("basic.ack", delivery_tag=2)
    channel.call("channel.close")
    check_equal(other.get_all(queue), [b"1", b"3"], "messages left")


@scenario("ack.any-order", covers=["method:basic.ack"])
def acks_may_come_in_any_order(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    queue = consumed_queue(s, channel, 7)
    for tag in (7, 1, 4, 3, 6):
        channel.send("basic.ack", delivery_tag=tag)
    channel.call("channel.close")
    check_equal(other.get_all(queue), [b"2", b"5"], "messages left")


@scenario("ack.multiple", covers=["method:basic.ack"])
def multiple_acks_everything_up_to_the_tag(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    queue = consumed_queue(s, channel, 6)
    channel.send("basic.ack", delivery_tag=2)
    channel.send("basic.ack", delivery_tag=4, multiple=True)
    channel.send("basic.ack", delivery_tag=5, multiple=True)
    channel.call("channel.close")
    check_equal(other.get_all(queue), [b"6"], "messages left")


@scenario("ack.multiple.many-queues", covers=["method:basic.ack", "rule:get-shares-tags"])
def multiple_acks_deliveries_and_gets_of_all_queues(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    first, second = consumed_queue(s, channel, 2), numbered_queue(s, channel, 2)
    channel.get(second, no_ack=False)
    third = numbered_queue(s, channel, 2)
    channel.consume(third, "third")
    channel.deliveries(2)
    channel.send("basic.ack", delivery_tag=4, multiple=True)
    channel.call("channel.close")
    left = [other.get_all(queue) for queue in (first, third)]
    check_equal(left, [[], [b"2"]], "messages left in the queues with consumers")
    other.consume(second)
    other.expect_delivery(b"2")
    other.expect_silence(second)


@scenario("ack.multiple.no-ack-between", covers=["method:basic.ack"])
def multiple_passes_over_tags_that_need_no_ack(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    queue = numbered_queue(s, channel, 5)
    for no_ack in (False, True, False, True, False):
        channel.get(queue, no_ack=no_ack)
    channel.send("basic.ack", delivery_tag=3, multiple=True)
    channel.call("channel.close")
    other.consume(queue)
    other.expect_delivery(b"5", redelivered=True)
    other.expect_silence(queue)


@scenario("ack.zero-multiple", covers=["error:ack-zero-multiple"])
def tag_0_with_multiple_acks_everything(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    queue = consumed_queue(s, channel, 3)
    channel.send("basic.ack", delivery_tag=2)
    channel.send("basic.ack", delivery_tag=0, multiple=True)
    channel.call("channel.close")
    check_equal(other.get_all(queue), [], "messages left")


@scenario("ack.zero-multiple.nothing", covers=["error:ack-zero-multiple"])
def tag_0_with_multiple_is_fine_when_nothing_is_unacked(s: Session) -> None:
    channel = s.channel()
    channel.send("basic.ack", delivery_tag=0, multiple=True)
    channel.expect_silence()
    consumed_queue(s, channel, 2)
    for _ in range(2):
        channel.send("basic.ack", delivery_tag=0, multiple=True)
    channel.expect_silence()


@scenario("ack.zero-single", covers=["error:ack-zero-single"])
def tag_0_without_multiple_is_unknown(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    queue = consumed_queue(s, channel, 1)
    channel.send("basic.ack", delivery_tag=0)
    channel.expect_close(406, "PRECONDITION_FAILED - unknown delivery tag 0", "basic.ack")
    check_equal(other.get_all(queue), [b"1"], "messages left")


@scenario("ack.unknown", covers=["error:unknown-delivery-tag-ack"])
def ack_of_a_tag_never_given_out_closes_the_channel(s: Session) -> None:
    for tag, multiple in ((1, False), (7, True), (2**64 - 1, False), (2**63, True)):
        channel = s.channel()
        channel.send("basic.ack", delivery_tag=tag, multiple=multiple)
        text = f"PRECONDITION_FAILED - unknown delivery tag {tag}"
        channel.expect_close(406, text, "basic.ack")
        channel.reopen()


@scenario("ack.twice", covers=["error:double-ack"])
def ack_of_a_settled_tag_closes_the_channel(s: Session) -> None:
    for method in ("basic.ack", "basic.nack", "basic.reject"):
        channel, other = s.channel(), s.channel()
        queue = consumed_queue(s, channel, 2)
        channel.send(method, delivery_tag=1)
        channel.send("basic.ack", delivery_tag=1)
        text = "PRECONDITION_FAILED - unknown delivery tag 1"
        channel.expect_close(406, text, "basic.ack")
        check_equal(get_redelivered(other, queue), [(b"2", True)], "messages left")


@scenario("ack.multiple.beyond", covers=["error:unknown-delivery-tag-ack"])
def multiple_beyond_the_last_tag_acks_nothing(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    queue = consumed_queue(s, channel, 3)
    channel.send("basic.ack", delivery_tag=4, multiple=True)
    channel.expect_close(406, "PRECONDITION_FAILED - unknown delivery tag 4", "basic.ack")
    check_equal(other.get_all(queue), [b"1", b"2", b"3"], "messages left")


@scenario("ack.multiple.settled", covers=["error:double-ack"])
def multiple_with_a_settled_tag_acks_nothing(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    queue = consumed_queue(s, channel, 3)
    channel.send("basic.ack", delivery_tag=2)
    channel.send("basic.ack", delivery_tag=2, multiple=True)
    channel.expect_close(406, "PRECONDITION_FAILED - unknown delivery tag 2", "basic.ack")
    check_equal(other.get_all(queue), [b"1", b"3"], "messages left")


@scenario("ack.no-ack", covers=["error:unknown-delivery-tag-ack"])
def deliveries_to_a_no_ack_consumer_cannot_be_acked(s: Session) -> None:
    for multiple in (False, True):
        channel = s.channel()
        queue = numbered_queue(s, channel, 3)
        channel.consume(queue, no_ack=True)
        channel.deliveries(3)
        channel.send("basic.ack", delivery_tag=0, multiple=True)
        channel.expect_silence()
        channel.send("basic.ack", delivery_tag=2, multiple=multiple)
        text = "PRECONDITION_FAILED - unknown delivery tag 2"
        channel.expect_close(406, text, "basic.ack")


@scenario("ack.other-channel", covers=["error:unknown-delivery-tag-ack"])
def tags_belong_to_their_channel(s: Session) -> None:
    connection = s.connect()
    one, two = connection.channel(), connection.channel()
    queue = consumed_queue(s, one, 2)
    two.send("basic.ack", delivery_tag=1)
    two.expect_close(406, "PRECONDITION_FAILED - unknown delivery tag 1", "basic.ack")
    one.send("basic.ack", delivery_tag=1)
    one.call("channel.close")
    check_equal(two.reopen().get_all(queue), [b"2"], "messages left")


@scenario("ack.tags-restart", covers=["method:basic.ack", "error:unknown-delivery-tag-ack"])
def a_reopened_channel_counts_from_1_and_forgot_the_old_tags(s: Session) -> None:
    channel = s.channel()
    queue = consumed_queue(s, channel, 3)
    channel.call("channel.close")
    channel.reopen().consume(queue)
    for number in (1, 2, 3):
        channel.expect_delivery(b"%d" % number, delivery_tag=number, redelivered=True)
    channel.call("channel.close")
    channel.reopen().send("basic.ack", delivery_tag=1)
    channel.expect_close(406, "PRECONDITION_FAILED - unknown delivery tag 1", "basic.ack")


@scenario("ack.error-releases", covers=["error:double-ack", "rule:channel-error-releases"])
def a_wrong_ack_gives_back_what_was_unacked_and_ends_the_consumer(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    queue = consumed_queue(s, channel, 3)
    channel.send("basic.ack", delivery_tag=1)
    channel.send("basic.ack", delivery_tag=1)
    channel.send("basic.ack", delivery_tag=2)
    channel.expect_close(406, "PRECONDITION_FAILED - unknown delivery tag 1", "basic.ack")
    check_equal(other.consumer_count(queue), 0, "consumers")
    check_equal(get_redelivered(other, queue), [(b"2", True), (b"3", True)], "messages left")
    channel.reopen()
    other.publish(b"later", routing_key=queue)
    other.settle(queue)
    channel.expect_silence()


@scenario("ack.queue-deleted", covers=["method:basic.ack"])
def messages_of_a_deleted_queue_can_still_be_settled(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    queue = unacked_queue(s, channel, 3)
    other.call("queue.delete", queue=queue)
    channel.send("basic.ack", delivery_tag=1)
    channel.send("basic.reject", delivery_tag=2, requeue=True)
    channel.send("basic.nack", delivery_tag=3, requeue=True)
    channel.expect_silence()
    channel.send("basic.ack", delivery_tag=3)
    channel.expect_close(406, "PRECONDITION_FAILED - unknown delivery tag 3", "basic.ack")


@scenario("ack.runs", covers=["method:basic.ack"])
def a_run_of_single_acks_counts_each(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    queue = numbered_queue(s, channel, 1000)
    channel.call("basic.qos", prefetch_count=100)
    channel.consume(queue)
    for start in range(1, 1001, 50):
        expected = [b"%d" % number for number in range(start, start + 50)]
        check_equal(next_bodies(channel, 50), expected, "bodies")
        for tag in range(start, start + 50):
            if tag != 777:
                channel.send("basic.ack", delivery_tag=tag)
    channel.call("channel.close")
    check_equal(get_redelivered(other, queue), [(b"777", True)], "messages left")

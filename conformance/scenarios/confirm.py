"""Publisher confirms. Which tags are settled counts, not how acks are grouped."""

from __future__ import annotations

from conformance.channel import Channel
from conformance.failure import check_equal
from conformance.registry import scenario
from conformance.session import Session


def _confirming(s: Session) -> Channel:
    channel = s.channel()
    channel.call("confirm.select")
    return channel


def _expect_acked(channel: Channel, *tags: int) -> None:
    check_equal(channel.confirms(tags), (set(tags), set()), "acked and nacked")


@scenario(
    "confirm.select",
    covers=["method:confirm.select", "method:confirm.select-ok", "nowait:confirm.select"],
)
def select_is_answered_unless_nowait(s: Session) -> None:
    channel = s.channel()
    channel.call("confirm.select")
    channel = s.channel()
    channel.send("confirm.select", nowait=True)
    channel.expect_silence()
    channel.publish(b"x", routing_key=s.name("nowhere"))
    _expect_acked(channel, 1)


@scenario("confirm.select.twice", covers=["rule:confirm-select-twice"])
def selecting_again_does_not_reset_the_count(s: Session) -> None:
    channel = _confirming(s)
    queue = s.queue(channel)
    channel.publish(b"1", routing_key=queue)
    _expect_acked(channel, 1)
    channel.call("confirm.select")
    channel.publish(b"2", routing_key=queue)
    _expect_acked(channel, 2)


@scenario(
    "confirm.tags",
    covers=["rule:confirm-tags", "method:basic.ack.server", "rule:unroutable-acked"],
)
def tags_count_every_publish_from_select_on(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    channel.publish(b"before", routing_key=queue)
    channel.call("confirm.select")
    for n in range(1, 51):
        target = queue if n % 3 else s.name("nowhere")
        channel.publish(b"%d" % n, routing_key=target)
    _expect_acked(channel, *range(1, 51))
    channel.expect_silence(queue)


@scenario("confirm.not-selected", covers=["method:confirm.select"])
def without_select_there_are_no_confirms(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    channel.publish(b"1", routing_key=queue)
    channel.publish(b"2", routing_key=s.name("nowhere"))
    channel.expect_silence(queue)


@scenario("confirm.queues", covers=["rule:confirm-tags"])
def messages_of_every_kind_are_confirmed(s: Session) -> None:
    channel = _confirming(s)
    transient = s.queue(channel)
    durable = s.queue(channel, durable=True)
    exchange = s.exchange(channel, "fanout")
    for queue in (transient, durable):
        channel.bind(queue, exchange)
    tag = 0
    for properties in (b"\0\0", {"delivery_mode": 2}, {"delivery_mode": 1}, {"priority": 3}):
        for target, key in (("", transient), ("", durable), (exchange, "")):
            tag += 1
            channel.publish(b"x" * 1000, target, key, properties=properties)
    _expect_acked(channel, *range(1, tag + 1))
    check_equal(channel.message_count(durable), 8, "messages in the durable queue")


@scenario("confirm.consumed-at-once", covers=["rule:confirm-tags"])
def messages_that_are_consumed_at_once_are_confirmed(s: Session) -> None:
    channel = _confirming(s)
    queue = s.queue(channel)
    consumer = s.channel()
    consumer.consume(queue)
    for n in range(1, 11):
        channel.publish(b"%d" % n, routing_key=queue)
    _expect_acked(channel, *range(1, 11))
    check_equal(len(consumer.deliveries(10)), 10, "deliveries")


@scenario("confirm.own-consumer", covers=["rule:confirm-tags"])
def confirms_and_deliveries_share_a_channel(s: Session) -> None:
    channel = _confirming(s)
    queue = s.queue(channel)
    channel.consume(queue, no_ack=True)
    channel.publish(b"x", routing_key=queue)
    names = sorted(channel.next_method().name for _ in range(2))
    check_equal(names, ["basic.ack", "basic.deliver"], "what came")


@scenario("confirm.queue-deleted", covers=["rule:confirm-after-queue-deleted"])
def a_queue_that_is_deleted_meanwhile_counts_as_confirmed(s: Session) -> None:
    channel = _confirming(s)
    deleter = s.channel()
    for _ in range(10):
        queue = s.queue(channel, durable=True)
        deleter.send("queue.delete", queue=queue)
        for _ in range(20):
            channel.publish(b"x", routing_key=queue, properties={"delivery_mode": 2})
        deleter.expect("queue.delete-ok")
        _expect_acked(channel, *range(1, 21))
        channel.call("channel.close")
        channel.reopen()
        channel.call("confirm.select")


@scenario("confirm.large", covers=["rule:confirm-tags"])
def a_window_of_a_thousand_is_confirmed(s: Session) -> None:
    channel = _confirming(s)
    queue = s.queue(channel, durable=True)
    for _ in range(1000):
        channel.publish(b"x" * 100, routing_key=queue, properties={"delivery_mode": 2})
    _expect_acked(channel, *range(1, 1001))
    check_equal(channel.message_count(queue), 1000, "messages")


@scenario("confirm.error-afterwards", covers=["rule:channel-error-releases"])
def a_publish_that_fails_closes_the_channel_after_earlier_ones_were_taken(s: Session) -> None:
    channel = _confirming(s)
    queue = s.queue(channel)
    channel.publish(b"1", routing_key=queue)
    _expect_acked(channel, 1)
    missing = s.name("missing")
    channel.publish(b"2", missing)
    text = f"NOT_FOUND - no exchange '{missing}' in vhost '/'"
    channel.expect_close(404, text, "basic.publish")
    channel.reopen()
    check_equal(channel.get_all(queue), [b"1"], "bodies")


@scenario("confirm.transactional", covers=["error:confirm-on-tx-channel"])
def a_transactional_channel_cannot_confirm(s: Session) -> None:
    for nowait in (False, True):
        channel = s.channel()
        channel.call("tx.select")
        channel.send("confirm.select", nowait=nowait)
        text = "PRECONDITION_FAILED - cannot switch from tx to confirm mode"
        channel.expect_close(406, text, "confirm.select")

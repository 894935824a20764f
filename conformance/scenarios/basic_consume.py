"""basic.consume and basic.deliver."""

from __future__ import annotations

import re

from conformance.failure import check, check_equal
from conformance.fields import double, void
from conformance.messages import next_bodies, numbered_queue, publish_numbers
from conformance.registry import scenario
from conformance.session import Session

_GENERATED_TAG = re.compile(r"amq\.ctag-[A-Za-z0-9_-]{22}")


@scenario("consume.deliver", covers=["method:basic.consume", "method:basic.deliver"])
def deliveries_tell_consumer_tag_number_exchange_and_key(s: Session) -> None:
    channel = s.channel()
    queue, exchange = s.queue(channel), s.exchange(channel, "topic")
    channel.bind(queue, exchange, "a.#")
    check_equal(channel.consume(queue, "mine"), "mine", "consumer tag of consume-ok")
    for number, key in enumerate(("a", "a.b", "a.b.c"), start=1):
        channel.publish(key.encode(), exchange, key)
        channel.expect_delivery(
            key.encode(),
            consumer_tag="mine",
            delivery_tag=number,
            redelivered=False,
            exchange=exchange,
            routing_key=key,
        )


@scenario(
    "consume.ok-first",
    covers=["method:basic.consume-ok", "rule:consume-ok-before-deliver"],
)
def consume_ok_comes_before_what_waits_in_the_queue(s: Session) -> None:
    channel = s.channel()
    queue = numbered_queue(s, channel, 10)
    channel.send("basic.consume", queue=queue, consumer_tag="mine")
    channel.expect("basic.consume-ok", consumer_tag="mine")
    check_equal(next_bodies(channel, 10), [b"%d" % n for n in range(1, 11)], "bodies")


@scenario("consume.tag.generated", covers=["rule:consumer-tag-generated"])
def an_empty_consumer_tag_is_replaced_by_a_generated_one(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    tags = [channel.consume(queue) for _ in range(3)]
    for tag in tags:
        check(bool(_GENERATED_TAG.fullmatch(tag)), f"consumer tag {tag!r} has another form")
    check_equal(len(set(tags)), 3, "different tags")


@scenario("consume.nowait", covers=["nowait:basic.consume", "rule:nowait-consume-tag"])
def consume_with_nowait_is_not_answered_but_has_a_tag(s: Session) -> None:
    channel = s.channel()
    queue = numbered_queue(s, channel, 1)
    channel.send("basic.consume", queue=queue, nowait=True)
    tag = channel.expect_delivery(b"1", delivery_tag=1)["consumer_tag"]
    check(bool(_GENERATED_TAG.fullmatch(tag)), f"consumer tag {tag!r} has another form")
    channel.call("basic.cancel", consumer_tag=tag)
    check_equal(channel.consumer_count(queue), 0, "consumers")


@scenario("consume.nowait.tag", covers=["nowait:basic.consume"])
def consume_with_nowait_keeps_the_tag_it_names(s: Session) -> None:
    channel = s.channel()
    queue = numbered_queue(s, channel, 2)
    channel.send("basic.consume", queue=queue, consumer_tag="mine", nowait=True)
    for number in (1, 2):
        channel.expect_delivery(b"%d" % number, consumer_tag="mine", delivery_tag=number)


@scenario("consume.tag.reused", covers=["error:consumer-tag-reused"])
def a_consumer_tag_in_use_ends_the_connection(s: Session) -> None:
    for tag, nowait in (("mine", False), ("é'~s\n", False), ("quiet", True)):
        channel = s.channel()
        queue = s.queue(channel)
        channel.send("basic.consume", queue=queue, consumer_tag=tag, nowait=nowait)
        if not nowait:
            channel.expect("basic.consume-ok")
        channel.send("basic.consume", queue=queue, consumer_tag=tag, nowait=nowait)
        text = f"NOT_ALLOWED - attempt to reuse consumer tag '{tag}'"
        channel.connection.expect_close(530, text, "basic.consume")


@scenario("consume.tag.reused.long", covers=["error:consumer-tag-reused", "rule:error-text-cut"])
def a_long_consumer_tag_is_cut_in_the_reply_text(s: Session) -> None:
    channel, tag = s.channel(), "t" * 255
    queue = s.queue(channel)
    channel.consume(queue, tag)
    channel.send("basic.consume", queue=queue, consumer_tag=tag)
    text = f"NOT_ALLOWED - attempt to reuse consumer tag '{tag}'"[:252] + "..."
    channel.connection.expect_close(530, text, "basic.consume")


@scenario("consume.tag.reused.first", covers=["error:consumer-tag-reused"])
def the_tag_is_checked_before_the_queue(s: Session) -> None:
    channel = s.channel()
    channel.consume(s.queue(channel), "mine")
    channel.send("basic.consume", queue=s.name("missing"), consumer_tag="mine")
    text = "NOT_ALLOWED - attempt to reuse consumer tag 'mine'"
    channel.connection.expect_close(530, text, "basic.consume")


@scenario("consume.tag.free-again", covers=["method:basic.consume", "method:basic.cancel"])
def a_cancelled_consumers_tag_can_be_used_again(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    for number in range(1, 4):
        channel.consume(queue, "mine")
        channel.publish(b"%d" % number, routing_key=queue)
        channel.expect_delivery(b"%d" % number, consumer_tag="mine", delivery_tag=number)
        channel.call("basic.cancel", consumer_tag="mine")


@scenario("consume.tag.per-channel", covers=["method:basic.consume"])
def two_channels_may_use_the_same_tag(s: Session) -> None:
    connection = s.connect()
    one, two = connection.channel(), connection.channel()
    first, second = s.queue(one), s.queue(two)
    one.consume(first, "same")
    two.consume(second, "same")
    one.publish(b"to two", routing_key=second)
    two.expect_delivery(b"to two", consumer_tag="same")
    one.call("basic.cancel", consumer_tag="same")
    two.publish(b"still", routing_key=second)
    two.expect_delivery(b"still", consumer_tag="same", delivery_tag=2)


@scenario("consume.tag.any", covers=["method:basic.consume"])
def consumer_tags_are_any_text_of_255_octets(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    for tag in ("t" * 255, "é☃" * 51, "\r\n", " ", "\x00", "o'~p\"", "amq.ctag-x", "amq.gen"):
        check_equal(channel.consume(queue, tag, no_ack=True), tag, "consumer tag")
        channel.publish(b"m", routing_key=queue)
        channel.expect_delivery(b"m", consumer_tag=tag)
        channel.call("basic.cancel", consumer_tag=tag)


@scenario("consume.missing-queue", covers=["error:missing-queue-consume"])
def consume_from_a_missing_queue_closes_the_channel(s: Session) -> None:
    channel, missing = s.channel(), s.name("missing")
    channel.send("basic.consume", queue=missing)
    channel.expect_close(404, f"NOT_FOUND - no queue '{missing}' in vhost '/'", "basic.consume")
    channel.reopen()


@scenario(
    "consume.missing-queue.nowait",
    covers=["error:missing-queue-consume", "rule:nowait-errors-close"],
)
def errors_of_consume_with_nowait_close_the_channel(s: Session) -> None:
    channel, missing = s.channel(), s.name("missing")
    channel.send("basic.consume", queue=missing, consumer_tag="mine", nowait=True)
    channel.expect_close(404, f"NOT_FOUND - no queue '{missing}' in vhost '/'", "basic.consume")


@scenario(
    "consume.last-queue",
    covers=["rule:last-queue-remembered", "error:no-previously-declared-queue"],
)
def an_empty_queue_name_means_the_last_declared_queue(s: Session) -> None:
    connection = s.connect()
    channel, fresh = connection.channel(), connection.channel()
    s.queue(channel)
    queue = s.queue(channel)
    channel.consume("", "mine")
    channel.publish(b"m", routing_key=queue)
    channel.expect_delivery(b"m", routing_key=queue)
    fresh.send("basic.consume")
    fresh.expect_close(404, "NOT_FOUND - no previously declared queue", "basic.consume")


@scenario("consume.locked", covers=["error:locked-consume"])
def consume_from_another_connections_exclusive_queue_is_refused(s: Session) -> None:
    owner, other = s.channel(), s.channel()
    queue = s.queue(owner, exclusive=True)
    other.send("basic.consume", queue=queue)
    text = (
        f"RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{queue}' in vhost '/'. "
        "It could be originally declared on another connection or the exclusive property value "
        "does not match that of the original declaration."
    )
    other.expect_close(405, text[:252] + "..." if len(text) > 255 else text, "basic.consume")
    second = owner.connection.channel()
    second.consume(queue, "mine")
    owner.publish(b"m", routing_key=queue)
    second.expect_delivery(b"m")


@scenario("consume.no-local", covers=["rule:no-local-ignored"])
def no_local_is_ignored(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    channel.consume(queue, no_local=True)
    channel.publish(b"own", routing_key=queue)
    channel.expect_delivery(b"own")


@scenario("consume.no-ack", covers=["method:basic.consume"])
def what_a_no_ack_consumer_got_is_gone(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    queue = numbered_queue(s, channel, 3)
    channel.consume(queue, no_ack=True)
    check_equal(next_bodies(channel, 3), [b"1", b"2", b"3"], "bodies")
    channel.call("channel.close")
    check_equal(other.get_all(queue), [], "messages left")


@scenario("consume.unacked-kept", covers=["method:basic.consume"])
def what_was_not_acked_returns_when_the_channel_closes(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    queue = numbered_queue(s, channel, 3)
    channel.consume(queue)
    channel.deliveries(3)
    check_equal(other.get_all(queue), [], "ready messages")
    channel.call("channel.close")
    check_equal(other.get_all(queue), [b"1", b"2", b"3"], "messages left")


@scenario("consume.count", covers=["method:basic.consume", "method:queue.declare-ok"])
def declare_counts_consumers_of_all_channels(s: Session) -> None:
    connection = s.connect()
    one, two = connection.channel(), connection.channel()
    queue = s.queue(one)
    counts = [one.consumer_count(queue)]
    for channel, tag in ((one, "a"), (one, "b"), (two, "a")):
        channel.consume(queue, tag)
        counts.append(one.consumer_count(queue))
    two.call("channel.close")
    counts.append(one.consumer_count(queue))
    check_equal(counts, [0, 1, 2, 3, 2], "consumer counts")


@scenario("consume.two-queues", covers=["method:basic.consume", "method:basic.deliver"])
def one_channel_consumes_from_many_queues(s: Session) -> None:
    channel = s.channel()
    queues = [s.queue(channel) for _ in range(5)]
    for number, queue in enumerate(queues):
        channel.consume(queue, f"consumer {number}", no_ack=True)
    for tag, number in enumerate((3, 0, 4, 4, 1, 2), start=1):
        channel.publish(b"m", routing_key=queues[number])
        channel.expect_delivery(consumer_tag=f"consumer {number}", delivery_tag=tag)


@scenario("consume.own-channel", covers=["method:basic.deliver"])
def deliveries_come_on_the_consumers_channel(s: Session) -> None:
    connection = s.connect()
    publisher, one, two = (connection.channel(number) for number in (1, 2, 2047))
    first, second = s.queue(publisher), s.queue(publisher)
    one.consume(first, "one")
    two.consume(second, "two")
    for number in range(1, 51):
        publisher.publish(b"%d" % number, routing_key=first if number % 3 else second)
    check_equal(next_bodies(one, 34), [b"%d" % n for n in range(1, 51) if n % 3], "channel 2")
    check_equal(next_bodies(two, 16), [b"%d" % n for n in range(3, 51, 3)], "channel 2047")
    publisher.expect_silence(first, second)


@scenario("consume.backlog-first", covers=["rule:order-one-queue"])
def a_backlog_is_delivered_before_what_comes_later(s: Session) -> None:
    channel, publisher = s.channel(), s.channel()
    queue = numbered_queue(s, publisher, 100)
    channel.consume(queue, no_ack=True)
    publish_numbers(publisher, queue, 101, 200)
    check_equal(next_bodies(channel, 200), [b"%d" % n for n in range(1, 201)], "bodies")


@scenario("consume.arguments", covers=["method:basic.consume"])
def unknown_consumer_arguments_are_ignored(s: Session) -> None:
    channel = s.channel()
    queue = numbered_queue(s, channel, 1)
    arguments = {"x-foo": 1, "y": [double(1.5), void()], "x-cancel-on-ha-failover": True}
    channel.consume(queue, arguments=arguments)
    channel.expect_delivery(b"1")


@scenario("consume.arguments.type", covers=["error:consumer-argument-refused"])
def a_consumer_argument_of_the_wrong_type_is_refused(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    arguments = {"x-cancel-on-ha-failover": "yes"}
    channel.send("basic.consume", queue=queue, arguments=arguments)
    text = (
        "PRECONDITION_FAILED - invalid arg 'x-cancel-on-ha-failover' "
        f"for queue '{queue}' in vhost '/': {{unacceptable_type,longstr}}"
    )
    channel.expect_close(406, text, "basic.consume")
    check_equal(channel.reopen().consumer_count(queue), 0, "consumers")


@scenario("consume.arguments.stream", covers=["error:consumer-argument-refused"])
def a_stream_offset_is_refused_on_a_classic_queue(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    channel.send("basic.consume", queue=queue, arguments={"x-stream-offset": "first"})
    text = (
        "PRECONDITION_FAILED - invalid arg 'x-stream-offset' "
        f"for queue '{queue}' in vhost '/' of queue type rabbit_classic_queue"
    )
    channel.expect_close(406, text, "basic.consume")

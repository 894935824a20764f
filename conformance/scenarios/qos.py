"""basic.qos: how much may be unacked, for each consumer and for the channel.

A consumer that is full is shown by what another one gets, or by silence after a round trip to the
queue.
"""

from __future__ import annotations

from conformance.channel import Channel
from conformance.failure import check_equal
from conformance.messages import next_bodies, numbered_queue, publish_numbers
from conformance.registry import scenario
from conformance.session import Session


def _expect_full(channel: Channel, *queues: str) -> None:
    """Nothing more comes, though the queues have messages ready."""
    for queue in queues:
        ready = channel.call("queue.declare", queue=queue, passive=True)["message_count"]
        check_equal(ready > 0, True, "messages are ready")
    channel.expect_silence(*queues)


@scenario("qos.per-consumer", covers=["method:basic.qos", "method:basic.qos-ok"])
def a_consumer_gets_as_many_as_its_limit_and_one_for_each_ack(s: Session) -> None:
    channel = s.channel()
    queue = numbered_queue(s, channel, 6)
    channel.call("basic.qos", prefetch_count=2)
    channel.consume(queue)
    check_equal(next_bodies(channel, 2), [b"1", b"2"], "bodies")
    _expect_full(channel, queue)
    for tag in (1, 2, 3):
        channel.send("basic.ack", delivery_tag=tag)
        channel.expect_delivery(b"%d" % (tag + 2), delivery_tag=tag + 2)
        _expect_full(channel, queue)


@scenario("qos.each-consumer", covers=["rule:qos-per-consumer"])
def each_consumer_of_a_channel_has_a_limit_of_its_own(s: Session) -> None:
    channel = s.channel()
    queue = numbered_queue(s, channel, 6)
    channel.call("basic.qos", prefetch_count=2)
    for tag in ("a", "b"):
        channel.consume(queue, tag)
        for _ in range(2):
            channel.expect_delivery(consumer_tag=tag)
    _expect_full(channel, queue)
    channel.send("basic.ack", delivery_tag=3)
    channel.expect_delivery(b"5", consumer_tag="b")
    channel.send("basic.ack", delivery_tag=1)
    channel.expect_delivery(b"6", consumer_tag="a")


@scenario("qos.later-consumers", covers=["rule:qos-per-consumer"])
def the_limit_holds_for_consumers_started_after_it(s: Session) -> None:
    channel = s.channel()
    first, second = numbered_queue(s, channel, 1), numbered_queue(s, channel, 3)
    channel.consume(first, "unlimited")
    channel.expect_delivery(b"1")
    channel.call("basic.qos", prefetch_count=1)
    channel.consume(second, "one")
    channel.expect_delivery(b"1", consumer_tag="one")
    channel.call("basic.qos", prefetch_count=2)
    publish_numbers(channel, first, 2, 5)
    check_equal(next_bodies(channel, 4), [b"2", b"3", b"4", b"5"], "bodies of the unlimited")
    _expect_full(channel, second)


@scenario("qos.own-channel", covers=["rule:qos-per-consumer", "rule:qos-global"])
def limits_of_one_channel_are_none_of_another(s: Session) -> None:
    connection = s.connect()
    one, two = connection.channel(), connection.channel()
    queue = numbered_queue(s, one, 5)
    one.call("basic.qos", prefetch_count=1)
    one.call("basic.qos", prefetch_count=1, global_=True)
    two.consume(queue)
    check_equal(next_bodies(two, 5), [b"1", b"2", b"3", b"4", b"5"], "bodies")


@scenario("qos.zero", covers=["rule:qos-zero"])
def prefetch_0_is_unlimited(s: Session) -> None:
    channel = s.channel()
    queue = numbered_queue(s, channel, 300)
    channel.call("basic.qos", prefetch_count=1)
    channel.call("basic.qos", prefetch_count=0)
    channel.consume(queue)
    check_equal(len(next_bodies(channel, 300)), 300, "deliveries")


@scenario("qos.65535", covers=["method:basic.qos"])
def the_largest_prefetch_is_65535(s: Session) -> None:
    channel = s.channel()
    queue = numbered_queue(s, channel, 300)
    for shared in (False, True):
        channel.call("basic.qos", prefetch_count=65535, global_=shared)
    channel.consume(queue)
    check_equal(len(next_bodies(channel, 300)), 300, "deliveries")


@scenario("qos.no-ack", covers=["rule:qos-no-ack-ignored"])
def no_ack_consumers_ignore_both_limits(s: Session) -> None:
    channel = s.channel()
    queue, other = numbered_queue(s, channel, 50), numbered_queue(s, channel, 3)
    channel.call("basic.qos", prefetch_count=1)
    channel.call("basic.qos", prefetch_count=2, global_=True)
    channel.consume(queue, "all", no_ack=True)
    check_equal(len(next_bodies(channel, 50)), 50, "deliveries")
    channel.consume(other, "some")
    channel.expect_delivery(b"1", consumer_tag="some")
    _expect_full(channel, other)


@scenario("qos.get", covers=["rule:qos-get-not-counted"])
def gets_are_not_counted_on_a_consumers_limit(s: Session) -> None:
    channel = s.channel()
    queue = numbered_queue(s, channel, 6)
    channel.call("basic.qos", prefetch_count=2)
    for _ in range(3):
        channel.get(queue, no_ack=False)
    channel.consume(queue)
    check_equal(next_bodies(channel, 2), [b"4", b"5"], "bodies")
    _expect_full(channel, queue)
    channel.send("basic.ack", delivery_tag=3, multiple=True)
    _expect_full(channel, queue)
    channel.send("basic.ack", delivery_tag=4)
    channel.expect_delivery(b"6")


@scenario("qos.get.global", covers=["rule:qos-get-not-counted", "rule:qos-global"])
def gets_are_not_counted_on_the_channels_limit(s: Session) -> None:
    channel = s.channel()
    queue = numbered_queue(s, channel, 8)
    channel.call("basic.qos", prefetch_count=2, global_=True)
    for _ in range(3):
        channel.get(queue, no_ack=False)
    channel.consume(queue)
    check_equal(next_bodies(channel, 2), [b"4", b"5"], "bodies")
    channel.send("basic.ack", delivery_tag=3, multiple=True)
    _expect_full(channel, queue)
    channel.send("basic.ack", delivery_tag=5)
    channel.expect_delivery(b"6")
    _expect_full(channel, queue)


@scenario("qos.multiple", covers=["method:basic.qos", "method:basic.ack"])
def one_ack_of_many_makes_room_for_many(s: Session) -> None:
    channel = s.channel()
    queue = numbered_queue(s, channel, 12)
    channel.call("basic.qos", prefetch_count=5)
    channel.consume(queue)
    channel.deliveries(5)
    channel.send("basic.ack", delivery_tag=4, multiple=True)
    check_equal(next_bodies(channel, 4), [b"6", b"7", b"8", b"9"], "bodies")
    _expect_full(channel, queue)
    channel.send("basic.ack", delivery_tag=0, multiple=True)
    check_equal(next_bodies(channel, 3), [b"10", b"11", b"12"], "bodies")


@scenario("qos.rejects", covers=["method:basic.qos", "method:basic.reject", "method:basic.nack"])
def rejects_and_nacks_make_room_as_well(s: Session) -> None:
    channel = s.channel()
    queue = numbered_queue(s, channel, 5)
    channel.call("basic.qos", prefetch_count=1)
    channel.consume(queue)
    channel.expect_delivery(b"1", delivery_tag=1)
    channel.send("basic.reject", delivery_tag=1)
    channel.expect_delivery(b"2", delivery_tag=2)
    channel.send("basic.nack", delivery_tag=2)
    channel.expect_delivery(b"3", delivery_tag=3)
    channel.send("basic.nack", delivery_tag=3, requeue=True)
    channel.expect_delivery(b"3", delivery_tag=4, redelivered=True)
    channel.call("basic.recover", requeue=True)
    channel.expect_delivery(b"3", delivery_tag=5, redelivered=True)
    _expect_full(channel, queue)


@scenario("qos.cancelled", covers=["rule:qos-per-consumer", "rule:unacked-survive-cancel"])
def a_new_consumer_starts_with_its_whole_limit(s: Session) -> None:
    channel = s.channel()
    queue = numbered_queue(s, channel, 6)
    channel.call("basic.qos", prefetch_count=2)
    channel.consume(queue, "same")
    channel.deliveries(2)
    channel.call("basic.cancel", consumer_tag="same")
    channel.consume(queue, "same")
    check_equal(next_bodies(channel, 2), [b"3", b"4"], "bodies")
    _expect_full(channel, queue)


@scenario("qos.global", covers=["rule:qos-global"])
def global_is_one_limit_for_all_consumers_of_the_channel(s: Session) -> None:
    channel = s.channel()
    first, second = numbered_queue(s, channel, 2), numbered_queue(s, channel, 5)
    channel.call("basic.qos", prefetch_count=3, global_=True)
    channel.consume(first, "first")
    channel.deliveries(2)
    channel.consume(second, "second")
    channel.expect_delivery(b"1", consumer_tag="second")
    _expect_full(channel, second)
    channel.send("basic.ack", delivery_tag=1)
    channel.expect_delivery(b"2", consumer_tag="second")
    _expect_full(channel, second)


@scenario("qos.global.cancelled", covers=["rule:qos-global"])
def what_a_cancelled_consumer_left_unacked_counts_on_the_channels_limit(s: Session) -> None:
    channel = s.channel()
    queue = numbered_queue(s, channel, 4)
    channel.call("basic.qos", prefetch_count=2, global_=True)
    channel.consume(queue, "first")
    channel.deliveries(2)
    channel.call("basic.cancel", consumer_tag="first")
    channel.consume(queue, "second")
    _expect_full(channel, queue)
    channel.send("basic.ack", delivery_tag=2)
    channel.expect_delivery(b"3", consumer_tag="second")


@scenario("qos.global.raised", covers=["rule:qos-global-live", "celery:qos-live"])
def a_raised_channel_limit_lets_live_consumers_go_on_at_once(s: Session) -> None:
    channel = s.channel()
    queue = numbered_queue(s, channel, 10)
    channel.call("basic.qos", prefetch_count=2, global_=True)
    channel.consume(queue)
    channel.deliveries(2)
    _expect_full(channel, queue)
    channel.send("basic.qos", prefetch_count=5, global_=True)
    answers = [channel.expect("basic.qos-ok", "basic.deliver").name for _ in range(4)]
    check_equal(sorted(answers), ["basic.deliver"] * 3 + ["basic.qos-ok"], "answers")
    _expect_full(channel, queue)


@scenario("qos.global.lowered", covers=["rule:qos-global-live", "celery:qos-live"])
def a_lowered_channel_limit_holds_once_enough_was_acked(s: Session) -> None:
    channel = s.channel()
    queue = numbered_queue(s, channel, 10)
    channel.call("basic.qos", prefetch_count=4, global_=True)
    channel.consume(queue)
    channel.deliveries(4)
    channel.call("basic.qos", prefetch_count=2, global_=True)
    for tag in (1, 2):
        channel.send("basic.ack", delivery_tag=tag)
        _expect_full(channel, queue)
    channel.send("basic.ack", delivery_tag=3)
    channel.expect_delivery(b"5")
    _expect_full(channel, queue)


@scenario("qos.global.lifted", covers=["rule:qos-global-live", "rule:qos-zero"])
def channel_limit_0_lifts_the_limit_of_live_consumers(s: Session) -> None:
    channel = s.channel()
    queue = numbered_queue(s, channel, 10)
    channel.call("basic.qos", prefetch_count=1, global_=True)
    channel.consume(queue)
    channel.expect_delivery(b"1")
    channel.send("basic.qos", prefetch_count=0, global_=True)
    answers = [channel.expect("basic.qos-ok", "basic.deliver").name for _ in range(10)]
    check_equal(answers.count("basic.deliver"), 9, "deliveries")


@scenario("qos.both", covers=["rule:qos-both"])
def with_both_limits_the_smaller_one_stops_a_consumer(s: Session) -> None:
    channel = s.channel()
    queue = numbered_queue(s, channel, 10)
    channel.call("basic.qos", prefetch_count=2)
    channel.call("basic.qos", prefetch_count=3, global_=True)
    channel.consume(queue, "a")
    check_equal(next_bodies(channel, 2), [b"1", b"2"], "bodies of a")
    _expect_full(channel, queue)
    channel.consume(queue, "b")
    channel.expect_delivery(b"3", consumer_tag="b")
    _expect_full(channel, queue)
    channel.send("basic.ack", delivery_tag=1)
    channel.expect_delivery(b"4")
    _expect_full(channel, queue)


@scenario("qos.both.order", covers=["rule:qos-per-consumer-lifts-global"])
def a_limit_per_consumer_lifts_the_channels_limit(s: Session) -> None:
    channel = s.channel()
    queue = numbered_queue(s, channel, 10)
    channel.call("basic.qos", prefetch_count=1, global_=True)
    channel.consume(queue, "live")
    channel.expect_delivery(b"1", consumer_tag="live")
    _expect_full(channel, queue)
    channel.send("basic.qos", prefetch_count=3)
    answers = [channel.expect("basic.qos-ok", "basic.deliver").name for _ in range(10)]
    check_equal(answers.count("basic.deliver"), 9, "deliveries to the live consumer")


@scenario("qos.prefetch-size", covers=["error:prefetch-size"])
def a_prefetch_size_is_refused(s: Session) -> None:
    for size, shared in ((1, False), (1024, True), (2**32 - 1, False)):
        channel = s.channel()
        channel.send("basic.qos", prefetch_size=size, prefetch_count=1, global_=shared)
        text = f"NOT_IMPLEMENTED - prefetch_size!=0 ({size})"
        channel.connection.expect_close(540, text, "basic.qos")


@scenario("qos.order", covers=["rule:order-one-queue", "method:basic.qos"])
def a_limited_consumer_gets_everything_in_order(s: Session) -> None:
    for prefetch in (1, 7):
        channel = s.channel()
        queue = numbered_queue(s, channel, 100)
        channel.call("basic.qos", prefetch_count=prefetch)
        channel.consume(queue)
        for number in range(1, 101):
            channel.expect_delivery(b"%d" % number, delivery_tag=number, redelivered=False)
            channel.send("basic.ack", delivery_tag=number)

"""What publishers and others meet while the broker is short of memory or disk space."""

from __future__ import annotations

import time
from functools import partial

from conformance.blocked import (
    check_held,
    close_untold,
    confirming_channel,
    expect_blocked,
    expect_unblocked,
)
from conformance.channel import Channel
from conformance.client import BODY, HEADER
from conformance.failure import check, check_equal, eventually
from conformance.messages import next_bodies, numbered_queue
from conformance.methods import encode_header
from conformance.registry import Limit, deviation, scenario
from conformance.session import Session

_alarming = partial(scenario, limit=Limit.MEMORY, alone=True)
_WITHOUT_BLOCKED = {"publisher_confirms": True, "basic.nack": True}
_SILENT_S = 3.5


def _blocked_by(s: Session, channel: Channel, queue: str, body: bytes = b"held") -> None:
    """Raises the alarm and publishes a message that it holds."""
    s.raise_alarm()
    channel.publish(body, routing_key=queue)
    expect_blocked(channel.connection)


@_alarming(
    "alarms.blocked",
    covers=[
        "alarms:blocked",
        "alarms:unblocked",
        "method:connection.blocked",
        "method:connection.unblocked",
    ],
)
def a_publisher_is_told_and_held_until_the_alarm_is_over(s: Session) -> None:
    channel = confirming_channel(s)
    queue = s.queue(channel)
    _blocked_by(s, channel, queue)
    check_held(s, queue)
    s.clear_alarm()
    expect_unblocked(channel.connection)
    channel.expect("basic.ack", delivery_tag=1)
    check_equal(channel.get_all(queue), [b"held"], "bodies")
    channel.publish(b"after", routing_key=queue)
    channel.expect("basic.ack", delivery_tag=2)
    close_untold(channel.connection)


@_alarming("alarms.not-blocked", covers=["alarms:not-blocked"])
def who_does_not_publish_is_not_told(s: Session) -> None:
    idle, former, consumer = s.channel(), s.channel(), s.channel()
    queue = numbered_queue(s, former, 3)
    publisher = confirming_channel(s)
    _blocked_by(s, publisher, queue)
    exchange = s.exchange(former, "topic")
    other = s.queue(former)
    former.bind(other, exchange, "a.#")
    former.call("basic.qos", prefetch_count=1)
    check_equal(former.get(queue) is not None, True, "basic.get has a message")
    consumer.consume(queue)
    for body in (b"2", b"3"):
        tag = consumer.expect_delivery(body)["delivery_tag"]
        consumer.send("basic.ack", delivery_tag=tag)
    former.call("queue.purge", queue=queue)
    former.call("exchange.delete", exchange=exchange)
    former.call("tx.select")
    former.call("tx.commit")
    close_untold(former.connection)
    s.clear_alarm()
    expect_unblocked(publisher.connection)
    consumer.expect_delivery(b"held")
    close_untold(consumer.connection)
    close_untold(idle.connection)


@_alarming("alarms.no-capability", covers=["alarms:no-capability"])
def without_the_capability_a_publisher_is_held_in_silence(s: Session) -> None:
    publisher = confirming_channel(s, capabilities=_WITHOUT_BLOCKED)
    queue = s.queue(publisher)
    s.raise_alarm()
    publisher.publish(b"held", routing_key=queue)
    check_held(s, queue)
    s.clear_alarm()
    publisher.expect("basic.ack", delivery_tag=1)
    check_equal(publisher.get_all(queue), [b"held"], "bodies")
    close_untold(publisher.connection)


@_alarming("alarms.held.order", covers=["alarms:held"])
def what_is_published_meanwhile_arrives_once_and_in_order(s: Session) -> None:
    channel = confirming_channel(s)
    queue = s.queue(channel)
    bodies = [b"%d " % number + bytes(number * 50) for number in range(1, 201)]
    _blocked_by(s, channel, queue, bodies[0])
    for body in bodies[1:]:
        channel.publish(body, routing_key=queue)
    check_held(s, queue)
    s.clear_alarm()
    expect_unblocked(channel.connection)
    acked, _ = channel.confirms(range(1, len(bodies) + 1))
    check_equal(len(acked), len(bodies), "acked")
    check_equal(channel.get_all(queue) == bodies, True, "every message once and in order")


@_alarming("alarms.held.channels", covers=["alarms:whole-connection"])
def all_channels_of_a_blocked_connection_are_held(s: Session) -> None:
    publisher = confirming_channel(s)
    connection = publisher.connection
    getter, declarer, other = (connection.channel() for _ in range(3))
    queue = numbered_queue(s, getter, 2)
    _blocked_by(s, publisher, queue)
    missing = s.name("missing")
    declarer.send("queue.declare", queue=missing)
    getter.send("basic.get", queue=queue, no_ack=True)
    other.publish(b"other", routing_key=queue)
    check_held(s, queue, ready=2)
    looker = s.channel()
    looker.send("queue.declare", queue=missing, passive=True)
    looker.expect_close(404, f"NOT_FOUND - no queue '{missing}' in vhost '/'", "queue.declare")
    s.clear_alarm()
    expect_unblocked(connection)
    declarer.expect("queue.declare-ok", queue=missing)
    check_equal(getter.expect("basic.get-ok").body, b"1", "body")
    publisher.expect("basic.ack", delivery_tag=1)
    other.settle(queue)
    eventually(lambda: looker.reopen().message_count(queue) == 3, "three messages")


@_alarming("alarms.consumers", covers=["alarms:consumers", "alarms:before"])
def a_backlog_is_consumed_under_the_alarm(s: Session) -> None:
    former = s.channel()
    queue = numbered_queue(s, former, 300)
    publisher = confirming_channel(s)
    _blocked_by(s, publisher, queue)
    consumer = s.channel()
    consumer.call("basic.qos", prefetch_count=10)
    tag = consumer.consume(queue)
    for number in range(1, 201):
        delivery = consumer.expect_delivery(b"%d" % number, redelivered=False)
        consumer.send("basic.ack", delivery_tag=delivery["delivery_tag"])
    left = 200 + len(next_bodies(consumer, 10))
    consumer.send("basic.cancel", consumer_tag=tag)
    consumer.expect("basic.cancel-ok")
    consumer.send("basic.nack", delivery_tag=left, multiple=True, requeue=True)
    consumer.settle(queue)
    expected = [b"%d" % number for number in range(201, 301)]
    check_equal(former.get_all(queue), expected, "bodies that are left")
    s.clear_alarm()
    expect_unblocked(publisher.connection)
    publisher.expect("basic.ack", delivery_tag=1)
    check_equal(former.get_all(queue), [b"held"], "bodies after the alarm")


@_alarming("alarms.blocked-consumer", covers=["alarms:blocked-consumer"])
def a_blocked_connection_goes_on_being_delivered_to(s: Session) -> None:
    former = s.channel()
    queue, publisher_queue = numbered_queue(s, former, 1), s.queue(former)
    former.get(queue, no_ack=False)
    publisher = confirming_channel(s)
    consumer = publisher.connection.channel()
    consumer.consume(queue)
    _blocked_by(s, publisher, publisher_queue)
    former.send("basic.reject", delivery_tag=1, requeue=True)
    tag = consumer.expect_delivery(b"1", redelivered=True)["delivery_tag"]
    consumer.send("basic.ack", delivery_tag=tag)
    s.clear_alarm()
    expect_unblocked(publisher.connection)
    consumer.call("channel.close")
    former.call("queue.delete", queue=queue, if_empty=True)


@_alarming("alarms.close", covers=["alarms:close"])
def a_close_waits_behind_what_was_published_before_it(s: Session) -> None:
    publisher, looker = confirming_channel(s), s.channel()
    queue = s.queue(looker)
    _blocked_by(s, publisher, queue)
    connection = publisher.connection
    connection.channel0.send("connection.close", reply_code=200, reply_text="bye")
    check_held(s, queue)
    s.clear_alarm()
    expect_unblocked(connection)
    connection.channel0.expect("connection.close-ok")
    connection.drop()
    eventually(lambda: looker.message_count(queue) == 1, "the message is there")


@_alarming("alarms.dropped", covers=["alarms:dropped"])
def what_a_dropped_connection_held_comes_back(s: Session) -> None:
    publisher, looker = confirming_channel(s), s.channel()
    queue = s.queue(looker)
    own = s.queue(publisher, exclusive=True)
    unacked = numbered_queue(s, looker, 1)
    publisher.get(unacked, no_ack=False)
    _blocked_by(s, publisher, queue)
    publisher.publish(b"second", routing_key=queue)
    check_held(s, queue)
    publisher.connection.drop()
    other = confirming_channel(s)
    other.publish(b"of another", routing_key=unacked)
    expect_blocked(other.connection)
    s.clear_alarm()
    expect_unblocked(other.connection)
    other.expect("basic.ack", delivery_tag=1)

    def is_gone() -> bool:
        looker.send("queue.declare", queue=own, passive=True)
        closed = looker.expect("channel.close")
        looker.send("channel.close-ok")
        looker.reopen()
        return bool(closed["reply_code"] == 404)

    eventually(is_gone, "the exclusive queue is gone")
    eventually(lambda: looker.message_count(unacked) == 2, "what was unacked is back")
    # How much of what it had sent is still read is a matter of buffers.
    sent = [b"held", b"second"]
    got = looker.get_all(queue)
    check_equal(got, sent[: len(got)], "bodies")


@_alarming("alarms.new-connection", covers=["alarms:new-connection"])
def a_connection_opened_under_the_alarm_is_blocked_at_its_first_publish(s: Session) -> None:
    s.raise_alarm()
    channel = confirming_channel(s)
    queue = s.queue(channel)
    channel.consume(queue, no_ack=True)
    channel.expect_silence(queue)
    channel.publish(b"held", routing_key=queue)
    expect_blocked(channel.connection)
    check_held(s, queue)
    s.clear_alarm()
    expect_unblocked(channel.connection)
    found = {channel.expect("basic.ack", "basic.deliver").name for _ in range(2)}
    check_equal(found, {"basic.ack", "basic.deliver"}, "answers")


@_alarming("alarms.again", covers=["alarms:again"])
def a_second_alarm_blocks_again(s: Session) -> None:
    channel = confirming_channel(s)
    queue = s.queue(channel)
    for tag in (1, 3):
        _blocked_by(s, channel, queue, b"%d" % tag)
        check_held(s, queue, ready=tag - 1)
        s.clear_alarm()
        expect_unblocked(channel.connection)
        channel.expect("basic.ack", delivery_tag=tag)
        channel.publish(b"%d" % (tag + 1), routing_key=queue)
        channel.expect("basic.ack", delivery_tag=tag + 1)
    check_equal(channel.get_all(queue), [b"1", b"2", b"3", b"4"], "bodies")


@_alarming("alarms.several", covers=["alarms:several"])
def every_publisher_is_told_and_all_go_on(s: Session) -> None:
    looker = s.channel()
    queue = s.queue(looker)
    publishers = [confirming_channel(s) for _ in range(6)]
    s.raise_alarm()
    for number, channel in enumerate(publishers):
        for part in (b"a", b"b"):
            channel.publish(b"%d%s" % (number, part), routing_key=queue)
        expect_blocked(channel.connection)
    check_held(s, queue)
    s.clear_alarm()
    for channel in publishers:
        expect_unblocked(channel.connection)
        channel.confirms({1, 2})
        close_untold(channel.connection)
    bodies = looker.get_all(queue)
    check_equal(sorted(bodies), [b"%d%s" % (n, p) for n in range(6) for p in (b"a", b"b")], "all")
    order = [bodies.index(b"%da" % n) < bodies.index(b"%db" % n) for n in range(6)]
    check_equal(order, [True] * 6, "order of each publisher")


@_alarming("alarms.transaction", covers=["alarms:transaction"])
def publishes_of_a_transaction_are_held(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    channel.call("tx.select")
    channel.publish(b"before", routing_key=queue)
    channel.call("channel.flow", active=True)
    _blocked_by(s, channel, queue)
    channel.send("tx.commit")
    check_held(s, queue)
    s.clear_alarm()
    expect_unblocked(channel.connection)
    channel.expect("tx.commit-ok")
    check_equal(channel.get_all(queue), [b"before", b"held"], "bodies")


@_alarming("alarms.unroutable", covers=["alarms:unroutable"])
def what_nobody_takes_is_held_as_well(s: Session) -> None:
    returning, failing = confirming_channel(s), confirming_channel(s)
    nowhere = s.name("nowhere")
    s.raise_alarm()
    returning.publish(b"unroutable", routing_key=nowhere, mandatory=True)
    failing.publish(b"unroutable", nowhere)
    for channel in (returning, failing):
        expect_blocked(channel.connection)
    s.clear_alarm()
    for channel in (returning, failing):
        expect_unblocked(channel.connection)
    returning.expect("basic.return", reply_code=312, routing_key=nowhere)
    returning.expect("basic.ack", delivery_tag=1)
    text = f"NOT_FOUND - no exchange '{nowhere}' in vhost '/'"
    failing.expect_close(404, text, "basic.publish")


@_alarming(
    "alarms.empty",
    covers=["alarms:empty"],
    deviations=[deviation("rabbitmq", "a first publish of no octets is taken before it blocks")],
)
def a_publish_of_no_octets_is_held(s: Session) -> None:
    channel = confirming_channel(s)
    queue = s.queue(channel)
    _blocked_by(s, channel, queue, b"")
    taken = 1 if s.deviates else 0
    if taken:
        channel.expect("basic.ack", delivery_tag=1)
    channel.publish(b"", routing_key=queue)
    check_held(s, queue, ready=taken)
    s.clear_alarm()
    expect_unblocked(channel.connection)
    channel.confirms({2} if taken else {1, 2})
    check_equal(channel.get_all(queue), [b"", b""], "bodies")


@_alarming(
    "alarms.begun",
    covers=["alarms:begun"],
    deviations=[deviation("leveret", "a message that was begun before is read to its end")],
)
def a_message_that_was_begun_before_is_held(s: Session) -> None:
    channel = confirming_channel(s)
    queue = s.queue(channel)
    channel.send("basic.publish", routing_key=queue)
    connection = channel.connection
    connection.send_frame(HEADER, channel.number, encode_header(30, {}))
    connection.send_frame(BODY, channel.number, b"a" * 10)
    connection.channel().call("channel.close")
    s.raise_alarm()
    for letter in (b"b", b"c"):
        connection.send_frame(BODY, channel.number, letter * 10)
    if s.deviates:
        channel.expect("basic.ack", delivery_tag=1)
        channel.publish(b"next", routing_key=queue)
    expect_blocked(connection)
    check_held(s, queue, ready=1 if s.deviates else 0)
    if not s.deviates:
        channel.publish(b"next", routing_key=queue)
    s.clear_alarm()
    expect_unblocked(connection)
    channel.confirms({2} if s.deviates else {1, 2})
    check_equal(channel.get_all(queue), [b"a" * 10 + b"b" * 10 + b"c" * 10, b"next"], "bodies")


@scenario("alarms.disk", covers=["alarms:disk"], limit=Limit.DISK, alone=True)
def a_short_disk_has_a_reason_of_its_own(s: Session) -> None:
    s.raise_alarm(Limit.DISK)
    channel = confirming_channel(s)
    queue = s.queue(channel)
    channel.publish(b"held", routing_key=queue)
    expect_blocked(channel.connection, "low on disk")
    check_held(s, queue)
    other = s.channel()
    other.consume(queue, no_ack=True)
    other.expect_silence(queue)
    close_untold(other.connection)


@scenario("alarms.heartbeats", covers=["alarms:heartbeats"], limit=Limit.DISK, alone=True)
def a_blocked_connection_gets_heartbeats_and_may_be_silent(s: Session) -> None:
    s.raise_alarm(Limit.DISK)
    channel = confirming_channel(s, heartbeat_s=1)
    queue = s.queue(channel)
    channel.publish(b"held", routing_key=queue)
    connection = channel.connection
    expect_blocked(connection, "low on disk")
    connection.heartbeats = 0
    silent_until = time.monotonic() + _SILENT_S
    while time.monotonic() < silent_until:
        frame = connection.receive_frame(2.0)
        check_equal(frame.kind, 8, "kind of frame")
    check(connection.heartbeats >= 3, f"{connection.heartbeats} heartbeats in {_SILENT_S} s")

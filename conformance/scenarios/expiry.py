"""Messages that expire: x-message-ttl, the expiration property, and where expiry happens."""

from __future__ import annotations

import time

from conformance.channel import Channel
from conformance.dead_letters import (
    dead_lettering_to,
    how_it_died,
    let_pass,
    mortal_queue,
    publish_confirmed,
)
from conformance.failure import check, check_equal
from conformance.messages import PERSISTENT, get_redelivered, next_bodies
from conformance.registry import Restart, deviation, scenario
from conformance.session import Session

_LONG_MS = 3_600_000


@scenario("expiry.queue-ttl", covers=["expiry:queue-ttl", "dead:expired"])
def messages_of_a_queue_expire_after_its_ttl(s: Session) -> None:
    channel = s.channel()
    mortal = mortal_queue(s, channel, {"x-message-ttl": 150})
    began = time.monotonic()
    publish_confirmed(channel, mortal.queue, b"1", b"2", b"3")
    for letter in mortal.expect(b"1", b"2", b"3"):
        check_equal(how_it_died(letter), [(mortal.queue, "expired", 1)], "x-death")
    check(time.monotonic() - began >= 0.15, "expired before its time")
    check_equal(channel.get(mortal.queue), None, "what is left")


@scenario("expiry.message", covers=["expiry:message-ttl", "dead:expired"])
def a_message_expires_after_its_expiration(s: Session) -> None:
    channel = s.channel()
    mortal = mortal_queue(s, channel)
    began = time.monotonic()
    publish_confirmed(channel, mortal.queue, b"short", expiration="150")
    publish_confirmed(channel, mortal.queue, b"long", expiration=f"{_LONG_MS}")
    publish_confirmed(channel, mortal.queue, b"for ever")
    mortal.expect(b"short")
    check(time.monotonic() - began >= 0.15, "expired before its time")
    check_equal(channel.get_all(mortal.queue), [b"long", b"for ever"], "what is left")


@scenario("expiry.no-dead-letters", covers=["expiry:queue-ttl"])
def without_a_dead_letter_exchange_messages_are_just_gone(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel, arguments={"x-message-ttl": 50})
    publish_confirmed(channel, queue, *[b"gone"] * 10)
    let_pass(s, 50)
    check_equal(channel.get(queue), None, "what is left")


@scenario("expiry.unexpired", covers=["expiry:queue-ttl", "expiry:message-ttl"])
def what_has_not_expired_is_delivered_with_its_expiration(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel, arguments={"x-message-ttl": _LONG_MS})
    expirations = [f"{_LONG_MS}", "+60000", "00060000", "315360000000"]
    for expiration in expirations:
        channel.publish(b"m", routing_key=queue, properties={"expiration": expiration})
    channel.consume(queue, no_ack=True)
    found = [d.message.properties for d in channel.deliveries(len(expirations))]
    check_equal(found, [{"expiration": value} for value in expirations], "properties")


@scenario("expiry.lower", covers=["expiry:lower"])
def the_lower_ttl_holds(s: Session) -> None:
    channel = s.channel()
    long = mortal_queue(s, channel, {"x-message-ttl": _LONG_MS})
    short = mortal_queue(s, channel, {"x-message-ttl": 50})
    publish_confirmed(channel, long.queue, b"its own", expiration="50")
    publish_confirmed(channel, short.queue, b"the queue's", expiration=f"{_LONG_MS}")
    long.expect(b"its own")
    short.expect(b"the queue's")


@scenario("expiry.unacked", covers=["expiry:unacked"])
def unacked_messages_do_not_expire(s: Session) -> None:
    channel = s.channel()
    mortal = mortal_queue(s, channel)
    channel.consume(mortal.queue, "first")
    publish_confirmed(channel, mortal.queue, b"held", expiration="300")
    channel.expect_delivery(b"held")
    let_pass(s, 300)
    channel.call("basic.cancel", consumer_tag="first")
    channel.send("basic.ack", delivery_tag=1)
    mortal.expect_none(channel)


@scenario("expiry.requeued", covers=["expiry:requeued", "dead:expired"])
def a_requeued_message_keeps_its_deadline(s: Session) -> None:
    channel = s.channel()
    mortal = mortal_queue(s, channel, {"x-message-ttl": 1000})
    publish_confirmed(channel, mortal.queue, b"m")
    held = channel.get(mortal.queue, no_ack=False)
    check_equal(held and held.body, b"m", "body")
    let_pass(s, 1000)
    channel.send("basic.reject", delivery_tag=1, requeue=True)
    check_equal(channel.get(mortal.queue), None, "what is ready after its time")
    mortal.expect(b"m")


@scenario("expiry.requeued.early", covers=["expiry:requeued"])
def a_message_requeued_before_its_time_is_ready_until_then(s: Session) -> None:
    channel = s.channel()
    mortal = mortal_queue(s, channel)
    began = time.monotonic()
    publish_confirmed(channel, mortal.queue, b"m", expiration="1000")
    publish_confirmed(channel, mortal.queue, b"stays")
    for _ in range(2):
        channel.get(mortal.queue, no_ack=False)
    channel.send("basic.nack", delivery_tag=0, multiple=True, requeue=True)
    mortal.expect(b"m")
    check(time.monotonic() - began >= 1, "expired before its time")
    check_equal(get_redelivered(channel, mortal.queue), [(b"stays", True)], "what is left")


@scenario("expiry.get", covers=["expiry:never-delivered"])
def get_passes_over_what_has_expired(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    publish_confirmed(channel, queue, b"1", b"2", b"3", expiration="50")
    publish_confirmed(channel, queue, b"4")
    let_pass(s, 50)
    found = channel.get(queue)
    check_equal(found and (found.body, found["message_count"]), (b"4", 0), "what get found")


@scenario("expiry.consumer", covers=["expiry:never-delivered", "expiry:order"])
def consumers_get_only_what_has_not_expired(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    for number in range(1, 7):
        expiration = "50" if number % 2 else f"{_LONG_MS}"
        publish_confirmed(channel, queue, b"%d" % number, expiration=expiration)
    let_pass(s, 50)
    channel.consume(queue, no_ack=True)
    check_equal(next_bodies(channel, 3), [b"2", b"4", b"6"], "bodies")
    channel.expect_silence(queue)


@scenario("expiry.consumer.full", covers=["expiry:never-delivered"])
def what_waits_for_a_full_consumer_expires(s: Session) -> None:
    channel, sender = s.channel(), s.channel()
    mortal = mortal_queue(s, channel)
    channel.call("basic.qos", prefetch_count=1)
    channel.consume(mortal.queue)
    publish_confirmed(sender, mortal.queue, b"1")
    channel.expect_delivery(b"1")
    publish_confirmed(sender, mortal.queue, b"2", expiration="50")
    publish_confirmed(sender, mortal.queue, b"3")
    mortal.expect(b"2")
    channel.send("basic.ack", delivery_tag=1)
    channel.expect_delivery(b"3")


@scenario("expiry.count", covers=["expiry:not-counted", "expiry:no-dead-letters"])
def what_has_expired_counts_neither_in_declare_nor_purge_nor_delete(s: Session) -> None:
    channel = s.channel()
    queues = [s.queue(channel) for _ in range(3)]
    for queue in queues:
        publish_confirmed(channel, queue, b"1", b"2", b"3", expiration="50")
        publish_confirmed(channel, queue, b"4", b"5")
    let_pass(s, 50)
    declared, purged, deleted = queues
    check_equal(channel.message_count(declared), 2, "message_count of declare-ok")
    reply = channel.call("queue.purge", queue=purged)
    check_equal(reply["message_count"], 2, "message_count of purge-ok")
    reply = channel.call("queue.delete", queue=deleted)
    check_equal(reply["message_count"], 2, "message_count of delete-ok")


@scenario("expiry.if-empty", covers=["expiry:not-counted"])
def a_queue_whose_messages_have_expired_is_empty(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel, arguments={"x-message-ttl": 50})
    publish_confirmed(channel, queue, b"1", b"2")
    let_pass(s, 50)
    channel.call("queue.delete", queue=queue, if_empty=True)


@scenario("expiry.order", covers=["expiry:order", "dead:expired"])
def messages_of_one_queue_expire_in_order(s: Session) -> None:
    channel = s.channel()
    mortal = mortal_queue(s, channel, {"x-message-ttl": 100})
    bodies = [b"%d" % number for number in range(200)]
    publish_confirmed(channel, mortal.queue, *bodies)
    mortal.expect(*bodies)


@scenario(
    "expiry.middle",
    covers=["expiry:middle", "expiry:order"],
    deviations=[
        deviation("rabbitmq", "a message expires only when it has come to the head of its queue")
    ],
)
def a_message_expires_behind_others_that_stay(s: Session) -> None:
    channel = s.channel()
    mortal = mortal_queue(s, channel)
    publish_confirmed(channel, mortal.queue, b"1", expiration=f"{_LONG_MS}")
    publish_confirmed(channel, mortal.queue, b"2", expiration="100")
    publish_confirmed(channel, mortal.queue, b"3")
    publish_confirmed(channel, mortal.queue, b"4", expiration="50")
    publish_confirmed(channel, mortal.queue, b"5")
    let_pass(s, 100)
    if s.deviates:
        check_equal(channel.message_count(mortal.queue), 5, "messages")
        check_equal(channel.get_all(mortal.queue), [b"1", b"3", b"5"], "what is left")
        mortal.expect(b"2", b"4")
    else:
        mortal.expect(b"4", b"2")
        check_equal(channel.message_count(mortal.queue), 3, "messages")
        check_equal(channel.get_all(mortal.queue), [b"1", b"3", b"5"], "what is left")


@scenario("expiry.copies", covers=["expiry:copies"])
def each_queue_has_a_deadline_of_its_own_for_its_copy(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "fanout")
    short = mortal_queue(s, channel, {"x-message-ttl": 50})
    long = mortal_queue(s, channel, {"x-message-ttl": _LONG_MS})
    none = s.queue(channel)
    for queue in (short.queue, long.queue, none):
        channel.bind(queue, exchange)
    channel.publish(b"m", exchange)
    short.expect(b"m")
    for queue in (long.queue, none):
        check_equal(channel.get_all(queue), [b"m"], "messages of the other queue")


@scenario("expiry.next-queue", covers=["expiry:copies", "dead:expired"])
def time_begins_anew_in_the_next_queue(s: Session) -> None:
    channel = s.channel()
    second = mortal_queue(s, channel, {"x-message-ttl": 200})
    first = s.queue(channel, arguments=dead_lettering_to(second.queue) | {"x-message-ttl": 100})
    began = time.monotonic()
    publish_confirmed(channel, first, b"m")
    (letter,) = second.expect(b"m")
    check(time.monotonic() - began >= 0.3, "expired before its time")
    expected = [(second.queue, "expired", 1), (first, "expired", 1)]
    check_equal(how_it_died(letter), expected, "x-death")


@scenario("expiry.purge", covers=["expiry:no-dead-letters", "dead:not-dead"])
def purge_and_delete_make_no_dead_letters(s: Session) -> None:
    channel = s.channel()
    mortal = mortal_queue(s, channel)
    publish_confirmed(channel, mortal.queue, b"1", b"2", expiration=f"{_LONG_MS}")
    channel.call("queue.purge", queue=mortal.queue)
    mortal.expect_none(channel)
    publish_confirmed(channel, mortal.queue, b"3", expiration=f"{_LONG_MS}")
    channel.call("queue.delete", queue=mortal.queue)
    publish_confirmed(channel, mortal.dead, b"last")
    mortal.expect(b"last")


@scenario("expiry.purged", covers=["expiry:no-dead-letters"])
def what_was_purged_or_acked_does_not_expire_later(s: Session) -> None:
    channel = s.channel()
    mortal = mortal_queue(s, channel, {"x-message-ttl": 1000})
    publish_confirmed(channel, mortal.queue, b"got", b"acked", b"purged", b"purged")
    channel.get(mortal.queue)
    channel.get(mortal.queue, no_ack=False)
    channel.send("basic.ack", delivery_tag=2)
    channel.call("queue.purge", queue=mortal.queue)
    publish_confirmed(channel, mortal.queue, b"last")
    mortal.expect(b"last")


@scenario("expiry.transaction", covers=["expiry:transaction"])
def time_begins_at_commit(s: Session) -> None:
    channel = s.channel()
    mortal = mortal_queue(s, channel)
    channel.call("tx.select")
    channel.publish(b"m", "", mortal.queue, properties={"expiration": "300"})
    let_pass(s, 300)
    committed = time.monotonic()
    channel.call("tx.commit")
    mortal.expect(b"m")
    check(time.monotonic() - committed >= 0.3, "expired before its time")


def _quorum_queue(s: Session, channel: Channel) -> tuple[str, str]:
    dead = s.queue(channel, "dead")
    arguments = {"x-queue-type": "quorum", "x-message-ttl": 150, **dead_lettering_to(dead)}
    return s.queue(channel, durable=True, arguments=arguments), dead


@scenario("expiry.quorum", covers=["expiry:queue-ttl", "rule:quorum-queue-accepted"])
def messages_of_quorum_queues_expire_as_well(s: Session) -> None:
    channel = s.channel()
    queue, dead = _quorum_queue(s, channel)
    channel.consume(dead, no_ack=True)
    began = time.monotonic()
    publish_confirmed(channel, queue, b"1", b"2")
    for body in (b"1", b"2"):
        letter = channel.expect_delivery(body)
        check_equal(how_it_died(letter), [(queue, "expired", 1)], "x-death")
    check(time.monotonic() - began >= 0.15, "expired before its time")


@scenario(
    "expiry.restart",
    covers=["expiry:restart", "durability:message"],
    restarts=[Restart.STOP, Restart.KILL],
)
def time_goes_on_across_a_restart(s: Session) -> None:
    channel = s.channel()
    dead = s.queue(channel, "dead", durable=True)
    kept, first, second = (
        s.queue(channel, durable=True, arguments=dead_lettering_to(dead)) for _ in range(3)
    )
    publish_confirmed(channel, kept, b"kept", expiration=f"{_LONG_MS}", **PERSISTENT)
    publish_confirmed(channel, first, b"before", expiration="3000", **PERSISTENT)
    let_pass(s, 1500)
    s.restart_broker()
    channel = s.channel()
    # Less than what the other has, but more than it has left.
    publish_confirmed(channel, second, b"after", expiration="2100", **PERSISTENT)
    channel.consume(dead, no_ack=True)
    check_equal(next_bodies(channel, 2), [b"before", b"after"], "dead letters")
    found = channel.get(kept)
    check_equal(found and found.body, b"kept", "what has not expired")
    assert found is not None
    check_equal(found.message.properties["expiration"], f"{_LONG_MS}", "its expiration")


@scenario(
    "expiry.restart.queue-ttl",
    covers=["expiry:restart", "dead:restart"],
    restarts=[Restart.STOP, Restart.KILL],
)
def what_is_due_at_a_restart_dies_once(s: Session) -> None:
    channel = s.channel()
    dead = s.queue(channel, "dead", durable=True)
    arguments = {"x-message-ttl": 1500, **dead_lettering_to(dead)}
    queue = s.queue(channel, durable=True, arguments=arguments)
    publish_confirmed(channel, queue, b"1", b"2", **PERSISTENT)
    s.restart_broker()
    channel = s.channel()
    channel.consume(dead, no_ack=True)
    for body in (b"1", b"2"):
        letter = channel.expect_delivery(body)
        check_equal(how_it_died(letter), [(queue, "expired", 1)], "x-death")
    publish_confirmed(channel, queue, b"3", **PERSISTENT)
    channel.expect_delivery(b"3")
    check_equal(channel.message_count(queue), 0, "messages")

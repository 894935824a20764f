"""Limits on the length of a queue: x-max-length, x-max-length-bytes, x-overflow."""

from __future__ import annotations

from typing import Any

from conformance.channel import Channel
from conformance.dead_letters import (
    dead_lettering_to,
    death,
    deaths,
    how_it_died,
    mortal_queue,
    publish_confirmed,
    reject,
)
from conformance.failure import check, check_equal, eventually
from conformance.messages import PERSISTENT, get_redelivered, next_bodies, publish_at_once
from conformance.registry import Restart, scenario
from conformance.session import Session

_REJECT = {"x-overflow": "reject-publish"}
_REJECT_DLX = {"x-overflow": "reject-publish-dlx"}
_PARTIAL = "PRECONDITION_FAILED - partial tx completion"


def _limited(s: Session, channel: Channel, **arguments: Any) -> str:
    """A queue with arguments named without their prefix, underscores for hyphens."""
    told = {f"x-{name.replace('_', '-')}": value for name, value in arguments.items()}
    return s.queue(channel, "limited", arguments=told)


def _confirms(channel: Channel, queue: str, *bodies: bytes) -> list[bool]:
    """Publishes on a confirm channel of its own; whether each was acked."""
    publisher = channel.connection.channel()
    publisher.call("confirm.select")
    for body in bodies:
        publisher.publish(body, routing_key=queue)
    tags = range(1, len(bodies) + 1)
    acked, _ = publisher.confirms(tags)
    publisher.call("channel.close")
    return [tag in acked for tag in tags]


@scenario("length.drop-head", covers=["length:drop-head", "length:confirmed"])
def the_oldest_messages_are_dropped(s: Session) -> None:
    channel = s.channel()
    for more in ({}, {"overflow": "drop-head"}):
        queue = _limited(s, channel, max_length=3, **more)
        bodies = [b"%d" % number for number in range(1, 9)]
        check_equal(_confirms(channel, queue, *bodies), [True] * 8, "acked")
        check_equal(channel.message_count(queue), 3, "messages")
        check_equal(channel.get_all(queue), [b"6", b"7", b"8"], "what is left")


@scenario("length.below", covers=["length:drop-head", "length:room"])
def below_the_limit_nothing_is_dropped(s: Session) -> None:
    channel = s.channel()
    queue = _limited(s, channel, max_length=3, max_length_bytes=6)
    for body in (b"aa", b"bb", b"cc", b"dd", b"ee"):
        publish_confirmed(channel, queue, body, body, body)
        check_equal(channel.get_all(queue), [body] * 3, "messages")


@scenario("length.bytes", covers=["length:bytes", "length:drop-head"])
def octets_of_bodies_count(s: Session) -> None:
    channel = s.channel()
    queue = _limited(s, channel, max_length_bytes=10)
    publish_confirmed(channel, queue, b"aaaa", b"bbbb", b"cc")
    check_equal(channel.message_count(queue), 3, "messages of 10 octets")
    publish_confirmed(channel, queue, b"ddddd")
    check_equal(channel.get_all(queue), [b"cc", b"ddddd"], "what is left")
    publish_confirmed(channel, queue, b"before", b"x" * 11)
    check_equal(channel.get_all(queue), [], "what is left of more than the limit")


@scenario("length.bytes.headers", covers=["length:bytes"])
def headers_and_empty_bodies_do_not_count(s: Session) -> None:
    channel = s.channel()
    queue = _limited(s, channel, max_length_bytes=4)
    headers = {"long": "x" * 5000}
    publish_confirmed(channel, queue, b"aa", b"bb", *[b""] * 50, headers=headers)
    check_equal(channel.get_all(queue), [b"aa", b"bb", *[b""] * 50], "messages")


@scenario("length.both", covers=["length:both"])
def either_limit_holds(s: Session) -> None:
    channel = s.channel()
    queue = _limited(s, channel, max_length=3, max_length_bytes=10)
    publish_confirmed(channel, queue, b"1", b"2", b"3", b"4")
    publish_confirmed(channel, queue, b"55555555")
    check_equal(channel.get_all(queue), [b"3", b"4", b"55555555"], "what is left")
    publish_confirmed(channel, queue, b"1111", b"2222", b"3333")
    check_equal(channel.get_all(queue), [b"2222", b"3333"], "what is left")


@scenario("length.zero", covers=["length:zero", "length:confirmed"])
def with_limit_0_only_a_ready_consumer_gets_messages(s: Session) -> None:
    channel = s.channel()
    for limit in ("max_length", "max_length_bytes"):
        queue = _limited(s, channel, **{limit: 0})
        publish_confirmed(channel, queue, b"1", b"2")
        check_equal(channel.get(queue), None, "what is left")
        channel.call("basic.qos", prefetch_count=1)
        tag = channel.consume(queue)
        channel.publish(b"3", "", queue)
        delivery = channel.expect_delivery(b"3")
        publish_confirmed(channel, queue, b"4")
        channel.send("basic.ack", delivery_tag=delivery["delivery_tag"])
        channel.expect_silence(queue)
        channel.call("basic.cancel", consumer_tag=tag)


@scenario("length.zero.reject", covers=["length:zero", "length:reject"])
def with_limit_0_and_reject_publish_nothing_is_taken(s: Session) -> None:
    channel = s.channel()
    queue = _limited(s, channel, max_length=0, overflow="reject-publish")
    check_equal(_confirms(channel, queue, b"1", b"2"), [False, False], "acked")
    check_equal(channel.message_count(queue), 0, "messages")


@scenario("length.dead-letters", covers=["dead:maxlen", "length:drop-head"])
def what_is_dropped_is_dead_lettered_in_order(s: Session) -> None:
    channel = s.channel()
    mortal = mortal_queue(s, channel, {"x-max-length": 2})
    publish_confirmed(channel, mortal.queue, b"1", b"2", b"3", b"4", b"5")
    for letter in mortal.expect(b"1", b"2", b"3"):
        expected = [death(mortal.queue, "maxlen", "", mortal.queue)]
        check_equal(deaths(letter), expected, "x-death")
    check_equal(channel.get_all(mortal.queue), [b"4", b"5"], "what is left")


@scenario("length.dead-letters.bytes", covers=["dead:maxlen", "length:bytes"])
def what_exceeds_the_octets_dies_of_the_same(s: Session) -> None:
    channel = s.channel()
    mortal = mortal_queue(s, channel, {"x-max-length-bytes": 5})
    publish_confirmed(channel, mortal.queue, b"11", b"22", b"3333")
    for letter in mortal.expect(b"11", b"22"):
        check_equal(how_it_died(letter), [(mortal.queue, "maxlen", 1)], "x-death")
    publish_confirmed(channel, mortal.queue, b"too long")
    mortal.expect(b"3333", b"too long")


@scenario("length.unacked", covers=["length:ready-only"])
def unacked_messages_do_not_count(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    queue = _limited(s, channel, max_length=2, max_length_bytes=2)
    publish_confirmed(other, queue, b"1", b"2")
    for _ in range(2):
        channel.get(queue, no_ack=False)
    publish_confirmed(other, queue, b"3", b"4", b"5")
    check_equal(other.get_all(queue), [b"4", b"5"], "what is left")
    channel.send("basic.nack", delivery_tag=0, multiple=True, requeue=True)
    channel.settle(queue)
    check_equal(get_redelivered(other, queue), [(b"1", True), (b"2", True)], "requeued")


@scenario("length.requeued", covers=["length:requeued", "dead:maxlen"])
def what_is_requeued_above_the_limit_goes_from_the_head(s: Session) -> None:
    channel = s.channel()
    mortal = mortal_queue(s, channel, {"x-max-length": 3})
    publish_confirmed(channel, mortal.queue, b"1", b"2", b"3")
    for _ in range(2):
        channel.get(mortal.queue, no_ack=False)
    publish_confirmed(channel, mortal.queue, b"4", b"5")
    channel.send("basic.nack", delivery_tag=0, multiple=True, requeue=True)
    mortal.expect(b"1", b"2")
    check_equal(channel.get_all(mortal.queue), [b"3", b"4", b"5"], "what is left")


@scenario(
    "length.reject", covers=["length:reject", "rule:confirm-nack", "method:basic.nack.server"]
)
def what_does_not_fit_is_nacked(s: Session) -> None:
    channel = s.channel()
    queue = _limited(s, channel, max_length=2, overflow="reject-publish")
    acked = _confirms(channel, queue, b"1", b"2", b"3", b"4")
    check_equal(acked, [True, True, False, False], "acked")
    check_equal(channel.get_all(queue), [b"1", b"2"], "messages")
    check_equal(_confirms(channel, queue, b"5"), [True], "acked after room was made")


@scenario("length.reject.bytes", covers=["length:reject", "length:bytes"])
def a_smaller_message_fits_where_a_larger_one_does_not(s: Session) -> None:
    channel = s.channel()
    queue = _limited(s, channel, max_length_bytes=10, overflow="reject-publish")
    acked = _confirms(channel, queue, b"1111", b"22222222", b"333", b"4444", b"555", b"")
    check_equal(acked, [True, False, True, False, True, True], "acked")
    check_equal(channel.get_all(queue), [b"1111", b"333", b"555", b""], "messages")


@scenario("length.reject.silent", covers=["length:reject-silent"])
def without_confirms_it_is_dropped_in_silence(s: Session) -> None:
    channel = s.channel()
    queue = _limited(s, channel, max_length=1, overflow="reject-publish")
    for body in (b"1", b"2", b"3"):
        channel.publish(body, "", queue, mandatory=True)
    channel.expect_silence(queue)
    check_equal(channel.get_all(queue), [b"1"], "messages")


@scenario("length.reject.unacked", covers=["length:reject", "length:ready-only"])
def reject_publish_counts_ready_messages_only(s: Session) -> None:
    channel = s.channel()
    queue = _limited(s, channel, max_length=1, overflow="reject-publish")
    publish_confirmed(channel, queue, b"1")
    channel.get(queue, no_ack=False)
    check_equal(_confirms(channel, queue, b"2", b"3"), [True, False], "acked")
    channel.send("basic.nack", delivery_tag=1, requeue=True)
    check_equal(channel.get_all(queue), [b"1", b"2"], "messages, one above the limit")


@scenario("length.reject.fanout", covers=["length:reject-others", "length:reject"])
def other_queues_get_what_one_refuses(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "fanout")
    full = _limited(s, channel, max_length=1, overflow="reject-publish")
    others = [s.queue(channel) for _ in range(2)]
    for queue in (others[0], full, others[1]):
        channel.bind(queue, exchange)
    channel.call("confirm.select")
    channel.publish(b"1", exchange)
    check_equal(channel.confirms({1}), ({1}, set()), "acked and nacked")
    channel.publish(b"2", exchange, mandatory=True)
    check_equal(channel.confirms({2}), (set(), {2}), "acked and nacked")
    for queue, bodies in ((full, [b"1"]), *((other, [b"1", b"2"]) for other in others)):
        check_equal(channel.get_all(queue), bodies, "messages")


@scenario("length.reject.expired", covers=["length:room", "length:reject"])
def what_has_expired_makes_room(s: Session) -> None:
    channel = s.channel()
    mortal = mortal_queue(s, channel, {"x-max-length": 2, **_REJECT})
    publish_confirmed(channel, mortal.queue, b"1", b"2", expiration="100")
    mortal.expect(b"1", b"2")
    check_equal(_confirms(channel, mortal.queue, b"3", b"4", b"5"), [True, True, False], "acked")


@scenario("length.reject.drained", covers=["length:room", "length:reject"])
def what_a_consumer_takes_makes_room(s: Session) -> None:
    channel, sender = s.channel(), s.channel()
    queue = _limited(s, channel, max_length=2, overflow="reject-publish")
    check_equal(_confirms(sender, queue, b"1", b"2", b"3"), [True, True, False], "acked")
    channel.consume(queue, no_ack=True)
    channel.deliveries(2)
    for body in (b"4", b"5", b"6"):
        check_equal(_confirms(sender, queue, body), [True], "acked")
        channel.expect_delivery(body)


@scenario("length.reject-dlx", covers=["length:reject-dlx", "dead:maxlen"])
def what_does_not_fit_is_dead_lettered_and_nacked(s: Session) -> None:
    channel = s.channel()
    mortal = mortal_queue(s, channel, {"x-max-length": 1, **_REJECT_DLX})
    check_equal(_confirms(channel, mortal.queue, b"1", b"2", b"3"), [True, False, False], "acked")
    for letter in mortal.expect(b"2", b"3"):
        expected = [death(mortal.queue, "maxlen", "", mortal.queue)]
        check_equal(deaths(letter), expected, "x-death")
    check_equal(channel.get_all(mortal.queue), [b"1"], "messages")


@scenario("length.reject-dlx.no-exchange", covers=["length:reject-dlx"])
def without_an_exchange_it_is_only_nacked(s: Session) -> None:
    channel = s.channel()
    queue = _limited(s, channel, max_length=1, overflow="reject-publish-dlx")
    check_equal(_confirms(channel, queue, b"1", b"2"), [True, False], "acked")
    check_equal(channel.get_all(queue), [b"1"], "messages")


@scenario("length.reject.no-dead-letters", covers=["length:reject", "dead:maxlen"])
def reject_publish_dead_letters_nothing(s: Session) -> None:
    channel = s.channel()
    mortal = mortal_queue(s, channel, {"x-max-length": 1, **_REJECT})
    check_equal(_confirms(channel, mortal.queue, b"1", b"2"), [True, False], "acked")
    check_equal(channel.get_all(mortal.queue), [b"1"], "messages")
    mortal.expect_none(channel)


@scenario("length.reject.letters", covers=["length:reject", "dead:unroutable"])
def a_full_queue_refuses_dead_letters_which_are_dropped(s: Session) -> None:
    channel = s.channel()
    full = _limited(s, channel, max_length=1, overflow="reject-publish")
    publish_confirmed(channel, full, b"first")
    source = s.queue(channel, arguments=dead_lettering_to(full))
    publish_confirmed(channel, source, b"1", b"2")
    reject(channel, source, b"1")
    # Refused or not, it has come when another dead letter has.
    marker = mortal_queue(s, channel)
    publish_confirmed(channel, marker.queue, b"m")
    reject(channel, marker.queue)
    marker.expect(b"m")
    check_equal(channel.get_all(full), [b"first"], "messages")
    reject(channel, source, b"2")
    eventually(lambda: channel.message_count(full) == 1, "a dead letter that fits arrives")
    check_equal(channel.get_all(full), [b"2"], "messages")


@scenario("length.reject-dlx.letters", covers=["length:reject-dlx", "dead:chain"])
def a_dead_letter_that_does_not_fit_dies_again(s: Session) -> None:
    channel = s.channel()
    full = mortal_queue(s, channel, {"x-max-length": 1, **_REJECT_DLX})
    publish_confirmed(channel, full.queue, b"first")
    source = s.queue(channel, arguments=dead_lettering_to(full.queue))
    publish_confirmed(channel, source, b"m")
    reject(channel, source, b"m")
    (letter,) = full.expect(b"m")
    expected = [(full.queue, "maxlen", 1), (source, "rejected", 1)]
    check_equal(how_it_died(letter), expected, "x-death")
    check_equal(channel.get_all(full.queue), [b"first"], "messages")


@scenario("length.reject.transaction", covers=["error:partial-tx", "length:reject"])
def a_commit_of_which_a_queue_refuses_a_part_closes_the_channel(s: Session) -> None:
    channel = s.channel()
    queue = _limited(s, channel, max_length=1, overflow="reject-publish")
    channel.call("tx.select")
    for body in (b"1", b"2"):
        channel.publish(body, "", queue)
    channel.send("tx.commit")
    channel.expect_close(406, _PARTIAL, "tx.commit")
    check_equal(channel.reopen().get_all(queue), [b"1"], "messages")


@scenario("length.burst", covers=["length:burst"])
def what_a_ready_consumer_can_take_is_not_dropped(s: Session) -> None:
    channel, sender = s.channel(), s.channel()
    queue = _limited(s, channel, max_length=1)
    channel.consume(queue, no_ack=True)
    publish_at_once(sender, queue, 300)
    sender.settle(queue)
    found: list[int] = []
    while not found or found[-1] != 299:
        found.append(int(channel.expect_delivery().body))
    check_equal(found, sorted(set(found)), "numbers, rising")
    check(len(found) >= 150, f"most of 300 arrive, not {len(found)}")


@scenario("length.quorum", covers=["length:drop-head", "rule:quorum-queue-accepted"])
def quorum_queues_drop_the_oldest_as_well(s: Session) -> None:
    channel = s.channel()
    mortal = mortal_queue(s, channel, {"x-queue-type": "quorum", "x-max-length": 2}, durable=True)
    publish_confirmed(channel, mortal.queue, b"1", b"2", b"3", b"4")
    for letter in mortal.expect(b"1", b"2"):
        check_equal(how_it_died(letter), [(mortal.queue, "maxlen", 1)], "x-death")
    check_equal(channel.message_count(mortal.queue), 2, "messages")


@scenario(
    "length.restart",
    covers=["length:restart", "durability:message"],
    restarts=[Restart.STOP, Restart.KILL],
)
def limits_hold_after_a_restart(s: Session) -> None:
    channel = s.channel()
    dead = s.queue(channel, "dead", durable=True)
    arguments = {"x-max-length": 3, "x-max-length-bytes": 5, **dead_lettering_to(dead)}
    queue = s.queue(channel, durable=True, arguments=arguments)
    publish_confirmed(channel, queue, b"1", b"2", b"3", b"4", **PERSISTENT)
    s.restart_broker()
    channel = s.channel()
    check_equal(channel.message_count(queue), 3, "messages after the restart")
    publish_confirmed(channel, queue, b"55", **PERSISTENT)
    publish_confirmed(channel, queue, b"666", **PERSISTENT)
    check_equal(channel.get_all(queue), [b"55", b"666"], "what is left")
    channel.consume(dead, no_ack=True)
    check_equal(next_bodies(channel, 4), [b"1", b"2", b"3", b"4"], "dead letters")

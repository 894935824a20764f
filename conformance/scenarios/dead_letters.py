"""Which messages become dead letters, and where they go."""

from __future__ import annotations

from typing import Any

from conformance import fields
from conformance.channel import Channel
from conformance.dead_letters import (
    collector,
    dead_lettering_to,
    dying_queue,
    how_it_died,
    mortal_queue,
    other_headers,
    publish_confirmed,
    reject,
)
from conformance.failure import check_equal
from conformance.messages import PERSISTENT, get_redelivered, next_bodies
from conformance.methods import Method
from conformance.registry import Restart, scenario
from conformance.session import Session


def _kill(channel: Channel, queue: str, *bodies: bytes) -> None:
    """Publishes these and rejects them one by one."""
    publish_confirmed(channel, queue, *bodies)
    for body in bodies:
        reject(channel, queue, body)


@scenario("dead.rejected", covers=["dead:rejected", "dead:redelivered"])
def rejected_messages_arrive_in_order_and_as_new(s: Session) -> None:
    channel = s.channel()
    mortal = mortal_queue(s, channel)
    bodies = [b"%d" % number for number in range(10)]
    _kill(channel, mortal.queue, *bodies)
    for letter in mortal.expect(*bodies):
        check_equal(how_it_died(letter), [(mortal.queue, "rejected", 1)], "x-death")
        found = (letter["exchange"], letter["routing_key"], letter["redelivered"])
        check_equal(found, ("", mortal.dead, False), "exchange, routing key, redelivered")


@scenario("dead.nacked", covers=["dead:rejected", "method:basic.nack"])
def nacked_messages_arrive_in_the_order_of_their_tags(s: Session) -> None:
    channel = s.channel()
    mortal = mortal_queue(s, channel)
    bodies = [b"%d" % number for number in range(8)]
    channel.consume(mortal.queue)
    publish_confirmed(channel, mortal.queue, *bodies)
    channel.deliveries(8)
    channel.send("basic.nack", delivery_tag=4)
    channel.send("basic.nack", delivery_tag=3, multiple=True)
    channel.send("basic.nack", delivery_tag=0, multiple=True)
    letters = mortal.expect(b"3", b"0", b"1", b"2", b"4", b"5", b"6", b"7")
    for letter in letters:
        check_equal(how_it_died(letter), [(mortal.queue, "rejected", 1)], "x-death")


@scenario("dead.redelivered", covers=["dead:redelivered", "dead:rejected"])
def what_was_redelivered_before_it_died_is_new_among_the_dead(s: Session) -> None:
    channel = s.channel()
    dead = s.queue(channel)
    queue = s.queue(channel, arguments=dead_lettering_to(dead))
    publish_confirmed(channel, queue, b"m")
    channel.get(queue, no_ack=False)
    channel.send("basic.reject", delivery_tag=1, requeue=True)
    reject(channel, queue, b"m")
    channel.consume(dead)
    channel.expect_delivery(b"m", redelivered=False)


@scenario("dead.not-dead", covers=["dead:not-dead"])
def acks_requeues_cancels_and_closes_make_no_dead_letters(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    mortal = mortal_queue(s, channel)
    publish_confirmed(channel, mortal.queue, b"acked", b"requeued", b"closed", b"purged")
    other.consume(mortal.queue, "cancelled")
    other.deliveries(4)
    other.call("basic.cancel", consumer_tag="cancelled")
    other.send("basic.ack", delivery_tag=1)
    other.send("basic.reject", delivery_tag=2, requeue=True)
    other.connection.close()
    check_equal(channel.message_count(mortal.queue), 3, "messages that came back")
    channel.call("queue.purge", queue=mortal.queue)
    mortal.expect_none(channel)


@scenario("dead.deleted", covers=["dead:not-dead"])
def a_queue_that_is_deleted_makes_no_dead_letters(s: Session) -> None:
    channel = s.channel()
    mortal = mortal_queue(s, channel)
    publish_confirmed(channel, mortal.queue, b"ready", b"unacked")
    channel.get(mortal.queue, no_ack=False)
    channel.call("queue.delete", queue=mortal.queue)
    channel.send("basic.reject", delivery_tag=1)
    channel.expect_silence()
    publish_confirmed(channel, mortal.dead, b"last")
    mortal.expect(b"last")


@scenario("dead.no-exchange-set", covers=["dead:rejected"])
def without_a_dead_letter_exchange_the_rejected_are_gone(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    _kill(channel, queue, b"1", b"2")
    check_equal(channel.get_all(queue), [], "messages")


@scenario("dead.missing-exchange", covers=["dead:missing-exchange", "dead:late-exchange"])
def without_the_exchange_they_are_dropped_until_it_is_declared(s: Session) -> None:
    channel = s.channel()
    exchange = s.name("late")
    queue = dying_queue(s, channel, exchange)
    _kill(channel, queue, b"dropped")
    channel.declare_exchange(exchange, "fanout")
    letters = collector(s, exchange, "")
    _kill(channel, queue, b"arrives")
    letters.expect_delivery(b"arrives", exchange=exchange)
    channel.call("exchange.delete", exchange=exchange)
    _kill(channel, queue, b"dropped")
    channel.declare_exchange(exchange, "direct")
    letters = collector(s, exchange, queue)
    _kill(channel, queue, b"arrives again")
    letters.expect_delivery(b"arrives again", routing_key=queue)


@scenario("dead.key", covers=["dead:key", "dead:routing"])
def the_queue_may_name_another_routing_key(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "direct")
    old, new = collector(s, exchange, "old"), collector(s, exchange, "new")
    named = dying_queue(s, channel, exchange, "new")
    kept = dying_queue(s, channel, exchange)
    source = s.exchange(channel, "topic")
    for queue in (named, kept):
        channel.bind(queue, source, "old")
    channel.publish(b"m", source, "old")
    for queue in (named, kept):
        channel.settle(queue)
        reject(channel, queue, b"m")
    new.expect_delivery(b"m", exchange=exchange, routing_key="new")
    old.expect_delivery(b"m", exchange=exchange, routing_key="old")


@scenario("dead.key.empty", covers=["dead:key"])
def an_empty_routing_key_is_one(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "direct")
    letters = collector(s, exchange, "")
    _kill(channel, dying_queue(s, channel, exchange, ""), b"m")
    letters.expect_delivery(b"m", routing_key="")


@scenario("dead.keys-kept", covers=["dead:keys-kept", "rule:sender-selected"])
def dead_letters_are_routed_by_all_keys_they_were_published_with(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "direct")
    collectors = [collector(s, exchange, key) for key in ("key", "cc", "bcc", "key")]
    queue = dying_queue(s, channel, exchange)
    source = s.exchange(channel, "fanout")
    channel.bind(queue, source)
    headers = {"CC": ["cc"], "BCC": ["bcc"]}
    channel.publish(b"m", source, "key", properties={"headers": headers})
    channel.settle(queue)
    reject(channel, queue, b"m")
    for letters in collectors:
        letter = letters.expect_delivery(b"m", routing_key="key")
        check_equal(fields.plain(other_headers(letter)), {"CC": ["cc"]}, "headers")


def _headers() -> dict[str, Any]:
    return {
        "A": fields.byte(-1),
        "long": fields.long(5),
        "short": fields.short(5),
        "float": fields.float32(-0.0),
        "time": fields.timestamp(2**40),
        "decimal": fields.decimal(3, -7),
        "octets": fields.byte_array(b"\x00\xff"),
        "no text": fields.longstr(b"\xff\xfe"),
        "void": None,
        "nested": {"b": [{"a": fields.short(1)}, [], {}], "a": True},
        "x-custom": "stays",
    }


@scenario("dead.content", covers=["dead:content", "rule:header-kept"])
def content_is_as_it_was_sent(s: Session) -> None:
    channel = s.channel()
    mortal = mortal_queue(s, channel)
    headers = _headers()
    properties = {
        "content_type": "application/octet-stream",
        "content_encoding": "x",
        "delivery_mode": 2,
        "priority": 7,
        "correlation_id": "c",
        "reply_to": "r",
        "message_id": "m",
        "timestamp": 12345,
        "type": "t",
        "user_id": "guest",
        "app_id": "a",
        "cluster_id": "",
    }
    body = bytes(range(256)) * 1500
    told = {**properties, "headers": headers}
    channel.publish(body, "", mortal.queue, properties=told)
    channel.settle(mortal.queue)
    reject(channel, mortal.queue, body)
    (letter,) = mortal.expect(body)
    found = letter.message.properties
    found.pop("headers")
    check_equal(found, properties, "properties")
    expected = fields.Reader(fields.encode_table(headers)).table()
    check_equal(other_headers(letter), expected, "headers with their wire types")


@scenario("dead.content.bare", covers=["dead:content"])
def a_message_without_properties_gets_only_its_history(s: Session) -> None:
    channel = s.channel()
    mortal = mortal_queue(s, channel)
    _kill(channel, mortal.queue, b"")
    (letter,) = mortal.expect(b"")
    check_equal(list(letter.message.properties), ["headers"], "properties")
    check_equal(other_headers(letter), {}, "headers that are no history")


@scenario("dead.topic", covers=["dead:routing", "routing:topic"])
def dead_letters_go_through_topic_exchanges(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "topic")
    both = [collector(s, exchange, pattern) for pattern in ("dead.#", "*.job.*")]
    _kill(channel, dying_queue(s, channel, exchange, "dead.job.1"), b"m")
    for letters in both:
        letters.expect_delivery(b"m", exchange=exchange, routing_key="dead.job.1")


@scenario("dead.headers", covers=["dead:routing", "routing:headers-all"])
def headers_exchanges_see_the_history(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "headers")
    own = collector(s, exchange, "", arguments={"x-match": "all", "tenant": "a"})
    reason = {"x-match": "all-with-x", "x-first-death-reason": "rejected"}
    by_reason = collector(s, exchange, "", arguments=reason)
    queue = dying_queue(s, channel, exchange)
    publish_confirmed(channel, queue, b"of a", headers={"tenant": "a"})
    publish_confirmed(channel, queue, b"of b", headers={"tenant": "b"})
    reject(channel, queue, b"of a")
    reject(channel, queue, b"of b")
    own.expect_delivery(b"of a")
    check_equal(next_bodies(by_reason, 2), [b"of a", b"of b"], "bodies by reason")
    _kill(channel, queue, b"last")
    by_reason.expect_delivery(b"last")


@scenario("dead.fanout", covers=["dead:routing", "routing:fanout", "routing:exchange-to-exchange"])
def a_dead_letter_goes_to_many_queues_and_through_further_exchanges(s: Session) -> None:
    channel = s.channel()
    exchange, further = (s.exchange(channel, "fanout") for _ in range(2))
    channel.call("exchange.bind", source=exchange, destination=further)
    collectors = [collector(s, one, "") for one in (exchange, exchange, further)]
    _kill(channel, dying_queue(s, channel, exchange), b"1", b"2")
    for letters in collectors:
        check_equal(next_bodies(letters, 2), [b"1", b"2"], "bodies")


@scenario("dead.internal", covers=["dead:routing", "routing:alternate"])
def dead_letters_enter_internal_exchanges_and_alternate_ones(s: Session) -> None:
    channel = s.channel()
    fallback = s.exchange(channel, "fanout")
    arguments = {"alternate-exchange": fallback}
    exchange = s.exchange(channel, "direct", internal=True, arguments=arguments)
    letters = collector(s, fallback, "")
    _kill(channel, dying_queue(s, channel, exchange), b"m")
    letters.expect_delivery(b"m", exchange=exchange)


@scenario("dead.unroutable", covers=["dead:unroutable"])
def what_is_routed_nowhere_is_dropped_and_nobody_is_told(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "direct")
    queue = dying_queue(s, channel, exchange)
    channel.call("confirm.select")
    channel.publish(b"m", "", queue, mandatory=True)
    check_equal(channel.confirms({1}), ({1}, set()), "acked and nacked")
    reject(channel, queue, b"m")
    channel.expect_silence(queue)
    check_equal(channel.get(queue), None, "what is left")


def _rejected_in_transaction(s: Session, channel: Channel) -> Any:
    mortal = mortal_queue(s, channel)
    publish_confirmed(channel, mortal.queue, b"1", b"2")
    channel.call("tx.select")
    for _ in range(2):
        channel.get(mortal.queue, no_ack=False)
    channel.send("basic.nack", delivery_tag=2, multiple=True)
    return mortal


@scenario("dead.transaction", covers=["dead:transaction", "rule:tx-ack"])
def a_rejection_counts_at_commit(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    mortal = _rejected_in_transaction(s, channel)
    channel.expect_silence(mortal.queue)
    publish_confirmed(other, mortal.dead, b"before")
    channel.call("tx.commit")
    mortal.expect(b"before", b"1", b"2")


@scenario("dead.rollback", covers=["dead:transaction", "rule:tx-ack"])
def a_rejection_that_is_rolled_back_has_not_happened(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    mortal = _rejected_in_transaction(s, channel)
    channel.call("tx.rollback")
    channel.connection.close()
    expected = [(b"1", True), (b"2", True)]
    check_equal(get_redelivered(other, mortal.queue), expected, "messages that came back")
    mortal.expect_none(other)


def _letters_after_restart(s: Session, count: int) -> tuple[str, list[Method]]:
    channel = s.channel()
    dead = s.queue(channel, "dead", durable=True)
    queue = s.queue(channel, durable=True, arguments=dead_lettering_to(dead))
    publish_confirmed(channel, queue, *(b"%d" % n for n in range(count)), **PERSISTENT)
    for number in range(count):
        reject(channel, queue, b"%d" % number)
    # Confirmed behind the dead letters: they were written before it.
    watch = s.channel()
    watch.consume(dead)
    watch.deliveries(count)
    watch.connection.close()
    publish_confirmed(channel, dead, b"last", **PERSISTENT)
    s.restart_broker()
    channel = s.channel()
    channel.consume(dead)
    found = channel.deliveries(count)
    channel.expect_delivery(b"last")
    check_equal(channel.message_count(queue), 0, "messages that are back where they died")
    return queue, found


@scenario(
    "dead.restart",
    covers=["dead:restart", "durability:settled"],
    restarts=[Restart.STOP, Restart.KILL],
)
def dead_letters_survive_with_their_history(s: Session) -> None:
    queue, letters = _letters_after_restart(s, 3)
    for number, letter in enumerate(letters):
        check_equal(letter.body, b"%d" % number, "body")
        check_equal(how_it_died(letter), [(queue, "rejected", 1)], "x-death")
        check_equal(letter.message.properties["delivery_mode"], 2, "delivery mode")

"""What a dead letter tells of its death: x-death, x-first-death-..., x-last-death-..."""

from __future__ import annotations

import time
from typing import Any

from conformance import fields
from conformance.channel import Channel
from conformance.dead_letters import (
    collector,
    dead_lettering_to,
    death,
    deaths,
    dying_queue,
    history,
    how_it_died,
    mortal_queue,
    other_headers,
    publish_confirmed,
    reject,
    typed_deaths,
)
from conformance.failure import ConformanceError, check, check_equal, eventually
from conformance.fields import Typed
from conformance.registry import deviation, scenario
from conformance.routing import bound_queue
from conformance.session import Session

_LAST_SINCE_3_13 = deviation("rabbitmq", "3.10 has no x-last-death headers")


@scenario("x-death.types", covers=["dead:x-death"])
def fields_have_their_wire_types(s: Session) -> None:
    channel = s.channel()
    mortal = mortal_queue(s, channel)
    exchange = s.exchange(channel, "fanout")
    channel.bind(mortal.queue, exchange)
    began = int(time.time())
    channel.publish(b"m", exchange, "key", properties={"expiration": "3600000"})
    channel.settle(mortal.queue)
    reject(channel, mortal.queue)
    (letter,) = mortal.expect(b"m")
    (entry,) = typed_deaths(letter)
    when = entry.pop("time")
    check_equal(when.tag, "T", "wire type of time")
    check(began - 1 <= when.value <= time.time() + 1, f"time in seconds, not {when.value}")
    expected = {
        "count": fields.long(1),
        "reason": fields.longstr("rejected"),
        "queue": fields.longstr(mortal.queue),
        "exchange": fields.longstr(exchange),
        "routing-keys": Typed("A", [fields.longstr("key")]),
        "original-expiration": fields.longstr("3600000"),
    }
    check_equal(entry, expected, "x-death")
    typed = letter.message.typed_headers
    for word, value in (("reason", "rejected"), ("queue", mortal.queue), ("exchange", exchange)):
        check_equal(typed[f"x-first-death-{word}"], fields.longstr(value), f"first {word}")


@scenario("x-death.expiration", covers=["dead:expired", "dead:x-death"])
def expiration_is_moved_to_original_expiration(s: Session) -> None:
    channel = s.channel()
    mortal = mortal_queue(s, channel)
    publish_confirmed(channel, mortal.queue, b"1", expiration="0050")
    publish_confirmed(channel, mortal.queue, b"2", expiration="60000")
    mortal.expect(b"1")
    reject(channel, mortal.queue, b"2")
    publish_confirmed(channel, mortal.queue, b"3")
    reject(channel, mortal.queue, b"3")
    two, three = mortal.expect(b"2", b"3")
    moved = {"original-expiration": "60000"}
    for letter, more in ((two, moved), (three, {})):
        expected = [{**death(mortal.queue, "rejected", "", mortal.queue), **more}]
        check_equal(deaths(letter), expected, "x-death")
        check_equal(list(letter.message.properties), ["headers"], "properties")


@scenario("x-death.expiration.stays-dead", covers=["dead:expired", "dead:x-death"])
def a_message_that_expired_does_not_expire_among_the_dead(s: Session) -> None:
    channel = s.channel()
    grave = mortal_queue(s, channel)
    first = s.queue(channel, arguments=dead_lettering_to(grave.queue))
    publish_confirmed(channel, first, b"m", expiration="50")
    channel.consume(grave.queue)
    letter = channel.expect_delivery(b"m")
    expected = [{**death(first, "expired", "", first), "original-expiration": "50"}]
    check_equal(deaths(letter), expected, "x-death")
    check_equal("expiration" in letter.message.properties, False, "expiration among the properties")
    channel.send("basic.reject", delivery_tag=1)
    (letter,) = grave.expect(b"m")
    again = death(grave.queue, "rejected", "", grave.queue)
    check_equal(deaths(letter), [again, *expected], "x-death")


@scenario("x-death.queue-ttl", covers=["dead:expired", "dead:x-death"])
def the_ttl_of_a_queue_is_no_original_expiration(s: Session) -> None:
    channel = s.channel()
    mortal = mortal_queue(s, channel, {"x-message-ttl": 30})
    publish_confirmed(channel, mortal.queue, b"m")
    (letter,) = mortal.expect(b"m")
    check_equal(deaths(letter), [death(mortal.queue, "expired", "", mortal.queue)], "x-death")


@scenario("x-death.keys", covers=["dead:x-death", "rule:sender-selected"])
def routing_keys_hold_cc_and_not_bcc(s: Session) -> None:
    channel = s.channel()
    mortal = mortal_queue(s, channel)
    exchange = s.exchange(channel, "fanout")
    channel.bind(mortal.queue, exchange)
    headers = {"CC": ["c1", "c2"], "BCC": ["hidden"]}
    channel.publish(b"m", exchange, "key", properties={"headers": headers})
    channel.settle(mortal.queue)
    reject(channel, mortal.queue)
    (letter,) = mortal.expect(b"m")
    expected = [death(mortal.queue, "rejected", exchange, "key", "c1", "c2")]
    check_equal(deaths(letter), expected, "x-death")


@scenario("x-death.cc-header", covers=["dead:key", "rule:sender-selected"])
def the_cc_header_goes_where_the_queue_names_a_key(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "direct")
    letters = collector(s, exchange, "named")
    others = collector(s, exchange, "copied", "key")
    queue = dying_queue(s, channel, exchange, "named")
    headers = {"CC": ["copied"], "n": fields.short(1)}
    publish_confirmed(channel, queue, b"m", headers=headers)
    reject(channel, queue)
    letter = letters.expect_delivery(b"m")
    check_equal(other_headers(letter), {"n": fields.short(1)}, "headers")
    check_equal(deaths(letter), [death(queue, "rejected", "", queue, "copied")], "x-death")
    channel.publish(b"last", exchange, "key")
    others.expect_delivery(b"last")


@scenario("x-death.count", covers=["dead:count", "dead:rejected-cycle"])
def the_same_death_counts_and_keeps_its_first_time(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel, arguments={"x-dead-letter-exchange": ""})
    publish_confirmed(channel, queue, b"m", expiration="3600000")
    channel.consume(queue)
    channel.expect_delivery(b"m")
    channel.send("basic.reject", delivery_tag=1)
    (first,) = typed_deaths(channel.expect_delivery(b"m"))
    # Times are whole seconds: the next death must be in another one.
    while int(time.time()) <= first["time"].value:
        time.sleep(0.02)
    channel.send("basic.reject", delivery_tag=2)
    (second,) = typed_deaths(channel.expect_delivery(b"m"))
    check_equal(second, {**first, "count": fields.long(2)}, "x-death")


@scenario(
    "x-death.order",
    covers=["dead:count", "dead:x-death", "dead:chain"],
    deviations=[deviation("rabbitmq", "only the latest has its place, the rest is in any order")],
)
def the_latest_death_is_in_front(s: Session) -> None:
    channel = s.channel()
    queue, other = s.name("one"), s.name("other")
    channel.declare_queue(queue, arguments=dead_lettering_to(other))
    channel.declare_queue(other, arguments=dead_lettering_to(queue))
    expired = {"x-message-ttl": 20, **dead_lettering_to(other)}
    third = s.queue(channel, arguments=expired)
    publish_confirmed(channel, third, b"m")
    channel.consume(queue)
    channel.consume(other)
    letter = channel.expect_delivery(b"m", routing_key=other)
    for wanted in (
        [(third, "expired", 1)],
        [(other, "rejected", 1), (third, "expired", 1)],
        [(queue, "rejected", 1), (other, "rejected", 1), (third, "expired", 1)],
        [(other, "rejected", 2), (queue, "rejected", 1), (third, "expired", 1)],
        [(queue, "rejected", 2), (other, "rejected", 2), (third, "expired", 1)],
    ):
        found = how_it_died(letter)
        check_equal(found[0], wanted[0], "latest death")
        check_equal(sorted(found), sorted(wanted), "deaths")
        if not s.deviates:
            check_equal(found, wanted, "x-death")
        channel.send("basic.reject", delivery_tag=letter["delivery_tag"])
        letter = channel.expect_delivery(b"m")


@scenario("x-death.reasons", covers=["dead:x-death", "dead:rejected", "dead:maxlen"])
def deaths_of_one_queue_for_two_reasons_are_two(s: Session) -> None:
    channel = s.channel()
    arguments = {"x-dead-letter-exchange": "", "x-max-length": 1}
    queue = s.queue(channel, arguments=arguments)
    dead = s.queue(channel)
    exchange = s.exchange(channel, "fanout")
    channel.bind(queue, exchange)
    channel.publish(b"1", exchange, queue)
    channel.settle(queue)
    reject(channel, queue, b"1")
    channel.settle(queue)
    # Back in its queue, it is pushed out; the cycle is not one, as it was rejected before.
    held = channel.get(queue, no_ack=False)
    assert held is not None
    check_equal(how_it_died(held), [(queue, "rejected", 1)], "x-death")
    channel.call("queue.delete", queue=queue)
    channel.declare_queue(queue, arguments={**dead_lettering_to(dead), "x-max-length": 1})
    again = {"headers": held.message.headers}
    channel.publish(b"1", "", queue, properties=again)
    publish_confirmed(channel, queue, b"2")
    channel.consume(dead, no_ack=True)
    letter = channel.expect_delivery(b"1")
    expected = [(queue, "maxlen", 1), (queue, "rejected", 1)]
    check_equal(how_it_died(letter), expected, "x-death")


@scenario("x-death.first", covers=["dead:first-death", "dead:chain"])
def the_first_death_is_told_of_for_ever(s: Session) -> None:
    channel = s.channel()
    last = mortal_queue(s, channel)
    first = s.queue(channel, arguments=dead_lettering_to(last.queue) | {"x-message-ttl": 20})
    exchange = s.exchange(channel, "fanout")
    channel.bind(first, exchange)
    channel.consume(last.queue)
    channel.publish(b"m", exchange, "key")
    expected = {"reason": "expired", "queue": first, "exchange": exchange}
    letter = channel.expect_delivery(b"m")
    check_equal(history(letter, "first"), expected, "first death")
    channel.send("basic.reject", delivery_tag=1)
    (letter,) = last.expect(b"m")
    check_equal(history(letter, "first"), expected, "first death")


@scenario("x-death.last", covers=["dead:last-death"], deviations=[_LAST_SINCE_3_13])
def the_last_death_is_told_of_each_time(s: Session) -> None:
    channel = s.channel()
    last = mortal_queue(s, channel)
    first = s.queue(channel, arguments=dead_lettering_to(last.queue) | {"x-message-ttl": 20})
    exchange = s.exchange(channel, "fanout")
    channel.bind(first, exchange)
    channel.consume(last.queue)
    channel.publish(b"m", exchange, "key")
    expected = {"reason": "expired", "queue": first, "exchange": exchange}
    letter = channel.expect_delivery(b"m")
    check_equal(history(letter, "last"), {} if s.deviates else expected, "last death")
    channel.send("basic.reject", delivery_tag=1)
    (letter,) = last.expect(b"m")
    expected = {"reason": "rejected", "queue": last.queue, "exchange": ""}
    check_equal(history(letter, "last"), {} if s.deviates else expected, "last death")


@scenario("x-death.default-exchange", covers=["dead:x-death"])
def the_exchange_of_a_later_death_is_the_dead_letter_exchange(s: Session) -> None:
    channel = s.channel()
    last = mortal_queue(s, channel)
    exchange = s.exchange(channel, "direct")
    channel.bind(last.queue, exchange, "dead")
    arguments = {"x-dead-letter-exchange": exchange, "x-dead-letter-routing-key": "dead"}
    first = s.queue(channel, arguments=arguments)
    publish_confirmed(channel, first, b"m")
    channel.consume(last.queue)
    reject(channel, first)
    delivery = channel.expect_delivery(b"m", exchange=exchange, routing_key="dead")
    channel.send("basic.reject", delivery_tag=delivery["delivery_tag"])
    (letter,) = last.expect(b"m")
    expected = [
        death(last.queue, "rejected", exchange, "dead"),
        death(first, "rejected", "", first),
    ]
    check_equal(deaths(letter), expected, "x-death")


@scenario("x-death.sent", covers=["dead:client-history"])
def a_history_that_a_client_sent_is_counted_on(s: Session) -> None:
    channel = s.channel()
    mortal = mortal_queue(s, channel)
    known = {
        "count": fields.long(5),
        "reason": "rejected",
        "queue": mortal.queue,
        "time": fields.timestamp(7),
        "exchange": "elsewhere",
        "routing-keys": ["old"],
    }
    strange = {**known, "queue": "another", "reason": "expired"}
    headers = {"x-death": [strange, known], "x-first-death-queue": "first"}
    publish_confirmed(channel, mortal.queue, b"m", headers=headers)
    reject(channel, mortal.queue)
    (letter,) = mortal.expect(b"m")
    expected = [(mortal.queue, "rejected", 6), ("another", "expired", 1 + 4)]
    check_equal(how_it_died(letter), expected, "x-death")
    check_equal(typed_deaths(letter)[0]["time"], fields.timestamp(7), "first time")
    check_equal(history(letter, "first")["queue"], "first", "queue of the first death")


@scenario("x-death.sent.cycle", covers=["dead:client-history", "dead:cycle"])
def a_history_that_a_client_sent_makes_a_cycle(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "fanout")
    cycling, other = (bound_queue(s, channel, exchange) for _ in range(2))
    arguments = {"x-dead-letter-exchange": exchange, "x-message-ttl": 20}
    queue = s.queue(channel, arguments=arguments)
    for target in (cycling, other):
        channel.bind(target, exchange)
    known = {
        "count": fields.long(1),
        "reason": "expired",
        "queue": cycling,
        "time": fields.timestamp(7),
        "exchange": "",
        "routing-keys": [cycling],
    }
    publish_confirmed(channel, queue, b"cycles", headers={"x-death": [known]})
    publish_confirmed(channel, queue, b"new")
    channel.consume(other, "other", no_ack=True)
    for body in (b"cycles", b"new"):
        channel.expect_delivery(body)
    channel.call("basic.cancel", consumer_tag="other")
    channel.consume(cycling, no_ack=True)
    channel.expect_delivery(b"new")


@scenario("x-death.no-history", covers=["dead:bad-history"])
def a_header_of_that_name_that_is_no_array_is_replaced(s: Session) -> None:
    channel = s.channel()
    mortal = mortal_queue(s, channel)
    values: list[Any] = ["text", 5, True, None, {"count": 1}, fields.byte_array(b"x"), []]
    for value in values:
        publish_confirmed(channel, mortal.queue, b"m", headers={"x-death": value, "n": 1})
        reject(channel, mortal.queue)
        (letter,) = mortal.expect(b"m")
        check_equal(how_it_died(letter), [(mortal.queue, "rejected", 1)], "x-death")
        check_equal(other_headers(letter), {"n": fields.signedint(1)}, "other headers")


def _is_empty(channel: Channel, queue: str) -> bool:
    """Whether get finds nothing; False as well if the channel or its connection is closed."""
    time.sleep(0.05)
    channel.send("basic.get", queue=queue)
    try:
        return channel.next_method().name == "basic.get-empty"
    except ConformanceError:
        return False


@scenario(
    "x-death.bad-history",
    covers=["dead:bad-history"],
    deviations=[
        deviation("rabbitmq", "the process of the queue ends, and the queue comes back empty")
    ],
)
def an_array_of_that_name_with_other_things_in_it_does_no_harm(s: Session) -> None:
    channel = s.channel()
    mortal = mortal_queue(s, channel)
    values: list[Any] = [
        ["a", 1],
        [{}],
        [{"queue": 5, "reason": []}],
        [{"queue": mortal.queue, "reason": "rejected"}],
        [{"queue": mortal.queue, "reason": "rejected", "count": "many"}],
        [{"queue": mortal.queue, "reason": "rejected", "count": fields.long(-(2**63))}],
        [{"queue": mortal.queue, "reason": "rejected", "count": fields.long(2**63 - 1)}],
        [[{"queue": mortal.queue}]],
    ]
    if s.deviates:
        publish_confirmed(channel, mortal.queue, b"bad", headers={"x-death": values[0]})
        reject(channel, mortal.queue)
        _is_empty(channel, mortal.queue)
        eventually(lambda: _is_empty(s.channel(), mortal.queue), "the queue has come back, empty")
        mortal.expect_none(s.channel())
        return
    for value in values:
        publish_confirmed(channel, mortal.queue, b"bad", headers={"x-death": value})
        reject(channel, mortal.queue)
        (letter,) = mortal.expect(b"bad")
        first = deaths(letter)[0]
        check_equal((first["queue"], first["reason"]), (mortal.queue, "rejected"), "x-death")

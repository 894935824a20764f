"""Dead letters that come back to where they died."""

from __future__ import annotations

from conformance.dead_letters import (
    collector,
    dead_lettering_to,
    dying_queue,
    how_it_died,
    publish_confirmed,
)
from conformance.failure import check_equal
from conformance.registry import scenario
from conformance.session import Session


@scenario("dead.self", covers=["dead:rejected-cycle", "dead:keys-kept"])
def the_default_exchange_without_a_key_leads_back_to_the_queue(s: Session) -> None:
    channel = s.channel()
    queue = dying_queue(s, channel, "")
    publish_confirmed(channel, queue, b"m")
    channel.consume(queue)
    channel.expect_delivery(b"m", redelivered=False)
    for count in range(1, 5):
        channel.send("basic.reject", delivery_tag=count)
        again = channel.expect_delivery(b"m", redelivered=False, delivery_tag=count + 1)
        check_equal(how_it_died(again), [(queue, "rejected", count)], "x-death")


@scenario("dead.cycle", covers=["dead:cycle", "dead:expired"])
def a_cycle_without_a_rejection_ends(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "fanout")
    arguments = {"x-dead-letter-exchange": exchange, "x-message-ttl": 50}
    itself = s.queue(channel, arguments=arguments)
    channel.bind(itself, exchange)
    letters = collector(s, exchange, "")
    publish_confirmed(channel, itself, b"1")
    publish_confirmed(channel, itself, b"2")
    for body in (b"1", b"2"):
        letter = letters.expect_delivery(body)
        check_equal(how_it_died(letter), [(itself, "expired", 1)], "x-death")
    check_equal(channel.message_count(itself), 0, "messages that came back")


@scenario("dead.cycle.two", covers=["dead:cycle", "dead:chain"])
def a_cycle_of_two_queues_ends_where_it_began(s: Session) -> None:
    channel = s.channel()
    first, second = s.name("first"), s.name("second")
    exchange = s.exchange(channel, "fanout")
    letters = collector(s, exchange, "")
    for queue, arguments in (
        (first, {"x-message-ttl": 50, **dead_lettering_to(second)}),
        (second, {"x-message-ttl": 50, "x-dead-letter-exchange": exchange}),
    ):
        channel.declare_queue(queue, arguments=arguments)
    channel.bind(first, exchange)
    publish_confirmed(channel, first, b"1")
    publish_confirmed(channel, first, b"2")
    for body in (b"1", b"2"):
        letter = letters.expect_delivery(body)
        expected = [(second, "expired", 1), (first, "expired", 1)]
        check_equal(how_it_died(letter), expected, "x-death")
    check_equal(channel.message_count(first), 0, "messages that came back")


@scenario("dead.cycle.maxlen", covers=["dead:cycle", "dead:maxlen"])
def what_is_pushed_out_does_not_push_others_out_of_the_same_queue(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "fanout")
    arguments = {"x-dead-letter-exchange": exchange, "x-max-length": 2}
    itself = s.queue(channel, arguments=arguments)
    channel.bind(itself, exchange)
    letters = collector(s, exchange, "")
    publish_confirmed(channel, itself, b"1", b"2", b"3", b"4")
    for body in (b"1", b"2"):
        letter = letters.expect_delivery(body)
        check_equal(how_it_died(letter), [(itself, "maxlen", 1)], "x-death")
    check_equal(channel.get_all(itself), [b"3", b"4"], "what is left")


@scenario("dead.retry", covers=["dead:rejected-cycle", "dead:chain", "dead:count"])
def a_cycle_with_a_rejection_goes_on(s: Session) -> None:
    channel = s.channel()
    work, wait = s.name("work"), s.name("wait")
    channel.declare_queue(work, arguments=dead_lettering_to(wait))
    channel.declare_queue(wait, arguments={"x-message-ttl": 20, **dead_lettering_to(work)})
    publish_confirmed(channel, work, b"job")
    channel.consume(work)
    channel.expect_delivery(b"job")
    for count in range(1, 6):
        channel.send("basic.reject", delivery_tag=count)
        again = channel.expect_delivery(b"job", redelivered=False)
        expected = [(wait, "expired", count), (work, "rejected", count)]
        check_equal(how_it_died(again), expected, "x-death")

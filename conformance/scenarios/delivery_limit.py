"""How often a message may be delivered: x-delivery-count and x-delivery-limit."""

from __future__ import annotations

from typing import Any

from conformance import fields
from conformance.channel import Channel
from conformance.dead_letters import (
    dead_lettering_to,
    deaths,
    how_it_died,
    mortal_queue,
    publish_confirmed,
)
from conformance.failure import check_equal
from conformance.messages import PERSISTENT
from conformance.methods import Method
from conformance.registry import Restart, deviation, scenario
from conformance.session import Session
from conformance.texts import cut, invalid_argument

_QUORUM = {"x-queue-type": "quorum"}
_COUNTS_FROM_0 = deviation("rabbitmq", "3.10 says 0 with the first get, 3.12 says nothing")
_QUORUM_ONLY = deviation("rabbitmq", "only quorum queues have a delivery limit")


def _count(delivery: Method) -> Any:
    """x-delivery-count with its wire type; None if there is none."""
    return delivery.message.typed_headers.get("x-delivery-count")


def _refused(s: Session, channel: Channel) -> None:
    """What RabbitMQ says to a limit on a classic queue."""
    queue = s.name("q")
    arguments = {"x-delivery-limit": 2}
    channel.send("queue.declare", queue=queue, arguments=arguments)
    text = (
        f"invalid arg 'x-delivery-limit' for queue '{queue}' in vhost '/'"
        " of queue type rabbit_classic_queue"
    )
    channel.expect_close(406, cut(f"PRECONDITION_FAILED - {text}"), "queue.declare")


@scenario("delivery-limit.count", covers=["delivery-limit:count"])
def deliveries_after_the_first_are_counted(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel, durable=True, arguments=_QUORUM)
    publish_confirmed(channel, queue, b"m", headers={"n": 1})
    channel.consume(queue)
    first = channel.expect_delivery(b"m", redelivered=False)
    check_equal(_count(first), None, "count at first")
    for count in range(1, 4):
        channel.send("basic.nack", delivery_tag=count, requeue=True)
        again = channel.expect_delivery(b"m", redelivered=True)
        check_equal(_count(again), fields.long(count), "x-delivery-count")
        check_equal(again.message.headers["n"], 1, "other header")


@scenario("delivery-limit.dead", covers=["delivery-limit:limit", "dead:delivery-limit"])
def a_message_dies_when_it_returns_more_often_than_the_limit(s: Session) -> None:
    channel = s.channel()
    mortal = mortal_queue(s, channel, {**_QUORUM, "x-delivery-limit": 2}, durable=True)
    publish_confirmed(channel, mortal.queue, b"poison")
    channel.consume(mortal.queue)
    for tag in range(1, 4):
        channel.expect_delivery(b"poison", redelivered=tag > 1)
        channel.send("basic.nack", delivery_tag=tag, requeue=True)
    (letter,) = mortal.expect(b"poison")
    check_equal(how_it_died(letter), [(mortal.queue, "delivery_limit", 1)], "x-death")
    check_equal(deaths(letter)[0]["routing-keys"], [mortal.queue], "routing keys")
    publish_confirmed(channel, mortal.queue, b"next")
    channel.expect_delivery(b"next", redelivered=False)


@scenario("delivery-limit.zero", covers=["delivery-limit:limit", "dead:delivery-limit"])
def with_limit_0_the_first_return_is_the_last(s: Session) -> None:
    channel = s.channel()
    mortal = mortal_queue(s, channel, {**_QUORUM, "x-delivery-limit": 0}, durable=True)
    publish_confirmed(channel, mortal.queue, b"m")
    channel.consume(mortal.queue)
    channel.expect_delivery(b"m")
    channel.send("basic.reject", delivery_tag=1, requeue=True)
    (letter,) = mortal.expect(b"m")
    check_equal(how_it_died(letter), [(mortal.queue, "delivery_limit", 1)], "x-death")


@scenario("delivery-limit.dropped", covers=["delivery-limit:limit"])
def without_a_dead_letter_exchange_it_is_dropped(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel, durable=True, arguments={**_QUORUM, "x-delivery-limit": 1})
    publish_confirmed(channel, queue, b"dropped", b"stays")
    channel.call("basic.qos", prefetch_count=1)
    channel.consume(queue)
    for tag in (1, 2):
        channel.expect_delivery(b"dropped")
        channel.send("basic.nack", delivery_tag=tag, requeue=True)
    channel.expect_delivery(b"stays", redelivered=False)


@scenario("delivery-limit.rejected", covers=["delivery-limit:limit", "dead:rejected"])
def a_rejection_for_good_is_a_rejection_whatever_the_count(s: Session) -> None:
    channel = s.channel()
    mortal = mortal_queue(s, channel, {**_QUORUM, "x-delivery-limit": 1}, durable=True)
    publish_confirmed(channel, mortal.queue, b"m")
    channel.consume(mortal.queue)
    channel.expect_delivery(b"m")
    channel.send("basic.nack", delivery_tag=1, requeue=True)
    channel.expect_delivery(b"m")
    channel.send("basic.reject", delivery_tag=2)
    (letter,) = mortal.expect(b"m")
    check_equal(how_it_died(letter), [(mortal.queue, "rejected", 1)], "x-death")


def _returned(s: Session, mortal_name: str, how: str) -> None:
    channel = s.channel()
    channel.consume(mortal_name)
    delivery = channel.expect_delivery(b"m")
    if how == "multiple":
        channel.send("basic.nack", delivery_tag=0, multiple=True, requeue=True)
        channel.connection.close()
    elif how == "close":
        channel.call("channel.close")
    elif how == "socket":
        channel.connection.drop()
    elif how == "recover":
        channel.call("basic.cancel", consumer_tag=delivery["consumer_tag"])
        channel.call("basic.recover", requeue=True)


@scenario("delivery-limit.returns", covers=["delivery-limit:returns"])
def closed_channels_lost_connections_and_recover_count_as_well(s: Session) -> None:
    channel = s.channel()
    mortal = mortal_queue(s, channel, {**_QUORUM, "x-delivery-limit": 2}, durable=True)
    publish_confirmed(channel, mortal.queue, b"m")
    for how in ("close", "socket", "recover"):
        _returned(s, mortal.queue, how)
    (letter,) = mortal.expect(b"m")
    check_equal(how_it_died(letter), [(mortal.queue, "delivery_limit", 1)], "x-death")


@scenario(
    "delivery-limit.get",
    covers=["delivery-limit:returns", "delivery-limit:count", "method:basic.get"],
    deviations=[_COUNTS_FROM_0],
)
def what_get_fetched_and_returned_is_counted(s: Session) -> None:
    channel = s.channel()
    mortal = mortal_queue(s, channel, {**_QUORUM, "x-delivery-limit": 2}, durable=True)
    publish_confirmed(channel, mortal.queue, b"m")
    for count in range(3):
        found = channel.get(mortal.queue, no_ack=False)
        check_equal(found and found.body, b"m", "body")
        assert found is not None
        expected = fields.long(count) if count or s.deviates else None
        check_equal(_count(found), expected, "x-delivery-count")
        channel.send("basic.nack", delivery_tag=count + 1, requeue=True)
        channel.settle(mortal.queue)
    mortal.expect(b"m")
    check_equal(channel.get(mortal.queue), None, "what is left")


@scenario("delivery-limit.none", covers=["delivery-limit:none"])
def without_a_limit_a_message_returns_for_ever(s: Session) -> None:
    channel = s.channel()
    _return_often(channel, s.queue(channel, durable=True, arguments=_QUORUM))


@scenario(
    "delivery-limit.negative",
    covers=["delivery-limit:none"],
    deviations=[deviation("rabbitmq", "3.10 takes a negative limit for 0, 4.x for none, as we do")],
)
def a_negative_limit_is_none(s: Session) -> None:
    channel = s.channel()
    mortal = mortal_queue(s, channel, {**_QUORUM, "x-delivery-limit": -1}, durable=True)
    if s.deviates:
        publish_confirmed(channel, mortal.queue, b"m")
        channel.consume(mortal.queue)
        channel.expect_delivery(b"m")
        channel.send("basic.nack", delivery_tag=1, requeue=True)
        mortal.expect(b"m")
    else:
        _return_often(channel, mortal.queue)


def _return_often(channel: Channel, queue: str) -> None:
    publish_confirmed(channel, queue, b"m")
    channel.consume(queue)
    for tag in range(1, 41):
        channel.expect_delivery(b"m", redelivered=tag > 1)
        channel.send("basic.nack", delivery_tag=tag, requeue=True)
    channel.expect_delivery(b"m")


@scenario(
    "delivery-limit.classic",
    covers=["delivery-limit:classic", "delivery-limit:limit"],
    deviations=[_QUORUM_ONLY],
)
def classic_queues_have_a_delivery_limit_as_well(s: Session) -> None:
    channel = s.channel()
    if s.deviates:
        _refused(s, channel)
        return
    mortal = mortal_queue(s, channel, {"x-delivery-limit": 2})
    publish_confirmed(channel, mortal.queue, b"1", b"2")
    channel.call("basic.qos", prefetch_count=1)
    channel.consume(mortal.queue)
    for tag, count in ((1, None), (2, fields.long(1)), (3, fields.long(2))):
        delivery = channel.expect_delivery(b"1", redelivered=tag > 1)
        check_equal(_count(delivery), count, "x-delivery-count")
        channel.send("basic.nack", delivery_tag=tag, requeue=True)
    (letter,) = mortal.expect(b"1")
    check_equal(how_it_died(letter), [(mortal.queue, "delivery_limit", 1)], "x-death")
    channel.expect_delivery(b"2", redelivered=False)


@scenario(
    "delivery-limit.restart",
    covers=["delivery-limit:restart", "durability:quorum"],
    restarts=[Restart.STOP, Restart.KILL],
)
def counts_hold_across_a_restart(s: Session) -> None:
    channel = s.channel()
    dead = s.queue(channel, "dead", durable=True)
    arguments = {**_QUORUM, "x-delivery-limit": 2, **dead_lettering_to(dead)}
    queue = s.queue(channel, durable=True, arguments=arguments)
    publish_confirmed(channel, queue, b"m", **PERSISTENT)
    for tag in (1, 2):
        check_equal(_body(channel.get(queue, no_ack=False)), b"m", "body")
        channel.send("basic.nack", delivery_tag=tag, requeue=True)
        channel.settle(queue)
    # Nobody is told when a return is written; what is confirmed later was written later.
    publish_confirmed(channel, dead, b"before", **PERSISTENT)
    s.restart_broker()
    channel = s.channel()
    channel.consume(queue)
    found = channel.expect_delivery(b"m", redelivered=True)
    check_equal(_count(found), fields.long(2), "x-delivery-count")
    channel.send("basic.nack", delivery_tag=1, requeue=True)
    letters = s.channel()
    letters.consume(dead)
    letters.expect_delivery(b"before")
    letter = letters.expect_delivery(b"m")
    check_equal(how_it_died(letter), [(queue, "delivery_limit", 1)], "x-death")


def _body(found: Method | None) -> bytes | None:
    return found.body if found else None


@scenario(
    "delivery-limit.not-integer",
    covers=["error:invalid-argument-not-integer"],
    deviations=[deviation("rabbitmq", "3.10 does not look at the value")],
)
def a_limit_that_is_no_integer_is_refused(s: Session) -> None:
    channel = s.channel()
    wrong: dict[str, Any] = {"longstr": "1", "bool": True, "double": 1.0, "void": None}
    for kind, value in wrong.items():
        queue = s.name("q")
        arguments = {**_QUORUM, "x-delivery-limit": value}
        channel.send("queue.declare", queue=queue, durable=True, arguments=arguments)
        if s.deviates:
            channel.expect("queue.declare-ok")
            continue
        text = invalid_argument("x-delivery-limit", queue, f'"expected integer, got {kind}"')
        channel.expect_close(406, text, "queue.declare")
        channel.reopen()

"""x-dead-letter-strategy at-least-once: a queue lets go of a dead letter when others have it."""

from __future__ import annotations

from typing import Any

from conformance.channel import Channel
from conformance.dead_letters import how_it_died, mortal_queue, publish_confirmed, reject
from conformance.failure import check_equal, eventually
from conformance.messages import PERSISTENT
from conformance.registry import Restart, deviation, scenario
from conformance.session import Session

_TRIES_LATER = deviation("rabbitmq", "tries again only after three minutes")
_STRATEGY: dict[str, Any] = {
    "x-queue-type": "quorum",
    "x-overflow": "reject-publish",
    "x-dead-letter-strategy": "at-least-once",
}


def _source(s: Session, channel: Channel, exchange: str) -> str:
    arguments = {**_STRATEGY, "x-dead-letter-exchange": exchange}
    return s.queue(channel, "source", durable=True, arguments=arguments)


@scenario("at-least-once.routed", covers=["dead:at-least-once", "rule:quorum-queue-accepted"])
def dead_letters_arrive(s: Session) -> None:
    channel = s.channel()
    arguments = {**_STRATEGY, "x-delivery-limit": 0}
    mortal = mortal_queue(s, channel, arguments, durable=True)
    publish_confirmed(channel, mortal.queue, b"1", b"2", b"3", **PERSISTENT)
    channel.consume(mortal.queue)
    channel.deliveries(3)
    channel.send("basic.reject", delivery_tag=1)
    channel.send("basic.nack", delivery_tag=2, requeue=True)
    channel.send("basic.ack", delivery_tag=3)
    one, two = mortal.expect(b"1", b"2")
    check_equal(how_it_died(one), [(mortal.queue, "rejected", 1)], "x-death")
    check_equal(how_it_died(two), [(mortal.queue, "delivery_limit", 1)], "x-death")


@scenario("at-least-once.late-binding", covers=["dead:at-least-once"], deviations=[_TRIES_LATER])
def what_is_routed_nowhere_waits_for_a_binding(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "fanout", durable=True)
    queue, target = _source(s, channel, exchange), s.queue(channel, durable=True)
    publish_confirmed(channel, queue, b"1", b"2", **PERSISTENT)
    reject(channel, queue, b"1")
    reject(channel, queue, b"2")
    check_equal(channel.get(queue), None, "what is ready in the source")
    channel.bind(target, exchange)
    if s.deviates:
        check_equal(channel.message_count(target), 0, "messages of the target")
        return
    channel.consume(target, no_ack=True)
    for body in (b"1", b"2"):
        letter = channel.expect_delivery(body)
        check_equal(how_it_died(letter), [(queue, "rejected", 1)], "x-death")


@scenario("at-least-once.full", covers=["dead:at-least-once"], deviations=[_TRIES_LATER])
def what_the_target_refuses_waits_until_there_is_room(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "fanout", durable=True)
    queue = _source(s, channel, exchange)
    limit = {"x-max-length": 1, "x-overflow": "reject-publish"}
    target = s.queue(channel, durable=True, arguments=limit)
    channel.bind(target, exchange)
    publish_confirmed(channel, target, b"first", **PERSISTENT)
    publish_confirmed(channel, queue, b"m", **PERSISTENT)
    reject(channel, queue, b"m")
    check_equal(channel.message_count(target), 1, "messages of the full target")
    found = channel.get(target)
    check_equal(found and found.body, b"first", "first message of the target")
    if not s.deviates:
        eventually(lambda: channel.message_count(target) == 1, "the dead letter arrives")
        check_equal(channel.get_all(target), [b"m"], "messages of the target")


@scenario(
    "at-least-once.restart",
    covers=["dead:at-least-once", "dead:restart"],
    restarts=[Restart.STOP, Restart.KILL],
)
def what_waits_is_there_after_a_restart(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "fanout", durable=True)
    queue, target = _source(s, channel, exchange), s.queue(channel, durable=True)
    publish_confirmed(channel, queue, b"1", b"2", **PERSISTENT)
    reject(channel, queue, b"1")
    reject(channel, queue, b"2")
    check_equal(channel.get(queue), None, "what is ready in the source")
    channel.bind(target, exchange)
    # Confirmed behind the rejections: they were written before it.
    publish_confirmed(channel, queue, b"alive", **PERSISTENT)
    s.restart_broker()
    channel = s.channel()
    channel.consume(target, no_ack=True)
    for body in (b"1", b"2"):
        letter = channel.expect_delivery(body)
        check_equal(how_it_died(letter), [(queue, "rejected", 1)], "x-death")
    found = channel.get(queue)
    check_equal(found and found.body, b"alive", "what is ready in the source")

"""Backlogs that a small broker has no room for in memory, in queues where messages expire, are
dropped, die or have priorities: clients must not be able to tell either."""

from __future__ import annotations

from functools import partial
from typing import Any

from conformance.backlog import (
    BODY_OCTETS,
    COUNT,
    backlog,
    body_of,
    drain,
    expect_numbers,
    number_of,
    publish_bodies,
)
from conformance.channel import Channel
from conformance.dead_letters import dead_lettering_to, how_it_died, let_pass, mortal_queue
from conformance.failure import check_equal
from conformance.messages import PERSISTENT
from conformance.registry import Limit, Restart, scenario
from conformance.session import Session

_paging = partial(scenario, limit=Limit.MEMORY)
_KEPT = COUNT // 4
_ODD = range(1, COUNT + 1, 2)
_EVEN = range(2, COUNT + 1, 2)
_EXPIRING = {"expiration": "100"}


def _publish_expiring(channel: Channel, queue: str, properties: dict[str, Any]) -> None:
    """Publishes the numbers from 1 to COUNT, of which the even ones expire soon."""
    publisher = channel.connection.channel()
    publisher.call("confirm.select")
    for number in range(1, COUNT + 1):
        told = properties if number % 2 else {**properties, **_EXPIRING}
        publisher.publish(body_of(number), "", queue, properties=told)
        if number % 100 == 0:
            publisher.confirms(range(number - 99, number + 1))
    publisher.call("channel.close")


@_paging("paging-limits.expiry", covers=["paging:expiry", "expiry:middle"])
def half_of_a_backlog_expires(s: Session) -> None:
    channel = s.channel()
    for properties in ({}, PERSISTENT):
        mortal = mortal_queue(s, channel, durable=True)
        _publish_expiring(channel, mortal.queue, properties)
        let_pass(s, 100)
        drain(channel, mortal.queue, _ODD)
        expect_numbers(mortal.letters, _EVEN)
        mortal.letters.expect_silence(mortal.dead)


@_paging("paging-limits.queue-ttl", covers=["paging:expiry", "expiry:not-counted"])
def all_of_a_backlog_expires(s: Session) -> None:
    channel = s.channel()
    mortal = mortal_queue(s, channel, {"x-message-ttl": 2000})
    publish_bodies(channel, range(1, COUNT + 1), mortal.queue)
    expect_numbers(mortal.letters, range(1, COUNT + 1))
    check_equal(channel.message_count(mortal.queue), 0, "messages")


@_paging(
    "paging-limits.restart",
    covers=["paging:expiry", "expiry:restart"],
    restarts=[Restart.STOP, Restart.KILL],
)
def what_has_expired_of_a_backlog_stays_away_after_a_restart(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel, durable=True)
    _publish_expiring(channel, queue, PERSISTENT)
    s.restart_broker()
    channel = s.channel()
    let_pass(s, 100)
    channel.consume(queue, no_ack=True)
    found = [number_of(channel.expect("basic.deliver")) for _ in _ODD]
    check_equal(found, list(_ODD), "numbers of what is left")
    channel.expect_silence(queue)


@_paging("paging-limits.drop-head", covers=["paging:length", "length:drop-head"])
def a_backlog_is_kept_within_its_limit(s: Session) -> None:
    channel = s.channel()
    for arguments in ({"x-max-length": _KEPT}, {"x-max-length-bytes": _KEPT * BODY_OCTETS}):
        for properties in ({}, PERSISTENT):
            mortal = mortal_queue(s, channel, arguments, durable=True)
            publish_bodies(channel, range(1, COUNT + 1), mortal.queue, properties=properties)
            expect_numbers(mortal.letters, range(1, COUNT - _KEPT + 1))
            check_equal(channel.message_count(mortal.queue), _KEPT, "messages")
            drain(channel, mortal.queue, range(COUNT - _KEPT + 1, COUNT + 1))


@_paging("paging-limits.reject", covers=["paging:length", "length:reject"])
def a_full_backlog_refuses_what_comes(s: Session) -> None:
    channel = s.channel()
    arguments = {"x-max-length-bytes": _KEPT * BODY_OCTETS, "x-overflow": "reject-publish"}
    queue = s.queue(channel, arguments=arguments)
    publish_bodies(channel, range(1, COUNT // 2 + 1), queue)
    check_equal(channel.message_count(queue), _KEPT, "messages")
    drain(channel, queue, range(1, _KEPT + 1))
    publish_bodies(channel, range(COUNT // 2 + 1, COUNT + 1), queue)
    drain(channel, queue, range(COUNT // 2 + 1, COUNT // 2 + 1 + _KEPT))


@_paging("paging-limits.requeued", covers=["paging:length", "length:requeued"])
def what_is_requeued_above_the_limit_goes_first(s: Session) -> None:
    channel, holder = s.channel(), s.channel()
    mortal = mortal_queue(s, channel, {"x-max-length": _KEPT})
    publish_bodies(channel, range(1, _KEPT + 1), mortal.queue)
    holder.consume(mortal.queue, "holder")
    expect_numbers(holder, range(1, _KEPT + 1))
    holder.call("basic.cancel", consumer_tag="holder")
    publish_bodies(channel, range(_KEPT + 1, 2 * _KEPT + 1), mortal.queue)
    holder.send("basic.nack", delivery_tag=0, multiple=True, requeue=True)
    expect_numbers(mortal.letters, range(1, _KEPT + 1))
    drain(channel, mortal.queue, range(_KEPT + 1, 2 * _KEPT + 1))


@_paging("paging-limits.rejected", covers=["paging:dead", "dead:rejected"])
def a_backlog_dies_in_order(s: Session) -> None:
    channel = s.channel()
    letters = s.channel()
    dead = s.queue(letters, "dead", durable=True)
    for properties in ({}, PERSISTENT):
        queue = s.queue(channel, durable=True, arguments=dead_lettering_to(dead))
        publish_bodies(channel, range(1, COUNT + 1), queue, properties=properties)
        channel.consume(queue)
        for _ in range(COUNT):
            delivery = channel.expect("basic.deliver")
            channel.send("basic.reject", delivery_tag=delivery["delivery_tag"])
        tag = letters.consume(dead, no_ack=True)
        for number in range(1, COUNT + 1):
            letter = letters.expect("basic.deliver")
            check_equal(number_of(letter), number, "number of the message")
            check_equal(how_it_died(letter), [(queue, "rejected", 1)], "x-death")
        letters.call("basic.cancel", consumer_tag=tag)


@_paging("paging-limits.dead-backlog", covers=["paging:dead", "dead:rejected"])
def a_backlog_that_nobody_looked_at_dies_when_it_is_rejected_at_once(s: Session) -> None:
    channel = s.channel()
    dead = s.queue(channel, "dead")
    queue = s.queue(channel, arguments=dead_lettering_to(dead))
    publish_bodies(channel, range(1, COUNT + 1), queue)
    channel.consume(queue)
    expect_numbers(channel, range(1, COUNT + 1))
    channel.send("basic.nack", delivery_tag=0, multiple=True)
    other = s.channel()
    other.consume(dead, no_ack=True)
    expect_numbers(other, range(1, COUNT + 1))


def _by_priority(count: int) -> list[int]:
    return [number for rest in (2, 1, 0) for number in range(1, count + 1) if number % 3 == rest]


@_paging("paging-limits.priority", covers=["paging:message-priority", "priority:order"])
def no_priority_hides_behind_another_in_a_backlog(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel, durable=True, arguments={"x-max-priority": 5})
    for priority in (0, 1, 2):
        numbers = [number for number in range(1, COUNT + 1) if number % 3 == priority]
        properties = {"priority": priority, "delivery_mode": 1 + priority % 2}
        publish_bodies(channel, numbers, queue, properties=properties)
    check_equal(channel.message_count(queue), COUNT, "messages")
    drain(channel, queue, _by_priority(COUNT))


@_paging("paging-limits.plain", covers=["paging:length"])
def a_limit_that_is_not_reached_changes_nothing(s: Session) -> None:
    channel = s.channel()
    plain = backlog(s, channel)
    limits = {"x-max-length": COUNT, "x-max-length-bytes": COUNT * BODY_OCTETS}
    more = {"x-message-ttl": 3_600_000, **dead_lettering_to(plain)}
    queue = s.queue(channel, arguments={**limits, **more})
    publish_bodies(channel, range(1, COUNT + 1), queue)
    drain(channel, queue, range(1, COUNT + 1))
    check_equal(channel.message_count(plain), COUNT, "messages of the other queue")

"""Queues with priorities: x-max-priority."""

from __future__ import annotations

from typing import Any

from conformance.channel import Channel
from conformance.dead_letters import (
    dead_lettering_to,
    how_it_died,
    let_pass,
    mortal_queue,
    publish_confirmed,
    reject,
)
from conformance.failure import check_equal
from conformance.messages import PERSISTENT, get_redelivered, next_bodies
from conformance.registry import Restart, deviation, scenario
from conformance.session import Session
from conformance.texts import inequivalent


def _priority_queue(s: Session, channel: Channel, highest: int = 10, **more: Any) -> str:
    return s.queue(channel, "priorities", arguments={"x-max-priority": highest, **more})


def _publish(channel: Channel, queue: str, *messages: tuple[bytes, int | None]) -> None:
    """Publishes (body, priority) over another channel; returns when they are confirmed."""
    publisher = channel.connection.channel()
    publisher.call("confirm.select")
    for body, priority in messages:
        properties = {} if priority is None else {"priority": priority}
        publisher.publish(body, "", queue, properties=properties)
    publisher.confirms(range(1, len(messages) + 1))
    publisher.call("channel.close")


@scenario("priorities.order", covers=["priority:order"])
def higher_ones_come_first_and_equal_ones_in_order(s: Session) -> None:
    channel = s.channel()
    queue = _priority_queue(s, channel)
    sent = [(b"%d.%d" % (priority, n), priority) for n in range(3) for priority in (0, 5, 10, 1)]
    _publish(channel, queue, *sent)
    check_equal(channel.message_count(queue), 12, "messages")
    channel.consume(queue, no_ack=True)
    expected = [b"%d.%d" % (priority, n) for priority in (10, 5, 1, 0) for n in range(3)]
    check_equal(next_bodies(channel, 12), expected, "bodies")


@scenario("priorities.get", covers=["priority:order", "method:basic.get"])
def get_takes_the_highest(s: Session) -> None:
    channel = s.channel()
    queue = _priority_queue(s, channel, 3)
    _publish(channel, queue, (b"a", 1), (b"b", 3), (b"c", 2))
    found = channel.get(queue)
    check_equal(found and (found.body, found["message_count"]), (b"b", 2), "first")
    _publish(channel, queue, (b"d", 3))
    check_equal(channel.get_all(queue), [b"d", b"c", b"a"], "the others")


@scenario("priorities.range", covers=["priority:range"])
def above_the_maximum_is_the_maximum_and_missing_is_0(s: Session) -> None:
    channel = s.channel()
    queue = _priority_queue(s, channel, 4)
    sent = [(b"none", None), (b"4", 4), (b"zero", 0), (b"255", 255), (b"1", 1), (b"5", 5)]
    _publish(channel, queue, *sent)
    expected = [b"4", b"255", b"5", b"1", b"none", b"zero"]
    channel.consume(queue, no_ack=True)
    found = channel.deliveries(6)
    check_equal([delivery.body for delivery in found], expected, "bodies")
    told = [delivery.message.properties.get("priority") for delivery in found]
    check_equal(told, [4, 255, 5, 1, None, 0], "priorities as they were sent")


@scenario("priorities.255", covers=["priority:range"])
def there_may_be_256_priorities(s: Session) -> None:
    channel = s.channel()
    queue = _priority_queue(s, channel, 255)
    _publish(channel, queue, *((b"%d" % n, n) for n in (7, 255, 0, 128, 254, 8)))
    expected = [b"255", b"254", b"128", b"8", b"7", b"0"]
    check_equal(channel.get_all(queue), expected, "bodies")


@scenario("priorities.none", covers=["priority:ignored"])
def without_x_max_priority_or_with_0_order_is_that_of_arrival(s: Session) -> None:
    channel = s.channel()
    for arguments in ({}, {"x-max-priority": 0}):
        queue = s.queue(channel, arguments=arguments)
        _publish(channel, queue, (b"1", 1), (b"2", 9), (b"3", None), (b"4", 255))
        check_equal(channel.get_all(queue), [b"1", b"2", b"3", b"4"], "bodies")


@scenario("priorities.requeued", covers=["priority:requeued", "rule:requeue-position"])
def a_requeued_message_returns_to_its_place_within_its_priority(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    queue = _priority_queue(s, channel)
    _publish(other, queue, (b"5.1", 5), (b"5.2", 5), (b"5.3", 5), (b"1.1", 1))
    for _ in range(2):
        channel.get(queue, no_ack=False)
    _publish(other, queue, (b"9.1", 9), (b"5.4", 5))
    channel.send("basic.nack", delivery_tag=2, multiple=True, requeue=True)
    channel.settle(queue)
    expected = [(b"9.1", False), (b"5.1", True), (b"5.2", True)]
    expected += [(b"5.3", False), (b"5.4", False), (b"1.1", False)]
    check_equal(get_redelivered(other, queue), expected, "messages")


@scenario("priorities.requeued.many", covers=["priority:requeued"])
def all_that_a_closed_channel_held_returns_in_order(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    queue = _priority_queue(s, channel)
    sent = [(b"%d.%d" % (n % 3, n), n % 3) for n in range(12)]
    _publish(other, queue, *sent)
    channel.consume(queue)
    first = next_bodies(channel, 12)
    channel.connection.close()
    other.settle(queue)
    check_equal(get_redelivered(other, queue), [(body, True) for body in first], "messages")


@scenario("priorities.overtaking", covers=["priority:order"])
def what_comes_late_overtakes_what_waits_for_a_busy_consumer(s: Session) -> None:
    channel, sender = s.channel(), s.channel()
    queue = _priority_queue(s, channel)
    channel.call("basic.qos", prefetch_count=1)
    channel.consume(queue)
    _publish(sender, queue, (b"busy", 0))
    channel.expect_delivery(b"busy")
    _publish(sender, queue, (b"low", 0), (b"high", 9), (b"middle", 5))
    for tag, body in enumerate((b"high", b"middle", b"low"), 1):
        channel.send("basic.ack", delivery_tag=tag)
        channel.expect_delivery(body)


@scenario(
    "priorities.expiry",
    covers=["priority:expiry", "dead:expired"],
    deviations=[
        deviation("rabbitmq", "a message expires only when it has come to the head of its queue")
    ],
)
def messages_expire_behind_those_of_other_priorities(s: Session) -> None:
    channel = s.channel()
    mortal = mortal_queue(s, channel, {"x-max-priority": 5})
    publish_confirmed(channel, mortal.queue, b"high", priority=5)
    publish_confirmed(channel, mortal.queue, b"low expires", priority=1, expiration="50")
    publish_confirmed(channel, mortal.queue, b"low", priority=1)
    if s.deviates:
        let_pass(s, 50)
        check_equal(channel.message_count(mortal.queue), 3, "messages")
        check_equal(channel.get_all(mortal.queue), [b"high", b"low"], "what is left")
        mortal.expect(b"low expires")
        return
    (letter,) = mortal.expect(b"low expires")
    check_equal(how_it_died(letter), [(mortal.queue, "expired", 1)], "x-death")
    publish_confirmed(channel, mortal.queue, b"high expires", priority=4, expiration="50")
    mortal.expect(b"high expires")
    check_equal(channel.get_all(mortal.queue), [b"high", b"low"], "what is left")


@scenario("priorities.queue-ttl", covers=["priority:expiry"])
def a_ttl_of_the_queue_holds_for_every_priority(s: Session) -> None:
    channel = s.channel()
    queue = _priority_queue(s, channel, 3, **{"x-message-ttl": 50})
    _publish(channel, queue, *((b"m", priority) for priority in (0, 1, 2, 3, 0, 3)))
    let_pass(s, 50)
    check_equal(channel.message_count(queue), 0, "messages")


@scenario(
    "priorities.limit",
    covers=["priority:limit", "dead:maxlen", "length:drop-head"],
    deviations=[deviation("rabbitmq", "drops what is delivered next: the highest of all")],
)
def the_lowest_are_dropped_first(s: Session) -> None:
    channel = s.channel()
    arguments = {"x-max-priority": 5, "x-max-length": 3}
    mortal = mortal_queue(s, channel, arguments)
    for published, here, there in (
        ([(b"5", 5), (b"0", 0), (b"3", 3), (b"4", 4)], b"0", b"5"),
        ([(b"1", 1)], b"1", b"4"),
        ([(b"3 again", 3)], b"3", b"3"),
    ):
        _publish(channel, mortal.queue, *published)
        mortal.expect(there if s.deviates else here)
    left = [b"3 again", b"1", b"0"] if s.deviates else [b"5", b"4", b"3 again"]
    check_equal(channel.get_all(mortal.queue), left, "what is left")


@scenario("priorities.reject", covers=["priority:limit", "length:reject"])
def a_full_queue_refuses_every_priority(s: Session) -> None:
    channel = s.channel()
    arguments = {"x-max-length": 1, "x-overflow": "reject-publish"}
    queue = _priority_queue(s, channel, 5, **arguments)
    channel.call("confirm.select")
    for priority in (0, 5):
        channel.publish(b"%d" % priority, "", queue, properties={"priority": priority})
    check_equal(channel.confirms({1, 2}), ({1}, {2}), "acked and nacked")
    check_equal(channel.get_all(queue), [b"0"], "messages")


@scenario("priorities.dead", covers=["priority:dead", "dead:content"])
def dead_letters_keep_their_priority(s: Session) -> None:
    channel = s.channel()
    dead = _priority_queue(s, channel, 9)
    queue = s.queue(channel, arguments=dead_lettering_to(dead))
    _publish(channel, queue, (b"low", 1), (b"high", 8), (b"middle", 4))
    for body in (b"low", b"high", b"middle"):
        reject(channel, queue, body)
    marker = mortal_queue(s, channel)
    publish_confirmed(channel, marker.queue, b"m")
    channel.settle(queue)
    publish_confirmed(channel, dead, b"lowest")
    check_equal(channel.get_all(dead), [b"high", b"middle", b"low", b"lowest"], "dead letters")


@scenario("priorities.purge", covers=["priority:order", "method:queue.purge"])
def purge_and_delete_count_every_priority(s: Session) -> None:
    channel = s.channel()
    queue = _priority_queue(s, channel, 3)
    messages = [(b"m", priority) for priority in (0, 3, 1, 3)]
    _publish(channel, queue, *messages)
    reply = channel.call("queue.purge", queue=queue)
    check_equal(reply["message_count"], 4, "message_count of purge-ok")
    _publish(channel, queue, *messages[:3])
    reply = channel.call("queue.delete", queue=queue)
    check_equal(reply["message_count"], 3, "message_count of delete-ok")


@scenario("priorities.redeclared", covers=["error:inequivalent-argument-value"])
def another_maximum_is_refused(s: Session) -> None:
    channel = s.channel()
    queue = _priority_queue(s, channel, 5)
    channel.send("queue.declare", queue=queue, arguments={"x-max-priority": 6})
    text = inequivalent("x-max-priority", f"queue '{queue}'", "'6'", "'5'")
    channel.expect_close(406, text, "queue.declare")


@scenario(
    "priorities.restart",
    covers=["priority:restart", "durability:message"],
    restarts=[Restart.STOP, Restart.KILL],
)
def priorities_hold_after_a_restart(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel, durable=True, arguments={"x-max-priority": 5})
    for number in range(9):
        properties = {"priority": number % 3, **PERSISTENT}
        publish_confirmed(channel, queue, b"%d.%d" % (number % 3, number), **properties)
    s.restart_broker()
    channel = s.channel()
    publish_confirmed(channel, queue, b"2.new", b"2.newer", priority=2)
    publish_confirmed(channel, queue, b"5", priority=7)
    expected = [b"5", b"2.2", b"2.5", b"2.8", b"2.new", b"2.newer"]
    expected += [b"1.1", b"1.4", b"1.7", b"0.0", b"0.3", b"0.6"]
    check_equal(channel.get_all(queue), expected, "messages")

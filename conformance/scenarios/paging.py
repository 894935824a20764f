"""Backlogs that a small broker has no room for in memory: clients must not be able to tell."""

from __future__ import annotations

from functools import partial
from typing import Any

from conformance.backlog import (
    COUNT,
    backlog,
    drain,
    expect_numbers,
    number_of,
    publish_bodies,
)
from conformance.failure import check, check_equal, eventually
from conformance.messages import PERSISTENT
from conformance.registry import Limit, Restart, deviation, scenario
from conformance.session import Session

_paging = partial(scenario, limit=Limit.MEMORY)
_ALL = range(1, COUNT + 1)
_HALF = COUNT // 2
_KINDS = 300


@_paging("paging.consume.transient", covers=["paging:order"])
def a_backlog_is_delivered_in_order(s: Session) -> None:
    channel = s.channel()
    queue = backlog(s, channel)
    drain(channel, queue, _ALL)


@_paging("paging.consume.persistent", covers=["paging:persistent"])
def a_backlog_that_lasts_is_delivered_in_order(s: Session) -> None:
    channel = s.channel()
    queue = backlog(s, channel, persistent=True)
    channel.call("basic.qos", prefetch_count=100)
    channel.consume(queue)
    expect_numbers(channel, _ALL, ack_each=10)
    channel.expect_silence(queue)
    channel.call("channel.close")
    channel.reopen().call("queue.delete", queue=queue, if_empty=True)


@_paging("paging.get", covers=["paging:get", "paging:count"])
def a_backlog_comes_in_order_by_basic_get(s: Session) -> None:
    channel = s.channel()
    queue = backlog(s, channel)
    for number in range(1, _HALF + 1):
        channel.send("basic.get", queue=queue, no_ack=number % 2 == 0)
        left = COUNT - number
        found = channel.expect("basic.get-ok", message_count=left, redelivered=False)
        check_equal(number_of(found), number, "number of the message")
    drain(channel, queue, range(_HALF + 1, COUNT + 1))
    check_equal(channel.get(queue), None, "message in an empty queue")


@_paging("paging.content", covers=["paging:content"])
def messages_of_every_kind_come_back_as_they_were_sent(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel, durable=True)
    exchange = s.exchange(channel, "topic")
    channel.bind(queue, exchange, "#")
    sizes = (0, 1, 100, 5_000, 40_000, 300_000)
    publisher = channel.connection.channel()
    publisher.call("confirm.select")

    def made(number: int) -> tuple[bytes, str, dict[str, Any]]:
        size = sizes[number % len(sizes)]
        properties = {
            "headers": {"number": number, "long": "h" * (size % 7_000), "list": [None, 1.5]},
            "delivery_mode": 1 + number % 7 % 2,
            "message_id": f"é{number}",
            "priority": number % 3,
        }
        body = b"%d" % (number % 10) * size
        return body, f"key.{number % 5}", properties if number % 4 else {}

    for number in range(_KINDS):
        body, key, properties = made(number)
        publisher.publish(body, exchange, key, properties=properties)
    publisher.confirms(range(1, _KINDS + 1))
    channel.consume(queue, no_ack=True)
    for number in range(_KINDS):
        body, key, properties = made(number)
        delivery = channel.expect("basic.deliver", exchange=exchange, routing_key=key)
        check(delivery.body == body, f"body of message {number} is as it was sent")
        check_equal(delivery.message.properties, properties, f"properties of message {number}")


@_paging("paging.count", covers=["paging:count"])
def messages_are_counted_wherever_they_are(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    queue = backlog(s, channel, persistent=True)
    check_equal(other.message_count(queue), COUNT, "messages published")
    for number in range(1, 11):
        found = channel.get(queue, no_ack=False)
        assert found is not None
        check_equal(found["message_count"], COUNT - number, "messages behind it")
    check_equal(other.message_count(queue), COUNT - 10, "messages that are ready")
    publish_bodies(other, range(COUNT + 1, COUNT + 6), queue)
    check_equal(other.message_count(queue), COUNT - 5, "messages with five more")
    channel.call("channel.close")
    check_equal(other.message_count(queue), COUNT + 5, "messages with what came back")
    other.call("basic.qos", prefetch_count=_HALF)
    tag = other.consume(queue)
    expect_numbers(other, range(1, 11), redelivered=True)
    last = expect_numbers(other, range(11, _HALF + 1))
    other.call("basic.cancel", consumer_tag=tag)
    other.send("basic.ack", delivery_tag=last, multiple=True)
    check_equal(other.message_count(queue), COUNT + 5 - _HALF, "messages that are left")
    purged = other.call("queue.purge", queue=queue)["message_count"]
    check_equal(purged, COUNT + 5 - _HALF, "messages purged")
    check_equal(other.message_count(queue), 0, "messages after the purge")


@_paging("paging.unacked", covers=["paging:unacked"])
def what_was_unacked_comes_back_in_order_and_marked(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    queue = backlog(s, channel)
    tag = channel.consume(queue)
    expect_numbers(channel, _ALL)
    check_equal(other.message_count(queue), 0, "messages that are ready")
    channel.call("basic.cancel", consumer_tag=tag)
    publish_bodies(other, range(COUNT + 1, COUNT + 11), queue)
    channel.call("channel.close")
    check_equal(other.message_count(queue), COUNT + 10, "messages with what came back")
    other.consume(queue, no_ack=True)
    expect_numbers(other, _ALL, redelivered=True)
    expect_numbers(other, range(COUNT + 1, COUNT + 11))


@_paging("paging.requeue", covers=["paging:requeue"])
def what_is_requeued_in_the_middle_keeps_its_place(s: Session) -> None:
    channel = s.channel()
    queue = backlog(s, channel, persistent=True)
    channel.call("basic.qos", prefetch_count=_HALF)
    tag = channel.consume(queue)
    expect_numbers(channel, range(1, _HALF + 1))
    channel.call("basic.cancel", consumer_tag=tag)
    middle = range(_HALF // 2, _HALF // 2 + 20)
    for number in reversed(middle):
        channel.send("basic.reject", delivery_tag=number, requeue=True)
    channel.settle(queue)
    for number in [*middle[:5], -1]:
        found = channel.get(queue)
        assert found is not None
        if number > 0:
            got = number_of(found), found["redelivered"]
            check_equal(got, (number, True), "message and mark")
    other = s.channel()
    channel.call("channel.close")
    gone = set(middle[:6])
    other.consume(queue, no_ack=True)
    expect_numbers(other, [n for n in range(1, _HALF + 1) if n not in gone], redelivered=True)
    expect_numbers(other, range(_HALF + 1, COUNT + 1))
    other.expect_silence(queue)


@_paging("paging.purge", covers=["paging:purge"])
def a_purged_backlog_is_counted_and_makes_room(s: Session) -> None:
    channel = s.channel()
    queue = backlog(s, channel)
    channel.get(queue, no_ack=False)
    purged = channel.call("queue.purge", queue=queue)["message_count"]
    check_equal(purged, COUNT - 1, "messages purged")
    check_equal(channel.message_count(queue), 0, "messages after the purge")
    publish_bodies(channel, range(COUNT + 1, 2 * COUNT + 1), queue)
    check_equal(channel.message_count(queue), COUNT, "messages published anew")
    channel.send("basic.nack", delivery_tag=1, requeue=True)
    found = channel.get(queue)
    assert found is not None
    check_equal((number_of(found), found["redelivered"]), (1, True), "message that was not ready")
    drain(channel, queue, range(COUNT + 1, 2 * COUNT + 1))


@_paging("paging.delete", covers=["paging:purge"])
def a_deleted_backlog_is_counted_and_makes_room(s: Session) -> None:
    channel = s.channel()
    queue = backlog(s, channel)
    consumer = s.channel()
    consumer.call("basic.qos", prefetch_count=_HALF)
    consumer.consume(queue, "consumer")
    expect_numbers(consumer, range(1, _HALF + 1))
    deleted = channel.call("queue.delete", queue=queue)["message_count"]
    check_equal(deleted, COUNT - _HALF, "messages deleted")
    consumer.expect("basic.cancel", consumer_tag="consumer")
    consumer.send("basic.nack", delivery_tag=0, multiple=True, requeue=True)
    consumer.call("channel.flow", active=True)
    channel.declare_queue(queue)
    publish_bodies(channel, _ALL, queue)
    drain(channel, queue, _ALL)


@_paging("paging.fanout", covers=["paging:fanout"])
def a_message_comes_once_out_of_each_queue(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "fanout")
    queues = [s.queue(channel, durable=durable) for durable in (True, False, True)]
    for queue in queues:
        channel.bind(queue, exchange)
    publish_bodies(channel, range(1, _HALF + 1), "", exchange, PERSISTENT)
    publish_bodies(channel, range(_HALF + 1, COUNT + 1), "", exchange)
    drain(channel, queues[0], _ALL)
    deleted = channel.call("queue.delete", queue=queues[2])["message_count"]
    check_equal(deleted, COUNT, "messages deleted")
    check_equal(channel.message_count(queues[1]), COUNT, "messages of the other queue")
    drain(channel, queues[1], _ALL)


@_paging("paging.while-draining", covers=["paging:while-draining"])
def publishing_while_a_consumer_drains_keeps_the_order(s: Session) -> None:
    channel, publisher = s.channel(), s.channel()
    queue = s.queue(channel)
    step = COUNT // 20
    published, consumed = COUNT // 2, 0
    publish_bodies(publisher, range(1, published + 1), queue)
    channel.call("basic.qos", prefetch_count=50)
    channel.consume(queue)
    # It grows for a while, then shrinks until every message is consumed at once.
    for more in [*(2 * [step, step * 2]), *(6 * [step, 0])]:
        publish_bodies(publisher, range(published + 1, published + more + 1), queue)
        published += more
        expect_numbers(channel, range(consumed + 1, consumed + step + 1), ack_each=10)
        consumed += step
    expect_numbers(channel, range(consumed + 1, published + 1), ack_each=10)
    for number in range(published + 1, published + 11):
        publish_bodies(publisher, [number], queue)
        expect_numbers(channel, [number], ack_each=1)
    channel.expect_silence(queue)


@_paging("paging.consumers", covers=["paging:consumers"])
def several_consumers_get_each_message_once(s: Session) -> None:
    channel = s.channel()
    queue = backlog(s, channel)
    channel.call("basic.qos", prefetch_count=20)
    found: dict[str, list[int]] = {tag: [] for tag in ("a", "b", "c")}
    # With nowait, so that no answer comes between deliveries.
    for tag in found:
        channel.send("basic.consume", queue=queue, consumer_tag=tag, nowait=True)
    for _ in _ALL:
        delivery = channel.expect("basic.deliver", redelivered=False)
        found[delivery["consumer_tag"]].append(number_of(delivery))
        channel.send("basic.ack", delivery_tag=delivery["delivery_tag"])
    channel.expect_silence(queue)
    for numbers in found.values():
        check(len(numbers) >= 20, "every consumer has its share")
        check(numbers == sorted(numbers), "each consumer's messages are in order")
    everything = sorted(number for numbers in found.values() for number in numbers)
    check(everything == list(_ALL), "each message comes once")


@_paging("paging.priority", covers=["paging:priority"])
def the_consumer_of_the_highest_priority_is_served_first(s: Session) -> None:
    channel = s.channel()
    queue = backlog(s, channel)
    channel.call("basic.qos", prefetch_count=10)
    for tag, priority in (("high", 10), ("low", 1)):
        table = {"x-priority": priority}
        channel.send("basic.consume", queue=queue, consumer_tag=tag, nowait=True, arguments=table)
    for number in range(1, 21):
        tag = "high" if number <= 10 else "low"
        delivery = channel.expect("basic.deliver", consumer_tag=tag)
        check_equal(number_of(delivery), number, "number of the message")
    for number in range(21, _HALF):
        # The tags of the first and of all further messages of the consumer.
        acked = number - 20 if number <= 30 else number - 10
        channel.send("basic.ack", delivery_tag=acked)
        delivery = channel.expect("basic.deliver", consumer_tag="high")
        check_equal(number_of(delivery), number, "number of the message")


@_paging("paging.dead-consumer", covers=["paging:dead-consumer"])
def a_client_that_reads_nothing_holds_up_nobody(s: Session) -> None:
    dead, channel = s.channel(), s.channel()
    queue = backlog(s, channel)
    dead.consume(queue)
    other = backlog(s, channel, persistent=True)
    drain(channel, other, _ALL)
    dead.connection.drop()
    eventually(lambda: channel.message_count(queue) == COUNT, "all messages are back")
    channel.consume(queue, no_ack=True)
    for number in _ALL:
        check_equal(number_of(channel.expect("basic.deliver")), number, "number of the message")


@_paging("paging.transaction", covers=["paging:transaction"])
def acks_that_are_rolled_back_have_not_happened(s: Session) -> None:
    channel = s.channel()
    queue = backlog(s, channel)
    channel.call("tx.select")
    tag = channel.consume(queue)
    last = expect_numbers(channel, _ALL)
    channel.call("basic.cancel", consumer_tag=tag)
    channel.send("basic.ack", delivery_tag=last // 2, multiple=True)
    channel.call("tx.rollback")
    channel.send("basic.ack", delivery_tag=last // 4, multiple=True)
    channel.call("tx.commit")
    channel.call("basic.recover", requeue=True)
    channel.call("channel.close")
    drain(s.channel(), queue, range(COUNT // 4 + 1, COUNT + 1), redelivered=True)


@_paging(
    "paging.restart",
    covers=["paging:restart"],
    restarts=[Restart.STOP, Restart.KILL],
    deviations=[deviation("rabbitmq", "after a kill marks every message", only=Restart.KILL)],
)
def a_backlog_comes_back_after_a_restart(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel, durable=True)
    steps = range(1, COUNT + 1, COUNT // 10)
    for number in steps:
        publish_bodies(channel, range(number, number + COUNT // 10), queue, properties=PERSISTENT)
        # They go, and leave gaps between those that stay.
        publish_bodies(channel, range(COUNT + 1, COUNT + 21), queue)
    check_equal(channel.message_count(queue), COUNT + 200, "messages before")
    channel.connection.drop()
    s.restart_broker()
    channel = s.channel()
    check_equal(channel.message_count(queue), COUNT, "messages after")
    drain(channel, queue, _ALL, redelivered=s.deviates is not None)
    publish_bodies(channel, range(COUNT + 1, 2 * COUNT + 1), queue)
    drain(channel, queue, range(COUNT + 1, 2 * COUNT + 1))

"""Which messages are there after a restart, in what order and how marked."""

from __future__ import annotations

from typing import Any

from conformance import fields
from conformance.channel import Channel
from conformance.failure import check_equal
from conformance.messages import (
    PERSISTENT,
    get_redelivered,
    lasting_queue,
    next_bodies,
    publish_numbers,
)
from conformance.methods import encode_properties
from conformance.registry import Restart, deviation, scenario
from conformance.session import Session

BOTH = (Restart.STOP, Restart.KILL)
_AHEAD = deviation(
    "leveret",
    "notes 8,192 messages ahead that they were handed out, so that after a kill as many may be"
    " marked without need",
    only=Restart.KILL,
)
_ALL_MARKED = deviation("rabbitmq", "after a kill marks every message", only=Restart.KILL)


def _restarted(s: Session) -> Channel:
    s.restart_broker()
    return s.channel()


def _numbers(*ranges: range) -> list[bytes]:
    return [b"%d" % number for numbers in ranges for number in numbers]


def _publish(channel: Channel, *messages: tuple[bytes, str, str, Any]) -> None:
    """Publishes (body, exchange, routing key, properties) and waits for the confirms."""
    publisher = channel.connection.channel()
    publisher.call("confirm.select")
    for body, exchange, key, properties in messages:
        publisher.publish(body, exchange, key, properties=properties)
    publisher.confirms(range(1, len(messages) + 1))
    publisher.call("channel.close")


def _fetch(channel: Channel, queue: str, count: int) -> None:
    """Fetches messages that wait for acks, with delivery tags 1 to count on a new channel."""
    for _ in range(count):
        channel.get(queue, no_ack=False)


def _write_out(s: Session, channel: Channel) -> None:
    """Nobody is told when an ack is written; what is confirmed later was written later."""
    lasting_queue(s, channel, 1)


@scenario("durability.message.content", covers=["durability:message"], restarts=BOTH)
def content_comes_back_octet_for_octet(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel, durable=True)
    headers: dict[str, Any] = {
        "byte": fields.byte(-1),
        "unsigned": fields.unsignedshort(2**16 - 1),
        "long": fields.long(5),
        "float": fields.float32(-0.0),
        "double": 5e-324,
        "decimal": fields.decimal(255, -(2**31)),
        "time": fields.timestamp(2**64 - 1),
        "octets": fields.byte_array(b"\x00\xff"),
        "no text": fields.longstr(b"\xff\xfe\x00"),
        "void": None,
        "nested": {"a": [{"b": fields.short(1)}, [], {}], "é": True},
        "z": 1,
        "a": 2,
    }
    every: dict[str, Any] = {
        "content_type": "application/json",
        "content_encoding": "gzip",
        "headers": headers,
        "delivery_mode": 2,
        "priority": 255,
        "correlation_id": "c" * 255,
        "reply_to": "reply é",
        "expiration": "86400000",
        "message_id": b"\xff\xfe",
        "timestamp": 2**64 - 1,
        "type": "",
        "user_id": s.address.user,
        "app_id": "a",
        "cluster_id": "k",
    }
    lists = [encode_properties(every), encode_properties(PERSISTENT)]
    bodies = [b"", b"\x00\xce\xff" * 3, bytes(range(256)) * 2000]
    messages = [(body, raw) for raw in lists for body in bodies]
    _publish(channel, *((body, "", queue, raw) for body, raw in messages))
    channel = _restarted(s)
    for body, raw in messages:
        got = channel.get(queue)
        assert got is not None
        check_equal(got.message.property_octets, raw, "properties")
        check_equal(got.body == body, True, f"body of {len(body)} octets is as it was")


@scenario("durability.message.origin", covers=["durability:message"], restarts=BOTH)
def exchange_and_routing_key_come_back(s: Session) -> None:
    channel = s.channel()
    exchange, gone = (s.exchange(channel, "topic", durable=True) for _ in range(2))
    queue = s.queue(channel, durable=True)
    ways = [(exchange, "a.é"), ("", queue), (exchange, "k" * 255), (gone, ""), (exchange, "")]
    for name in (exchange, gone):
        channel.bind(queue, name, "#")
    _publish(channel, *((b"body", name, key, PERSISTENT) for name, key in ways))
    channel.call("exchange.delete", exchange=gone)
    channel = _restarted(s)
    for left, (name, key) in zip(range(len(ways) - 1, -1, -1), ways, strict=True):
        channel.send("basic.get", queue=queue, no_ack=True)
        channel.expect("basic.get-ok", exchange=name, routing_key=key, message_count=left)


@scenario("durability.message.order", covers=["durability:message"], restarts=BOTH)
def messages_come_back_in_order(s: Session) -> None:
    channel = s.channel()
    queue = lasting_queue(s, channel, 3000)
    channel = _restarted(s)
    check_equal(channel.message_count(queue), 3000, "messages")
    channel.consume(queue, no_ack=True)
    check_equal(next_bodies(channel, 3000), _numbers(range(1, 3001)), "bodies")


@scenario("durability.message.transient", covers=["durability:message-transient"], restarts=BOTH)
def transient_messages_are_gone_from_durable_queues(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel, durable=True)
    modes: list[dict[str, Any]] = [{}, PERSISTENT, {"delivery_mode": 1}]
    _publish(channel, *((b"%d" % n, "", queue, modes[n % 3]) for n in range(12)))
    channel = _restarted(s)
    check_equal(channel.message_count(queue), 4, "messages")
    check_equal(channel.get_all(queue), [b"1", b"4", b"7", b"10"], "bodies")


@scenario("durability.message.large-backlog", covers=["durability:message"], restarts=BOTH)
def large_and_small_messages_keep_their_order(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel, durable=True)
    bodies = [b"%d " % n + b"x" * (n % 7 * 40_000) for n in range(60)]
    _publish(channel, *((body, "", queue, PERSISTENT) for body in bodies))
    channel = _restarted(s)
    check_equal(channel.get_all(queue) == bodies, True, "all of the messages in order")


@scenario(
    "durability.message.many-queues", covers=["durability:message-many-queues"], restarts=BOTH
)
def a_message_comes_back_in_the_queues_that_still_have_it(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "fanout", durable=True)
    queues = [s.queue(channel, durable=durable) for durable in (True, True, True, False)]
    for queue in queues:
        channel.bind(queue, exchange)
    _publish(channel, *((body, exchange, "", PERSISTENT) for body in _numbers(range(1, 6))))
    for tag in range(1, 4):
        channel.get(queues[0], no_ack=False)
        channel.send("basic.ack", delivery_tag=tag)
    channel.call("queue.delete", queue=queues[1])
    _write_out(s, channel)
    channel = _restarted(s)
    check_equal(channel.get_all(queues[0]), [b"4", b"5"], "of the queue that had three acked")
    check_equal(channel.get_all(queues[2]), _numbers(range(1, 6)), "of the queue that had none")


@scenario("durability.message.copies", covers=["durability:message"], restarts=BOTH)
def carbon_copies_come_back_as_well(s: Session) -> None:
    channel = s.channel()
    one, two, three = (s.queue(channel, durable=True) for _ in range(3))
    headers = {"CC": [two], "BCC": [three]}
    _publish(channel, (b"body", "", one, PERSISTENT | {"headers": headers}))
    channel = _restarted(s)
    for queue in (one, two, three):
        got = channel.get(queue)
        assert got is not None
        check_equal(set(got.message.properties["headers"]), {"CC"}, "headers")


@scenario("durability.settled", covers=["durability:settled"], restarts=BOTH)
def what_left_the_queue_does_not_come_back(s: Session) -> None:
    channel = s.channel()
    queue = lasting_queue(s, channel, 12)
    _fetch(channel, queue, 6)
    channel.send("basic.ack", delivery_tag=2)
    channel.send("basic.reject", delivery_tag=3, requeue=False)
    channel.send("basic.nack", delivery_tag=5, multiple=True, requeue=False)
    channel.send("basic.ack", delivery_tag=6)
    channel.get(queue)
    channel.consume(queue, "consumer", no_ack=True)
    check_equal(next_bodies(channel, 5), _numbers(range(8, 13)), "delivered without acks")
    channel.call("basic.cancel", consumer_tag="consumer")
    publish_numbers(channel, queue, 13, 14, persistent=True)
    channel = _restarted(s)
    check_equal(channel.get_all(queue), [b"13", b"14"], "bodies")


@scenario("durability.unacked", covers=["durability:unacked"], restarts=BOTH)
def what_was_unacked_comes_back_in_order_and_marked(s: Session) -> None:
    one, two = s.channel(), s.channel()
    queue = lasting_queue(s, one, 20)
    one.call("basic.qos", prefetch_count=10)
    one.consume(queue)
    one.deliveries(10)
    _fetch(two, queue, 5)
    for tag in (2, 3, 7):
        one.send("basic.ack", delivery_tag=tag)
    one.deliveries(3)
    two.send("basic.ack", delivery_tag=1)
    _write_out(s, one)
    _write_out(s, two)
    channel = _restarted(s)
    left = [n for n in range(1, 21) if n not in (2, 3, 7, 11)]
    found = get_redelivered(channel, queue)
    check_equal([body for body, _ in found], [b"%d" % n for n in left], "bodies")
    check_equal({mark for _, mark in found[:-2]}, {True}, "marks of those seen before")


@scenario(
    "durability.unacked.others",
    covers=["durability:not-delivered"],
    restarts=BOTH,
    deviations=[_AHEAD, _ALL_MARKED],
)
def what_nobody_was_given_is_not_marked(s: Session) -> None:
    channel = s.channel()
    queue = lasting_queue(s, channel, 6)
    untouched = lasting_queue(s, channel, 3)
    _fetch(channel, queue, 3)
    _write_out(s, channel)
    channel = _restarted(s)
    marks_all = bool(s.deviates) and s.broker == "rabbitmq"
    marked = 6 if s.deviates else 3
    for name, expected in (
        (untouched, [(b"%d" % n, marks_all) for n in range(1, 4)]),
        (queue, [(b"%d" % n, n <= marked) for n in range(1, 7)]),
    ):
        check_equal(get_redelivered(channel, name), expected, "messages")


@scenario("durability.unacked.again", covers=["durability:unacked"], restarts=BOTH)
def marks_last_over_several_restarts(s: Session) -> None:
    channel = s.channel()
    queue = lasting_queue(s, channel, 4)
    _fetch(channel, queue, 4)
    _write_out(s, channel)
    channel = _restarted(s)
    check_equal(channel.message_count(queue), 4, "messages")
    publish_numbers(channel, queue, 5, 6, persistent=True)
    channel = _restarted(s)
    found = get_redelivered(channel, queue)
    check_equal([body for body, _ in found], _numbers(range(1, 7)), "bodies")
    check_equal([mark for _, mark in found[:4]], [True] * 4, "marks of those seen before")


@scenario("durability.requeued", covers=["durability:requeued"], restarts=BOTH)
def what_was_requeued_keeps_place_and_mark(s: Session) -> None:
    channel = s.channel()
    queue = lasting_queue(s, channel, 8)
    _fetch(channel, queue, 6)
    for tag in (5, 2, 4):
        channel.send("basic.reject", delivery_tag=tag, requeue=True)
    channel.send("basic.ack", delivery_tag=3)
    publish_numbers(channel, queue, 9, 9, persistent=True)
    channel = _restarted(s)
    found = get_redelivered(channel, queue)
    check_equal(
        [body for body, _ in found], [b"%d" % n for n in (1, 2, 4, 5, 6, 7, 8, 9)], "bodies"
    )
    check_equal([mark for _, mark in found[:5]], [True] * 5, "marks of those seen before")


@scenario("durability.count", covers=["durability:message-count"], restarts=BOTH)
def messages_are_counted_right(s: Session) -> None:
    channel = s.channel()
    queue = lasting_queue(s, channel, 10)
    publish_numbers(channel, queue, 11, 13)
    _fetch(channel, queue, 5)
    channel.send("basic.ack", delivery_tag=1)
    _write_out(s, channel)
    check_equal(channel.message_count(queue), 8, "messages before")
    channel = _restarted(s)
    check_equal(channel.message_count(queue), 9, "messages after")
    channel.send("basic.get", queue=queue)
    channel.expect("basic.get-ok", message_count=8)
    check_equal(channel.call("queue.purge", queue=queue)["message_count"], 8, "purged")
    channel.send("basic.nack", delivery_tag=1, requeue=True)
    check_equal(channel.call("queue.delete", queue=queue)["message_count"], 1, "deleted")


@scenario("durability.purged", covers=["durability:purged"], restarts=BOTH)
def what_was_purged_does_not_come_back(s: Session) -> None:
    channel = s.channel()
    queue = lasting_queue(s, channel, 10)
    _fetch(channel, queue, 2)
    channel.call("queue.purge", queue=queue)
    publish_numbers(channel, queue, 11, 12, persistent=True)
    channel = _restarted(s)
    check_equal(channel.get_all(queue), [b"1", b"2", b"11", b"12"], "bodies")


@scenario("durability.after", covers=["durability:after"], restarts=BOTH)
def what_is_published_later_is_behind(s: Session) -> None:
    channel = s.channel()
    queue = lasting_queue(s, channel, 5)
    _fetch(channel, queue, 2)
    channel = _restarted(s)
    publish_numbers(channel, queue, 6, 8, persistent=True)
    check_equal(channel.get_all(queue)[:7], _numbers(range(1, 8)), "bodies")
    publish_numbers(channel, queue, 9, 9)
    check_equal(channel.get_all(queue), [b"9"], "bodies")


@scenario("durability.tx", covers=["durability:commit-none"], restarts=BOTH)
def a_transaction_without_commit_has_not_happened(s: Session) -> None:
    channel = s.channel()
    queue = lasting_queue(s, channel, 4)
    channel.call("tx.select")
    _fetch(channel, queue, 2)
    channel.send("basic.ack", delivery_tag=1)
    channel.call("tx.commit")
    channel.send("basic.ack", delivery_tag=2)
    channel.publish(b"5", routing_key=queue, properties=PERSISTENT)
    _write_out(s, s.channel())
    channel = _restarted(s)
    check_equal(channel.get_all(queue), [b"2", b"3", b"4"], "bodies")


@scenario("durability.confirm", covers=["durability:confirm"], restarts=[Restart.KILL], alone=True)
def what_is_confirmed_survives_a_kill_right_after(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "fanout", durable=True)
    queues = [s.queue(channel, durable=True) for _ in range(2)]
    for queue in queues:
        channel.bind(queue, exchange)
    channel.call("confirm.select")
    for number in range(1, 501):
        channel.publish(b"%d" % number, exchange, properties=PERSISTENT)
    channel.confirms(range(1, 501))
    channel = _restarted(s)
    for queue in queues:
        check_equal(channel.get_all(queue), _numbers(range(1, 501)), "bodies")


@scenario(
    "durability.commit",
    covers=["durability:commit"],
    restarts=[Restart.KILL],
    alone=True,
    deviations=[deviation("rabbitmq", "a kill undoes acks whose commit it had answered")],
)
def what_is_committed_survives_a_kill_right_after(s: Session) -> None:
    channel = s.channel()
    source, target = lasting_queue(s, channel, 20), s.queue(channel, durable=True)
    channel.call("tx.select")
    _fetch(channel, source, 10)
    for number in range(1, 11):
        channel.publish(b"%d" % number, routing_key=target, properties=PERSISTENT)
    channel.send("basic.ack", delivery_tag=10, multiple=True)
    channel.call("tx.commit")
    channel = _restarted(s)
    check_equal(channel.get_all(target), _numbers(range(1, 11)), "published")
    looked_at = slice(-10, None) if s.deviates else slice(None)
    check_equal(channel.get_all(source)[looked_at], _numbers(range(11, 21)), "not acked")


@scenario(
    "durability.purge-ok", covers=["durability:purge-ok"], restarts=[Restart.KILL], alone=True
)
def what_is_purged_stays_so_after_a_kill_right_after(s: Session) -> None:
    channel = s.channel()
    queue = lasting_queue(s, channel, 20)
    channel.call("queue.purge", queue=queue)
    channel = _restarted(s)
    check_equal(channel.get_all(queue), [], "bodies")


@scenario("durability.quorum", covers=["durability:quorum"], restarts=BOTH)
def quorum_queues_keep_transient_messages_too(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel, durable=True, arguments={"x-queue-type": "quorum"})
    _publish(channel, *((b"%d" % n, "", queue, {"delivery_mode": n}) for n in (1, 2)))
    _publish(channel, (b"3", "", queue, {}))
    channel = _restarted(s)
    check_equal(channel.get_all(queue), [b"1", b"2", b"3"], "bodies")

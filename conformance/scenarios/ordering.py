"""What comes before what."""

from __future__ import annotations

from typing import Any

from conformance.channel import Channel
from conformance.failure import check, check_equal, eventually
from conformance.registry import scenario
from conformance.session import Session

_BODIES = [b"%d" % n for n in range(50)]


def _filled(s: Session, channel: Channel) -> str:
    queue = s.queue(channel)
    for body in _BODIES:
        channel.publish(body, routing_key=queue)
    channel.settle(queue)
    return queue


@scenario(
    "ordering.return-before-confirm",
    covers=["rule:return-before-confirm", "rule:unroutable-acked"],
)
def the_return_of_a_message_comes_before_its_confirm(s: Session) -> None:
    channel = s.channel()
    channel.call("confirm.select")
    nowhere = s.name("nowhere")
    for tag in range(1, 11):
        channel.publish(b"%d" % tag, routing_key=nowhere, mandatory=True)
    returned, confirmed = 0, 0
    while confirmed < 10:
        method = channel.expect("basic.return", "basic.ack")
        if method.name == "basic.return":
            returned += 1
            check_equal(method.body, b"%d" % returned, "returned body")
        else:
            tag = method["delivery_tag"]
            check(tag <= returned, f"{method} before the return of message {tag}")
            confirmed = tag if method["multiple"] else confirmed + 1
    check_equal(returned, 10, "returns")


@scenario(
    "ordering.consume-ok-before-deliver",
    covers=["rule:consume-ok-before-deliver", "method:basic.consume-ok"],
)
def consume_ok_comes_before_the_first_delivery(s: Session) -> None:
    channel = s.channel()
    queue = _filled(s, channel)
    channel.send("basic.consume", queue=queue, no_ack=True)
    tag = channel.expect("basic.consume-ok")["consumer_tag"]
    for body in _BODIES:
        channel.expect_delivery(body, consumer_tag=tag)


@scenario(
    "ordering.cancel-ok-after-deliver",
    covers=["rule:cancel-ok-after-deliver", "method:basic.cancel", "method:basic.cancel-ok"],
)
def nothing_is_delivered_after_cancel_ok(s: Session) -> None:
    channel = s.channel()
    publisher = s.channel()
    queue = s.queue(publisher)
    tag = channel.consume(queue, no_ack=True)
    for body in _BODIES:
        publisher.publish(body, routing_key=queue)
    channel.expect_delivery(_BODIES[0])
    channel.send("basic.cancel", consumer_tag=tag)
    for body in _BODIES:
        publisher.publish(body, routing_key=queue)
    delivered = 1
    while channel.expect("basic.deliver", "basic.cancel-ok").name == "basic.deliver":
        delivered += 1
    publisher.settle(queue)
    channel.expect_silence(queue)
    left = publisher.message_count(queue)
    check_equal(delivered + left, 2 * len(_BODIES), "delivered and left")


@scenario("ordering.one-queue", covers=["rule:order-one-queue"])
def one_publishers_messages_keep_their_order(s: Session) -> None:
    channel = s.channel()
    consumer = s.channel()
    queue, exchange = s.queue(channel), s.exchange(channel, "topic")
    channel.bind(queue, exchange, "a.#")
    consumer.consume(queue, no_ack=True)
    sent = [b"%d" % n + b"x" * (n % 7 * 1000) for n in range(300)]
    for n, body in enumerate(sent):
        if n % 2:
            channel.publish(body, exchange, f"a.{n}")
        else:
            channel.publish(body, routing_key=queue)
    check_equal([d.body[:4] for d in consumer.deliveries(300)], [b[:4] for b in sent], "bodies")


@scenario("ordering.delivery-tags", covers=["rule:get-shares-tags"])
def delivery_tags_of_a_channel_count_up_by_one(s: Session) -> None:
    channel = s.channel()
    first, second = _filled(s, channel), _filled(s, channel)
    channel.consume(first, "one")
    tags = [d["delivery_tag"] for d in channel.deliveries(len(_BODIES))]
    channel.send("basic.get", queue=second)
    tags.append(channel.expect("basic.get-ok")["delivery_tag"])
    channel.consume(second, "two", no_ack=True)
    tags += [d["delivery_tag"] for d in channel.deliveries(len(_BODIES) - 1)]
    check_equal(tags, list(range(1, 2 * len(_BODIES) + 1)), "delivery tags")


@scenario("ordering.exclusive-before-close-ok", covers=["rule:exclusive-before-close-ok"])
def exclusive_queues_are_gone_before_connection_close_ok(s: Session) -> None:
    other = s.channel()
    for _ in range(5):
        connection = s.connect()
        channel = connection.channel()
        queues = [s.queue(channel, exclusive=True) for _ in range(5)]
        connection.close()
        for queue in queues:
            other.send("queue.declare", queue=queue, passive=True)
            other.expect_close(404, f"NOT_FOUND - no queue '{queue}' in vhost '/'", "queue.declare")
            other.reopen()


@scenario("ordering.exclusive-socket-ends", covers=["rule:exclusive-gone-with-socket"])
def exclusive_queues_go_when_the_socket_just_ends(s: Session) -> None:
    other = s.channel()
    connection = s.connect()
    queue = s.queue(connection.channel(), exclusive=True)
    connection.drop()

    def is_gone() -> bool:
        other.send("queue.declare", queue=queue, passive=True)
        closed = other.expect("channel.close")
        other.send("channel.close-ok")
        other.reopen()
        check(closed["reply_code"] in (404, 405), f"got {closed}")
        return bool(closed["reply_code"] == 404)

    # The end of a socket is noticed in its own time: until then the queue is locked.
    eventually(is_gone, "exclusive queue goes with the socket")


@scenario("ordering.channel-close-requeues", covers=["rule:channel-error-releases"])
def unacked_messages_are_back_before_channel_close_ok(s: Session) -> None:
    other = s.channel()
    channel = s.channel()
    queue = _filled(s, other)
    channel.consume(queue)
    channel.deliveries(len(_BODIES))
    channel.call("channel.close")
    found = [other.get(queue) for _ in _BODIES]
    check_equal([f and f.body for f in found], list(_BODIES), "bodies")


@scenario("ordering.publish-then-close", covers=["method:channel.close"])
def what_was_published_before_close_arrives(s: Session) -> None:
    connection = s.connect()
    channel = connection.channel()
    queue = s.queue(channel)
    for body in _BODIES:
        channel.publish(body, routing_key=queue)
    connection.close()
    check_equal(s.channel().get_all(queue), _BODIES, "bodies")


@scenario("ordering.publish-then-get", covers=["rule:order-one-queue"])
def a_channel_sees_its_own_publishes(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    for n in range(50):
        body = b"%d" % n
        channel.publish(body, routing_key=queue)
        found = channel.get(queue)
        check_equal(found and found.body, body, "what was just published")


@scenario("ordering.answers", covers=["rule:tx-always-answers"])
def answers_come_in_the_order_of_the_questions(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    questions: list[tuple[str, dict[str, Any]]] = [
        ("basic.qos", {"prefetch_count": 1}),
        ("queue.purge", {"queue": queue}),
        ("channel.flow", {"active": True}),
        ("basic.recover", {"requeue": True}),
        ("queue.declare", {"queue": queue, "passive": True}),
        ("basic.qos", {}),
        ("basic.cancel", {"consumer_tag": "unknown"}),
        ("confirm.select", {}),
    ]
    for name, fields in questions:
        channel.send(name, **fields)
    for name, _ in questions:
        channel.expect(f"{name}-ok")

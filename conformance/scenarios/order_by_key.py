"""Order by key and fair shares: x-group-by, x-fair-by."""

from __future__ import annotations

from typing import Any

from conformance.channel import Channel
from conformance.failure import check_equal
from conformance.registry import deviation, scenario
from conformance.session import Session
from conformance.texts import invalid_argument

NOT_KNOWN = [deviation("rabbitmq", "takes no notice of it")]
ROOMS = {"x-group-by": "room"}


def publish(channel: Channel, queue: str, *bodies: bytes, **headers: Any) -> None:
    for body in bodies:
        channel.publish(body, routing_key=queue, properties={"headers": headers})


def bodies(channel: Channel, count: int) -> list[bytes]:
    return [delivery.body for delivery in channel.deliveries(count)]


@scenario("group-by.one-at-a-time", covers=["rule:group-by"], deviations=NOT_KNOWN)
def messages_of_a_key_wait_for_each_other_and_for_no_others(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel, arguments=ROOMS)
    publish(channel, queue, b"a1", b"a2", room="a")
    publish(channel, queue, b"b1", room="b")
    publish(channel, queue, b"none1", b"none2")
    channel.consume(queue)
    if s.deviates:
        check_equal(bodies(channel, 5), [b"a1", b"a2", b"b1", b"none1", b"none2"], "deliveries")
        return
    check_equal(bodies(channel, 4), [b"a1", b"b1", b"none1", b"none2"], "deliveries")
    channel.expect_silence(queue)
    channel.send("basic.ack", delivery_tag=1)
    channel.expect_delivery(b"a2", delivery_tag=5, redelivered=False)


@scenario("group-by.requeue", covers=["rule:group-by"], deviations=NOT_KNOWN)
def what_comes_back_goes_before_the_rest_of_its_key(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel, arguments=ROOMS)
    publish(channel, queue, b"a1", b"a2", room="a")
    channel.call("basic.qos", prefetch_count=2)
    channel.consume(queue)
    channel.expect_delivery(b"a1")
    if s.deviates:
        channel.expect_delivery(b"a2")
        return
    for tag in (2, 3):
        channel.send("basic.nack", delivery_tag=tag - 1, requeue=True)
        channel.expect_delivery(b"a1", delivery_tag=tag, redelivered=True)
    channel.send("basic.reject", delivery_tag=3, requeue=False)
    channel.expect_delivery(b"a2", redelivered=False)


@scenario("group-by.get", covers=["rule:group-by"], deviations=NOT_KNOWN)
def get_takes_the_first_message_whose_key_is_free(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel, arguments=ROOMS)
    publish(channel, queue, b"a1", b"a2", room="a")
    publish(channel, queue, b"b1", room="b")
    found = [channel.get(queue, no_ack=False) for _ in range(3)]
    taken = [None if each is None else each.body for each in found]
    if s.deviates:
        check_equal(taken, [b"a1", b"a2", b"b1"], "taken")
        return
    check_equal(taken, [b"a1", b"b1", None], "taken")
    check_equal(channel.message_count(queue), 1, "messages")
    channel.send("basic.ack", delivery_tag=1)
    check_equal(channel.get_all(queue), [b"a2"], "the rest")


@scenario("group-by.no-ack", covers=["rule:group-by"])
def to_a_consumer_without_acks_a_key_goes_in_order(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel, arguments=ROOMS)
    publish(channel, queue, b"1", b"2", b"3", room="a")
    channel.consume(queue, no_ack=True)
    check_equal(bodies(channel, 3), [b"1", b"2", b"3"], "deliveries")


@scenario("group-by.routing-key", covers=["rule:group-by"], deviations=NOT_KNOWN)
def a_routing_key_is_a_key_as_well(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel, arguments={"x-group-by": "routing-key"})
    for key in ("red", "blue"):
        channel.call("queue.bind", queue=queue, exchange="amq.direct", routing_key=key)
    for body, key in ((b"1", "red"), (b"2", "red"), (b"3", "blue")):
        channel.publish(body, "amq.direct", key)
    channel.settle(queue)
    channel.consume(queue)
    if s.deviates:
        check_equal(bodies(channel, 3), [b"1", b"2", b"3"], "deliveries")
        return
    check_equal(bodies(channel, 2), [b"1", b"3"], "deliveries")
    channel.expect_silence(queue)


@scenario("group-by.closed", covers=["rule:group-by"], deviations=NOT_KNOWN)
def a_channel_that_closes_frees_its_keys(s: Session) -> None:
    first, second = s.channel(), s.channel()
    queue = s.queue(first, arguments=ROOMS)
    publish(first, queue, b"a1", b"a2", room="a")
    first.consume(queue)
    first.expect_delivery(b"a1")
    if s.deviates:
        first.expect_delivery(b"a2")
        return
    second.consume(queue)
    second.expect_silence(queue)
    first.call("channel.close")
    second.expect_delivery(b"a1", redelivered=True)
    second.send("basic.ack", delivery_tag=1)
    second.expect_delivery(b"a2", redelivered=False)


@scenario("fair-by.turns", covers=["rule:fair-by"], deviations=NOT_KNOWN)
def who_has_the_fewest_in_work_is_next(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel, arguments={"x-fair-by": "tenant"})
    publish(channel, queue, b"a1", b"a2", b"a3", tenant="a")
    publish(channel, queue, b"b1", b"b2", tenant="b")
    publish(channel, queue, b"none")
    channel.call("basic.qos", prefetch_count=4)
    channel.consume(queue)
    if s.deviates:
        check_equal(bodies(channel, 4), [b"a1", b"a2", b"a3", b"b1"], "deliveries")
        return
    check_equal(bodies(channel, 4), [b"a1", b"b1", b"none", b"a2"], "deliveries")
    # Of a there are two in work, of b and of those without a tenant one each.
    channel.send("basic.ack", delivery_tag=3)
    channel.expect_delivery(b"b2")


@scenario("fair-by.and-group-by", covers=["rule:fair-by", "rule:group-by"], deviations=NOT_KNOWN)
def shares_are_taken_of_what_may_go_out(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel, arguments={"x-fair-by": "tenant", **ROOMS})
    publish(channel, queue, b"a1", b"a2", tenant="a", room="1")
    publish(channel, queue, b"a3", tenant="a", room="2")
    publish(channel, queue, b"b1", tenant="b", room="1")
    publish(channel, queue, b"b2", tenant="b", room="3")
    channel.consume(queue)
    if s.deviates:
        check_equal(bodies(channel, 5), [b"a1", b"a2", b"a3", b"b1", b"b2"], "deliveries")
        return
    check_equal(bodies(channel, 3), [b"a1", b"b2", b"a3"], "deliveries")
    channel.expect_silence(queue)
    channel.send("basic.ack", delivery_tag=1)
    channel.expect_delivery(b"a2")


@scenario("group-by.wrong", covers=["rule:group-by", "rule:fair-by"], deviations=NOT_KNOWN)
def what_names_no_key_is_refused(s: Session) -> None:
    channel = s.channel()
    nothing = '"expected the name of a header, or routing-key"'
    priorities = '"a queue with x-max-priority has an order of its own"'
    wrong: list[tuple[Any, dict[str, Any], str]] = [
        (1, {}, "{unacceptable_type,signedint}"),
        ("", {}, nothing),
        ("x" * 256, {}, nothing),
        ("room", {"x-max-priority": 3}, priorities),
    ]
    for name in ("x-group-by", "x-fair-by"):
        for value, others, text in wrong:
            queue = s.name("q")
            arguments = {name: value, **others}
            if s.deviates:
                channel.declare_queue(queue, arguments=arguments)
                continue
            channel.send("queue.declare", queue=queue, arguments=arguments)
            channel.expect_close(406, invalid_argument(name, queue, text), "queue.declare")
            channel.reopen()


@scenario("group-by.redeclared", covers=["rule:group-by", "rule:fair-by"], deviations=NOT_KNOWN)
def another_key_is_another_queue(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel, arguments=ROOMS)
    channel.declare_queue(queue, arguments=ROOMS)
    arguments = {"x-group-by": "house"}
    if s.deviates:
        channel.declare_queue(queue, arguments=arguments)
        return
    channel.send("queue.declare", queue=queue, arguments=arguments)
    text = (
        f"PRECONDITION_FAILED - inequivalent arg 'x-group-by' for queue '{queue}' in vhost '/': "
        "received 'house' but current is 'room'"
    )
    channel.expect_close(406, text, "queue.declare")

"""basic.get."""

from __future__ import annotations

from conformance.failure import check_equal
from conformance.messages import next_bodies, numbered_queue, publish_numbers
from conformance.registry import scenario
from conformance.session import Session


@scenario(
    "get.counts",
    covers=["method:basic.get", "method:basic.get-ok", "rule:get-message-count"],
)
def get_ok_counts_what_remains_ready(s: Session) -> None:
    channel = s.channel()
    queue = numbered_queue(s, channel, 4)
    for number, no_ack in ((1, False), (2, True), (3, False), (4, True)):
        channel.send("basic.get", queue=queue, no_ack=no_ack)
        got = channel.expect(
            "basic.get-ok",
            delivery_tag=number,
            redelivered=False,
            exchange="",
            routing_key=queue,
            message_count=4 - number,
        )
        check_equal(got.body, b"%d" % number, "body")


@scenario("get.empty", covers=["method:basic.get-empty"])
def get_from_an_empty_queue_says_so(s: Session) -> None:
    channel = s.channel()
    queue = numbered_queue(s, channel, 1)
    channel.get(queue, no_ack=False)
    for _ in range(2):
        channel.send("basic.get", queue=queue)
        channel.expect("basic.get-empty", cluster_id="")


@scenario("get.no-ack", covers=["method:basic.get"])
def what_get_took_with_no_ack_is_gone(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    queue = numbered_queue(s, channel, 3)
    channel.get(queue, no_ack=True)
    channel.get(queue, no_ack=False)
    channel.call("channel.close")
    other.consume(queue)
    left = sorted((d.body, d["redelivered"]) for d in other.deliveries(2))
    check_equal(left, [(b"2", True), (b"3", False)], "messages left")
    other.expect_silence(queue)


@scenario("get.acked", covers=["method:basic.get", "method:basic.ack"])
def what_get_took_can_be_acked(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    queue = numbered_queue(s, channel, 3)
    for _ in range(3):
        channel.get(queue, no_ack=False)
    channel.send("basic.ack", delivery_tag=2)
    channel.call("channel.close")
    other.consume(queue)
    check_equal(next_bodies(other, 2), [b"1", b"3"], "messages left")
    other.expect_silence(queue)


@scenario("get.shares-tags", covers=["rule:get-shares-tags"])
def get_and_deliver_count_in_one_sequence(s: Session) -> None:
    channel = s.channel()
    polled, consumed = s.queue(channel), s.queue(channel)
    channel.consume(consumed, no_ack=True)
    for number in range(1, 9, 2):
        channel.publish(b"d", routing_key=consumed)
        channel.expect_delivery(b"d", delivery_tag=number)
        channel.publish(b"g", routing_key=polled)
        channel.settle(polled)
        channel.send("basic.get", queue=polled, no_ack=number % 4 == 1)
        channel.expect("basic.get-ok", delivery_tag=number + 1)
        channel.send("basic.get", queue=polled)
        channel.expect("basic.get-empty")


@scenario("get.missing-queue", covers=["error:missing-queue-get"])
def get_from_a_missing_queue_closes_the_channel(s: Session) -> None:
    channel, missing = s.channel(), s.name("missing")
    channel.send("basic.get", queue=missing)
    channel.expect_close(404, f"NOT_FOUND - no queue '{missing}' in vhost '/'", "basic.get")
    channel.reopen()


@scenario("get.locked", covers=["error:locked-get"])
def get_from_another_connections_exclusive_queue_is_refused(s: Session) -> None:
    owner, other = s.channel(), s.channel()
    queue = s.queue(owner, exclusive=True)
    owner.publish(b"m", routing_key=queue)
    other.send("basic.get", queue=queue)
    text = (
        f"RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{queue}' in vhost '/'. "
        "It could be originally declared on another connection or the exclusive property value "
        "does not match that of the original declaration."
    )
    other.expect_close(405, text[:252] + "..." if len(text) > 255 else text, "basic.get")
    check_equal(owner.get_all(queue), [b"m"], "messages")


@scenario(
    "get.last-queue", covers=["rule:last-queue-remembered", "error:no-previously-declared-queue"]
)
def an_empty_queue_name_means_the_last_declared_queue(s: Session) -> None:
    connection = s.connect()
    channel, fresh = connection.channel(), connection.channel()
    first, last = s.queue(channel), s.queue(channel)
    for queue in (first, last):
        channel.publish(queue.encode(), routing_key=queue)
    got = channel.get("")
    check_equal(got and got.body, last.encode(), "body")
    fresh.send("basic.get")
    fresh.expect_close(404, "NOT_FOUND - no previously declared queue", "basic.get")


@scenario("get.beside-consumer", covers=["method:basic.get"])
def get_takes_what_a_full_consumer_left(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    queue = numbered_queue(s, channel, 3)
    channel.call("basic.qos", prefetch_count=1)
    channel.consume(queue, "slow")
    channel.expect_delivery(b"1")
    got = other.get(queue)
    check_equal(got and (got.body, got["message_count"]), (b"2", 1), "body and messages left")
    channel.send("basic.ack", delivery_tag=1)
    channel.expect_delivery(b"3")
    check_equal(other.get_all(queue), [], "messages left")


@scenario("get.bodies", covers=["method:basic.get-ok", "rule:body-empty", "rule:body-many-frames"])
def get_brings_empty_bodies_and_bodies_of_many_frames(s: Session) -> None:
    channel = s.channel(frame_max=4096)
    queue = s.queue(channel)
    bodies = [b"", b"x", b"y" * 4088, b"z" * 4089, bytes(range(256)) * 100, b""]
    for body in bodies:
        channel.publish(body, routing_key=queue)
    check_equal(channel.get_all(queue), bodies, "bodies")


@scenario("get.many", covers=["method:basic.get"])
def pipelined_gets_are_answered_in_order(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    publish_numbers(channel, queue, 1, 50)
    for _ in range(51):
        channel.send("basic.get", queue=queue)
    for number in range(1, 51):
        got = channel.expect("basic.get-ok", delivery_tag=number, message_count=50 - number)
        check_equal(got.body, b"%d" % number, "body")
    channel.expect("basic.get-empty")

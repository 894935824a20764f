"""x-consumer-timeout, and who gets the next message by x-dispatch."""

from __future__ import annotations

from typing import Any

from conformance import fields
from conformance.failure import check_equal
from conformance.registry import deviation, scenario
from conformance.session import Session
from conformance.texts import invalid_argument

ONE_FOR_ALL = "3.10 has one timeout for the whole node, looks once a minute and closes the channel"
NOT_KNOWN = "takes no notice of it"


@scenario("consumer-timeout.accepted", covers=["rule:consumer-timeout"])
def a_consumer_may_have_a_timeout_of_its_own(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel, arguments={"x-consumer-timeout": 3_600_000})
    values: list[Any] = [0, 10_800_000, fields.long(2**40), fields.short(30_000)]
    for number, value in enumerate(values, start=1):
        tag = channel.consume(queue, arguments={"x-consumer-timeout": value})
        channel.publish(b"m", routing_key=queue)
        channel.expect_delivery(b"m", consumer_tag=tag, delivery_tag=number, redelivered=False)
        channel.send("basic.ack", delivery_tag=number)
        channel.call("basic.cancel", consumer_tag=tag)
    channel.expect_silence(queue)


@scenario(
    "consumer-timeout.wrong",
    covers=["rule:consumer-timeout", "error:consumer-argument-refused"],
    deviations=[deviation("rabbitmq", "does not look at it when a queue or consumer is made")],
)
def a_timeout_that_is_none_is_refused(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    for value, wrong in (
        (-1, "{value_negative,-1}"),
        ("1000", '"expected integer, got longstr"'),
        (True, '"expected integer, got bool"'),
    ):
        arguments = {"x-consumer-timeout": value}
        other = s.name("q")
        if s.deviates:
            channel.declare_queue(other, arguments=arguments)
            channel.consume(other, arguments=arguments)
            continue
        for name, title in (("queue.declare", other), ("basic.consume", queue)):
            channel.send(name, queue=title, arguments=arguments)
            text = invalid_argument("x-consumer-timeout", title, wrong)
            channel.expect_close(406, text, name)
            channel.reopen()


@scenario(
    "consumer-timeout.late",
    covers=["rule:consumer-timeout", "rule:redelivered-requeue"],
    deviations=[deviation("rabbitmq", ONE_FOR_ALL)],
    slow=True,
)
def a_late_delivery_goes_to_another_consumer_and_the_late_ack_is_ignored(s: Session) -> None:
    late, other = s.channel(), s.channel()
    queue = s.queue(late, arguments={"x-consumer-timeout": 200})
    late.consume(queue, "late")
    late.publish(b"1", routing_key=queue)
    late.expect_delivery(b"1", delivery_tag=1)
    other.consume(queue, "other", arguments={"x-consumer-timeout": 0})
    if s.deviates:
        other.expect_silence(queue)
        return
    other.expect_delivery(b"1", delivery_tag=1, redelivered=True)
    late.send("basic.ack", delivery_tag=1)
    late.expect_silence()
    other.send("basic.ack", delivery_tag=1)
    other.settle(queue)
    late.send("basic.ack", delivery_tag=1)
    late.expect_close(406, "PRECONDITION_FAILED - unknown delivery tag 1", "basic.ack")


@scenario(
    "consumer-timeout.channel",
    covers=["rule:consumer-timeout"],
    deviations=[deviation("rabbitmq", ONE_FOR_ALL)],
    slow=True,
)
def the_channel_is_closed_where_that_is_asked_for(s: Session) -> None:
    channel = s.channel()
    action = {"x-consumer-timeout-action": "close-channel"}
    queue = s.queue(channel, arguments={"x-consumer-timeout": 200, **action})
    channel.publish(b"1", routing_key=queue)
    channel.settle(queue)
    channel.get(queue, no_ack=False)
    if s.deviates:
        channel.expect_silence(queue)
        return
    channel.expect_close(
        406,
        "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value "
        "used: 200 ms. This timeout value can be configured, see consumers doc guide to learn more",
        None,
    )


@scenario(
    "consumer-timeout.cancel",
    covers=["rule:consumer-timeout", "rule:cancel-notify"],
    deviations=[deviation("rabbitmq", ONE_FOR_ALL)],
    slow=True,
)
def the_consumer_is_cancelled_where_that_is_asked_for(s: Session) -> None:
    channel = s.channel()
    action = {"x-consumer-timeout-action": "cancel-consumer"}
    queue = s.queue(channel)
    channel.consume(queue, "mine", arguments={"x-consumer-timeout": 200, **action})
    channel.publish(b"1", routing_key=queue)
    channel.expect_delivery(b"1")
    if s.deviates:
        channel.expect_silence(queue)
        return
    channel.expect("basic.cancel", consumer_tag="mine", nowait=True)
    check_equal(channel.message_count(queue), 1, "messages")
    channel.send("basic.ack", delivery_tag=1)
    channel.expect_silence(queue)


@scenario(
    "dispatch.least-loaded",
    covers=["rule:least-loaded"],
    deviations=[deviation("rabbitmq", NOT_KNOWN)],
)
def who_holds_the_fewest_messages_gets_the_next_one(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel, arguments={"x-dispatch": "least-loaded"})
    for tag in ("a", "b"):
        channel.consume(queue, tag)
    turns = []
    for number in range(1, 7):
        channel.publish(b"m", routing_key=queue)
        turns.append(channel.expect_delivery(delivery_tag=number)["consumer_tag"])
        if turns[-1] == "b":
            channel.send("basic.ack", delivery_tag=number)
            channel.settle(queue)
    check_equal(turns, list("ababab" if s.deviates else "abbbbb"), "turns")


@scenario(
    "dispatch.wrong",
    covers=["rule:least-loaded"],
    deviations=[deviation("rabbitmq", NOT_KNOWN)],
)
def another_dispatch_is_refused(s: Session) -> None:
    channel = s.channel()
    queue = s.name("q")
    arguments = {"x-dispatch": "whoever"}
    if s.deviates:
        channel.declare_queue(queue, arguments=arguments)
        return
    channel.send("queue.declare", queue=queue, arguments=arguments)
    channel.expect_close(
        406, invalid_argument("x-dispatch", queue, "invalid_dispatch"), "queue.declare"
    )

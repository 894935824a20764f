"""The exchange type x-delayed-message: messages are routed when they are due."""

from __future__ import annotations

import time
from typing import Any

from conformance import fields
from conformance.channel import Channel
from conformance.dead_letters import let_pass
from conformance.failure import check, check_equal
from conformance.messages import PERSISTENT
from conformance.registry import Restart, scenario
from conformance.session import Session

KIND = "x-delayed-message"
_LONG_MS = 3_600_000


def declare(s: Session, channel: Channel, kind: str = "direct", **options: Any) -> str:
    """A delayed exchange that routes as one of this type."""
    arguments = {"x-delayed-type": kind, **options.pop("arguments", {})}
    return s.exchange(channel, KIND, arguments=arguments, **options)


def bound(s: Session, channel: Channel, exchange: str, key: str = "k", **options: Any) -> str:
    """A queue that is bound to it."""
    queue = s.queue(channel, **options)
    channel.bind(queue, exchange, key)
    return queue


def publish(
    channel: Channel, exchange: str, body: bytes, delay: Any, key: str = "k", /, **properties: Any
) -> None:
    """Publishes one that waits; returns when it is confirmed."""
    publisher = channel.connection.channel()
    publisher.call("confirm.select")
    headers = {"x-delay": delay, **properties.pop("headers", {})}
    publisher.publish(body, exchange, key, properties={"headers": headers, **properties})
    publisher.confirms({1})
    publisher.call("channel.close")


@scenario("delayed.due", covers=["delayed:due", "delayed:header"], exchange_type=KIND)
def message_arrives_when_it_is_due(s: Session) -> None:
    channel = s.channel()
    exchange = declare(s, channel)
    queue = bound(s, channel, exchange)
    channel.consume(queue, no_ack=True)
    began = time.monotonic()
    publish(channel, exchange, b"m", 300, message_id="id")
    found = channel.expect_delivery(b"m", exchange=exchange, routing_key="k", redelivered=False)
    check(time.monotonic() - began >= 0.3, "came before it was due")
    check_equal(found.message.headers["x-delay"], -300, "x-delay")
    check_equal(found.message.properties["message_id"], "id", "message_id")


@scenario("delayed.order", covers=["delayed:due"], exchange_type=KIND)
def messages_arrive_in_the_order_in_which_they_are_due(s: Session) -> None:
    channel = s.channel()
    exchange = declare(s, channel)
    channel.consume(bound(s, channel, exchange), no_ack=True)
    for delay in (1000, 200, 600, 400, 800):
        publish(channel, exchange, b"%d" % delay, delay)
    publish(channel, exchange, b"never", _LONG_MS)
    found = [delivery.body for delivery in channel.deliveries(5)]
    check_equal(found, [b"200", b"400", b"600", b"800", b"1000"], "bodies")


@scenario("delayed.types", covers=["delayed:types"], exchange_type=KIND)
def any_type_can_be_behind_it(s: Session) -> None:
    channel = s.channel()
    for kind, key in (("direct", "a.b"), ("topic", "a.*"), ("fanout", ""), ("headers", "")):
        exchange = declare(s, channel, kind)
        queue = bound(s, channel, exchange, key)
        publish(channel, exchange, b"waits", _LONG_MS, "a.b")
        publish(channel, exchange, b"now", 0, "a.b")
        check_equal(channel.get_all(queue), [b"now"], f"what a {kind} exchange routes at once")
        channel.consume(queue, no_ack=True)
        publish(channel, exchange, b"soon", 50, "a.b")
        channel.expect_delivery(b"soon")


@scenario("delayed.no-delay", covers=["delayed:no-delay"], exchange_type=KIND)
def message_without_a_delay_is_routed_at_once(s: Session) -> None:
    channel = s.channel()
    exchange = declare(s, channel)
    queue = bound(s, channel, exchange)
    for value in (0, -5, fields.long(-(2**40)), fields.boolean(True), fields.void()):
        publish(channel, exchange, b"m", value)
        found = channel.get(queue)
        check_equal(found and found.body, b"m", f"what x-delay {value} does")
        assert found is not None
        check_equal(
            found.message.typed_headers["x-delay"], fields.typed(value), "x-delay that arrives"
        )


@scenario("delayed.widths", covers=["delayed:header"], exchange_type=KIND)
def delay_is_any_integer_or_its_text(s: Session) -> None:
    channel = s.channel()
    exchange = declare(s, channel)
    channel.consume(bound(s, channel, exchange), no_ack=True)
    values = [
        fields.byte(50),
        fields.short(50),
        fields.signedint(50),
        fields.long(50),
        fields.unsignedbyte(50),
        fields.unsignedshort(50),
        fields.unsignedint(50),
        fields.longstr("50"),
        fields.double(50.5),
    ]
    for value in values:
        publish(channel, exchange, b"m", value)
        found = channel.expect_delivery(b"m")
        check_equal(found.message.headers["x-delay"], -50, f"x-delay that was {value}")


@scenario("delayed.bindings", covers=["delayed:routed-late"], exchange_type=KIND)
def bindings_count_when_it_is_due(s: Session) -> None:
    channel = s.channel()
    exchange = declare(s, channel)
    early = bound(s, channel, exchange)
    publish(channel, exchange, b"m", 400)
    channel.call("queue.unbind", queue=early, exchange=exchange, routing_key="k")
    late = bound(s, channel, exchange)
    channel.consume(late, no_ack=True)
    channel.expect_delivery(b"m")
    check_equal(channel.get(early), None, "what the queue got that was bound before")


@scenario("delayed.copies", covers=["delayed:routed-late"], exchange_type=KIND)
def copies_go_out_when_it_is_due(s: Session) -> None:
    channel = s.channel()
    exchange = declare(s, channel)
    for key in ("k", "cc", "bcc"):
        channel.consume(bound(s, channel, exchange, key), key, no_ack=True)
    publish(channel, exchange, b"m", 50, headers={"CC": ["cc"], "BCC": ["bcc"]})
    tags = {channel.expect_delivery(b"m")["consumer_tag"] for _ in range(3)}
    check_equal(tags, {"k", "cc", "bcc"}, "who got it")


@scenario("delayed.mandatory", covers=["delayed:mandatory"], exchange_type=KIND)
def mandatory_message_is_returned_and_routed_when_it_is_due(s: Session) -> None:
    channel = s.channel()
    exchange = declare(s, channel)
    queue = bound(s, channel, exchange)
    publisher = channel.connection.channel()
    properties = {"headers": {"x-delay": 100}}
    publisher.publish(b"m", exchange, "k", mandatory=True, properties=properties)
    publisher.expect("basic.return", reply_code=312)
    channel.consume(queue, no_ack=True)
    channel.expect_delivery(b"m")


@scenario("delayed.behind", covers=["delayed:behind"], exchange_type=KIND)
def message_that_comes_through_another_exchange_is_delayed_once(s: Session) -> None:
    channel = s.channel()
    first = s.exchange(channel, "fanout")
    delayed = declare(s, channel, "fanout")
    second = declare(s, channel, "fanout")
    queue = bound(s, channel, second)
    for source, destination in ((first, delayed), (delayed, second)):
        channel.call("exchange.bind", source=source, destination=destination, routing_key="")
    began = time.monotonic()
    publish(channel, first, b"m", 300)
    check_equal(channel.get(queue), None, "what is there at once")
    channel.consume(queue, no_ack=True)
    channel.expect_delivery(b"m", exchange=first)
    check(time.monotonic() - began >= 0.3, "came before it was due")


@scenario("delayed.expiration", covers=["delayed:expiration"], exchange_type=KIND)
def expiration_counts_from_when_it_is_routed(s: Session) -> None:
    channel = s.channel()
    exchange = declare(s, channel)
    channel.consume(bound(s, channel, exchange), no_ack=True)
    publish(channel, exchange, b"m", 300, expiration="100")
    channel.expect_delivery(b"m")


@scenario("delayed.deleted", covers=["delayed:deleted"], exchange_type=KIND)
def what_waits_goes_with_its_exchange(s: Session) -> None:
    channel = s.channel()
    exchange = declare(s, channel)
    queue = bound(s, channel, exchange)
    publish(channel, exchange, b"m", 100)
    channel.call("exchange.delete", exchange=exchange)
    arguments = {"x-delayed-type": "direct"}
    channel.call("exchange.declare", exchange=exchange, type=KIND, arguments=arguments)
    channel.bind(queue, exchange, "other")
    let_pass(s, 200)
    check_equal(channel.get(queue), None, "what is there when it would have been due")


@scenario("delayed.bad-type", covers=["delayed:bad-type"], exchange_type=KIND)
def delayed_type_has_to_be_another_exchange_type(s: Session) -> None:
    channel = s.channel()
    missing = "'x-delayed-type' must be an existing exchange type"
    itself = f"'{KIND}' can't be used for 'x-delayed-type'"
    for arguments, text in (
        ({}, missing),
        ({"x-delayed-type": 5}, missing),
        ({"x-delayed-type": KIND}, itself),
    ):
        channel.send("exchange.declare", exchange=s.name("x"), type=KIND, arguments=arguments)
        wanted = f"PRECONDITION_FAILED - Invalid argument, {text}"
        channel.expect_close(406, wanted, "exchange.declare")
        channel.reopen()
    arguments = {"x-delayed-type": "x-none"}
    channel.send("exchange.declare", exchange=s.name("x"), type=KIND, arguments=arguments)
    wanted = "COMMAND_INVALID - unknown exchange type 'x-none'"
    channel.connection.expect_close(503, wanted, "exchange.declare")


@scenario(
    "delayed.restart",
    covers=["delayed:restart"],
    restarts=[Restart.STOP, Restart.KILL],
    exchange_type=KIND,
)
def delays_and_their_times_outlast_a_restart(s: Session) -> None:
    channel = s.channel()
    exchange = declare(s, channel, durable=True)
    queue = bound(s, channel, exchange, durable=True)
    for body, delay in ((b"later", 900), (b"soon", 300), (b"not now", _LONG_MS)):
        publish(channel, exchange, body, delay, **PERSISTENT)
    began = time.monotonic()
    s.restart_broker()
    channel = s.channel()
    channel.consume(queue, no_ack=True)
    found = [delivery.body for delivery in channel.deliveries(2)]
    check_equal(found, [b"soon", b"later"], "what came")
    check(time.monotonic() - began >= 0.8, "came before it was due")

"""The exchange type x-recent-history: what is bound later gets the last messages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from conformance import fields
from conformance.channel import Channel
from conformance.failure import check_equal, eventually
from conformance.messages import PERSISTENT
from conformance.registry import Restart, deviation, scenario
from conformance.session import Session

KIND = "x-recent-history"


def declare(s: Session, channel: Channel, length: Any = None, **options: Any) -> str:
    """An exchange that keeps so many messages."""
    arguments = {} if length is None else {"x-recent-history-length": length}
    return s.exchange(channel, KIND, arguments=arguments, **options)


def publish(channel: Channel, exchange: str, bodies: Iterable[str], **options: Any) -> None:
    """Publishes these, each with itself as the routing key; returns when they are kept."""
    publisher = channel.connection.channel()
    publisher.call("confirm.select")
    count = 0
    for body in bodies:
        publisher.publish(body.encode(), exchange, body, **options)
        count += 1
    publisher.confirms(range(1, count + 1))
    publisher.call("channel.close")


def bound(s: Session, channel: Channel, exchange: str, key: str = "", **options: Any) -> str:
    """A new queue that is bound now."""
    queue = s.queue(channel, **options)
    channel.bind(queue, exchange, key)
    return queue


def got(channel: Channel, queue: str) -> list[str]:
    """The bodies in a queue, which are taken."""
    return [body.decode() for body in channel.get_all(queue)]


@scenario(
    "recent-history.kept",
    covers=["recent-history:kept", "recent-history:length"],
    exchange_type=KIND,
)
def queue_gets_the_last_messages_when_it_is_bound(s: Session) -> None:
    channel = s.channel()
    for length in (3, fields.long(3), fields.short(3), fields.byte(3)):
        exchange = declare(s, channel, length)
        publish(channel, exchange, "abcde")
        queue = bound(s, channel, exchange)
        check_equal(got(channel, queue), ["c", "d", "e"], "what was kept")
        publish(channel, exchange, "f")
        check_equal(got(channel, queue), ["f"], "what comes then")
        check_equal(got(channel, bound(s, channel, exchange)), ["d", "e", "f"], "later")


@scenario("recent-history.default", covers=["recent-history:length"], exchange_type=KIND)
def twenty_messages_are_kept(s: Session) -> None:
    channel = s.channel()
    exchange = declare(s, channel)
    publish(channel, exchange, map(str, range(25)))
    found = got(channel, bound(s, channel, exchange))
    check_equal(found, [str(number) for number in range(5, 25)], "what was kept")


@scenario("recent-history.fields", covers=["recent-history:kept"], exchange_type=KIND)
def kept_message_is_as_it_was_published(s: Session) -> None:
    channel = s.channel()
    exchange = declare(s, channel)
    properties = {"headers": {"a": fields.short(5)}, "message_id": "id", "delivery_mode": 2}
    publish(channel, exchange, ["body"], properties=properties)
    queue = bound(s, channel, exchange, "any")
    channel.settle(queue)
    found = channel.get(queue)
    check_equal(found and found.body, b"body", "body")
    names = ("exchange", "routing_key", "redelivered")
    check_equal(found and [found[name] for name in names], [exchange, "body", False], "delivery")
    assert found is not None
    assert found.content is not None
    check_equal(found.content.typed_headers["a"], fields.short(5), "header")
    check_equal(found.content.properties["message_id"], "id", "message_id")


@scenario("recent-history.no-store", covers=["recent-history:no-store"], exchange_type=KIND)
def message_that_is_not_to_be_kept(s: Session) -> None:
    channel = s.channel()
    exchange = declare(s, channel)
    early = bound(s, channel, exchange)
    values = {"a": True, "b": False, "c": "true", "d": 1, "e": fields.void()}
    for body, value in values.items():
        headers = {"x-recent-history-no-store": value}
        publish(channel, exchange, [body], properties={"headers": headers})
    check_equal(got(channel, early), list(values), "what a queue gets that is bound")
    check_equal(got(channel, bound(s, channel, exchange)), ["b", "c", "d", "e"], "what was kept")


@scenario("recent-history.bound-again", covers=["recent-history:bound-again"], exchange_type=KIND)
def second_binding_gives_all_of_it_again(s: Session) -> None:
    channel = s.channel()
    exchange = declare(s, channel)
    publish(channel, exchange, "ab")
    queue = bound(s, channel, exchange)
    channel.bind(queue, exchange, "")
    check_equal(got(channel, queue), ["a", "b"], "after the same binding twice")
    channel.bind(queue, exchange, "other")
    check_equal(got(channel, queue), ["a", "b"], "after another binding")
    publish(channel, exchange, "c")
    check_equal(got(channel, queue), ["c"], "one copy of what comes then")


@scenario("recent-history.unrouted", covers=["recent-history:unrouted"], exchange_type=KIND)
def message_that_no_queue_got_is_kept_and_returned(s: Session) -> None:
    channel = s.channel()
    exchange = declare(s, channel)
    channel.publish(b"a", exchange, "key", mandatory=True)
    channel.expect("basic.return", reply_code=312, exchange=exchange)
    check_equal(got(channel, bound(s, channel, exchange)), ["a"], "what was kept")
    fallback = s.exchange(channel, "fanout")
    rest = bound(s, channel, fallback)
    with_alternate = s.exchange(channel, KIND, arguments={"alternate-exchange": fallback})
    channel.publish(b"b", with_alternate, "key", mandatory=True)
    check_equal(got(channel, rest), ["b"], "what the alternate exchange got")
    check_equal(got(channel, bound(s, channel, with_alternate)), ["b"], "what was kept as well")


@scenario("recent-history.behind", covers=["recent-history:behind"], exchange_type=KIND)
def what_comes_through_another_exchange_is_kept(s: Session) -> None:
    channel = s.channel()
    exchange, outer = declare(s, channel), s.exchange(channel, "fanout")
    channel.call("exchange.bind", source=outer, destination=exchange)
    publish(channel, outer, "ab")
    check_equal(got(channel, bound(s, channel, exchange)), ["a", "b"], "what was kept")


@scenario(
    "recent-history.exchange",
    covers=["recent-history:exchange"],
    deviations=[deviation("rabbitmq", "the newest message comes first")],
    exchange_type=KIND,
)
def exchange_that_is_bound_routes_what_is_kept(s: Session) -> None:
    channel = s.channel()
    exchange, inner = declare(s, channel), s.exchange(channel, "direct")
    publish(channel, exchange, ["a", "b"])
    first, second = bound(s, channel, inner, "a"), bound(s, channel, inner, "b")
    channel.bind(second, inner, "a")
    channel.call("exchange.bind", source=exchange, destination=inner)
    check_equal(got(channel, first), ["a"], "messages with the first key")
    in_order = ["b", "a"] if s.deviates else ["a", "b"]
    check_equal(got(channel, second), in_order, "messages with either key")


@scenario(
    "recent-history.exchange-nowhere",
    covers=["recent-history:exchange-nowhere"],
    deviations=[deviation("rabbitmq", "541 if the exchange that is bound routes one nowhere")],
    exchange_type=KIND,
)
def what_the_bound_exchange_does_not_route_is_left_out(s: Session) -> None:
    channel = s.channel()
    exchange, inner = declare(s, channel), s.exchange(channel, "direct")
    publish(channel, exchange, ["a", "b"])
    queue = bound(s, channel, inner, "b")
    channel.send("exchange.bind", source=exchange, destination=inner)
    if s.deviates:
        channel.connection.expect_close(541, None)
    else:
        channel.expect("exchange.bind-ok")
        check_equal(got(channel, queue), ["b"], "messages")


@scenario(
    "recent-history.expiration",
    covers=["recent-history:expiration"],
    slow=True,
    exchange_type=KIND,
)
def expired_message_is_still_kept(s: Session) -> None:
    channel = s.channel()
    exchange = declare(s, channel)
    witness = bound(s, channel, exchange)
    publish(channel, exchange, ["a"], properties={"expiration": "1000"})
    eventually(lambda: channel.message_count(witness) == 0, "the message expires")
    check_equal(got(channel, bound(s, channel, exchange)), ["a"], "what was kept")


@scenario("recent-history.bad-length", covers=["recent-history:bad-length"], exchange_type=KIND)
def length_that_is_no_integer_from_one_on(s: Session) -> None:
    channel = s.channel()
    for value, shown in (
        (0, "0"),
        (-1, "-1"),
        (True, "true"),
        ("20", '<<"20">>'),
        (1.5, "1.5"),
        (fields.void(), "undefined"),
        (fields.unsignedint(5), "5"),
    ):
        arguments = {"x-recent-history-length": value}
        channel.send("exchange.declare", exchange=s.name("x"), type=KIND, arguments=arguments)
        text = f"PRECONDITION_FAILED - Invalid argument {shown}, 'x-recent-history-length' must be"
        channel.expect_close(406, f"{text} a positive integer", "exchange.declare")
        channel.reopen()


@scenario(
    "recent-history.restart",
    covers=["recent-history:restart"],
    deviations=[deviation("rabbitmq", "keeps messages in memory only, persistent or not")],
    restarts=[Restart.STOP, Restart.KILL],
    exchange_type=KIND,
)
def persistent_messages_of_a_durable_exchange_are_kept(s: Session) -> None:
    channel = s.channel()
    exchange = declare(s, channel, 3, durable=True)
    publish(channel, exchange, "abcd", properties=PERSISTENT)
    publish(channel, exchange, ["transient"])
    queue = bound(s, channel, exchange, durable=True)
    check_equal(got(channel, queue), ["c", "d", "transient"], "what is kept before")
    s.restart_broker()
    channel = s.channel()
    check_equal(got(channel, queue), [], "what a binding that comes back gives")
    found = got(channel, bound(s, channel, exchange))
    check_equal(found, [] if s.deviates else ["c", "d"], "what is kept after a restart")

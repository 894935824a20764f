"""Deduplication: what is published again is taken once. RabbitMQ's plugin has the exchange type."""

from __future__ import annotations

from typing import Any

from conformance import fields
from conformance.channel import Channel
from conformance.failure import check_equal, eventually
from conformance.messages import PERSISTENT
from conformance.registry import Restart, scenario
from conformance.session import Session

KIND = "x-message-deduplication"
ON = {KIND: True}


def exchange(s: Session, channel: Channel, *, durable: bool = False, **arguments: Any) -> str:
    """An exchange of the type, which remembers ten ids if nothing else is said."""
    table = {"x-cache-size": 10}
    table |= {name.replace("_", "-"): value for name, value in arguments.items()}
    return s.exchange(channel, KIND, durable=durable, arguments=table)


def bound(s: Session, channel: Channel, source: str, **options: Any) -> str:
    """A queue that gets what an exchange routes."""
    queue = s.queue(channel, **options)
    channel.bind(queue, source)
    return queue


def send(channel: Channel, exchange: str, body: str, key: Any = None, **options: Any) -> None:
    """Publishes a message that says so what it is."""
    properties = dict(options.pop("properties", {}))
    headers = dict(properties.pop("headers", {}))
    if key is not None:
        headers["x-deduplication-header"] = key
    properties["headers"] = headers
    channel.publish(body.encode(), exchange, properties=properties, **options)


def got(channel: Channel, queue: str) -> list[str]:
    """The bodies in a queue, which are taken."""
    return [body.decode() for body in channel.get_all(queue)]


@scenario("deduplication.exchange", covers=["deduplication:exchange"], exchange_type=KIND)
def exchange_routes_one_of_equal_messages_to_all(s: Session) -> None:
    channel = s.channel()
    source = exchange(s, channel)
    queues = [bound(s, channel, source) for _ in range(2)]
    for body, key in (("a", "1"), ("b", "1"), ("c", "2"), ("d", None), ("e", None), ("f", "1")):
        send(channel, source, body, key, routing_key="any")
    for queue in queues:
        check_equal(got(channel, queue), ["a", "c", "d", "e"], "bodies")


@scenario("deduplication.size", covers=["deduplication:size"], exchange_type=KIND)
def oldest_make_room(s: Session) -> None:
    channel = s.channel()
    source = exchange(s, channel, x_cache_size=2)
    queue = bound(s, channel, source)
    for key in "abcbca":
        send(channel, source, key, key)
    check_equal(got(channel, queue), ["a", "b", "c", "a"], "bodies")


@scenario("deduplication.ttl", covers=["deduplication:ttl"], exchange_type=KIND, slow=True)
def each_is_remembered_for_its_time(s: Session) -> None:
    channel = s.channel()
    source = exchange(s, channel, x_cache_ttl=400)
    queue = bound(s, channel, source)
    send(channel, source, "a", "1")
    send(channel, source, "long", "2", properties={"headers": {"x-cache-ttl": 60_000}})
    send(channel, source, "b", "1")
    check_equal(got(channel, queue), ["a", "long"], "bodies at once")

    def is_taken() -> bool:
        send(channel, source, "c", "1")
        return got(channel, queue) == ["c"]

    eventually(is_taken, "the id counts no more")
    send(channel, source, "d", "2")
    check_equal(got(channel, queue), [], "bodies of what is remembered for longer")


@scenario("deduplication.confirm", covers=["deduplication:confirm"], exchange_type=KIND)
def duplicates_are_confirmed_and_not_returned(s: Session) -> None:
    channel = s.channel()
    source = exchange(s, channel, durable=True)
    queue = bound(s, channel, source, durable=True)
    channel.call("confirm.select")
    for _ in range(3):
        send(channel, source, "a", "1", properties=PERSISTENT, mandatory=True)
    check_equal(channel.confirms({1, 2, 3}), ({1, 2, 3}, set()), "acks and nacks")
    check_equal(got(channel, queue), ["a"], "bodies")


@scenario("deduplication.refused", covers=["deduplication:refused"], exchange_type=KIND)
def what_nobody_took_is_not_remembered(s: Session) -> None:
    channel = s.channel()
    source = exchange(s, channel)
    channel.call("confirm.select")
    send(channel, source, "nowhere", "1", mandatory=True)
    channel.expect("basic.return", reply_code=312)
    channel.confirms({1})
    full = {"x-max-length": 1, "x-overflow": "reject-publish"}
    queue = bound(s, channel, source, arguments=full)
    send(channel, source, "fills", "2")
    send(channel, source, "too many", "1")
    check_equal(channel.confirms({2, 3}), ({2}, {3}), "acks and nacks")
    check_equal(got(channel, queue), ["fills"], "bodies")
    send(channel, source, "again", "1")
    check_equal(channel.confirms({4}), ({4}, set()), "acks and nacks")
    check_equal(got(channel, queue), ["again"], "bodies")


@scenario("deduplication.tx", covers=["deduplication:tx"], exchange_type=KIND)
def messages_of_a_transaction_count_from_its_commit_on(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    source = exchange(s, channel)
    queue = bound(s, channel, source)
    channel.call("tx.select")
    for body in ("a", "b"):
        send(channel, source, body, "1")
    channel.call("tx.rollback")
    for body in ("c", "d"):
        send(channel, source, body, "1")
    check_equal(got(other, queue), [], "bodies before the commit")
    channel.call("tx.commit")
    check_equal(got(other, queue), ["c"], "bodies")


@scenario("deduplication.queue", covers=["deduplication:queue"], exchange_type=KIND)
def queue_takes_no_message_like_one_in_it(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel, arguments=ON)
    for body in ("a", "b"):
        send(channel, "", body, "1", routing_key=queue)
    channel.settle(queue)
    check_equal(channel.message_count(queue), 1, "messages")
    channel.consume(queue)
    channel.expect_delivery(b"a", delivery_tag=1)
    send(channel, "", "c", "1", routing_key=queue)
    channel.settle(queue)
    channel.send("basic.ack", delivery_tag=1)
    send(channel, "", "d", "1", routing_key=queue)
    channel.expect_delivery(b"d", delivery_tag=2)


@scenario("deduplication.window", covers=["deduplication:window"], exchange_type=KIND)
def queue_remembers_ids_where_asked(s: Session) -> None:
    channel = s.channel()
    arguments = {**ON, "x-cache-size": 2, "x-deduplication-header": "message-id"}
    queue = s.queue(channel, arguments=arguments)
    for key in "aaba":
        channel.publish(key.encode(), "", queue, properties={"message_id": key})
    check_equal(got(channel, queue), ["a", "b"], "bodies")
    channel.publish(b"again", "", queue, properties={"message_id": "a"})
    check_equal(got(channel, queue), [], "bodies of what is gone and remembered")
    channel.call("queue.purge", queue=queue)
    channel.publish(b"purged", "", queue, properties={"message_id": "a"})
    check_equal(got(channel, queue), ["purged"], "bodies after a purge")


@scenario("deduplication.argument", covers=["deduplication:argument"], exchange_type=KIND)
def exchange_of_any_type_may_be_asked_for_it(s: Session) -> None:
    channel = s.channel()
    arguments = {**ON, "x-deduplication-header": "id"}
    source = s.exchange(channel, "topic", arguments=arguments)
    queue = s.queue(channel)
    channel.bind(queue, source, "a.*")
    for body in ("a", "b"):
        for key in ("b.c", "a.b"):
            properties = {"headers": {"id": fields.long(7)}}
            channel.publish(body.encode(), source, key, properties=properties)
    check_equal(got(channel, queue), ["a"], "bodies")


@scenario("deduplication.bad", covers=["deduplication:bad"], exchange_type=KIND)
def bad_arguments_are_refused(s: Session) -> None:
    channel = s.channel()
    whole = "must be an integer greater than 0"
    for arguments, text in (
        ({}, f"Missing or invalid argument, 'x-cache-size' {whole}"),
        ({"x-cache-size": 0}, f"Missing or invalid argument, 'x-cache-size' {whole}"),
        ({"x-cache-size": 1, "x-cache-ttl": 0}, f"Invalid argument, 'x-cache-ttl' {whole}"),
        (
            {"x-cache-size": 1, "x-cache-persistence": "ssd"},
            "Invalid argument, 'x-cache-persistence' must be either 'disk' or 'memory'",
        ),
    ):
        channel.send("exchange.declare", exchange=s.name("x"), type=KIND, arguments=arguments)
        channel.expect_close(406, f"PRECONDITION_FAILED - {text}", "exchange.declare")
        channel.reopen()
    name = s.name("q")
    channel.send("queue.declare", queue=name, arguments={KIND: "yes"})
    wrong = f"invalid arg '{KIND}' for queue '{name}' in vhost '/': {{unacceptable_type,longstr}}"
    channel.expect_close(406, f"PRECONDITION_FAILED - {wrong}", "queue.declare")


@scenario(
    "deduplication.restart",
    covers=["deduplication:restart"],
    restarts=[Restart.STOP, Restart.KILL],
    exchange_type=KIND,
)
def what_is_remembered_outlasts_a_restart(s: Session) -> None:
    channel = s.channel()
    source = exchange(s, channel, durable=True)
    queue = bound(s, channel, source, durable=True)
    own = s.queue(channel, durable=True, arguments=ON)
    channel.call("confirm.select")
    send(channel, source, "a", "1", properties=PERSISTENT)
    send(channel, "", "a", "1", routing_key=own, properties=PERSISTENT)
    channel.confirms({1, 2})
    check_equal(got(channel, queue), ["a"], "bodies before")
    s.restart_broker()
    channel = s.channel()
    for key in "12":
        send(channel, source, key, key, properties=PERSISTENT)
        send(channel, "", key, key, routing_key=own, properties=PERSISTENT)
    check_equal(got(channel, queue), ["2"], "bodies of the exchange")
    check_equal(got(channel, own), ["a", "2"], "bodies of the queue")

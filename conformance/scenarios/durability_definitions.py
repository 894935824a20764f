"""Which queues, exchanges and bindings are there after a restart, and with what."""

from __future__ import annotations

from typing import Any

from conformance import fields
from conformance.channel import Channel
from conformance.failure import check_equal
from conformance.messages import get_redelivered, lasting_queue, publish_numbers
from conformance.registry import Restart, deviation, scenario
from conformance.routing import check_routes, is_routed
from conformance.session import Session
from conformance.texts import inequivalent, no_exchange, no_queue

BOTH = (Restart.STOP, Restart.KILL)


def _restarted(s: Session) -> Channel:
    s.restart_broker()
    return s.channel()


def _expect_no_queue(channel: Channel, queue: str) -> None:
    channel.send("queue.declare", queue=queue, passive=True)
    channel.expect_close(404, no_queue(queue), "queue.declare")
    channel.reopen()


def _expect_no_exchange(channel: Channel, exchange: str) -> None:
    channel.send("exchange.declare", exchange=exchange, passive=True)
    channel.expect_close(404, no_exchange(exchange), "exchange.declare")
    channel.reopen()


@scenario("durability.queue", covers=["durability:queue"], restarts=BOTH)
def durable_queues_come_back_with_all_arguments(s: Session) -> None:
    channel = s.channel()
    sets: list[dict[str, Any]] = [
        {},
        {
            "x-message-ttl": 86_400_000,
            "x-expires": 86_400_000,
            "x-max-length": 1000,
            "x-max-length-bytes": fields.long(2**40),
            "x-overflow": "reject-publish",
            "x-dead-letter-exchange": "conformance.nowhere",
            "x-dead-letter-routing-key": "dead é",
            "x-single-active-consumer": True,
        },
        {"x-max-priority": fields.byte(5), "x-queue-type": "classic"},
        {"x-queue-mode": "lazy", "x-own": {"nested": [1, "two", fields.void(), 3.5]}},
    ]
    queues = [s.queue(channel, durable=True, arguments=arguments) for arguments in sets]
    named = channel.declare_queue("", durable=True)
    channel = _restarted(s)
    for queue, arguments in zip(queues, sets, strict=True):
        channel.call("queue.declare", queue=queue, durable=True, arguments=arguments)
    channel.call("queue.declare", queue=named, passive=True)


@scenario("durability.queue.unusual-names", covers=["durability:queue"], restarts=BOTH)
def names_of_any_letters_and_length_come_back(s: Session) -> None:
    channel = s.channel()
    letters = s.name("häse \U0001f407 'x' ☃\t")
    longest = s.name("q").ljust(255, "q")
    for queue in (letters, longest):
        channel.declare_queue(queue, durable=True)
        publish_numbers(channel, queue, 1, 2, persistent=True)
    channel = _restarted(s)
    for queue in (letters, longest):
        check_equal(channel.get_all(queue), [b"1", b"2"], "messages")


@scenario(
    "durability.queue.transient",
    covers=["durability:queue-transient", "durability:message-transient"],
    restarts=BOTH,
)
def transient_queues_are_gone_with_persistent_messages_too(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    channel.call("confirm.select")
    channel.publish(b"message", routing_key=queue, properties={"delivery_mode": 2})
    channel.confirms({1})
    channel = _restarted(s)
    _expect_no_queue(channel, queue)
    channel.declare_queue(queue, durable=True)
    check_equal(channel.message_count(queue), 0, "messages")


@scenario("durability.queue.exclusive", covers=["durability:queue-exclusive"], restarts=BOTH)
def exclusive_queues_are_gone_durable_or_not(s: Session) -> None:
    channel = s.channel()
    queues = [s.queue(channel, exclusive=True, durable=durable) for durable in (False, True)]
    channel = _restarted(s)
    for queue in queues:
        _expect_no_queue(channel, queue)


@scenario("durability.queue.auto-delete", covers=["durability:queue-auto-delete"], restarts=BOTH)
def durable_auto_delete_queues_come_back_if_nobody_consumed(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel, durable=True, auto_delete=True)
    channel = _restarted(s)
    channel.call("queue.declare", queue=queue, durable=True, auto_delete=True)
    channel.consume(queue, "last")
    channel.call("basic.cancel", consumer_tag="last")
    _expect_no_queue(channel, queue)


@scenario(
    "durability.queue.auto-delete-consumed",
    covers=["durability:queue-auto-delete-consumed"],
    restarts=[Restart.STOP],
)
def a_stop_takes_auto_delete_queues_with_their_last_consumers(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel, durable=True, auto_delete=True)
    channel.consume(queue)
    channel = _restarted(s)
    _expect_no_queue(channel, queue)


@scenario(
    "durability.queue.auto-delete-consumed",
    covers=["durability:queue-auto-delete-consumed"],
    restarts=[Restart.KILL],
)
def a_kill_leaves_auto_delete_queues_whose_consumers_it_takes(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel, durable=True, auto_delete=True)
    publish_numbers(channel, queue, 1, 1, persistent=True)
    channel.consume(queue)
    channel.expect_delivery(b"1")
    channel = _restarted(s)
    check_equal(get_redelivered(channel, queue), [(b"1", True)], "messages")


@scenario(
    "durability.queue.equivalence",
    covers=["durability:equivalence"],
    restarts=BOTH,
)
def redeclares_of_queues_are_compared_as_before(s: Session) -> None:
    channel = s.channel()
    arguments = {"x-message-ttl": 86_400_000, "x-max-length": fields.long(5)}
    queue = s.queue(channel, durable=True, arguments=arguments)
    channel = _restarted(s)
    title = f"queue '{queue}'"
    others: list[tuple[dict[str, Any], str]] = [
        ({"durable": False}, inequivalent("durable", title, "'false'", "'true'")),
        ({"auto_delete": True}, inequivalent("auto_delete", title, "'true'", "'false'")),
        (
            {"arguments": {"x-message-ttl": 86_400_000, "x-max-length": 6}},
            inequivalent("x-max-length", title, "'6'", "'5'"),
        ),
        (
            {"arguments": {"x-message-ttl": 86_400_000}},
            inequivalent("x-max-length", title, "none", "the value '5' of type 'long'"),
        ),
    ]
    for change, text in others:
        declared = {"durable": True, "arguments": arguments} | change
        channel.send("queue.declare", queue=queue, **declared)
        channel.expect_close(406, text, "queue.declare")
        channel.reopen()
    narrow = {"x-max-length": fields.short(5), "x-message-ttl": fields.long(86_400_000)}
    channel.call("queue.declare", queue=queue, durable=True, arguments=narrow)


@scenario("durability.exchange", covers=["durability:exchange"], restarts=BOTH)
def durable_exchanges_come_back_with_flags_and_arguments(s: Session) -> None:
    channel = s.channel()
    sets: list[tuple[str, dict[str, Any]]] = [
        ("direct", {}),
        ("fanout", {"internal": True}),
        ("topic", {"auto_delete": True}),
        ("headers", {"arguments": {"alternate-exchange": "amq.fanout", "own": [1, "two"]}}),
    ]
    exchanges = [s.exchange(channel, kind, durable=True, **flags) for kind, flags in sets]
    channel = _restarted(s)
    for exchange, (kind, flags) in zip(exchanges, sets, strict=True):
        channel.declare_exchange(exchange, kind, durable=True, **flags)
    channel.publish(b"message", exchanges[1])
    text = f"ACCESS_REFUSED - cannot publish to internal exchange '{exchanges[1]}' in vhost '/'"
    channel.expect_close(403, text, "basic.publish")


@scenario("durability.exchange.auto-delete", covers=["durability:exchange"], restarts=BOTH)
def durable_auto_delete_exchanges_go_with_their_last_binding(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "fanout", durable=True, auto_delete=True)
    queue = s.queue(channel, durable=True)
    channel.bind(queue, exchange)
    channel = _restarted(s)
    channel.declare_exchange(exchange, "fanout", durable=True, auto_delete=True)
    channel.call("queue.unbind", queue=queue, exchange=exchange)
    _expect_no_exchange(channel, exchange)


@scenario("durability.exchange.transient", covers=["durability:exchange-transient"], restarts=BOTH)
def transient_exchanges_are_gone(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "topic")
    channel = _restarted(s)
    _expect_no_exchange(channel, exchange)
    channel.declare_exchange(exchange, "fanout", durable=True)


@scenario(
    "durability.exchange.equivalence",
    covers=["durability:equivalence"],
    restarts=BOTH,
)
def redeclares_of_exchanges_are_compared_as_before(s: Session) -> None:
    channel = s.channel()
    arguments = {"alternate-exchange": "amq.fanout"}
    exchange = s.exchange(channel, "topic", durable=True, arguments=arguments)
    channel = _restarted(s)
    title = f"exchange '{exchange}'"
    others: list[tuple[dict[str, Any], str]] = [
        ({"type": "direct"}, inequivalent("type", title, "'direct'", "'topic'")),
        ({"durable": False}, inequivalent("durable", title, "'false'", "'true'")),
        ({"auto_delete": True}, inequivalent("auto_delete", title, "'true'", "'false'")),
        ({"internal": True}, inequivalent("internal", title, "'true'", "'false'")),
        (
            {"arguments": {}},
            inequivalent(
                "alternate-exchange",
                title,
                "none",
                "the value 'amq.fanout' of type 'longstr'",
            ),
        ),
    ]
    for change, text in others:
        declared = {"type": "topic", "durable": True, "arguments": arguments} | change
        channel.send("exchange.declare", exchange=exchange, **declared)
        channel.expect_close(406, text, "exchange.declare")
        channel.reopen()


@scenario("durability.binding", covers=["durability:binding"], restarts=BOTH)
def bindings_between_durable_ends_come_back(s: Session) -> None:
    channel = s.channel()
    topic = s.exchange(channel, "topic", durable=True)
    headers = s.exchange(channel, "headers", durable=True)
    one, two = (s.queue(channel, durable=True) for _ in range(2))
    own_key = s.name("key")
    for key in ("a.*", "#.é"):
        channel.bind(one, topic, key)
    channel.bind(two, topic, "#")
    channel.bind(two, "amq.direct", own_key)
    channel.bind(one, headers, arguments={"x-match": "all", "a": 1, "b": "two"})
    channel.bind(one, headers, arguments={"x-match": "any", "c": None})
    channel.bind(two, headers, "k", arguments={"x-match": "all", "a": 1})
    channel = _restarted(s)
    keys = ["a.b", "x.é", "b", "a.é"]
    check_routes(channel, topic, keys, {one: ["a.b", "x.é", "a.é"], two: keys})
    check_equal(is_routed(channel, "amq.direct", two, own_key), True, "routed by amq.direct")
    for table, to_one, to_two in (
        ({"a": 1, "b": "two"}, True, True),
        ({"a": 1}, False, True),
        ({"c": 7}, True, False),
        ({"b": "two"}, False, False),
    ):
        channel.publish(b"", headers, properties={"headers": table})
        for queue, wanted in ((one, to_one), (two, to_two)):
            check_equal(len(channel.get_all(queue)), int(wanted), f"copies by {table}")
    channel.call("queue.unbind", queue=one, exchange=topic, routing_key="a.*")
    check_routes(channel, topic, ["a.b"], {one: [], two: ["a.b"]})


@scenario(
    "durability.binding.transient-queue", covers=["durability:binding-transient"], restarts=BOTH
)
def bindings_of_transient_queues_are_gone(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "fanout", durable=True)
    lasting, transient = s.queue(channel, durable=True), s.queue(channel)
    for queue in (lasting, transient):
        channel.bind(queue, exchange)
    channel = _restarted(s)
    channel.declare_queue(transient)
    check_routes(channel, exchange, ["key"], {lasting: ["key"], transient: []})


@scenario(
    "durability.binding.transient-exchange", covers=["durability:binding-transient"], restarts=BOTH
)
def bindings_of_transient_exchanges_are_gone(s: Session) -> None:
    channel = s.channel()
    transient = s.exchange(channel, "fanout")
    lasting = s.exchange(channel, "fanout", durable=True)
    queue = s.queue(channel, durable=True)
    channel.bind(queue, transient)
    channel.call("exchange.bind", source=lasting, destination=transient)
    channel = _restarted(s)
    channel.declare_exchange(transient, "fanout")
    for exchange in (transient, lasting):
        check_routes(channel, exchange, ["key"], {queue: []})


@scenario(
    "durability.binding.exchanges",
    covers=["durability:exchange-to-exchange"],
    restarts=BOTH,
)
def bindings_between_exchanges_come_back(s: Session) -> None:
    channel = s.channel()
    topic = s.exchange(channel, "topic", durable=True)
    fan = s.exchange(channel, "fanout", durable=True)
    queue = s.queue(channel, durable=True)
    channel.call("exchange.bind", source=topic, destination=fan, routing_key="a.#")
    channel.call("exchange.bind", source=fan, destination=topic, routing_key="circle")
    channel.bind(queue, fan)
    channel = _restarted(s)
    check_routes(channel, topic, ["a.b", "b"], {queue: ["a.b"]})
    channel.call("exchange.unbind", source=topic, destination=fan, routing_key="a.#")
    check_routes(channel, topic, ["a.b"], {queue: []})


@scenario("durability.alternate", covers=["durability:alternate"], restarts=BOTH)
def alternate_exchanges_go_on_taking_what_is_not_routed(s: Session) -> None:
    channel = s.channel()
    alternate = s.exchange(channel, "fanout", durable=True)
    arguments = {"alternate-exchange": alternate}
    exchange = s.exchange(channel, "direct", durable=True, arguments=arguments)
    bound, rest = (s.queue(channel, durable=True) for _ in range(2))
    channel.bind(bound, exchange, "key")
    channel.bind(rest, alternate)
    channel = _restarted(s)
    check_routes(channel, exchange, ["key", "other"], {bound: ["key"], rest: ["other"]})


@scenario("durability.deleted", covers=["durability:deleted"], restarts=BOTH)
def what_was_deleted_or_unbound_stays_so(s: Session) -> None:
    channel = s.channel()
    exchange, deleted = (s.exchange(channel, "topic", durable=True) for _ in range(2))
    kept = s.queue(channel, durable=True)
    gone, again = (lasting_queue(s, channel, 2) for _ in range(2))
    for queue in (kept, gone, again):
        channel.bind(queue, exchange, "a")
    channel.bind(kept, exchange, "b")
    channel.bind(kept, deleted, "#")
    for queue in (gone, again):
        channel.call("queue.delete", queue=queue)
    channel.declare_queue(again, durable=True, arguments={"x-max-length": 7})
    channel.call("queue.unbind", queue=kept, exchange=exchange, routing_key="b")
    channel.call("exchange.delete", exchange=deleted)
    channel = _restarted(s)
    _expect_no_queue(channel, gone)
    _expect_no_exchange(channel, deleted)
    channel.declare_queue(again, durable=True, arguments={"x-max-length": 7})
    check_equal(channel.message_count(again), 0, "messages of the queue declared again")
    channel.declare_exchange(deleted, "topic", durable=True)
    check_routes(channel, exchange, ["a", "b"], {kept: ["a"], again: []})
    check_routes(channel, deleted, ["a"], {kept: []})


@scenario(
    "durability.declare-ok",
    covers=["durability:declare-ok"],
    restarts=[Restart.KILL],
    alone=True,
    deviations=[deviation("rabbitmq", "a kill undoes what was declared up to some 60 ms before")],
)
def what_was_declared_survives_a_kill_right_after_the_answer(s: Session) -> None:
    channel = s.channel()
    exchange, gone = (s.exchange(channel, "fanout", durable=True) for _ in range(2))
    queue = s.queue(channel, durable=True)
    channel.bind(queue, exchange)
    channel.call("exchange.delete", exchange=gone)
    channel = _restarted(s)
    if s.deviates:
        channel.declare_exchange(exchange, "fanout", durable=True)
        channel.declare_queue(queue, durable=True)
        return
    check_routes(channel, exchange, ["key"], {queue: ["key"]})
    _expect_no_exchange(channel, gone)

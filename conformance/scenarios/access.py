"""What nobody may do: reserved names, the default exchange, internal exchanges, and exclusive
queues of other connections."""

from typing import Any

from conformance.failure import check_equal
from conformance.registry import scenario
from conformance.routing import bound_queue, check_routes
from conformance.session import Session
from conformance.texts import DEFAULT_EXCHANGE, inequivalent, locked, no_exchange


@scenario("access.reserved-queue", covers=["error:reserved-prefix-queue"])
def new_queue_must_not_begin_with_amq(s: Session) -> None:
    channel = s.channel()
    for queue in ("amq.new", "amq.", "amq.gen-AAAAAAAAAAAAAAAAAAAAAA"):
        for fields in ({}, {"nowait": True}, {"arguments": {"x-max-length": -1}}):
            channel.send("queue.declare", queue=queue, **fields)
            text = f"ACCESS_REFUSED - queue name '{queue}' contains reserved prefix 'amq.*'"
            channel.expect_close(403, text, "queue.declare")
            channel.reopen()


@scenario("access.reserved-exchange", covers=["error:reserved-prefix-exchange"])
def new_exchange_must_not_begin_with_amq(s: Session) -> None:
    channel = s.channel()
    for exchange in ("amq.new", "amq."):
        for fields in ({}, {"nowait": True}, {"arguments": {"alternate-exchange": 1}}):
            channel.send("exchange.declare", exchange=exchange, type="direct", **fields)
            text = f"ACCESS_REFUSED - exchange name '{exchange}' contains reserved prefix 'amq.*'"
            channel.expect_close(403, text, "exchange.declare")
            channel.reopen()


@scenario("access.reserved-exactly", covers=["error:reserved-prefix-queue"])
def only_the_very_prefix_is_reserved(s: Session) -> None:
    channel = s.channel()
    for prefix in ("AMQ.", "amq", "amq-", " amq.", "xamq."):
        name = prefix + s.name("n")
        channel.declare_queue(name)
        channel.declare_exchange(name)


@scenario("access.default-exchange", covers=["error:default-exchange-declare"])
def default_exchange_cannot_be_declared(s: Session) -> None:
    channel = s.channel()
    for fields in ({}, {"durable": True}, {"passive": True}, {"nowait": True}):
        channel.send("exchange.declare", exchange="", type="direct", **fields)
        channel.expect_close(403, DEFAULT_EXCHANGE, "exchange.declare")
        channel.reopen()


@scenario("access.default-exchange-delete", covers=["error:default-exchange-delete"])
def default_exchange_cannot_be_deleted(s: Session) -> None:
    channel = s.channel()
    for fields in ({}, {"if_unused": True}, {"nowait": True}):
        channel.send("exchange.delete", exchange="", **fields)
        channel.expect_close(403, DEFAULT_EXCHANGE, "exchange.delete")
        channel.reopen()


@scenario(
    "access.default-exchange-bind",
    covers=["error:default-exchange-bind", "error:default-exchange-unbind"],
)
def default_exchange_cannot_be_bound(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel)
    queue = s.queue(channel)
    missing = s.name("missing")
    for method, fields in (
        ("queue.bind", {"queue": queue, "exchange": "", "routing_key": "key"}),
        ("queue.bind", {"queue": missing, "exchange": "", "nowait": True}),
        ("queue.unbind", {"queue": queue, "exchange": "", "routing_key": queue}),
        ("exchange.bind", {"source": "", "destination": exchange}),
        ("exchange.bind", {"source": exchange, "destination": ""}),
        ("exchange.bind", {"source": missing, "destination": "", "nowait": True}),
        ("exchange.unbind", {"source": "", "destination": exchange}),
        ("exchange.unbind", {"source": exchange, "destination": ""}),
    ):
        channel.send(method, **fields)
        channel.expect_close(403, DEFAULT_EXCHANGE, method)
        channel.reopen()
    check_routes(channel, "", [queue, "key"], {queue: [queue]})


@scenario("access.system-exchange-delete", covers=["error:delete-system-exchange"])
def exchanges_named_amq_cannot_be_deleted(s: Session) -> None:
    channel = s.channel()
    for exchange in ("amq.direct", "amq.topic", "amq.rabbitmq.trace", "amq.missing"):
        for fields in ({}, {"if_unused": True}, {"nowait": True}):
            channel.send("exchange.delete", exchange=exchange, **fields)
            text = f"deletion of system exchange '{exchange}' in vhost '/' not allowed"
            channel.expect_close(403, f"ACCESS_REFUSED - {text}", "exchange.delete")
            channel.reopen()
    channel.call("exchange.declare", exchange="amq.direct", passive=True)


@scenario("access.internal-exchange", covers=["error:publish-internal"])
def clients_cannot_publish_to_internal_exchanges(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "fanout", internal=True)
    queue = bound_queue(s, channel, exchange, "")
    for mandatory in (False, True):
        channel.publish(b"x", exchange, mandatory=mandatory)
        text = f"cannot publish to internal exchange '{exchange}' in vhost '/'"
        channel.expect_close(403, f"ACCESS_REFUSED - {text}", "basic.publish")
        channel.reopen()
    channel.publish(b"x", "amq.rabbitmq.trace", "key")
    text = "cannot publish to internal exchange 'amq.rabbitmq.trace' in vhost '/'"
    channel.expect_close(403, f"ACCESS_REFUSED - {text}", "basic.publish")
    check_equal(channel.reopen().get_all(queue), [], "messages")


@scenario("access.internal-exchange-bound", covers=["routing:exchange-to-exchange"])
def internal_exchange_is_reached_through_a_binding(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "direct", internal=True)
    outer = s.exchange(channel, "fanout")
    queue = bound_queue(s, channel, exchange, "a")
    channel.call("exchange.bind", source=outer, destination=exchange)
    check_routes(channel, outer, ["a", "b"], {queue: ["a"]})


EXCLUSIVE_USES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("declare", "queue.declare", {}),
    ("declare", "queue.declare", {"exclusive": True}),
    ("declare", "queue.declare", {"durable": True, "arguments": {"x-max-length": -1}}),
    ("declare", "queue.declare", {"nowait": True}),
    ("passive", "queue.declare", {"passive": True}),
    ("passive", "queue.declare", {"passive": True, "nowait": True}),
    ("bind", "queue.bind", {"exchange": "amq.direct", "routing_key": "k"}),
    ("bind", "queue.bind", {"exchange": "amq.direct", "routing_key": "k", "nowait": True}),
    ("purge", "queue.purge", {}),
    ("purge", "queue.purge", {"nowait": True}),
    ("delete", "queue.delete", {}),
    ("delete", "queue.delete", {"if_unused": True, "if_empty": True, "nowait": True}),
    ("get", "basic.get", {}),
    ("get", "basic.get", {"no_ack": True}),
    ("consume", "basic.consume", {}),
    ("consume", "basic.consume", {"exclusive": True, "nowait": True}),
)


def _refused_uses(s: Session, use: str) -> None:
    owner, other = s.channel(), s.channel()
    queue = s.queue(owner, exclusive=True)
    owner.publish(b"kept", "", queue)
    owner.settle(queue)
    for kind, method, fields in EXCLUSIVE_USES:
        if kind == use:
            other.send(method, queue=queue, **fields)
            other.expect_close(405, locked(queue), method)
            other.reopen()
    check_equal(owner.get_all(queue), [b"kept"], "messages")


@scenario("access.exclusive-declare", covers=["error:locked-redeclare"])
def exclusive_queue_cannot_be_declared_elsewhere(s: Session) -> None:
    _refused_uses(s, "declare")


@scenario("access.exclusive-passive", covers=["error:locked-passive"])
def exclusive_queue_cannot_be_looked_up_elsewhere(s: Session) -> None:
    _refused_uses(s, "passive")


@scenario("access.exclusive-bind", covers=["error:locked-bind"])
def exclusive_queue_cannot_be_bound_elsewhere(s: Session) -> None:
    _refused_uses(s, "bind")


@scenario("access.exclusive-purge", covers=["error:locked-purge"])
def exclusive_queue_cannot_be_purged_elsewhere(s: Session) -> None:
    _refused_uses(s, "purge")


@scenario("access.exclusive-delete", covers=["error:locked-delete"])
def exclusive_queue_cannot_be_deleted_elsewhere(s: Session) -> None:
    _refused_uses(s, "delete")


@scenario("access.exclusive-get", covers=["error:locked-get"])
def exclusive_queue_cannot_be_got_from_elsewhere(s: Session) -> None:
    _refused_uses(s, "get")


@scenario("access.exclusive-consume", covers=["error:locked-consume"])
def exclusive_queue_cannot_be_consumed_elsewhere(s: Session) -> None:
    _refused_uses(s, "consume")


@scenario("access.exclusive-unbind", covers=["error:locked-bind", "method:queue.unbind"])
def exclusive_queue_cannot_be_unbound_elsewhere(s: Session) -> None:
    owner, other = s.channel(), s.channel()
    exchange = s.exchange(owner, "direct")
    queue = s.queue(owner, exclusive=True)
    owner.bind(queue, exchange, "key")
    other.call("queue.unbind", queue=queue, exchange=exchange, routing_key="not bound")
    other.send("queue.unbind", queue=queue, exchange=exchange, routing_key="key")
    other.expect_close(405, locked(queue), "queue.unbind")
    check_routes(owner, exchange, ["key"], {queue: ["key"]})


@scenario(
    "access.exclusive-bind-order", covers=["error:locked-bind", "error:missing-exchange-bind"]
)
def missing_exchange_is_noticed_before_the_lock(s: Session) -> None:
    owner, other = s.channel(), s.channel()
    queue = s.queue(owner, exclusive=True)
    missing = s.name("x")
    other.send("queue.bind", queue=queue, exchange=missing)
    other.expect_close(404, no_exchange(missing), "queue.bind")


@scenario("access.exclusive-mismatch", covers=["error:locked-redeclare"])
def exclusiveness_must_be_as_it_was_declared(s: Session) -> None:
    channel = s.channel()
    shared, exclusive = s.queue(channel), s.queue(channel, exclusive=True)
    for queue, flag in ((shared, True), (exclusive, False)):
        channel.send("queue.declare", queue=queue, exclusive=flag)
        channel.expect_close(405, locked(queue), "queue.declare")
        channel.reopen()
        channel.declare_queue(queue, exclusive=not flag)
    channel.send("queue.declare", queue=exclusive, exclusive=True, auto_delete=True)
    text = inequivalent("auto_delete", f"queue '{exclusive}'", "'true'", "'false'")
    channel.expect_close(406, text, "queue.declare")


@scenario("access.exclusive-publish", covers=["rule:default-exchange-routes"])
def anyone_may_publish_to_an_exclusive_queue(s: Session) -> None:
    owner, other = s.channel(), s.channel()
    exchange = s.exchange(owner, "fanout")
    queue = s.queue(owner, exclusive=True)
    owner.bind(queue, exchange)
    owner.consume(queue, no_ack=True)
    other.publish(b"by name", "", queue)
    other.publish(b"by exchange", exchange)
    owner.expect_delivery(b"by name")
    owner.expect_delivery(b"by exchange")

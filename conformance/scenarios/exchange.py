"""exchange.declare and exchange.delete."""

from conformance.channel import Channel
from conformance.failure import check_equal
from conformance.registry import scenario
from conformance.session import Session
from conformance.texts import in_use, inequivalent, no_exchange

TYPES = ("direct", "fanout", "topic", "headers")


def exists(channel: Channel, exchange: str) -> None:
    """Passive declare succeeds."""
    channel.call("exchange.declare", exchange=exchange, passive=True)


def is_missing(channel: Channel, exchange: str) -> None:
    """Passive declare answers 404; the channel is open again afterwards."""
    channel.send("exchange.declare", exchange=exchange, passive=True)
    channel.expect_close(404, no_exchange(exchange), "exchange.declare")
    channel.reopen()


@scenario(
    "exchange.declare.types",
    covers=["method:exchange.declare", "method:exchange.declare-ok"],
)
def every_type_can_be_declared_and_declared_again(s: Session) -> None:
    channel = s.channel()
    for kind in TYPES:
        for flags in ({}, {"durable": True}, {"auto_delete": True}, {"internal": True}):
            exchange = s.exchange(channel, kind, **flags)
            channel.declare_exchange(exchange, kind, **flags)


@scenario(
    "exchange.declare.inequivalent",
    covers=[
        "error:inequivalent-exchange-type",
        "error:inequivalent-exchange-durable",
        "error:inequivalent-exchange-auto-delete",
        "error:inequivalent-exchange-internal",
    ],
)
def redeclare_with_other_fields_names_the_first_that_differs(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "direct")
    fields = {
        "type": ("fanout", "direct"),
        "durable": (True, "false"),
        "auto_delete": (True, "false"),
        "internal": (True, "false"),
    }
    given = {"type": "direct"} | {name: value for name, (value, _) in fields.items()}
    for name, (value, current) in fields.items():
        channel.send("exchange.declare", exchange=exchange, **given)
        shown = str(value).lower()
        text = inequivalent(name, f"exchange '{exchange}'", f"'{shown}'", f"'{current}'")
        channel.expect_close(406, text, "exchange.declare")
        channel.reopen()
        given[name] = "direct" if name == "type" else False
    channel.declare_exchange(exchange, "direct")


@scenario("exchange.predeclared.inequivalent", covers=["rule:amq-redeclared"])
def existing_amq_exchange_is_compared_like_any_other(s: Session) -> None:
    channel = s.channel()
    channel.declare_exchange("amq.direct", "direct", durable=True)
    channel.send("exchange.declare", exchange="amq.direct", type="direct")
    text = inequivalent("durable", "exchange 'amq.direct'", "'false'", "'true'")
    channel.expect_close(406, text, "exchange.declare")
    channel.reopen()


@scenario(
    "exchange.declare.unknown-type",
    covers=["error:unknown-exchange-type", "method:connection.close.server"],
)
def unknown_type_closes_the_connection(s: Session) -> None:
    for kind in ("x-no-such-type", "Direct", "direct "):
        channel = s.channel()
        channel.send("exchange.declare", exchange=s.name("x"), type=kind)
        text = f"COMMAND_INVALID - unknown exchange type '{kind}'"
        channel.connection.expect_close(503, text, "exchange.declare")


@scenario("exchange.declare.unknown-type-first", covers=["error:unknown-exchange-type"])
def unknown_type_is_noticed_before_the_name_is_looked_at(s: Session) -> None:
    existing = s.exchange(s.channel(), "direct")
    for exchange in (existing, "", "amq.new"):
        channel = s.channel()
        channel.send("exchange.declare", exchange=exchange, type="nope", nowait=True)
        text = "COMMAND_INVALID - unknown exchange type 'nope'"
        channel.connection.expect_close(503, text, "exchange.declare")


@scenario("exchange.declare.passive", covers=["rule:passive-ignores-fields"])
def passive_declare_ignores_every_other_field(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "topic")
    channel.call(
        "exchange.declare",
        exchange=exchange,
        passive=True,
        type="nonsense",
        durable=True,
        auto_delete=True,
        internal=True,
        arguments={"alternate-exchange": 5},
    )


@scenario(
    "exchange.declare.passive-missing",
    covers=["error:missing-exchange-passive", "method:channel.close.server"],
)
def passive_declare_of_a_missing_exchange(s: Session) -> None:
    channel = s.channel()
    is_missing(channel, s.name("x"))
    is_missing(channel, "amq.missing")
    is_missing(channel, "amq.fanout ")


@scenario("exchange.declare.nowait", covers=["nowait:exchange.declare"])
def declare_with_nowait_is_not_answered(s: Session) -> None:
    channel = s.channel()
    exchange = s.name("x")
    for _ in range(2):
        channel.send("exchange.declare", exchange=exchange, type="fanout", nowait=True)
    channel.send("exchange.declare", exchange=exchange, passive=True, nowait=True)
    channel.expect_silence()
    exists(channel, exchange)


@scenario("exchange.declare.nowait-error", covers=["rule:nowait-errors-close"])
def error_of_a_nowait_declare_closes_the_channel(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "direct")
    channel.send("exchange.declare", exchange=exchange, type="fanout", nowait=True)
    text = inequivalent("type", f"exchange '{exchange}'", "'fanout'", "'direct'")
    channel.expect_close(406, text, "exchange.declare")
    missing = s.name("x")
    channel.reopen().send("exchange.declare", exchange=missing, passive=True, nowait=True)
    channel.expect_close(404, no_exchange(missing), "exchange.declare")


@scenario("exchange.declare.unknown-arguments", covers=["rule:unknown-arguments-ignored"])
def unknown_arguments_may_differ(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "direct", arguments={"x-a": 1})
    for arguments in ({}, {"x-a": "one"}, {"x-b": [1, {"c": None}]}):
        channel.declare_exchange(exchange, "direct", arguments=arguments)


@scenario("exchange.declare.keeps-bindings", covers=["method:exchange.declare"])
def redeclare_changes_nothing(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "direct")
    queue = s.queue(channel)
    channel.bind(queue, exchange, "key")
    channel.declare_exchange(exchange, "direct")
    channel.publish(b"through", exchange, "key")
    check_equal(channel.get_all(queue), [b"through"], "messages")


@scenario("exchange.predeclared", covers=["routing:predeclared", "rule:amq-redeclared"])
def predeclared_exchanges_exist_and_are_durable(s: Session) -> None:
    channel = s.channel()
    for exchange, kind in (
        ("amq.direct", "direct"),
        ("amq.fanout", "fanout"),
        ("amq.topic", "topic"),
        ("amq.headers", "headers"),
        ("amq.match", "headers"),
    ):
        exists(channel, exchange)
        channel.declare_exchange(exchange, kind, durable=True)
    channel.declare_exchange("amq.rabbitmq.trace", "topic", durable=True, internal=True)


@scenario(
    "exchange.predeclared.routes",
    covers=["routing:predeclared", "routing:direct", "routing:topic", "routing:headers-all"],
)
def predeclared_exchanges_route_by_their_type(s: Session) -> None:
    channel = s.channel()
    word = s.name("word")
    for exchange, key, arguments in (
        ("amq.direct", word, {}),
        ("amq.fanout", "", {}),
        ("amq.topic", f"{word}.#", {}),
        ("amq.headers", "", {"word": word}),
        ("amq.match", "", {"word": word}),
    ):
        # Exclusive, so that the bindings end with the connection.
        queue = s.queue(channel, exclusive=True)
        channel.bind(queue, exchange, key, arguments=arguments)
        headers = {"headers": {"word": word}}
        channel.publish(word.encode(), exchange, word, properties=headers)
        channel.settle(queue)
        while (found := channel.get(queue)) is not None and found.body != word.encode():
            pass  # Another scenario may publish to amq.fanout at the same time.
        check_equal(found and found["exchange"], exchange, f"what {exchange} routed")
        channel.call("queue.delete", queue=queue)


@scenario(
    "exchange.delete",
    covers=["method:exchange.delete", "method:exchange.delete-ok"],
)
def deleted_exchange_is_gone_with_its_bindings(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "direct")
    queue = s.queue(channel)
    channel.bind(queue, exchange, "key")
    channel.call("exchange.delete", exchange=exchange)
    is_missing(channel, exchange)
    channel.declare_exchange(exchange, "direct")
    channel.publish(b"lost", exchange, "key")
    check_equal(channel.get_all(queue), [], "messages")


@scenario("exchange.delete.publish", covers=["error:missing-exchange-publish"])
def publish_to_a_deleted_exchange_closes_the_channel(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "fanout")
    channel.publish(b"to nobody", exchange)
    channel.call("exchange.delete", exchange=exchange)
    channel.publish(b"to nothing", exchange)
    channel.expect_close(404, no_exchange(exchange), "basic.publish")


@scenario("exchange.delete.missing", covers=["error:delete-missing-exchange"])
def deleting_a_missing_exchange_succeeds(s: Session) -> None:
    channel = s.channel()
    exchange = s.name("x")
    channel.call("exchange.delete", exchange=exchange)
    channel.call("exchange.delete", exchange=exchange, if_unused=True)


@scenario("exchange.delete.if-unused", covers=["error:exchange-in-use"])
def exchange_with_bindings_is_in_use(s: Session) -> None:
    channel = s.channel()
    exchange, other = s.exchange(channel, "direct"), s.exchange(channel, "fanout")
    queue = s.queue(channel)
    channel.bind(queue, exchange, "key")
    channel.send("exchange.delete", exchange=exchange, if_unused=True)
    channel.expect_close(406, in_use(f"exchange '{exchange}'"), "exchange.delete")
    channel.reopen()
    exists(channel, exchange)
    channel.call("queue.unbind", queue=queue, exchange=exchange, routing_key="key")
    channel.call("exchange.bind", source=exchange, destination=other)
    channel.send("exchange.delete", exchange=exchange, if_unused=True, nowait=True)
    channel.expect_close(406, in_use(f"exchange '{exchange}'"), "exchange.delete")
    channel.reopen()
    channel.call("exchange.unbind", source=exchange, destination=other)
    channel.call("exchange.delete", exchange=exchange, if_unused=True)
    is_missing(channel, exchange)


@scenario("exchange.delete.if-unused-destination", covers=["method:exchange.delete"])
def exchange_that_is_only_a_destination_is_unused(s: Session) -> None:
    channel = s.channel()
    source, destination = s.exchange(channel, "fanout"), s.exchange(channel, "fanout")
    channel.call("exchange.bind", source=source, destination=destination)
    channel.call("exchange.delete", exchange=destination, if_unused=True)
    is_missing(channel, destination)
    channel.publish(b"to nobody", source)
    channel.call("exchange.delete", exchange=source, if_unused=True)


@scenario("exchange.delete.nowait", covers=["nowait:exchange.delete"])
def delete_with_nowait_is_not_answered(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel)
    for _ in range(2):
        channel.send("exchange.delete", exchange=exchange, nowait=True)
    channel.expect_silence()
    is_missing(channel, exchange)


@scenario("exchange.auto-delete.unbind", covers=["rule:exchange-auto-delete"])
def auto_delete_exchange_goes_with_its_last_binding(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "direct", auto_delete=True)
    exists(channel, exchange)
    queue = s.queue(channel)
    for key in ("a", "b"):
        channel.bind(queue, exchange, key)
    channel.call("queue.unbind", queue=queue, exchange=exchange, routing_key="a")
    exists(channel, exchange)
    channel.call("queue.unbind", queue=queue, exchange=exchange, routing_key="never bound")
    exists(channel, exchange)
    channel.call("queue.unbind", queue=queue, exchange=exchange, routing_key="b")
    is_missing(channel, exchange)


@scenario("exchange.auto-delete.never-bound", covers=["rule:exchange-auto-delete"])
def auto_delete_exchange_that_was_never_bound_stays(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "fanout", auto_delete=True)
    queue = s.queue(channel)
    channel.call("queue.unbind", queue=queue, exchange=exchange)
    channel.publish(b"to nobody", exchange)
    exists(channel, exchange)


@scenario("exchange.auto-delete.queue-deleted", covers=["rule:exchange-auto-delete"])
def auto_delete_exchange_goes_with_the_queue_bound_to_it(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "fanout", auto_delete=True)
    first, second = s.queue(channel), s.queue(channel)
    channel.bind(first, exchange)
    channel.bind(second, exchange)
    channel.call("queue.delete", queue=first)
    exists(channel, exchange)
    channel.call("queue.delete", queue=second)
    is_missing(channel, exchange)


@scenario(
    "exchange.auto-delete.chain",
    covers=["rule:exchange-auto-delete", "routing:exchange-to-exchange"],
)
def auto_delete_exchanges_in_a_row_go_one_after_the_other(s: Session) -> None:
    channel = s.channel()
    first, second, third = (s.exchange(channel, "fanout", auto_delete=True) for _ in range(3))
    queue = s.queue(channel)
    channel.call("exchange.bind", source=first, destination=second)
    channel.call("exchange.bind", source=second, destination=third)
    channel.bind(queue, third)
    channel.call("queue.delete", queue=queue)
    for exchange in (third, second, first):
        is_missing(channel, exchange)

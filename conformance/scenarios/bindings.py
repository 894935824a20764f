"""queue.bind, queue.unbind, exchange.bind and exchange.unbind."""

import itertools

from conformance.channel import Channel
from conformance.failure import check_equal
from conformance.registry import scenario
from conformance.routing import bound_queue, check_routes
from conformance.session import Session
from conformance.texts import no_exchange, no_queue


def link(channel: Channel, source: str, destination: str, key: str = "") -> None:
    """exchange.bind."""
    channel.call("exchange.bind", source=source, destination=destination, routing_key=key)


def unlink(channel: Channel, source: str, destination: str, key: str = "") -> None:
    """exchange.unbind."""
    channel.call("exchange.unbind", source=source, destination=destination, routing_key=key)


@scenario(
    "bindings.queue",
    covers=[
        "method:queue.bind",
        "method:queue.bind-ok",
        "method:queue.unbind",
        "method:queue.unbind-ok",
    ],
)
def messages_flow_from_bind_ok_to_unbind_ok(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "direct")
    queue = s.queue(channel)
    check_routes(channel, exchange, ["key"], {queue: []})
    for _ in range(2):
        channel.bind(queue, exchange, "key")
    check_routes(channel, exchange, ["key"], {queue: ["key"]})
    channel.call("queue.unbind", queue=queue, exchange=exchange, routing_key="key")
    check_routes(channel, exchange, ["key"], {queue: []})


@scenario("bindings.unbind-missing", covers=["error:unbind-missing-binding"])
def unbinding_what_is_not_bound_succeeds(s: Session) -> None:
    channel = s.channel()
    exchange, other = s.exchange(channel, "direct"), s.exchange(channel, "direct")
    queue = bound_queue(s, channel, exchange, "key")
    missing = s.name("missing")
    for fields in (
        {"queue": queue, "exchange": exchange, "routing_key": "other"},
        {"queue": queue, "exchange": exchange, "routing_key": "key", "arguments": {"a": 1}},
        {"queue": queue, "exchange": other, "routing_key": "key"},
        {"queue": queue, "exchange": missing},
        {"queue": missing, "exchange": exchange, "routing_key": "key"},
        {"queue": missing, "exchange": missing},
    ):
        channel.call("queue.unbind", **fields)
    for source, destination in ((exchange, other), (exchange, missing), (missing, other)):
        unlink(channel, source, destination, "key")
    check_routes(channel, exchange, ["key"], {queue: ["key"]})


@scenario(
    "bindings.missing-queue", covers=["error:missing-queue-bind", "error:missing-exchange-bind"]
)
def binding_what_does_not_exist(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "direct")
    queue = s.queue(channel)
    gone_queue, gone_exchange = s.name("q"), s.name("x")
    for nowait in (False, True):
        for bound, source, text in (
            (gone_queue, exchange, no_queue(gone_queue)),
            (queue, gone_exchange, no_exchange(gone_exchange)),
            (gone_queue, gone_exchange, no_exchange(gone_exchange)),
        ):
            channel.send("queue.bind", queue=bound, exchange=source, nowait=nowait)
            channel.expect_close(404, text, "queue.bind")
            channel.reopen()


@scenario("bindings.missing-exchange", covers=["error:missing-exchange-bind"])
def binding_exchanges_that_do_not_exist(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "direct")
    first, second = s.name("x"), s.name("x")
    for source, destination, named in (
        (first, exchange, first),
        (exchange, second, second),
        (first, second, first),
    ):
        channel.send("exchange.bind", source=source, destination=destination)
        channel.expect_close(404, no_exchange(named), "exchange.bind")
        channel.reopen()


@scenario("bindings.empty-names", covers=["rule:bind-empty-key", "rule:last-queue-remembered"])
def empty_queue_and_key_mean_the_queue_twice(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "direct")
    queue = s.queue(channel)
    channel.bind("", exchange, "")
    check_routes(channel, exchange, ["", queue], {queue: [queue]})
    channel.bind("", exchange, "key")
    check_routes(channel, exchange, ["", "key"], {queue: ["key"]})
    channel.bind(queue, exchange, "")
    check_routes(channel, exchange, ["", "key", queue], {queue: ["", "key", queue]})
    channel.call("queue.unbind", queue="", exchange=exchange, routing_key="")
    check_routes(channel, exchange, ["", "key", queue], {queue: ["", "key"]})
    channel.call("queue.unbind", queue="", exchange=exchange, routing_key="key")
    check_routes(channel, exchange, ["", "key", queue], {queue: [""]})


@scenario("bindings.queue-nowait", covers=["nowait:queue.bind"])
def bind_with_nowait_is_not_answered(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "direct")
    queue = s.queue(channel)
    for _ in range(2):
        channel.send("queue.bind", queue=queue, exchange=exchange, routing_key="key", nowait=True)
    channel.expect_silence(queue)
    check_routes(channel, exchange, ["key"], {queue: ["key"]})


@scenario("bindings.exchange-nowait", covers=["nowait:exchange.bind", "nowait:exchange.unbind"])
def exchange_bind_and_unbind_with_nowait_are_not_answered(s: Session) -> None:
    channel = s.channel()
    source, destination = s.exchange(channel, "fanout"), s.exchange(channel, "fanout")
    queue = bound_queue(s, channel, destination, "")
    fields = {"source": source, "destination": destination, "nowait": True}
    channel.send("exchange.bind", **fields)
    channel.expect_silence()
    check_routes(channel, source, ["key"], {queue: ["key"]})
    for _ in range(2):
        channel.send("exchange.unbind", **fields)
    channel.expect_silence()
    check_routes(channel, source, ["key"], {queue: []})


@scenario("bindings.queue-deleted", covers=["method:queue.delete"])
def deleting_a_queue_ends_its_bindings(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "topic")
    queue = bound_queue(s, channel, exchange, "a", "#")
    stays = bound_queue(s, channel, exchange, "a")
    channel.call("queue.delete", queue=queue)
    channel.declare_queue(queue)
    check_routes(channel, exchange, ["a"], {queue: [], stays: ["a"]})


@scenario(
    "bindings.exchange",
    covers=[
        "routing:exchange-to-exchange",
        "method:exchange.bind",
        "method:exchange.bind-ok",
        "method:exchange.unbind",
        "method:exchange.unbind-ok",
    ],
)
def exchange_routes_to_an_exchange_by_its_own_type(s: Session) -> None:
    channel = s.channel()
    source, destination = s.exchange(channel, "topic"), s.exchange(channel, "direct")
    queue = bound_queue(s, channel, destination, "a.b", "c")
    for _ in range(2):
        link(channel, source, destination, "a.*")
    check_routes(channel, source, ["a.b", "a.c", "c"], {queue: ["a.b"]})
    link(channel, source, destination, "#")
    check_routes(channel, source, ["a.b", "a.c", "c"], {queue: ["a.b", "c"]})
    unlink(channel, source, destination, "#")
    check_routes(channel, source, ["a.b", "c"], {queue: ["a.b"]})
    unlink(channel, source, destination, "a.*")
    check_routes(channel, source, ["a.b", "c"], {queue: []})
    check_routes(channel, destination, ["a.b", "c"], {queue: ["a.b", "c"]})


@scenario("bindings.exchange-key", covers=["routing:exchange-to-exchange"])
def key_and_exchange_name_stay_as_published(s: Session) -> None:
    channel = s.channel()
    names = [s.exchange(channel, "fanout") for _ in range(3)]
    for source, destination in itertools.pairwise(names):
        link(channel, source, destination, "another key")
    queue = bound_queue(s, channel, names[-1], "")
    channel.publish(b"x", names[0], "key")
    channel.settle(queue)
    found = channel.get(queue)
    check_equal(found and found["exchange"], names[0], "exchange")
    check_equal(found and found["routing_key"], "key", "routing key")


@scenario("bindings.exchange-headers", covers=["routing:exchange-to-exchange"])
def exchanges_can_be_bound_by_headers(s: Session) -> None:
    channel = s.channel()
    source, destination = s.exchange(channel, "headers"), s.exchange(channel, "fanout")
    queue = bound_queue(s, channel, destination, "")
    arguments = {"a": 1, "x-match": "any"}
    channel.call("exchange.bind", source=source, destination=destination, arguments=arguments)
    for headers in ({"a": 1}, {"a": 2}, {}):
        channel.publish(b"%d" % headers.get("a", 0), source, properties={"headers": headers})
    check_equal(channel.get_all(queue), [b"1"], "messages")


@scenario("bindings.circle", covers=["routing:exchange-to-exchange", "rule:one-copy-per-queue"])
def exchanges_bound_in_a_circle_route_each_message_once(s: Session) -> None:
    channel = s.channel()
    names = [s.exchange(channel, "fanout") for _ in range(4)]
    queues = [bound_queue(s, channel, exchange, "") for exchange in names]
    for source, destination in zip(names, names[1:] + names[:1], strict=True):
        link(channel, source, destination)
    for exchange in names:
        check_routes(channel, exchange, [exchange], {queue: [exchange] for queue in queues})


@scenario("bindings.self", covers=["routing:exchange-to-exchange"])
def exchange_can_be_bound_to_itself(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "fanout")
    queue = bound_queue(s, channel, exchange, "")
    link(channel, exchange, exchange)
    check_routes(channel, exchange, ["a"], {queue: ["a"]})
    channel.call("exchange.delete", exchange=exchange)
    channel.send("exchange.declare", exchange=exchange, passive=True)
    channel.expect_close(404, no_exchange(exchange), "exchange.declare")


@scenario("bindings.many-ways", covers=["routing:exchange-to-exchange", "rule:one-copy-per-queue"])
def queue_reached_in_many_ways_gets_one_copy(s: Session) -> None:
    channel = s.channel()
    top, left, right, bottom = (s.exchange(channel, "fanout") for _ in range(4))
    queue = bound_queue(s, channel, bottom, "")
    channel.bind(queue, top)
    channel.bind(queue, left)
    for source, destination in ((top, left), (top, right), (left, bottom), (right, bottom)):
        link(channel, source, destination)
    check_routes(channel, top, ["a"], {queue: ["a"]})
    check_routes(channel, right, ["b"], {queue: ["b"]})


@scenario("bindings.exchange-deleted", covers=["routing:exchange-to-exchange"])
def deleting_an_exchange_ends_its_bindings_both_ways(s: Session) -> None:
    channel = s.channel()
    top, middle, bottom = (s.exchange(channel, "fanout") for _ in range(3))
    link(channel, top, middle)
    link(channel, middle, bottom)
    queue = bound_queue(s, channel, bottom, "")
    check_routes(channel, top, ["a"], {queue: ["a"]})
    channel.call("exchange.delete", exchange=middle)
    channel.declare_exchange(middle, "fanout")
    check_routes(channel, top, ["b"], {queue: []})
    check_routes(channel, middle, ["c"], {queue: []})
    link(channel, top, bottom)
    check_routes(channel, top, ["d"], {queue: ["d"]})


@scenario("bindings.other-connection", covers=["method:queue.bind"])
def binding_holds_for_every_connection_at_once(s: Session) -> None:
    binder, publisher = s.channel(), s.channel()
    exchange = s.exchange(binder, "topic")
    for number in range(20):
        queue = bound_queue(s, binder, exchange, f"k{number}.#")
        check_routes(publisher, exchange, [f"k{number}.x"], {queue: [f"k{number}.x"]})
        fields = {"queue": queue, "exchange": exchange, "routing_key": f"k{number}.#"}
        binder.call("queue.unbind", **fields)
        check_routes(publisher, exchange, [f"k{number}.x"], {queue: []})

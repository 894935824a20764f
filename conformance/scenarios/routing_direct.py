"""Direct exchanges, and the default exchange, which is one."""

from conformance.failure import check_equal
from conformance.registry import scenario
from conformance.routing import bound_queue, check_routes
from conformance.session import Session


@scenario("direct.equal-key", covers=["routing:direct", "method:queue.bind"])
def messages_go_where_the_binding_key_is_equal(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "direct")
    one = bound_queue(s, channel, exchange, "a")
    same = bound_queue(s, channel, exchange, "a")
    two = bound_queue(s, channel, exchange, "a", "b", "")
    keys = ["a", "b", "", "A", "a ", "a.b", "c"]
    check_routes(channel, exchange, keys, {one: ["a"], same: ["a"], two: ["a", "b", ""]})


@scenario("direct.no-wildcards", covers=["routing:direct"])
def stars_and_hashes_are_ordinary_characters(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "direct")
    queue = bound_queue(s, channel, exchange, "*", "#", "a.*")
    check_routes(channel, exchange, ["a", "*", "#", "a.b", "a.*"], {queue: ["*", "#", "a.*"]})


@scenario("direct.delivery-fields", covers=["routing:direct", "method:basic.get-ok"])
def delivery_names_the_exchange_and_the_key_published_with(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "direct")
    queue = bound_queue(s, channel, exchange, "é ü")
    channel.publish(b"x", exchange, "é ü")
    channel.settle(queue)
    found = channel.get(queue)
    check_equal(found and found["exchange"], exchange, "exchange")
    check_equal(found and found["routing_key"], "é ü", "routing_key")


@scenario("direct.one-copy", covers=["rule:one-copy-per-queue"])
def binding_twice_is_binding_once(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "direct")
    queue = bound_queue(s, channel, exchange, "a", "a")
    channel.bind(queue, exchange, "a", arguments={"x-other": 1})
    check_routes(channel, exchange, ["a"], {queue: ["a"]})
    channel.call("queue.unbind", queue=queue, exchange=exchange, routing_key="a")
    check_routes(channel, exchange, ["a"], {queue: ["a"]})
    channel.call(
        "queue.unbind",
        queue=queue,
        exchange=exchange,
        routing_key="a",
        arguments={"x-other": 1},
    )
    check_routes(channel, exchange, ["a"], {queue: []})


@scenario("direct.default-exchange", covers=["rule:default-exchange-routes"])
def default_exchange_reaches_every_queue_by_its_name(s: Session) -> None:
    channel = s.channel()
    queues = [
        s.queue(channel),
        s.queue(channel, exclusive=True),
        channel.declare_queue("", exclusive=True),
    ]
    for queue in queues:
        check_routes(channel, "", [queue, queue.upper(), s.name("q")], {queue: [queue]})
    for queue in queues:
        channel.publish(b"x", "", queue)
        channel.settle(queue)
        found = channel.get(queue)
        check_equal(found and found["exchange"], "", "exchange")


@scenario("direct.many", covers=["routing:direct"])
def one_message_goes_to_many_queues(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "direct")
    queues = [bound_queue(s, channel, exchange, "all", str(number)) for number in range(20)]
    expected = {queue: ["all", str(number)] for number, queue in enumerate(queues)}
    check_routes(channel, exchange, ["all", *map(str, range(20))], expected)

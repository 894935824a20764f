"""Alternate exchanges: where messages go that an exchange could not route."""

from conformance.channel import Channel
from conformance.failure import check_equal
from conformance.registry import scenario
from conformance.routing import bound_queue, check_routes
from conformance.session import Session
from conformance.texts import cut


def with_alternate(s: Session, channel: Channel, alternate: str, kind: str = "direct") -> str:
    """A new exchange with this alternate."""
    return s.exchange(channel, kind, arguments={"alternate-exchange": alternate})


@scenario("alternate.unrouted", covers=["routing:alternate"])
def alternate_exchange_takes_what_is_not_routed(s: Session) -> None:
    channel = s.channel()
    alternate = s.exchange(channel, "fanout")
    rest = bound_queue(s, channel, alternate, "")
    for kind in ("direct", "topic"):
        exchange = with_alternate(s, channel, alternate, kind)
        queue = bound_queue(s, channel, exchange, "a")
        check_routes(channel, exchange, ["a", "b"], {queue: ["a"], rest: ["b"]})
    empty = with_alternate(s, channel, alternate, "fanout")
    check_routes(channel, empty, ["a"], {rest: ["a"]})


@scenario("alternate.delivery-fields", covers=["routing:alternate"])
def delivery_names_the_exchange_published_to(s: Session) -> None:
    channel = s.channel()
    alternate = s.exchange(channel, "fanout")
    exchange = with_alternate(s, channel, alternate)
    rest = bound_queue(s, channel, alternate, "")
    channel.publish(b"x", exchange, "key")
    channel.settle(rest)
    found = channel.get(rest)
    check_equal(found and found["exchange"], exchange, "exchange")
    check_equal(found and found["routing_key"], "key", "routing_key")


@scenario("alternate.keys", covers=["routing:alternate"])
def alternate_exchange_routes_by_its_own_type(s: Session) -> None:
    channel = s.channel()
    alternate = s.exchange(channel, "topic")
    exchange = with_alternate(s, channel, alternate)
    rest = bound_queue(s, channel, alternate, "a.*")
    check_routes(channel, exchange, ["a.b", "b", "a.c"], {rest: ["a.b", "a.c"]})


@scenario("alternate.chain", covers=["routing:alternate"])
def alternates_follow_one_another_and_may_form_a_circle(s: Session) -> None:
    channel = s.channel()
    names = [s.name("x") for _ in range(3)]
    for exchange, alternate in zip(names, names[1:] + names[:1], strict=True):
        channel.declare_exchange(exchange, arguments={"alternate-exchange": alternate})
    queues = [bound_queue(s, channel, exchange, str(n)) for n, exchange in enumerate(names)]
    expected = {queue: [str(number)] for number, queue in enumerate(queues)}
    for exchange in names:
        check_routes(channel, exchange, ["0", "1", "2", "3"], expected)


@scenario("alternate.missing", covers=["routing:alternate"])
def alternate_exchange_need_not_exist(s: Session) -> None:
    channel = s.channel()
    alternate = s.name("later")
    exchange = with_alternate(s, channel, alternate)
    channel.publish(b"lost", exchange, "key")
    channel.publish(b"back", exchange, "key", mandatory=True)
    returned = channel.expect("basic.return", reply_code=312, exchange=exchange)
    check_equal(returned.body, b"back", "returned body")
    channel.declare_exchange(alternate, "fanout")
    rest = bound_queue(s, channel, alternate, "")
    check_routes(channel, exchange, ["kept"], {rest: ["kept"]})
    channel.call("exchange.delete", exchange=alternate)
    channel.publish(b"lost", exchange, "key")
    channel.expect_silence(rest)


@scenario("alternate.mandatory", covers=["rule:mandatory-alternate"])
def message_is_not_returned_if_the_alternate_routed_it(s: Session) -> None:
    channel = s.channel()
    alternate = s.exchange(channel, "direct")
    exchange = with_alternate(s, channel, alternate)
    rest = bound_queue(s, channel, alternate, "key")
    channel.publish(b"routed", exchange, "key", mandatory=True)
    check_equal(channel.get_all(rest), [b"routed"], "messages")
    channel.publish(b"not routed", exchange, "other", mandatory=True)
    channel.expect("basic.return", exchange=exchange, routing_key="other")
    channel.expect_silence(rest)


@scenario("alternate.default-exchange", covers=["routing:alternate"])
def default_exchange_as_the_alternate_routes_nothing(s: Session) -> None:
    channel = s.channel()
    exchange = with_alternate(s, channel, "")
    queue = s.queue(channel)
    channel.publish(b"x", exchange, queue, mandatory=True)
    channel.expect("basic.return", exchange=exchange, routing_key=queue)
    check_equal(channel.get_all(queue), [], "messages")


@scenario("alternate.internal", covers=["routing:alternate"])
def internal_exchange_can_be_the_alternate(s: Session) -> None:
    channel = s.channel()
    alternate = s.exchange(channel, "fanout", internal=True)
    exchange = with_alternate(s, channel, alternate)
    rest = bound_queue(s, channel, alternate, "")
    check_routes(channel, exchange, ["a"], {rest: ["a"]})


@scenario(
    "alternate.after-exchange-binding",
    covers=["routing:alternate", "routing:exchange-to-exchange"],
)
def exchange_bound_behind_counts_as_routed_even_if_it_routes_nowhere(s: Session) -> None:
    channel = s.channel()
    fallback, behind = s.exchange(channel, "fanout"), s.exchange(channel, "fanout")
    rest = bound_queue(s, channel, fallback, "")
    exchange = with_alternate(s, channel, fallback)
    dead_end = s.exchange(channel, "direct")
    channel.call("exchange.bind", source=exchange, destination=dead_end, routing_key="a")
    check_routes(channel, exchange, ["a", "b"], {rest: ["b"]})
    last = bound_queue(s, channel, behind, "")
    inner = with_alternate(s, channel, behind)
    channel.call("exchange.bind", source=exchange, destination=inner, routing_key="c")
    check_routes(channel, exchange, ["c"], {rest: [], last: ["c"]})


@scenario("alternate.one-copy", covers=["routing:alternate", "rule:one-copy-per-queue"])
def queue_reached_directly_and_by_an_alternate_gets_one_copy(s: Session) -> None:
    channel = s.channel()
    first = s.exchange(channel, "fanout")
    fallback = s.exchange(channel, "fanout")
    unrouted = with_alternate(s, channel, fallback)
    queue = bound_queue(s, channel, first, "")
    channel.bind(queue, fallback)
    channel.call("exchange.bind", source=first, destination=unrouted)
    check_routes(channel, first, ["a"], {queue: ["a"]})


@scenario("alternate.bad-type", covers=["error:invalid-argument-not-string"])
def alternate_exchange_that_is_no_string(s: Session) -> None:
    channel = s.channel()
    for value, kind in ((5, "signedint"), (True, "bool"), (["a"], "array"), (None, "void")):
        exchange = s.name("x")
        arguments = {"alternate-exchange": value}
        channel.send("exchange.declare", exchange=exchange, type="direct", arguments=arguments)
        text = (
            f"PRECONDITION_FAILED - invalid type '{kind}' for arg 'alternate-exchange'"
            f" in exchange '{exchange}' in vhost '/'"
        )
        channel.expect_close(406, cut(text), "exchange.declare")
        channel.reopen().send("exchange.declare", exchange=exchange, passive=True)
        channel.expect_close(404, None, "exchange.declare")
        channel.reopen()

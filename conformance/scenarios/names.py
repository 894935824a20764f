"""Names of queues and exchanges: made by the server, of any UTF-8, of 255 octets, on one line."""

import re

from conformance.failure import check, check_equal
from conformance.fields import octets
from conformance.registry import scenario
from conformance.routing import check_routes
from conformance.session import Session
from conformance.texts import DEFAULT_EXCHANGE, cut, locked, no_exchange, no_queue

GENERATED = re.compile(r"amq\.gen-[A-Za-z0-9_-]{22}")
UNUSUAL = ("é", "a=b", "ключ", "兎🐇", " a b ", "'\"\\", "a/b?c#d%20", "\t\x01", "e\u0301", "%s~p")


@scenario("names.server-named", covers=["rule:queue-name-generated"])
def generated_names_have_22_characters_and_are_never_the_same(s: Session) -> None:
    channel = s.channel()
    names = set()
    for flags in ({}, {"exclusive": True}, {"auto_delete": True}, {"durable": True}):
        for _ in range(5):
            reply = channel.call("queue.declare", queue="", **flags)
            name = reply["queue"]
            check(GENERATED.fullmatch(name) is not None, f"unexpected generated name {name!r}")
            check_equal(reply["message_count"], 0, "message_count")
            names.add(name)
    check_equal(len(names), 20, "different names")


@scenario("names.server-named-used", covers=["rule:queue-name-generated"])
def generated_name_is_used_like_any_other(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    queue = channel.declare_queue("", auto_delete=True)
    for user in (channel, other):
        user.settle(queue)
        check_routes(user, "", [queue], {queue: [queue]})
    exclusive = channel.declare_queue("", exclusive=True)
    other.send("queue.declare", queue=exclusive, passive=True)
    other.expect_close(405, locked(exclusive), "queue.declare")


@scenario(
    "names.server-named-redeclared",
    covers=["error:reserved-prefix-queue", "rule:amq-redeclared"],
)
def generated_name_can_be_looked_up_but_not_declared_again(s: Session) -> None:
    channel = s.channel()
    queue = channel.declare_queue("", exclusive=True)
    channel.send("queue.declare", queue=queue, exclusive=True)
    text = f"ACCESS_REFUSED - queue name '{queue}' contains reserved prefix 'amq.*'"
    channel.expect_close(403, text, "queue.declare")
    channel.reopen().settle(queue)


@scenario(
    "names.server-named-nowait", covers=["rule:last-queue-remembered", "nowait:queue.declare"]
)
def queue_named_by_the_server_is_known_by_the_empty_name_only(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "direct")
    channel.send("queue.declare", queue="", exclusive=True, nowait=True)
    channel.bind("", exchange, "key")
    channel.publish(b"x", exchange, "key")
    channel.consume("", "tag", no_ack=True)
    channel.expect_delivery(b"x", routing_key="key")


@scenario("names.utf8", covers=["rule:names-utf8"])
def names_are_any_utf8(s: Session) -> None:
    channel = s.channel()
    for unusual in UNUSUAL:
        queue = s.queue(channel, unusual)
        exchange = channel.declare_exchange(s.name(unusual), "direct")
        channel.bind(queue, exchange, unusual)
        check_routes(channel, exchange, [unusual, "other"], {queue: [unusual]})
        check_routes(channel, "", [queue], {queue: [queue]})
        tag = channel.consume(queue, unusual, no_ack=True)
        check_equal(tag, unusual, "consumer tag")
        channel.publish(b"x", exchange, unusual)
        channel.expect_delivery(b"x", consumer_tag=unusual, exchange=exchange, routing_key=unusual)
        channel.call("basic.cancel", consumer_tag=unusual)
        channel.call("exchange.delete", exchange=exchange, if_unused=False)
        channel.call("queue.delete", queue=queue)


@scenario("names.utf8-errors", covers=["rule:names-utf8", "error:missing-queue-passive"])
def errors_show_names_as_they_are(s: Session) -> None:
    channel = s.channel()
    for unusual in UNUSUAL:
        name = s.name(unusual)
        channel.send("queue.declare", queue=name, passive=True)
        channel.expect_close(404, no_queue(name), "queue.declare")
        channel.reopen().publish(b"x", name, "key")
        channel.expect_close(404, no_exchange(name), "basic.publish")
        channel.reopen()


@scenario("names.compared-by-octets", covers=["rule:names-utf8"])
def names_that_look_the_same_are_different(s: Session) -> None:
    channel = s.channel()
    stem = s.name("")
    names = [stem + end for end in ("\u00e9", "e\u0301", "E\u0301", "e", "e ")]
    for name in names:
        channel.declare_queue(name)
    check_routes(channel, "", names, {name: [name] for name in names})


@scenario("names.255-octets", covers=["rule:names-utf8"])
def names_and_keys_have_up_to_255_octets(s: Session) -> None:
    channel = s.channel()
    stem = s.name("")
    for letter in ("n", "é"):
        rest = 255 - len(octets(stem))
        name = stem + letter * (rest // len(octets(letter)))
        name += "." * (255 - len(octets(name)))
        reply = channel.call("queue.declare", queue=name)
        check_equal(reply["queue"], name, "name of 255 octets")
        channel.declare_exchange(name, "direct")
        channel.bind(name, name, name)
        check_routes(channel, name, [name, name[:-1]], {name: [name]})
        channel.settle(name)


@scenario("names.255-octets-errors", covers=["rule:error-text-cut"])
def texts_with_long_names_are_cut(s: Session) -> None:
    channel = s.channel()
    stem = s.name("")
    name = stem + "n" * (255 - len(stem))
    for length in (255, 200, 216, 217, 218, 219):
        channel.send("queue.declare", queue=name[:length], passive=True)
        closed = channel.expect_close(404, no_queue(name[:length]), "queue.declare")
        whole = f"NOT_FOUND - no queue '{name[:length]}' in vhost '/'"
        check_equal(len(closed["reply_text"]), min(len(whole), 255), "length of the text")
        channel.reopen()


@scenario("names.line-ends-declare", covers=["rule:names-stripped"])
def line_ends_are_stripped_on_declare_and_delete(s: Session) -> None:
    channel = s.channel()
    queue, exchange = s.name("q"), s.name("x")
    broken_queue, broken_exchange = f"\r{queue[:3]}\n\n{queue[3:]}\r\n", f"\n{exchange}\r"
    reply = channel.call("queue.declare", queue=broken_queue)
    check_equal(reply["queue"], queue, "name")
    channel.declare_queue(queue)
    check_equal(channel.message_count(broken_queue), 0, "messages")
    channel.declare_exchange(broken_exchange)
    channel.declare_exchange(exchange)
    channel.call("exchange.declare", exchange=broken_exchange, passive=True)
    channel.call("queue.delete", queue=broken_queue)
    channel.call("exchange.delete", exchange=broken_exchange)
    channel.send("queue.declare", queue=broken_queue, passive=True)
    channel.expect_close(404, no_queue(queue), "queue.declare")
    channel.reopen().send("exchange.declare", exchange=broken_exchange, passive=True)
    channel.expect_close(404, no_exchange(exchange), "exchange.declare")


@scenario("names.line-ends-bind", covers=["rule:names-stripped"])
def line_ends_are_stripped_on_bind_and_unbind_but_not_from_keys(s: Session) -> None:
    channel = s.channel()
    queue, exchange = s.queue(channel), s.exchange(channel, "direct")
    other = s.exchange(channel, "direct")
    channel.bind(f"{queue}\n", f"\r{exchange}", "k\n")
    channel.call(
        "exchange.bind", source=f"{other}\r\n", destination=f"{exchange}\n", routing_key="k\n"
    )
    for source in (exchange, other):
        check_routes(channel, source, ["k", "k\n"], {queue: ["k\n"]})
    channel.call(
        "exchange.unbind", source=f"\n{other}", destination=f"\n{exchange}", routing_key="k\n"
    )
    check_routes(channel, other, ["k\n"], {queue: []})
    channel.call("queue.unbind", queue=f"\r{queue}", exchange=f"\r{exchange}", routing_key="k\n")
    check_routes(channel, exchange, ["k\n"], {queue: []})


@scenario("names.line-ends-elsewhere", covers=["rule:names-stripped"])
def line_ends_are_not_stripped_elsewhere(s: Session) -> None:
    channel = s.channel()
    queue, exchange = s.queue(channel), s.exchange(channel, "fanout")
    for method in ("queue.purge", "basic.get", "basic.consume"):
        channel.send(method, queue=f"{queue}\n")
        channel.expect_close(404, no_queue(f"{queue}\n"), method)
        channel.reopen()
    channel.publish(b"x", f"{exchange}\r")
    channel.expect_close(404, no_exchange(f"{exchange}\r"), "basic.publish")
    channel.reopen()
    check_routes(channel, "", [f"{queue}\n"], {queue: []})


@scenario("names.line-ends-only", covers=["rule:names-stripped", "rule:queue-name-generated"])
def name_of_line_ends_is_the_empty_name(s: Session) -> None:
    channel = s.channel()
    name = channel.call("queue.declare", queue="\r\n", exclusive=True)["queue"]
    check(GENERATED.fullmatch(name) is not None, f"unexpected generated name {name!r}")
    channel.send("exchange.delete", exchange="\n")
    channel.expect_close(403, DEFAULT_EXCHANGE, "exchange.delete")
    channel.reopen().send("queue.bind", queue=name, exchange="\r\n")
    channel.expect_close(403, DEFAULT_EXCHANGE, "queue.bind")
    channel.reopen().send("queue.declare", queue="am\rq.new")
    text = "ACCESS_REFUSED - queue name 'amq.new' contains reserved prefix 'amq.*'"
    channel.expect_close(403, cut(text), "queue.declare")


@scenario("names.queue-and-exchange", covers=["method:queue.declare", "method:exchange.declare"])
def queue_and_exchange_of_one_name_are_two_things(s: Session) -> None:
    channel = s.channel()
    name = s.queue(channel)
    channel.send("exchange.declare", exchange=name, passive=True)
    channel.expect_close(404, no_exchange(name), "exchange.declare")
    channel.reopen().declare_exchange(name, "fanout")
    other = s.queue(channel)
    channel.bind(other, name)
    check_routes(channel, name, ["k"], {other: ["k"], name: []})
    channel.call("queue.delete", queue=name)
    check_routes(channel, name, ["k"], {other: ["k"]})

"""Direct reply-to: answers through amq.rabbitmq.reply-to without a queue."""

from __future__ import annotations

import re

from conformance import fields
from conformance.channel import Channel
from conformance.failure import check, check_equal
from conformance.methods import encode_properties
from conformance.registry import deviation, scenario
from conformance.session import Session

_NAME = "amq.rabbitmq.reply-to"
_REWRITTEN = re.compile(r"amq\.rabbitmq\.reply-to\.\S{16,}")


def _ask(s: Session, client: Channel, body: bytes = b"request") -> str:
    """Consumes replies, publishes a request and returns the name that its receiver is given."""
    client.consume(_NAME, "replies", no_ack=True)
    return _ask_again(s, client, body)


def _ask_again(s: Session, client: Channel, body: bytes = b"request") -> str:
    queue = s.queue(client)
    client.publish(body, routing_key=queue, properties={"reply_to": _NAME})
    got = client.get(queue)
    check_equal(got and got.body, body, "request")
    name: str = got.message.properties["reply_to"] if got else ""
    check(bool(_REWRITTEN.fullmatch(name)), f"reply_to became {name!r}")
    return name


@scenario("reply-to.round-trip", covers=["rule:reply-to-round-trip"])
def a_reply_reaches_the_channel_that_asked(s: Session) -> None:
    client, server = s.channel(), s.channel()
    requests = s.queue(server)
    server.consume(requests, no_ack=True)
    client.consume(_NAME, "replies", no_ack=True)
    for number in range(3):
        asked = {"reply_to": _NAME, "correlation_id": f"{number}"}
        client.publish(b"%d?" % number, routing_key=requests, properties=asked)
        request = server.expect_delivery(b"%d?" % number).message
        check_equal(request.properties["correlation_id"], f"{number}", "correlation_id")
        name = request.properties["reply_to"]
        check(bool(_REWRITTEN.fullmatch(name)), f"reply_to became {name!r}")
        answered = {"correlation_id": f"{number}", "headers": {"n": fields.short(number)}}
        server.publish(b"%d!" % number, routing_key=name, properties=answered)
        reply = client.expect_delivery(
            b"%d!" % number,
            consumer_tag="replies",
            redelivered=False,
            exchange="",
            routing_key=name,
        )
        octets = reply.message.property_octets
        check_equal(octets, encode_properties(answered), "properties of the reply")


@scenario("reply-to.consume", covers=["rule:reply-to-round-trip", "method:basic.consume"])
def the_reply_consumer_gets_a_tag_and_consume_ok(s: Session) -> None:
    connection = s.connect()
    for tag in ("mine", ""):
        channel = connection.channel()
        got = channel.consume(_NAME, tag, no_ack=True)
        form = re.escape(tag) if tag else r"amq\.ctag-[A-Za-z0-9_-]{22}"
        check(bool(re.fullmatch(form, got)), f"consumer tag {got!r}")
    quiet = connection.channel()
    quiet.send("basic.consume", queue=_NAME, no_ack=True, nowait=True)
    quiet.expect_silence()
    name = _ask_again(s, quiet)
    connection.channel().publish(b"reply", routing_key=name)
    quiet.expect_delivery(b"reply")


@scenario("reply-to.with-acks", covers=["error:reply-to-consume-with-acks"])
def a_reply_consumer_with_acks_is_refused(s: Session) -> None:
    for nowait in (False, True):
        channel = s.channel()
        channel.send("basic.consume", queue=_NAME, consumer_tag="mine", nowait=nowait)
        text = "PRECONDITION_FAILED - reply consumer cannot acknowledge"
        channel.expect_close(406, text, "basic.consume")
        channel.reopen().consume(_NAME, "mine", no_ack=True)
        channel.send("basic.consume", queue=_NAME, consumer_tag="another", nowait=nowait)
        channel.expect_close(406, text, "basic.consume")


@scenario("reply-to.twice", covers=["error:reply-to-consume-twice"])
def a_second_reply_consumer_on_the_channel_is_refused(s: Session) -> None:
    channel = s.channel()
    channel.consume(_NAME, "mine", no_ack=True)
    channel.send("basic.consume", queue=_NAME, consumer_tag="another", no_ack=True)
    text = "PRECONDITION_FAILED - reply consumer already set"
    channel.expect_close(406, text, "basic.consume")
    channel.reopen().consume(_NAME, "mine", no_ack=True)


@scenario("reply-to.tag-reused", covers=["error:consumer-tag-reused"])
def a_tag_of_another_consumer_is_refused_for_replies(s: Session) -> None:
    channel = s.channel()
    channel.consume(s.queue(channel), "mine")
    channel.send("basic.consume", queue=_NAME, consumer_tag="mine", no_ack=True)
    text = "NOT_ALLOWED - attempt to reuse consumer tag 'mine'"
    channel.connection.expect_close(530, text, "basic.consume")


@scenario("reply-to.no-consumer", covers=["error:reply-to-without-consumer"])
def a_request_without_a_reply_consumer_is_refused(s: Session) -> None:
    connection = s.connect()
    channel, other = connection.channel(), connection.channel()
    queue = s.queue(channel)
    other.consume(_NAME, no_ack=True)
    channel.publish(b"request", routing_key=queue, properties={"reply_to": _NAME})
    text = "PRECONDITION_FAILED - fast reply consumer does not exist"
    channel.expect_close(406, text, "basic.publish")
    check_equal(channel.reopen().get_all(queue), [], "messages")


@scenario("reply-to.cancel", covers=["error:reply-to-without-consumer", "method:basic.cancel"])
def a_cancelled_reply_consumer_is_gone_and_can_come_again(s: Session) -> None:
    channel, server = s.channel(), s.channel()
    old = _ask(s, channel)
    channel.send("basic.cancel", consumer_tag="replies")
    channel.expect("basic.cancel-ok", consumer_tag="replies")
    channel.consume(_NAME, "again", no_ack=True)
    new = _ask_again(s, channel)
    check(old != new, "the name was given out twice")
    for name in (old, new):
        server.publish(name.encode(), routing_key=name)
    channel.expect_delivery(new.encode(), consumer_tag="again", routing_key=new)
    channel.call("basic.cancel", consumer_tag="again")
    channel.publish(b"request", properties={"reply_to": _NAME})
    text = "PRECONDITION_FAILED - fast reply consumer does not exist"
    channel.expect_close(406, text, "basic.publish")


@scenario("reply-to.names", covers=["rule:reply-to-round-trip"])
def each_channel_has_a_name_of_its_own_that_stays(s: Session) -> None:
    connection = s.connect()
    one, two, server = (connection.channel() for _ in range(3))
    first, second = _ask(s, one), _ask(s, two)
    check(first != second, "two channels share a name")
    check_equal(_ask_again(s, one), first, "name of the second request")
    for name in (second, first, second):
        server.publish(name.encode(), routing_key=name)
    one.expect_delivery(first.encode())
    two.expect_delivery(second.encode())
    two.expect_delivery(second.encode())


@scenario("reply-to.declare", covers=["rule:reply-to-declare"])
def declare_of_the_name_tells_whether_the_client_is_there(s: Session) -> None:
    client, server = s.channel(), s.channel()
    name = _ask(s, client)
    for queue in (name, _NAME):
        for passive in (True, False):
            server.send("queue.declare", queue=queue, passive=passive)
            server.expect("queue.declare-ok", queue=queue, message_count=0, consumer_count=1)
    client.call("basic.cancel", consumer_tag="replies")
    for gone in (name, f"{_NAME}.nonsense"):
        for passive in (True, False):
            server.send("queue.declare", queue=gone, passive=passive)
            text = f"NOT_FOUND - no queue '{gone}' in vhost '/'"
            server.expect_close(404, text, "queue.declare")
            server.reopen()


@scenario("reply-to.gone", covers=["rule:reply-to-gone-dropped", "rule:reply-to-declare"])
def a_reply_to_a_client_that_is_gone_is_dropped(s: Session) -> None:
    channels = [s.channel() for _ in range(3)]
    server = s.channel()
    names = [_ask(s, channel) for channel in channels]
    channels[0].call("basic.cancel", consumer_tag="replies")
    channels[1].call("channel.close")
    channels[2].connection.close()
    for name in names:
        server.publish(b"too late", routing_key=name)
        server.expect_silence()
        server.send("queue.declare", queue=name, passive=True)
        text = f"NOT_FOUND - no queue '{name}' in vhost '/'"
        server.expect_close(404, text, "queue.declare")
        server.reopen()
    channels[0].expect_silence()
    channels[1].reopen().expect_silence()


@scenario("reply-to.mandatory.gone", covers=["rule:reply-to-gone-dropped", "method:basic.return"])
def a_mandatory_reply_to_a_client_that_is_gone_is_returned(s: Session) -> None:
    client, server = s.channel(), s.channel()
    name = _ask(s, client)
    client.call("basic.cancel", consumer_tag="replies")
    server.call("confirm.select")
    server.publish(b"too late", routing_key=name, mandatory=True)
    back = server.expect("basic.return", reply_code=312, exchange="", routing_key=name)
    check_equal(back.body, b"too late", "body")
    check_equal(server.confirms({1}), ({1}, set()), "confirms")


@scenario(
    "reply-to.mandatory",
    covers=["rule:reply-to-round-trip", "method:basic.return"],
    deviations=[
        deviation("rabbitmq", "delivers a mandatory reply and returns it as well, until 4.2")
    ],
)
def a_mandatory_reply_that_arrives_is_not_returned(s: Session) -> None:
    client, server = s.channel(), s.channel()
    name = _ask(s, client)
    server.call("confirm.select")
    server.publish(b"reply", routing_key=name, mandatory=True)
    if s.deviates:
        server.expect("basic.return", routing_key=name)
    check_equal(server.confirms({1}), ({1}, set()), "confirms")
    client.expect_delivery(b"reply")


@scenario("reply-to.default-exchange-only", covers=["rule:reply-to-round-trip"])
def replies_go_through_the_default_exchange_only(s: Session) -> None:
    client, server = s.channel(), s.channel()
    name, exchange = _ask(s, client), s.exchange(server)
    server.publish(b"reply", exchange, name, mandatory=True)
    server.expect("basic.return", exchange=exchange, routing_key=name)
    server.publish(b"nobody", routing_key=_NAME, mandatory=True)
    server.expect("basic.return", routing_key=_NAME)
    client.expect_silence()


@scenario("reply-to.no-queue", covers=["rule:reply-to-declare"])
def the_names_are_no_queues(s: Session) -> None:
    client = s.channel()
    name = _ask(s, client)
    other = s.channel()
    for queue in (name, _NAME):
        refused = [
            ("basic.get", {}),
            ("queue.purge", {}),
            ("queue.bind", {"exchange": "amq.direct"}),
        ]
        if queue != _NAME:
            refused.append(("basic.consume", {}))
        for method, arguments in refused:
            other.send(method, queue=queue, **arguments)
            text = f"NOT_FOUND - no queue '{queue}' in vhost '/'"
            other.expect_close(404, text, method)
            other.reopen()
        check_equal(other.call("queue.delete", queue=queue)["message_count"], 0, "messages")
    other.publish(b"still", routing_key=name)
    client.expect_delivery(b"still")


@scenario("reply-to.other-values", covers=["rule:header-kept"])
def other_values_of_reply_to_are_left_alone(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    for reply_to in ("a queue", f"{_NAME}.mine", f"{_NAME}x", "AMQ.RABBITMQ.REPLY-TO", ""):
        properties = encode_properties({"reply_to": reply_to, "message_id": "m"})
        channel.publish(b"m", routing_key=queue, properties=properties)
        channel.send("basic.get", queue=queue, no_ack=True)
        got = channel.expect("basic.get-ok")
        check_equal(got.message.property_octets, properties, "properties")


@scenario("reply-to.other-properties", covers=["rule:header-kept", "rule:reply-to-round-trip"])
def rewriting_reply_to_leaves_the_other_properties_untouched(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    name = _ask(s, channel)
    others = {
        "content_type": "text/plain",
        "content_encoding": "none",
        "headers": {"d": fields.decimal(3, 7), "list": [fields.byte(-1), None, b"\xff"]},
        "delivery_mode": 1,
        "priority": 3,
        "correlation_id": "c",
        "expiration": "100000",
        "message_id": "m",
        "timestamp": 2**60,
        "type": "t",
        "user_id": s.address.user,
        "app_id": "a",
        "cluster_id": "k",
    }
    channel.publish(b"m", routing_key=queue, properties=others | {"reply_to": _NAME})
    channel.send("basic.get", queue=queue, no_ack=True)
    got = channel.expect("basic.get-ok")
    expected = encode_properties(others | {"reply_to": name})
    check_equal(got.message.property_octets, expected, "properties")
    missing = s.name("missing")
    properties = others | {"reply_to": _NAME}
    channel.publish(b"m", routing_key=missing, mandatory=True, properties=properties)
    back = channel.expect("basic.return", routing_key=missing)
    check_equal(back.message.property_octets, expected, "properties of basic.return")


@scenario("reply-to.large", covers=["rule:reply-to-round-trip", "rule:frame-max-kept"])
def replies_are_cut_to_the_clients_frame_max(s: Session) -> None:
    client, server = s.channel(frame_max=4096), s.channel()
    name = _ask(s, client)
    for body in (b"", b"x" * 4089, bytes(range(256)) * 500):
        server.publish(body, routing_key=name)
        client.expect_delivery(body)

"""basic.return: mandatory messages that reach no queue."""

from __future__ import annotations

from conformance.failure import check_equal
from conformance.fields import decimal, short
from conformance.registry import scenario
from conformance.session import Session

_NO_ROUTE = {"reply_code": 312, "reply_text": "NO_ROUTE"}


@scenario("return.content", covers=["method:basic.return", "rule:return-content"])
def a_mandatory_message_without_a_queue_comes_back_whole(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "topic")
    properties = {
        "content_type": "text/plain",
        "headers": {"n": short(-3), "d": decimal(1, 15), "list": [1, "two", None]},
        "delivery_mode": 2,
        "correlation_id": "c",
        "timestamp": 2**63,
    }
    channel.publish(b"body", exchange, "a.b", mandatory=True, properties=properties)
    back = channel.expect("basic.return", **_NO_ROUTE, exchange=exchange, routing_key="a.b")
    check_equal(back.body, b"body", "body")
    check_equal(back.message.typed_headers["n"], short(-3), "header n")
    check_equal(
        back.message.properties,
        properties | {"headers": {"n": -3, "d": (1, 15), "list": [1, "two", None]}},
        "properties",
    )


@scenario("return.default-exchange", covers=["method:basic.return"])
def the_default_exchange_returns_what_names_no_queue(s: Session) -> None:
    channel, missing = s.channel(), s.name("missing")
    channel.publish(b"", routing_key=missing, mandatory=True)
    back = channel.expect("basic.return", **_NO_ROUTE, exchange="", routing_key=missing)
    check_equal((back.body, back.message.body_frames), (b"", []), "body and its frames")


@scenario("return.routed", covers=["method:basic.return"])
def what_reached_a_queue_is_not_returned(s: Session) -> None:
    channel = s.channel()
    queue, exchange = s.queue(channel), s.exchange(channel, "fanout")
    channel.publish(b"1", routing_key=queue, mandatory=True)
    channel.bind(queue, exchange)
    channel.publish(b"2", exchange, "any", mandatory=True)
    channel.expect_silence(queue)
    check_equal(channel.get_all(queue), [b"1", b"2"], "messages")


@scenario("return.order", covers=["method:basic.return"])
def returns_come_in_order_and_before_later_answers(s: Session) -> None:
    channel = s.channel()
    queue, missing = s.queue(channel), s.name("missing")
    for number in range(20):
        key = queue if number % 4 == 0 else missing
        channel.publish(b"%d" % number, routing_key=key, mandatory=True)
    channel.send("queue.declare", queue=queue, passive=True)
    returned = [channel.expect("basic.return").body for _ in range(15)]
    channel.expect("queue.declare-ok", queue=queue)
    check_equal(returned, [b"%d" % n for n in range(20) if n % 4], "returned bodies")
    check_equal(len(channel.get_all(queue)), 5, "messages that were routed")


@scenario("return.own-channel", covers=["method:basic.return"])
def the_return_comes_on_the_channel_of_the_publish(s: Session) -> None:
    connection = s.connect()
    one, two, three = (connection.channel() for _ in range(3))
    missing = s.name("missing")
    two.publish(b"two", routing_key=missing, mandatory=True)
    three.publish(b"three", routing_key=missing, mandatory=True)
    check_equal(two.expect("basic.return").body, b"two", "body on channel 2")
    check_equal(three.expect("basic.return").body, b"three", "body on channel 3")
    for channel in (one, two, three):
        channel.expect_silence()


@scenario("return.frame-max", covers=["method:basic.return", "rule:frame-max-kept"])
def returned_bodies_are_cut_to_the_publishers_frame_max(s: Session) -> None:
    channel = s.channel(frame_max=4096)
    body = bytes(range(256)) * 40
    channel.publish(body, routing_key=s.name("missing"), mandatory=True, body_frame_size=1000)
    back = channel.expect("basic.return", **_NO_ROUTE)
    check_equal(back.body, body, "body")
    channel.expect_silence()


@scenario("return.sender-selected", covers=["method:basic.return", "rule:sender-selected"])
def cc_and_bcc_that_reach_nothing_are_returned_without_bcc(s: Session) -> None:
    channel = s.channel()
    one, two = s.name("missing"), s.name("missing")
    headers = {"CC": [one], "x": 1, "BCC": [two]}
    channel.publish(b"m", routing_key=two, mandatory=True, properties={"headers": headers})
    back = channel.expect("basic.return", **_NO_ROUTE, routing_key=two)
    check_equal(back.message.headers, {"CC": [one], "x": 1}, "headers")
    queue = s.queue(channel)
    for name in ("CC", "BCC"):
        properties = {"headers": {name: [queue]}}
        channel.publish(b"m", routing_key=two, mandatory=True, properties=properties)
        channel.expect_silence(queue)
    check_equal(channel.get_all(queue), [b"m", b"m"], "messages")

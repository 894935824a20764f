"""basic.publish: where a message goes, what is checked, in which order."""

from __future__ import annotations

from typing import Any

from conformance.failure import check_equal
from conformance.fields import signedint
from conformance.methods import encode_frame, encode_header, encode_method
from conformance.registry import deviation, scenario
from conformance.session import Session


@scenario(
    "publish.default-exchange", covers=["method:basic.publish", "rule:default-exchange-routes"]
)
def default_exchange_reaches_a_queue_by_its_name(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    channel.publish(b"hello", routing_key=queue)
    channel.settle(queue)
    channel.send("basic.get", queue=queue, no_ack=True)
    got = channel.expect("basic.get-ok", exchange="", routing_key=queue, redelivered=False)
    check_equal(got.body, b"hello", "body")


@scenario("publish.ticket-ignored", covers=["method:basic.publish"])
def the_ticket_of_a_publish_is_ignored(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    channel.send("basic.publish", ticket=65535, routing_key=queue)
    channel.connection.send_frame(2, channel.number, encode_header(1))
    channel.connection.send_frame(3, channel.number, b"m")
    check_equal(channel.get_all(queue), [b"m"], "messages")


@scenario("publish.keys", covers=["method:basic.publish"])
def routing_keys_reach_the_consumer_as_they_were(s: Session) -> None:
    channel = s.channel()
    queue, exchange = s.queue(channel), s.exchange(channel, "fanout")
    channel.bind(queue, exchange)
    keys = ["", " ", "k" * 255, "é☃", "a.b..c", "line\nbreak", "\x00"]
    for key in keys:
        channel.publish(key.encode(), exchange, key)
    channel.settle(queue)
    channel.consume(queue, no_ack=True)
    for key in keys:
        channel.expect_delivery(key.encode(), exchange=exchange, routing_key=key)


@scenario(
    "publish.missing-exchange",
    covers=["error:missing-exchange-publish", "rule:after-channel-close-dropped"],
)
def publish_to_a_missing_exchange_closes_the_channel(s: Session) -> None:
    connection = s.connect()
    channel, other = connection.channel(), connection.channel()
    queue, missing = s.queue(other), s.name("missing")
    channel.publish(b"lost", missing, "key")
    channel.publish(b"dropped", routing_key=queue)
    channel.expect_close(404, f"NOT_FOUND - no exchange '{missing}' in vhost '/'", "basic.publish")
    channel.reopen().publish(b"after", routing_key=queue)
    check_equal(channel.get_all(queue), [b"after"], "messages")
    other.expect_silence()


@scenario("publish.deleted-exchange", covers=["error:missing-exchange-publish"])
def publish_to_an_exchange_deleted_meanwhile_closes_the_channel(s: Session) -> None:
    channel = s.channel()
    queue, exchange = s.queue(channel), s.exchange(channel)
    channel.bind(queue, exchange, "key")
    channel.publish(b"1", exchange, "key")
    check_equal(channel.get_all(queue), [b"1"], "messages")
    s.channel().call("exchange.delete", exchange=exchange)
    channel.publish(b"2", exchange, "key")
    channel.expect_close(404, f"NOT_FOUND - no exchange '{exchange}' in vhost '/'", "basic.publish")


@scenario("publish.follows-bindings", covers=["method:basic.publish"])
def each_publish_follows_the_bindings_of_its_moment(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    queue, exchange = s.queue(channel), s.exchange(channel)
    channel.publish(b"0", exchange, "key", mandatory=True)
    channel.expect("basic.return")
    for body in (b"1", b"3"):
        other.bind(queue, exchange, "key")
        channel.publish(body, exchange, "key", mandatory=True)
        channel.expect_silence(queue)
        other.call("queue.unbind", queue=queue, exchange=exchange, routing_key="key")
        channel.publish(b"between", exchange, "key", mandatory=True)
        channel.expect("basic.return")
    check_equal(channel.get_all(queue), [b"1", b"3"], "messages")


@scenario("publish.redeclared-queue", covers=["method:basic.publish"])
def a_queue_declared_anew_gets_what_is_published_then(s: Session) -> None:
    channel, other = s.channel(), s.channel()
    queue = s.queue(channel)
    channel.publish(b"old", routing_key=queue, mandatory=True)
    channel.settle(queue)
    other.call("queue.delete", queue=queue)
    channel.publish(b"nowhere", routing_key=queue, mandatory=True)
    channel.expect("basic.return")
    other.declare_queue(queue)
    channel.publish(b"new", routing_key=queue, mandatory=True)
    check_equal(channel.get_all(queue), [b"new"], "messages")


@scenario("publish.interleaved", covers=["method:basic.publish"])
def contents_of_two_channels_may_interleave(s: Session) -> None:
    connection = s.connect()
    one, two = connection.channel(), connection.channel()
    queue = s.queue(one)
    method = encode_method("basic.publish", routing_key=queue)
    frames = [
        (1, one, method),
        (1, two, method),
        (2, two, encode_header(4)),
        (2, one, encode_header(5)),
        (3, one, b"on"),
        (3, two, b"tw"),
        (3, two, b"o!"),
        (3, one, b"e!!"),
    ]
    connection.send_raw(b"".join(encode_frame(k, c.number, payload) for k, c, payload in frames))
    two.settle(queue)
    check_equal(sorted(one.get_all(queue)), [b"one!!", b"two!"], "messages")


@scenario("publish.unroutable-dropped", covers=["method:basic.publish"])
def unroutable_messages_are_dropped_without_mandatory(s: Session) -> None:
    channel = s.channel()
    queue, exchange = s.queue(channel), s.exchange(channel)
    channel.bind(queue, exchange, "other")
    channel.publish(b"1", exchange, "key")
    channel.publish(b"2", routing_key=s.name("missing"))
    channel.expect_silence(queue)
    check_equal(channel.get_all(queue), [], "messages")


@scenario("publish.immediate", covers=["error:immediate"])
def immediate_is_refused(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    channel.publish(b"m", routing_key=queue, immediate=True)
    channel.connection.expect_close(540, "NOT_IMPLEMENTED - immediate=true", "basic.publish")
    check_equal(s.channel().get_all(queue), [], "messages")


def _refused_expiration(s: Session, expiration: str, explanation: str) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    text = f"PRECONDITION_FAILED - invalid expiration '{expiration}': {explanation}"
    channel.publish(b"m", routing_key=queue, properties={"expiration": expiration})
    channel.expect_close(406, text, "basic.publish")
    check_equal(channel.reopen().get_all(queue), [], "messages")


@scenario("publish.expiration.leftover", covers=["error:expiration-leftover"])
def an_expiration_with_more_than_a_number_is_refused(s: Session) -> None:
    _refused_expiration(s, "12s", '{leftover_string,"s"}')
    _refused_expiration(s, "5 ", '{leftover_string," "}')
    _refused_expiration(s, "1.5", '{leftover_string,".5"}')
    _refused_expiration(s, '9"', '{leftover_string,"\\""}')
    _refused_expiration(s, "5é", '{leftover_string,"é"}')


@scenario("publish.expiration.no-integer", covers=["error:expiration-no-integer"])
def an_expiration_that_does_not_begin_with_a_number_is_refused(s: Session) -> None:
    for expiration in ("abc", " 5", "--1", "+", "é"):
        _refused_expiration(s, expiration, "no_integer")


@scenario("publish.expiration.empty", covers=["error:expiration-empty"])
def an_empty_expiration_is_refused(s: Session) -> None:
    _refused_expiration(s, "", "no_integer")


@scenario("publish.expiration.negative", covers=["error:expiration-negative"])
def a_negative_expiration_is_refused(s: Session) -> None:
    _refused_expiration(s, "-1", "{value_negative,-1}")


@scenario("publish.expiration.too-large", covers=["error:expiration-too-large"])
def an_expiration_beyond_ten_years_is_refused(s: Session) -> None:
    _refused_expiration(s, "315360000001", "{value_too_large,315360000001}")


@scenario("publish.expiration.accepted", covers=["method:basic.publish"])
def expirations_up_to_ten_years_are_accepted_with_sign_and_zeros(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    expirations = ["60000", "+60000", "00060000", "315360000000"]
    for expiration in expirations:
        properties = {"expiration": expiration}
        channel.publish(b"m", routing_key=queue, properties=properties)
    check_equal(len(channel.get_all(queue)), len(expirations), "messages")


@scenario("publish.expiration.unroutable", covers=["error:expiration-no-integer"])
def a_bad_expiration_is_refused_even_where_nothing_is_routed(s: Session) -> None:
    channel = s.channel()
    channel.publish(b"m", routing_key=s.name("missing"), properties={"expiration": "x"})
    text = "PRECONDITION_FAILED - invalid expiration 'x': no_integer"
    channel.expect_close(406, text, "basic.publish")


@scenario("publish.internal", covers=["error:publish-internal"])
def publish_to_an_internal_exchange_is_refused(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, internal=True)
    channel.publish(b"m", exchange, "key")
    text = f"ACCESS_REFUSED - cannot publish to internal exchange '{exchange}' in vhost '/'"
    channel.expect_close(403, text, "basic.publish")


@scenario("publish.user-id", covers=["error:user-id-mismatch"])
def a_user_id_other_than_the_own_is_refused(s: Session) -> None:
    channel = s.channel()
    queue, user = s.queue(channel), s.address.user
    channel.publish(b"m", routing_key=queue, properties={"user_id": user})
    check_equal(channel.get_all(queue), [b"m"], "messages")
    for claimed in ("somebody", "", user.upper()):
        channel.publish(b"m", routing_key=queue, properties={"user_id": claimed})
        text = (
            f"PRECONDITION_FAILED - user_id property set to '{claimed}' "
            f"but authenticated user was '{user}'"
        )
        channel.expect_close(406, text, "basic.publish")
        channel.reopen()
    check_equal(channel.get_all(queue), [], "messages")


@scenario("publish.check-order", covers=["rule:publish-check-order"])
def the_first_check_that_fails_decides(s: Session) -> None:
    channel = s.channel()
    queue, internal = s.queue(channel), s.exchange(channel, internal=True)
    missing = s.name("missing")
    wrong: dict[str, Any] = {
        "reply_to": "amq.rabbitmq.reply-to",
        "expiration": "x",
        "headers": {"CC": signedint(1)},
    }
    failed = "PRECONDITION_FAILED -"
    cases = [
        (missing, None, 404, f"NOT_FOUND - no exchange '{missing}' in vhost '/'"),
        (
            internal,
            None,
            403,
            f"ACCESS_REFUSED - cannot publish to internal exchange '{internal}' in vhost '/'",
        ),
        ("", None, 406, f"{failed} fast reply consumer does not exist"),
        ("", "reply_to", 406, f"{failed} invalid expiration 'x': no_integer"),
        (
            "",
            "expiration",
            406,
            f'{failed} invalid message: {{unacceptable_type_in_header,"CC",signedint}}',
        ),
    ]
    for exchange, mended, code, text in cases:
        wrong.pop(mended or "", None)
        channel.publish(b"m", exchange, queue, mandatory=True, properties=wrong)
        channel.expect_close(code, text, "basic.publish")
        channel.reopen()
    check_equal(channel.get_all(queue), [], "messages")


@scenario(
    "publish.delivery-mode",
    covers=["rule:delivery-mode-any"],
    deviations=[
        deviation("rabbitmq", "3.10 refuses delivery modes but 1 and 2; 3.13 takes them for 1")
    ],
)
def delivery_modes_other_than_1_and_2_are_accepted(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    for mode in (0, 3, 255):
        channel.publish(b"m", routing_key=queue, properties={"delivery_mode": mode})
        if s.deviates:
            unknown = f"invalid message: {{delivery_mode_unknown,{mode}}}"
            channel.expect_close(406, f"PRECONDITION_FAILED - {unknown}", "basic.publish")
            channel.reopen()
            continue
        channel.settle(queue)
        got = channel.get(queue)
        check_equal(got and got.message.properties, {"delivery_mode": mode}, "properties")
    check_equal(channel.get_all(queue), [], "messages left")

"""Protocol header, login, opening and closing of connections, heartbeats."""

from __future__ import annotations

import time
from typing import Any

from conformance.client import (
    ALL_CAPABILITIES,
    BODY,
    HEADER,
    PROTOCOL_HEADER,
    Connection,
    credentials,
)
from conformance.failure import check, check_equal
from conformance.fields import encode_table, plain
from conformance.registry import scenario
from conformance.session import Session

_REFUSED = (
    "ACCESS_REFUSED - Login was refused using authentication mechanism {}."
    " For details see the broker logfile."
)
_CAPABILITIES = {
    "publisher_confirms",
    "exchange_exchange_bindings",
    "basic.nack",
    "consumer_cancel_notify",
    "connection.blocked",
    "consumer_priorities",
    "authentication_failure_close",
    "per_consumer_qos",
    "direct_reply_to",
}
# A handshake that fails is left hanging for three seconds, so that guessing costs time.
_SILENT_CLOSE_S = 8.0


def _started(s: Session) -> Connection:
    connection = s.dial()
    connection.start()
    return connection


@scenario("connection.header.wrong", covers=["rule:protocol-header-wrong"])
def other_protocol_headers_are_answered_with_ours(s: Session) -> None:
    for header in (
        b"AMQP\x00\x00\x09\x00",
        b"AMQP\x00\x00\x08\x00",
        b"AMQP\x00\x01\x00\x00",
        b"AMQP\x03\x01\x00\x00",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x00" * 8,
    ):
        connection = s.dial()
        connection.send_raw(header)
        check_equal(connection.receive_raw(8), PROTOCOL_HEADER, f"answer to {header!r}")
        connection.expect_end()


@scenario("connection.header.0-9", covers=["rule:protocol-header-wrong"])
def the_header_of_0_9_is_taken_as_0_9_1(s: Session) -> None:
    connection = s.dial()
    connection.send_raw(b"AMQP\x01\x01\x00\x09")
    start = connection.channel0.expect("connection.start")
    check_equal((start["version_major"], start["version_minor"]), (0, 9), "version")


@scenario("connection.header.in-pieces", covers=["method:connection.start"])
def the_header_may_come_octet_by_octet(s: Session) -> None:
    connection = s.dial()
    for octet in PROTOCOL_HEADER:
        connection.send_raw(bytes([octet]))
    connection.channel0.expect("connection.start")


@scenario("connection.handshake-timeout", covers=["rule:handshake-timeout"], slow=True)
def a_client_that_stalls_in_the_handshake_is_let_go(s: Session) -> None:
    started = time.monotonic()
    silent, half, header_only = (s.dial(timeout_s=15) for _ in range(3))
    half.send_raw(b"AMQP")
    header_only.start()
    stalled_at_open = s.dial(timeout_s=15)
    stalled_at_open.start()
    stalled_at_open.start_ok()
    stalled_at_open.tune_ok()
    for connection in (silent, half, header_only, stalled_at_open):
        connection.expect_end()
        waited_s = time.monotonic() - started
        check(waited_s > 8, f"broker gave up after {waited_s:.1f} s, expected about 10 s")


@scenario(
    "connection.start.offer",
    covers=[
        "method:connection.start",
        "rule:start-version",
        "rule:start-mechanisms",
        "rule:start-locales",
    ],
)
def start_offers_version_mechanisms_and_locales(s: Session) -> None:
    start = s.dial().start()
    check_equal((start["version_major"], start["version_minor"]), (0, 9), "version")
    mechanisms = start["mechanisms"].split(" ")
    check({"PLAIN", "AMQPLAIN"} <= set(mechanisms), f"mechanisms {start['mechanisms']!r}")
    check("en_US" in start["locales"].split(" "), f"locales {start['locales']!r}")


@scenario(
    "connection.start.server-properties",
    covers=["rule:server-properties", "rule:server-capabilities"],
)
def start_tells_who_the_broker_is(s: Session) -> None:
    properties = s.dial().start()["server_properties"]
    texts = {"product", "version", "platform", "information", "copyright", "cluster_name"}
    check(texts | {"capabilities"} <= set(properties), f"server-properties {plain(properties)}")
    for key in texts:
        check_equal(properties[key].tag, "S", f"wire type of {key}")
    check_equal(properties["product"].value, "RabbitMQ", "product")
    check_equal(properties["capabilities"].tag, "F", "wire type of capabilities")
    capabilities = properties["capabilities"].value
    for key in sorted(_CAPABILITIES):
        check(key in capabilities, f"capability {key} is missing")
        field = capabilities[key]
        check_equal((field.tag, field.value), ("t", True), f"capability {key}")


@scenario(
    "connection.open.plain",
    covers=[
        "method:connection.start-ok",
        "method:connection.tune",
        "method:connection.tune-ok",
        "method:connection.open",
        "method:connection.open-ok",
        "rule:open-ok-empty",
    ],
)
def a_login_by_plain_opens(s: Session) -> None:
    connection = _started(s)
    connection.start_ok("PLAIN")
    connection.tune_ok()
    connection.channel0.send(
        "connection.open", virtual_host=s.address.vhost, capabilities="x", insist=True
    )
    connection.channel0.expect("connection.open-ok", known_hosts="")
    connection.channel()


@scenario("connection.open.amqplain", covers=["rule:amqplain"])
def a_login_by_amqplain_opens(s: Session) -> None:
    s.connect(mechanism="AMQPLAIN").channel()


@scenario("connection.start-ok.odd-but-fine", covers=["method:connection.start-ok"])
def another_locale_and_odd_client_properties_are_accepted(s: Session) -> None:
    odd: list[dict[str, Any]] = [
        {"locale": "xx_YY"},
        {"locale": ""},
        {"client_properties": {}},
        {"client_properties": {"capabilities": "no table"}},
        {"client_properties": {"capabilities": {}, "deep": {"deeper": [{"a": None}]}}},
    ]
    for options in odd:
        connection = _started(s)
        connection.start_ok(**options)
        connection.channel0.expect("connection.tune")


@scenario("connection.handshake.in-one-write", covers=["method:connection.open"])
def a_client_may_send_its_whole_handshake_at_once(s: Session) -> None:
    connection = s.dial()
    connection.send_raw(PROTOCOL_HEADER)
    connection.start_ok()
    connection.channel0.send("connection.tune-ok", channel_max=2047, frame_max=131072, heartbeat=0)
    connection.channel0.send("connection.open", virtual_host=s.address.vhost)
    for name in ("connection.start", "connection.tune", "connection.open-ok"):
        connection.channel0.expect(name)
    connection.channel()


@scenario(
    "connection.login.refused",
    covers=["error:login-refused", "method:connection.close.server"],
    slow=True,
)
def a_wrong_login_is_told_to_a_client_that_understands(s: Session) -> None:
    refused = []
    for mechanism, user, password in (
        ("PLAIN", s.address.user, "wrong"),
        ("PLAIN", "nobody", "wrong"),
        ("PLAIN", s.address.user, ""),
        ("AMQPLAIN", s.address.user, "wrong"),
    ):
        connection = _started(s)
        connection.start_ok(mechanism, credentials(mechanism, user, password))
        refused.append((connection, mechanism))
    for connection, mechanism in refused:
        connection.expect_close(403, _REFUSED.format(mechanism))


@scenario("connection.login.refused-silently", covers=["error:login-refused-silent"], slow=True)
def a_wrong_login_without_the_capability_ends_in_silence(s: Session) -> None:
    wrong = credentials("PLAIN", s.address.user, "wrong")
    no_capability = {**ALL_CAPABILITIES, "authentication_failure_close": False}
    refused = [_started(s), _started(s)]
    refused[0].start_ok("PLAIN", wrong, capabilities={})
    refused[1].start_ok("PLAIN", wrong, capabilities=no_capability)
    for connection in refused:
        connection.expect_end(_SILENT_CLOSE_S)


@scenario(
    "connection.login.malformed",
    covers=["error:mechanism-unknown", "error:plain-malformed"],
    slow=True,
)
def unknown_mechanisms_and_malformed_responses_end_in_silence(s: Session) -> None:
    failing = []
    for mechanism, response in (
        ("FOO", b"x"),
        ("plain", credentials("PLAIN", "guest", "guest")),
        ("EXTERNAL", b""),
        ("PLAIN", b"guest"),
        ("PLAIN", b"\0guest\0gu\0est"),
        ("PLAIN", b"identity\0guest\0guest"),
        ("AMQPLAIN", b""),
        ("AMQPLAIN", encode_table({"LOGIN": "guest"})[4:]),
        ("AMQPLAIN", b"\x05LOGIN"),
    ):
        connection = _started(s)
        connection.start_ok(mechanism, response)
        failing.append(connection)
    for connection in failing:
        connection.expect_end(_SILENT_CLOSE_S)


@scenario(
    "connection.handshake.wrong-order",
    covers=["error:connection-method-in-wrong-state"],
    slow=True,
)
def methods_out_of_turn_end_the_handshake_in_silence(s: Session) -> None:
    failing = []
    for name in ("connection.tune-ok", "connection.open", "connection.secure-ok", "channel.open"):
        connection = _started(s)
        connection.channel0.send(name)
        failing.append(connection)
    twice = _started(s)
    twice.start_ok()
    twice.start_ok()
    twice.channel0.expect("connection.tune")
    failing.append(twice)
    for connection in failing:
        connection.expect_end(_SILENT_CLOSE_S)


@scenario("connection.open.vhost-missing", covers=["error:vhost-missing"])
def a_missing_vhost_is_not_allowed(s: Session) -> None:
    for vhost in ("nope", "", "naïve's"):
        connection = _started(s)
        connection.start_ok()
        connection.tune_ok()
        connection.channel0.send("connection.open", virtual_host=vhost)
        text = f"NOT_ALLOWED - vhost {vhost} not found"
        connection.expect_close(530, text, "connection.open")


@scenario(
    "connection.close.by-client",
    covers=["method:connection.close", "method:connection.close-ok.server"],
)
def closing_is_answered_and_the_socket_ends(s: Session) -> None:
    s.connect().close()
    busy = s.connect()
    first, second = busy.channel(), busy.channel()
    queue = s.queue(first)
    first.publish(b"1", routing_key=queue)
    second.consume(queue)
    second.expect_delivery(b"1")
    busy.close()
    channel = s.channel()
    check_equal(channel.message_count(queue), 1, "messages after the close")


@scenario("connection.close.sent-by-both", covers=["method:connection.close-ok"])
def a_close_that_crosses_the_brokers_is_answered(s: Session) -> None:
    connection = s.connect()
    connection.channel0.send("connection.open", virtual_host="/")
    connection.channel0.send("connection.close", reply_code=200)
    connection.channel0.expect("connection.close", reply_code=504)
    connection.channel0.expect("connection.close-ok")
    connection.channel0.send("connection.close-ok")
    connection.expect_end()


@scenario("connection.close.dropped-afterwards", covers=["rule:after-connection-close-dropped"])
def after_the_brokers_close_only_close_ok_is_read(s: Session) -> None:
    connection = s.connect()
    channel = connection.channel()
    queue = s.name("never-declared")
    connection.send_frame(BODY, 1, b"out of the blue")
    channel.send("queue.declare", queue=queue)
    connection.channel0.send("connection.open", virtual_host="/")
    connection.send_frame(HEADER, 0, b"")
    text = "UNEXPECTED_FRAME - expected method frame, got non method frame instead"
    connection.expect_close(505, text)
    other = s.channel()
    other.send("queue.declare", queue=queue, passive=True)
    other.expect_close(404, f"NOT_FOUND - no queue '{queue}' in vhost '/'", "queue.declare")


@scenario(
    "connection.wrong-state",
    covers=["error:connection-method-in-wrong-state"],
)
def connection_methods_of_the_handshake_are_refused_while_running(s: Session) -> None:
    text = "CHANNEL_ERROR - unexpected method in connection state running"
    for name in (
        "connection.open",
        "connection.tune-ok",
        "connection.start-ok",
        "connection.open-ok",
        "connection.close-ok",
        "connection.blocked",
        "channel.open",
        "queue.declare",
    ):
        connection = s.connect()
        connection.channel0.send(name)
        connection.expect_close(504, text, name)


@scenario(
    "connection.method-on-channel",
    covers=["error:unimplemented-method"],
)
def connection_methods_on_a_channel_are_refused(s: Session) -> None:
    for name in ("connection.close", "connection.open"):
        connection = s.connect()
        connection.channel().send(name)
        connection.expect_close(503, "COMMAND_INVALID - unimplemented method", name)


@scenario(
    "connection.update-secret",
    covers=["method:connection.update-secret", "method:connection.update-secret-ok"],
)
def a_new_secret_is_accepted(s: Session) -> None:
    connection = s.connect()
    connection.channel0.send(
        "connection.update-secret", new_secret=s.address.password, reason="renewed"
    )
    connection.channel0.expect("connection.update-secret-ok")
    connection.channel()


@scenario(
    "connection.shutdown",
    covers=["error:shutdown"],
    ends_broker=True,
)
def a_broker_that_shuts_down_says_so(s: Session) -> None:
    connection = s.connect()
    connection.channel()
    s.stop_broker()
    connection.expect_close(
        320,
        "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'",
    )

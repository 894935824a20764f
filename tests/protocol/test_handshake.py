"""From the protocol header to an open connection, and every way not to get there."""

import pytest

from broker.core.broker import Identity
from broker.protocol.states import ConnectionState
from broker.wire.frames import PROTOCOL_HEADER
from broker.wire.methods import commands
from broker.wire.table import Field, Table
from tests.protocol.client import Channel, Site, is_close, octets_of, text
from tests.protocol.login import assert_dropped_silently, log_in, start, tuned

Connection = commands.Connection


def test_whole_handshake(site: Site) -> None:
    client, _ = start(site)
    log_in(client)
    (received,) = client.read()
    tune = received.method
    assert (tune.channel_max, tune.frame_max, tune.heartbeat) == (2047, 131072, 60)
    client.tell(Connection.TuneOk, 0, channel_max=10, frame_max=4096, heartbeat=5)
    assert client.read() == []
    client.tell(Connection.Open, 0, virtual_host="/")
    (received,) = client.read()
    assert isinstance(received.method, Connection.OpenOk)
    connection = client.connection
    assert connection.state is ConnectionState.RUNNING
    assert connection.was_open
    assert (connection.channel_max, connection.frame_max) == (10, 4096)
    assert (connection.user.name, connection.vhost.name) == ("guest", "/")
    assert site.broker.connections == {connection: None}
    assert site.notes == [
        (
            "connection_opened",
            {"connection": connection.name, "user": "guest", "vhost": "/", "client": ""},
        )
    ]


def test_start_says_who_we_are(site: Site) -> None:
    site.broker.identity = Identity("3.13.7", "1.2.3", "leveret@host")
    _, method = start(site)
    assert (method.version_major, method.version_minor) == (0, 9)
    assert (method.mechanisms, method.locales) == (b"PLAIN AMQPLAIN", b"en_US")
    properties: Table = method.server_properties
    assert properties["product"] == text("RabbitMQ")
    assert properties["version"] == text("3.13.7")
    assert properties["cluster_name"] == text("leveret@host")
    assert "Leveret 1.2.3" in str(properties["platform"].value)
    assert "Leveret 1.2.3" in str(properties["information"].value)
    assert properties["capabilities"].value == {
        name: Field("bool", value=True)
        for name in (
            "publisher_confirms",
            "exchange_exchange_bindings",
            "basic.nack",
            "consumer_cancel_notify",
            "connection.blocked",
            "consumer_priorities",
            "authentication_failure_close",
            "per_consumer_qos",
            "direct_reply_to",
        )
    }


def test_handshake_may_come_in_one_chunk(site: Site) -> None:
    client = site.greet()
    client.feed(
        PROTOCOL_HEADER
        + octets_of(
            Connection.StartOk,
            0,
            client_properties={},
            mechanism="PLAIN",
            response=b"\0guest\0guest",
            locale="en_US",
        )
        + octets_of(Connection.TuneOk, 0, channel_max=2047, frame_max=131072)
        + octets_of(Connection.Open, 0, virtual_host="/")
        + octets_of(Channel.Open)
    )
    assert [received.kind for received in client.read()] == [
        Connection.Start,
        Connection.Tune,
        Connection.OpenOk,
        Channel.OpenOk,
    ]


# The protocol header


@pytest.mark.parametrize("header", [PROTOCOL_HEADER, b"AMQP\x01\x01\x00\x09"])
def test_header_is_understood_octet_by_octet(site: Site, header: bytes) -> None:
    client = site.greet()
    for octet in header[:-1]:
        client.feed(bytes([octet]))
        assert client.read() == []
    client.feed(header[-1:])
    assert [received.kind for received in client.read()] == [Connection.Start]


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        (b"AMQP\x00\x00\x09\x00", "unsupported protocol version 00 00 09 00"),
        (b"AMQP\x00\x01\x00\x00", "unsupported protocol version 00 01 00 00"),
        (b"AMQP\x03\x01\x00\x00", "unsupported protocol version 03 01 00 00"),
        (b"GET / HTTP/1.1\r\n", "an HTTP request came to the AMQP port"),
        (b"OPTIONS * HTTP/1.1\r\n", "an HTTP request came to the AMQP port"),
        (b"PRI * HTTP/2.0\r\n", "an HTTP request came to the AMQP port"),
        (b"\x16\x03\x01\x02\x00\x01", "a TLS client hello came to a port without TLS"),
        (b"hello world", "not an AMQP protocol header"),
        (b"\x00", "not an AMQP protocol header"),
    ],
)
def test_other_hello_is_answered_with_our_header_and_named(
    site: Site, hello: bytes, reason: str
) -> None:
    client = site.greet()
    client.connection.receive_data(hello, 0.0)
    assert client.connection.data_to_send() == PROTOCOL_HEADER
    assert client.connection.state is ConnectionState.CLOSED
    assert client.connection.close_in_s == 0
    assert client.connection.close_reason == reason
    client.connection.receive_data(PROTOCOL_HEADER, 0.0)
    assert client.connection.data_to_send() == b""


# Tuning

HIGHER = "is higher than the maximum allowed value"


@pytest.mark.parametrize(
    ("answers", "wanted"),
    [
        ({"frame_max": 4095}, "frame_max = 4095 is lower than the minimum allowed value (4096)"),
        ({"frame_max": 131073}, f"frame_max = 131073 {HIGHER} (131072)"),
        ({"frame_max": 0}, f"frame_max = 0 {HIGHER} (131072)"),
        ({"channel_max": 0}, f"channel_max = 0 (no limit) {HIGHER} (2047)"),
        ({"channel_max": 2048}, f"channel_max = 2048 {HIGHER} (2047)"),
    ],
)
def test_answer_beyond_the_offer_is_not_allowed(
    site: Site, answers: dict[str, int], wanted: str
) -> None:
    client = tuned(site, **answers)
    (received,) = client.read()
    assert is_close(received.method, 530, f"negotiated {wanted}", Connection.TuneOk)
    assert client.connection.state is ConnectionState.CLOSING


@pytest.mark.parametrize(
    "answers",
    [
        {"frame_max": 4096, "channel_max": 1, "heartbeat": 0},
        {"frame_max": 131072, "channel_max": 2047, "heartbeat": 65535},
    ],
)
def test_answer_within_the_offer_is_taken(site: Site, answers: dict[str, int]) -> None:
    client = tuned(site, **answers)
    client.tell(Connection.Open, 0, virtual_host="/")
    assert [received.kind for received in client.read()] == [Connection.OpenOk]
    assert client.connection.heartbeat.interval_s == answers["heartbeat"]


# Opening


@pytest.mark.parametrize(
    ("vhost", "wanted"),
    [
        ("nope", "vhost nope not found"),
        ("", "vhost  not found"),
        ("other", "access to vhost 'other' refused for user 'guest'"),
    ],
)
def test_virtual_host_that_is_not_for_this_user_is_not_allowed(
    site: Site, vhost: str, wanted: str
) -> None:
    site.broker.add_vhost("other")
    client = tuned(site)
    client.tell(Connection.Open, 0, virtual_host=vhost)
    (received,) = client.read()
    assert is_close(received.method, 530, wanted, Connection.Open)
    assert site.broker.connections == {}


def test_connection_above_the_limit_is_not_allowed() -> None:
    site = Site(connections=1)
    first = site.connect()
    client = tuned(site)
    client.tell(Connection.Open, 0, virtual_host="/")
    (received,) = client.read()
    assert is_close(
        received.method,
        530,
        "connection refused: node connection limit (1) is reached",
        Connection.Open,
    )
    first.tell(Connection.Close, 0)
    assert site.connect().connection.state is ConnectionState.RUNNING
    assert site.broker.counters.connections_opened == 2


# What is sent before its time


def test_frame_above_the_size_before_tuning_is_refused_unread(site: Site) -> None:
    client, _ = start(site)
    client.feed(b"\x01\x00\x00\x7f\xff\xff\xff")
    assert_dropped_silently(client)
    assert "frame_too_large" in client.connection.close_reason


def test_channel_before_login_is_an_error(site: Site) -> None:
    for stage in (start(site)[0], tuned(site)):
        before = stage.connection.state
        stage.feed(octets_of(Channel.Open))
        assert stage.connection.channels == {}
        if before is ConnectionState.STARTING:
            assert_dropped_silently(stage)
        else:
            (received,) = stage.read()
            assert received.method.reply_code == 505
    assert site.broker.connections == {}


def test_client_that_leaves_amid_the_handshake_leaves_nothing(site: Site) -> None:
    for client in (site.greet(), start(site)[0], tuned(site)):
        client.connection.receive_eof()
        site.collect()
        assert client.connection.state is ConnectionState.CLOSED
        assert client.connection.close_reason == "client closed the socket"
    counters = site.broker.counters
    assert (counters.connections_opened, counters.connections_closed) == (0, 0)

"""What a peer without a password can make the broker hold or do: very little, not for long."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest

from broker.protocol.states import HANDSHAKE, ConnectionState
from conformance.fields import encode_longstr
from conformance.fuzz.world import PROTOCOL_HEADER, World, method, open_vhost, start_ok, tune_ok
from conformance.methods import LAYOUTS, encode_frame

from .client import WITHOUT_A_WORD, Client, greeted, opened, unknown, world

MEMORY_MAX = 16 * 1024
"""Octets that one connection may take before its client has logged in."""
SILENCE = (WITHOUT_A_WORD, 0, "")
LEGAL = {
    ConnectionState.STARTING: "connection.start-ok",
    ConnectionState.TUNING: "connection.tune-ok",
    ConnectionState.OPENING: "connection.open",
}
UNANNOUNCED: dict[str, object] = {"client_properties": {}}


def frame_header(kind: int, channel: int, size: int) -> bytes:
    return encode_frame(kind, channel, b"")[:3] + size.to_bytes(4, "big")


def at_state(site: World, state: ConnectionState) -> Client:
    """A client whose connection is in a state of the handshake."""
    client = unknown(site)
    steps = (PROTOCOL_HEADER, start_ok(), tune_ok())
    for step in steps[: HANDSHAKE.index(state)]:
        client.tell(step)
    assert client.connection.state is state
    return client


def is_ending(client: Client) -> bool:
    return client.connection.state in (ConnectionState.CLOSING, ConnectionState.CLOSED)


# Frames


@pytest.mark.parametrize("size", [8192 + 1, 9000, 131064, 1 << 31, (1 << 32) - 1])
@pytest.mark.parametrize("kind", [0, 1, 2, 3, 8, 255])
def test_frame_above_the_size_before_login_ends_the_connection_at_its_first_octets(
    kind: int, size: int
) -> None:
    client = greeted(world())
    client.tell(frame_header(kind, 0, size))
    # One octet more is a header that came in two pieces.
    client.tell(b"x")
    assert is_ending(client)
    assert not client.connection._rest


def test_start_ok_as_large_as_a_frame_may_be_before_login_is_read() -> None:
    plain = start_ok(client_properties={"capabilities": {}, "filler": ""})
    filler = "x" * (8192 - len(plain))
    login = start_ok(client_properties={"capabilities": {}, "filler": filler})
    assert len(login) == 8192
    [answer] = greeted(world()).tell(login)
    assert answer.name == "connection.tune"
    for size in (len(filler) + 9, len(filler) + 1000):
        login = start_ok(client_properties={"capabilities": {}, "filler": "x" * size})
        assert greeted(world()).error(login) == SILENCE


@pytest.mark.parametrize("state", HANDSHAKE[1:])
@pytest.mark.parametrize("channel", [1, 2047, 65535])
@pytest.mark.parametrize("kind", [1, 2, 3, 8])
def test_frame_on_another_channel_than_0_ends_the_connection_and_makes_no_channel(
    kind: int, channel: int, state: ConnectionState
) -> None:
    payload = {1: b"\x00\x14\x00\x0a\x00", 8: b""}.get(kind, b"\x00\x3c" + b"\x00" * 12)
    client = at_state(world(), state)
    client.tell(encode_frame(kind, channel, payload))
    assert is_ending(client)
    assert not client.connection.channels


@pytest.mark.parametrize(
    ("name", "state"),
    [
        (name, state)
        for name in LAYOUTS
        for state, legal in LEGAL.items()
        if name.startswith("connection.") and name != legal
    ],
)
def test_method_of_another_state_ends_the_connection(name: str, state: ConnectionState) -> None:
    client = at_state(world(), state)
    client.tell(method(0, name))
    assert is_ending(client)
    assert not client.world.broker.connections


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (start_ok(), start_ok()),
        (start_ok(), open_vhost()),
        (start_ok() + tune_ok(), tune_ok()),
        (start_ok() + tune_ok(), start_ok()),
        (start_ok() + tune_ok(), method(1, "channel.open")),
        (start_ok(), method(1, "channel.open")),
    ],
)
def test_method_before_its_time_ends_the_connection_in_the_same_chunk_or_the_next(
    first: bytes, second: bytes
) -> None:
    for chunks in ([first + second], [first, second]):
        client = greeted(world())
        client.tell(*chunks)
        assert is_ending(client)
        assert not client.world.broker.connections


@pytest.mark.parametrize("cut", range(1, 8))
def test_protocol_header_may_come_in_two_pieces(cut: int) -> None:
    [answer] = unknown(world()).tell(PROTOCOL_HEADER[:cut], PROTOCOL_HEADER[cut:])
    assert answer.name == "connection.start"


@pytest.mark.parametrize(
    "hello",
    [
        *(b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"AMQP0091"),
        *(b"AMQP\x00\x00\x09\x02", b"AMQP\x00\x01\x00\x00", b"AMQP\x03\x01\x00\x00", b"\x00" * 8),
        *(b"EHLO mail\r\n", b"SSH-2.0-x", b"B", b"AMQQ"),
    ],
)
def test_other_hello_is_told_our_protocol_and_is_dropped(hello: bytes) -> None:
    client = unknown(world())
    client.feed(hello)
    assert client.take() == PROTOCOL_HEADER
    assert client.connection.state is ConnectionState.CLOSED
    client.feed(PROTOCOL_HEADER + start_ok())
    assert client.take() == b""


# Memory


def wide_properties() -> bytes:
    """As many fields as fit: each octet of the table is a field of its own."""
    return start_ok(b"guest", b"wrong", client_properties=b"\x01aA" + encode_longstr(b"V" * 7900))


def many_names() -> bytes:
    names = b"".join(b"\x02" + bytes((i // 94 + 33, i % 94 + 33)) + b"V" for i in range(1900))
    return start_ok(b"guest", b"wrong", client_properties=names)


FLOODS: dict[str, Callable[[], list[bytes]]] = {
    "nothing": list,
    "a header in part": lambda: [b"AMQ"],
    "the header": lambda: [PROTOCOL_HEADER],
    "a frame in part": lambda: [PROTOCOL_HEADER, start_ok()[:-1]],
    "the largest frame in part": lambda: [PROTOCOL_HEADER, frame_header(1, 0, 8184) + b"x" * 8184],
    "heartbeats": lambda: [PROTOCOL_HEADER, *[encode_frame(8, 0, b"") * 1000] * 4],
    "octets after a broken frame": lambda: [
        PROTOCOL_HEADER,
        frame_header(1, 0, 1) + b"xx",
        *[b"A" * 262_144] * 20,
    ],
    "octets after a hello": lambda: [b"GET / HTTP/1.1\r\n", *[b"A" * 262_144] * 20],
    "wide properties, refused": lambda: [PROTOCOL_HEADER, wide_properties()],
    "many properties, refused": lambda: [PROTOCOL_HEADER, many_names()],
    "octets after a refusal in silence": lambda: [
        PROTOCOL_HEADER,
        start_ok(b"guest", b"wrong", **UNANNOUNCED),
        *[b"A" * 262_144] * 20,
    ],
    "octets after a refusal": lambda: [
        PROTOCOL_HEADER,
        start_ok(b"guest", b"wrong"),
        frame_header(1, 0, 1) + b"xx",
        *[b"A" * 262_144] * 20,
    ],
    "frames after a refusal": lambda: [
        PROTOCOL_HEADER,
        start_ok(b"guest", b"wrong"),
        *[encode_frame(8, 0, b"") * 1000] * 4,
    ],
    "half a frame after a refusal": lambda: [
        PROTOCOL_HEADER,
        start_ok(b"guest", b"wrong"),
        frame_header(1, 0, 8000) + b"x" * 7000,
    ],
}


@pytest.mark.parametrize("flood", FLOODS)
def test_connection_without_login_takes_little_memory(flood: str) -> None:
    site = world()
    site.notes.clear()
    chunks = FLOODS[flood]()
    count = 5
    for chunk in chunks:
        unknown(site).feed(chunk)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        clients = [unknown(site) for _ in range(count)]
        for client in clients:
            for chunk in chunks:
                client.feed(chunk)
            client.take()
        site.notes.clear()
        each = (tracemalloc.get_traced_memory()[0] - before) / count
    finally:
        tracemalloc.stop()
    assert each <= MEMORY_MAX
    assert not site.broker.connections


def test_connection_without_login_is_gone_without_a_trace() -> None:
    site = world()
    for chunks in FLOODS.values():
        client = unknown(site)
        for chunk in chunks():
            client.feed(chunk)
        client.leave()
    assert not site.broker.connections
    assert not site.peers
    assert not site.errors
    assert opened(site).is_open


def test_client_that_never_logged_in_is_not_waited_for_long_after_its_refusal() -> None:
    client = greeted(world())
    assert client.error(start_ok(b"guest", b"wrong"))[1] == 403
    assert client.connection.close_in_s is not None
    assert client.connection.close_in_s <= 10

"""Contents that are not what they say: longer, endless, in a million pieces, on wrong channels."""

from __future__ import annotations

import pytest

from broker.protocol.states import ConnectionState
from conformance.fuzz.world import Peer, method
from conformance.methods import encode_frame, encode_header

from .client import BODY, HEADER, Client, content, opened, publish, steps, world

EMPTY = encode_frame(BODY, 1, b"")
TINY = encode_frame(BODY, 1, b"x")
PUBLISH = method(1, "basic.publish", routing_key="q")
TOO_LONG = (
    "connection.close",
    501,
    "FRAME_ERROR - content body frame exceeds remaining content size",
)


def held(peer: Peer) -> int:
    """Octets of contents that a connection keeps."""
    total = len(peer.connection._rest)
    for channel in peer.connection.channels.values():
        if channel.assembly is not None:
            total += sum(map(len, channel.assembly._frames)) + len(channel.assembly._small)
    return total


def began(size: int, **limits: int) -> Client:
    """A client that has announced a body of this size to the queue `q`."""
    client = opened(world(**limits))
    client.ask(1, "queue.declare", queue="q")
    client.tell(PUBLISH + encode_frame(HEADER, 1, encode_header(size)))
    return client


@pytest.mark.parametrize("number", [6, 100, 2048, 65535])
def test_channel_above_channel_max_ends_the_connection(number: int) -> None:
    client = opened(world(), channel_max=5)
    name, code, text = client.error(method(number, "channel.open"))
    assert (name, code) == ("connection.close", 504)
    assert f"channel number {number} is above the negotiated channel_max (5)" in text


def test_channel_with_the_highest_number_is_opened() -> None:
    for highest in (5, 2047):
        client = opened(world(), channel_max=highest)
        assert client.ask(highest, "channel.open").name == "channel.open-ok"


def test_more_channels_than_negotiated_end_the_connection() -> None:
    client = opened(world(), channel_max=5, channels=5)
    assert client.error(method(1, "channel.open"))[:2] == ("connection.close", 504)
    client = opened(world(), channel_max=5, channels=5)
    assert client.error(method(6, "channel.open"))[:2] == ("connection.close", 530)
    assert not client.connection.channels


@pytest.mark.parametrize("announced", [0, 1, 9, 4096])
@pytest.mark.parametrize("in_pieces", [True, False])
def test_body_longer_than_announced_is_refused_at_once(announced: int, *, in_pieces: bool) -> None:
    client = opened(world())
    client.ask(1, "queue.declare", queue="q")
    octets = PUBLISH + content(b"x" * (announced + 1), size=announced)
    chunks = [octets[i : i + 13] for i in range(0, len(octets), 13)] if in_pieces else [octets]
    error = client.error(*chunks)
    if announced:
        assert error == TOO_LONG
    else:
        # The empty body was complete before: the frame belongs to no content.
        assert error[:2] == ("connection.close", 505)


def test_body_that_grows_too_long_in_its_last_frame_is_refused() -> None:
    client = began(10)
    client.tell(TINY * 9)
    assert client.error(encode_frame(BODY, 1, b"xx")) == TOO_LONG
    assert client.world.broker.memory_used == 0


@pytest.mark.parametrize("size", [(512 << 20) + 1, 1 << 40, 1 << 60, 1 << 63, (1 << 64) - 1])
@pytest.mark.parametrize("in_pieces", [True, False])
def test_body_announced_as_enormous_ends_the_connection_at_its_header(
    size: int, *, in_pieces: bool
) -> None:
    client = opened(world())
    header = encode_frame(HEADER, 1, encode_header(size))
    chunks = (PUBLISH, header) if in_pieces else (PUBLISH + header,)
    assert client.error(*chunks) == (
        "connection.close",
        501,
        f"FRAME_ERROR - content body size {size} exceeds maximum allowed size 536870912",
    )


def test_body_above_the_limit_closes_its_channel_at_its_header_and_the_rest_is_dropped() -> None:
    client = opened(world(message_size_max=1000), channels=2)
    header = encode_frame(HEADER, 1, encode_header(1001))
    assert client.error(PUBLISH + header) == (
        "channel.close",
        406,
        "PRECONDITION_FAILED - message size 1001 is larger than configured max size 1000",
    )
    client.tell(*[encode_frame(BODY, 1, b"x" * 500)] * 1000)
    assert held(client) == 0
    assert client.ask(2, "queue.declare", queue="q").name == "queue.declare-ok"


def test_empty_body_frames_keep_nothing_however_many() -> None:
    client = began(100)
    for _ in range(8):
        client.feed(EMPTY * 32_768)
        assert held(client) == 0
    [answer] = client.tell(
        encode_frame(BODY, 1, b"y" * 100) + method(1, "basic.get", queue="q", no_ack=True)
    )
    assert answer.method.body == b"y" * 100
    assert answer.method.message.body_frames == []
    assert client.world.broker.memory_used == 0


def test_body_in_a_hundred_thousand_tiny_frames_takes_the_memory_of_its_octets() -> None:
    size = 100_000
    client = began(size)
    for _ in range(10):
        client.feed(TINY * (size // 10 - 1) + EMPTY)
        assert held(client) <= 2 * size
    client.tell(TINY * 10)
    [queue] = client.world.vhost.queues.values()
    assert queue.messages_ready == 1
    assert queue.ready_bytes <= size + 1000
    [answer] = client.tell(method(1, "basic.get", queue="q"))
    assert answer.method.body == b"x" * size


@pytest.mark.parametrize("frame", [EMPTY, TINY])
def test_tiny_body_frame_costs_little_work(frame: bytes) -> None:
    client = began(1 << 20)
    assert steps(lambda: client.feed(frame * 10_000)) < 10_000 * 50


@pytest.mark.parametrize("piece", [1, 100, 4087, 4088, 5000])
def test_what_is_held_of_unfinished_bodies_counts_as_used_memory(piece: int) -> None:
    client = began(1 << 20)
    for number in range(2, 12):
        client.ask(number, "channel.open")
        client.feed(method(number, "basic.publish", routing_key="q"))
        client.feed(encode_frame(HEADER, number, encode_header(1 << 20)))
        client.feed(encode_frame(BODY, number, b"x" * piece))
    broker = client.world.broker
    assert broker.memory_used >= 10 * piece
    client.leave()
    assert broker.memory_used == 0


@pytest.mark.parametrize("end", ["channel.close", "wrong frame", "socket"])
def test_unfinished_body_is_given_back_however_its_channel_ends(end: str) -> None:
    client = began(1000)
    client.feed(encode_frame(BODY, 1, b"x" * 500))
    assert held(client) == 500
    broker = client.world.broker
    if end == "socket":
        client.leave()
    else:
        client.feed(method(1, "channel.close") if end == "channel.close" else PUBLISH)
        assert held(client) == 0
    assert broker.memory_used == 0


def test_client_whose_unfinished_bodies_are_above_the_memory_limit_is_closed() -> None:
    client = opened(world(memory=1_000_000), channels=50)
    for number in range(1, 51):
        client.feed(method(number, "basic.publish", routing_key="q"))
        client.feed(encode_frame(HEADER, number, encode_header(100_000_000)))
    frames = [encode_frame(BODY, turn % 50 + 1, b"x" * 100_000) for turn in range(100)]
    assert client.error(*frames)[:2] == ("connection.close", 506)
    assert client.world.broker.memory_used == 0


def test_unfinished_bodies_wait_while_others_take_the_memory() -> None:
    site = world(memory=1_000_000)
    opened(site).tell(method(1, "queue.declare", queue="q"), *[publish("q", b"x" * 90_000)] * 10)
    client = opened(site, channels=20)
    for number in range(1, 21):
        client.feed(method(number, "basic.publish", routing_key="q"))
        client.feed(encode_frame(HEADER, number, encode_header(200_000)))
    for number in range(1, 21):
        client.feed(encode_frame(BODY, number, b"x" * 100_000))
    assert site.broker.blocked == [client.connection]
    assert site.broker.memory_used < 1_200_000
    opened(site).tell(method(1, "queue.purge", queue="q"))
    assert not site.broker.blocked
    client.leave()
    assert site.broker.memory_used == 0
    assert not site.broker.blocked


def test_unfinished_bodies_of_many_connections_stay_near_the_memory_limit() -> None:
    site = world(memory=1_000_000)
    clients = [opened(site) for _ in range(50)]
    for client in clients:
        client.feed(PUBLISH + encode_frame(HEADER, 1, encode_header(100_000_000)))
    for _ in range(5):
        for client in clients:
            client.feed(encode_frame(BODY, 1, b"x" * 100_000))
    assert site.broker.memory_used < 3_000_000


def test_one_body_that_was_begun_ends_though_memory_is_short() -> None:
    client = began(3_000_000, memory=1_000_000)
    for _ in range(30):
        client.feed(encode_frame(BODY, 1, b"x" * 100_000))
    queue = client.world.vhost.queues["q"]
    assert queue.messages_ready == 1
    [answer] = client.tell(method(1, "basic.get", queue="q", no_ack=True))
    assert len(answer.method.body) == 3_000_000
    assert client.error(publish("q")) == ("running", 0, "")


def test_publish_after_publish_without_content_is_refused() -> None:
    client = opened(world())
    error = client.error(PUBLISH * 2)
    assert error[:2] == ("connection.close", 505)
    assert client.connection.state is ConnectionState.CLOSING


def test_message_whose_frames_are_not_its_own_is_not_published() -> None:
    client = opened(world(), channels=2)
    client.ask(1, "queue.declare", queue="q")
    whole = publish("q", b"hello")
    at = len(PUBLISH)
    other = whole[:at] + content(b"hello", channel=2)
    assert client.error(other)[:2] == ("connection.close", 505)
    assert client.world.vhost.queues["q"].messages_ready == 0

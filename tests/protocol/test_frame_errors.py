"""Broken frames: what is wrong is said once, and nothing behind it is kept."""

import pytest

from broker.protocol.connection import FRAME_MAX_BEFORE_TUNE
from broker.protocol.states import ConnectionState
from broker.wire.frames import BODY, FRAME_SIZE_FUDGE, METHOD, frame
from broker.wire.methods import Method, commands
from broker.wire.properties import HEADERS, header_frame
from broker.wire.table import encode_table
from tests.protocol.client import (
    Basic,
    Client,
    Queue,
    Received,
    Site,
    content_octets,
    is_close,
    octets_of,
    publish_octets,
    text,
)

Connection = commands.Connection
PUBLISH = octets_of(Basic.Publish, routing_key="q")


def only_close(client: Client) -> Received:
    (item,) = client.read()
    assert (item.channel, item.kind) == (0, Connection.Close)
    assert client.connection.state is ConnectionState.CLOSING
    return item


@pytest.mark.parametrize(
    ("octets", "shown"),
    [
        (b"\x01\x00\x01\x00\x00\x00\x04abcd\x00", 'type 1, all octets = <<"abcd">>'),
        (
            b"\x01\x00\x01\x00\x00\x00\x12" + b"\x01" * 18 + b"\x00",
            "type 1, first 16 octets = <<" + ",".join("1" * 16) + ">>",
        ),
        (b"\x08\x00\x00\x00\x00\x00\x00\x00", "type 8, all octets = <<>>"),
    ],
)
def test_wrong_frame_end_is_shown(client: Client, octets: bytes, shown: str) -> None:
    client.feed(octets)
    wanted = f"{shown}: {{invalid_frame_end_marker,0}}"
    assert is_close(only_close(client).method, 501, wanted, None)


@pytest.mark.parametrize("kind", [0, 4, 5, 6, 7, 9, 65, 255])
def test_unknown_kind_of_frame_is_an_error(client: Client, kind: int) -> None:
    client.feed(frame(kind, 1, b"12345678901234"))
    wanted = f'type {kind}, all octets = <<"12345678901234">>: unknown_frame'
    assert is_close(only_close(client).method, 501, wanted, None)


@pytest.mark.parametrize("payload", [b"", b"\x00", b"\x00\x0a\x00"])
def test_method_frame_too_short_for_a_method_is_an_error(client: Client, payload: bytes) -> None:
    client.feed(frame(METHOD, 0, payload))
    assert only_close(client).method.reply_text.endswith(": unknown_frame")


def test_header_frame_too_short_for_a_header_is_an_error(client: Client) -> None:
    client.feed(PUBLISH + frame(2, 1, b"\x00\x3c" + bytes(11)))
    assert only_close(client).method.reply_text.endswith(": unknown_frame")


@pytest.mark.parametrize("kind", [1, 2, 3, 8, 200])
@pytest.mark.parametrize("size", [131073, 2**31, 2**32 - 1])
def test_frame_above_frame_max_is_refused_by_its_first_seven_octets(
    client: Client, kind: int, size: int
) -> None:
    octets = bytes([kind]) + b"\x00\x01" + size.to_bytes(4, "big")
    for octet in octets:
        assert client.read() == []
        client.feed(bytes([octet]))
    wanted = f"type {kind}, all octets = <<>>: {{frame_too_large,{size},131064}}"
    assert is_close(only_close(client).method, 501, wanted, None)


def test_frame_a_little_above_frame_max_is_let_pass(site: Site) -> None:
    client = site.connect(frame_max=4096)
    client.queue()
    body = b"x" * (4096 - 8 + FRAME_SIZE_FUDGE)
    header = header_frame(1, len(body), 0, b"")
    client.feed(PUBLISH + header + frame(BODY, 1, body))
    assert client.ask(Basic.Get, queue="q", no_ack=True).message_count == 0
    client.feed(PUBLISH + header + frame(BODY, 1, body + b"x"))
    assert "frame_too_large,4097,4088" in only_close(client).method.reply_text


@pytest.mark.parametrize("together", [True, False])
def test_header_frame_above_frame_max_is_refused(site: Site, *, together: bool) -> None:
    client = site.connect(frame_max=4096)
    client.queue()
    headers = encode_table({"a": text("x" * 9000)})
    octets = publish_octets(b"x", flags=HEADERS, properties=headers)
    cut = 0 if together else len(PUBLISH)
    client.feed(octets[:cut])
    client.feed(octets[cut:])
    assert "frame_too_large,9025,4088" in only_close(client).method.reply_text
    assert site.vhost.queues["q"].messages == 0


def test_frames_before_the_login_are_smaller(site: Site) -> None:
    client = site.greet()
    client.feed(b"AMQP\x00\x00\x09\x01")
    client.read()
    client.feed(b"\x01\x00\x00" + (FRAME_MAX_BEFORE_TUNE + 1).to_bytes(4, "big"))
    assert client.connection.state is ConnectionState.CLOSED


@pytest.mark.parametrize(
    "broken",
    [
        b"\x01\x00\x01\xff\xff\xff\xff",
        b"\x01\x00\x01\x00\x00\x00\x04aaaa\x00",
    ],
)
def test_nothing_is_kept_after_broken_frames(client: Client, broken: bytes) -> None:
    client.feed(broken)
    only_close(client)
    for filler in (b"x" * 100_000, b"\x01" * 70_000, bytes(100_000), broken * 5000):
        for _ in range(5):
            client.feed(filler)
            assert len(client.connection._rest) <= 131072 + 8
    assert client.read() == []
    assert client.connection.state is ConnectionState.CLOSING


@pytest.mark.parametrize("cut", [0, 3, 7, 8])
@pytest.mark.parametrize("behind", [Queue.Delete, Connection.Close])
def test_frames_behind_a_broken_one_do_nothing(
    client: Client, behind: type[Method], cut: int
) -> None:
    client.queue()
    broken = b"\x08\x00\x00\x00\x00\x00\x00\x00"
    client.feed(broken[:cut])
    channel = 1 if behind is Queue.Delete else 0
    values = {"queue": "q"} if channel else {"reply_code": 200, "reply_text": ""}
    client.feed(broken[cut:] + octets_of(behind, channel, **values))
    only_close(client)
    assert "q" in client.site.vhost.queues


# Contents


def test_other_frame_where_a_header_is_expected(client: Client) -> None:
    client.feed(PUBLISH + frame(BODY, 1, b"x"))
    wanted = "expected content header for class 60, got non content header frame instead"
    assert is_close(only_close(client).method, 505, wanted, Basic.Publish)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("body", [b"", b"x"])
def test_content_of_another_channel_is_not_taken(
    site: Site, body: bytes, *, together: bool
) -> None:
    client = site.connect(channels=2)
    client.queue()
    body_frame = frame(BODY, 1, body) if body else b""
    chunks = [PUBLISH, header_frame(2, len(body), 0, b"") + body_frame]
    for chunk in [b"".join(chunks)] if together else chunks:
        client.feed(chunk)
    wanted = "expected method frame, got non method frame instead"
    assert is_close(only_close(client).method, 505, wanted, None)
    assert site.vhost.queues["q"].messages == 0


@pytest.mark.parametrize("class_id", [0, 50, 61, 65535])
def test_header_of_another_class(client: Client, class_id: int) -> None:
    header = bytearray(content_octets(b""))
    header[7:9] = class_id.to_bytes(2, "big")
    client.feed(PUBLISH + bytes(header))
    wanted = f"expected content header for class 60, got one for class {class_id} instead"
    assert is_close(only_close(client).method, 505, wanted, Basic.Publish)


def test_header_with_a_weight_is_no_header(client: Client) -> None:
    header = bytearray(content_octets(b""))
    header[10] = 1
    client.feed(PUBLISH + bytes(header))
    assert only_close(client).method.reply_code == 505


@pytest.mark.parametrize("kind", [METHOD, 2])
def test_other_frame_where_a_body_is_expected(client: Client, kind: int) -> None:
    other = octets_of(Queue.Declare, queue="q") if kind == METHOD else content_octets(b"")
    client.feed(PUBLISH + header_frame(1, 5, 0, b"") + other)
    wanted = "expected content body, got non content body frame instead"
    assert is_close(only_close(client).method, 505, wanted, Basic.Publish)


@pytest.mark.parametrize("pieces", [[b"123456"], [b"12345", b"6"], [b"1", b"", b"23456"]])
def test_body_longer_than_announced(client: Client, pieces: list[bytes]) -> None:
    frames = b"".join(frame(BODY, 1, piece) for piece in pieces)
    client.queue()
    client.feed(PUBLISH + header_frame(1, 5, 0, b"") + frames)
    close = client.read()[-1]
    if pieces[0] == b"12345":
        # The content was complete: what follows belongs to none.
        wanted = "expected method frame, got non method frame instead"
        assert is_close(close.method, 505, wanted, None)
        assert client.site.vhost.queues["q"].messages == 1
    else:
        wanted = "content body frame exceeds remaining content size"
        assert is_close(close.method, 501, wanted, Basic.Publish)
        assert client.site.vhost.queues["q"].messages == 0


@pytest.mark.parametrize("size", [2**29 + 1, 2**60, 2**64 - 1])
def test_body_announced_beyond_all_bounds(client: Client, size: int) -> None:
    client.feed(PUBLISH + header_frame(1, size, 0, b""))
    wanted = f"content body size {size} exceeds maximum allowed size 536870912"
    assert is_close(only_close(client).method, 501, wanted, Basic.Publish)
    assert client.site.broker.memory_used == 0


def test_body_above_the_largest_message_closes_the_channel() -> None:
    site = Site(message_size_max=1000)
    client = site.connect()
    client.queue()
    client.publish(b"x" * 1000)
    client.publish(b"x" * 1001)
    (item,) = client.read()
    wanted = "message size 1001 is larger than configured max size 1000"
    assert is_close(item.method, 406, wanted, Basic.Publish)
    assert site.vhost.queues["q"].messages == 1


@pytest.mark.parametrize(
    ("flags", "octets"),
    [
        (0, b"\x00"),
        (1, b""),
        (0x8000, b""),
        (0x8000, b"\x05abc"),
        (HEADERS, b"\x00\x00\x00\x05\x01aV"),
        (HEADERS, b"\x00\x00\x00\x03\x01a?"),
        (HEADERS, b"\xff\xff\xff\xff"),
    ],
)
@pytest.mark.parametrize("together", [True, False])
def test_malformed_header_is_a_syntax_error(
    client: Client, flags: int, octets: bytes, *, together: bool
) -> None:
    client.queue()
    content = header_frame(1, 1, flags, octets) + frame(BODY, 1, b"x")
    for chunk in [PUBLISH + content] if together else [PUBLISH, content]:
        client.feed(chunk)
    wanted = "malformed content header"
    assert is_close(only_close(client).method, 502, wanted, Basic.Publish)
    assert client.site.vhost.queues["q"].messages == 0


def test_content_on_channel_0_is_unexpected(client: Client) -> None:
    client.feed(content_octets(b"x", channel=0))
    close = only_close(client).method
    assert close.reply_code == 505
    assert close.reply_text.startswith("UNEXPECTED_FRAME - type 2, ")

"""Large bodies come in many chunks: their frames are kept in pieces, which nobody may notice."""

import pytest

from broker.protocol import reader
from broker.protocol.connection import Connection
from broker.protocol.remainder import Remainder
from broker.wire.frames import BODY, frame
from broker.wire.properties import header_frame
from tests.protocol.client import Basic, Site, octets_of, publish_octets

BODY_SIZE = 700_001
BEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"


def body_of(size: int) -> bytes:
    return bytes(number * 7 % 251 for number in range(1000)) * (size // 1000 + 1)


@pytest.mark.parametrize("frame_size", [4096, 5000, 65_536, 131_072])
@pytest.mark.parametrize("chunk_size", [4099, 50_000, 131_071, 131_080, 256_000])
def test_body_cut_anywhere_is_the_same(site: Site, frame_size: int, chunk_size: int) -> None:
    body = body_of(BODY_SIZE)[:BODY_SIZE]
    client = site.connect()
    client.queue()
    client.consume(no_ack=True)
    octets = publish_octets(body, frame_max=frame_size) + publish_octets(b"next")
    for start in range(0, len(octets), chunk_size):
        client.feed(octets[start : start + chunk_size])
    assert client.bodies() == [body, b"next"]


def test_frames_of_a_body_are_taken_in_pieces(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[bool] = []
    take = reader.take_body_frame

    def counted(connection: Connection, rest: Remainder) -> bool:
        taken.append(take(connection, rest))
        return taken[-1]

    monkeypatch.setattr("broker.protocol.connection.take_body_frame", counted)
    client = site.connect()
    client.queue()
    octets = publish_octets(body_of(BODY_SIZE))
    for start in range(0, len(octets), 100_000):
        client.feed(octets[start : start + 100_000])
    assert taken.count(True) > 3


@pytest.mark.parametrize("cut", [False, True])
def test_wrong_end_of_a_large_frame_is_noticed(site: Site, *, cut: bool) -> None:
    client = site.connect()
    start = octets_of(Basic.Publish, routing_key="q") + header_frame(1, 300_000, 0, b"")
    wrong = frame(BODY, 1, bytes(100_000))[:-1] + b"\x00"
    octets = start + wrong + BEAT
    for chunk in [octets[:60_000], octets[60_000:]] if cut else [octets]:
        client.feed(chunk)
    (close,) = client.read()
    assert close.method.reply_code == 501
    assert "invalid_frame_end_marker,0" in close.method.reply_text


@pytest.mark.parametrize("cut", [False, True])
def test_large_frame_beyond_its_body_is_noticed(site: Site, *, cut: bool) -> None:
    client = site.connect()
    start = octets_of(Basic.Publish, routing_key="q") + header_frame(1, 99_999, 0, b"")
    octets = start + frame(BODY, 1, bytes(100_000))
    for chunk in [octets[:60_000], octets[60_000:]] if cut else [octets]:
        client.feed(chunk)
    (close,) = client.read()
    assert close.method.reply_code == 501
    assert "exceeds remaining content size" in close.method.reply_text


def test_large_frame_waits_for_memory_too(site: Site) -> None:
    client = site.connect(channels=2)
    client.queue()
    client.publish(bytes(90_000))
    limits = site.broker.limits
    site.broker.limits = type(limits)(memory=100_000)
    for channel in (1, 2):
        client.feed(octets_of(Basic.Publish, channel, routing_key="q"))
        client.feed(header_frame(channel, 200_000, 0, b""))
    octets = b"".join(frame(BODY, channel, bytes(60_000)) for channel in (1, 2))
    for start in range(0, len(octets), 45_000):
        client.feed(octets[start : start + 45_000])
    assert client.connection.is_blocked
    assert site.broker.memory_used < 160_000

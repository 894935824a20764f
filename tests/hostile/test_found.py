"""What fuzzing found: sequences whose answers once depended on where they were cut.

Each is fed whole, octet by octet, and in two pieces cut at every place.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from conformance.fuzz.answers import differences
from conformance.fuzz.frames import nested_table
from conformance.fuzz.world import (
    PROTOCOL_HEADER,
    World,
    method,
    open_vhost,
    start_ok,
    tune_ok,
)
from conformance.methods import encode_frame, encode_header

from .client import content, publish, world

OPEN = method(1, "channel.open")
DECLARE = method(1, "queue.declare", queue="q")
CONSUME = method(1, "basic.consume", queue="q", consumer_tag="t", no_ack=True)
PUBLISH = method(1, "basic.publish", exchange="missing")


def header(properties: bytes, size: int = 0) -> bytes:
    return encode_frame(2, 1, encode_header(size, properties))


def claims(size: int, kind: int = 1) -> bytes:
    """The first seven octets of a frame of this size."""
    return encode_frame(kind, 1, b"")[:3] + size.to_bytes(4, "big")


AFTER_LOGIN: dict[str, bytes] = {
    # An error came before the deliveries of what was published in the same chunk.
    "an error behind a publish to the own consumer": OPEN
    + DECLARE
    + CONSUME
    + publish("q", b"first")
    + method(1, "queue.declare", queue="missing", passive=True),
    "a broken frame behind a publish to the own consumer": OPEN
    + DECLARE
    + CONSUME
    + publish("q", b"first")
    + encode_frame(1, 1, b"\x00\x3c\x00\x0a", 0),
    # Sizes just above the limit were judged differently in a frame that came in pieces.
    "a frame one octet too large": OPEN + claims(131073) + b"x" * 20,
    "a frame eight octets too large": OPEN + claims(131080) + b"x" * 20,
    "a frame as large as may be": OPEN + claims(131072) + b"x" * 20,
    "a frame header alone": claims(1 << 24),
    # The content header was checked before the exchange, or after it.
    "a deep header to a missing exchange": OPEN
    + PUBLISH
    + header(b"\x20\x00" + b"\x00\x00\x06\xea" + nested_table(300, b"A")[:1770]),
    "unknown property flags to a missing exchange": OPEN + PUBLISH + header(b"\x00\x03"),
    "a large body to a missing exchange": OPEN + PUBLISH + header(b"\x00\x00", 1 << 40),
    # What was wrong with a content header was read from the octets behind it.
    "a header table cut off before other frames": OPEN
    + method(1, "basic.publish", routing_key="q")
    + header(b"\x20\x00" + b"\x00\x00\x00\x20" + b"\x01aS\x00\x00\x00\x10")
    + encode_frame(8, 0, b"") * 9,
    "a property cut off before other frames": OPEN
    + method(1, "basic.publish", routing_key="q")
    + header(b"\x80\x00" + b"\xff")
    + encode_frame(3, 1, b"\x01" * 30),
    "a table one octet too long": OPEN
    + method(1, "basic.publish", routing_key="q")
    + header(b"\x20\x00" + b"\x00\x00\x00\x05" + b"\x01aV")
    + encode_frame(8, 0, b"") * 9,
    "several contents, one of them in pieces": OPEN
    + DECLARE
    + CONSUME
    + publish("q", b"one") * 3
    + method(1, "basic.publish", routing_key="q")
    + header(b"\x00\x00", 6)
    + encode_frame(3, 1, b"")
    + encode_frame(3, 1, b"two")
    + encode_frame(3, 1, b"and")
    + publish("q", b"three", {"headers": {"CC": ["q", "r"]}}),
    "returns between deliveries": OPEN
    + DECLARE
    + CONSUME
    + (publish("q", b"there") + publish("nowhere", b"back", mandatory=True)) * 3,
}
BEFORE_LOGIN: dict[str, bytes] = {
    "a whole handshake": PROTOCOL_HEADER + start_ok() + tune_ok() + open_vhost() + OPEN + DECLARE,
    "a wrong password": PROTOCOL_HEADER + start_ok(b"guest", b"wrong") + tune_ok(),
    "a frame too large": PROTOCOL_HEADER + claims(8193)[:1] + b"\0\0" + claims(8193)[3:] + b"x" * 9,
    "a header that is not ours": b"AMQP\x00\x00\x09\x02" + start_ok(),
    "a hello of something else": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    # After a broken frame the next chunk was read as if a frame began with it.
    "a close behind a broken frame behind an error": PROTOCOL_HEADER
    + start_ok()
    + tune_ok(0, 0)
    + b"\0\0\x0c\0\x0a\0\x1f\0\0\0\0\0\0\0\0\xce"
    + method(0, "connection.close"),
    "a method before its time": PROTOCOL_HEADER + tune_ok() + start_ok(),
}


def answer(octets: Sequence[bytes], *, logged_in: bool) -> tuple[bytes, World]:
    """What a new broker answers to octets in these pieces."""
    site = world(channel_max=5)
    peer = site.logged_in() if logged_in else site.connect()
    for piece in octets:
        peer.feed(piece)
    told = peer.take()
    peer.leave()
    assert not site.errors
    return told, site


CASES = [(name, True) for name in AFTER_LOGIN] + [(name, False) for name in BEFORE_LOGIN]


@pytest.mark.parametrize(("name", "logged_in"), CASES)
def test_answers_are_the_same_wherever_the_octets_are_cut(name: str, *, logged_in: bool) -> None:
    octets = (AFTER_LOGIN | BEFORE_LOGIN)[name]
    whole, site = answer([octets], logged_in=logged_in)
    cuts = [[octets[:at], octets[at:]] for at in range(1, len(octets), 1 + len(octets) // 150)]
    for pieces in ([octets[i : i + 1] for i in range(len(octets))], *cuts):
        told, other = answer(pieces, logged_in=logged_in)
        assert differences(whole, told) == ""
        ready = [
            [queue.messages_ready for queue in each.vhost.queues.values()] for each in (site, other)
        ]
        assert ready[0] == ready[1]


def test_contents_of_two_channels_come_in_turns() -> None:
    two = OPEN + method(2, "channel.open") + DECLARE + CONSUME
    frames = [publish("q", b"a" * 10), publish("q", b"b" * 10, channel=2)]
    heads = [
        method(1, "basic.publish", routing_key="q"),
        method(2, "basic.publish", routing_key="q"),
    ]
    bodies = [content(b"a" * 10), content(b"b" * 10, channel=2)]
    told, _ = answer([two + heads[0] + heads[1] + bodies[0] + bodies[1]], logged_in=True)
    expected, _ = answer([two + frames[0] + frames[1]], logged_in=True)
    assert differences(told, expected) == ""

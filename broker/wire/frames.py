"""Frames: the seven octets in front, the one behind (AMQP 0-9-1, section 2.3.5)."""

from __future__ import annotations

import struct

METHOD = 1
HEADER = 2
BODY = 3
HEARTBEAT = 8
FRAME_END = 0xCE

FRAME_OVERHEAD = 8
"""Octets of a frame around its payload."""
FRAME_MIN_SIZE = 4096
"""No negotiation may go below this frame size (AMQP 0-9-1, section 4.2.3)."""
FRAME_MAX_SIZE = 131072
"""The frame size offered to clients, RabbitMQ's default."""
FRAME_SIZE_FUDGE = 8
"""Octets by which a frame may exceed frame_max: some clients count without the overhead."""

FRAME_HEADER = struct.Struct(">BHL")
CONTENT_HEADER = struct.Struct(">BHLHHQH")
"""Frame header, class id, weight, body size and the first word of property flags."""
CONTENT_HEADER_MIN = CONTENT_HEADER.size + 1

HEARTBEAT_FRAME = b"\x08\x00\x00\x00\x00\x00\x00\xce"
PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    """One frame around `payload`."""
    return FRAME_HEADER.pack(kind, channel, len(payload)) + payload + b"\xce"


def body_frames(channel: int, body: bytes | bytearray, frame_max: int) -> list[bytes]:
    """The body frames of one content; none for an empty body."""
    step = frame_max - FRAME_OVERHEAD
    pieces: list[bytes] = []
    for at in range(0, len(body), step):
        part = bytes(body[at : at + step])
        pieces += (FRAME_HEADER.pack(BODY, channel, len(part)), part, b"\xce")
    return pieces


def reframe(content: bytes, header_size: int, channel: int, frame_max: int) -> bytes:
    """The frames of one content, rewritten for another channel number and frame size.

    `content` is a header frame of `header_size` octets followed by body frames. Body frames
    that fit are only renumbered; if one does not fit, the whole body is cut anew. The header
    frame cannot be cut: it is the publisher's, and is passed on as it came.
    """
    number = channel.to_bytes(2, "big")
    size = len(content)
    at = header_size
    if (
        size <= frame_max
        and int.from_bytes(content[at + 3 : at + 7], "big") == size - at - FRAME_OVERHEAD
    ):
        return b"\x02%b%b\x03%b%b" % (number, content[3:at], number, content[at + 3 :])
    pieces = [b"\x02", number, content[3:header_size]]
    while at < size:
        length = int.from_bytes(content[at + 3 : at + 7], "big")
        if length > frame_max - FRAME_OVERHEAD:
            return b"".join(
                pieces[:3] + body_frames(channel, body(content, header_size), frame_max)
            )
        end = at + FRAME_OVERHEAD + length
        pieces += (b"\x03", number, content[at + 3 : end])
        at = end
    return b"".join(pieces)


def body(content: bytes, header_size: int) -> bytes:
    """The body octets in `content` (a header frame followed by body frames)."""
    at = header_size
    size = len(content)
    pieces: list[bytes] = []
    while at < size:
        end = at + 7 + int.from_bytes(content[at + 3 : at + 7], "big")
        pieces.append(content[at + 7 : end])
        at = end + 1
    return b"".join(pieces)

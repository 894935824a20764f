"""Message bodies that tell who published them, and whether they are still what was sent."""

from __future__ import annotations

import random
import struct
import zlib
from typing import Any

# Publisher, number, checksum of both and of what follows.
_HEAD = struct.Struct(">HII")
_NAME = struct.Struct(">HI")
SMALLEST = _HEAD.size
LARGEST = 200_000
# What bodies are cut from: neither compressible nor repeating within a body.
_NOISE = random.Random(1).randbytes(LARGEST * 2)

Key = tuple[int, int]
"""(publisher, number): what names a message for the whole life of a data directory."""


def make_body(publisher: int, number: int, size: int) -> bytes:
    """A body of `size` octets (at least SMALLEST, at most LARGEST), always the same one."""
    name = _NAME.pack(publisher, number)
    offset = (publisher * 31 + number) * 9973 % LARGEST
    rest = _NOISE[offset : offset + size - SMALLEST]
    return name + struct.pack(">I", zlib.crc32(rest, zlib.crc32(name))) + rest


def read_body(body: bytes) -> Key | None:
    """Who published it and which one it is; None if an octet is not as it was."""
    if len(body) < SMALLEST:
        return None
    publisher, number, checksum = _HEAD.unpack_from(body)
    found = zlib.crc32(memoryview(body)[SMALLEST:], zlib.crc32(body[: _NAME.size]))
    return (publisher, number) if found == checksum else None


def random_size(chance: random.Random) -> int:
    """Mostly small, now and then LARGEST."""
    share = chance.random()
    if share < 0.7:
        return chance.randint(SMALLEST, 300)
    if share < 0.96:
        return chance.randint(300, 5_000)
    if share < 0.995:
        return chance.randint(5_000, 50_000)
    return chance.randint(50_000, LARGEST)


def properties_of(publisher: int, number: int, persistent: bool, priority: int) -> dict[str, Any]:
    """The properties that this message is sent with, and must come back with."""
    return {
        "content_type": "application/octet-stream",
        "headers": {"publisher": publisher, "number": number},
        "delivery_mode": 2 if persistent else 1,
        "priority": priority,
        "message_id": f"{publisher}.{number}",
    }

"""Damage to octets that were fine: what lines, memory and bad clients do to frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

ODD_OCTETS = bytes((0, 1, 2, 3, 8, 60, 0x7F, 0x80, 0xCE, 0xFF))
ODD_SIZES = (0, 1, 3, 4, 13, 14, 4088, 131064, 131065, 131072, 131073, 1 << 31, (1 << 32) - 1)
Steps = list[bytes]
Mutation = Callable[[bytearray, Random, Sequence[bytes]], None]


def frame_starts(octets: bytes | bytearray) -> list[int]:
    """Where the frames of well-formed octets begin, as far as they go."""
    starts = []
    at = 0
    while at + 7 <= len(octets):
        starts.append(at)
        at += 8 + int.from_bytes(octets[at + 3 : at + 7], "big")
    return starts


def _place(octets: bytearray, random: Random) -> int:
    return int(random.random() * len(octets))


def flip_bit(octets: bytearray, random: Random, units: Sequence[bytes]) -> None:
    """One bit is another."""
    octets[_place(octets, random)] ^= 1 << int(random.random() * 8)


def set_octet(octets: bytearray, random: Random, units: Sequence[bytes]) -> None:
    """One octet has a value that means something elsewhere."""
    octets[_place(octets, random)] = random.choice(ODD_OCTETS)


def truncate(octets: bytearray, random: Random, units: Sequence[bytes]) -> None:
    """The end is missing."""
    del octets[_place(octets, random) :]


def delete(octets: bytearray, random: Random, units: Sequence[bytes]) -> None:
    """A piece is missing."""
    at = _place(octets, random)
    del octets[at : at + 1 + int(random.random() * 16)]


def duplicate(octets: bytearray, random: Random, units: Sequence[bytes]) -> None:
    """A piece comes twice."""
    at = _place(octets, random)
    piece = octets[at : at + 1 + int(random.random() * 64)]
    octets[at:at] = piece


def duplicate_frame(octets: bytearray, random: Random, units: Sequence[bytes]) -> None:
    """A whole frame comes twice."""
    starts = frame_starts(octets)
    if starts:
        at = random.choice(starts)
        end = at + 8 + int.from_bytes(octets[at + 3 : at + 7], "big")
        octets[at:at] = octets[at:end]


def delete_frame(octets: bytearray, random: Random, units: Sequence[bytes]) -> None:
    """A whole frame is missing."""
    starts = frame_starts(octets)
    if starts:
        at = random.choice(starts)
        del octets[at : at + 8 + int.from_bytes(octets[at + 3 : at + 7], "big")]


def change_size(octets: bytearray, random: Random, units: Sequence[bytes]) -> None:
    """A frame says another size than it has."""
    starts = frame_starts(octets)
    if starts:
        at = random.choice(starts) + 3
        size = int.from_bytes(octets[at : at + 4], "big")
        size = random.choice((size - 1, size + 1, size + 8, *ODD_SIZES)) & 0xFFFFFFFF
        octets[at : at + 4] = size.to_bytes(4, "big")


def change_channel(octets: bytearray, random: Random, units: Sequence[bytes]) -> None:
    """A frame comes on another channel."""
    starts = frame_starts(octets)
    if starts:
        at = random.choice(starts) + 1
        octets[at : at + 2] = random.choice((0, 1, 2, 3, 2047, 2048, 65535)).to_bytes(2, "big")


def splice(octets: bytearray, random: Random, units: Sequence[bytes]) -> None:
    """A piece of something else, or the whole of it, gets in between."""
    other = random.choice(units)
    if random.random() < 0.5:
        at = int(random.random() * len(other))
        other = other[at : at + 1 + int(random.random() * 32)]
        place = _place(octets, random)
    else:
        place = random.choice([0, *frame_starts(octets)])
    octets[place:place] = other


MUTATIONS: Sequence[Mutation] = (
    *(flip_bit, flip_bit, set_octet, truncate, delete, duplicate, duplicate_frame, delete_frame),
    *(change_size, change_channel, splice, splice),
)


def mutate(steps: Steps, random: Random, units: Sequence[bytes]) -> None:
    """Damages some of the steps, in one to four places."""
    count = 1 if random.random() < 0.7 else 2 + int(random.random() * 3)
    for _ in range(count):
        place = int(random.random() * len(steps))
        octets = bytearray(steps[place])
        if octets:
            random.choice(MUTATIONS)(octets, random, units)
            steps[place] = bytes(octets)
    if random.random() < 0.05:
        random.shuffle(steps)

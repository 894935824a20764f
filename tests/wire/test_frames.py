"""Frames of contents: cutting a body, renumbering, cutting anew."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.wire.frames import (
    BODY,
    CONTENT_HEADER_MIN,
    FRAME_HEADER,
    HEADER,
    HEARTBEAT_FRAME,
    PROTOCOL_HEADER,
    body,
    body_frames,
    frame,
    reframe,
)
from broker.wire.properties import header_frame
from tests.wire.profiles import examples

channels = st.integers(1, 65535)
# Small frame sizes reach every way of cutting with short bodies.
frame_sizes = st.one_of(st.integers(9, 60), st.just(4096))


def parsed(octets: bytes) -> list[tuple[int, int, bytes]]:
    """(kind, channel, payload) of each frame."""
    found = []
    at = 0
    while at < len(octets):
        kind, channel, size = FRAME_HEADER.unpack_from(octets, at)
        found.append((kind, channel, octets[at + 7 : at + 7 + size]))
        assert octets[at + 7 + size] == 0xCE
        at += size + 8
    assert at == len(octets)
    return found


def cut(octets: bytes, places: list[int]) -> list[bytes]:
    """A body in pieces, as a client may send it; empty ones too."""
    edges = [0, *sorted(min(place, len(octets)) for place in places), len(octets)]
    return [octets[a:b] for a, b in pairwise(edges)]


contents = st.tuples(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=6))


def test_fixed_octets_are_those_of_the_spec() -> None:
    assert PROTOCOL_HEADER == b"AMQP\x00\x00\x09\x01"
    assert parsed(HEARTBEAT_FRAME) == [(8, 0, b"")]
    assert len(header_frame(1, 0, 0, b"")) == CONTENT_HEADER_MIN


@examples(100)
@given(st.integers(0, 255), st.integers(0, 65535), st.binary(max_size=40))
def test_frame_says_what_is_in_it(kind: int, channel: int, payload: bytes) -> None:
    assert parsed(frame(kind, channel, payload)) == [(kind, channel, payload)]


@examples(80)
@given(channels, st.binary(max_size=300), frame_sizes)
def test_body_frames_are_full_but_for_the_last(channel: int, octets: bytes, size: int) -> None:
    frames = parsed(b"".join(body_frames(channel, octets, size)))
    assert b"".join(payload for _, _, payload in frames) == octets
    assert all((kind, number) == (BODY, channel) for kind, number, _ in frames)
    assert [len(payload) for _, _, payload in frames[:-1]] == [size - 8] * (len(frames) - 1)
    assert all(0 < len(payload) <= size - 8 for _, _, payload in frames)


@examples(100)
@given(contents, channels)
def test_body_of_a_content_is_what_its_frames_hold(
    content: tuple[bytes, list[int]], channel: int
) -> None:
    octets, places = content
    header = header_frame(channel, len(octets), 0, b"")
    pieces = b"".join(frame(BODY, channel, piece) for piece in cut(octets, places))
    assert body(header + pieces, len(header)) == octets


@examples(100)
@given(contents, channels, channels, frame_sizes, st.binary(max_size=20))
def test_reframed_content_has_the_same_header_and_body(
    content: tuple[bytes, list[int]], channel: int, new_channel: int, size: int, rest: bytes
) -> None:
    octets, places = content
    header = header_frame(channel, len(octets), 0x8000, bytes([len(rest)]) + rest)
    pieces = [piece for piece in cut(octets, places) if piece]
    original = header + b"".join(frame(BODY, channel, piece) for piece in pieces)
    frames = parsed(reframe(original, len(header), new_channel, size))
    assert frames[0] == (HEADER, new_channel, header[7:-1])
    assert b"".join(payload for _, _, payload in frames[1:]) == octets
    assert all((kind, number) == (BODY, new_channel) for kind, number, _ in frames[1:])
    assert all(len(payload) <= size - 8 for _, _, payload in frames[1:])
    # What fits is passed on as it was cut.
    if all(len(piece) <= size - 8 for piece in pieces):
        assert [payload for _, _, payload in frames[1:]] == pieces


@examples(60)
@given(contents, channels, channels)
def test_reframing_there_and_back_changes_nothing(
    content: tuple[bytes, list[int]], channel: int, other: int
) -> None:
    octets, places = content
    header = header_frame(channel, len(octets), 0, b"")
    pieces = [piece for piece in cut(octets, places) if piece]
    original = header + b"".join(frame(BODY, channel, piece) for piece in pieces)
    there = reframe(original, len(header), other, 4096)
    assert reframe(there, len(header), channel, 4096) == original
    assert there == original or channel != other


@pytest.mark.parametrize("length", [0, 1, 4087, 4088, 4089, 8176, 8177])
def test_body_at_the_edges_of_the_frame_size_is_cut_anew(length: int) -> None:
    octets = bytes(range(256)) * 32
    octets = octets[:length]
    content = header_frame(1, length, 0, b"") + b"".join(body_frames(1, octets, 131072))
    frames = parsed(reframe(content, CONTENT_HEADER_MIN, 2, 4096))[1:]
    sizes = [len(payload) for _, _, payload in frames]
    assert sizes == [4088] * (length // 4088) + [length % 4088] * bool(length % 4088)

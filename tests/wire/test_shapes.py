"""Shapes of headers: whatever is recognised is sound, and says nothing special to the broker.

An adversary who knows what a channel has learnt changes any octets of it.
"""

from hypothesis import given
from hypothesis import strategies as st

from broker.wire.properties import (
    EXPIRATION,
    HEADERS,
    REPLY_TO,
    USER_ID,
    check_properties,
    header_frame,
    headers_table,
    text_property,
)
from broker.wire.shape import LESSONS, SHAPES_MAX, SIZE_MAX, Shapes, value_spans
from broker.wire.table import Field, encode_table
from tests.wire.contents import flags_and_octets, raw_properties
from tests.wire.profiles import examples

SENDER_KEYS = ("CC", "BCC")
REPLY = "amq.rabbitmq.reply-to"


def is_plain(flags: int, octets: bytes) -> bool:
    """Whether nothing in a sound property list asks the broker to do anything."""
    header = header_frame(1, 0, flags, octets)
    if flags & (EXPIRATION | USER_ID) or headers_table(header).keys() & set(SENDER_KEYS):
        return False
    return REPLY not in (text_property(header, REPLY_TO) or "")


def assert_sound(shapes: Shapes, octets: bytes, flags: int) -> bool:
    """What is known must be sound and plain. Returns whether it is known."""
    if not shapes.knows(b"ab" + octets + b"\xce", 2, 2 + len(octets), flags):
        return False
    check_properties(octets, 0, len(octets), flags)
    assert is_plain(flags, octets)
    return True


def learn(shapes: Shapes, octets: bytes, flags: int) -> None:
    """As the hot path does: only what was not known, is sound, and is plain."""
    if not shapes.knows(octets, 0, len(octets), flags):
        check_properties(octets, 0, len(octets), flags)
        if is_plain(flags, octets):
            shapes.learn(octets, 0, len(octets), flags)


plain_properties = raw_properties.map(
    lambda chosen: {f: octets for f, octets in chosen.items() if not f & (EXPIRATION | USER_ID)}
)


def filled(octets: bytes, flags: int, fill: bytes) -> bytes:
    """The same list with other values in the places where values are."""
    changed = bytearray(octets)
    at = 0
    for start, stop in value_spans(octets, flags):
        for place in range(start, stop):
            changed[place] = fill[at % len(fill)] if fill else 0
            at += 1
    return bytes(changed)


@examples(40)
@given(plain_properties, st.lists(st.binary(max_size=8), max_size=4), st.randoms())
def test_every_octet_of_what_was_learnt_may_be_changed(
    chosen: dict[int, bytes], fills: list[bytes], random: object
) -> None:
    flags, octets = flags_and_octets(chosen)
    shapes = Shapes()
    learn(shapes, octets, flags)
    for fill in fills:
        learn(shapes, filled(octets, flags, fill), flags)
    for at in range(len(octets)):
        for new in (0, 1, 255, octets[at] ^ 1, *b"FASxCBq"):
            assert_sound(shapes, octets[:at] + bytes([new]) + octets[at + 1 :], flags)
    for other in (0, flags ^ 0x8000, flags | HEADERS, flags | REPLY_TO, flags | EXPIRATION):
        assert_sound(shapes, octets, other)


@examples(60)
@given(
    plain_properties, st.lists(st.binary(min_size=1, max_size=8), min_size=1, max_size=3), st.data()
)
def test_many_octets_of_what_was_learnt_may_be_changed(
    chosen: dict[int, bytes], fills: list[bytes], data: st.DataObject
) -> None:
    flags, octets = flags_and_octets(chosen)
    shapes = Shapes()
    for fill in (b"", *fills):
        learn(shapes, filled(octets, flags, fill), flags)
    changed = bytearray(octets)
    changes = st.tuples(st.integers(0, max(len(octets) - 1, 0)), st.integers(0, 255))
    for at, new in data.draw(st.lists(changes, max_size=8)):
        changed[at : at + 1] = [new]
    assert_sound(shapes, bytes(changed[: len(octets)]), flags)


@examples(30)
@given(st.lists(plain_properties, min_size=1, max_size=4))
def test_lists_of_several_structures_do_not_mix(several: list[dict[int, bytes]]) -> None:
    shapes = Shapes()
    lists = [flags_and_octets(chosen) for chosen in several]
    for flags, octets in lists:
        learn(shapes, octets, flags)
    for _, octets in lists:
        for other, _ in lists:
            assert_sound(shapes, octets, other)


@examples(30)
@given(plain_properties, st.binary(min_size=1, max_size=8), st.binary(min_size=1, max_size=8))
def test_values_that_were_seen_to_change_may_change(
    chosen: dict[int, bytes], first: bytes, second: bytes
) -> None:
    flags, octets = flags_and_octets(chosen)
    if not is_plain(flags, octets):
        return
    shapes = Shapes()
    learn(shapes, octets, flags)
    assert assert_sound(shapes, octets, flags)
    opposite = bytes(255 - octet for octet in octets)
    # Every value becomes a gap once it differs from the first sample.
    changed = bytearray(octets)
    for start, stop in value_spans(octets, flags):
        changed[start:stop] = opposite[start:stop]
    learn(shapes, bytes(changed), flags)
    for fill in (first, second):
        assert assert_sound(shapes, filled(octets, flags, fill), flags)


def labelled(name: str, value: str) -> tuple[bytes, int]:
    return encode_table({name: Field("longstr", value)}), HEADERS


def test_name_of_a_header_is_never_a_value() -> None:
    shapes = Shapes()
    for name in ("C0", "XX", "0C"):
        learn(shapes, *labelled(name, "12345678"))
        learn(shapes, *labelled(name, "abcdefgh"))
    assert shapes.knows(*_placed(*labelled("C0", "zzzzzzzz")))
    assert not shapes.knows(*_placed(*labelled("CC", "zzzzzzzz")))


def _placed(octets: bytes, flags: int) -> tuple[bytes, int, int, int]:
    return octets, 0, len(octets), flags


def test_reply_to_is_never_a_value() -> None:
    shapes = Shapes()
    for address in ("a" * len(REPLY), "b" * len(REPLY)):
        octets = bytes([len(REPLY)]) + address.encode()
        learn(shapes, octets, REPLY_TO)
    assert not shapes.knows(*_placed(bytes([len(REPLY)]) + REPLY.encode(), REPLY_TO))


def test_boundary_between_two_values_may_not_move() -> None:
    one = b"\x03aaa\x05bbbbb"
    shapes = Shapes()
    learn(shapes, one, 0xC000)
    learn(shapes, b"\x03ccc\x05ddddd", 0xC000)
    assert shapes.knows(*_placed(b"\x03xyz\x05vwxyz", 0xC000))
    assert not shapes.knows(*_placed(b"\x05aaaaa\x03bbb", 0xC000))
    # Shorter inside the same octets: the second length would become part of a value.
    assert not shapes.knows(*_placed(b"\x02aa\x05bbbbb\x00", 0xC000))


def test_what_has_no_common_shape_is_learnt_from_seldom() -> None:
    shapes = Shapes()
    texts = [f"{number:04}".encode() for number in range(400)]
    known = 0
    for text in texts:
        # The same size and flags, but lengths that differ.
        split = 1 + int(text[-1:]) % 4
        octets = bytes([split]) + text[:split] + bytes([4 - split]) + text[split:]
        known += shapes.knows(*_placed(octets, 0xC000))
        learn(shapes, octets, 0xC000)
        assert_sound(shapes, octets, 0xC000)
    assert LESSONS < 64 < len(texts)
    assert known < len(texts) // 2


def test_shapes_that_are_remembered_are_bounded() -> None:
    shapes = Shapes()
    for size in range(SHAPES_MAX * 3):
        octets = bytes([size]) + b"x" * size
        learn(shapes, octets, 0x8000)
        assert shapes.knows(*_placed(octets, 0x8000))
    remembered = sum(
        shapes.knows(*_placed(bytes([size]) + b"x" * size, 0x8000))
        for size in range(SHAPES_MAX * 3)
    )
    assert 1 <= remembered <= SHAPES_MAX


def test_long_property_lists_are_not_learnt() -> None:
    shapes = Shapes()
    for size, is_learnt in ((SIZE_MAX, True), (SIZE_MAX + 1, False)):
        octets = encode_table({"a": Field("longstr", "x" * (size - 11))})
        assert len(octets) == size
        learn(shapes, octets, HEADERS)
        assert shapes.knows(*_placed(octets, HEADERS)) == is_learnt

"""Input that waits, in pieces."""

from hypothesis import given
from hypothesis import strategies as st

from broker.protocol.remainder import Remainder, piece_of

chunks = st.lists(
    st.tuples(st.integers(0, 20_000), st.integers(0, 20_000), st.integers(0, 20_000)), max_size=8
)


@given(chunks)
def test_pieces_are_the_octets_that_were_added(sizes: list[tuple[int, int, int]]) -> None:
    rest = Remainder()
    expected = b""
    for number, (before, size, after) in enumerate(sizes):
        body = bytes([number + 1]) * size
        rest.add(b"<" * before + body + b">" * after, before, before + size)
        expected += body
        assert len(rest) == len(expected)
        assert rest.begin(7) == expected[:7]
        if expected:
            assert rest.last() == expected[-1]
    assert rest.take() == expected
    assert (len(rest), rest.take()) == (0, b"")


def test_single_octets_are_kept_in_one_piece() -> None:
    rest = Remainder()
    for octet in b"0123456789" * 100:
        rest.add(bytes([octet]), 0, 1)
    assert len(rest.take_pieces()) == 1


def test_a_view_is_taken_of_a_good_part_of_a_chunk_only() -> None:
    chunk = bytes(100_000)
    assert type(piece_of(chunk, 0, 25_000)) is memoryview
    assert type(piece_of(chunk, 0, 24_999)) is bytes
    assert type(piece_of(b"small", 0, 5)) is bytes

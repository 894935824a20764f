"""What the log holds, batch by batch, against plain dictionaries."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.core import batches as module
from broker.core.batches import Batches
from tests.wire.profiles import examples

STEPS = st.lists(
    st.tuples(st.sampled_from(["grow", "end", "hold", "free", "drop"]), st.integers(0, 9)),
    max_size=80,
)


@examples(80)
@given(st.integers(1, 50), STEPS)
def test_batches_count_as_a_dictionary_does(first: int, steps: list[tuple[str, int]]) -> None:
    found = Batches(first)
    sizes, lives = {first: 0}, {first: 0}
    for what, amount in steps:
        positions = list(sizes)
        position = positions[amount % len(positions)]
        if what == "grow":
            found.grow(amount)
            sizes[positions[-1]] += amount
        elif what == "end":
            found.end()
            sizes[positions[-1] + 1] = lives[positions[-1] + 1] = 0
        elif what == "hold":
            found.hold(position, amount)
            lives[position] += amount
        elif what == "free":
            freed = min(amount, lives[position])
            found.free(position, freed)
            lives[position] -= freed
        else:
            found.drop(position)
            for gone in positions:
                if gone < position:
                    del sizes[gone], lives[gone]
        assert found.first == min(sizes)
        assert found.pending == max(sizes)
        assert found.pending_bytes == sizes[max(sizes)]
        assert {at: found.size(at) for at in sizes} == sizes
        assert {at: found.live(at) for at in lives} == lives
        assert found.total_bytes == sum(sizes.values())
        assert found.live_bytes == sum(lives.values())


def test_batches_that_were_dropped_take_no_room() -> None:
    found = Batches(1)
    count = 4 * module._COMPACT_FROM
    for position in range(1, count):
        found.grow(3)
        found.hold(position, 2)
        found.end()
        found.drop(max(1, position - 5))
    assert (found.first, found.pending) == (count - 6, count)
    assert (found.total_bytes, found.live_bytes) == (6 * 3, 6 * 2)
    assert len(found._sizes) <= 2 * module._COMPACT_FROM + 2
    assert found.size(count - 1) == 3

"""Counters that only grow, and the histogram of body sizes."""

from bisect import bisect_left

from hypothesis import given
from hypothesis import strategies as st

from broker.core.counters import SIZE_BUCKETS, Counters, SizeHistogram
from tests.wire.profiles import examples

body_sizes = st.one_of(st.integers(0, 2000), st.sampled_from([*SIZE_BUCKETS, 134_217_728]))


@examples(80)
@given(st.lists(st.lists(body_sizes, min_size=1, max_size=20), max_size=10))
def test_histogram_counts_every_size_once(observed: list[list[int]]) -> None:
    histogram = SizeHistogram()
    for sizes in observed:
        histogram.observe(sizes)
    counts = [0] * (len(SIZE_BUCKETS) + 1)
    for sizes in observed:
        for size in sizes:
            counts[bisect_left(SIZE_BUCKETS, size)] += 1
    wanted = counts, sum(map(sum, observed))
    assert histogram.read() == wanted
    assert histogram.read() == wanted


def test_upper_bound_belongs_to_its_bucket() -> None:
    histogram = SizeHistogram()
    histogram.observe([100, 101])
    assert histogram.read()[0][:3] == [1, 1, 0]


def test_many_different_sizes_take_no_more_room() -> None:
    histogram = SizeHistogram()
    for size in range(5000):
        histogram.observe([size])
        assert len(histogram._recent) <= 257
    assert histogram.read()[1] == sum(range(5000))


def test_deliveries_of_every_kind_are_summed() -> None:
    counters = Counters(
        messages_delivered_consume_manual_ack=1,
        messages_delivered_consume_auto_ack=10,
        messages_delivered_get_manual_ack=100,
        messages_delivered_get_auto_ack=1000,
    )
    assert counters.messages_delivered == 1111

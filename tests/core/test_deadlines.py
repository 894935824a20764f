"""Deadlines against sorted pairs, and what they cost."""

from hypothesis import given
from hypothesis import strategies as st

from broker.core.deadlines import NEAR_MS, OPENED_AT_ONCE, SPAN, WIDTH_MS, Deadlines
from tests.wire.profiles import examples

YEAR_MS = 365 * 86_400_000
times = st.one_of(st.integers(0, 200), st.integers(0, 100_000), st.integers(0, 10 * YEAR_MS))


@examples(200)
@given(st.lists(times, max_size=60), st.lists(times, max_size=20), st.integers(1, 9))
def test_each_is_taken_when_it_is_due_and_in_order(
    delays: list[int], steps: list[int], most: int
) -> None:
    deadlines = Deadlines()
    model = sorted((delay, number) for number, delay in enumerate(delays))
    for number, delay in enumerate(delays):
        deadlines.add(delay, number, 0)
    now = 0
    for step in [0, *steps]:
        now += step
        assert len(deadlines) == len(model)
        following = deadlines.next
        assert (following is None) == (not model)
        assert following is None or following <= model[0][0]
        taken = deadlines.take(now, most)
        due = [number for deadline, number in model if deadline <= now][:most]
        assert taken == due
        model = model[len(due) :]


@examples(100)
@given(st.lists(times, max_size=60), times, st.sets(st.integers(0, 59)))
def test_what_is_not_kept_is_never_due(delays: list[int], now: int, wanted: set[int]) -> None:
    deadlines = Deadlines()
    for number, delay in enumerate(delays):
        deadlines.add(delay, number, 0)
    gone = set(deadlines.take(now, 1))
    deadlines.keep(wanted.__contains__)
    kept = [number for number in range(len(delays)) if number in wanted - gone]
    assert len(deadlines) == len(kept)
    assert sorted(deadlines.take(20 * YEAR_MS, 100)) == kept
    assert deadlines.next is None


def test_to_ask_when_told_finds_each_within_a_bucket_of_its_time() -> None:
    deadlines = Deadlines()
    deadline = 3 * WIDTH_MS * SPAN * SPAN + 12_345
    deadlines.add(deadline, 1, 0)
    asked = 0
    now = 0
    while not (numbers := deadlines.take(now, 1)):
        asked += 1
        assert deadlines.next is not None
        assert deadlines.next > now
        now = deadlines.next
    assert (numbers, now, asked <= 4) == ([1], deadline, True)


def test_there_are_few_buckets_however_many_deadlines_there_are() -> None:
    deadlines = Deadlines()
    for number in range(20_000):
        deadlines.add(number * 7_919_977 % (10 * YEAR_MS), number, 0)
    assert len(deadlines._buckets) < 8 * SPAN
    deadlines.clear()
    assert (len(deadlines), deadlines.next, deadlines.take(20 * YEAR_MS, 10)) == (0, None, [])


def test_many_in_one_bucket_are_taken_up_in_parts_and_hold_back_nothing() -> None:
    now = 10**9
    deadlines = Deadlines()
    count = 4 * OPENED_AT_ONCE
    far = now + 60_000
    for number in range(count):
        deadlines.add(far + number % 1000, number, now)
    # These are due while the others are taken up.
    for number in range(100):
        deadlines.add(far - 500 + number, count + number, now)
    taken: list[tuple[int, int]] = []
    time = now
    while deadlines.next is not None:
        time = max(time + 1, deadlines.next)
        taken += [(time, number) for number in deadlines.take(time, 1000)]
    assert len(taken) == count + 100
    late = [at - (far - 500 + number - count) for at, number in taken if number >= count]
    assert min(late) == 0
    assert max(late) <= 4
    first = {number: at for at, number in taken if number < count}
    assert all(at >= far + number % 1000 for number, at in first.items())


def test_what_is_only_taken_up_is_not_said_to_be_due() -> None:
    now = 10**9
    deadlines = Deadlines()
    far = now + 60_000
    for number in range(3 * OPENED_AT_ONCE):
        deadlines.add(far + number % 1000, number, now)
    was_behind = 0
    time = now
    while not (taken := deadlines.take(time, 1)):
        assert deadlines.next is not None
        was_behind += deadlines.is_behind(time)
        assert not deadlines.may_be_due(time)
        assert deadlines.has_near == (time > now)
        time = max(time + 1, deadlines.next)
        if time >= far:
            assert deadlines.may_be_due(time)
    assert (taken, time) == ([0], far)
    assert was_behind >= 2


@examples(100)
@given(st.lists(st.integers(2 * NEAR_MS, 10 * YEAR_MS), min_size=1, max_size=30))
def test_what_is_far_away_is_told_once_before_it_is_due(delays: list[int]) -> None:
    deadlines = Deadlines()
    for number, delay in enumerate(delays):
        deadlines.add(delay, number, 0)
    told: dict[int, int] = {}
    now = 0
    while deadlines.next is not None:
        now = max(now, deadlines.next)
        taken = deadlines.take(now, 100)
        for deadline, number in deadlines.near:
            assert number not in told
            assert deadline == delays[number]
            told[number] = now
        assert all(number in told for number in taken)
    for number, deadline in enumerate(delays):
        assert NEAR_MS <= deadline - told[number] <= 2 * NEAR_MS + WIDTH_MS

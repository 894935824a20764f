"""The index of stored messages against a dictionary, whatever is settled, moved and put back."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.core import stored as module
from broker.core.records import ranges
from broker.core.stored import Run, StoredRuns
from tests.wire.profiles import steps


@dataclass
class Place:
    """Where the model has a message."""

    position: int
    offset: int
    skipped: int
    share: int


class StoredMachine(RuleBasedStateMachine):
    """Numbers that are stored, with their places; what is held in each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.compact_from = module._COMPACT_FROM
        module._COMPACT_FROM = 2
        self.held: Counter[int] = Counter()
        self.octets = 0
        self.stored = StoredRuns(self.free, self.grow)
        self.model: dict[int, Place] = {}
        self.next_number = 1
        self.runs = 0

    def free(self, position: int, octets: int) -> None:
        self.held[position] -= octets
        assert self.held[position] >= 0

    def grow(self, octets: int) -> None:
        self.octets += octets

    def make(self, first: int, total: int, skipped: int = 0) -> Run:
        """A run in a batch of its own."""
        self.runs += 1
        share = 20 + self.runs % 7
        run = Run(first, total, self.runs, self.runs * 3, share * total, skipped, share)
        self.held[run.position] += share * total
        for number in range(first, first + total):
            place = Place(run.position, run.offset, skipped + number - first, share)
            self.model[number] = place
        return run

    @rule(gap=st.sampled_from([0, 0, 0, 1, 5]), total=st.integers(1, 7), skipped=st.integers(0, 3))
    def add(self, gap: int, total: int, skipped: int) -> None:
        first = self.next_number + gap
        self.next_number = first + total
        self.stored.add(self.make(first, total, skipped))

    @rule(first=st.integers(1, 60), count=st.one_of(st.integers(1, 12), st.integers(20, 60)))
    def settle(self, first: int, count: int) -> None:
        self.stored.settle(first, count)
        for number in range(first, first + count):
            self.model.pop(number, None)

    @rule(share=st.integers(0, 99), count=st.integers(1, 3))
    def settle_stored(self, share: int, count: int) -> None:
        numbers = list(self.model)
        if numbers:
            self.settle(numbers[len(numbers) * share // 100], count)

    @rule(share=st.integers(0, 99), most=st.integers(1, 12), runs=st.integers(1, 4))
    def store_anew(self, share: int, most: int, runs: int) -> None:
        numbers = sorted(self.model)
        rest = numbers[len(numbers) * share // 100 :]
        made: list[Run] = []
        while rest and len(made) < runs:
            first, total = rest[0], 1
            while total < most and first + total in self.model:
                total += 1
            made.append(self.make(first, total))
            # The next one is right behind it, or somewhere else.
            rest = [number for number in rest if number >= first + total][runs % 3 :]
        if made:
            self.stored.insert_all(made)

    @precondition(lambda self: self.next_number > 1)
    @rule(share=st.integers(0, 99), total=st.integers(1, 12))
    def read_again(self, share: int, total: int) -> None:
        """A log whose first batches are gone has messages anew that are not where they were."""
        self.octets = 0
        again = StoredRuns(self.free, self.grow)
        held = self.held
        self.held = Counter()
        numbers = sorted(self.model)
        late = set(numbers[len(numbers) * share // 100 :][:total])
        for number in numbers:
            if number not in late:
                place = self.model[number]
                again.add(self.run_of(number, place))
                self.held[place.position] += place.share
        # Those written anew come behind, also before all others; some of them twice.
        for first, count in zip(*ranges(sorted(late)), strict=True):
            if count % 2:
                again.insert_all([self.make(first, count)])
            again.insert_all([self.make(first, count)])
        assert +held or not self.model
        self.stored = again

    def run_of(self, number: int, place: Place) -> Run:
        size = place.share
        return Run(number, 1, place.position, place.offset, size, place.skipped, place.share)

    @rule()
    def clear(self) -> None:
        if len(self.model) > 30:
            self.stored.clear()
            self.model.clear()

    @invariant()
    def count_is_right(self) -> None:
        assert self.stored.count == len(self.model)
        assert bool(self.stored) == bool(self.model)

    @invariant()
    def the_index_is_as_large_as_it_says(self) -> None:
        live = self.stored._live
        settled = module.SETTLED_BYTES * len(self.stored._settled)
        assert self.octets == module.RUN_BYTES * len(live) + settled
        assert self.stored._empty == live.count(0)
        wanted = len(live) - self.stored._empty
        assert len(live) <= 2 * (3 * wanted + module._COMPACT_FROM) + module._EMPTY_FROM

    @invariant()
    def what_is_held_is_what_is_wanted(self) -> None:
        wanted: Counter[int] = Counter()
        for place in self.model.values():
            wanted[place.position] += place.share
        assert +self.held == wanted

    @invariant()
    def every_number_is_found_where_it_is(self) -> None:
        for number in range(self.next_number + 8):
            run = self.stored.find(number)
            place = self.model.get(number)
            if place is None or run is None:
                assert (place, run) == (None, None), number
                continue
            assert run.first <= number < run.stop
            assert self.place_in(run, number) == place

    @staticmethod
    def place_in(run: Run, number: int) -> Place:
        return Place(run.position, run.offset, run.skipped + number - run.first, run.share)

    @invariant()
    def runs_are_in_order_from_anywhere(self) -> None:
        for start in (0, 1, self.next_number // 2, self.next_number):
            numbers = []
            for run in self.stored.runs_from(start):
                unsettled = self.stored.unsettled(run)
                assert unsettled, "a run of which nothing is wanted"
                assert run.stop > start
                numbers += [number for number in unsettled if number >= start]
            assert numbers == [number for number in sorted(self.model) if number >= start]

    @invariant()
    def runs_are_those_that_begin_before_a_stop(self) -> None:
        runs = list(self.stored.runs_from(3))
        for stop in (0, 3, 4, self.next_number // 2, self.next_number):
            before = [run for run in runs if run.first < stop]
            assert list(self.stored.runs_from(3, stop)) == before
            numbers = [number for number in sorted(self.model) if 3 <= number < stop]
            assert self.stored.numbers(3, stop) == numbers

    def teardown(self) -> None:
        self.stored.clear()
        assert not +self.held
        assert not list(self.stored.runs_from(0))
        assert not self.stored
        assert not self.octets
        module._COMPACT_FROM = self.compact_from


TestStoredMachine = StoredMachine.TestCase
TestStoredMachine.settings = steps(60, 30)


@pytest.mark.parametrize(
    ("numbers", "wanted"),
    [
        ([], ([], [])),
        ([5], ([5], [1])),
        ([5, 6, 7], ([5], [3])),
        ([1, 3, 4, 9], ([1, 3, 9], [1, 2, 1])),
        ([2**63, 2**63 + 1], ([2**63], [2])),
    ],
)
def test_sorted_numbers_as_ranges(numbers: list[int], wanted: tuple[list[int], list[int]]) -> None:
    assert ranges(numbers) == wanted


def test_a_queue_that_goes_on_for_ever_keeps_no_old_runs() -> None:
    freed: list[int] = []
    stored = StoredRuns(lambda position, octets: freed.append(octets), lambda octets: None)
    count = 8 * module._COMPACT_FROM
    for number in range(1, count):
        stored.add(Run(number, 1, number, 5, 40, 0, 40))
        stored.settle(number - 3, 1)
    assert stored.count == 3
    assert sum(freed) == 40 * (count - 1 - 3)
    assert len(stored._live) <= 2 * module._COMPACT_FROM + 4
    assert [run.first for run in stored.runs_from(0)] == [count - 3, count - 2, count - 1]


def test_one_message_that_is_never_settled_does_not_slow_the_others() -> None:
    """Settled numbers in runs that still have others are kept; whole runs are not."""
    stored = StoredRuns(lambda position, octets: None, lambda octets: None)
    for number in range(1, 1001, 10):
        stored.add(Run(number, 10, number, 5, 400, 0, 40))
    stored.settle(2, 999)
    assert stored.count == 1
    assert stored._settled == set(range(2, 11))
    assert stored.unsettled(next(stored.runs_from(0))) == [1]
    stored.settle(1, 1)
    assert not stored._settled


def test_one_old_message_does_not_keep_the_index_of_all_behind_it() -> None:
    grown: list[int] = []
    stored = StoredRuns(lambda position, octets: None, grown.append)
    count = 20 * module._COMPACT_FROM
    for number in range(1, count):
        stored.add(Run(number, 1, number, 5, 40, 0, 40))
        if number > 4:
            stored.settle(number - 2, 1)
    assert [run.first for run in stored.runs_from(0)] == [1, 2, count - 2, count - 1]
    assert len(stored._live) <= module._COMPACT_FROM + 3 * stored.count + 1
    assert sum(grown) == module.RUN_BYTES * len(stored._live)
    # Seldom: each time it takes a look at all.
    assert sum(octets < 0 for octets in grown) <= count // module._COMPACT_FROM


def test_runs_behind_a_stop_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, of which nothing is wanted."""
    monkeypatch.setattr(module, "_COMPACT_FROM", 1 << 40)
    stored = StoredRuns(lambda position, octets: None, lambda octets: None)
    for number in range(1, 1001):
        stored.add(Run(number, 1, number, 5, 40, 0, 40))
    stored.settle(2, 999)
    looked: list[int] = []

    class Live(array):
        def __getitem__(self, place: Any) -> Any:
            looked.append(place)
            return super().__getitem__(place)

    stored._live = Live("I", stored._live)
    assert [run.first for run in stored.runs_from(1, 4)] == [1]
    assert stored.numbers(1, 4) == [1]
    assert stored.durable_stop(1, 4, 1000) == 2
    assert set(looked) <= {0, 1, 2}

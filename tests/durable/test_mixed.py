"""All features at random on queues of every kind: invariants instead of a model, in seeded runs
that can be made shorter; and planted bugs that must be found by the invariant that is about
them."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.durable.kinds import make_small, run
from tests.durable.mixed_faults import MIXED_FAULTS
from tests.durable.mixed_judge import MixedMachine
from tests.durable.mixed_play import play_mixed, shorten
from tests.durable.observer import ViolationError

KIND = "mixed"
LITTLE = 25_000
SEEDS = range(8)
STEPS = 60
FAULT_STEPS = 60
FAULT_RUNS = 40
HINTS = {
    "what a value holds does not count": 34,
    "ids are not written": 3,
    "an id stays when its message has gone": 3,
    "a duplicate is taken": 1,
    "a delivery is late too early": 1,
    "a delivery is never late": 1,
    "what is settled late is not counted": 1,
    "the last come first": 35,
    "loads do not count": 90,
    "what a start brings back is not counted": 12,
    "letters of a queue that does not last are lost": 78,
    "what lives no time at all stops the others": 19,
}
"""Where to look first."""


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch.setattr, KIND)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("memory", [0, LITTLE])
def test_all_features_together_keep_what_is_promised(seed: int, memory: int) -> None:
    run(KIND, seed, STEPS, memory=memory)


def found(seeds: Iterable[int]) -> tuple[int, str] | None:
    """The first seed that finds something, and the invariant that does not hold."""
    for seed in seeds:
        try:
            run(KIND, seed, FAULT_STEPS)
        except ViolationError as violation:
            return seed, violation.invariant
    return None


@pytest.mark.parametrize("name", MIXED_FAULTS)
def test_planted_fault_is_found_where_features_meet(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = MIXED_FAULTS[name]
    monkeypatch.setattr(fault.target, fault.name, fault.function)
    finding = found([HINTS.get(name, 0), *range(FAULT_RUNS)])
    assert finding is not None
    assert finding[1] == fault.invariant


def test_a_run_that_finds_something_is_made_shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "an unused queue stays"
    fault = MIXED_FAULTS[name]
    monkeypatch.setattr(fault.target, fault.name, fault.function)
    seed = HINTS.get(name, 0)
    shorter = shorten(seed, FAULT_STEPS, MixedMachine)
    assert shorter is not None
    left, violation = shorter
    assert len(left) < FAULT_STEPS // 4
    assert violation.invariant == fault.invariant
    with pytest.raises(ViolationError, match=r"(?s)policy of .*it is later"):
        play_mixed(seed, FAULT_STEPS, MixedMachine, left)

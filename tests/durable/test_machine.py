"""A broker that lasts, with a disk that is late and crashes, against the model; and planted bugs
that must be found by the invariant that is about them."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis.stateful import run_state_machine_as_test

from tests.durable.disk import DiskMachine
from tests.durable.disk_faults import DISK_FAULTS
from tests.durable.faults import FAULTS, Fault
from tests.durable.kinds import make_small, run
from tests.durable.machine import DurableMachine
from tests.durable.observer import ViolationError
from tests.wire.profiles import steps

SEEDS = range(100, 116)
STEPS = 250
FAULT_RUNS = 40
SURVIVED_RUNS = 3
FAULT_STEPS = 150
"""Runs within which a planted bug must be found; most are found in the first one."""


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch.setattr)


def test_what_is_promised_lasts() -> None:
    run_state_machine_as_test(DurableMachine, settings=steps(40, 50))


def test_what_is_promised_lasts_whatever_the_disk_does() -> None:
    run_state_machine_as_test(DiskMachine, settings=steps(30, 50))


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_promised_lasts_in_long_runs(seed: int) -> None:
    run("play", seed, STEPS)


@pytest.mark.parametrize(
    ("seed", "memory"), [(2066, 0), (2113, 0), (2179, 0), (1091, 90_000), (1137, 90_000)]
)
def test_run_that_is_stored_anew_while_it_is_read(seed: int, memory: int) -> None:
    run("play", seed, 300, memory=memory)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_promised_lasts_with_little_memory(seed: int) -> None:
    run("play", seed, STEPS, memory=90_000)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("memory", [30_000, 15_000])
def test_backlog_is_worked_off_with_little_memory(
    seed: int, memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_small(monkeypatch.setattr, "backlog")
    run("backlog", seed, STEPS, memory=memory)


@pytest.mark.parametrize(("seed", "memory"), [(379, 30_000), (947, 30_000), (1330, 15_000)])
def test_backlog_that_was_not_worked_off_right(
    seed: int, memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came back was counted behind the head; basic.get was answered twice; nobody looked
    when there was memory again."""
    make_small(monkeypatch.setattr, "backlog")
    run("backlog", seed, STEPS, memory=memory)


@pytest.mark.parametrize("seed", [*SEEDS, 216, 627])
def test_what_is_promised_lasts_on_a_disk_in_trouble(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_small(monkeypatch.setattr, "disk")
    run("disk", seed, 300)


ALL_FAULTS = {**FAULTS, **DISK_FAULTS}
"""What goes wrong, and how it is found."""
SURVIVORS = (
    "a confirm comes before the disk",
    "an answer comes before the disk",
    "a declaration counts one too many",
    "a message that comes back goes to the end",
    "what was handed out is not written",
    "something is there that nobody declared",
    "memory is counted twice",
    "not all that is settled is let go",
    "what waits for the disk is counted twice",
    "a consumer gets one too many",
    "room is made and nobody looks",
    "a second start is not like the first",
    "publishers go on though the disk is full",
)
"""One for each invariant, which nothing else finds."""


def found(
    fault: Fault, seeds: Iterable[int], off: frozenset[str] = frozenset()
) -> tuple[int, str] | None:
    """The first seed that finds something, and the invariant that does not hold."""
    for seed in seeds:
        try:
            run(fault.kind, seed, FAULT_STEPS, off=off)
        except ViolationError as violation:
            return seed, violation.invariant
    return None


def plant(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch.setattr, fault.kind)
    monkeypatch.setattr(fault.target, fault.name, fault.function)


@pytest.mark.parametrize("name", ALL_FAULTS)
def test_planted_fault_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fault = ALL_FAULTS[name]
    plant(fault, monkeypatch)
    finding = found(fault, range(FAULT_RUNS))
    assert finding is not None
    assert finding[1] == fault.invariant


def test_each_invariant_has_a_fault_that_nothing_else_finds() -> None:
    survivors = {ALL_FAULTS[name].invariant for name in SURVIVORS}
    assert survivors == {fault.invariant for fault in ALL_FAULTS.values()}
    assert len(survivors) == len(SURVIVORS)


@pytest.mark.parametrize("name", SURVIVORS)
def test_planted_fault_survives_without_its_check(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each check is needed: no other one finds this."""
    fault = ALL_FAULTS[name]
    plant(fault, monkeypatch)
    finding = found(fault, range(FAULT_RUNS))
    assert finding is not None
    seeds = range(finding[0], finding[0] + SURVIVED_RUNS)
    assert found(fault, seeds, frozenset({fault.invariant})) is None

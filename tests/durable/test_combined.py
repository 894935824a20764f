"""All features at once against the model: in seeded runs, and in runs that can be shrunk; and
planted bugs that must be found by the invariant that is about them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from tests.durable.combined_crash import Midst, crash_at_rest, stop_at_rest
from tests.durable.combined_faults import COMBINED_FAULTS, COMBINED_SURVIVORS
from tests.durable.combined_machine import BACKLOG_MAX, CombinedMachine
from tests.durable.combined_model import BRIEF, DEAD, LETTERS, WORK, State
from tests.durable.combined_observer import GET
from tests.durable.faults import Fault
from tests.durable.kinds import make_small, run
from tests.durable.observer import ViolationError
from tests.wire.profiles import steps

KIND = "features"
LITTLE = 25_000
SEEDS = range(5)
STEPS = 80
FAULT_STEPS = 100
FAULT_RUNS = 40
SURVIVED_RUNS = 2
HINTS = {
    "deaths are not counted": 9,
    "a queue is full too early": 33,
    "what comes back has time for ever": 18,
    "what waited counts for ever": 7,
    "a retry waits too long": 2,
    "a message is delayed too long": 2,
    "it came back once more than it did": 4,
    "what is read before it is due is given to others": 2,
    "what is read before it is due stays for ever": 15,
}
"""Where to look first."""

queues = st.sampled_from([WORK, WORK, BRIEF])
some_message = st.fixed_dictionaries(
    {
        "padding": st.sampled_from([0, 90, 300]),
        "priority": st.integers(0, 4),
        "persistent": st.sampled_from([True, True, False]),
        "ttl": st.sampled_from([None, None, 30, 200]),
        "delay": st.sampled_from([None, None, None, 40, 400]),
    }
)
some_policy = st.fixed_dictionaries(
    {"dead-letter-exchange": st.just("dlx")},
    optional={
        "message-ttl": st.sampled_from([50, 400]),
        "max-length": st.sampled_from([1, 3, 8]),
        "overflow": st.sampled_from(["drop-head", "reject-publish", "reject-publish-dlx"]),
        "delivery-limit": st.integers(0, 3),
        "delayed-retry-type": st.sampled_from(["all", "failed", "returned"]),
        "delayed-retry-min": st.sampled_from([20, 100]),
    },
)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch.setattr, KIND)


class CombinedRules(RuleBasedStateMachine):
    """What clients, policies, clock and ends do, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = CombinedMachine()

    @rule(queue=queues, wanted=st.lists(some_message, min_size=1, max_size=3))
    def publish(self, queue: str, wanted: list[dict[str, Any]]) -> None:
        if len(self.machine.model.alive) < BACKLOG_MAX:
            is_limited = self.machine.model.rules[queue].is_limited
            self.machine.publish(queue, wanted[:1] if is_limited else wanted)
            self.machine.rest()

    @rule(queue=st.sampled_from(list(LETTERS)), prefetch=st.sampled_from([1, 3]))
    def consume(self, queue: str, prefetch: int) -> None:
        self.machine.consume(queue, prefetch)
        self.machine.rest()

    @rule(queue=st.sampled_from(list(LETTERS)), is_purged=st.booleans())
    def get_or_purge(self, queue: str, *, is_purged: bool) -> None:
        (self.machine.purge if is_purged else self.machine.get)(queue)
        self.machine.rest()

    @rule(
        channel=st.integers(1, GET),
        share=st.integers(0, 3),
        how=st.sampled_from(["ack", "reject", "requeue", "requeue"]),
        multiple=st.booleans(),
    )
    def settle(self, channel: int, share: int, how: str, *, multiple: bool) -> None:
        self.machine.settle(channel, share, how, multiple=multiple)
        self.machine.rest()

    @rule(definition=some_policy, dead=st.booleans())
    def set_policy(self, definition: dict[str, object], *, dead: bool) -> None:
        definition = {"dead-letter-exchange": ""} if dead else definition
        self.machine.set_policy(DEAD if dead else WORK, definition)
        self.machine.rest()

    @rule(milliseconds=st.sampled_from([1, 40, 300, 1000]), jump=st.booleans())
    def pass_time(self, milliseconds: int, *, jump: bool) -> None:
        self.machine.pass_time(milliseconds, jump=jump)

    @rule(cleanly=st.booleans(), downtime=st.sampled_from([0, 100]))
    def restart(self, downtime: int, *, cleanly: bool) -> None:
        (stop_at_rest if cleanly else crash_at_rest)(self.machine, downtime)

    @rule(
        channel=st.integers(1, GET),
        how=st.sampled_from(["ack", "reject", "requeue"]),
        works=st.integers(0, 2),
        keep=st.integers(0, 2),
        wanted=st.lists(some_message, max_size=2),
    )
    def crash(
        self, channel: int, how: str, works: int, keep: int, wanted: list[dict[str, Any]]
    ) -> None:
        midst = Midst(self.machine)
        self.machine.settle(channel, 0, how, multiple=True)
        midst.disk_works(works)
        midst.hear()
        if wanted:
            self.machine.publish(WORK, wanted)
        midst.pass_time(20)
        midst.crash(keep, 0)


def test_features_together_keep_what_is_promised() -> None:
    run_state_machine_as_test(CombinedRules, settings=steps(25, 25))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("memory", [0, LITTLE])
def test_features_together_keep_what_is_promised_in_long_runs(seed: int, memory: int) -> None:
    run(KIND, seed, STEPS, memory=memory)


def message(**wanted: Any) -> dict[str, Any]:
    usual = {"padding": 0, "priority": 0, "persistent": True, "ttl": None, "delay": None}
    return usual | wanted


def test_what_is_released_while_a_broker_ends_expires_in_its_time_not_anew() -> None:
    machine = CombinedMachine()
    retries = {"delayed-retry-type": "returned", "delayed-retry-min": 100}
    limits = {"message-ttl": 400, "max-length": 1, "dead-letter-exchange": "dlx"}
    machine.set_policy(WORK, retries | limits)
    machine.publish(WORK, [message(delay=40)])
    machine.rest()
    machine.consume(WORK, 1)
    machine.rest()
    midst = Midst(machine)
    midst.pass_time(50)
    midst.hear()
    # The disk has two things to do, one after the other, until it is delivered.
    midst.disk_works(9)
    midst.hear()
    midst.disk_works(9)
    midst.hear()
    midst.pass_time(200)
    midst.stop(0)
    machine.publish(WORK, [message()])
    machine.rest()
    machine.pass_time(300, jump=True)
    [item] = machine.model.of(DEAD, State.READY)
    assert (item.name, item.deaths) == ("000001", ((WORK, "expired", 1),))


def test_what_came_back_after_its_time_dies_after_a_start_if_it_was_not_read_before() -> None:
    machine = type("Limited", (CombinedMachine,), {"limits": {"memory": 6000}})()
    machine.publish(WORK, [message()])
    machine.rest()
    machine.consume(WORK, 1)
    machine.rest()
    machine.settle(1, 0, "requeue", multiple=False)
    machine.rest()
    machine.set_policy(
        WORK, {"message-ttl": 50, "dead-letter-exchange": "dlx", "delivery-limit": 3}
    )
    machine.pass_time(100, jump=True)
    # What comes back in front of so many is in the log alone.
    machine.publish(WORK, [message(padding=300) for _ in range(6)])
    machine.rest()
    Midst(machine).stop(0)
    item = machine.model.find(WORK, "000001")
    assert item is not None
    assert (item.queue, item.state, item.returns) == (WORK, State.READY, 2)
    machine.pass_time(50, jump=True)
    assert (item.queue, item.deaths) == (DEAD, ((WORK, "expired", 1),))


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


def seeds_for(name: str) -> list[int]:
    return [HINTS.get(name, 0), *range(FAULT_RUNS)]


@pytest.mark.parametrize("name", [n for n in COMBINED_FAULTS if n not in COMBINED_SURVIVORS])
def test_planted_fault_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fault = COMBINED_FAULTS[name]
    monkeypatch.setattr(fault.target, fault.name, fault.function)
    finding = found(fault, seeds_for(name))
    assert finding is not None
    assert finding[1] == fault.invariant


@pytest.mark.parametrize("name", COMBINED_SURVIVORS)
def test_planted_fault_is_found_and_survives_without_its_check(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each check is needed: no other one finds this."""
    fault = COMBINED_FAULTS[name]
    monkeypatch.setattr(fault.target, fault.name, fault.function)
    finding = found(fault, seeds_for(name))
    assert finding is not None
    assert finding[1] == fault.invariant
    seeds = range(finding[0], finding[0] + SURVIVED_RUNS)
    assert found(fault, seeds, frozenset({fault.invariant})) is None


def test_each_invariant_about_features_has_a_fault_that_nothing_else_finds() -> None:
    survivors = {COMBINED_FAULTS[name].invariant for name in COMBINED_SURVIVORS}
    assert survivors == {"deaths", "limits", "retries", "returns", "time"}

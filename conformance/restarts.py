"""Scenarios on brokers that this run started: those that have one restarted, of which many share
each restart, and those on a broker that is short of something."""

from __future__ import annotations

import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from conformance.client import Address
from conformance.limited import (
    Alarms,
    FilledMemory,
    NodeLimits,
    OwnBroker,
    can_limit,
    command_for,
)
from conformance.registry import Limit, Restart, Scenario
from conformance.runner import Broker, Result, run, run_one

_WRITES_LATER_S = {"rabbitmq": 1.0}
"""How long after an answer a broker may need until a kill no longer undoes what it answered:
RabbitMQ writes definitions, acks and purges in its own time. Others get no time."""


@contextmanager
def own_broker(command: str | None) -> Iterator[OwnBroker]:
    """A broker that serves, with folders that are gone when the block ends; `command` as for
    PrivateBroker, {folder} is the data directory. Raises RuntimeError if it does not come up,
    FileNotFoundError if it is not installed."""
    folder = Path(tempfile.mkdtemp(prefix="conformance-"))
    folder.chmod(0o777)
    broker = OwnBroker(command, folder, folder / "data")
    try:
        broker.start()
        yield broker
    finally:
        broker.__exit__(None, None, None)


class SharedRestart:
    """Restarts a broker as soon as every scenario that is under way has asked for it."""

    def __init__(self, under_way: int, restart: Callable[[], Address]) -> None:
        self._under_way = under_way
        self._restart = restart
        self._waiting = 0
        self._round = 0
        self._outcome: Address | Exception | None = None
        self._changed = threading.Condition()

    def wait(self) -> Address:
        """Waits for the others and for the broker; returns where it serves now.

        What the restart raised is raised for each of them.
        """
        with self._changed:
            mine = self._round
            self._waiting += 1
            self._changed.notify_all()
            while self._round == mine and self._waiting < self._under_way:
                self._changed.wait()
            if self._round == mine:
                try:
                    self._outcome = self._restart()
                except (OSError, RuntimeError, subprocess.TimeoutExpired) as error:
                    self._outcome = error
                self._waiting = 0
                self._round += 1
                self._changed.notify_all()
            outcome = self._outcome
        if isinstance(outcome, Address):
            return outcome
        raise RuntimeError(f"broker was not restarted: {outcome}")

    def leave(self) -> None:
        """A scenario is over, whatever became of it."""
        with self._changed:
            self._under_way -= 1
            self._changed.notify_all()


def run_on_own(
    scenarios: Sequence[Scenario],
    broker: Broker,
    own: OwnBroker,
    command: str | None,
    jobs: int,
) -> list[Result]:
    """Runs scenarios that have a broker restarted, or name a limit, of this run's own broker.

    RabbitMQ's limits are set while it runs. Others are started for each limit, side by side,
    since restarts are mostly waited for; without fields for it in the command none are run.
    """

    def run_limited(limit: Limit) -> list[Result]:
        chosen = [s for s in scenarios if s.limit is limit]
        if not chosen or not can_limit(command):
            return []
        with _limited_broker(command, limit, own) as (limited, alarms):
            staying = [s for s in chosen if not s.restart]
            results = run(staying, limited.address, broker, jobs, alarms)
            return results + run_restarting([s for s in chosen if s.restart], broker, limited)

    restarting = [s for s in scenarios if s.restart and not s.limit]
    if command is None:
        return sum(map(run_limited, Limit), run_restarting(restarting, broker, own))
    with ThreadPoolExecutor(len(Limit)) as pool:
        limited = pool.map(run_limited, Limit)
        return sum(limited, run_restarting(restarting, broker, own))


@contextmanager
def _limited_broker(
    command: str | None, limit: Limit, own: OwnBroker
) -> Iterator[tuple[OwnBroker, Alarms]]:
    if command is None:
        yield own, NodeLimits(own)
        return
    with own_broker(command_for(command, limit)) as limited:
        yield limited, FilledMemory(limited.address, limit)


def run_restarting(scenarios: Sequence[Scenario], broker: Broker, own: OwnBroker) -> list[Result]:
    """Runs scenarios that have the broker restarted: those of one way together, then one by one
    those that want a restart at once and to themselves."""
    quiet_s = _WRITES_LATER_S.get(broker.name, 0.0)
    results = []
    for how in Restart:
        together = [s for s in scenarios if s.restart is how and not s.alone]
        results += _run_together(together, broker, own, quiet_s)
    for scenario in scenarios:
        if scenario.alone:
            results += _run_together([scenario], broker, own, 0.0)
    return results


def _run_together(
    scenarios: Sequence[Scenario], broker: Broker, own: OwnBroker, quiet_s: float
) -> list[Result]:
    if not scenarios:
        return []
    kills = scenarios[0].restart is Restart.KILL

    def restart() -> Address:
        if kills:
            time.sleep(quiet_s)
            own.kill()
        else:
            own.stop()
        own.start()
        return own.address

    shared = SharedRestart(len(scenarios), restart)

    def run(scenario: Scenario) -> Result:
        try:
            return run_one(scenario, own.address, broker, restart_broker=shared.wait)
        finally:
            shared.leave()

    with ThreadPoolExecutor(len(scenarios)) as pool:
        return list(pool.map(run, scenarios))

"""How scenarios share a restart: no broker is needed for that."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from conformance import report
from conformance.client import Address
from conformance.registry import Restart, Scenario, deviation, scenario
from conformance.restarts import SharedRestart

SECOND = Address("127.0.0.1", 2)


class Restarted:
    """Counts restarts, and how many scenarios had asked for each."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> Address:
        self.count += 1
        return SECOND


def made(name: str, restart: Restart | None, *, ends_broker: bool = False) -> Scenario:
    def body(s: object) -> None: ...

    return Scenario(name, "area", (), (), body, ends_broker=ends_broker, restart=restart)


def test_broker_is_restarted_once_when_every_scenario_has_asked() -> None:
    restarted = Restarted()
    shared = SharedRestart(3, restarted)
    with ThreadPoolExecutor(3) as pool:
        first = [pool.submit(shared.wait) for _ in range(2)]
        assert restarted.count == 0
        assert shared.wait() == SECOND
        assert [waiting.result(5) for waiting in first] == [SECOND, SECOND]
    assert restarted.count == 1


def test_scenario_that_is_over_is_not_waited_for() -> None:
    restarted = Restarted()
    shared = SharedRestart(2, restarted)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(shared.wait)
        shared.leave()
        assert waiting.result(5) == SECOND
        assert shared.wait() == SECOND
    assert restarted.count == 2


def test_broker_that_does_not_come_back_fails_every_scenario_that_waits() -> None:
    def restart() -> Address:
        raise RuntimeError("broker did not come up")

    shared = SharedRestart(2, restart)
    started = threading.Barrier(2)

    def wait() -> None:
        started.wait(5)
        shared.wait()

    with ThreadPoolExecutor(2) as pool:
        for waiting in [pool.submit(wait), pool.submit(wait)]:
            with pytest.raises(RuntimeError, match="did not come up"):
                waiting.result(5)


def test_scenario_of_two_restarts_is_two_with_the_deviations_of_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found: dict[str, Scenario] = {}
    monkeypatch.setattr("conformance.registry._found", found)

    @scenario(
        "durability.x",
        covers=[],
        restarts=[Restart.STOP, Restart.KILL],
        deviations=[deviation("rabbitmq", "why", only=Restart.KILL)],
    )
    def body(s: object) -> None: ...

    stopped, killed = found["durability.x.stop"], found["durability.x.kill"]
    assert (stopped.restart, stopped.deviations) == (Restart.STOP, ())
    assert killed.restart is Restart.KILL
    assert killed.deviation_of("rabbitmq") is not None


def test_what_needs_a_broker_of_its_own_is_named_when_it_is_left_out() -> None:
    restarting = [made(f"area.{how}", how) for how in Restart]
    ending = made("connection.shutdown", None, ends_broker=True)
    text = report.left_out([made("area.plain", None), *restarting, ending])
    assert text.endswith("(use --serve or --rabbitmq): connection.shutdown, 2 of area")
    assert report.left_out([made("area.plain", None)]) == ""

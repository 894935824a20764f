"""How brokers get their limits, and scenarios their alarms: no broker is needed for that."""

from __future__ import annotations

import pytest

from conformance import report
from conformance.client import Address
from conformance.limited import FilledMemory, can_limit, command_for
from conformance.registry import Limit, Restart, Scenario
from conformance.runner import Broker, run
from conformance.session import Session

NOWHERE = Address("127.0.0.1", 1)
COMMAND = "serve --port {port} --memory {memory} --free {disk_free} --in {folder}"


class Recorded:
    """Alarms that are only written down."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def raise_alarm(self, what: Limit) -> None:
        self.calls.append(f"raise {what}")

    def clear(self) -> None:
        self.calls.append("clear")


def made(name: str, limit: Limit | None, restart: Restart | None = None) -> Scenario:
    area = name.partition(".")[0]

    def body(s: Session) -> None:
        s.raise_alarm()

    return Scenario(name, area, (), (), body, restart=restart, limit=limit)


def test_command_gets_the_usual_limits_or_those_of_a_scenario_and_keeps_its_other_fields() -> None:
    usual = "serve --port {port} --memory 40% --free 50MB --in {folder}"
    assert command_for(COMMAND, None) == usual
    assert command_for(COMMAND, Limit.MEMORY) == usual.replace("40%", "4MB")
    assert command_for(COMMAND, Limit.DISK) == usual.replace("50MB", "1000TB")
    assert command_for("serve {port}", Limit.MEMORY) == "serve {port}"
    assert command_for(None, Limit.MEMORY) is None


def test_only_a_command_with_both_fields_can_be_limited() -> None:
    assert can_limit(COMMAND)
    assert can_limit(None)
    assert not can_limit("serve {port} {memory}")
    assert not can_limit("serve {port} {disk_free}")


def test_broker_started_with_one_limit_has_no_other_alarm() -> None:
    for limit, other in ((Limit.MEMORY, Limit.DISK), (Limit.DISK, Limit.MEMORY)):
        with pytest.raises(ValueError, match=f"short of {other}"):
            FilledMemory(NOWHERE, limit).raise_alarm(other)


def test_alarm_is_cleared_when_its_scenario_ends() -> None:
    alarms = Recorded()
    results = run(
        [made("area.x", Limit.MEMORY)], NOWHERE, Broker("leveret", ""), jobs=1, alarms=alarms
    )
    assert [r.reason for r in results] == [""]
    assert alarms.calls == ["raise memory", "clear"]


def test_scenario_without_a_limit_has_no_alarm_to_raise() -> None:
    results = run([made("area.x", None)], NOWHERE, Broker("leveret", ""), jobs=1)
    assert "not marked with a limit" in results[0].reason


def test_limited_scenarios_are_named_when_there_is_no_broker_for_them() -> None:
    limited = [made("area.x", Limit.MEMORY), made("area.y", Limit.DISK, Restart.STOP)]
    assert all(s.needs_own_broker for s in limited)
    text = report.left_out([*limited, made("other.z", None, Restart.KILL)])
    stopping, small = text.splitlines()
    assert stopping.endswith("(use --serve or --rabbitmq): 1 of other")
    assert small.endswith("{memory} and {disk_free} in --serve): 2 of area")


def test_scenarios_are_counted_whose_exchange_type_the_broker_does_not_know() -> None:
    kinds = ["x-random", "x-other", "x-random"]
    unknown = [
        Scenario(f"area.{number}", "area", (), (), made("x", None).body, exchange_type=kind)
        for number, kind in enumerate(kinds)
    ]
    assert not any(s.needs_own_broker for s in unknown)
    assert report.foreign(unknown) == (
        "not run, as the broker does not know the exchange type: 1 of x-other, 2 of x-random"
    )

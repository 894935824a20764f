"""Runs scenarios, several at a time."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from conformance.client import Address, Connection
from conformance.failure import ConformanceError
from conformance.fields import plain
from conformance.limited import Alarms
from conformance.not_yet import NOT_YET
from conformance.registry import Scenario
from conformance.session import Session

PASSED, FAILED, DEVIATING, AWAITED = "passed", "failed", "deviating", "not yet"
_SCENARIOS = str(Path(__file__).parent / "scenarios")


@dataclass(frozen=True, slots=True)
class Broker:
    """The broker under test: its short name and how it describes itself."""

    name: str
    description: str


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one scenario; `reason` is empty if it passed."""

    scenario: Scenario
    outcome: str
    reason: str
    seconds: float


def identify(address: Address) -> Broker:
    """Asks the broker who it is; raises OSError or ConformanceError if it does not answer."""
    connection = Connection(address)
    try:
        connection.start()
    finally:
        connection.drop()
    properties = {key: plain(value) for key, value in connection.server_properties.items()}
    product, version, platform = (
        str(properties.get(key, "?")) for key in ("product", "version", "platform")
    )
    described = f"{platform} {properties.get('information', '')}".lower()
    name = "leveret" if "leveret" in described else "rabbitmq"
    return Broker(name, f"{product} {version} ({platform})")


def unknown_types(address: Address, scenarios: Sequence[Scenario]) -> set[str]:
    """The exchange types that these scenarios are about and the broker does not know."""
    wanted = {s.exchange_type for s in scenarios if s.exchange_type}
    return {kind for kind in wanted if not _knows(address, kind)}


def _knows(address: Address, kind: str) -> bool:
    connection = Connection(address).open()
    channel = connection.channel()
    try:
        # The type is looked at before the name, which nobody may have.
        channel.send("exchange.declare", exchange="amq.conformance", type=kind)
        return bool(channel.next_method()["reply_code"] == 403)
    except ConformanceError as error:
        if "unknown exchange type" not in str(error):
            raise
        return False
    finally:
        connection.drop()


def run(
    scenarios: Sequence[Scenario],
    address: Address,
    broker: Broker,
    jobs: int,
    alarms: Alarms | None = None,
) -> list[Result]:
    """Runs them all, `jobs` at a time; results in the order of the scenarios."""
    together = [s for s in scenarios if not s.alone]
    alone = [s for s in scenarios if s.alone]
    together.sort(key=lambda s: not s.slow)
    with ThreadPoolExecutor(jobs) as pool:
        results = list(pool.map(lambda s: run_one(s, address, broker, alarms=alarms), together))
    results += [run_one(s, address, broker, alarms=alarms) for s in alone]
    order = {s.name: position for position, s in enumerate(scenarios)}
    return sorted(results, key=lambda r: order[r.scenario.name])


def run_one(
    scenario: Scenario,
    address: Address,
    broker: Broker,
    stop_broker: Callable[[], None] | None = None,
    restart_broker: Callable[[], Address] | None = None,
    alarms: Alarms | None = None,
) -> Result:
    """Runs one scenario and cleans up behind it.

    A scenario that ends the broker is given `stop_broker`; nothing is left to clean up then. One
    that has it restarted is given `restart_broker`, one on a limited broker its `alarms`.
    """
    started = time.monotonic()
    session = Session(address, broker.name, scenario, stop_broker, restart_broker, alarms)
    reason = ""
    try:
        scenario.body(session)
    except Exception as error:  # noqa: BLE001 - a faulty scenario must not end the run
        reason = _explain(error)
    try:
        session.end()
    except (OSError, ConformanceError) as error:
        reason = reason or f"clean-up failed: {error}"
    deviation = scenario.deviation_of(broker.name)
    if not reason and deviation and not session.asked_deviation:
        reason = "names a deviation for this broker but does not check it"
    outcome = FAILED if reason else DEVIATING if deviation else PASSED
    if broker.name == "leveret" and scenario.name in NOT_YET:
        outcome = AWAITED if reason else FAILED
        reason = reason or "passes now: its name must leave not_yet.py"
    return Result(scenario, outcome, reason, time.monotonic() - started)


def _explain(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if frame.filename.startswith(_SCENARIOS)]
    place = f"{Path(inside[-1].filename).name}:{inside[-1].lineno}: " if inside else ""
    kind = "" if isinstance(error, ConformanceError) else f"{type(error).__name__}: "
    return f"{place}{kind}{error}"

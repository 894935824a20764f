"""What a run prints and writes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from conformance.registry import Scenario
from conformance.runner import AWAITED, DEVIATING, FAILED, PASSED, Broker, Result


def table(results: Sequence[Result]) -> str:
    """Passed, failed and deviating of each area."""
    counts = Counter((r.scenario.area, r.outcome) for r in results)
    areas = sorted({r.scenario.area for r in results})
    width = max(map(len, [*areas, "area"]))
    lines = [f"{'area':<{width}}  passed  failed  deviating"]
    for area in areas:
        passed, failed, deviating = (counts[area, o] for o in (PASSED, FAILED, DEVIATING))
        lines.append(f"{area:<{width}}  {passed:>6}  {failed:>6}  {deviating:>9}")
    return "\n".join(lines)


def failures(results: Sequence[Result]) -> str:
    """Each failure with its reason."""
    return "\n".join(
        f"FAILED {r.scenario.name}\n       {r.reason}" for r in results if r.outcome == FAILED
    )


def awaited(results: Sequence[Result]) -> str:
    """Each scenario that is not passed yet, with what is missing."""
    return "\n".join(
        f"NOT YET {r.scenario.name}\n        {r.reason}" for r in results if r.outcome == AWAITED
    )


def totals(results: Sequence[Result], seconds: float) -> str:
    """The closing line."""
    counts = Counter(r.outcome for r in results)
    waiting = f", {counts[AWAITED]} not yet passed" if counts[AWAITED] else ""
    return (
        f"{counts[PASSED]} passed, {counts[FAILED]} failed, {counts[DEVIATING]} deviating{waiting}"
        f" in {seconds:.1f} s"
    )


def left_out(scenarios: Sequence[Scenario]) -> str:
    """Why these were not run, which need a broker of their own; empty if there are none."""
    ending = [s.name for s in scenarios if s.ends_broker]
    restarting = Counter(s.area for s in scenarios if s.restart and not s.limit)
    limited = Counter(s.area for s in scenarios if s.limit)
    named = [*ending, *(f"{count} of {area}" for area, count in restarting.items())]
    lines = []
    if named:
        why = "as they stop or restart the broker (use --serve or --rabbitmq)"
        lines.append(f"not run, {why}: {', '.join(named)}")
    if limited:
        why = "as they need a small broker (use --rabbitmq, or {memory} and {disk_free} in --serve)"
        text = ", ".join(f"{count} of {area}" for area, count in limited.items())
        lines.append(f"not run, {why}: {text}")
    return "\n".join(lines)


def foreign(scenarios: Sequence[Scenario]) -> str:
    """How many were not run, as the broker does not know their exchange type."""
    counts = Counter(s.exchange_type for s in scenarios)
    text = ", ".join(f"{count} of {kind}" for kind, count in sorted(counts.items(), key=str))
    return f"not run, as the broker does not know the exchange type: {text}"


def as_json(results: Sequence[Result], broker: Broker) -> str:
    """The results for machines."""
    return json.dumps(
        {
            "broker": broker.name,
            "description": broker.description,
            "results": [
                {
                    "name": r.scenario.name,
                    "area": r.scenario.area,
                    "covers": r.scenario.covers,
                    "outcome": r.outcome,
                    "reason": r.reason,
                    "seconds": round(r.seconds, 3),
                }
                for r in results
            ],
        },
        indent=1,
    )


def listing(scenarios: Sequence[Scenario]) -> str:
    """Every scenario's name with the ids it covers."""
    return "\n".join(f"{s.area}: {s.name}  [{' '.join(s.covers)}]" for s in scenarios)


_README = Path(__file__).parent / "README.md"
_BEGIN, _END = "<!-- deviations -->\n", "\n<!-- end of deviations -->"


def listed_deviations() -> str:
    """The list of deviations that README.md holds."""
    return _README.read_text().partition(_BEGIN)[2].partition(_END)[0]


def update_readme(scenarios: Sequence[Scenario]) -> None:
    """Writes the list of deviations into README.md."""
    head, _, rest = _README.read_text().partition(_BEGIN)
    tail = rest.partition(_END)[2]
    _README.write_text(f"{head}{_BEGIN}{deviation_list(scenarios)}{_END}{tail}")


def deviation_list(scenarios: Sequence[Scenario]) -> str:
    """The deviations of every broker as Markdown, for README.md."""
    return "\n".join(
        f"- {d.broker}: `{s.name}`: {d.reason}" for s in scenarios for d in s.deviations
    )

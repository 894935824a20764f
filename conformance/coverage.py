"""Which items of the checklist have a scenario."""

from __future__ import annotations

from collections.abc import Sequence

from conformance import checklist
from conformance.registry import Scenario


def uncovered(scenarios: Sequence[Scenario]) -> list[str]:
    """Ids of the checklist that no scenario covers, in the checklist's order."""
    covered = {item for s in scenarios for item in s.covers}
    return [item for item in checklist.ITEMS if item not in covered]


def report(scenarios: Sequence[Scenario]) -> str:
    """What has no scenario, what is left out and why, and the totals."""
    missing = uncovered(scenarios)
    lines = [f"NO SCENARIO {item}: {checklist.ITEMS[item]}" for item in missing]
    lines += [f"left out {item}: {reason}" for item, reason in checklist.LEFT_OUT.items()]
    lines.append(
        f"{len(checklist.ITEMS) - len(missing)} of {len(checklist.ITEMS)} items covered by"
        f" {len(scenarios)} scenarios, {len(checklist.LEFT_OUT)} items left out"
    )
    return "\n".join(lines)

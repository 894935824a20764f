"""Every case of a disk that is full or fails, each on a broker and a directory of its own."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from conformance.crash import failing_calls, full_disk
from conformance.crash.faults import Faults
from conformance.crash.grounds import Disk, Folder, Ground
from conformance.crash.site import Site
from conformance.failure import ConformanceError


@dataclass(frozen=True, slots=True)
class Case:
    """What is shown, on which ground; `fails` is whether calls of the broker are made to fail."""

    name: str
    run: Callable[[Site], None]
    ground: Callable[[], Ground] = Folder
    fails: bool = True


CASES = (
    Case("full.drained", full_disk.drained_by_consumers, full_disk.SmallDisk, fails=False),
    Case("full.rush", full_disk.drained_after_a_rush, full_disk.SmallDisk, fails=False),
    Case("full.killed", full_disk.killed_while_full, full_disk.SmallDisk, fails=False),
    Case("full.alarm", full_disk.early_alarm, full_disk.SmallDisk, fails=False),
    Case("full.held", full_disk.held_for_want_of_room, full_disk.SmallDisk, fails=False),
    Case("full.old-backlog", full_disk.old_backlog, full_disk.SmallDisk, fails=False),
    Case("full.one-of-two", full_disk.one_of_two_queues, full_disk.SmallDisk, fails=False),
    Case("full.fallocate", full_disk.no_room_for_a_segment),
    Case("full.write", full_disk.no_room_in_a_write),
    Case("fails.flush", failing_calls.flush_fails),
    Case("fails.flush.power-cut", failing_calls.flush_fails_and_the_power, Disk),
    Case("fails.write", failing_calls.write_fails),
    Case("fails.write.short", full_disk.writes_that_stop_short),
    Case("fails.fsync", failing_calls.segment_fails),
    Case("fails.fallocate", failing_calls.allocation_fails),
    Case("fails.read.sector", failing_calls.sector_cannot_be_read),
    Case("fails.read.all", failing_calls.nothing_can_be_read),
    Case("fails.read.start", failing_calls.start_cannot_read),
)


@dataclass(slots=True)
class Report:
    """What was run and what came out: names of cases, with the reason where there is one."""

    kept: list[str] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)
    not_run: dict[str, str] = field(default_factory=dict)
    grounds: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)

    def line(self) -> str:
        """Everything in one line."""
        grounds = ", ".join(f"{count} on {kind}" for kind, count in self.grounds.items())
        text = (
            f"{len(self.kept)} cases passed, {len(self.broken)} failed, "
            f"{len(self.not_run)} could not be run here ({grounds or 'nothing ran'}); "
            f"{self.counts['starts']} starts, {self.counts['published']} published, "
            f"{self.counts['confirmed']} confirmed, {self.counts['refused']} refused, "
            f"{self.counts['delivered']} delivered; {self.counts['owed']} confirmed messages "
            "were looked for after restarts"
        )
        if self.not_run:
            text += f"; not run: {', '.join(self.not_run)}"
        return text


SHORT = ("full.drained", "fails.flush", "fails.read.all")
"""The cases that stand for all where there is little time."""


def run_cases(command: str, names: Iterable[str], say: Callable[[str], None]) -> Report:
    """Runs the cases of these names against `command`, which is followed by flags of Leveret."""
    report = Report()
    wanted = set(names)
    for case in CASES:
        if case.name in wanted:
            began = time.monotonic()
            said = _run(case, command, report)
            say(f"{case.name}: {said} ({time.monotonic() - began:.1f} s)")
    return report


def _run(case: Case, command: str, report: Report) -> str:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="crash-broker-")))
        try:
            ground = stack.enter_context(case.ground())
            faults = Faults(folder, ground.data) if case.fails else None
        except (OSError, subprocess.CalledProcessError) as error:
            reason = getattr(error, "stderr", None) or str(error)
            report.not_run[case.name] = reason.strip()
            return f"cannot be run here: {reason.strip()}"
        report.grounds[ground.kind] += 1
        site = Site(command, folder, ground, faults)
        try:
            case.run(site)
        except (ConformanceError, OSError, subprocess.TimeoutExpired) as error:
            report.broken[case.name] = f"{type(error).__name__}: {error}"
            return f"FAILED on {ground.kind}: {error}"
        finally:
            site.close()
            report.counts += site.counts
    report.kept.append(case.name)
    return f"passed on {ground.kind}"

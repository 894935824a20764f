"""Phases of a measurement: what the broker's process took at most in each."""

# ruff: noqa: T201  # figures are what it is for
from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.scale.callback_times import Window
from tests.scale.resources import cpu_ns, disk_octets, resident_kb

SAMPLE_S = 0.05


@dataclass(slots=True)
class Phase:
    """One phase, the largest samples of it, and what the process ran. The times at which it began
    and ended are of the monotonic clock."""

    name: str
    began_ns: int
    ended_ns: int = 0
    resident_kb: int = 0
    disk_octets: int = 0
    cpu_ns: int = 0

    @property
    def seconds(self) -> float:
        """How long it was."""
        return (self.ended_ns - self.began_ns) / 1e9


class Phases:
    """Samples a process and its folder many times a second, phase by phase."""

    def __init__(self, pid: int, folder: Path) -> None:
        self._pid = pid
        self._folder = folder
        self._current: Phase | None = None
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.phases: list[Phase] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    @contextmanager
    def phase(self, name: str) -> Iterator[Phase]:
        """From here to the end of the block."""
        before = cpu_ns(self._pid)
        phase = Phase(name, time.monotonic_ns())
        self.phases.append(phase)
        self._current = phase
        try:
            yield phase
        finally:
            phase.ended_ns = time.monotonic_ns()
            self._current = None
        phase.cpu_ns = cpu_ns(self._pid) - before
        self._sample(phase)

    def _run(self) -> None:
        while not self._is_over.wait(SAMPLE_S):
            phase = self._current
            if phase is not None:
                try:
                    self._sample(phase)
                except (FileNotFoundError, ProcessLookupError, ValueError):
                    # The process is gone, which its owner hears of elsewhere.
                    return

    def _sample(self, phase: Phase) -> None:
        phase.resident_kb = max(phase.resident_kb, resident_kb(self._pid))
        phase.disk_octets = max(phase.disk_octets, disk_octets(self._folder))


def print_phases(phases: Sequence[Phase], windows: Sequence[Window]) -> None:
    """Memory and disk of each phase, and the longest callbacks that ended in it."""
    for phase in phases:
        print(
            f"  {phase.name}, {phase.seconds:.1f} s, {phase.cpu_ns / 1e9:.1f} s of CPU: resident at"
            f" most {phase.resident_kb / 1024:.0f} MiB, disk at most {mib(phase.disk_octets)}"
        )
        by_cpu = [w.by_cpu for w in windows if _is_within(phase, w.by_cpu.ended_ns)]
        by_wall = [w.by_wall for w in windows if _is_within(phase, w.by_wall.ended_ns)]
        if by_cpu and by_wall:
            within = [w for w in windows if _is_within(phase, w.by_cpu.ended_ns)]
            names = Counter(name for window in within for name in window.long_names)
            shown = ", ".join(f"{count} x {name}" for name, count in names.most_common())
            longest = max(by_cpu, key=lambda time_taken: time_taken.cpu_ns)
            latest = max(by_wall, key=lambda time_taken: time_taken.wall_ns)
            print(f"    longest callback by CPU time: {longest}")
            print(f"    longest callback by the clock: {latest}")
            print(f"    callbacks with more than 20 ms of CPU time: {shown or 'none'}")


def _is_within(phase: Phase, moment_ns: int) -> bool:
    return phase.began_ns <= moment_ns <= phase.ended_ns


def mib(octets: float) -> str:
    """Octets for a reader."""
    return f"{octets / (1 << 20):,.0f} MiB"

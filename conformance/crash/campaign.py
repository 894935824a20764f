"""Many rounds on many directories, with what they find."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from conformance.crash.directory import Directory
from conformance.crash.findings import Finding, Kind, Totals
from conformance.crash.grounds import Disk, Folder, Ground
from conformance.crash.processes import KillableBroker
from conformance.failure import ConformanceError

RABBITMQ_EXPECTED = frozenset(
    {Kind.ACK_UNDONE, Kind.COMMIT_UNDONE, Kind.TORN, Kind.DEFINITION, Kind.UNMARKED}
)
"""What RabbitMQ does not promise: it answers acks, commits and definitions before they last."""
SHOWN = 10
"""Findings printed for each round."""


@dataclass(slots=True)
class Campaign:
    """What is run and how much of it. `command` None is Debian's RabbitMQ. `keep` is
    for each directory as its last end left it, `kept` for those in which something is wrong.

    `until` is a moment (monotonic); `most_failures` is the number of failing rounds after which
    nothing more is started. Findings of the `expected` kinds are counted and fail no round: they
    say what another broker does not promise.
    """

    command: str | None
    seed: int = 1
    until: float = float("inf")
    most_failures: int = 3
    keep: Path | None = None
    kept: Path = field(default_factory=lambda: Path(tempfile.gettempdir()))
    expected: frozenset[Kind] = frozenset()
    environment: Mapping[str, str] = field(default_factory=dict)
    say: Callable[[str], None] = print
    totals: Totals = field(default_factory=Totals)
    failures: int = 0

    def run(self, kills: int) -> None:
        """Kills until there were so many; new directories now and then."""
        seed = self.seed
        while self.totals.kills < kills and not self._over():
            rounds = random.Random(f"{seed}/rounds").choice([4, 20, 50])
            rounds = min(rounds, kills - self.totals.kills)
            self._run_directory(seed, Folder(), rounds, power_cuts=False)
            seed += 1

    def run_power_cuts(self, cuts: int) -> None:
        """Power cuts; raises OSError or subprocess.CalledProcessError where they cannot be run."""
        seed = self.seed
        while self.totals.power_cuts < cuts and not self._over():
            rounds = min(10, cuts - self.totals.power_cuts)
            self._run_directory(seed, Disk(), rounds, power_cuts=True)
            seed += 1

    def _over(self) -> bool:
        return time.monotonic() > self.until or self.failures >= self.most_failures

    def _run_directory(self, seed: int, ground: Ground, rounds: int, *, power_cuts: bool) -> None:
        with ground, tempfile.TemporaryDirectory(prefix="crash-broker-") as folder:
            keep = self.keep / f"seed-{seed}" if self.keep else Path(folder) / "left"
            broker = KillableBroker(self.command, Path(folder), ground.data, self.environment)
            directory = Directory(broker, ground, seed, self.totals, keep)
            try:
                self._rounds(directory, rounds, power_cuts)
            finally:
                if broker.running:
                    broker.kill()

    def _rounds(self, directory: Directory, rounds: int, power_cuts: bool) -> None:
        try:
            directory.open()
        except (RuntimeError, ConformanceError, OSError) as error:
            self._tell(directory.seed, 0, [Finding(Kind.FAILED, f"first start: {error}")])
            return
        if self.command is None:
            # A power cut in the first seconds of a new RabbitMQ node leaves it unable to start:
            # it does not flush the files that it makes then. What comes later is compared.
            directory.ground.flush()
        for number in range(1, rounds + 1):
            findings = directory.round(power_cut=power_cuts)
            self._tell(directory.seed, number, findings, directory)
            if self._over() or not directory.serves:
                return
        self._tell(directory.seed, rounds, directory.finish(), directory)

    def _keep(self, directory: Directory, number: int) -> None:
        """Keeps what may explain what is wrong: the directory as the end left it, and a text."""
        folder = Path(
            tempfile.mkdtemp(prefix=f"crash-seed-{directory.seed}-end-{number}-", dir=self.kept)
        )
        (folder / "explanation.txt").write_text(directory.explanation)
        if directory.keep is not None and directory.keep.exists():
            shutil.copytree(directory.keep, folder / "data")
        self.say(f"  the directory as it was left, and all that is known: {folder}")

    def _tell(
        self, seed: int, number: int, findings: list[Finding], directory: Directory | None = None
    ) -> None:
        if not findings:
            return
        self.totals.add(findings)
        broken = [finding for finding in findings if finding.kind not in self.expected]
        if broken:
            self.failures += 1
            text = f"{len(broken)} findings (repeat with --seed {seed})"
            self.say(f"seed {seed}, end {number}: {text}")
        for finding in broken[:SHOWN]:
            self.say(f"  {finding}")
        if broken and directory is not None:
            self._keep(directory, number)

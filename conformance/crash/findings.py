"""What can be wrong with a broker after a crash, and the totals of a run."""

from __future__ import annotations

import enum
import statistics
from collections import Counter
from dataclasses import dataclass, field


class Kind(enum.Enum):
    """What a finding is; the value is its word in the totals."""

    LOST = "lost"
    """Confirmed or committed, persistent, not acked, and gone."""
    INVENTED = "invented"
    """Never sent there, or acked and gone at an earlier look."""
    CORRUPTED = "corrupted"
    """Body, properties, exchange or routing key are not what was sent."""
    DUPLICATED = "duplicated"
    """Twice in one queue, or with two consumers at once."""
    DISORDERED = "disordered"
    """Not in the order of its publisher, or not in the order seen before."""
    ACK_UNDONE = "ack undone"
    """Back although it was acked longer before the kill than the window allows."""
    UNMARKED = "unmarked"
    """Delivered before and back without the redelivered flag."""
    COMMIT_UNDONE = "commit undone"
    """Acked in a transaction whose commit-ok had come, and back."""
    TORN = "torn"
    """Half of a transaction whose commit was not answered."""
    UNCOMMITTED = "uncommitted"
    """Part of a transaction that was rolled back or never committed."""
    TRANSIENT = "transient kept"
    """A transient message that outlived a restart."""
    DEFINITION = "definition"
    """A queue, exchange or binding that is missing, changed or back."""
    FAILED = "failed"
    """The broker ended, refused or did not answer while it should have served."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong."""

    kind: Kind
    text: str

    def __str__(self) -> str:
        return f"{self.kind.value}: {self.text}"


@dataclass(slots=True)
class Totals:
    """What a run did and found. Times are in seconds."""

    kills: int = 0
    kills_while_starting: int = 0
    power_cuts: int = 0
    clean_stops: int = 0
    directories: int = 0
    published: int = 0
    confirmed: int = 0
    delivered: int = 0
    acked: int = 0
    commits: int = 0
    commits_in_doubt: int = 0
    definitions: int = 0
    looked_at: int = 0
    acked_came_back: int = 0
    windows_s: list[float] = field(default_factory=list)
    restarts_s: list[float] = field(default_factory=list)
    found: Counter[Kind] = field(default_factory=Counter)

    def add(self, findings: list[Finding]) -> None:
        """Counts findings."""
        self.found.update(finding.kind for finding in findings)

    @property
    def failures(self) -> int:
        """All findings."""
        return self.found.total()

    def line(self) -> str:
        """Everything in one line."""
        ends = [f"{self.kills} kills ({self.kills_while_starting} while starting)"]
        if self.power_cuts:
            ends.append(f"{self.power_cuts} power cuts")
        ends.append(f"{self.clean_stops} clean stops")
        restarts = "no restart"
        if self.restarts_s:
            middle, longest = statistics.median(self.restarts_s), max(self.restarts_s)
            restarts = f"restart {middle:.2f} s in the middle, {longest:.2f} s at most"
        found = ", ".join(f"{kind.value} {self.found[kind]}" for kind in Kind)
        return (
            f"{', '.join(ends)}, {self.directories} directories; {self.published} published, "
            f"{self.confirmed} confirmed, {self.delivered} delivered, {self.acked} acked, "
            f"{self.commits} committed ({self.commits_in_doubt} in doubt), "
            f"{self.definitions} definitions made or deleted; {self.looked_at} messages looked at "
            f"after restarts, {self.acked_came_back} acked at most "
            f"{max(self.windows_s, default=0):.2f} s before the kill came back; "
            f"{found}; {restarts}"
        )

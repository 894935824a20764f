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
    EARLY = "early"
    """Delivered, tried again or expired before its time."""
    EXPIRED = "expired"
    """Delivered although its time was over."""
    DEATHS = "deaths"
    """How often it came back, and how it died, is not what it says."""
    FAILED = "failed"
    """The broker ended, refused or did not answer while it should have served."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. `age_s` is how long before the end the broker had answered for what
    it undid, None where nothing was undone or nobody knows."""

    kind: Kind
    text: str
    age_s: float | None = None

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
    on_roads: int = 0
    letters: int = 0
    looked_at: int = 0
    acked_came_back: int = 0
    oldest_ack_s: float = 0.0
    windows_s: list[float] = field(default_factory=list)
    restarts_s: list[float] = field(default_factory=list)
    found: Counter[Kind] = field(default_factory=Counter)
    oldest_s: dict[Kind, float] = field(default_factory=dict)

    def add(self, findings: list[Finding]) -> None:
        """Counts findings, and keeps the greatest age of each kind."""
        self.found.update(finding.kind for finding in findings)
        for finding in findings:
            if finding.age_s is not None:
                oldest_s = self.oldest_s.get(finding.kind, 0.0)
                self.oldest_s[finding.kind] = max(oldest_s, finding.age_s)

    @property
    def failures(self) -> int:
        """All findings."""
        return self.found.total()

    def table(self) -> str:
        """Everything, in lines of a word and what there is of it."""
        ends = [f"{self.kills} kills ({self.kills_while_starting} while starting)"]
        if self.power_cuts:
            ends.append(f"{self.power_cuts} power cuts")
        ends.append(f"{self.clean_stops} clean stops")
        restarts = "none"
        if self.restarts_s:
            middle, longest = statistics.median(self.restarts_s), max(self.restarts_s)
            restarts = f"{middle:.2f} s in the middle, {longest:.2f} s at most"
        window_s = max(self.windows_s, default=0)
        rows = {
            "ends": f"{', '.join(ends)}, {self.directories} directories",
            "messages": f"{self.published} published, {self.confirmed} confirmed, "
            f"{self.delivered} delivered, {self.acked} acked",
            "transactions": f"{self.commits} committed ({self.commits_in_doubt} in doubt)",
            "definitions": f"{self.definitions} made or deleted",
            "features": f"{self.on_roads} to be retried, delayed or expired, "
            f"{self.letters} came where they end",
            "looked at": f"{self.looked_at} messages after restarts",
            "restarts": restarts,
            "acks": f"{self.acked_came_back} came back, {self.oldest_ack_s:.3f} s old at most; "
            f"{window_s:.2f} s were allowed at most",
            **{kind.value: self._found(kind) for kind in Kind},
        }
        width = max(map(len, rows))
        return "\n".join(f"  {word:{width}}  {text}" for word, text in rows.items())

    def _found(self, kind: Kind) -> str:
        oldest_s = self.oldest_s.get(kind)
        age = "" if oldest_s is None else f", answered {oldest_s:.3f} s before the end at most"
        return f"{self.found[kind]}{age}"

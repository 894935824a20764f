"""The client's own record: what it sent, what it was promised, what it settled.

Threads write to it while the broker runs. A copy is touched by the thread that holds its message,
and what a thread is about to send is noted before it is sent, so that no lock is needed: whatever
the moment of the kill, the record says no more than what the broker may have seen, and every
promise in it was read from the broker.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from conformance.crash.bodies import Key
from conformance.crash.findings import Finding, Kind


class Stage(enum.Enum):
    """How far a transaction has come, as its client knows."""

    OPEN = enum.auto()
    COMMITTING = enum.auto()
    """tx.commit was sent."""
    COMMITTED = enum.auto()
    """tx.commit-ok has come."""
    ROLLED_BACK = enum.auto()
    """tx.rollback was sent."""


@dataclass(slots=True)
class Transaction:
    """What one transaction publishes and acks, as (queue, key). `committed_at` is when commit-ok
    came (monotonic)."""

    stage: Stage = Stage.OPEN
    committed_at: float | None = None
    published: list[tuple[str, Key]] = field(default_factory=list)
    acked: list[tuple[str, Key]] = field(default_factory=list)


@dataclass(slots=True)
class Message:
    """One message as it was sent. Only a transaction's messages have a `transaction`.

    `waits_since` is when it was sent (monotonic), None once it is confirmed or refused, or if
    nobody waits for that.
    """

    publisher: int
    number: int
    exchange: str
    routing_key: str
    persistent: bool = True
    priority: int = 0
    confirmed: bool = False
    transaction: Transaction | None = None
    waits_since: float | None = None

    @property
    def key(self) -> Key:
        """What names it."""
        return self.publisher, self.number


@dataclass(slots=True)
class Copy:
    """A message in one queue. Times are `time.monotonic()`, None for never.

    `known` is set when it was seen in the queue after a restart: then it stays until it is acked.
    `held` means delivered and not settled. `settled_at` is when the broker answered something that
    was sent on the same channel after the ack.
    """

    message: Message
    known: bool = False
    held: bool = False
    delivered_at: float | None = None
    acked: bool = False
    settled_at: float | None = None
    transaction: Transaction | None = None

    @property
    def promised(self) -> bool:
        """Whether it must be in its queue after a crash unless it was acked."""
        return self.message.persistent and (self.known or self.message.confirmed)


@dataclass(frozen=True, slots=True)
class Seen:
    """A message as it was found in a queue. `key` is None if the body is damaged."""

    key: Key | None
    redelivered: bool
    exchange: str = ""
    routing_key: str = ""
    properties_intact: bool = True


class Record:
    """All of it, for one data directory. Queues without a maximum priority are `plain`.

    `backlog` is about the number of messages in the queues, for the workload to go by.
    """

    def __init__(self, plain: set[str], prioritised: set[str]) -> None:
        self.prioritised = prioritised
        self.queues: dict[str, dict[Key, Copy]] = {q: {} for q in sorted(plain | prioritised)}
        self.order: dict[str, list[Key]] = {queue: [] for queue in self.queues}
        self.transactions: list[Transaction] = []
        self.findings: list[Finding] = []
        self.backlog = 0
        self._numbers: dict[int, int] = {}

    def next_number(self, publisher: int) -> int:
        """A number that this publisher never used; only one thread may ask for one publisher."""
        number = self._numbers.get(publisher, 0) + 1
        self._numbers[publisher] = number
        return number

    def was_sent(self, key: Key) -> bool:
        """Whether a message of this name was ever sent."""
        return 0 < key[1] <= self._numbers.get(key[0], 0)

    def publishing(self, message: Message, queues: list[str]) -> None:
        """Notes a message that is about to be sent and will be routed to these queues."""
        for queue in queues:
            self.queues[queue][message.key] = Copy(message)
            if message.transaction is not None:
                message.transaction.published.append((queue, message.key))
        self.backlog += len(queues)

    def waited_s(self, ended_at: float) -> float:
        """How long the oldest persistent message that was not confirmed had waited at the end."""
        sent = [
            copy.message.waits_since
            for copies in self.queues.values()
            for copy in copies.values()
            if copy.message.persistent and copy.message.waits_since is not None
        ]
        return max(0.0, ended_at - min(sent)) if sent else 0.0

    def delivery(self, queue: str, seen: Seen, now: float) -> Copy | None:
        """Notes a delivery and judges it at once; None if it should not have come."""
        copy = self.queues[queue].get(seen.key) if seen.key else None
        where = f"{queue}: {seen.key} was delivered"
        if seen.key is None:
            self._note(Kind.CORRUPTED, f"{queue}: a damaged body was delivered")
        elif copy is None:
            self._note(Kind.INVENTED, f"{where} and never sent there, or acked long ago")
        elif copy.held:
            self._note(Kind.DUPLICATED, f"{where} while another consumer holds it")
        elif copy.acked:
            self._note(Kind.ACK_UNDONE, f"{where} again after it was acked")
        elif copy.delivered_at is not None and not seen.redelivered:
            self._note(Kind.UNMARKED, f"{where} again, not marked as redelivered")
        if copy is not None:
            self.judge_content(queue, copy.message, seen)
            copy.held = True
            copy.delivered_at = now
            sender = copy.message.transaction
            if sender is not None and sender.stage in (Stage.OPEN, Stage.ROLLED_BACK):
                self._note(Kind.UNCOMMITTED, f"{where} before its commit")
        return copy

    def judge_content(self, queue: str, message: Message, seen: Seen) -> None:
        """Notes what is not as it was sent."""
        if (seen.exchange, seen.routing_key) != (message.exchange, message.routing_key):
            self._note(
                Kind.CORRUPTED,
                f"{queue}: {message.key} says it came by {seen.exchange!r}, {seen.routing_key!r}, "
                f"not {message.exchange!r}, {message.routing_key!r}",
            )
        if not seen.properties_intact:
            self._note(Kind.CORRUPTED, f"{queue}: {message.key} has other properties")

    def _note(self, kind: Kind, text: str) -> None:
        self.findings.append(Finding(kind, text))

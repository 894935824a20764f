"""What a queue that lasts tells the journal, and what the log has of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.core.message import NUMBER, Entry
from broker.core.stored import StoredRuns
from broker.storage.log import Position

if TYPE_CHECKING:
    from broker.core.journal import Journal


AHEAD = 8192
"""Messages that count as handed out before they are, as far as the log knows. After a crash so
many may be marked as redelivered without need; but none is unmarked that somebody has seen."""


class Lasting:
    """The durable side of one queue. `id` is its name in the log, `stored` says where its messages
    are. Everything up to `delivered_to` was handed to somebody at some time, and up to
    `reserved_to` as the log has it; `returns` is how often messages came back, by number."""

    __slots__ = (
        "_reserved_at",
        "delivered_to",
        "id",
        "journal",
        "next_number",
        "reserved_to",
        "returns",
        "stored",
    )

    def __init__(self, journal: Journal, queue_id: int) -> None:
        self.journal = journal
        self.id = queue_id
        self.stored = StoredRuns(journal.batches.free)
        # The number behind the last one that was stored.
        self.next_number = 1
        self.delivered_to = 0
        self.reserved_to = 0
        # The batch that says so.
        self._reserved_at: Position = 0
        self.returns: dict[int, int] = {}
        journal.queues[queue_id] = self

    def handed_out(self, entries: list[Entry], *, is_settled: bool) -> None:
        """Messages go to a consumer; for good, if nobody will acknowledge them."""
        if is_settled:
            self.settled(entries)
        elif entries[-1][NUMBER] > self.delivered_to:
            self.delivered_to = entries[-1][NUMBER]
            self._reserve()

    def _reserve(self) -> None:
        if self.reserved_to < self.delivered_to + AHEAD // 2 and not self.journal.has_failed:
            self.reserved_to = self.delivered_to + AHEAD
            self._reserved_at = self.journal.position
            self.journal.mark_delivered(self)

    def reserve(self) -> Position:
        """Somebody is about to get messages: says so in the log, if it does not yet, and returns
        the batch that has to be durable first; 0 if none has."""
        self._reserve()
        is_due = bool(self.stored) and self._reserved_at > self.journal.durable
        return self._reserved_at if is_due and not self.journal.has_failed else 0

    def settled(self, entries: list[Entry]) -> None:
        """Messages have left the queue for good."""
        self.settled_numbers([entry[NUMBER] for entry in entries])

    def settled_numbers(self, numbers: list[int]) -> None:
        """The same, by number."""
        if not self.stored:
            return
        self.journal.settle(self, numbers)
        if self.returns:
            for number in numbers:
                self.returns.pop(number, None)

    def returned(self, entries: list[Entry]) -> None:
        """Messages came back."""
        find = self.stored.find
        returns = {number: times + 1 for number, _, times in entries if find(number) is not None}
        if returns:
            self.returns.update(returns)
            self.journal.note_returns(self, returns)

    def note_returns_anew(self, first: int, stop: int) -> None:
        """Messages `first` to `stop - 1` were stored anew: so is how often they came back."""
        returns = {n: self.returns[n] for n in range(first, stop) if n in self.returns}
        if returns:
            self.journal.note_returns(self, returns)

    def end_recovery(self) -> None:
        """What was read says more than is true: what was reserved for nobody, and what was
        returned and then settled."""
        self.delivered_to = self.reserved_to = min(self.delivered_to, self.next_number - 1)
        find = self.stored.find
        self.returns = {n: times for n, times in self.returns.items() if find(n) is not None}

    def times_returned(self, number: int) -> int:
        """How often a message came back, at least, as the log has it."""
        return self.returns.get(number, int(number <= self.delivered_to))

"""What a queue that lasts tells the journal, and what the log has of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.core.message import NUMBER, Entry
from broker.core.stored import StoredRuns

if TYPE_CHECKING:
    from broker.core.journal import Journal


class Lasting:
    """The durable side of one queue. `id` is its name in the log, `stored` says where its messages
    are. Everything up to `delivered_to` was handed to somebody at some time; `returns` is how
    often messages came back, by number."""

    __slots__ = ("delivered_to", "id", "journal", "returns", "stored")

    def __init__(self, journal: Journal, queue_id: int) -> None:
        self.journal = journal
        self.id = queue_id
        self.stored = StoredRuns(journal.batches.free)
        self.delivered_to = 0
        self.returns: dict[int, int] = {}

    def handed_out(self, entries: list[Entry], *, is_settled: bool) -> None:
        """Messages go to a consumer; for good, if nobody will acknowledge them."""
        if is_settled:
            self.settled(entries)
        elif entries[-1][NUMBER] > self.delivered_to:
            self.delivered_to = entries[-1][NUMBER]
            if self.stored:
                self.journal.mark_delivered(self)

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

    def forget_settled_returns(self) -> None:
        """After recovery: what was returned and then settled is of no interest."""
        find = self.stored.find
        self.returns = {n: times for n, times in self.returns.items() if find(n) is not None}

    def times_returned(self, number: int) -> int:
        """How often a message came back, at least, as the log has it."""
        return self.returns.get(number, int(number <= self.delivered_to))

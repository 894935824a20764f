"""What a queue that lasts tells the journal, and what the log has of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING

from broker.core.expiring import Expiring
from broker.core.message import NUMBER, Entry, Message
from broker.core.noted import Noted
from broker.core.stored import StoredRuns
from broker.storage.log import Position

if TYPE_CHECKING:
    from broker.core.journal import Journal


AHEAD = 8192
"""Messages that count as handed out before they are, as far as the log knows. After a crash so
many may be marked as redelivered without need; but none is unmarked that somebody has seen."""


class Lasting:
    """The durable side of one queue. `id` is its name in the log, `stored` says where its messages
    are. Everything up to `delivered_to` was handed to somebody at some time, and may have been up
    to `reserved_to`, as the log has it; `returns` is how often messages came back, by number."""

    __slots__ = (
        "_on_reserved",
        "counted_at",
        "delivered_to",
        "expiring",
        "held",
        "id",
        "journal",
        "next_number",
        "recovered_to",
        "reserved_at",
        "reserved_to",
        "returns",
        "stored",
    )

    def __init__(self, journal: Journal, queue_id: int) -> None:
        self.journal = journal
        self.id = queue_id
        self.stored = StoredRuns(journal.batches.free, journal.grow_index)
        # The number behind the last one that was stored.
        self.next_number = 1
        self.delivered_to = 0
        # What of it was handed out before the broker started.
        self.recovered_to = 0
        self.reserved_to = 0
        # The batch that says so.
        self.reserved_at: Position = 0
        self._on_reserved: Callable[[int], None] = lambda number: None
        self.returns = Noted(partial(journal.note_returns, queue_id), journal.grow_index)
        self.held = Noted(partial(journal.note_held, queue_id), journal.grow_index)
        # While a log is read: messages that came with an expiration.
        self.expiring = Expiring()
        # The log says all of these numbers from this batch on, whatever goes before it.
        self.counted_at = journal.position
        journal.queues[queue_id] = self

    def counted(self, position: Position) -> None:
        """This batch, the last one so far, has a counters record of the queue, or the queue has no
        numbers yet that could be in one."""
        self.counted_at = position
        queues = self.journal.queues
        queues[self.id] = queues.pop(self.id)

    def connect(self, on_reserved: Callable[[int], None]) -> None:
        """Calls back with the number up to which messages may be handed out, now and whenever
        that changes."""
        self._on_reserved = on_reserved
        on_reserved(self.reserved_to)

    def reserve(self, number: int) -> None:
        """Messages up to this number are about to be handed out, and others behind it soon: says
        so in the log, if it does not yet."""
        if self.reserved_to >= number + AHEAD // 2 or self.journal.has_failed:
            return
        self.reserved_to = reserved_to = max(number + AHEAD, self.delivered_to)
        self.reserved_at = self.journal.position
        self.journal.mark_delivered(self)

        def told(is_durable: bool) -> None:
            if is_durable:
                self._on_reserved(reserved_to)

        self.journal.when_durable(self.reserved_at, told)

    def release(self) -> None:
        """The log has failed: what the queue has in memory may all be handed out."""
        self._on_reserved(sys.maxsize)

    def handed_out(self, entries: list[Entry], *, is_settled: bool) -> None:
        """Messages go to a consumer; for good, if nobody will acknowledge them."""
        last = entries[-1][NUMBER]
        if last > self.delivered_to:
            self.delivered_to = last
            self.reserve(last)
        if is_settled:
            self.settled(entries)

    def settled(self, entries: list[Entry]) -> None:
        """Messages have left the queue for good."""
        if not self.stored:
            return
        numbers = [entry[NUMBER] for entry in entries]
        self.journal.settle(self, numbers)
        if self.returns:
            self.returns.forget(numbers)
            self.held.forget(numbers)

    def settled_now(self, entries: list[Entry]) -> None:
        """The same, and they are not in `stored` any more at once."""
        numbers = sorted(entry[NUMBER] for entry in entries)
        self.journal.settle_now(self, numbers)
        if self.returns:
            self.returns.forget(numbers)
            self.held.forget(numbers)

    def settled_range(self, first: int, stop: int) -> None:
        """Messages `first` to `stop - 1` have left the queue for good, as far as there are any."""
        self.journal.settle_range(self, first, stop - first)
        if self.returns:
            self.returns.forget_range(first, stop)
            self.held.forget_range(first, stop)

    def clear(self) -> None:
        """The queue is deleted."""
        self.stored.clear()
        self.returns.keep(())
        self.held.keep(())

    def returned(self, entries: list[Entry]) -> None:
        """Messages came back."""
        stored = self.stored
        self.returns.note({n: times + 1 for n, _, times in entries if n in stored})

    def note_passed(self, numbers: Iterable[int]) -> None:
        """Of what is ready still, others behind it were handed out: of these messages it is noted
        that they never came back."""
        low, high, returns = self.recovered_to, self.delivered_to, self.returns
        passed = [each for each in numbers if returns.get(each, int(not low < each <= high)) == 0]
        returns.note({each: 0 for each in passed if each in self.stored})

    def note_anew(self, first: int, stop: int) -> None:
        """Messages `first` to `stop - 1` were stored anew: so is what is noted of them."""
        self.returns.note_anew(first, stop)
        self.held.note_anew(first, stop)

    def end_recovery(self) -> None:
        """What was read says more than is true: what was reserved for nobody, and what was
        returned and then settled."""
        self.delivered_to = self.reserved_to = min(self.delivered_to, self.next_number - 1)
        self.recovered_to = self.delivered_to
        self.returns.keep(self.stored)
        self.held.keep(self.stored)
        if 0 in self.returns.values():
            # Nothing is handed out before the log has another batch: it ends what was noted.
            self.reserved_to = 0

    def entries(self, first: int, messages: Sequence[Message]) -> list[Entry]:
        """Entries for messages `first` and up that were read again, without those that are settled.
        How often each came back is what the log has, at least."""
        stop = first + len(messages)
        numbers: Sequence[int] = range(first, stop)
        if not self.stored.has_all(first, stop):
            numbers = self.stored.numbers(first, stop)
        if self.returns or first <= self.recovered_to:
            times: Iterable[int] = map(self.times_returned, numbers)
        else:
            times = repeat(0)
        if len(numbers) < len(messages):
            messages = [messages[number - first] for number in numbers]
        return list(zip(numbers, messages, times))  # noqa: B905  # one of them never ends

    def times_returned(self, number: int) -> int:
        """How often a message came back, at least, as the log has it."""
        return self.returns.get(number, int(number <= self.recovered_to))

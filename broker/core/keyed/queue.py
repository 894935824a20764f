"""Queues that tell messages apart by keys: `x-group-by`, `x-fair-by`.

Theory of operation. Messages stand in the lines of every queue, with numbers, paging and deadlines
as everywhere. Over these is an index of their numbers by key, which knows who is next
(`groups`, `shares`). So any message can be next: it is taken by its number from wherever it is
(`near`, `ready`, behind it). What is in a log alone is read first, ahead of the others
(`read_ahead`), while messages of other keys go on.

New messages are `arrivals` until the end of their batch: those that can go out at once never get to
a line or the index.

A restarted broker knows no keys. Messages are indexed in order as they are read, up to
`learned_to`; none from there on is handed out before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any

from broker.core.keyed.dispatch import ALL, hand_out, next_waiting
from broker.core.keyed.groups import Groups
from broker.core.keyed.keys import make_reader
from broker.core.keyed.near import NEAR_BYTES, Near
from broker.core.keyed.read_ahead import ReadAhead
from broker.core.keyed.shares import SharedGroups, Shares
from broker.core.limits import drop_head
from broker.core.lines import first_number, sparse_bytes
from broker.core.message import (
    MESSAGE,
    NUMBER,
    ORIGIN,
    RETURNS,
    TTL,
    Entry,
    Message,
    bodies_bytes,
    body_bytes,
    entries_size,
    entry_size,
)
from broker.core.queue import PACE_FROM, Queue
from broker.core.reading import BARE, where
from broker.core.sparse import Sparse
from broker.wire.table import Table

if TYPE_CHECKING:
    from broker.core.broker import Broker

_INDEX_MIN = 1024
"""Numbers in the index of messages that left otherwise, beyond as many as wait."""


def is_keyed(arguments: Table) -> bool:
    """Whether these (checked) arguments declare such a queue."""
    return "x-group-by" in arguments or "x-fair-by" in arguments


def _make_index(arguments: Table) -> Groups | Shares | SharedGroups:
    readers = {
        name: make_reader(str(arguments[name].value))
        for name in ("x-group-by", "x-fair-by")
        if name in arguments
    }
    groups, shares = readers.get("x-group-by"), readers.get("x-fair-by")
    if groups is not None and shares is not None:
        return SharedGroups(groups, shares)
    if shares is not None:
        return Shares(shares)
    assert groups is not None
    return Groups(groups)


class KeyedQueue(Queue):
    """A queue with `x-group-by`, `x-fair-by` or both."""

    __slots__ = (
        "_extra",
        "arrivals",
        "arrivals_bytes",
        "index",
        "keyed",
        "learned_to",
        "near",
        "read_ahead",
    )  # fmt: skip

    def __init__(self, broker: Broker, vhost_name: str, name: str, **more: Any) -> None:
        super().__init__(broker, vhost_name, name, **more)
        self.keyed = self
        self.line_type = Sparse
        self.ready = Sparse()
        self.index = _make_index(self.arguments)
        self.near = Near()
        # Those of this batch, and their octets of memory.
        self.arrivals: deque[Entry] = deque()
        self.arrivals_bytes = 0
        self.learned_to = ALL
        self.read_ahead = ReadAhead(self)
        # What counts as memory for the index.
        self._extra = 0

    @property
    def messages_ready(self) -> int:
        """Messages that wait for a consumer, or for others of their key."""
        return super().messages_ready + len(self.near) + len(self.arrivals)

    # Messages come

    def publish(self, messages: list[Message], size: int) -> None:
        """Appends messages, of `size` octets of memory in all."""
        number = self.next_number
        count = len(messages)
        self.next_number = number + count
        self.arrivals.extend(zip(range(number, number + count), messages, repeat(0)))
        self.arrivals_bytes += size
        self.broker.memory_used += size
        self.broker.work += count
        if messages[0][ORIGIN][TTL] is not None:
            self.expect(messages, number)
        if self.is_limited and self.rules.max_length_bytes is not None:
            self.body_bytes += sum(map(body_bytes, messages))
        if self.ready_bytes > PACE_FROM and self.consumers:
            self.broker.is_behind = True
        if self.broker.memory_used > self.broker.pager.mark:
            self.broker.pager.want(self)
        self.touch()

    def stand_in_line(self) -> None:
        """Those that came in this batch, and could not go out at once, wait in line."""
        if self.arrivals:
            entries, size = list(self.arrivals), self.arrivals_bytes
            self.arrivals.clear()
            self.arrivals_bytes = 0
            if self.learned_to == ALL:
                self.index.add(entries)
            self.append(entries, size)

    def append(self, entries: list[Entry], size: int) -> None:
        """These stand in line behind all others."""
        if self.paged is None:
            self.ready.extend(entries)
            self.ready_bytes += size
        else:
            self.paged.add(entries, size)

    # Messages go out

    def deliver(self) -> None:
        """Gives messages that may go out to consumers while both are there; what is left is judged
        by the rules of the queue."""
        self._is_touched = False
        expiry = self.expiry
        if expiry is not None and not expiry.make_ready():
            self.stand_in_line()
            return
        is_final = hand_out(self)
        self.stand_in_line()
        if self.is_limited and is_final and self.rules.drops:
            drop_head(self)
        if expiry is not None:
            expiry.watch(is_final=is_final)
        if self.paged is not None and len(self.consumers):
            # What is next is read before somebody has room for it.
            next_waiting(self)
        self.read_ahead.run()
        self._count()

    def find(self, number: int) -> Entry | None:
        """The ready message with this number, if it is in memory; perhaps without its content."""
        entry = self.near.get(number)
        lines = [self.ready]
        if self.paged is not None:
            lines += self.paged.tail, self.paged.fresh
        for line in lines:
            assert isinstance(line, Sparse)
            entry = entry or line.get(number)
        return entry

    def is_stored(self, number: int) -> bool:
        """Whether it is ready, and in a log alone, or being read."""
        if number in self.read_ahead.numbers:
            return True
        paged = self.paged
        if paged is None or not paged.count or not paged.first <= number < paged.stop:
            return False
        is_gone = number in self.out or number in self.dying
        return not is_gone and where(self, number) is not None

    def take_out(self, number: int) -> Entry:
        """Takes a message that is in memory."""
        entry = self.near.pop(number, None)
        if entry is not None:
            self.returned_bytes -= entry_size(entry)
            return entry
        assert isinstance(self.ready, Sparse)
        entry = self.ready.discard(number)
        if entry is None:
            paged = self.paged
            assert paged is not None
            for line in (paged.tail, paged.fresh):
                assert isinstance(line, Sparse)
                entry = entry or line.discard(number)
            assert entry is not None
            paged.tail_bytes -= entry_size(entry)
            self.ready_bytes += entry_size(entry)
        return entry

    def leave(self, entries: list[Entry], size: int, *, is_settled: bool) -> None:
        """Entries that left the ready ones are handed out, and are counted where they are now."""
        if not self.stores:
            super().leave(entries, size, is_settled=is_settled)
            return
        entries = sorted(entries)
        numbers = [entry[NUMBER] for entry in entries]
        self.out.update(numbers)
        super().leave(entries, size, is_settled=is_settled)
        if is_settled:
            self._has_settled(numbers)

    # basic.get

    def get(self, *, no_ack: bool) -> Entry | None:
        """Takes the message that is next; None if there is none, or none can be handed out now
        (`is_coming`)."""
        number = next_waiting(self)
        if number is None:
            self.read_ahead.run(is_asked=True)
            # What was all in memory is there at once.
            number = next_waiting(self)
        if number is None or number > self.reserved_to:
            return None
        entry = self.take_out(number)
        self.index.hold(keeps=not no_ack)
        self.leave([entry], entry_size(entry), is_settled=no_ack)
        self.touch()
        return entry

    @property
    def is_coming(self) -> bool:
        """Whether a message may be there for basic.get when the disk has answered, or what has
        expired is gone."""
        is_behind = self.expiry is not None and self.expiry.is_behind
        return is_behind or next_waiting(self) is not None or self.read_ahead.is_busy

    def when_next(self, callback: Callable[[bool], None]) -> None:
        """Calls back when that is so, or it cannot be read."""
        number = next_waiting(self)
        is_behind = self.expiry is not None and self.expiry.is_behind
        if number is None or is_behind:
            self.waiting.append(callback)
            return
        assert self.lasting is not None
        self.lasting.reserve(number)
        self.lasting.journal.when_durable(self.lasting.reserved_at, callback)

    # Messages come back, or leave

    def settle(self, entries: list[Entry]) -> None:
        """These deliveries are acknowledged."""
        if self.is_deleted:
            return
        super().settle(entries)
        self._has_settled([entry[NUMBER] for entry in entries])
        self.release(entries)

    def _has_settled(self, numbers: list[int]) -> None:
        """These left for good, and must not be read again before the log learns of it."""
        if not self.out:
            return
        if self.paged is not None:
            for store in self.stores:
                store.journal.end_changes()
        if not any(store.journal.has_failed for store in self.stores):
            self.out.difference_update(numbers)

    def reject(self, entries: list[Entry]) -> None:
        """These deliveries are rejected for good."""
        if self.is_deleted:
            return
        super().reject(entries)
        self.release(entries)

    def release(self, entries: Sequence[Entry]) -> None:
        """Others of their keys may go out."""
        if self.index.release([entry[NUMBER] for entry in entries]):
            self.touch()

    def take_back(self, entries: list[Entry], *, failed: bool) -> None:
        """These are no longer handed out."""
        limit = self.rules.delivery_limit
        came = entries
        if limit is not None:
            self.release([entry for entry in entries if entry[RETURNS] >= limit])
            came = [entry for entry in entries if entry[RETURNS] < limit]
        if self.rules.delays(failed=failed):
            self.index.pause([entry[NUMBER] for entry in came])
        super().take_back(entries, failed=failed)

    def give_back(self, came: list[Entry]) -> None:
        """Messages that came back are ready again, as far as they have not expired."""
        alive = came
        if self.expiry is not None:
            alive = self.expiry.bury_expired(came)
            self.expiry.returned(alive)
            if len(alive) < len(came):
                numbers = {entry[NUMBER] for entry in alive}
                self.release([entry for entry in came if entry[NUMBER] not in numbers])
        for entry in alive:
            self.index.give_back(entry[NUMBER])
        if self.rules.max_length_bytes is not None:
            self.body_bytes += bodies_bytes(alive)
        self.be_near(alive)
        self.touch()

    def be_near(self, entries: list[Entry]) -> None:
        """These are ready, in memory."""
        size = entries_size(entries)
        self.near.put(entries)
        self.ready_bytes += size
        self.returned_bytes += size
        self.broker.memory_used += size

    def purge(self) -> int:
        """Drops what is ready or waits, and returns how many that were; others stay."""
        self.stand_in_line()
        gone = [*self.near, *self.read_ahead.numbers]
        if self.retries is not None:
            gone += self.retries.numbers
            self.index.release(self.retries.numbers)
        self.out.difference_update(gone)
        return super().purge()

    def _drop_ready(self) -> None:
        super()._drop_ready()
        self.near.clear()
        self.index.clear()
        self.read_ahead.clear()
        self.learned_to = ALL
        self._count()

    def let_go(self) -> None:
        """Its messages are gone, and nothing that is still settled counts."""
        self.stand_in_line()
        super().let_go()
        self.index.close()
        self.out.clear()
        self._count()

    def _count(self) -> None:
        """The index takes memory, and must not grow by what left the queue otherwise."""
        index = self.index
        if index.count > _INDEX_MIN + 2 * self.messages_ready:
            index.keep(self._is_there)
        extra = index.octets + len(self.near) * NEAR_BYTES
        if self.expiry is None:
            extra += sparse_bytes(self)
        self.broker.memory_used += extra - self._extra
        self._extra = extra

    def _is_there(self, number: int) -> bool:
        return self.find(number) is not None or self.is_stored(number)

    # The first ones, whatever their keys

    @property
    def lowest_near(self) -> int | None:
        """The number of the first ready message, if it is in none of the lines."""
        lowest = self.near.lowest
        first = None if lowest is None else first_number(self)
        return lowest if first is None or lowest is None or lowest < first else None

    def first_ready(self) -> Entry | None:
        """The first ready message in memory, which may be without its content; None if the first
        one has to be read, or there is none."""
        lowest = self.lowest_near
        if lowest is not None:
            entry = self.near[lowest]
            return None if entry[MESSAGE] is BARE else entry
        return self.ready[0] if self.ready else None

    # What is read

    def read_in(self, entries: list[Entry]) -> None:
        """Messages were read in order, and are ready."""
        if self.learned_to < ALL:
            if self.paged is None:
                self.learn(list(self.ready), ALL)
            else:
                self.learn(entries, self.paged.first)
        self.read_ahead.rejoin()

    def learn(self, entries: Sequence[Entry], stop: int) -> None:
        """All up to this number are known, with these."""
        self.index.add([entry for entry in entries if entry[NUMBER] >= self.learned_to])
        self.learned_to = max(stop, self.learned_to)

"""What the broker writes down: records collect here, batch by batch, on their way to the log.

Theory of operation. Whatever must last is added to the batch that is pending, as it happens;
`flush` hands the batch to the log at the end of a turn. Two batches are under way at most, one
that is being flushed and one that waits, so batches grow while the disk is busy and there is no
timer. Who wants to know that something is durable waits for the batch it is in (`when_durable`):
publisher confirms, answers to declarations, commits. Settlements ride along; nobody waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TYPE_CHECKING

from broker.core import records
from broker.core.batches import Batches
from broker.core.cleaner import Cleaner
from broker.core.message import Message
from broker.core.records import HEAD, Kind
from broker.core.stored import Run
from broker.storage.log import Log, LogState, Position

if TYPE_CHECKING:
    from broker.core.deduplication.remembered import ReadWindows, Remembered
    from broker.core.lasting import Lasting

UNDER_WAY_MAX = 2
"""Batches that are handed to the log before the first of them is durable."""
BATCH_BYTES = 2 << 20
"""Octets from which a batch is handed over anyway: what is cleaned later, is cleaned by batches."""
WAITING_MAX = 32 << 20
"""Octets that may wait for the log before publishers have to wait too."""


class Journal:
    """The records of one broker on their way to `log`. `batches` knows what the log holds, from
    recovery; a new log holds nothing. Nobody recovers what is in a scratch log."""

    def __init__(
        self, log: Log, batches: Batches | None = None, *, is_scratch: bool = False
    ) -> None:
        self.log = log
        self.is_scratch = is_scratch
        self.batches = batches or Batches(log.next)
        self.durable: Position = log.next - 1
        # Octets that are not durable yet.
        self.waiting_bytes = 0
        # Octets of memory that the indexes of what is stored take.
        self.index_bytes = 0
        # Each definition's record, and the batch it was written to last, in that order.
        self.definitions: dict[Hashable, tuple[bytes, Position]] = {}
        # The last batch in which something was defined or deleted.
        self.defined_to: Position = 0
        # What was changed in batches that are not durable yet: whether it was deleted, and its key.
        self._changed: deque[tuple[Position, bool, Hashable]] = deque()
        # Since the log has failed: definitions of which it may not know, and whether it may know
        # some that are deleted.
        self.in_doubt: set[Hashable] = set()
        self.has_lost_deletion = False
        # And whether messages were settled since `begin_change` that the log will not forget.
        self.has_lost = False
        self._pending: list[bytes] = []
        self._under_way: deque[Position] = deque()
        self._settled: dict[Lasting, list[int]] = {}
        self._moved: dict[Lasting, list[Run]] = {}
        self._delivered: dict[int, int] = {}
        self._callbacks: dict[Position, list[Callable[[bool], None]]] = {}
        self.cleaner = Cleaner(self)
        # The queues that write here, by id, in the order of `counted_at`.
        self.queues: dict[int, Lasting] = {}
        # What is remembered of publishes, by id, and the last number that was given to one.
        self.windows: dict[int, Remembered] = {}
        self.last_number = 0
        # Those that were read, while what they are of is made.
        self.read_windows: ReadWindows | None = None
        # Called after callbacks: what they did wants to be delivered and written.
        self.on_progress: Callable[[], None] = lambda: None

    @property
    def position(self) -> Position:
        """The batch that is pending."""
        return self.batches.pending

    @property
    def has_pending(self) -> bool:
        """Whether something was written since the last batch."""
        return bool(self._pending or self._settled or self._delivered)

    @property
    def has_failed(self) -> bool:
        """Whether nothing more will ever be durable."""
        return self.log.state in (LogState.FAILED, LogState.FENCED)

    @property
    def is_behind(self) -> bool:
        """Whether the log does not keep up, so that publishers have to wait."""
        return self.waiting_bytes > WAITING_MAX

    # Records

    def put(
        self, queues: Sequence[Lasting], firsts: Sequence[int], messages: Sequence[Message]
    ) -> None:
        """Messages that can be one record (`records.put`) went to these queues, with numbers from
        `firsts` on that are above all others."""
        for queue, run in zip(queues, self._store(queues, firsts, messages), strict=True):
            queue.stored.add(run)
            queue.next_number = run.stop

    def store_anew(
        self, queues: Sequence[Lasting], firsts: Sequence[int], messages: Sequence[Message]
    ) -> None:
        """Writes messages again that are numbered from `firsts` on in these queues, which know of
        it after `end_moves`."""
        for queue, run in zip(queues, self._store(queues, firsts, messages), strict=True):
            self._moved.setdefault(queue, []).append(run)

    def end_moves(self) -> int:
        """What was written again is found in its new places: of each queue all at once, since it
        takes a look at the index behind them. Returns how many runs that were."""
        moved, self._moved = self._moved, {}
        for queue, runs in moved.items():
            queue.stored.insert_all(sorted(runs))
        return sum(map(len, moved.values()))

    def _store(
        self, queues: Sequence[Lasting], firsts: Sequence[int], messages: Sequence[Message]
    ) -> list[Run]:
        most = records.TARGETS_MAX
        if len(queues) > most:
            runs = self._store(queues[:most], firsts[:most], messages)
            # The next record has the messages once more.
            return runs + self._store(queues[most:], firsts[most:], messages)
        targets = [(queue.id, first) for queue, first in zip(queues, firsts, strict=True)]
        offset = self.batches.pending_bytes + HEAD.size
        size = self._add(records.put(targets, messages)) - HEAD.size
        count = len(messages)
        # Rounded up: a batch with anything in it that is wanted must not count as empty.
        share = -(-size // (count * len(targets)))
        position = self.position
        self.batches.hold(position, share * count * len(targets))
        return [Run(first, count, position, offset, size, 0, share) for _, first in targets]

    def settle(self, queue: Lasting, numbers: Iterable[int]) -> None:
        """Messages left a queue for good."""
        if self.has_failed:
            self._lose(queue, numbers)
            return
        if self.is_scratch:
            self._settle_ranges(queue, *records.ranges(sorted(numbers)))
            return
        numbers_so_far = self._settled.get(queue)
        if numbers_so_far is None:
            numbers_so_far = self._settled[queue] = []
        numbers_so_far += numbers

    def settle_now(self, queue: Lasting, numbers: Sequence[int]) -> None:
        """The same for sorted numbers; they are settled when this returns."""
        if self.has_failed:
            self._lose(queue, numbers)
        else:
            self._settle_ranges(queue, *records.ranges(numbers))

    def settle_range(self, queue: Lasting, first: int, count: int) -> None:
        """The same for all messages with these numbers, as far as there are any."""
        if self.has_failed:
            self._lose(queue, queue.stored.numbers(first, first + count))
        else:
            self._settle_ranges(queue, [first], [count])

    def _lose(self, queue: Lasting, numbers: Iterable[int]) -> None:
        """Messages are settled, and the log has failed: it goes on having what it was given."""
        runs = map(queue.stored.find, numbers)
        handed_over = self.log.next
        self.has_lost |= any(run is not None and run.position < handed_over for run in runs)

    def mark_delivered(self, queue: Lasting) -> None:
        """Everything up to `queue.reserved_to` may be handed to somebody."""
        self._delivered[queue.id] = queue.reserved_to

    def note_returns(self, queue_id: int, returns: dict[int, int]) -> None:
        """How often these messages came back so far, by number."""
        self._add([records.returned(queue_id, returns)])

    def note_held(self, queue_id: int, untils: dict[int, int]) -> None:
        """Until when these messages wait, by number."""
        self._add([records.held(queue_id, untils)])

    def add_record(self, octets: bytes) -> None:
        """Adds a record to the pending batch; who reads it again knows what it says."""
        self._add([octets])

    def define(self, key: Hashable, kind: Kind, table: bytes) -> None:
        """Something durable was declared, as this field table says; `key` takes it away again.
        What is written already is not written twice."""
        if key not in self.definitions:
            self._change(key, is_deletion=False)
            self._write_definition(key, records.definition(kind, table))

    def redefine(self, key: Hashable, kind: Kind, table: bytes) -> None:
        """Something that was defined is different now, as this field table says."""
        octets, position = self.definitions.pop(key)
        self.batches.free(position, len(octets))
        self.define(key, kind, table)

    def extend(self, key: Hashable, kind: Kind, table: bytes) -> None:
        """There is more to something that was defined, as this field table says: nobody was
        promised that it lasts."""
        octets, position = self.definitions.pop(key)
        self.batches.free(position, len(octets))
        self._write_definition(key, records.definition(kind, table))

    def undefine(self, key: Hashable, kind: Kind, table: bytes) -> None:
        """Something durable was deleted; what was never defined is no error."""
        known = self.definitions.pop(key, None)
        if known is not None:
            octets, position = known
            self.batches.free(position, len(octets))
            self._change(key, is_deletion=True)
            self._add([records.definition(kind, table)])
            self.defined_to = self.position

    def _change(self, key: Hashable, *, is_deletion: bool) -> None:
        if self.has_failed:
            self.in_doubt.add(key)
            self.has_lost_deletion |= is_deletion
        else:
            self._changed.append((self.position, is_deletion, key))

    def begin_change(self) -> None:
        """`has_lost` is about what is done from now on."""
        self.has_lost = False

    def write_definitions_before(self, position: Position) -> None:
        """Writes every definition again that is in a batch before this one."""
        old = []
        for key, (octets, written) in self.definitions.items():
            if written >= position:
                break
            old.append((key, octets, written))
        for key, octets, written in old:
            del self.definitions[key]
            self.batches.free(written, len(octets))
            self._write_definition(key, octets)

    def _write_definition(self, key: Hashable, octets: bytes) -> None:
        self._add([octets])
        self.defined_to = self.position
        self.batches.hold(self.position, len(octets))
        self.definitions[key] = octets, self.position

    def forget(self, queue: Lasting) -> None:
        """A queue is deleted: nothing of it is wanted any more."""
        self.queues.pop(queue.id, None)
        self._settled.pop(queue, None)
        self._delivered.pop(queue.id, None)
        queue.clear()

    def write_counters(self, states: Sequence[tuple[int, int, int]]) -> None:
        """Writes where the numbering of queues stands: (queue id, next number, highest number that
        may have been handed out)."""
        if states:
            self._add([records.counters(states)])

    def grow_index(self, octets: int) -> None:
        """An index of what is stored takes so much more memory, or less."""
        self.index_bytes += octets

    def _add(self, pieces: list[bytes]) -> int:
        size = sum(map(len, pieces))
        if self.has_failed:
            return size
        self._pending += pieces
        self.batches.grow(size)
        self.waiting_bytes += size
        return size

    # Batches

    def flush(self) -> None:
        """Hands what is pending to the log, unless enough is under way."""
        # Written out, since each batch of each connection ends here.
        if not (self._pending or self._settled or self._delivered or self._callbacks):
            self.cleaner.run()
            return
        if self.has_failed:
            if self._callbacks:
                self._refuse()
            return
        is_large = self.batches.pending_bytes >= BATCH_BYTES
        if len(self._under_way) >= UNDER_WAY_MAX and not is_large:
            return
        self.end_changes()
        self.cleaner.run()
        if self._pending:
            self._append()

    def _append(self) -> None:
        pending, self._pending = self._pending, []
        self._under_way.append(self.log.append(pending, self._when_durable))
        self.batches.end()

    def end_changes(self) -> None:
        """Turns what was settled and handed out into records of the pending batch."""
        if self._settled:
            settled, self._settled = self._settled, {}
            for queue, numbers in settled.items():
                self._settle_ranges(queue, *records.ranges(sorted(numbers)))
        if self._delivered:
            self._add([records.delivered(self._delivered)])
            self._delivered = {}

    def _settle_ranges(self, queue: Lasting, firsts: list[int], counts: list[int]) -> None:
        if not self.is_scratch:
            self._add([records.settled(queue.id, firsts, counts)])
        for first, count in zip(firsts, counts, strict=True):
            queue.stored.settle(first, count)

    def _when_durable(self, position: Position) -> None:
        self.durable = position
        while self._under_way and self._under_way[0] <= position:
            self.waiting_bytes -= self.batches.size(self._under_way.popleft())
        while self._changed and self._changed[0][0] <= position:
            self._changed.popleft()
        # A callback may ask for what is durable already, with this batch.
        while due := [known for known in self._callbacks if known <= position]:
            for callback in self._callbacks.pop(min(due)):
                callback(True)
        self.on_progress()

    def when_durable(self, position: Position, callback: Callable[[bool], None]) -> None:
        """Calls back with True when this batch is durable, which it is not yet; with False when it
        never will be, at the end of the turn if that is known already."""
        self._callbacks.setdefault(position, []).append(callback)

    def fail(self) -> None:
        """The log has failed, or belongs to somebody else: nothing more is written."""
        self._pending.clear()
        self._settled.clear()
        self._delivered.clear()
        self.waiting_bytes = 0
        while self._changed:
            _, is_deletion, key = self._changed.popleft()
            self._change(key, is_deletion=is_deletion)
        for queue in self.queues.values():
            queue.release()
        self._refuse()

    def _refuse(self) -> None:
        """Tells all who wait that they do so in vain."""
        callbacks, self._callbacks = self._callbacks, {}
        for position in sorted(callbacks):
            for callback in callbacks[position]:
                callback(False)
        self.on_progress()

    def close(self) -> None:
        """Writes what is pending and where exactly every queue stands, tells who waits for it, and
        lets the log go. Blocks."""
        if not self.has_failed:
            self.end_changes()
            self.write_counters(
                [
                    (queue.id, queue.next_number, queue.delivered_to)
                    for queue in self.queues.values()
                    if queue.next_number > 1
                ]
            )
            if self._pending:
                self._append()
        self.log.close()

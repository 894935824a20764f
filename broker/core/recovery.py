"""Reading a log again: what was durable when the broker stopped, is there.

Definitions are gathered first and made at the end, since one that was written anew may stand
behind what needs it. Messages are only indexed; queues read them when somebody wants them. So
it takes as long as reading the log does, and no more memory than the index.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from itertools import islice
from typing import TYPE_CHECKING

from broker.core import definitions, records
from broker.core.batches import Batches
from broker.core.deduplication.remembered import ReadWindows
from broker.core.delayed import Delayed
from broker.core.expiring import Expiring
from broker.core.history import History
from broker.core.journal import Journal
from broker.core.lanes import Lane
from broker.core.lasting import Lasting
from broker.core.paging import Paged
from broker.core.policies import PolicyError
from broker.core.priorities import PriorityQueue
from broker.core.queue import Queue
from broker.core.records import Kind
from broker.core.retries import Retries
from broker.core.stored import Run
from broker.storage.log import Log, LogDamagedError, Position

if TYPE_CHECKING:
    from broker.core.broker import Broker


class Recovery:
    """One reading of a log."""

    def __init__(self, log: Log) -> None:
        self._journal = Journal(log, Batches(log.first))
        self._batches = self._journal.batches
        self._queues: dict[int, Lasting] = {}
        self._definitions: dict[Hashable, tuple[Kind, bytes, Position]] = {}
        self._position = log.first
        # Messages of which the last batch so far says that others passed them.
        self._passed: list[tuple[Lasting, int]] = []
        # Messages that were stored anew, in ascending order, and are not in their places yet.
        self._anew: dict[Lasting, list[Run]] = {}
        # The highest id of a queue in the log.
        self._seen = 0
        self._windows = ReadWindows(self._batches)
        self._batch = b""
        self._read: dict[int, Callable[[int, int], None]] = {
            Kind.PUT: self._read_put,
            Kind.SETTLED: self._read_settled,
            Kind.DELIVERED: self._read_delivered,
            Kind.RETURNED: self._read_returned,
            Kind.HELD: self._read_held,
            Kind.COUNTERS: self._read_counters,
            Kind.REMEMBERED: self._read_remembered,
        }
        for position, batch in log.replay():
            try:
                self._read_batch(position, batch)
            except ValueError as error:
                # Whole, but written by a version that knows more kinds of records.
                raise LogDamagedError(f"batch {position} cannot be understood: {error}") from None
        for queue in list(self._anew):
            self._end_inserts(queue)

    def _read_batch(self, position: Position, batch: bytes) -> None:
        self._position, self._batch = position, batch
        # It was so at a stop; what came after it may have been handed out without a word.
        for queue, number in self._passed:
            if not queue.returns[number]:
                del queue.returns[number]
        self._passed.clear()
        self._batches.grow(len(batch))
        for kind, at, end in records.each(batch):
            read = self._read.get(kind)
            if read is not None:
                read(at, end)
            else:
                self._read_definition(Kind(kind), at, end)
        self._batches.end()

    def _queue(self, queue_id: int) -> Lasting:
        queue = self._queues.get(queue_id)
        if queue is None:
            self._seen = max(self._seen, queue_id)
            queue = self._queues[queue_id] = Lasting(self._journal, queue_id)
        return queue

    def _read_put(self, at: int, end: int) -> None:
        targets, count, expiring = records.read_put_targets(self._batch, at)
        share = -((at - end) // (count * len(targets)))
        for queue_id, first in targets:
            queue = self._queue(queue_id)
            if expiring is not None:
                queue.expiring.add(*expiring, first, count)
            run = Run(first, count, self._position, at, end - at, 0, share)
            self._batches.hold(self._position, share * count)
            if first >= queue.next_number:
                queue.stored.add(run)
                queue.next_number = run.stop
            else:
                self._insert(queue, run)

    def _insert(self, queue: Lasting, run: Run) -> None:
        """Messages that were stored anew: many come one behind the other, and go to their places
        at once."""
        runs = self._anew.setdefault(queue, [])
        if runs and run.first < runs[-1].stop:
            self._end_inserts(queue)
            runs = self._anew[queue] = []
        runs.append(run)

    def _end_inserts(self, queue: Lasting) -> None:
        runs = self._anew.pop(queue, None)
        if runs:
            queue.stored.insert_all(runs)

    def _read_settled(self, at: int, end: int) -> None:
        queue_id, ranges = records.read_settled(self._batch, at)
        queue = self._queue(queue_id)
        self._end_inserts(queue)
        for first, count in ranges:
            queue.stored.settle(first, count)

    def _read_delivered(self, at: int, end: int) -> None:
        for queue_id, number in records.read_delivered(self._batch, at):
            self._queue(queue_id).delivered_to = number

    def _read_returned(self, at: int, end: int) -> None:
        for queue_id, number, times in records.read_returned(self._batch, at):
            queue = self._queue(queue_id)
            queue.returns[number] = times
            if not times:
                self._passed.append((queue, number))

    def _read_held(self, at: int, end: int) -> None:
        for queue_id, number, until in records.read_held(self._batch, at):
            self._queue(queue_id).held[number] = until

    def _read_counters(self, at: int, end: int) -> None:
        for queue_id, next_number, delivered_to in records.read_counters(self._batch, at):
            queue = self._queue(queue_id)
            queue.next_number = max(queue.next_number, next_number)
            queue.delivered_to = delivered_to
            queue.counted(self._position)

    def _read_remembered(self, at: int, end: int) -> None:
        self._windows.read(self._position, self._batch, at)

    def _read_definition(self, kind: Kind, at: int, end: int) -> None:
        table = records.read_definition(self._batch, at, end)
        key = definitions.key_of(kind, table)
        known = self._definitions.pop(key, None)
        if known is not None:
            self._batches.free(known[2], len(known[1]))
        if kind in definitions.DELETIONS:
            if kind is Kind.QUEUE_DELETED:
                for queue_id in definitions.ids_of(table):
                    self._drop_queue(queue_id)
            return
        octets = self._batch[at - records.HEAD.size : end]
        self._definitions[key] = kind, octets, self._position
        self._batches.hold(self._position, len(octets))

    def _drop_queue(self, queue_id: int) -> None:
        queue = self._queues.pop(queue_id, None)
        if queue is not None:
            self._end_inserts(queue)
            self._journal.forget(queue)

    def into(self, broker: Broker) -> None:
        """Makes in `broker` what was read, with a journal that goes on from there."""
        broker.journal = self._journal
        broker.journals.append(self._journal)
        tables = []
        for key, (kind, octets, position) in self._definitions.items():
            self._journal.definitions[key] = octets, position
            tables.append((kind, records.read_definition(octets, records.HEAD.size, len(octets))))
        self._seen = max(self._seen, self._windows.highest_id, definitions.highest_id(tables))
        broker.next_queue_id = self._seen + 1
        self._journal.read_windows = self._windows
        try:
            queues = definitions.make_all(broker, tables, self._queue)
        except PolicyError as error:
            # The same: a later version may know more keys.
            raise LogDamagedError(f"a policy cannot be understood: {error}") from None
        for queue_id in self._queues.keys() - queues.keys():
            self._drop_queue(queue_id)
        for queue_id, queue in queues.items():
            lasting = self._queue(queue_id)
            lasting.end_recovery()
            if not isinstance(queue, Delayed | History | Lane):
                broker.vhosts[queue.vhost_name].policies.apply(queue)
            restore(queue, lasting)
        self._windows.drop_others()
        self._journal.read_windows = None


def restore(queue: Queue, lasting: Lasting) -> None:
    """The queue lasts. What is stored already is ready, and read when it is wanted."""
    queue.lasting = lasting
    if isinstance(queue, PriorityQueue):
        restore(queue.lane_of(0), lasting)
        return
    queue.stores = (lasting,)
    lasting.connect(queue.reserve_to)
    if lasting.journal.has_failed:
        lasting.release()
    queue.next_number = max(queue.next_number, lasting.next_number)
    for run in islice(lasting.stored.runs_from(0), 1):
        queue.paged = Paged(queue, run.first, queue.next_number, lasting.stored.count)
        if queue.keyed is not None:
            queue.keyed.learned_to = run.first
    queue.bodies_from = queue.next_number
    if lasting.expiring:
        queue.expect_again(lasting.expiring)
        lasting.expiring = Expiring()
    if lasting.held:
        queue.retries = Retries(queue)
        queue.retries.resume()
    if queue.expiry is not None:
        queue.expiry.recovered()
    if queue.expiry is not None or queue.rules.has_limit:
        queue.touch()


def recover(broker: Broker, log: Log) -> None:
    """Gives an empty broker what is in this log, and lets it write there from now on.

    Raises `broker.storage.log.LogDamagedError`.
    """
    Recovery(log).into(broker)

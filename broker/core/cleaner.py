"""Gets room back: what is left in the oldest batches is stored anew, then the log lets them go.

A log drops its oldest batches only, since dropping in any other order could bring back what was
settled: a settlement is always behind what it settles. So cleaning begins at the front, goes step
by step, and runs while less than half of the log is wanted.

A full log is also cleaned if little is wanted of what has to go for room to come back, however much
is wanted of the rest: but only if that fits into the room that there is, behind what waits. What is
stored anew and frees nothing would take that room from settlements.
"""

from __future__ import annotations

from itertools import groupby, takewhile
from typing import TYPE_CHECKING

from broker.core import records
from broker.core.deduplication.remembered import read_record
from broker.core.records import Kind, Put
from broker.storage.log import Location, LogState, Position

if TYPE_CHECKING:
    from broker.core.journal import Journal
    from broker.core.lasting import Lasting

STEP = 2 << 20
"""Octets of old batches that are cleaned at once, and the rest of the last of these."""
STEP_BATCHES = 16_384
"""Batches that go at once."""
STEP_MIN = 1 << 16
"""Octets of a step where messages are so small that more would keep the loop for long."""
ROWS_AS_RUN = 25
"""Ids of messages that take as long as one run."""
STEP_RUNS = 200
"""Runs that a step should store anew, one way or the other: each takes some 50 us."""
SLACK = 8 << 20
"""Octets that may be unwanted however little is wanted."""
WANTED_SHARE = 0.4
"""Of what comes back when a full log is cleaned: so much may be stored anew for it, however much of
the log is wanted. Little enough that publishers can go on for a while then."""


class Cleaner:
    """Cleans the log of one journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._is_reading = False
        # Octets of the next step, by how many runs the last ones stored anew.
        self._step = STEP_MIN
        # What has to go from a full log is cleaned up to here.
        self._full_stop: Position = 0

    def run(self) -> None:
        """Begins a step, if one is due and none is under way."""
        journal = self._journal
        batches = journal.batches
        # Written out, since each batch of each connection ends here.
        is_due = batches.total_bytes > 2 * batches.live_bytes + SLACK
        if (is_due or journal.log.state is LogState.FULL) and not journal.has_failed:
            self._run()

    @property
    def _is_due(self) -> bool:
        """Whether less than half of the log is wanted."""
        batches = self._journal.batches
        return batches.total_bytes > 2 * batches.live_bytes + SLACK

    def _run(self) -> None:
        while not self._is_reading:
            is_full = self._journal.log.state is LogState.FULL
            stop = self._end_of_step(self._end(is_full=is_full))
            if stop <= self._journal.batches.first:
                return
            self._clean(stop)
            if not is_full:
                return
            # On a full disk, nothing may ever come that begins the next one.

    def _end(self, *, is_full: bool) -> Position:
        """What is to be cleaned ends here."""
        if is_full:
            return self._end_while_full()
        return self._journal.durable + 1 if self._is_due else self._journal.batches.first

    def _end_while_full(self) -> Position:
        """Where that ends which has to go for room to come back; nowhere, if it cannot go."""
        journal = self._journal
        stop, octets = journal.log.oldest
        first = journal.batches.first
        if stop <= first or stop > journal.durable + 1:
            return first
        if stop != self._full_stop:
            live = journal.batches.live_before(stop)
            room = journal.log.room_bytes - journal.waiting_bytes - STEP
            if live > room or (live > octets * WANTED_SHARE and not self._is_due):
                return first
            self._full_stop = stop
        return stop

    def _end_of_step(self, end: Position) -> Position:
        batches = self._journal.batches
        size, stop = 0, batches.first
        end = min(end, stop + STEP_BATCHES)
        while stop < end and size < min(self._step, STEP):
            # What nothing is wanted of is not read.
            size += batches.size(stop) if batches.live(stop) else 0
            stop += 1
        return stop

    def _clean(self, stop: Position) -> None:
        batches = self._journal.batches
        locations: list[Location] = [
            (position, 0, batches.size(position))
            for position in range(batches.first, stop)
            if batches.live(position)
        ]
        if not locations:
            self._let_go(stop)
            return
        self._is_reading = True

        def done(pieces: list[bytes] | None) -> None:
            self._is_reading = False
            if pieces is None or self._journal.has_failed:
                return
            self._journal.end_changes()
            rows = 0
            for (position, _, _), batch in zip(locations, pieces, strict=True):
                rows += self._store_anew(position, batch)
            self._set_step(self._journal.end_moves() + rows // ROWS_AS_RUN)
            self._let_go(stop)
            self._journal.on_progress()

        self._journal.log.read(locations, done)

    def _set_step(self, runs: int) -> None:
        fitting = self._step * STEP_RUNS // max(runs, 1)
        self._step = max(STEP_MIN, min(fitting, 2 * self._step, STEP))

    def _store_anew(self, position: Position, batch: bytes) -> int:
        """Writes what is still wanted of this batch again. Returns how many ids of messages."""
        count = 0
        for kind, at, _ in records.each(batch):
            if kind == Kind.PUT:
                put = records.read_put(batch, at)
                wanted = self._wanted(put, position, at)
                if wanted:
                    self._store_runs(put, batch, wanted)
            elif kind == Kind.REMEMBERED:
                window_id, _, rows = read_record(batch, at)
                window = self._journal.windows.get(window_id)
                count += window.store_anew(position, rows) if window is not None else 0
        return count

    def _wanted(self, put: Put, position: Position, at: int) -> list[tuple[Lasting, bytearray]]:
        """The queues in which messages of a record are alive and stored here; and which: one octet
        for each message, 1 if it is."""
        wanted = []
        for queue_id, first in put.targets:
            queue = self._journal.queues.get(queue_id)
            if queue is None:
                continue
            flags = bytearray(len(put.sizes))
            for run in queue.stored.runs_from(first, first + len(flags)):
                if (run.position, run.offset) == (position, at):
                    numbers = queue.stored.unsettled(run)
                    for start, count in zip(*records.ranges(numbers), strict=True):
                        flags[start - first : start - first + count] = b"\x01" * count
            if any(flags):
                wanted.append((queue, flags))
        return wanted

    def _store_runs(self, put: Put, batch: bytes, wanted: list[tuple[Lasting, bytearray]]) -> None:
        messages = put.messages(batch)
        firsts = dict(put.targets)
        place = 0
        for alive, group in groupby(zip(*[flags for _, flags in wanted], strict=True)):
            count = len(list(group))
            queues = [queue for (queue, _), is_alive in zip(wanted, alive, strict=True) if is_alive]
            if queues:
                numbers = [firsts[queue.id] + place for queue in queues]
                self._journal.store_anew(queues, numbers, messages[place : place + count])
                for queue, first in zip(queues, numbers, strict=True):
                    queue.note_anew(first, first + count)
            place += count

    def _write_counters_before(self, stop: Position) -> None:
        """Writes where the numbering of those queues stands of which the log would not know it
        without the batches before `stop`."""
        # These records are not held as wanted, but they come to an end: each is shorter than the
        # definition of its queue, which is held.
        journal = self._journal
        old = list(takewhile(lambda queue: queue.counted_at < stop, journal.queues.values()))
        journal.write_counters(
            [
                (queue.id, queue.next_number, queue.reserved_to)
                for queue in old
                if queue.next_number > 1 or queue.reserved_to
            ]
        )
        for queue in old:
            queue.counted(journal.position)

    def _let_go(self, stop: Position) -> None:
        """Nothing before `stop` is wanted any more, once what was written now is durable."""
        journal = self._journal
        journal.write_definitions_before(stop)
        if not journal.is_scratch:
            self._write_counters_before(stop)
        journal.batches.drop(stop)
        if journal.has_pending:

            def truncate(is_durable: bool) -> None:
                if is_durable:
                    journal.log.truncate(stop)

            journal.when_durable(journal.position, truncate)
        else:
            journal.log.truncate(stop)

"""Reading messages of a queue with keys that are in a log alone: those that are next before others
in front of them, and after a start the keys of all."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from broker.core import records
from broker.core.keyed.dispatch import ALL
from broker.core.lasting import Lasting
from broker.core.message import NUMBER, Entry, bodies_bytes, entries_size
from broker.core.reading import (
    BARE,
    Piece,
    Span,
    fetch,
    filled,
    is_bare,
    octets_at_once,
    spans_of,
    where,
    without_gone,
)

if TYPE_CHECKING:
    from broker.core.keyed.groups import Groups
    from broker.core.keyed.queue import KeyedQueue
    from broker.core.keyed.shares import SharedGroups, Shares
    from broker.core.paging import Paged

WANTED_MAX = 512
"""Messages that are read at once, ahead of others."""
LINE_AHEAD = 32
"""Messages of one key that are read together: the next one, and those behind it."""
LEARNT_BYTES = 1 << 19
"""Octets whose keys are learnt in one turn: some milliseconds."""


class ReadAhead:
    """What of one queue is being read."""

    __slots__ = ("_is_learning", "_octets", "_queue", "_reads", "numbers", "wanted")

    def __init__(self, queue: KeyedQueue) -> None:
        self._queue = queue
        # Messages that would be next, and are not in memory.
        self.wanted: list[int] = []
        # Those that are being read: ready, in memory, without their contents.
        self.numbers: set[int] = set()
        # Octets of the records that are being read.
        self._octets = 0
        # Changes when nobody wants them any more.
        self._reads = 0
        self._is_learning = False

    @property
    def is_full(self) -> bool:
        """Whether no more can be wanted now."""
        count = len(self.wanted) + len(self.numbers)
        return count >= WANTED_MAX or self._octets >= octets_at_once(self._queue)

    @property
    def is_busy(self) -> bool:
        """Whether something that is read may be there soon."""
        paged = self._queue.paged
        is_fetching = paged is not None and paged.is_reading
        return is_fetching or self._is_learning or bool(self.numbers or self.wanted)

    def want(self, index: Groups | Shares | SharedGroups) -> None:
        """The next message has to be read; those behind it in its line soon."""
        queue = self._queue
        has_room = queue.returned_bytes < queue.broker.pager.ahead_bytes
        self.wanted += index.ahead(LINE_AHEAD if has_room else 1)

    def rejoin(self) -> None:
        """What was wanted may be there now; if not, it will be wanted again."""
        self.wanted.clear()
        self._queue.index.rejoin()

    def clear(self) -> None:
        """The queue is empty, or gone."""
        self.wanted.clear()
        self.numbers.clear()
        self._octets = 0
        self._reads += 1

    def run(self, *, is_asked: bool = False) -> None:
        """Reads what is wanted, and what will be. `is_asked` is whether somebody waits, without
        being a consumer."""
        queue = self._queue
        paged = queue.paged
        is_hungry = is_asked or len(queue.consumers) > 0
        has_room = queue.ready_bytes < queue.broker.pager.ahead_bytes
        if paged is not None and is_hungry and has_room:
            fetch(queue)
        elif is_hungry and queue.learned_to < ALL and self._must_learn(is_asked=is_asked):
            self._learn()
        if self.wanted and (queue.index.is_fair or paged is None or not paged.is_reading):
            wanted, self.wanted = self.wanted, []
            self._read(wanted)

    def _must_learn(self, *, is_asked: bool) -> bool:
        """Whether somebody may have to wait for what is known of messages further behind."""
        return is_asked or self._queue.index.is_fair or self._queue.consumers.may_have_room

    # Messages ahead of others

    def _read(self, wanted: list[int]) -> None:
        queue = self._queue
        by_store: dict[Lasting, dict[tuple[int, int], Piece]] = {}
        for number in wanted:
            if self.is_full:
                # The others will be wanted again.
                break
            if number in self.numbers:
                continue
            near = queue.near.get(number)
            if not (queue.is_stored(number) if near is None else is_bare(near)):
                continue
            found = where(queue, number)
            assert found is not None, "a message without its content is in a log"
            store, run = found
            entry = near or self._take(store, number)
            self.numbers.add(number)
            pieces = by_store.setdefault(store, {})
            place = run.position, run.offset
            if place not in pieces:
                pieces[place] = run.part(run.first - run.skipped, run.stop), []
                self._octets += run.size
            pieces[place][1].append(entry)
            queue.near.pop(number, None)
            queue.reading.append(entry)
        for store, pieces in by_store.items():
            self._ask(store, [pieces[place] for place in sorted(pieces)])
        if not by_store:
            self.rejoin()
            if self.numbers.isdisjoint(wanted):
                # They are there, or gone.
                queue.touch()

    def _take(self, store: Lasting, number: int) -> Entry:
        """Takes a message from among those in a log alone; it counts like one that came back."""
        queue = self._queue
        assert queue.paged is not None
        queue.paged.count -= 1
        queue.out.add(number)
        entry = number, BARE, store.times_returned(number)
        queue.be_near([entry])
        return entry

    def _ask(self, store: Lasting, pieces: list[Piece]) -> None:
        journal = store.journal
        last = max(run.position for run, _ in pieces)
        if last > journal.durable:
            # Some were stored anew just now.
            again = partial(self._ask_again, store, pieces, self._reads)
            journal.when_durable(last, again)
            return
        locations = [(run.position, run.offset, run.size) for run, _ in pieces]
        journal.log.read(locations, partial(self._read_in, store, pieces, self._reads))

    def _ask_again(self, store: Lasting, pieces: list[Piece], reads: int, is_durable: bool) -> None:
        if reads == self._reads:
            if is_durable:
                self._ask(store, pieces)
                return
            self._give_back(pieces, _entries(pieces))
        self._queue.tell(is_there=is_durable)

    def _read_in(
        self, store: Lasting, pieces: list[Piece], reads: int, octets: list[bytes] | None
    ) -> None:
        queue = self._queue
        if reads != self._reads:
            queue.tell(is_there=octets is not None)
            return
        if octets is None and len(pieces) > 1:
            # What cannot be read need not be all of them.
            for piece in pieces:
                self._ask(store, [piece])
            return
        if octets is None:
            self._give_back(pieces, _entries(pieces))
        else:
            self._give_back(pieces, [e for each in map(filled, pieces, octets) for e in each])
            queue.touch()
        queue.tell(is_there=octets is not None)
        store.journal.on_progress()

    def _give_back(self, pieces: list[Piece], entries: list[Entry]) -> None:
        """They are near from now on, with their contents or as they were."""
        queue = self._queue
        before = _entries(pieces)
        self._octets -= sum([run.size for run, _ in pieces])
        numbers = {entry[NUMBER] for entry in before}
        self.numbers -= numbers
        queue.reading = [entry for entry in queue.reading if entry[NUMBER] not in numbers]
        size = entries_size(before)
        queue.ready_bytes -= size
        queue.returned_bytes -= size
        queue.broker.memory_used -= size
        alive = entries
        if queue.expiry is not None and not any(map(is_bare, entries)):
            alive = queue.expiry.bury_expired(entries)
            queue.expiry.returned(alive)
        if queue.rules.max_length_bytes is not None:
            counted = {
                number
                for number, message, _ in before
                if message is BARE and number >= queue.bodies_from
            }
            known = [entry for entry in entries if entry[NUMBER] in counted]
            queue.body_bytes += bodies_bytes(alive) - bodies_bytes(known)
        queue.be_near(alive)
        self.rejoin()

    # Keys

    def _learn(self) -> None:
        """Reads the next messages whose keys are not known yet, for their keys alone."""
        queue = self._queue
        paged = queue.paged
        if self._is_learning:
            return
        if paged is None:
            queue.learn(list(queue.ready), ALL)
            return
        try:
            store, runs = paged.next_runs(LEARNT_BYTES, queue.learned_to)
        except IndexError:
            # The others came since the start.
            queue.learn([*paged.tail, *paged.fresh], ALL)
            queue.touch()
            return
        self._is_learning = True
        if runs[0].position > store.journal.durable:
            store.journal.when_durable(runs[0].position, self._learn_again)
            return
        spans = spans_of(runs)
        done = partial(self._learnt, paged, store, spans)
        store.journal.log.read([location for location, _ in spans], done)

    def _learn_again(self, is_durable: bool) -> None:
        self._is_learning = False
        if is_durable:
            self._queue.touch()
        self._queue.tell(is_there=is_durable)

    def _learnt(
        self, paged: Paged, store: Lasting, spans: list[Span], octets: list[bytes] | None
    ) -> None:
        queue = self._queue
        self._is_learning = False
        if octets is not None and queue.paged is paged:
            for ((_, start, _), runs), some in zip(spans, octets, strict=True):
                for run in runs:
                    put = records.read_put(some, run.offset - start)
                    messages = put.messages(some)[run.skipped : run.skipped + run.total]
                    read = without_gone(queue, store.entries(run.first, messages))
                    entries = [entry for entry in read if entry[NUMBER] >= queue.learned_to]
                    if queue.retries is not None:
                        entries = queue.retries.without_waiting(entries)
                    queue.learn(entries, run.stop)
            queue.touch()
        queue.tell(is_there=octets is not None)
        store.journal.on_progress()


def _entries(pieces: list[Piece]) -> list[Entry]:
    return [entry for _, entries in pieces for entry in entries]

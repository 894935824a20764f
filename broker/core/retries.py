"""Delayed redelivery: messages that came back wait before they are delivered again.

A message that waits is out of the queue's lines and keeps its number, so that it goes back to its
place; others pass it. Until when it waits is written down with how often it came back. It does not
outlive its time: it comes back when that is over, and expires. While memory is short its content is
in a log alone; after a start nothing of it is in memory before it is wanted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.core.arguments import EXPIRY_MAX_MS
from broker.core.deadlines import DEADLINE_BYTES, Deadlines
from broker.core.lines import put_before
from broker.core.message import MESSAGE, NUMBER, ORIGIN, RETURNS, Entry, entries_size, entry_size
from broker.core.reading import BARE, read_contents, without_contents
from broker.core.rules import QueueRules

if TYPE_CHECKING:
    from broker.core.queue import Queue

AT_ONCE = 1000
"""Messages that go back in one turn."""
JITTER_SHARE = 10
"""Delays are lengthened by up to a tenth, so that what failed together is not tried together."""


class Retries:
    """The messages of one queue that wait."""

    __slots__ = ("_deadlines", "_waiting", "due", "queue", "unread_count")

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.due: int | None = None
        self._waiting: dict[int, Entry] = {}
        self._deadlines = Deadlines()
        # Those of which nothing was read since the start.
        self.unread_count = 0

    @property
    def numbers(self) -> list[int]:
        """Of all that wait."""
        return list(self._waiting)

    def __len__(self) -> int:
        return len(self._waiting)

    def hold(self, entries: list[Entry]) -> None:
        """These came back, and wait from now on."""
        queue, broker = self.queue, self.queue.broker
        now = broker.timers.now
        dice = broker.random_bytes(2 * len(entries))
        untils: dict[int, int] = {}
        for place, entry in enumerate(entries):
            delay = delay_ms(queue.rules, entry[RETURNS])
            part = int.from_bytes(dice[2 * place : 2 * place + 2], "big")
            delay += delay * part // (JITTER_SHARE << 16)
            untils[entry[NUMBER]] = self._not_beyond_its_time(entry, now + delay)
        lasting = queue.lasting
        if lasting is not None:
            stored = lasting.stored
            lasting.held.note({each: until for each, until in untils.items() if each in stored})
        is_short = broker.memory_used + entries_size(entries) > broker.pager.mark
        if is_short and queue.rules.max_length_bytes is None:
            entries = without_contents(queue, entries)
        self._wait(entries, untils)

    def _not_beyond_its_time(self, entry: Entry, until: int) -> int:
        if self.queue.expiry is None:
            return until
        deadline = self.queue.expiry.deadline(entry[MESSAGE][ORIGIN])
        return until if deadline is None else min(until, deadline)

    def resume(self) -> None:
        """After a start: what waited then and is not due yet, goes on waiting."""
        lasting, paged = self.queue.lasting, self.queue.paged
        assert lasting is not None
        if paged is None:
            return
        now = self.queue.broker.timers.now
        untils = {number: until for number, until in lasting.held.items() if until > now}
        paged.count -= len(untils)
        self._wait([(each, BARE, lasting.times_returned(each)) for each in untils], untils)

    def _wait(self, entries: list[Entry], untils: dict[int, int]) -> None:
        """These wait until then."""
        now = self.queue.broker.timers.now
        for entry in entries:
            self._waiting[entry[NUMBER]] = entry
            self._deadlines.add(untils[entry[NUMBER]], entry[NUMBER], now)
            self.unread_count += entry[MESSAGE] is BARE
        octets = entries_size(entries) + DEADLINE_BYTES * len(entries)
        self.queue.broker.memory_used += octets
        self.queue.broker.timers.set(self, self._deadlines.next)

    def on_time(self, now: int) -> None:
        """Some have waited long enough."""
        waiting, paged = self._waiting, self.queue.paged
        due = [waiting[each] for each in self._deadlines.take(now, AT_ONCE) if each in waiting]
        following = self._deadlines.next
        # The next ones are due in the next turn at the earliest.
        then = following if following is None else max(following, now + 1)
        self.queue.broker.timers.set(self, then)
        unread = [entry for entry in due if entry[MESSAGE] is BARE]
        for entry in unread:
            if paged is not None and paged.first <= entry[NUMBER] < paged.stop:
                # It was never read, and stands in its place.
                self._take_out([entry])
                paged.count += 1
                self.queue.touch()
        unread = [entry for entry in unread if entry[NUMBER] in waiting]
        self._give_back([entry for entry in due if entry[MESSAGE] is not BARE])
        if unread:
            read_contents(self.queue, unread, self._give_back)

    def _give_back(self, entries: list[Entry]) -> None:
        """These go back, as far as they still wait."""
        entries = [entry for entry in entries if entry[NUMBER] in self._waiting]
        if entries:
            self._take_out(entries)
            put_before(self.queue, max(entry[NUMBER] for entry in entries))
            self.queue.give_back(entries)

    def _take_out(self, entries: list[Entry]) -> None:
        numbers = [entry[NUMBER] for entry in entries]
        self._let_go([self._waiting.pop(number) for number in numbers])
        if self.queue.lasting is not None:
            self.queue.lasting.held.forget(numbers)

    def _let_go(self, entries: list[Entry]) -> None:
        octets = entries_size(entries) + DEADLINE_BYTES * len(entries)
        self.queue.broker.memory_used -= octets
        self.unread_count -= sum([entry[MESSAGE] is BARE for entry in entries])

    def take(self, number: int) -> Entry | None:
        """Takes the message with this number, if it waits: nobody is to have it."""
        entry = self._waiting.get(number)
        if entry is not None:
            self._take_out([entry])
            if entry[MESSAGE] is BARE:
                self.queue.dying.add(number)
        return entry

    def clear(self) -> list[Entry]:
        """All that wait leave. Returns those that are not among what is paged out."""
        entries = list(self._waiting.values())
        paged = self.queue.paged
        self._let_go(entries)
        self._waiting.clear()
        self._deadlines.clear()
        self.queue.broker.timers.set(self, None)
        out = self.queue.out
        return [e for e in entries if paged is None or e[NUMBER] < paged.first or e[NUMBER] in out]

    def without_waiting(self, entries: list[Entry]) -> list[Entry]:
        """Messages that were read again, without those that wait: these are behind what is read
        next from now on, so that what they came with is kept here."""
        others: list[Entry] = []
        for entry in entries:
            waiting = self._waiting.get(entry[NUMBER])
            if waiting is None:
                others.append(entry)
                continue
            kept = entry
            if self.queue.rules.max_length_bytes is None:
                [kept] = without_contents(self.queue, [entry])
            self.queue.broker.memory_used += entry_size(kept) - entry_size(waiting)
            if self.queue.keyed is not None:
                self.queue.keyed.index.withhold([entry])
            # Those before it may be paged out once more.
            self.queue.out.add(entry[NUMBER])
            self.unread_count -= waiting[MESSAGE] is BARE
            self._waiting[entry[NUMBER]] = kept
        return others


def delay_ms(rules: QueueRules, times: int) -> int:
    """How long a message waits that came back so often: in proportion to that, or so many times
    longer each time, but not beyond the maximum."""
    least = rules.delayed_retry_min
    most = rules.delayed_retry_max
    multiplier = rules.delayed_retry_multiplier
    if multiplier is None:
        delay = least * times
    else:
        try:
            delay = int(least * multiplier ** (times - 1))
        except OverflowError:
            delay = EXPIRY_MAX_MS
    return min(delay, EXPIRY_MAX_MS if most is None else most)

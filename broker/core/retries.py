"""Delayed redelivery: messages that came back wait before they are delivered again.

A message that waits is out of the queue's lines and keeps its number, so that it goes back to its
place; others pass it. Until when it waits is written down with how often it came back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.core.arguments import EXPIRY_MAX_MS
from broker.core.deadlines import DEADLINE_BYTES, Deadlines
from broker.core.message import NUMBER, RETURNS, Entry, entries_size
from broker.core.rules import QueueRules

if TYPE_CHECKING:
    from broker.core.queue import Queue

AT_ONCE = 1000
"""Messages that go back in one turn."""
JITTER_SHARE = 10
"""Delays are lengthened by up to a tenth, so that what failed together is not tried together."""


class Retries:
    """The messages of one queue that wait."""

    __slots__ = ("_deadlines", "_waiting", "due", "queue")

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.due: int | None = None
        self._waiting: dict[int, Entry] = {}
        self._deadlines = Deadlines()

    def __len__(self) -> int:
        return len(self._waiting)

    def hold(self, entries: list[Entry]) -> None:
        """These came back, and wait from now on."""
        broker = self.queue.broker
        now = broker.timers.now
        dice = broker.random_bytes(2 * len(entries))
        untils: dict[int, int] = {}
        for place, entry in enumerate(entries):
            delay = delay_ms(self.queue.rules, entry[RETURNS])
            part = int.from_bytes(dice[2 * place : 2 * place + 2], "big")
            delay += delay * part // (JITTER_SHARE << 16)
            untils[entry[NUMBER]] = now + delay
        lasting = self.queue.lasting
        if lasting is not None:
            stored = lasting.stored
            lasting.held.note({each: until for each, until in untils.items() if each in stored})
        self.wait(entries, untils)

    def wait(self, entries: list[Entry], untils: dict[int, int]) -> None:
        """These wait until then."""
        now = self.queue.broker.timers.now
        for entry in entries:
            self._waiting[entry[NUMBER]] = entry
            self._deadlines.add(untils[entry[NUMBER]], entry[NUMBER], now)
        octets = entries_size(entries) + DEADLINE_BYTES * len(entries)
        self.queue.broker.memory_used += octets
        self.queue.broker.timers.set(self, self._deadlines.next)

    def on_time(self, now: int) -> None:
        """Some have waited long enough."""
        numbers = self._deadlines.take(now, AT_ONCE)
        entries = [self._waiting.pop(number) for number in numbers]
        self._let_go(entries)
        following = self._deadlines.next
        # The next ones are due in the next turn at the earliest.
        due = following if following is None else max(following, now + 1)
        self.queue.broker.timers.set(self, due)
        if entries:
            if self.queue.lasting is not None:
                self.queue.lasting.held.forget(numbers)
            self.queue.give_back(entries)

    def _let_go(self, entries: list[Entry]) -> None:
        octets = entries_size(entries) + DEADLINE_BYTES * len(entries)
        self.queue.broker.memory_used -= octets

    def clear(self) -> list[Entry]:
        """All that wait leave."""
        entries = list(self._waiting.values())
        self._let_go(entries)
        self._waiting.clear()
        self._deadlines.clear()
        self.queue.broker.timers.set(self, None)
        return entries

    def sort_out(self, entries: list[Entry]) -> list[Entry]:
        """Messages were read again after a start: those that wait are kept here, the others are
        returned."""
        assert self.queue.lasting is not None
        now = self.queue.broker.timers.now
        noted = self.queue.lasting.held
        numbers = [entry[NUMBER] for entry in entries]
        untils = {number: noted[number] for number in numbers if noted.get(number, 0) > now}
        held = [entry for entry in entries if entry[NUMBER] in untils]
        if not held:
            return entries
        self.wait(held, untils)
        return [entry for entry in entries if entry[NUMBER] not in untils]


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

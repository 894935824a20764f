"""A queue: messages in order, consumers in turn.

Theory of operation. Messages get numbers as they come; `ready` holds them by number, `returned`
those that were delivered before and came back. What comes back was taken from the front, so its
number is lower than any in `ready`: the returned ones go first, by number, and each is back at its
old place. Publishing and settling only `touch` the queue; `deliver` then runs once for a
whole batch (`Broker.run_deliveries`), which nobody can tell from one at a time.

What must last is told to the journal as it happens; `stored` knows where it is in the log. When
memory is short, ready messages are kept in a log alone (`Paged`) and read again in time.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Sequence
from heapq import heappop
from itertools import islice, repeat, takewhile
from typing import TYPE_CHECKING, Protocol

from broker.core.consumer import Consumer
from broker.core.lasting import Lasting
from broker.core.least_loaded import make_line
from broker.core.message import NUMBER, Entry, Message, entries_size, entry_size
from broker.core.paging import Paged
from broker.core.reading import fetch, is_bare, lightened, push_all, read_returned
from broker.core.rounds import deal_rounds
from broker.core.rules import NO_RULES, QueueRules
from broker.wire.table import Table

if TYPE_CHECKING:
    from broker.core.broker import Broker


PACE_FROM = 16 << 20
"""Octets of ready messages in a queue with consumers from which its publishers are slowed down."""


class Owner(Protocol):
    """What an exclusive queue belongs to: a connection."""


class Queue:
    """A declared queue. `owner` is the connection of an exclusive queue."""

    __slots__ = (
        "_is_touched",
        "arguments",
        "auto_delete",
        "broker",
        "consumers",
        "durable",
        "is_deleted",
        "lasting",
        "name",
        "next_number",
        "owner",
        "paged",
        "reading",
        "ready",
        "ready_bytes",
        "reserved_to",
        "returned",
        "returned_bytes",
        "rules",
        "scratch",
        "stores",
        "unacked_bytes",
        "unacked_count",
        "vhost_name",
        "waiting",
    )

    def __init__(
        self,
        broker: Broker,
        vhost_name: str,
        name: str,
        *,
        durable: bool = False,
        auto_delete: bool = False,
        owner: Owner | None = None,
        arguments: Table | None = None,
    ) -> None:
        self.broker = broker
        self.vhost_name = vhost_name
        self.name = name
        self.durable = durable
        self.auto_delete = auto_delete
        self.owner = owner
        self.arguments: Table = arguments or {}
        self.consumers = make_line(self.arguments)
        # What its arguments and policies say; who declares it, applies them.
        self.rules = NO_RULES
        self.is_deleted = False
        self.ready_bytes = 0
        # Of these, those of messages that came back.
        self.returned_bytes = 0
        self.unacked_count = 0
        self.unacked_bytes = 0
        self.next_number = 1
        self.ready: deque[Entry] = deque()
        self.returned: list[Entry] = []
        self._is_touched = False
        # The durable side; None for a queue that ends with the broker.
        self.lasting: Lasting | None = None
        # Where its messages may be beside memory.
        self.stores: tuple[Lasting, ...] = ()
        # The highest number that may be handed out: the log knows that it may have been.
        self.reserved_to = sys.maxsize
        # Ready messages behind `ready` that are in a log alone, and those behind them.
        self.paged: Paged | None = None
        # Where they are, as far as they do not last; None until there are any.
        self.scratch: Lasting | None = None
        # Messages that came back and are being read: while there are any, nothing is handed out.
        self.reading: list[Entry] = []
        # Called when messages were read.
        self.waiting: list[Callable[[bool], None]] = []

    @property
    def messages_ready(self) -> int:
        """Messages that wait for a consumer."""
        count = len(self.ready) + len(self.returned) + len(self.reading)
        return count + len(self.paged) if self.paged is not None else count

    @property
    def messages_unacknowledged(self) -> int:
        """Messages that were delivered and are not settled."""
        return self.unacked_count

    @property
    def messages(self) -> int:
        """Ready and unacknowledged ones."""
        return self.messages_ready + self.unacked_count

    def apply_rules(self, rules: QueueRules) -> None:
        """These rules hold from now on."""
        self.rules = rules

    @property
    def shares_room(self) -> bool:
        """Whether a consumer is on a channel that is limited as a whole."""
        return self.consumers.limited_count > 0

    def add_consumer(self, consumer: Consumer) -> None:
        """A consumer joins, and gets its first messages at the end of this batch."""
        self.consumers.add(consumer)
        self.touch()

    def remove_consumer(self, consumer: Consumer) -> None:
        """A consumer leaves; the others may have its turn."""
        self.consumers.remove(consumer)
        self.touch()

    def wake(self, consumer: Consumer) -> None:
        """A consumer may have room again."""
        self.consumers.wake(consumer)
        self.touch()

    def catch_up(self) -> None:
        """Delivers what is due before somebody gets more room, so that settlements taken by the
        run let the same consumers go on as one by one."""
        if self._is_touched and len(self.consumers) > 1:
            self.deliver()

    def touch(self) -> None:
        """Asks for a turn of `deliver` at the end of this batch."""
        if not self._is_touched:
            self._is_touched = True
            self.broker.touched.append(self)

    def publish(self, messages: list[Message], size: int) -> None:
        """Appends messages, of `size` octets of memory in all (`message.size_of`)."""
        number = self.next_number
        count = len(messages)
        self.next_number = number + count
        entries = zip(range(number, number + count), messages, repeat(0))
        if self.paged is None:
            self.ready.extend(entries)
            self.ready_bytes += size
        else:
            self.paged.add(entries, size)
        self.broker.memory_used += size
        self.broker.work += count
        if self.ready_bytes > PACE_FROM and self.consumers:
            self.broker.is_behind = True
        if self.broker.memory_used > self.broker.pager.mark:
            self.broker.pager.want(self)
        if not self._is_touched:
            self._is_touched = True
            self.broker.touched.append(self)

    def deliver(self) -> None:
        """Gives ready messages to consumers, in order and in turn, while both are there."""
        self._is_touched = False
        consumers = self.consumers
        if self.reading:
            return
        while self.returned or (self.ready and self.ready[0][NUMBER] <= self.reserved_to):
            turn = consumers.line()
            if turn is None:
                break
            line, first, room = turn
            if self.returned and is_bare(self.returned[0]):
                read_returned(self)
                return
            if len(line) == 1:
                self._give(first, room)
            elif self.returned or not deal_rounds(self, line):
                self._give(first, 1)
                if first.is_waiting:
                    line.move_to_end(first)
        if self.ready and self.lasting is not None and len(consumers):
            self.lasting.reserve(self.ready[0][NUMBER])
        if self.paged is not None and len(consumers):
            self.read_ahead()

    def _give(self, consumer: Consumer, limit: int) -> None:
        """Up to `limit` messages from the front to one consumer, as its output has room."""
        output_room = consumer.sink.output_room()
        if self.returned:
            entry = self._take_returned()
            self.broker.counters.messages_redelivered += 1
            self.hand_over(consumer, [entry], entry_size(entry))
            return
        ready, last = self.ready, self.reserved_to
        if limit >= len(ready) and self.ready_bytes <= output_room and ready[-1][NUMBER] <= last:
            entries = list(ready)
            ready.clear()
            self.hand_over(consumer, entries, self.ready_bytes)
            return
        if ready[-1][NUMBER] > last:
            reserved = takewhile(lambda entry: entry[NUMBER] <= last, islice(ready, limit))
            limit = sum(1 for _ in reserved)
        fits = 1 + output_room * len(ready) // self.ready_bytes
        popleft = ready.popleft
        entries = [popleft() for _ in range(min(limit, len(ready), fits))]
        size = entries_size(entries)
        while size - entry_size(entries[-1]) >= output_room:
            # The first ones are larger than most.
            size -= entry_size(entries[-1])
            ready.appendleft(entries.pop())
        self.hand_over(consumer, entries, size)

    def _take_returned(self) -> Entry:
        entry = heappop(self.returned)
        self.returned_bytes -= entry_size(entry)
        return entry

    def hand_over(self, consumer: Consumer, entries: list[Entry], size: int) -> None:
        """Entries that left the ready ones go out, and are counted where they are now."""
        count = len(entries)
        self.ready_bytes -= size
        self.broker.work += count
        counters = self.broker.counters
        self._note_handed_out(entries, is_settled=consumer.no_ack)
        if consumer.no_ack:
            self.broker.memory_used -= size
            counters.messages_delivered_consume_auto_ack += count
        else:
            consumer.unacked += count
            self.unacked_count += count
            self.unacked_bytes += size
            counters.messages_delivered_consume_manual_ack += count
        consumer.sink.deliver(consumer, entries, size)

    def _note_handed_out(self, entries: list[Entry], *, is_settled: bool) -> None:
        if self.lasting is not None:
            self.lasting.handed_out(entries, is_settled=is_settled)
        if self.scratch is not None and is_settled:
            self.scratch.settled(entries)

    def keep(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """What is remembered of messages that were handed out and are not settled: all of it, or
        while memory is short only which they are, as far as they can be read again."""
        if self.broker.memory_used <= self.broker.pager.mark or not self.stores:
            return entries
        return lightened(self, entries)

    def get(self, *, no_ack: bool) -> Entry | None:
        """Takes the first ready message for basic.get; None if none can be handed out now
        (`when_ready`)."""
        if self.returned and is_bare(self.returned[0]) and not self.reading:
            read_returned(self)
        elif not self.returned and not self.ready:
            fetch(self)
        if self.reading:
            return None
        if not self.returned and (not self.ready or self.ready[0][NUMBER] > self.reserved_to):
            return None
        entry = self._take_returned() if self.returned else self.ready.popleft()
        size = entry_size(entry)
        self._note_handed_out([entry], is_settled=no_ack)
        self.ready_bytes -= size
        if no_ack:
            self.broker.memory_used -= size
        else:
            self.unacked_count += 1
            self.unacked_bytes += size
        return entry

    def settle(self, entries: list[Entry]) -> None:
        """These deliveries are acknowledged, or rejected for good."""
        if self.is_deleted:
            return
        count = len(entries)
        size = entries_size(entries)
        self.unacked_count -= count
        self.unacked_bytes -= size
        self.broker.memory_used -= size
        self.broker.work += count
        for store in self.stores:
            store.settled(entries)

    def requeue(self, entries: list[Entry]) -> None:
        """These deliveries go back to their old places, marked as redelivered."""
        if self.is_deleted:
            return
        came = [(number, message, times + 1) for number, message, times in entries]
        push_all(self.returned, came)
        size = entries_size(entries)
        self.unacked_count -= len(entries)
        self.unacked_bytes -= size
        self.ready_bytes += size
        self.returned_bytes += size
        self.broker.work += len(entries)
        if self.lasting is not None:
            self.lasting.returned(entries)
        self.touch()

    def purge(self) -> int:
        """Drops what is ready and returns how many that were; unacknowledged ones stay."""
        for store in self.stores:
            store.settled([*self.returned, *self.reading, *self.ready])
            if self.paged is not None:
                store.settled_range(self.paged.first, self.next_number)
        return self._drop_ready()

    def _drop_ready(self) -> int:
        count = self.messages_ready
        if self.paged is not None:
            self.broker.memory_used -= self.paged.tail_bytes
            self.paged = None
        self.ready.clear()
        self.returned.clear()
        self.reading = []
        self.broker.memory_used -= self.ready_bytes
        self.ready_bytes = self.returned_bytes = 0
        return count

    def close(self) -> None:
        """The queue is deleted: it lets go of its messages and its consumers, who are told at the
        end of this step."""
        self._drop_ready()
        self.is_deleted = True
        for store in self.stores:
            store.journal.forget(store)
        self.broker.memory_used -= self.unacked_bytes
        self.unacked_bytes = self.unacked_count = 0
        for consumer in self.consumers:
            self.consumers.remove(consumer)
            self.broker.cancelled.append(consumer)

    def restore(self, lasting: Lasting) -> None:
        """The queue lasts. What is stored already is ready, and read when it is wanted."""
        self.lasting = lasting
        self.stores = (lasting,)
        lasting.connect(self._reserve_to)
        if lasting.journal.has_failed:
            lasting.release()
        self.next_number = lasting.next_number
        for run in islice(lasting.stored.runs_from(0), 1):
            self.paged = Paged(self, run.first, self.next_number, lasting.stored.count)

    def _reserve_to(self, number: int) -> None:
        self.reserved_to = number
        self.touch()

    def when_ready(self, callback: Callable[[bool], None]) -> None:
        """Calls back when the first ready message can be handed out, or cannot be read."""
        if self.ready and not self.reading:
            assert self.lasting is not None
            self.lasting.reserve(self.ready[0][NUMBER])
            self.lasting.journal.when_durable(self.lasting.reserved_at, callback)
        else:
            self.waiting.append(callback)

    def tell(self, *, is_there: bool) -> None:
        """Those who wait for messages to be read go on."""
        waiting, self.waiting = self.waiting, []
        for callback in waiting:
            callback(is_there)

    def read_ahead(self) -> None:
        """The next messages are read before those in memory have all gone."""
        if self.ready_bytes < self.broker.pager.ahead_bytes:
            fetch(self)

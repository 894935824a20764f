"""A queue: messages in order, consumers in turn.

Theory of operation. Messages get numbers as they come; `ready` holds them by number, `returned`
those that were delivered before and came back. What comes back was taken from the front, so its
number is lower than any in `ready`: the returned ones go first, by number, and each is back at its
old place. Publishing and settling only `touch` the queue; `deliver` then runs once for a
whole batch (`Broker.run_deliveries`), which nobody can tell from one at a time.

What must last is told to the journal as it happens; `stored` knows where it is in the log. When
memory is short, ready messages are kept in a log alone (`Paged`) and read again in time. A queue
with priorities has a queue like this for each of them (`broker.core.priorities`).
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import TYPE_CHECKING

from broker.core.consumer import Consumer, Owner
from broker.core.dead_letters import REJECTED
from broker.core.dispatch import hand_out
from broker.core.expiring import Expiring
from broker.core.expiry import Expiry, Lease, expiry_of
from broker.core.graves import without_worn
from broker.core.lasting import Lasting
from broker.core.least_loaded import make_line
from broker.core.limits import drop_head
from broker.core.lines import count_bodies, forget_bodies, settle_all
from broker.core.message import ORIGIN, TTL, Entry, Message, bodies_bytes, body_bytes, entries_size
from broker.core.paging import Paged
from broker.core.reading import push_all
from broker.core.retries import Retries
from broker.core.rules import NO_RULES, QueueRules
from broker.core.sparse import Ready, Sparse
from broker.wire.table import Table

if TYPE_CHECKING:
    from broker.core.broker import Broker
    from broker.core.deduplication.duplicates import Duplicates
    from broker.core.deduplication.present import Present
    from broker.core.keyed.queue import KeyedQueue


PACE_FROM = 16 << 20
"""Octets of ready messages in a queue with consumers from which its publishers are slowed down."""


class Queue:
    """A declared queue. `owner` is the connection of an exclusive queue."""

    __slots__ = (
        "_is_touched", "arguments", "auto_delete", "bodies_from", "body_bytes", "broker",
        "consumers", "duplicates", "durable", "dying", "expiry", "is_deleted", "is_limited",
        "lasting", "lease", "line_type", "name", "next_number", "out", "owner", "paged", "present",
        "reading", "ready", "ready_bytes", "reserved_to", "retries", "returned", "returned_bytes",
        "rules", "scratch", "stores", "unacked_bytes", "unacked_count", "vhost_name", "waiting",
    )  # fmt: skip

    keyed: KeyedQueue | None = None  # itself, if it tells messages apart by keys

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
        self.is_deleted = self.is_limited = self._is_touched = False
        self.ready_bytes = self.returned_bytes = self.unacked_count = self.unacked_bytes = 0
        self.next_number = 1
        # What `ready` is, and what is kept of those behind it.
        self.line_type: type[deque[Entry] | Sparse] = deque
        self.ready: Ready = deque()
        self.returned: list[Entry] = []
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
        self.waiting: list[Callable[[bool], None]] = []
        # When messages expire; None while none of them does.
        self.expiry: Expiry | None = None
        self.lease: Lease | None = None
        self.retries: Retries | None = None
        # Numbers of messages that are read for the last time: nobody is to have them.
        self.dying: set[int] = set()
        self.duplicates: Duplicates | None = None
        self.present: Present | None = None
        # Numbers that no line and yet the log's index has: unacked, near, waiting, dying ones.
        self.out: set[int] = set()
        # Of bodies, where they are limited; in a log alone they count from this number on.
        self.body_bytes = self.bodies_from = 0

    @property
    def lanes(self) -> Sequence[Queue]:
        """The lines that its messages stand in, each with a numbering of its own; the first one
        goes first."""
        return (self,)

    @property
    def front(self) -> Queue:
        """The lane whose turn it is."""
        return self

    def lane_of(self, number: int) -> Queue:
        """The lane with this number."""
        return self

    @property
    def octets_ready(self) -> int:
        """Octets of the bodies of ready messages, where they are limited."""
        return self.body_bytes

    @property
    def messages_ready(self) -> int:
        """Messages that wait for a consumer."""
        paged = 0 if self.paged is None else len(self.paged)
        return len(self.ready) + len(self.returned) + len(self.reading) + paged

    @property
    def messages(self) -> int:
        """Ready, unacknowledged and waiting ones."""
        waiting = sum(len(lane.retries) for lane in self.lanes if lane.retries is not None)
        return self.messages_ready + self.unacked_count + waiting

    @property
    def shares_room(self) -> bool:
        """Whether a consumer is on a channel that is limited as a whole."""
        return self.consumers.limited_count > 0

    def apply_rules(self, rules: QueueRules) -> None:
        """From now on these rules hold."""
        self.follow(rules)
        self.consumers.follow(rules)
        if rules.expires is not None and self.lease is None:
            self.lease = Lease(self)
        self.use()
        if rules.has_limit or self.expiry is not None:
            self.touch()

    def follow(self, rules: QueueRules) -> None:
        """From now on these rules hold for its messages."""
        before, self.rules = self.rules, rules
        self.is_limited = rules.has_limit
        if rules.message_ttl is not None and before.message_ttl is None:
            self.expiry = self.expiry or Expiry(self)
            self.expiry.begin_ttl()
        if rules.max_length_bytes is not None and before.max_length_bytes is None:
            self.body_bytes = count_bodies(self)

    def use(self) -> None:
        """Somebody uses the queue, or its last consumer left."""
        if self.lease is not None:
            self.lease.renew()

    def add_consumer(self, consumer: Consumer) -> None:
        """A consumer joins, and gets its first messages at the end of this batch."""
        self.consumers.add(consumer)
        self.use()
        self.touch()

    def remove_consumer(self, consumer: Consumer) -> None:
        """A consumer leaves; the others may have its turn."""
        self.consumers.remove(consumer)
        self.use()
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
        if messages[0][ORIGIN][TTL] is not None:
            self.expect(messages, number)
        if self.is_limited and self.rules.max_length_bytes is not None:
            self.body_bytes += sum(map(body_bytes, messages))
        if self.ready_bytes > PACE_FROM and self.consumers:
            self.broker.is_behind = True
        if self.broker.memory_used > self.broker.pager.mark:
            self.broker.pager.want(self)
        if not self._is_touched:
            self._is_touched = True
            self.broker.touched.append(self)

    def expect(self, messages: Sequence[Message], first: int) -> None:
        """Messages from number `first` on came with an expiration."""
        self.expiry = self.expiry or Expiry(self)
        self.expiry.expect(messages, first)

    def expect_again(self, expiring: Expiring) -> None:
        """These messages with expirations were in the log when the broker started."""
        self.expiry = self.expiry or Expiry(self)
        self.expiry.expect_again(expiring)

    def deliver(self) -> None:
        """Gives ready messages to consumers, in order and in turn, while both are there; what is
        left is judged by the rules of the queue."""
        self._is_touched = False
        expiry = self.expiry
        if expiry is not None and not expiry.make_ready():
            return
        is_final = hand_out(self)
        if self.is_limited and is_final and self.rules.drops:
            drop_head(self)
        if expiry is not None:
            expiry.watch(is_final=is_final)

    def hand_over(self, consumer: Consumer, entries: list[Entry], size: int) -> None:
        """Entries that left the ready ones go to a consumer."""
        count = len(entries)
        self.broker.work += count
        counters = self.broker.counters
        self.leave(entries, size, is_settled=consumer.no_ack)
        if consumer.no_ack:
            counters.messages_delivered_consume_auto_ack += count
        else:
            consumer.unacked += count
            counters.messages_delivered_consume_manual_ack += count
        consumer.sink.deliver(consumer, entries, size)

    def leave(self, entries: list[Entry], size: int, *, is_settled: bool) -> None:
        """Entries that left the ready ones are handed out, and are counted where they are now."""
        self.ready_bytes -= size
        if self.is_limited:
            forget_bodies(self, entries)
        if self.lasting is not None:
            self.lasting.handed_out(entries, is_settled=is_settled)
        if self.scratch is not None and is_settled:
            self.scratch.settled(entries)
        if is_settled:
            if self.present is not None:
                self.present.gone(entries)
            self.broker.memory_used -= size
        else:
            self.unacked_count += len(entries)
            self.unacked_bytes += size

    def settle(self, entries: list[Entry]) -> None:
        """These deliveries are acknowledged."""
        if self.is_deleted:
            return
        self._forget_unacked(entries)
        if self.present is not None:
            self.present.gone(entries)
        for store in self.stores:
            store.settled(entries)

    def reject(self, entries: list[Entry]) -> None:
        """These deliveries are rejected for good."""
        if self.is_deleted:
            return
        self._forget_unacked(entries)
        self.broker.graves.bury(self, entries, REJECTED)

    def _forget_unacked(self, entries: list[Entry]) -> int:
        size = entries_size(entries)
        self.unacked_count -= len(entries)
        self.unacked_bytes -= size
        self.broker.memory_used -= size
        self.broker.work += len(entries)
        return size

    def requeue(self, entries: list[Entry], *, failed: bool = False) -> None:
        """These deliveries go back to their old places, marked as redelivered, at once or later;
        those that came back too often die. `failed` is whether a consumer said so."""
        if not self.is_deleted:
            self._forget_unacked(entries)
            self.take_back(entries, failed=failed)

    def take_back(self, entries: list[Entry], *, failed: bool) -> None:
        """These are no longer handed out."""
        if self.rules.delivery_limit is not None:
            entries = without_worn(self, entries)
        came = [(number, message, times + 1) for number, message, times in entries]
        self.expiry = self.expiry or expiry_of(self, came)
        if self.lasting is not None:
            self.lasting.returned(entries)
        if self.rules.delays(failed=failed) and came:
            self.retries = self.retries or Retries(self)
            self.retries.hold(came)
        else:
            self.give_back(came)

    def give_back(self, came: list[Entry]) -> None:
        """Messages that came back are ready again, as far as they have not expired."""
        if self.expiry is not None:
            came = self.expiry.bury_expired(came)
        size = entries_size(came)
        push_all(self.returned, came)
        if self.expiry is not None:
            self.expiry.returned(came)
        if self.rules.max_length_bytes is not None:
            self.body_bytes += bodies_bytes(came)
        self.ready_bytes += size
        self.returned_bytes += size
        self.broker.memory_used += size
        self.touch()

    def purge(self) -> int:
        """Drops what is ready or waits, and returns how many that were; others stay."""
        count = self.messages - self.unacked_count
        settle_all(self)
        self._drop_ready()
        return count

    def _drop_ready(self) -> None:
        if self.paged is not None:
            self.broker.memory_used -= self.paged.tail_bytes
            self.paged = None
        self.ready.clear()
        self.returned.clear()
        self.reading = []
        self.broker.memory_used -= self.ready_bytes
        self.ready_bytes = self.returned_bytes = self.body_bytes = 0
        self.bodies_from = self.next_number
        self.dying.clear()
        if self.expiry is not None:
            self.expiry.close()

    def close(self) -> None:
        """The queue is deleted: it lets go of its messages and its consumers, who are told at the
        end of this step."""
        self.let_go()
        self.broker.memory_used -= self.unacked_bytes
        self.unacked_bytes = self.unacked_count = 0
        if self.lease is not None:
            self.lease.renew()
        for consumer in self.consumers:
            self.consumers.remove(consumer)
            self.broker.cancelled.append(consumer)

    def let_go(self) -> None:
        """Its messages are gone, and nothing that is still settled counts."""
        self._drop_ready()
        if self.retries is not None:
            self.retries.clear()
        self.broker.graves.close(self)
        self.is_deleted = True
        for store in self.stores:
            store.journal.forget(store)

    def reserve_to(self, number: int) -> None:
        """Messages up to this number may be handed out: the log knows that they may have been."""
        self.reserved_to = number
        self.touch()

    def tell(self, *, is_there: bool) -> None:
        """Those who wait for messages to be read go on."""
        waiting, self.waiting = self.waiting, []
        for callback in waiting:
            callback(is_there)

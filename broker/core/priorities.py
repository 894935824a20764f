"""Queues with priorities (RabbitMQ, "Priority Queue Support"): what has a higher one goes first,
and what has the same goes in order.

Theory of operation. Each priority has a lane, which is a queue of its own: with its numbers, its
id in the log, its paging and deadlines. So nothing hides behind messages of another priority. Lanes
are made when they are needed first, and share consumers, rules and names with the queue that
clients know, which lets them deliver one after the other, the highest first.

Who publishes to consumers with room hands its messages to them in the order in which they come, as
one by one. So while somebody may have room they stand in a line of their own (`Arrivals`) until
the end of the batch, and only what is left then goes to the lanes.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby, repeat
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any

from broker.core.consumer import Consumer
from broker.core.dead_letters import REJECTED
from broker.core.dispatch import hand_out
from broker.core.keyed.queue import KeyedQueue, is_keyed
from broker.core.lanes import SHIFT, Arrivals, Lane
from broker.core.lasting import Lasting
from broker.core.limits import drop_head
from broker.core.message import (
    CONTENT,
    NUMBER,
    Entry,
    Message,
    content_of,
    entries_size,
    header_of,
    size_of,
)
from broker.core.queue import Queue
from broker.core.rules import QueueRules
from broker.wire import properties
from broker.wire.table import Table

if TYPE_CHECKING:
    from broker.core.broker import Broker
    from broker.core.journal import Journal


HEADERS_KNOWN = 256
"""Header frames of messages that look like many others whose lanes are remembered."""
HEADER_KNOWN_SIZE = 64
"""Octets of one of these: what is longer says more of its message, and is like no other."""

_rank = attrgetter("rank")


def make_queue(
    broker: Broker, vhost_name: str, name: str, *, arguments: Table | None = None, **more: Any
) -> Queue:
    """A queue with these (checked) arguments."""
    kind = PriorityQueue if _highest(arguments or {}) else Queue
    if is_keyed(arguments or {}):
        kind = KeyedQueue
    return kind(broker, vhost_name, name, arguments=arguments, **more)


def _highest(arguments: Table) -> int:
    field = arguments.get("x-max-priority")
    if field is None:
        return 0
    assert isinstance(field.value, int)
    return field.value


class PriorityQueue(Queue):
    """A queue with `x-max-priority`. Messages without a priority have 0, those with a higher one
    than the maximum have that."""

    __slots__ = (
        "_by_header", "_by_priority", "_changed", "_filled", "_lanes", "_sorted", "arrivals",
        "highest",
    )  # fmt: skip

    def __init__(self, broker: Broker, vhost_name: str, name: str, **more: Any) -> None:
        super().__init__(broker, vhost_name, name, **more)
        broker.has_priorities = True
        self.highest = _highest(self.arguments)
        # By priority; and the highest first.
        self._by_priority: dict[int, Lane] = {}
        self._lanes: list[Lane] = []
        # By the header frame, of some messages that look like many others.
        self._by_header: dict[bytes, Lane] = {}
        # What was published last in this batch, and to which lanes.
        self._sorted: tuple[Sequence[Message], Mapping[Lane, list[Message]]] = (), {}
        # Those that may have messages, the highest first.
        self._filled: list[Lane] = []
        # Those to which something happened in this batch.
        self._changed: dict[Lane, None] = {}
        self.arrivals = Arrivals(self)
        # It has the id of the queue in the log.
        self.add_lane(0)

    # Lanes

    @property
    def lanes(self) -> Sequence[Queue]:
        """The highest one first."""
        return self._lanes

    @property
    def front(self) -> Queue:
        """The highest one that has messages, if any has."""
        self._sort_in()
        return next((lane for lane in self._filled if lane.messages_ready), self._lanes[0])

    def lane_of(self, number: int) -> Queue:
        """The lane with this number."""
        return self._by_priority[number >> SHIFT]

    def add_lane(self, priority: int, lasting: Lasting | None = None) -> Lane:
        """A lane for messages of a priority that had none yet."""
        lane = Lane(self, priority)
        lane.lasting = lasting
        lane.present = self.present
        self._by_priority[priority] = lane
        self._by_header.clear()
        insort(self._lanes, lane, key=_rank)
        if priority:
            self.broker.pager.more_lanes += 1
        lane.follow(self.rules)
        return lane

    def lane_for(self, message: Message) -> Lane:
        """Where a message belongs; makes the lane, if need be."""
        priority = properties.priority(message[CONTENT])
        lane = self._by_priority.get(priority) or self._by_priority.get(self.highest)
        if lane is None or lane.priority != min(priority, self.highest):
            lane = self.add_lane(min(priority, self.highest))
            if self.lasting is not None:
                self.broker.vhosts[self.vhost_name].store_lane(self, lane)
        return lane

    def sorted(self, messages: Sequence[Message]) -> Mapping[Lane, list[Message]]:
        """Messages by the lane they belong to, in order within each."""
        return self._sorted[1] if self._sorted[0] is messages else self._sort(messages)[0]

    def _sort(self, messages: Sequence[Message]) -> tuple[dict[Lane, list[Message]], list[Entry]]:
        """The same, and entries for them in order, numbered as if none had come meanwhile."""
        known = self._by_header
        header = header_of(messages[0])
        if all(map(bytes.startswith, map(content_of, messages), repeat(header))):
            lane = known.get(header) or self._learn(header, messages[0])
            numbers = range(lane.next_number, lane.next_number + len(messages))
            return {lane: list(messages)}, list(zip(numbers, messages, repeat(0)))
        groups: dict[Lane, list[Message]] = {}
        entries: list[Entry] = []
        for message in messages:
            if not groups or not message[CONTENT].startswith(header):
                header = header_of(message)
                lane = known.get(header) or self._learn(header, message)
                some = groups.setdefault(lane, [])
                number = lane.next_number + len(some)
            entries.append((number, message, 0))
            some.append(message)
            number += 1
        return groups, entries

    def _learn(self, header: bytes, message: Message) -> Lane:
        lane = self.lane_for(message)
        if len(header) <= HEADER_KNOWN_SIZE:
            if len(self._by_header) >= HEADERS_KNOWN:
                self._by_header.clear()
            self._by_header[header] = lane
        return lane

    def stored_lanes(self) -> Mapping[int, int]:
        """The ids in the log of the lanes that are there beside the first one, by priority."""
        return {
            lane.priority: lane.lasting.id
            for lane in self._lanes
            if lane.priority and lane.lasting is not None
        }

    def by_lane(self, entries: Iterable[Entry]) -> Iterable[tuple[Queue, list[Entry]]]:
        """Entries by the lane they are of, in order within each."""
        groups: dict[int, list[Entry]] = {}
        for entry in entries:
            groups.setdefault(entry[NUMBER] >> SHIFT, []).append(entry)
        return [(self._by_priority[priority], some) for priority, some in groups.items()]

    def note(self, lane: Lane) -> None:
        """Something happened to a lane: the queue is to have its turn."""
        self._changed[lane] = None
        if not lane.is_filled:
            lane.is_filled = True
            insort(self._filled, lane, key=_rank)
        self.touch()

    # What it holds

    @property
    def messages_ready(self) -> int:
        """Messages that wait for a consumer."""
        arrived = len(self.arrivals.ready)
        return sum([lane.messages_ready for lane in self._filled], arrived)

    @property
    def octets_ready(self) -> int:
        """Octets of the bodies of ready messages, where they are limited."""
        return sum([lane.body_bytes for lane in self._filled])

    def count_unacked(self, count: int, size: int) -> None:
        """So many messages were handed out and are to be settled."""
        self.unacked_count += count
        self.unacked_bytes += size

    def apply_rules(self, rules: QueueRules) -> None:
        """From now on these rules hold."""
        super().apply_rules(rules)
        self.touch()

    def follow(self, rules: QueueRules) -> None:
        """From now on these rules hold for its messages."""
        self.rules = rules
        for lane in self._lanes:
            lane.follow(rules)
            # What is due now is so in every lane.
            self.note(lane)

    # Messages come and go

    def publish(self, messages: list[Message], size: int) -> None:
        """Appends messages, of `size` octets of memory in all."""
        groups, entries = self._sort(messages)
        if self.consumers.may_have_room:
            # All or none, if the log does not know yet of some that they may be handed out.
            if all(
                lane.next_number + len(some) <= lane.reserved_to + 1
                for lane, some in groups.items()
            ):
                for lane, some in groups.items():
                    lane.next_number += len(some)
                self.arrivals.add(entries, size)
                self._sorted = messages, groups
                self.touch()
                return
            self._deliver_due()
        self._sorted = messages, groups
        for lane, some in groups.items():
            Queue.publish(lane, some, size if len(groups) == 1 else size_of(some))
            self.note(lane)

    def _deliver_due(self) -> None:
        """What came so far goes before what comes now, or who has room now."""
        if self.arrivals.ready:
            self.deliver()

    def deliver(self) -> None:
        """Gives ready messages to consumers, by priority and in turn, while both are there; what is
        left is judged by the rules of the queue."""
        self._is_touched = False
        self._sorted = (), {}
        is_done = self._hand_out()
        if self.arrivals.ready:
            # Nobody takes them now, but for those that go before what is being read.
            self._sort_in()
            is_done = self._hand_out()
        if self.rules.drops and is_done:
            for lane in list(self._changed):
                if lane.expiry is not None:
                    # What is over makes room first.
                    lane.expiry.make_ready()
            drop_head(self)
        changed = self._changed
        if is_done:
            self._changed = {}
        for lane in list(changed):
            if lane.expiry is not None:
                lane.expiry.watch(is_final=is_done)

    def _hand_out(self) -> bool:
        """False if more will be given when the disk has answered."""
        filled = self._filled
        while filled:
            lane = filled[0]
            if lane.messages_ready:
                self._changed[lane] = None
                if lane.expiry is not None and not lane.expiry.make_ready():
                    return False
                if not hand_out(lane):
                    return False
                if lane.messages_ready:
                    return True
            filled.remove(lane)
            lane.is_filled = False
        return not self.arrivals.ready or hand_out(self.arrivals)

    def _sort_in(self) -> None:
        """What came in this batch and is still there goes to its lane."""
        if not self.arrivals.ready:
            return
        entries, size = self.arrivals.take_all()
        groups = list(self.by_lane(entries))
        for lane, some in groups:
            assert isinstance(lane, Lane)
            lane.append(some, size if len(groups) == 1 else entries_size(some))

    def catch_up(self) -> None:
        """Delivers what is due before somebody gets more room: who has the higher priority then,
        goes first."""
        if self._is_touched:
            self.deliver()

    def wake(self, consumer: Consumer) -> None:
        """A consumer may have room again."""
        self._deliver_due()
        super().wake(consumer)

    def settle(self, entries: list[Entry]) -> None:
        """These deliveries are acknowledged."""
        if self.is_deleted:
            return
        self._forget_unacked(entries)
        if self.present is not None:
            self.present.gone(entries)
        if self.broker.journals:
            for lane, some in self.by_lane(entries):
                for store in lane.stores:
                    store.settled(some)

    def reject(self, entries: list[Entry]) -> None:
        """These deliveries are rejected for good."""
        if self.is_deleted:
            return
        self._forget_unacked(entries)
        for priority, some in groupby(entries, lambda entry: entry[NUMBER] >> SHIFT):
            self.broker.graves.bury(self._by_priority[priority], list(some), REJECTED)

    def take_back(self, entries: list[Entry], *, failed: bool) -> None:
        """These are no longer handed out."""
        for lane, some in self.by_lane(entries):
            lane.take_back(some, failed=failed)

    def purge(self) -> int:
        """Drops what is ready and returns how many that were."""
        if self.duplicates is not None and self.present is None:
            self.duplicates.clear()
        self._sort_in()
        return sum([lane.purge() for lane in self._lanes])

    def let_go(self) -> None:
        """Its messages are gone, and nothing that is still settled counts."""
        self._sort_in()
        for lane in self._lanes:
            lane.let_go()
        self.broker.pager.more_lanes -= len(self._lanes) - 1
        super().let_go()


# In the log


def are_there(queues: Iterable[Queue]) -> bool:
    """Whether one of these has priorities."""
    return any(isinstance(queue, PriorityQueue) for queue in queues)


def put(journal: Journal, queues: Sequence[Queue], messages: Sequence[Message]) -> None:
    """Writes messages that went to these queues just now, some of which have priorities: a record
    for each run that went to the same lanes."""
    if len(queues) == 1 and isinstance(queues[0], PriorityQueue):
        # Only the order within each lane counts.
        for lane, some in queues[0].sorted(messages).items():
            if lane.lasting is not None:
                journal.put([lane.lasting], [lane.next_number - len(some)], some)
        return
    targets = [(_targets(queues, message), message) for message in messages]
    runs = [
        (lanes, [message for _, message in group])
        for lanes, group in groupby(targets, itemgetter(0))
    ]
    behind: dict[Queue, int] = {}
    for lanes, some in runs:
        for lane in lanes:
            behind[lane] = behind.get(lane, 0) + len(some)
    numbers = {lane: lane.next_number - count for lane, count in behind.items()}
    for lanes, some in runs:
        stored = [(lane.lasting, lane) for lane in lanes if lane.lasting is not None]
        firsts = [numbers[lane] for _, lane in stored]
        if stored:
            journal.put([lasting for lasting, _ in stored], firsts, some)
        for lane in lanes:
            numbers[lane] += len(some)


def _targets(queues: Sequence[Queue], message: Message) -> Sequence[Queue]:
    return [
        queue.lane_for(message) if isinstance(queue, PriorityQueue) else queue for queue in queues
    ]

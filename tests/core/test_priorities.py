"""Queues with priorities."""

from __future__ import annotations

from typing import ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

from broker.core.dispatch import get
from broker.core.lanes import SHIFT
from broker.core.message import MESSAGE_OVERHEAD, NUMBER, Message, make_origin
from broker.core.priorities import PriorityQueue, make_queue
from broker.core.queue import Queue
from broker.wire.frames import BODY, frame
from broker.wire.properties import CONTENT_TYPE, DELIVERY_MODE, HEADERS, PRIORITY, header_frame
from broker.wire.properties import priority as priority_of
from broker.wire.table import Field, Table, encode_table
from tests.core import test_queue_machine as machine
from tests.core.fakes import add_consumer, body_of, entries_of, got, make_broker, requeue, settle
from tests.wire.profiles import steps

HIGHEST = 3


def with_maximum(highest: int) -> Table:
    return {"x-max-priority": Field("byte", highest)}


def make_message(body: bytes, priority: int | None) -> Message:
    flags, octets = (0, b"") if priority is None else (PRIORITY, bytes([priority]))
    header = header_frame(1, len(body), flags, octets)
    return header + frame(BODY, 1, body), len(header), make_origin("", "q"), 131072 << 16 | 1


def publish(queue: Queue, *messages: tuple[bytes, int | None]) -> None:
    """Publishes messages in one run."""
    made = [make_message(*message) for message in messages]
    queue.publish(made, sum(len(message[0]) + MESSAGE_OVERHEAD for message in made))


def taken(queue: Queue) -> list[bytes]:
    """All that basic.get finds."""
    bodies = []
    while (entry := get(queue, no_ack=True)) is not None:
        bodies.append(body_of(entry))
    return bodies


@pytest.fixture
def queue() -> PriorityQueue:
    queue = make_queue(make_broker(), "/", "q", arguments=with_maximum(9))
    assert isinstance(queue, PriorityQueue)
    return queue


def test_a_queue_without_priorities_is_a_plain_one() -> None:
    broker = make_broker()
    for arguments in ({}, with_maximum(0)):
        assert type(make_queue(broker, "/", "q", arguments=arguments)) is Queue
    assert not broker.has_priorities


def test_lanes_are_made_when_they_are_needed_and_go_with_the_queue(queue: PriorityQueue) -> None:
    pager = queue.broker.pager
    assert len(queue.lanes) == 1
    publish(queue, (b"1", 7), (b"2", 200), (b"3", None), (b"4", 7))
    assert [lane.next_number >> SHIFT for lane in queue.lanes] == [9, 7, 0]
    assert pager.more_lanes == 2
    assert (queue.messages, queue.messages_ready) == (4, 4)
    queue.close()
    assert (queue.messages, pager.more_lanes, queue.broker.memory_used) == (0, 0, 0)
    queue.broker.run_deliveries()


def test_numbers_of_all_priorities_fit_where_numbers_are_kept() -> None:
    broker = make_broker()
    queue = make_queue(broker, "/", "q", arguments=with_maximum(255))
    publish(queue, *((b"%d" % priority, priority) for priority in range(256)))
    consumer = add_consumer(queue, prefetch=300)
    broker.run_deliveries()
    assert got(consumer) == [b"%d" % priority for priority in reversed(range(256))]
    assert max(entry[NUMBER] for entry in entries_of(consumer)) < 2**62


def test_a_consumer_with_room_gets_messages_as_they_come(queue: PriorityQueue) -> None:
    """As if each were handled for itself; what it has no room for is sorted."""
    consumer = add_consumer(queue, prefetch=3)
    queue.broker.run_deliveries()
    publish(queue, (b"a", 0), (b"b", 9), (b"c", 1), (b"d", 2), (b"e", 8))
    queue.broker.run_deliveries()
    assert got(consumer) == [b"a", b"b", b"c"]
    assert taken(queue) == [b"e", b"d"]


def test_what_comes_back_goes_to_its_place_within_its_priority(queue: PriorityQueue) -> None:
    publish(queue, (b"5.1", 5), (b"5.2", 5), (b"5.3", 5), (b"1.1", 1))
    consumer = add_consumer(queue, prefetch=2)
    queue.broker.run_deliveries()
    entries = entries_of(consumer)
    queue.remove_consumer(consumer)
    publish(queue, (b"9.1", 9), (b"5.4", 5))
    requeue(consumer, *entries)
    queue.broker.run_deliveries()
    assert taken(queue) == [b"9.1", b"5.1", b"5.2", b"5.3", b"5.4", b"1.1"]


def test_the_next_active_consumer_gets_the_highest_first() -> None:
    single = {**with_maximum(9), "x-single-active-consumer": Field("bool", value=True)}
    queue = make_queue(make_broker(), "/", "q", arguments=single)
    first, second = (add_consumer(queue, prefetch=1) for _ in range(2))
    queue.broker.run_deliveries()
    publish(queue, (b"a", 0), (b"b", 1), (b"c", 2))
    queue.broker.run_deliveries()
    assert (got(first), got(second)) == ([b"a"], [])
    queue.remove_consumer(first)
    queue.broker.run_deliveries()
    assert got(second) == [b"c"]


def test_a_blocked_consumer_is_passed_over() -> None:
    queue = make_queue(make_broker(), "/", "q", arguments=with_maximum(9))
    first = add_consumer(queue, prefetch=1, priority=5)
    second = add_consumer(queue, prefetch=5)
    queue.broker.run_deliveries()
    publish(queue, (b"a", 0), (b"b", 1))
    queue.broker.run_deliveries()
    assert (got(first), got(second)) == ([b"a"], [b"b"])
    settle(first, *entries_of(first))
    publish(queue, (b"c", 0))
    queue.broker.run_deliveries()
    assert got(first) == [b"a", b"c"]


@pytest.mark.parametrize(
    ("flags", "octets", "found"),
    [
        (0, b"", 0),
        (DELIVERY_MODE, b"\x02", 0),
        (PRIORITY, b"\xff", 255),
        (DELIVERY_MODE | PRIORITY, b"\x02\x07", 7),
        (CONTENT_TYPE | PRIORITY, b"\x01x\x09", 9),
        (CONTENT_TYPE | HEADERS | PRIORITY, b"\x00" + encode_table({}) + b"\x03", 3),
    ],
)
def test_priority_is_found_behind_whatever_is_before_it(
    flags: int, octets: bytes, found: int
) -> None:
    assert priority_of(header_frame(1, 0, flags, octets)) == found


class Model(machine.Model):
    """Whatever is higher goes first."""

    def order(self, number: int) -> int:
        return number - ((number >> SHIFT) << (SHIFT + 1))


class PriorityMachine(machine.QueueMachine):
    arguments: ClassVar[Table] = with_maximum(HIGHEST)
    model_class: ClassVar[type[machine.Model]] = Model

    @rule(priorities=st.lists(st.sampled_from([None, 0, 1, 2, 3, 4, 255]), min_size=1, max_size=6))
    def publish_all(self, priorities: list[int | None]) -> None:
        lanes = [min(priority or 0, HIGHEST) for priority in priorities]
        numbers = [self.number_in(lane) for lane in lanes]
        publish(
            self.queue,
            *[(b"%d" % n, priority) for n, priority in zip(numbers, priorities, strict=True)],
        )
        for number in numbers:
            self.model.add(number)
            self.model.deliver()

    def number_in(self, lane: int) -> int:
        if not hasattr(self, "lanes"):
            self.lanes = [0] * (HIGHEST + 1)
        self.lanes[lane] += 1
        return (lane << SHIFT) + self.lanes[lane]

    @rule(count=st.integers(1, 6), priority=st.integers(0, HIGHEST))
    def publish(self, count: int, priority: int = 0) -> None:
        self.publish_all([priority] * count)

    def lines(self) -> list[Queue]:
        assert isinstance(self.queue, PriorityQueue)
        return [*self.queue.lanes, self.queue.arrivals]


TestPriorities = PriorityMachine.TestCase
TestPriorities.settings = steps(100, 40)

"""Least-loaded dispatch: who holds the fewest messages is next; among equals, in turn."""

from __future__ import annotations

from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.consumer import ConsumerLine
from broker.core.least_loaded import _STALE_MIN, LeastLoadedLine, make_line
from broker.core.queue import Queue
from broker.wire.table import Field, Table
from tests.core import test_queue_machine as machine
from tests.core.fakes import (
    Sink,
    add_consumer,
    entries_of,
    got,
    make_broker,
    publish,
    requeue,
    settle,
)
from tests.wire.profiles import examples, steps

BY_LOAD: Table = {"x-dispatch": Field("longstr", "least-loaded")}


@pytest.fixture
def queue() -> Queue:
    return Queue(make_broker(), "/", "q", arguments=BY_LOAD)


def run(queue: Queue, *bodies: bytes) -> None:
    publish(queue, *bodies)
    queue.broker.run_deliveries()


class Model(machine.Model):
    """Looks at all workers for each message."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = 0
        self.turns: dict[int, int] = {}

    def deliver(self) -> None:
        while self.ready:
            free = [worker for worker in self.workers if worker.has_room()]
            if not free:
                return
            first = min(free, key=lambda w: (-w.priority, w.held, self.turns[id(w)]))
            first.got.append(self.ready.pop(0))
            first.held += not first.no_ack
            self.take_turn(first)

    def take_turn(self, worker: machine.Worker) -> None:
        self.turn += 1
        self.turns[id(worker)] = self.turn

    def wake(self, worker: machine.Worker) -> None:
        if id(worker) not in self.turns:
            self.take_turn(worker)
        self.deliver()


class LeastLoadedMachine(machine.QueueMachine):
    """The same rules as for turns, with another model."""

    arguments: ClassVar[Table] = BY_LOAD
    model_class: ClassVar[type[machine.Model]] = Model


TestLeastLoadedMachine = LeastLoadedMachine.TestCase
TestLeastLoadedMachine.settings = steps(100, 40)


def test_argument_chooses_the_line() -> None:
    assert type(make_line({})) is ConsumerLine
    assert type(make_line({"x-dispatch": Field("longstr", "round-robin")})) is ConsumerLine
    assert type(make_line(BY_LOAD)) is LeastLoadedLine
    single = make_line({**BY_LOAD, "x-single-active-consumer": Field("bool", value=True)})
    assert single.single_active


def test_who_holds_fewest_is_next(queue: Queue) -> None:
    busy, idle = (add_consumer(queue, tag, prefetch=10) for tag in ("busy", "idle"))
    run(queue, b"0", b"1", b"2", b"3")
    assert (got(busy), got(idle)) == ([b"0", b"2"], [b"1", b"3"])
    settle(idle, *entries_of(idle))
    run(queue, b"4", b"5", b"6", b"7")
    assert (got(busy)[2:], got(idle)[2:]) == ([b"6"], [b"4", b"5", b"7"])


def test_newcomer_gets_messages_until_it_holds_as_many(queue: Queue) -> None:
    old = add_consumer(queue, "old")
    run(queue, *[b"old"] * 5)
    new = add_consumer(queue, "new")
    run(queue, *[b"%d" % number for number in range(7)])
    assert got(new) == [b"0", b"1", b"2", b"3", b"4", b"6"]
    assert got(old)[5:] == [b"5"]


def test_full_consumers_are_skipped_until_they_settle(queue: Queue) -> None:
    small = add_consumer(queue, "small", prefetch=1)
    large = add_consumer(queue, "large", prefetch=3)
    run(queue, *[b"%d" % number for number in range(6)])
    assert (got(small), got(large)) == ([b"0"], [b"1", b"2", b"3"])
    settle(small, *entries_of(small))
    queue.broker.run_deliveries()
    assert got(small) == [b"0", b"4"]


def test_higher_priority_goes_first_though_it_holds_more(queue: Queue) -> None:
    low = add_consumer(queue, "low")
    high = add_consumer(queue, "high", priority=1, prefetch=2)
    run(queue, b"0", b"1", b"2")
    assert (got(high), got(low)) == ([b"0", b"1"], [b"2"])
    settle(high, entries_of(high)[0])
    run(queue, b"3")
    assert got(high)[-1] == b"3"


def test_what_comes_back_goes_to_who_holds_fewest(queue: Queue) -> None:
    a, b = (add_consumer(queue, tag) for tag in "ab")
    run(queue, b"0", b"1", b"2")
    assert (got(a), got(b)) == ([b"0", b"2"], [b"1"])
    requeue(a, *entries_of(a))
    queue.broker.run_deliveries()
    # The second time they hold as many, and it is the other one's turn.
    assert (got(a)[2:], got(b)[1:]) == ([b"0"], [b"2"])


def test_who_steps_back_is_the_last_among_equals(queue: Queue) -> None:
    a, b, c = (add_consumer(queue, tag) for tag in "abc")
    queue.consumers.step_back(a)
    run(queue, b"0", b"1", b"2")
    assert [got(each) for each in (b, c, a)] == [[b"0"], [b"1"], [b"2"]]
    queue.remove_consumer(b)
    queue.consumers.step_back(b)
    run(queue, b"3")
    assert got(c) == [b"1", b"3"]


def test_who_left_gets_nothing_more(queue: Queue) -> None:
    a, b = (add_consumer(queue, tag) for tag in "ab")
    run(queue, b"0")
    queue.remove_consumer(b)
    settle(b)
    run(queue, b"1", b"2")
    assert (len(got(a)), got(b)) == (3, [])


def test_consumer_without_room_in_its_channel_comes_back_when_it_wakes(queue: Queue) -> None:
    full = Sink(room=0)
    waiting = add_consumer(queue, "a", full)
    taking = add_consumer(queue, "b")
    run(queue, b"0", b"1")
    assert got(taking) == [b"0", b"1"]
    full.room_left = 5
    waiting.wake()
    run(queue, b"2")
    assert got(waiting) == [b"2"]


@examples(60)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=4), st.lists(st.integers(0, 9), max_size=8))
def test_bursts_make_no_difference(prefetches: list[int], bursts: list[int]) -> None:
    """The same messages come at once, and one by one; acknowledgements are in between."""
    taken = []
    for at_once in (True, False):
        queue = Queue(make_broker(), "/", "q", arguments=BY_LOAD)
        line = [add_consumer(queue, prefetch=each) for each in prefetches]
        settled = [0] * len(line)
        number = 0
        for burst in bursts:
            for _ in range(burst):
                number += 1
                publish(queue, b"%d" % number)
                if not at_once:
                    queue.broker.run_deliveries()
            queue.broker.run_deliveries()
            place = burst % len(line)
            oldest = entries_of(line[place])[settled[place] :][:2]
            settled[place] += len(oldest)
            for entry in oldest:
                settle(line[place], entry)
                if not at_once:
                    queue.broker.run_deliveries()
        queue.broker.run_deliveries()
        taken.append([got(each) for each in line])
    assert taken[0] == taken[1]


def test_entries_that_no_longer_hold_do_not_pile_up(queue: Queue) -> None:
    a, _ = (add_consumer(queue, tag) for tag in "ab")
    run(queue, *[b"x"] * 4000)
    for entry in entries_of(a):
        settle(a, entry)
    assert isinstance(queue.consumers, LeastLoadedLine)
    assert len(queue.consumers._heaps[0]) <= _STALE_MIN + 4

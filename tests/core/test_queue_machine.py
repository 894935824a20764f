"""A queue against the plainest model there is, whatever happens to it, in whatever order.

The model handles everything at once, one message at a time; the queue only when a batch ends.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broker.core.consumer import Consumer
from broker.core.dispatch import get
from broker.core.message import NUMBER, RETURNS, Entry
from broker.core.priorities import make_queue
from broker.core.queue import Queue
from broker.wire.table import Table
from tests.core.fakes import (
    Sink,
    add_consumer,
    body_of,
    make_broker,
    publish,
    requeue,
    settle,
    size_of_entry,
)
from tests.wire.profiles import steps


@dataclass(eq=False)
class Worker:
    """A consumer of the model: what it got, and what of that is unsettled."""

    prefetch: int
    no_ack: bool
    priority: int
    got: list[int] = field(default_factory=list)
    held: int = 0

    def has_room(self) -> bool:
        return self.no_ack or not self.prefetch or self.held < self.prefetch


class Model:
    """Numbers that wait, in order; workers that may have room, in the order of their turns."""

    def __init__(self) -> None:
        self.ready: list[int] = []
        self.line: list[Worker] = []
        self.workers: list[Worker] = []

    def order(self, number: int) -> int:
        """What messages are sorted by."""
        return number

    def add(self, number: int) -> None:
        self.ready = sorted([*self.ready, number], key=self.order)

    def deliver(self) -> None:
        while self.ready and self.line:
            first = max(self.line, key=lambda worker: worker.priority)
            self.line.remove(first)
            if first.has_room():
                first.got.append(self.ready.pop(0))
                first.held += not first.no_ack
                self.line.append(first)

    def wake(self, worker: Worker) -> None:
        if worker not in self.line and worker in self.workers:
            self.line.append(worker)
        self.deliver()

    def leave(self, worker: Worker) -> None:
        self.workers.remove(worker)
        if worker in self.line:
            self.line.remove(worker)

    def give_back(self, number: int) -> None:
        self.add(number)
        self.deliver()


class QueueMachine(RuleBasedStateMachine):
    """Runs queue and model side by side."""

    arguments: ClassVar[Table] = {}
    model_class: ClassVar[type[Model]] = Model

    @initialize(prefetches=st.lists(st.integers(0, 3), max_size=3))
    def begin(self, prefetches: list[int]) -> None:
        self.broker = make_broker()
        self.queue = make_queue(self.broker, "/", "q", arguments=self.arguments)
        self.model = self.model_class()
        self.published = 0
        self.pairs: list[tuple[Consumer, Worker]] = []
        # Deliveries that are not settled, by who holds them; None for basic.get.
        self.held: list[tuple[Entry, tuple[Consumer, Worker] | None]] = []
        self.seen: dict[Consumer, int] = {}
        self.returns: dict[int, int] = {}
        # Two channels that consumers may share.
        self.sinks = [Sink(), Sink()]
        for prefetch in prefetches:
            self.add_worker(None, prefetch=prefetch, no_ack=False, priority=0)

    def add_worker(self, sink: Sink | None, *, prefetch: int, no_ack: bool, priority: int) -> None:
        consumer = add_consumer(
            self.queue, sink=sink, prefetch=prefetch, no_ack=no_ack, priority=priority
        )
        worker = Worker(prefetch, no_ack, priority)
        self.pairs.append((consumer, worker))
        self.model.workers.append(worker)
        self.model.wake(worker)

    @rule(count=st.integers(1, 6))
    def publish(self, count: int) -> None:
        numbers = range(self.published + 1, self.published + count + 1)
        publish(self.queue, *[b"%d" % number for number in numbers])
        for number in numbers:
            self.model.ready.append(number)
            self.model.deliver()
        self.published += count

    @precondition(lambda self: len(self.model.workers) < 5)
    @rule(
        prefetch=st.integers(0, 3),
        no_ack=st.booleans(),
        priority=st.sampled_from([0, 0, 0, 1]),
        sink=st.sampled_from([None, 0, 1]),
    )
    def consume(self, prefetch: int, *, no_ack: bool, priority: int, sink: int | None) -> None:
        self.end_batch()
        channel = None if sink is None else self.sinks[sink]
        self.add_worker(channel, prefetch=prefetch, no_ack=no_ack, priority=priority)

    @precondition(lambda self: len(self.model.workers) > 2)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.end_batch()
        worker = data.draw(st.sampled_from(self.model.workers), "worker")
        consumer = next(consumer for consumer, other in self.pairs if other is worker)
        self.queue.remove_consumer(consumer)
        self.model.leave(worker)

    def take_held(self, data: st.DataObject) -> tuple[Entry, tuple[Consumer, Worker] | None]:
        return self.held.pop(data.draw(st.integers(0, len(self.held) - 1), "delivery"))

    @rule()
    def publish_one(self) -> None:
        self.publish(1)

    @precondition(lambda self: self.held)
    @rule()
    def acknowledge_oldest(self) -> None:
        self.acknowledge_one(*self.held.pop(0))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        self.acknowledge_one(*self.take_held(data))

    def acknowledge_one(self, entry: Entry, holder: tuple[Consumer, Worker] | None) -> None:
        if holder is None:
            self.queue.settle([entry])
        else:
            settle(holder[0], entry)
            holder[1].held -= 1
            self.model.wake(holder[1])

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def reject(self, data: st.DataObject) -> None:
        self.end_batch()
        entry, holder = self.take_held(data)
        self.returns[entry[NUMBER]] = entry[RETURNS] + 1
        if holder is None:
            self.queue.requeue([entry])
            self.model.give_back(entry[NUMBER])
        else:
            requeue(holder[0], entry)
            holder[1].held -= 1
            self.model.add(entry[NUMBER])
            self.model.wake(holder[1])

    @rule(no_ack=st.booleans())
    def get(self, *, no_ack: bool) -> None:
        self.end_batch()
        entry = get(self.queue, no_ack=no_ack)
        wanted = self.model.ready.pop(0) if self.model.ready else None
        assert (None if entry is None else entry[NUMBER]) == wanted
        if entry is not None and not no_ack:
            self.held.append((entry, None))

    @precondition(lambda self: len(self.model.ready) > 4)
    @rule()
    def purge(self) -> None:
        self.end_batch()
        assert self.queue.purge() == len(self.model.ready)
        self.model.ready.clear()

    @rule()
    def end_batch(self) -> None:
        self.broker.run_deliveries()
        for pair in self.pairs:
            consumer, worker = pair
            assert isinstance(consumer.sink, Sink)
            entries = [entry for who, entry in consumer.sink.got if who is consumer]
            assert [entry[NUMBER] for entry in entries] == worker.got
            assert consumer.unacked == worker.held
            assert not consumer.prefetch or worker.held <= consumer.prefetch
            for entry in entries[self.seen.get(consumer, 0) :]:
                assert body_of(entry) == b"%d" % entry[NUMBER]
                assert entry[RETURNS] == self.returns.get(entry[NUMBER], 0)
                if not consumer.no_ack:
                    self.held.append((entry, pair))
            self.seen[consumer] = len(entries)
        assert self.queue.messages_ready == len(self.model.ready)
        assert self.queue.unacked_count == len(self.held)

    @invariant()
    def everything_is_accounted_for(self) -> None:
        queue = self.queue
        assert queue.messages == queue.messages_ready + queue.unacked_count
        octets = 0
        for line in self.lines():
            assert line.ready_bytes == sum(map(size_of_entry, [*line.ready, *line.returned]))
            octets += line.ready_bytes
        assert self.broker.memory_used == octets + queue.unacked_bytes
        assert sum(consumer.unacked for consumer, _ in self.pairs) <= queue.unacked_count
        assert len(queue.consumers) == len(self.model.workers)

    def lines(self) -> list[Queue]:
        """Where ready messages are."""
        return [self.queue]

    def teardown(self) -> None:
        if not hasattr(self, "queue"):
            return
        self.end_batch()
        assert self.queue.unacked_bytes == sum(size_of_entry(entry) for entry, _ in self.held)
        self.queue.close()
        for entry, holder in self.held:
            if holder is not None:
                settle(holder[0], entry)
        self.broker.run_deliveries()
        assert self.broker.memory_used == 0
        told = [consumer for sink in self._sinks() for consumer in sink.told]
        assert len(told) == len(self.model.workers)

    def _sinks(self) -> set[Sink]:
        return {consumer.sink for consumer, _ in self.pairs if isinstance(consumer.sink, Sink)}


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = steps(100, 40)

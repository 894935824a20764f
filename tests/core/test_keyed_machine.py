"""Queues with keys against the plainest model there is: groups, fair shares and both, with all that
may happen to a message beside."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broker.core.broker import Broker, Limits
from broker.core.consumer import Consumer
from broker.core.dispatch import get, is_coming
from broker.core.keyed.queue import KeyedQueue
from broker.core.message import NUMBER, RETURNS, Entry, Message, make_origin, size_of
from broker.core.priorities import make_queue
from broker.core.rules import QueueRules
from broker.wire.properties import HEADERS, header_frame
from broker.wire.table import Field, Table, encode_table
from tests.core.fakes import Notes, Sink, add_consumer, entries_of, size_of_entry
from tests.core.keyed_model import Model, Sent, Worker
from tests.wire.profiles import steps

KEYS = (None, "a", "b", "c")
ARGUMENTS: dict[str, Table] = {
    "groups": {"x-group-by": Field("longstr", "room")},
    "shares": {"x-fair-by": Field("longstr", "tenant")},
    "both": {
        "x-group-by": Field("longstr", "room"),
        "x-fair-by": Field("longstr", "tenant"),
    },
}


def message_of(room: str | None, tenant: str | None, now: int, ttl: int | None) -> Message:
    names = {"other": "x", "tenant": tenant, "room": room}
    table = {name: Field("longstr", text) for name, text in names.items() if text is not None}
    header = header_frame(1, 0, HEADERS, encode_table(table))
    return header, len(header), make_origin("", "q", published=now, ttl=ttl), 131072 << 16 | 1


class KeyedMachine(RuleBasedStateMachine):
    """Runs queue and model side by side."""

    @initialize(
        kind=st.sampled_from(sorted(ARGUMENTS)),
        loses=st.booleans(),
        ttl=st.sampled_from([None, 300]),
        length=st.sampled_from([None, 4]),
        limit=st.sampled_from([None, None, 1]),
        retry=st.sampled_from(["disabled", "all"]),
        workers=st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=3),
    )
    def begin(
        self,
        kind: str,
        ttl: int | None,
        length: int | None,
        limit: int | None,
        retry: str,
        workers: list[tuple[int, bool]],
        *,
        loses: bool,
    ) -> None:
        rules = QueueRules(
            message_ttl=ttl if loses else None,
            max_length=length if loses else None,
            delivery_limit=limit,
            delayed_retry_type=retry,
            delayed_retry_min=100,
            delayed_retry_multiplier=1,
        )
        self.broker = Broker(bytes, limits=Limits(), note=Notes())
        self.broker.timers.advance(1000)
        queue = make_queue(self.broker, "/", "q", arguments=ARGUMENTS[kind])
        assert isinstance(queue, KeyedQueue)
        self.queue = queue
        queue.apply_rules(rules)
        self.model = Model(kind, rules, loses=loses)
        # Where turns are not exact, who gets what is not either.
        self.workers_max = 1 if loses and kind != "groups" else 4
        self.pairs: list[tuple[Consumer, Worker]] = []
        self.held: list[tuple[Entry, tuple[Consumer, Worker] | None]] = []
        self.seen: dict[Consumer, int] = {}
        self.returns: dict[int, int] = {}
        for prefetch, no_ack in workers[: self.workers_max]:
            self.add_worker(prefetch, no_ack=no_ack)

    def add_worker(self, prefetch: int, *, no_ack: bool) -> None:
        consumer = add_consumer(self.queue, prefetch=prefetch, no_ack=no_ack)
        worker = Worker(prefetch, no_ack)
        self.pairs.append((consumer, worker))
        self.model.workers.append(worker)
        self.model.wake(worker)

    @rule(
        messages=st.lists(
            st.tuples(
                st.sampled_from(KEYS), st.sampled_from(KEYS), st.sampled_from([None, None, 150])
            ),
            min_size=1,
            max_size=8,
        )
    )
    def publish(self, messages: list[tuple[str | None, str | None, int | None]]) -> None:
        for room, tenant, own in messages:
            ttl = own if self.model.loses else None
            ttls = [each for each in (ttl, self.model.rules.message_ttl) if each is not None]
            expires = self.model.now + min(ttls) if ttls else None
            number = self.queue.next_number
            message = message_of(room, tenant, self.model.now, ttl)
            self.queue.publish([message], size_of([message]))
            self.model.arrived.append(Sent(number, room, tenant, expires))

    @precondition(lambda self: len(self.model.workers) < self.workers_max)
    @rule(prefetch=st.integers(0, 3), no_ack=st.booleans())
    def consume(self, prefetch: int, *, no_ack: bool) -> None:
        self.end_batch()
        self.add_worker(prefetch, no_ack=no_ack)
        self.end_batch()

    @precondition(lambda self: self.model.workers)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.end_batch()
        worker = data.draw(st.sampled_from(self.model.workers), "worker")
        consumer = next(consumer for consumer, other in self.pairs if other is worker)
        self.queue.remove_consumer(consumer)
        self.model.workers.remove(worker)
        if worker in self.model.line:
            self.model.line.remove(worker)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), how=st.sampled_from(["ack", "ack", "requeue", "reject"]))
    def settle(self, data: st.DataObject, how: str) -> None:
        self.end_batch()
        if not self.held:
            return
        entry, holder = self.held.pop(data.draw(st.integers(0, len(self.held) - 1), "which"))
        sent = self.model.held.pop(entry[NUMBER])
        if how == "requeue":
            self.returns[entry[NUMBER]] = entry[RETURNS] + 1
            self.queue.requeue([entry], failed=True)
            self.model.come_back(sent)
        else:
            (self.queue.settle if how == "ack" else self.queue.reject)([entry])
        if holder is not None:
            consumer, worker = holder
            consumer.unacked -= 1
            if not consumer.is_waiting:
                consumer.wake()
            worker.held -= 1
            self.model.wake(worker)
        self.end_batch()

    @rule(no_ack=st.booleans())
    def get(self, *, no_ack: bool) -> None:
        self.end_batch()
        entry = get(self.queue, no_ack=no_ack)
        wanted = self.model.next(None if entry is None else entry[NUMBER])
        assert (None if entry is None else entry[NUMBER]) == (wanted and wanted.number)
        if entry is None or wanted is None:
            assert not is_coming(self.queue)
            return
        assert entry[RETURNS] == wanted.returns
        self.model.go_out(wanted, no_ack=no_ack)
        if not no_ack:
            self.held.append((entry, None))
        self.end_batch()

    @rule()
    def purge(self) -> None:
        self.end_batch()
        if self.model.count + len(self.model.waiting) > 5:
            assert self.queue.purge() == self.model.count + len(self.model.waiting)
            self.model.ready.clear()
            self.model.waiting.clear()
            self.model.note_turns()
            self.end_batch()

    @rule(milliseconds=st.sampled_from([1, 60, 100, 200]))
    def wait(self, milliseconds: int) -> None:
        self.end_batch()
        self.model.advance(self.model.now + milliseconds)
        assert not self.broker.timers.advance(self.model.now)
        self.end_batch()

    @rule()
    def end_batch(self) -> None:
        self.broker.run_deliveries()
        numbers = {
            worker: [entry[NUMBER] for entry in entries_of(consumer)]
            for consumer, worker in self.pairs
        }
        self.model.deliver(numbers)
        for pair in self.pairs:
            consumer, worker = pair
            entries = entries_of(consumer)
            assert [entry[NUMBER] for entry in entries] == worker.got
            for entry in entries[self.seen.get(consumer, 0) :]:
                assert entry[RETURNS] == self.returns.get(entry[NUMBER], 0)
                if not consumer.no_ack:
                    self.held.append((entry, pair))
            self.seen[consumer] = len(entries)
        assert self.queue.messages_ready == self.model.count
        assert self.queue.messages == self.model.count + len(self.held) + len(self.model.waiting)

    @invariant()
    def everything_is_accounted_for(self) -> None:
        queue = self.queue
        entries = [*queue.ready, *queue.near.values()]
        assert queue.ready_bytes == sum(map(size_of_entry, entries))
        assert queue.returned_bytes == sum(map(size_of_entry, queue.near.values()))
        assert queue.arrivals_bytes == sum(map(size_of_entry, queue.arrivals))
        assert queue.unacked_bytes == sum(size_of_entry(entry) for entry, _ in self.held)

    def teardown(self) -> None:
        if not hasattr(self, "queue"):
            return
        self.end_batch()
        self.queue.close()
        self.broker.run_deliveries()
        assert self.broker.memory_used == 0
        told = [tag for consumer, _ in self.pairs for tag in self.sink_of(consumer).told]
        assert len(told) == len(self.model.workers)

    def sink_of(self, consumer: Consumer) -> Sink:
        assert isinstance(consumer.sink, Sink)
        return consumer.sink


TestKeyedMachine = KeyedMachine.TestCase
TestKeyedMachine.settings = steps(100, 30)

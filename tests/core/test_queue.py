"""A queue by itself: what is ready, what is delivered, what comes back, and what it all weighs."""

import pytest

from broker.core.broker import Broker
from broker.core.dispatch import get
from broker.core.message import NUMBER, RETURNS
from broker.core.queue import PACE_FROM, Queue
from broker.wire.table import Field
from tests.core.fakes import (
    Sink,
    add_consumer,
    body_of,
    entries_of,
    got,
    make_broker,
    make_message,
    publish,
    requeue,
    settle,
    size_of_entry,
)


@pytest.fixture
def broker() -> Broker:
    return make_broker()


@pytest.fixture
def queue(broker: Broker) -> Queue:
    return Queue(broker, "/", "q")


def counts(queue: Queue) -> tuple[int, int, int]:
    return queue.messages_ready, queue.unacked_count, queue.messages


def bodies_left(queue: Queue) -> list[bytes]:
    left = []
    while (entry := get(queue, no_ack=True)) is not None:
        left.append(body_of(entry))
    return left


def test_messages_wait_in_order_for_a_consumer(queue: Queue, broker: Broker) -> None:
    publish(queue, b"1", b"2", b"3")
    assert counts(queue) == (3, 0, 3)
    consumer = add_consumer(queue)
    broker.run_deliveries()
    assert got(consumer) == [b"1", b"2", b"3"]
    assert [entry[NUMBER] for entry in entries_of(consumer)] == [1, 2, 3]
    assert counts(queue) == (0, 3, 3)


def test_nothing_is_delivered_before_the_end_of_the_batch(queue: Queue, broker: Broker) -> None:
    consumer = add_consumer(queue)
    publish(queue, b"1")
    assert got(consumer) == []
    assert list(broker.touched) == [queue]
    broker.run_deliveries()
    assert got(consumer) == [b"1"]
    assert not broker.touched


def test_what_is_delivered_without_acknowledgement_is_gone(queue: Queue, broker: Broker) -> None:
    consumer = add_consumer(queue, no_ack=True, prefetch=1)
    publish(queue, b"1", b"2")
    broker.run_deliveries()
    assert got(consumer) == [b"1", b"2"]
    assert counts(queue) == (0, 0, 0)
    assert broker.memory_used == queue.ready_bytes == queue.unacked_bytes == 0
    assert broker.counters.messages_delivered_consume_auto_ack == 2


def test_prefetch_bounds_what_a_consumer_holds(queue: Queue, broker: Broker) -> None:
    consumer = add_consumer(queue, prefetch=2)
    publish(queue, b"1", b"2", b"3", b"4", b"5")
    broker.run_deliveries()
    assert got(consumer) == [b"1", b"2"]
    settle(consumer, entries_of(consumer)[0])
    broker.run_deliveries()
    assert got(consumer) == [b"1", b"2", b"3"]
    settle(consumer, *entries_of(consumer)[1:])
    broker.run_deliveries()
    assert got(consumer) == [b"1", b"2", b"3", b"4", b"5"]
    assert broker.counters.messages_delivered_consume_manual_ack == 5


def test_requeued_messages_go_back_to_their_old_places(queue: Queue, broker: Broker) -> None:
    consumer = add_consumer(queue, prefetch=4)
    publish(queue, b"1", b"2", b"3", b"4", b"5", b"6")
    broker.run_deliveries()
    one, two, three, four = entries_of(consumer)
    queue.remove_consumer(consumer)
    requeue(consumer, four, two)
    settle(consumer, three)
    requeue(consumer, one)
    broker.run_deliveries()
    assert bodies_left(queue) == [b"1", b"2", b"4", b"5", b"6"]


def test_returned_message_is_marked_and_keeps_its_number(queue: Queue, broker: Broker) -> None:
    consumer = add_consumer(queue, prefetch=1)
    publish(queue, b"1", b"2")
    broker.run_deliveries()
    for _ in range(3):
        requeue(consumer, entries_of(consumer)[-1])
        broker.run_deliveries()
    assert [(e[NUMBER], e[RETURNS]) for e in entries_of(consumer)] == [(1, n) for n in range(4)]
    assert broker.counters.messages_redelivered == 3
    settle(consumer, entries_of(consumer)[-1])
    broker.run_deliveries()
    assert (entries_of(consumer)[-1][NUMBER], entries_of(consumer)[-1][RETURNS]) == (2, 0)


def test_get_takes_the_first_one_returned_or_not(queue: Queue) -> None:
    assert get(queue, no_ack=False) is None
    publish(queue, b"1", b"2", b"3")
    first = get(queue, no_ack=False)
    second = get(queue, no_ack=False)
    assert first is not None
    assert second is not None
    queue.requeue([second])
    queue.requeue([first])
    assert counts(queue) == (3, 0, 3)
    assert bodies_left(queue) == [b"1", b"2", b"3"]
    assert queue.broker.memory_used == 0


def test_purge_drops_what_is_ready_and_leaves_what_is_unacknowledged(
    queue: Queue, broker: Broker
) -> None:
    consumer = add_consumer(queue, prefetch=2)
    publish(queue, b"1", b"22", b"333", b"4444")
    broker.run_deliveries()
    one, two = entries_of(consumer)
    queue.remove_consumer(consumer)
    requeue(consumer, one)
    assert queue.purge() == 3
    assert counts(queue) == (0, 1, 1)
    assert broker.memory_used == queue.unacked_bytes == size_of_entry(two)
    requeue(consumer, two)
    assert bodies_left(queue) == [b"22"]
    assert queue.purge() == 0
    assert broker.memory_used == 0


def test_closed_queue_lets_go_of_everything_and_tells_its_consumers(
    queue: Queue, broker: Broker
) -> None:
    sink = Sink()
    holder = add_consumer(queue, "a", sink, prefetch=1)
    waiter = add_consumer(queue, "b", sink, prefetch=1)
    publish(queue, b"1", b"2", b"3", b"4")
    broker.run_deliveries()
    held = entries_of(holder) + entries_of(waiter)
    queue.close()
    assert queue.is_deleted
    assert counts(queue) == (0, 0, 0)
    assert broker.memory_used == 0
    assert sink.told == []
    broker.run_deliveries()
    assert sink.told == [holder, waiter]
    # What was delivered may still be settled, to no effect.
    settle(holder, held[0])
    requeue(waiter, held[1])
    broker.run_deliveries()
    assert counts(queue) == (0, 0, 0)
    assert broker.memory_used == 0
    assert len(queue.consumers) == 0
    assert sink.told == [holder, waiter]


def test_consumer_that_left_gets_nothing_more(queue: Queue, broker: Broker) -> None:
    consumer = add_consumer(queue, prefetch=1)
    publish(queue, b"1", b"2")
    broker.run_deliveries()
    queue.remove_consumer(consumer)
    settle(consumer, *entries_of(consumer))
    broker.run_deliveries()
    assert got(consumer) == [b"1"]
    assert counts(queue) == (1, 0, 1)


def test_others_take_over_what_a_leaving_consumer_did_not_take(
    queue: Queue, broker: Broker
) -> None:
    argument = {"x-single-active-consumer": Field("bool", value=True)}
    single = Queue(broker, "/", "single", arguments=argument)
    first = add_consumer(single, "a", prefetch=1)
    second = add_consumer(single, "b")
    publish(single, b"1", b"2", b"3")
    broker.run_deliveries()
    assert (got(first), got(second)) == ([b"1"], [])
    single.remove_consumer(first)
    broker.run_deliveries()
    assert (got(first), got(second)) == ([b"1"], [b"2", b"3"])


def test_output_room_bounds_a_turn_by_octets(queue: Queue, broker: Broker) -> None:
    sink = Sink(output_room=3 * size_of_entry((1, make_message(b"x" * 100), 0)) - 1)
    consumer = add_consumer(queue, sink=sink)
    publish(queue, *[b"x" * 100] * 10)
    sink_deliver = sink.deliver

    def deliver(who: object, entries: list[object], size: int) -> None:
        sink_deliver(consumer, entries, size)  # type: ignore[arg-type]
        sink.output_left -= size

    sink.deliver = deliver  # type: ignore[method-assign, assignment]
    broker.run_deliveries()
    # The one that passes the bound still goes.
    assert len(got(consumer)) == 3
    sink.output_left = 1
    consumer.wake()
    broker.run_deliveries()
    assert len(got(consumer)) == 4


def test_publishing_to_a_queue_that_falls_behind_is_noted(queue: Queue, broker: Broker) -> None:
    big = make_message(b"x" * (PACE_FROM // 2))
    for _ in range(3):
        queue.publish([big], len(big[0]))
    assert not broker.is_behind
    add_consumer(queue, sink=Sink(room=0))
    queue.publish([make_message()], 300)
    assert broker.is_behind


def test_numbers_are_never_reused(queue: Queue) -> None:
    publish(queue, b"1", b"2")
    queue.purge()
    publish(queue, b"3")
    entry = get(queue, no_ack=True)
    assert entry is not None
    assert entry[NUMBER] == 3

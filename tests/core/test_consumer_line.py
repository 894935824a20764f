"""Whose turn it is: one message each, round and round, by priority; who is full is skipped."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.broker import Broker
from broker.core.consumer import BATCH_MAX, Consumer, ConsumerLine
from broker.core.queue import Queue
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
    settle,
    size_of_entry,
)
from tests.wire.profiles import examples


@pytest.fixture
def queue() -> Queue:
    return Queue(make_broker(), "/", "q")


def numbered(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


def run(queue: Queue, count: int) -> None:
    publish(queue, *numbered(count))
    queue.broker.run_deliveries()


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 9, 30, 31])
def test_everybody_gets_one_message_a_round(queue: Queue, count: int, *, shared: bool) -> None:
    sink = Sink() if shared else None
    consumers = [add_consumer(queue, tag, sink) for tag in "abc"]
    run(queue, count)
    for place, consumer in enumerate(consumers):
        assert got(consumer) == numbered(count)[place::3]
    if sink is not None:
        # What one channel gets, it gets in order.
        assert [body_of(entry) for _, entry in sink.got] == numbered(count)


@examples(60)
@given(
    st.integers(1, 4),
    st.lists(st.integers(0, 9), min_size=1, max_size=8),
    st.booleans(),
)
def test_turns_do_not_depend_on_how_many_messages_come_at_once(
    consumers: int, bursts: list[int], shared: bool
) -> None:
    queue = Queue(make_broker(), "/", "q")
    sink = Sink() if shared else None
    line = [add_consumer(queue, str(place), sink) for place in range(consumers)]
    numbers = iter(range(1000))
    for burst in bursts:
        publish(queue, *[b"%d" % next(numbers) for _ in range(burst)])
        queue.broker.run_deliveries()
    for place, consumer in enumerate(line):
        assert got(consumer) == numbered(sum(bursts))[place::consumers]


def test_full_consumers_are_skipped_and_come_back_at_the_end(queue: Queue) -> None:
    a, b, c = (add_consumer(queue, tag, prefetch=2) for tag in "abc")
    run(queue, 10)
    assert [got(each) for each in (a, b, c)] == [[b"0", b"3"], [b"1", b"4"], [b"2", b"5"]]
    settle(b, *entries_of(b))
    queue.broker.run_deliveries()
    assert got(b) == [b"1", b"4", b"6", b"7"]
    settle(c, entries_of(c)[0])
    settle(a, entries_of(a)[0])
    queue.broker.run_deliveries()
    assert (got(c)[-1], got(a)[-1]) == (b"8", b"9")


def test_higher_priority_goes_first_as_long_as_it_has_room(queue: Queue) -> None:
    low = add_consumer(queue, "low", priority=-1)
    normal = add_consumer(queue, "normal", prefetch=1)
    high = [add_consumer(queue, tag, priority=5, prefetch=2) for tag in ("h1", "h2")]
    run(queue, 8)
    assert [got(each) for each in high] == [[b"0", b"2"], [b"1", b"3"]]
    assert got(normal) == [b"4"]
    assert got(low) == [b"5", b"6", b"7"]
    settle(high[1], entries_of(high[1])[0])
    settle(normal, *entries_of(normal))
    run(queue, 3)
    assert got(high[1])[-1] == b"0"
    assert got(normal)[-1] == b"1"
    assert got(low)[-1] == b"2"


def test_who_stood_in_line_before_has_its_turn_before_who_wakes(queue: Queue) -> None:
    a = add_consumer(queue, "a", prefetch=2)
    b = add_consumer(queue, "b", prefetch=2, priority=1)
    run(queue, 8)
    assert (got(b), got(a)) == ([b"0", b"1"], [b"2", b"3"])
    # In one batch: first the low one has room, then the high one.
    settle(a, *entries_of(a))
    settle(b, *entries_of(b))
    queue.broker.run_deliveries()
    assert got(a) == [b"2", b"3", b"4", b"5"]
    assert got(b) == [b"0", b"1", b"6", b"7"]


def test_consumer_without_room_in_its_channel_is_skipped(queue: Queue) -> None:
    full, free = Sink(room=0), Sink()
    waiting = add_consumer(queue, "a", full)
    taking = add_consumer(queue, "b", free)
    run(queue, 3)
    assert got(taking) == numbered(3)
    full.room_left = 1
    waiting.wake()
    publish(queue, b"x", b"y")
    free.room_left = 0
    queue.broker.run_deliveries()
    assert got(waiting)[0] == b"x"


def test_one_turn_is_bounded(queue: Queue) -> None:
    consumer = add_consumer(queue)
    assert consumer.room() == BATCH_MAX
    assert add_consumer(queue, "b", prefetch=65535).room() == BATCH_MAX
    assert add_consumer(queue, "c", Sink(room=7), prefetch=3).room() == 3


def test_rounds_at_once_keep_to_the_output_room_of_a_shared_connection() -> None:
    class Shared(Sink):
        """Channels of one connection: what one sends, the others cannot."""

        left = 0

        def output_room(self) -> int:
            return Shared.left

        def room(self) -> int:
            return self.room_left if Shared.left > 0 else 0

        def deliver(self, consumer, entries, size):  # type: ignore[no-untyped-def]
            super().deliver(consumer, entries, size)
            Shared.left -= size

    queue = Queue(make_broker(), "/", "q")
    consumers = [add_consumer(queue, str(place), Shared()) for place in range(20)]
    size = size_of_entry((1, make_message(b"x" * 1000), 0))
    Shared.left = 50 * size
    publish(queue, *[b"x" * 1000] * 500)
    queue.broker.run_deliveries()
    taken = [len(got(consumer)) for consumer in consumers]
    assert sum(taken) == 50
    assert max(taken) - min(taken) <= 1


def test_single_active_consumer_is_the_one_that_came_first(queue: Queue) -> None:
    arguments = {"x-single-active-consumer": Field("bool", value=True)}
    single = Queue(queue.broker, "/", "single", arguments=arguments)
    a, b, c = (add_consumer(single, tag, priority=p) for tag, p in (("a", 0), ("b", 9), ("c", 0)))
    run(single, 3)
    assert [got(each) for each in (a, b, c)] == [numbered(3), [], []]
    b.wake()
    run(single, 1)
    assert (len(got(a)), got(b)) == (4, [])
    single.remove_consumer(a)
    run(single, 1)
    single.remove_consumer(c)
    run(single, 1)
    assert (len(got(a)), got(b), got(c)) == (4, [b"0", b"0"], [])


def test_who_steps_back_has_its_turn_after_all_others_of_its_priority(queue: Queue) -> None:
    a, b = (add_consumer(queue, tag) for tag in "ab")
    low = add_consumer(queue, "low", priority=-1)
    full = add_consumer(queue, "full", Sink(room=0))
    run(queue, 2)
    queue.consumers.step_back(a)
    queue.consumers.step_back(full)
    run(queue, 1)
    assert [len(got(each)) for each in (a, b, low, full)] == [1, 2, 0, 0]


def test_line_counts_who_is_there() -> None:
    broker: Broker = make_broker()
    queue = Queue(broker, "/", "q")
    line = ConsumerLine()
    a, b = (Consumer(Sink(), queue, tag, no_ack=False, exclusive=tag == "a") for tag in "ab")
    line.add(a)
    line.add(b)
    assert (len(line), list(line), line.exclusive_count) == (2, [a, b], 1)
    line.remove(a)
    line.remove(a)
    assert (len(line), list(line), line.exclusive_count) == (1, [b], 0)
    # Who left does not stand in line again.
    line.wake(a)
    found = line.line()
    assert found is not None
    assert (list(found[0]), found[1]) == ([b], b)
    assert found[2] > 0
    line.remove(b)
    assert line.line() is None

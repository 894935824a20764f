"""A broker that lasts, with a disk that is late and crashes, against the model; and planted bugs
that must be found by the invariant that is about them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from hypothesis.stateful import run_state_machine_as_test

from broker.core import cleaner, consumer, definitions, lasting, paging, reading, records
from broker.core.batches import Batches
from broker.core.broker import Broker
from broker.core.consumer import Consumer
from broker.core.journal import Journal
from broker.core.lasting import Lasting
from broker.core.queue import Queue
from broker.core.recovery import Recovery
from broker.core.stored import StoredRuns
from broker.protocol import channel
from broker.protocol.channel import Channel
from broker.protocol.methods import queue as methods_queue
from broker.protocol.methods import tx
from broker.protocol.publish import publish_committed
from tests.durable.machine import DurableMachine
from tests.durable.observer import ViolationError
from tests.durable.simulation import play, play_backlog
from tests.wire.profiles import steps

SEEDS = range(100, 116)
STEPS = 250
FAULT_RUNS = 40
SURVIVED_RUNS = 3
FAULT_STEPS = 150
"""Runs within which a planted bug must be found; most are found in the first one."""


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """What happens every few megabytes, happens every few messages."""
    monkeypatch.setattr(cleaner, "SLACK", 400)
    monkeypatch.setattr(cleaner, "STEP", 300)
    monkeypatch.setattr(paging, "MARK_SHARE", 0.05)
    monkeypatch.setattr(paging, "HEAD_BYTES", 700)
    monkeypatch.setattr(reading, "FETCH_BYTES", 300)
    monkeypatch.setattr(lasting, "AHEAD", 8)
    for module in (consumer, channel):
        monkeypatch.setattr(module, "BATCH_MAX", 4)


def test_what_is_promised_lasts() -> None:
    run_state_machine_as_test(DurableMachine, settings=steps(40, 50))


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_promised_lasts_in_long_runs(seed: int) -> None:
    play(seed, STEPS)


@pytest.mark.parametrize(
    ("seed", "memory"), [(2066, 0), (2113, 0), (2179, 0), (1091, 90_000), (1137, 90_000)]
)
def test_run_that_is_stored_anew_while_it_is_read(seed: int, memory: int) -> None:
    limits = {"memory": memory} if memory else {}
    play(seed, 300, type("Found", (DurableMachine,), {"limits": limits}))


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_promised_lasts_with_little_memory(seed: int) -> None:
    play(seed, STEPS, type("Small", (DurableMachine,), {"limits": {"memory": 90_000}}))


def backlog(seed: int, memory: int) -> None:
    """A run with many messages that do not last, and hardly room for any of them."""
    kind = type(
        "Backlog", (DurableMachine,), {"limits": {"memory": memory}, "persistent_share": 0.4}
    )
    play_backlog(seed, STEPS, kind)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("memory", [30_000, 15_000])
def test_backlog_is_worked_off_with_little_memory(
    seed: int, memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paging, "HEAD_BYTES", 300)
    backlog(seed, memory)


@pytest.mark.parametrize(("seed", "memory"), [(379, 30_000), (947, 30_000), (1330, 15_000)])
def test_backlog_that_was_not_worked_off_right(
    seed: int, memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came back was counted behind the head; basic.get was answered twice; nobody looked
    when there was memory again."""
    monkeypatch.setattr(paging, "HEAD_BYTES", 300)
    backlog(seed, memory)


def after(function: Callable[..., Any], undo: Callable[..., object]) -> Callable[..., Any]:
    """The function, after which `undo` spoils what it did."""

    def spoilt(*arguments: Any, **named: Any) -> Any:
        result = function(*arguments, **named)
        undo(*arguments)
        return result

    return spoilt


def with_settlements_first(batch: bytes) -> Iterator[tuple[int, int, int]]:
    found = list(each_record(batch))
    return iter(sorted(found, key=lambda record: record[0] != records.Kind.SETTLED))


def requeue_behind(queue: Queue, entries: list[Any]) -> None:
    if not queue.is_deleted:
        returned, queue.returned = queue.returned, []
        queue.ready.extend(returned)


def flush_at_once(channel: Channel, *_: Any) -> None:
    assert channel.connection.broker.journal is not None
    channel.connection.broker.journal.flush()


def key_of_nothing(kind: records.Kind, table: Any) -> Any:
    return "nothing" if kind in definitions.DELETIONS else key_of(kind, table)


def wake_without_a_turn(queue: Queue, consumer: Consumer) -> None:
    queue.consumers.wake(consumer)


def count_twice(journal: Journal) -> None:
    journal.waiting_bytes += 1


def make_a_ghost(recovery: Recovery, broker: Broker) -> None:
    broker.add_vhost("/").declare_exchange("ghost", "fanout")


def write_for_one(journal: Journal, queues: Any, firsts: Any, messages: Any) -> None:
    put(journal, queues[:1], firsts[:1], messages)


def free_too_little(batches: Batches, position: int, octets: int) -> None:
    free(batches, position, max(0, octets - 1))


def take_next_id(recovery: Recovery, broker: Any) -> None:
    STARTS.append(1)
    broker.next_queue_id += len(STARTS)


STARTS: list[int] = []
each_record = records.each
put = Journal.put
declare_ok = methods_queue._declare_ok
free = Batches.free
settled = records.settled
key_of = definitions.key_of
delivered = records.delivered

FAULTS: dict[str, tuple[str, Any, str, Any]] = {
    "a confirm comes before the disk": (
        "confirms",
        Channel,
        "flush_confirms",
        lambda channel: channel._decide(channel.published),
    ),
    "confirms are forgotten": ("confirms", Channel, "flush_confirms", lambda _: None),
    "an answer comes before the disk": ("answers", Channel, "answer", Channel.send),
    "a commit is written in two batches": (
        "conservation",
        tx,
        "publish_committed",
        after(publish_committed, flush_at_once),
    ),
    "settlements are not written": (
        "conservation",
        records,
        "settled",
        lambda queue_id, firsts, counts: settled(queue_id, [], []),
    ),
    "settlements come before what they settle": (
        "conservation",
        records,
        "each",
        with_settlements_first,
    ),
    "a fan-out is written for its first queue": ("conservation", Journal, "put", write_for_one),
    "what is stored anew counts in both places": (
        "live bytes",
        StoredRuns,
        "insert",
        lambda stored, run: None,
    ),
    "a message that comes back goes to the end": (
        "order",
        Queue,
        "requeue",
        after(Queue.requeue, requeue_behind),
    ),
    "what was handed out is not written": (
        "redelivered",
        records,
        "delivered",
        lambda marks: delivered(dict.fromkeys(marks, 0)),
    ),
    "nobody knows what came back": ("redelivered", Lasting, "times_returned", lambda *_: 0),
    "what is deleted comes back": ("definitions", definitions, "key_of", key_of_nothing),
    "bindings do not last": ("definitions", definitions, "_make_binding", lambda *_: None),
    "memory is counted twice": (
        "memory",
        reading,
        "_page_in",
        after(reading._page_in, lambda queue, paged, entries: queue.broker.__setattr__(
            "memory_used", queue.broker.memory_used + len(entries))),
    ),
    "not all that is settled is let go": ("live bytes", Batches, "free", free_too_little),
    "what waits for the disk is counted twice": (
        "log bytes",
        Journal,
        "_append",
        after(Journal._append, count_twice),
    ),
    "a declaration counts one too many": (
        "conservation",
        methods_queue,
        "_declare_ok",
        lambda channel, name, messages, consumers: declare_ok(channel, name, messages + 1, 0),
    ),
    "something is there that nobody declared": (
        "definitions",
        Recovery,
        "into",
        after(Recovery.into, make_a_ghost),
    ),
    "a consumer gets one too many": (
        "prefetch",
        Consumer,
        "room",
        lambda consumer: consumer.prefetch + 1 - consumer.unacked if consumer.prefetch else 9,
    ),
    "room is made and nobody looks": ("delivery", Queue, "wake", wake_without_a_turn),
    "a second start is not like the first": (
        "recovery",
        Recovery,
        "into",
        after(Recovery.into, take_next_id),
    ),
}  # fmt: skip
"""What goes wrong, the invariant that says so, and how to make it so."""
SURVIVORS = (
    "a confirm comes before the disk",
    "an answer comes before the disk",
    "a declaration counts one too many",
    "a message that comes back goes to the end",
    "what was handed out is not written",
    "something is there that nobody declared",
    "memory is counted twice",
    "not all that is settled is let go",
    "what waits for the disk is counted twice",
    "a consumer gets one too many",
    "room is made and nobody looks",
    "a second start is not like the first",
)
"""One for each invariant, which nothing else finds."""


def found(seeds: Iterable[int], off: frozenset[str] = frozenset()) -> tuple[int, str] | None:
    """The first seed that finds something, and the invariant that does not hold."""
    machine = type("Spoilt", (DurableMachine,), {"off": off})
    for seed in seeds:
        try:
            play(seed, FAULT_STEPS, machine)
        except ViolationError as violation:
            return seed, violation.invariant
    return None


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    invariant, target, name, function = FAULTS[fault]
    monkeypatch.setattr(target, name, function)
    finding = found(range(FAULT_RUNS))
    assert finding is not None
    assert finding[1] == invariant


def test_each_invariant_has_a_fault_that_nothing_else_finds() -> None:
    survivors = {FAULTS[fault][0] for fault in SURVIVORS}
    assert survivors == {invariant for invariant, *_ in FAULTS.values()}
    assert len(survivors) == len(SURVIVORS)


@pytest.mark.parametrize("fault", SURVIVORS)
def test_planted_fault_survives_without_its_check(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each check is needed: no other one finds this."""
    invariant, target, name, function = FAULTS[fault]
    monkeypatch.setattr(target, name, function)
    finding = found(range(FAULT_RUNS))
    assert finding is not None
    seeds = range(finding[0], finding[0] + SURVIVED_RUNS)
    assert found(seeds, frozenset({invariant})) is None

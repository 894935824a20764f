"""Planted bugs that the machine must find, each by the invariant that is about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from broker.core import definitions, reading, records
from broker.core.batches import Batches
from broker.core.broker import Broker
from broker.core.consumer import Consumer
from broker.core.journal import Journal
from broker.core.lasting import Lasting
from broker.core.queue import Queue
from broker.core.recovery import Recovery
from broker.core.stored import Run, StoredRuns
from broker.protocol.channel import Channel
from broker.protocol.methods import queue as methods_queue
from broker.protocol.methods import tx
from broker.protocol.publish import publish_committed


class Fault(NamedTuple):
    """The invariant that says what is wrong, how to make it so (`function` is put in the place of
    `target.name`), and the kind of runs that find it."""

    invariant: str
    target: Any
    name: str
    function: Any
    kind: str = "play"


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
insert_all = StoredRuns.insert_all
settled = records.settled
key_of = definitions.key_of
delivered = records.delivered


def insert_and_hold(stored: StoredRuns, runs: Sequence[Run]) -> None:
    insert_all(stored, runs)
    stored._freed(runs[0].position, -runs[0].share)


def answer_at_once(channel: Channel, method: Any, *, lasts: bool) -> None:
    channel.send(method)


FAULTS: dict[str, Fault] = {
    "a confirm comes before the disk": Fault(
        "confirms",
        Channel,
        "flush_confirms",
        lambda channel: channel._decide(channel.published),
    ),
    "confirms are forgotten": Fault("confirms", Channel, "flush_confirms", lambda _: None),
    "an answer comes before the disk": Fault("answers", Channel, "answer", answer_at_once),
    "a commit is written in two batches": Fault(
        "conservation",
        tx,
        "publish_committed",
        after(publish_committed, flush_at_once),
    ),
    "settlements are not written": Fault(
        "conservation",
        records,
        "settled",
        lambda queue_id, firsts, counts: settled(queue_id, [], []),
    ),
    "settlements come before what they settle": Fault(
        "conservation",
        records,
        "each",
        with_settlements_first,
    ),
    "a fan-out is written for its first queue": Fault(
        "conservation", Journal, "put", write_for_one
    ),
    "what is stored anew counts in both places": Fault(
        "live bytes",
        StoredRuns,
        "insert_all",
        insert_and_hold,
    ),
    "a message that comes back goes to the end": Fault(
        "order",
        Queue,
        "requeue",
        after(Queue.requeue, requeue_behind),
    ),
    "what was handed out is not written": Fault(
        "redelivered",
        records,
        "delivered",
        lambda marks: delivered(dict.fromkeys(marks, 0)),
    ),
    "nobody knows what came back": Fault("redelivered", Lasting, "times_returned", lambda *_: 0),
    "what is deleted comes back": Fault("definitions", definitions, "key_of", key_of_nothing),
    "bindings do not last": Fault("definitions", definitions, "_make_binding", lambda *_: None),
    "memory is counted twice": Fault(
        "memory",
        reading,
        "_page_in",
        after(reading._page_in, lambda queue, paged, entries, size: queue.broker.__setattr__(
            "memory_used", queue.broker.memory_used + len(entries))),
    ),
    "not all that is settled is let go": Fault("live bytes", Batches, "free", free_too_little),
    "what waits for the disk is counted twice": Fault(
        "log bytes",
        Journal,
        "_append",
        after(Journal._append, count_twice),
    ),
    "a declaration counts one too many": Fault(
        "conservation",
        methods_queue,
        "_declare_ok",
        lambda name, messages, consumers: declare_ok(name, messages + 1, 0),
    ),
    "something is there that nobody declared": Fault(
        "definitions",
        Recovery,
        "into",
        after(Recovery.into, make_a_ghost),
    ),
    "a consumer gets one too many": Fault(
        "prefetch",
        Consumer,
        "room",
        lambda consumer: consumer.prefetch + 1 - consumer.unacked if consumer.prefetch else 9,
    ),
    "room is made and nobody looks": Fault("delivery", Queue, "wake", wake_without_a_turn),
    "a second start is not like the first": Fault(
        "recovery",
        Recovery,
        "into",
        after(Recovery.into, take_next_id),
    ),
}  # fmt: skip

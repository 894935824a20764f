"""What a record can hold is no limit of what is written: more goes to several records."""

from __future__ import annotations

from itertools import pairwise

import pytest

from broker.core import records
from broker.core.journal import Journal
from broker.core.lasting import Lasting
from broker.core.message import Message, make_origin
from broker.core.records import HEAD, Kind
from broker.core.recovery import Recovery
from broker.errors import ReplyCode
from broker.protocol import transaction
from tests.durable.sim_log import SimLog
from tests.durable.site import DurableSite, publish_persistent
from tests.protocol.client import Basic, Channel, Exchange, Queue, Tx

MOST = 2**32 - 1
"""What a count of four octets holds."""


def message(body: bytes) -> Message:
    return body, 0, make_origin("", "q", persistent=True), 4096 << 16 | 7


def written(journal: Journal, log: SimLog) -> list[bytes]:
    """The batches of the log once all is durable."""
    journal.flush()
    while log.can_work or log.has_news:
        log.work(1)
        log.tell(1)
    return [batch for _, batch in SimLog(list(log.batches)).replay()]


def test_message_goes_to_more_queues_than_one_record_names() -> None:
    log = SimLog()
    journal = Journal(log)
    queues = [Lasting(journal, number) for number in range(1, 65_537)]
    firsts = [1] * len(queues)
    journal.put(queues, firsts, [message(b"one"), message(b"two")])
    [batch] = written(journal, log)
    puts = [records.read_put(batch, at) for _, at, _ in records.each(batch)]
    assert [len(put.targets) for put in puts] == [65_535, 1]
    assert [target for put in puts for target in put.targets] == [(q.id, 1) for q in queues]
    assert [put.messages(batch) for put in puts] == [[message(b"one"), message(b"two")]] * 2
    assert {queue.stored.count for queue in queues} == {2}
    # Each queue knows which record its messages are in.
    offsets = [next(queue.stored.runs_from(0)).offset for queue in queues]
    assert offsets == [
        at for (_, at, _), put in zip(records.each(batch), puts, strict=True) for _ in put.targets
    ]


def test_fan_out_over_several_records_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "TARGETS_MAX", 3)
    site = DurableSite()
    client = site.connect()
    client.tell(Exchange.Declare, exchange="f", exchange_type="fanout", durable=True)
    names = [f"q{number}" for number in range(8)]
    for name in names:
        client.tell(Queue.Declare, queue=name, durable=True)
        client.tell(Queue.Bind, queue=name, exchange="f", routing_key="")
    site.settle_down()
    client.read()
    publish_persistent(client, b"one", b"two", exchange="f")
    site.settle_down()
    client.tell(Basic.Get, queue="q3", no_ack=True)
    site.settle_down()
    client.read()
    for _ in range(2):
        site = site.crash()
        assert [site.vhost.queues[name].messages_ready for name in names] == [
            2,
            2,
            2,
            1,
            2,
            2,
            2,
            2,
        ]
    client = site.connect()
    bodies = []
    for name in names:
        for _ in range(2):
            client.tell(Basic.Get, queue=name)
            site.settle_down()
            bodies += client.bodies()
    assert bodies == [b"one", b"two"] * 3 + [b"two"] + [b"one", b"two"] * 4


@pytest.mark.parametrize("count", [MOST, MOST + 1, 2 * MOST, 2 * MOST + 7])
def test_range_of_any_length_is_settled(count: int) -> None:
    batch = records.settled(3, [5, 5 + count + 1], [count, 2])
    [(kind, at, end)] = records.each(batch)
    queue_id, ranges = records.read_settled(batch, at)
    assert (kind, queue_id, end) == (Kind.SETTLED, 3, len(batch))
    *long, last = ranges
    assert last == (5 + count + 1, 2)
    # One behind the other, without a hole, from the first number to the last.
    assert long[0][0] == 5
    assert all(first + length == after for (first, length), (after, _) in pairwise(long))
    assert sum(length for _, length in long) == count


def test_purge_passes_over_billions_of_numbers_behind_one_old_message() -> None:
    log = SimLog()
    journal = Journal(log)
    queue = Lasting(journal, 1)
    journal.put([queue], [1], [message(b"old")])
    journal.put([queue], [3 * MOST], [message(b"new")])
    queue.settled_range(1, queue.next_number)
    assert not queue.stored
    [batch] = written(journal, log)
    found = Recovery(SimLog([batch]))._journal.queues[1]
    assert (found.stored.count, found.next_number) == (0, 3 * MOST + 1)


@pytest.mark.parametrize("rows", [0, 1, 3, 4, 7])
def test_rows_of_more_than_one_record_come_back(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "_ROWS_MAX", 3)
    numbers = {10 * number: number + 1 for number in range(rows)}
    lasting = records.delivered(numbers)
    returned = records.returned(9, numbers)
    settled = records.settled(9, list(numbers), list(numbers.values()))
    states = [(queue_id, 1, 2) for queue_id in numbers]
    counters = records.counters(states) if states else b""
    marks, returns, ranges, found = [], [], [], []
    for kind, at, end in records.each(batch := lasting + returned + settled + counters):
        assert end - at <= HEAD.size + 12 + 3 * 24
        if kind == Kind.DELIVERED:
            marks += list(records.read_delivered(batch, at))
        elif kind == Kind.RETURNED:
            returns += list(records.read_returned(batch, at))
        elif kind == Kind.SETTLED:
            ranges += records.read_settled(batch, at)[1]
        else:
            found += list(records.read_counters(batch, at))
    assert marks == ranges == list(numbers.items())
    assert returns == [(9, number, times) for number, times in numbers.items()]
    assert found == states


def test_transaction_larger_than_one_batch_can_be_is_refused_at_its_publish(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transaction, "LASTING_BYTES_MAX", 3_000)
    site = DurableSite()
    client = site.connect(channels=2)
    client.tell(Queue.Declare, queue="q", durable=True)
    client.tell(Tx.Select)
    site.settle_down()
    client.read()
    client.publish(b"x" * 5_000)
    for _ in range(2):
        # A commit makes room for as much again.
        publish_persistent(client, b"x" * 1_000, b"x" * 1_000)
        client.tell(Tx.Commit)
        site.settle_down()
        assert [item.kind for item in client.read()] == [Tx.CommitOk]
    publish_persistent(client, *[b"x" * 1_000] * 3)
    [closed] = client.read()
    assert isinstance(closed.method, Channel.Close)
    assert closed.method.reply_code == ReplyCode.PRECONDITION_FAILED
    assert closed.method.reply_text == (
        "PRECONDITION_FAILED - persistent messages of one transaction are larger than 3000 octets"
    )
    assert (closed.method.class_id, closed.method.method_id) == (60, 40)
    queue = site.vhost.queues["q"]
    assert queue.messages_ready == 5
    # Nothing of what was refused is kept.
    assert site.broker.memory_used == queue.ready_bytes
    assert site.crash().vhost.queues["q"].messages_ready == 4

"""Backlogs that memory has no room for: what lasts stays in the log alone, what does not goes to
the scratch log, and both come back in order."""

from __future__ import annotations

from typing import Any

import pytest

from broker.core import paging, reading
from broker.core.message import MESSAGE_OVERHEAD
from broker.core.queue import Queue as CoreQueue
from broker.storage.log import LogState
from broker.wire.methods import commands
from tests.durable.sim_log import SimLog
from tests.durable.site import PERSISTENT, DurableSite
from tests.protocol.client import Basic, Channel, Client, Queue, publish_octets

LIMIT = 40_000
HEAD = 1_000
BODY = 100


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "HEAD_BYTES", HEAD)
    monkeypatch.setattr(paging, "HEAD_BYTES_MIN", 100)
    monkeypatch.setattr(reading, "FETCH_BYTES", 2_000)
    monkeypatch.setattr(paging, "RECORD_BYTES", 2_000)


@pytest.fixture
def site() -> DurableSite:
    return DurableSite(memory=LIMIT)


@pytest.fixture
def client(site: DurableSite) -> Client:
    return site.connect(channels=2)


def declare(client: Client, name: str, *, durable: bool) -> CoreQueue:
    client.tell(Queue.Declare, queue=name, durable=durable)
    site = client.site
    assert isinstance(site, DurableSite)
    site.settle_down()
    client.read()
    return site.vhost.queues[name]


def bodies(first: int, count: int) -> list[bytes]:
    return [b"%06d" % number + b"x" * (BODY - 6) for number in range(first, first + count)]


def fill(client: Client, name: str, first: int, count: int, *, lasts: bool) -> list[bytes]:
    """Publishes messages ten at a time, and lets the disk keep up."""
    site = client.site
    assert isinstance(site, DurableSite)
    made = bodies(first, count)
    kind: dict[str, Any] = PERSISTENT if lasts else {}
    for start in range(0, count, 10):
        chunk = made[start : start + 10]
        client.feed(b"".join(publish_octets(body, key=name, **kind) for body in chunk))
        site.settle_down()
    return made


def consume(client: Client, name: str) -> list[bytes]:
    site = client.site
    assert isinstance(site, DurableSite)
    client.tell(Basic.Consume, 2, queue=name, no_ack=True)
    site.settle_down()
    return client.bodies(2)


def scratch(site: DurableSite) -> SimLog:
    """The scratch log, which there is by now."""
    return site.logs[1]


@pytest.mark.parametrize("durable", [True, False])
def test_backlog_of_messages_that_do_not_last_is_paged_out(
    site: DurableSite, client: Client, durable: bool
) -> None:
    queue = declare(client, "q", durable=durable)
    made = fill(client, "q", 0, 1000, lasts=False)
    assert queue.messages_ready == 1000
    assert site.broker.memory_used < LIMIT // 2 + 10 * 400
    assert not site.broker.blocked
    assert consume(client, "q") == made
    assert site.broker.memory_used == 0
    assert site.broker.journals[1].batches.live_bytes == 0


def test_messages_that_last_and_others_keep_their_order(site: DurableSite, client: Client) -> None:
    declare(client, "q", durable=True)
    made = []
    for turn in range(60):
        made += fill(client, "q", turn * 10, 10, lasts=turn % 2 == 0)
    assert site.broker.memory_used < LIMIT // 2 + 10 * 400
    assert consume(client, "q") == made
    assert site.broker.memory_used == 0


def test_what_was_paged_out_and_does_not_last_is_gone_after_a_crash(
    site: DurableSite, client: Client
) -> None:
    declare(client, "q", durable=True)
    made = fill(client, "q", 0, 10, lasts=True)
    fill(client, "q", 10, 500, lasts=False)
    made += fill(client, "q", 510, 10, lasts=True)
    assert scratch(site).next > 1
    again = site.crash().connect(channels=2)
    assert consume(again, "q") == made


def test_what_comes_back_keeps_its_place_before_what_is_paged_out(
    site: DurableSite, client: Client
) -> None:
    declare(client, "q", durable=False)
    made = fill(client, "q", 0, 300, lasts=False)
    client.tell(Basic.Qos, 2, prefetch_count=20)
    client.tell(Basic.Consume, 2, queue="q", consumer_tag="c")
    site.settle_down()
    assert client.bodies(2) == made[:20]
    client.tell(Basic.Cancel, 2, consumer_tag="c")
    client.tell(Basic.Nack, 2, delivery_tag=0, multiple=True, requeue=True)
    client.read()
    client.tell(Basic.Qos, 2, prefetch_count=0)
    client.read()
    assert consume(client, "q") == made


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("method", [Queue.Purge, Queue.Delete])
def test_backlog_that_is_paged_out_goes_at_once(
    site: DurableSite, client: Client, durable: bool, method: Any
) -> None:
    """However long it is, it takes one short record."""
    queue = declare(client, "q", durable=durable)
    fill(client, "q", 0, 1000, lasts=durable)
    size, reads = site.log.size_bytes, len(site.log.reads)
    client.tell(method, queue="q")
    site.settle_down()
    [answer] = client.read()
    assert answer.method.message_count == 1000
    assert site.log.size_bytes - size < 1000
    assert len(site.log.reads) == reads
    assert site.broker.memory_used == 0
    assert queue.messages_ready == 0
    for journal in site.broker.journals[1:]:
        assert journal.batches.live_bytes == 0
    again = site.crash()
    assert ("q" in again.vhost.queues) == (durable and method is Queue.Purge)
    if "q" in again.vhost.queues:
        assert again.vhost.queues["q"].messages_ready == 0


def test_queue_without_consumers_reads_nothing_after_a_start(
    site: DurableSite, client: Client
) -> None:
    declare(client, "q", durable=True)
    fill(client, "q", 0, 20, lasts=True)
    site = site.stop()
    client = site.connect(channels=2)
    client.tell(Queue.Declare, queue="q", durable=True, passive=True)
    fill(client, "q", 20, 10, lasts=True)
    assert site.broker.memory_used < 11 * 400
    client.read()
    assert len(consume(client, "q")) == 30


def test_many_queues_share_the_memory_for_their_heads(site: DurableSite, client: Client) -> None:
    """No queue has much, all together have far more than there is room for."""
    names = [f"q{number}" for number in range(40)]
    for name in names:
        declare(client, name, durable=False)
    for turn in range(4):
        for name in names:
            fill(client, name, turn * 10, 10, lasts=False)
    assert not site.broker.blocked
    assert site.broker.memory_used < LIMIT
    for name in names:
        assert consume(client, name) == bodies(0, 40)


@pytest.mark.parametrize("durable", [True, False])
def test_consumer_that_acknowledges_nothing_gets_all_and_fills_no_memory(
    site: DurableSite, client: Client, durable: bool
) -> None:
    queue = declare(client, "q", durable=durable)
    made = fill(client, "q", 0, 1000, lasts=durable)
    client.tell(Basic.Consume, 2, queue="q")
    site.settle_down()
    assert client.bodies(2) == made
    bare = 1000 * MESSAGE_OVERHEAD
    assert bare <= queue.unacked_bytes < bare + LIMIT // 2 + 10_000
    client.tell(Basic.Ack, 2, delivery_tag=0, multiple=True)
    site.settle_down()
    assert site.broker.memory_used == 0
    assert queue.messages == 0


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("end", ["nack", "channel", "socket"])
def test_messages_come_back_whole_that_were_remembered_without_their_content(
    site: DurableSite, client: Client, durable: bool, end: str
) -> None:
    queue = declare(client, "q", durable=durable)
    made = fill(client, "q", 0, 600, lasts=durable)
    other = site.connect()
    other.tell(Basic.Consume, queue="q", consumer_tag="all")
    site.settle_down()
    assert other.bodies() == made
    if end == "nack":
        other.tell(Basic.Cancel, consumer_tag="all")
        other.tell(Basic.Nack, delivery_tag=0, multiple=True, requeue=True)
    elif end == "channel":
        other.tell(Channel.Close, reply_code=200, reply_text="")
    else:
        other.connection.receive_eof()
        site.collect()
    site.settle_down()
    assert queue.messages_ready == 600
    client.tell(Basic.Consume, 2, queue="q", no_ack=True)
    site.settle_down()
    got = [item for item in client.read(2) if item.kind is Basic.Deliver]
    assert [item.body for item in got] == made
    assert all(item.method.redelivered for item in got)
    assert site.broker.memory_used == 0


def test_get_waits_for_a_message_that_came_back(site: DurableSite, client: Client) -> None:
    declare(client, "q", durable=False)
    made = fill(client, "q", 0, 600, lasts=False)
    client.tell(Basic.Consume, 2, queue="q", consumer_tag="all")
    site.settle_down()
    client.tell(Basic.Cancel, 2, consumer_tag="all")
    client.tell(Basic.Nack, 2, delivery_tag=0, multiple=True, requeue=True)
    client.read()
    got = []
    for _ in range(600):
        client.tell(Basic.Get, queue="q")
        site.settle_down()
        got += client.bodies()
    assert got == made


@pytest.mark.parametrize("method", [Queue.Purge, Queue.Delete])
def test_queue_is_emptied_while_what_came_back_is_read(
    site: DurableSite, client: Client, method: Any
) -> None:
    declare(client, "q", durable=True)
    fill(client, "q", 0, 600, lasts=True)
    client.tell(Basic.Consume, 2, queue="q", consumer_tag="all")
    site.settle_down()
    client.tell(Basic.Cancel, 2, consumer_tag="all")
    client.tell(Basic.Nack, 2, delivery_tag=0, multiple=True, requeue=True)
    client.read()
    waiting = site.connect()
    # The first ones are in memory.
    gone = -1
    while not site.log.reads:
        gone += 1
        waiting.tell(Basic.Get, queue="q", no_ack=True)
    waiting.read()
    client.tell(method, queue="q")
    site.settle_down()
    [answer] = client.read()
    assert answer.method.message_count == 600 - gone
    assert site.broker.memory_used == 0
    [item] = waiting.read()
    assert item.kind is (Basic.GetEmpty if method is Queue.Purge else Channel.Close)
    assert site.journal.batches.live_bytes == sum(
        len(octets) for octets, _ in site.journal.definitions.values()
    )


def test_content_that_came_back_and_cannot_be_read_is_tried_again(
    site: DurableSite, client: Client
) -> None:
    queue = declare(client, "q", durable=True)
    made = fill(client, "q", 0, 600, lasts=True)
    other = site.connect()
    other.tell(Basic.Consume, queue="q")
    site.settle_down()
    other.connection.receive_eof()
    site.collect()
    client.tell(Basic.Consume, 2, queue="q", no_ack=True)
    assert site.log.reads
    site.log.answer(1, fail=True)
    assert 500 < queue.messages_ready < 600
    queue.touch()
    site.broker.run_deliveries()
    site.settle_down()
    assert client.bodies(2) == made


def test_get_reads_what_it_needs_however_short_memory_is(site: DurableSite, client: Client) -> None:
    declare(client, "q", durable=False)
    made = fill(client, "q", 0, 400, lasts=False)
    got = []
    for _ in range(400):
        client.tell(Basic.Get, queue="q")
        site.settle_down()
        got += client.bodies()
    assert got == made


def test_full_scratch_log_pauses_publishers(site: DurableSite, client: Client) -> None:
    declare(client, "q", durable=False)
    made = fill(client, "q", 0, 200, lasts=False)
    scratch(site).become(LogState.FULL)
    scratch(site).tell(1)
    client.feed(publish_octets(b"waits"))
    [blocked] = client.read()
    assert isinstance(blocked.method, commands.Connection.Blocked)
    scratch(site).become(LogState.OPEN)
    site.settle_down()
    assert [type(r.method) for r in client.read()] == [commands.Connection.Unblocked]
    assert consume(client, "q") == [*made, b"waits"]


def test_failed_scratch_log_leaves_messages_in_memory(site: DurableSite, client: Client) -> None:
    declare(client, "q", durable=False)
    made = fill(client, "q", 0, 100, lasts=False)
    scratch(site).become(LogState.FAILED)
    scratch(site).tell(1)
    made += fill(client, "q", 100, 20, lasts=False)
    assert consume(client, "q") == made


def test_messages_make_room_for_the_index(site: DurableSite, client: Client) -> None:
    declare(client, "q", durable=True)
    fill(client, "q", 0, 40, lasts=True)
    before = site.broker.memory_used
    assert before > LIMIT // 3
    site.journal.grow_index(LIMIT // 2)
    fill(client, "q", 40, 1, lasts=True)
    assert site.broker.memory_used < before // 2
    site.journal.grow_index(-LIMIT // 2)
    fill(client, "q", 41, 40, lasts=True)
    assert site.broker.memory_used > LIMIT // 3


def test_index_of_what_is_paged_out_counts_as_memory(site: DurableSite, client: Client) -> None:
    declare(client, "q", durable=True)
    for number in range(1000):
        client.feed(publish_octets(b"", key="q", **PERSISTENT))
        if number % 10 == 0:
            site.settle_down()
        if site.broker.blocked:
            break
    used = site.broker.memory_used + sum(each.index_bytes for each in site.broker.journals)
    assert site.broker.blocked
    assert site.broker.journal is not None
    assert site.broker.journal.index_bytes > LIMIT // 2
    assert used > LIMIT


def test_message_that_was_settled_between_others_does_not_end_paging(
    site: DurableSite, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a restart a short queue is read as a whole, with a gap in it."""
    declare(client, "q", durable=True)
    made = bodies(0, 60)
    client.feed(b"".join(publish_octets(body, key="q", **PERSISTENT) for body in made))
    site.settle_down()
    client.tell(Basic.Consume, 2, queue="q")
    site.settle_down()
    client.tell(Basic.Ack, 2, delivery_tag=31)
    site.settle_down()
    del made[30]
    monkeypatch.setattr(reading, "FETCH_BYTES", 100_000)
    monkeypatch.setattr(paging, "HEAD_BYTES", 25_000)
    site = DurableSite(site.log.crashed(), memory=LIMIT)
    client = site.connect(channels=2)
    client.tell(Basic.Get, 1, queue="q")
    site.settle_down()
    monkeypatch.setattr(paging, "HEAD_BYTES", HEAD)
    made += fill(client, "q", 60, 300, lasts=True)
    assert not site.broker.blocked
    assert site.broker.memory_used < LIMIT
    assert consume(client, "q") == made[1:]

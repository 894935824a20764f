"""What must be kept, whatever else goes on: each of these was lost, or stood still, once."""

from __future__ import annotations

from typing import Any

import pytest

from broker.core import cleaner, paging, reading
from broker.core.journal import Journal
from broker.storage.log import LogState
from tests.durable.sim_log import SimLog
from tests.durable.site import PERSISTENT, DurableSite, publish_persistent
from tests.protocol.client import Basic, Client, Exchange, Queue, octets_of, publish_octets

LIMIT = 40_000


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "HEAD_BYTES", 1_000)
    monkeypatch.setattr(paging, "HEAD_BYTES_MIN", 100)
    monkeypatch.setattr(paging, "RECORD_BYTES", 2_000)
    monkeypatch.setattr(reading, "FETCH_BYTES", 2_000)


def ask(site: DurableSite, client: Client, kind: Any, **arguments: Any) -> None:
    client.tell(kind, **arguments)
    site.settle_down()
    client.read()


def fill(client: Client, count: int, first: int = 0, *, lasts: bool) -> list[bytes]:
    made = [b"%06d" % number + b"x" * 94 for number in range(first, first + count)]
    kind: dict[str, Any] = PERSISTENT if lasts else {}
    client.feed(b"".join(publish_octets(body, **kind) for body in made))
    return made


def test_small_messages_for_very_many_queues_are_wanted_in_their_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each counts for less than an octet of the record, which is not nothing."""
    monkeypatch.setattr(cleaner, "SLACK", 5_000)
    monkeypatch.setattr(cleaner, "STEP", 4_000)
    site = DurableSite()
    client = site.connect()
    ask(site, client, Exchange.Declare, exchange="f", exchange_type="fanout", durable=True)
    for name in (f"q{number}" for number in range(60)):
        ask(site, client, Queue.Declare, queue=name, durable=True)
        ask(site, client, Queue.Bind, queue=name, exchange="f", routing_key="")
    ask(site, client, Queue.Declare, queue="other", durable=True)
    publish_persistent(client, *[b"%d" % number for number in range(60)], exchange="f")
    site.settle_down()
    stored = site.log.next
    for _ in range(60):
        publish_persistent(client, b"x" * 1000, key="other")
        site.settle_down()
        ask(site, client, Basic.Get, queue="other", no_ack=True)
    assert site.log.first > stored
    site = site.crash()
    assert [site.vhost.queues[f"q{number}"].messages_ready for number in range(60)] == [60] * 60


def test_purge_leaves_what_is_unacknowledged_while_nothing_can_be_paged_out() -> None:
    site = DurableSite(memory=LIMIT)
    site.broker.pager.open_scratch = lambda: None
    client = site.connect()
    ask(site, client, Queue.Declare, queue="q", durable=True)
    fill(client, 3, lasts=True)
    site.settle_down()
    fill(client, 60, 10, lasts=False)
    for _ in range(3):
        ask(site, client, Basic.Get, queue="q")
    ask(site, client, Queue.Purge, queue="q")
    assert site.vhost.queues["q"].messages == 3
    assert site.crash().vhost.queues["q"].messages_ready == 3


def test_get_behind_an_answer_of_the_same_batch_is_answered() -> None:
    """It waits for a batch that has just become durable."""
    site = DurableSite()
    other = site.connect()
    ask(site, other, Queue.Declare, queue="q", durable=True)
    publish_persistent(other, b"one", b"two")
    site.settle_down()
    for _ in range(2):
        publish_persistent(other, b"more")
    client = site.connect()
    declare = octets_of(Queue.Declare, queue="x", durable=True)
    client.feed(declare + octets_of(Basic.Get, queue="q"))
    other.feed(octets_of(Basic.Get, queue="q"))
    site.settle_down()
    assert [item.kind for item in client.read()] == [Queue.DeclareOk, Basic.GetOk]
    assert [item.kind for item in other.read()] == [Basic.GetOk]


def test_message_that_was_not_durable_when_its_log_failed_comes_back() -> None:
    site = DurableSite(memory=LIMIT)
    client = site.connect(channels=2)
    ask(site, client, Queue.Declare, queue="q", durable=True)
    client.tell(Basic.Consume, 2, queue="q", consumer_tag="c")
    fill(client, 1, lasts=True)
    site.settle_down()
    site.broker.pager.mark = 1
    made = fill(client, 1, 1, lasts=True)
    assert client.bodies(2)[1:] == made
    site.log.become(LogState.FAILED)
    site.log.tell(9)
    client.tell(Basic.Cancel, 2, consumer_tag="c")
    client.tell(Basic.Nack, 2, delivery_tag=2, requeue=True)
    made += fill(client, 5, 2, lasts=False)
    client.read()
    client.tell(Basic.Consume, 2, queue="q", no_ack=True)
    site.settle_down()
    assert client.bodies(2) == made


def test_next_messages_are_read_before_the_last_one_has_gone() -> None:
    site = DurableSite(memory=LIMIT)
    client = site.connect(channels=2)
    ask(site, client, Queue.Declare, queue="q", durable=True)
    for turn in range(30):
        fill(client, 10, turn * 10, lasts=True)
        site.settle_down()
    queue = site.vhost.queues["q"]
    client.tell(Basic.Qos, 2, prefetch_count=1)
    client.tell(Basic.Consume, 2, queue="q")
    site.settle_down()
    for tag in range(1, 101):
        client.tell(Basic.Ack, 2, delivery_tag=tag)
        if site.log.reads:
            break
    assert site.log.reads
    assert queue.ready


def test_record_is_read_once_for_all_its_messages_that_came_back() -> None:
    site = DurableSite(memory=LIMIT)
    client = site.connect(channels=2)
    ask(site, client, Queue.Declare, queue="q", durable=True)
    made = fill(client, 200, lasts=True)
    site.settle_down()
    site.broker.pager.mark = 1
    client.tell(Basic.Consume, 2, queue="q", consumer_tag="c")
    site.settle_down()
    client.tell(Basic.Cancel, 2, consumer_tag="c")
    client.tell(Basic.Nack, 2, delivery_tag=0, multiple=True, requeue=True)
    client.read()
    client.tell(Basic.Consume, 2, queue="q", no_ack=True)
    [(locations, _, _)] = site.log.reads
    assert len(locations) == 1
    site.log.answer(1)
    assert client.bodies(2) == made


def test_messages_that_came_back_from_the_same_place_of_two_logs_are_told_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(paging, "MARK_SHARE", 0.001)
    monkeypatch.setattr(paging, "MARK_SHARE_MIN", 0.001)
    site = DurableSite(memory=LIMIT)
    client = site.connect(channels=2)
    ask(site, client, Queue.Declare, queue="q", durable=True)
    scratch_log = SimLog(first=site.journal.position)
    scratch = Journal(scratch_log, is_scratch=True)
    scratch.on_progress = site.journal.on_progress
    site.logs.append(scratch_log)
    site.broker.pager.open_scratch = lambda: scratch
    made = fill(client, 10, lasts=True)
    site.settle_down()
    made += fill(client, 70, first=10, lasts=False)
    site.settle_down()
    client.tell(Basic.Consume, 2, queue="q", consumer_tag="c")
    site.settle_down()
    client.tell(Basic.Cancel, 2, consumer_tag="c")
    client.tell(Basic.Nack, 2, delivery_tag=0, multiple=True, requeue=True)
    site.settle_down()
    client.read()
    stored = [store.stored.runs_from(0) for store in site.vhost.queues["q"].stores]
    places = [[(run.position, run.offset) for run in runs] for runs in stored]
    assert places[0][0] == places[1][0]
    client.tell(Basic.Consume, 2, queue="q", no_ack=True)
    site.settle_down()
    assert client.bodies(2) == made

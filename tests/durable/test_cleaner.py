"""The start of a log goes: what it said of the numbers of queues is said again, but not more."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from broker.core import cleaner, paging, records
from broker.core.lasting import AHEAD, Lasting
from broker.core.records import Kind
from tests.durable.sim_log import SimLog
from tests.durable.site import DurableSite, publish_persistent
from tests.protocol.client import Basic, Client, Queue

RESTARTS: list[Callable[[DurableSite], DurableSite]] = [DurableSite.crash, DurableSite.stop]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleaner, "SLACK", 400)
    monkeypatch.setattr(cleaner, "STEP", 300)


def declare(client: Client, name: str, *, durable: bool = True) -> None:
    client.tell(Queue.Declare, queue=name, durable=durable)
    assert isinstance(client.site, DurableSite)
    client.site.settle_down()
    client.read()


def start(*names: str) -> tuple[DurableSite, Client]:
    """A broker with these durable queues, and one that `push` uses."""
    site = DurableSite()
    client = site.connect()
    for name in (*names, "other"):
        declare(client, name)
    return site, client


def push(site: DurableSite) -> None:
    """The log lets all go that is in it now."""
    client = site.connect()
    stop = site.log.next
    for _ in range(100):
        publish_persistent(client, b"x" * 300, key="other")
        client.tell(Queue.Purge, queue="other")
        site.settle_down()
        if site.log.first >= stop:
            return
    raise AssertionError(f"the log begins at {site.log.first}, not at {stop}")


def counted(log: SimLog, queue_id: int, first: int = 0) -> list[tuple[int, int]]:
    """(next number, highest delivered one) of a queue in all counters records from a batch on."""
    return [
        (next_number, delivered_to)
        for position, batch in enumerate(log.batches, log.first)
        for kind, at, _ in records.each(batch)
        if kind == Kind.COUNTERS and position >= first
        for name, next_number, delivered_to in records.read_counters(batch, at)
        if name == queue_id
    ]


def lasting_of(site: DurableSite, name: str) -> Lasting:
    lasting = site.vhost.queues[name].lasting
    assert lasting is not None
    return lasting


def test_log_of_many_queues_that_are_all_empty_is_cleaned_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a step writes about them may be more than what it frees."""
    monkeypatch.setattr(cleaner, "SLACK", 1 << 30)
    site, client = start()
    for number in range(60):
        declare(client, f"q{number}")
        publish_persistent(client, b"x", key=f"q{number}")
        client.tell(Basic.Get, queue=f"q{number}", no_ack=True)
        site.settle_down()
    monkeypatch.setattr(cleaner, "SLACK", 1000)
    batches = site.journal.batches
    live = batches.live_bytes
    site.collect()
    steps = 0
    while site.step():
        steps += 1
        assert steps < 400, "it goes on for ever"
    assert batches.total_bytes <= 2 * batches.live_bytes + cleaner.SLACK
    assert batches.live_bytes == live
    site = site.crash()
    assert {lasting_of(site, f"q{number}").next_number for number in range(60)} == {2}


@pytest.mark.parametrize("restart", RESTARTS)
def test_queue_knows_its_numbers_when_all_that_said_so_is_gone(
    restart: Callable[[DurableSite], DurableSite],
) -> None:
    site, client = start("q")
    publish_persistent(client, b"1", b"2", b"3")
    site.settle_down()
    client.tell(Queue.Purge, queue="q")
    for _ in range(3):
        push(site)
        site = restart(site)
        assert lasting_of(site, "q").next_number == 4
        assert site.vhost.queues["q"].next_number == 4


@pytest.mark.parametrize("restart", RESTARTS)
def test_message_is_marked_as_redelivered_when_the_record_that_it_was_delivered_is_gone(
    restart: Callable[[DurableSite], DurableSite],
) -> None:
    site, client = start("q")
    publish_persistent(client, b"1", b"2")
    site.settle_down()
    client.tell(Basic.Get, queue="q")
    site.settle_down()
    for _ in range(3):
        push(site)
        site = restart(site)
    client = site.connect()
    client.tell(Basic.Get, queue="q")
    site.settle_down()
    [answer] = client.read()
    assert (answer.body, answer.method.redelivered) == (b"1", True)


def test_message_is_marked_as_redelivered_though_nothing_was_stored_when_it_was_reserved() -> None:
    """Transient messages of a durable queue have numbers too."""
    site, client = start("q")
    client.publish(b"1", key="q")
    client.tell(Basic.Get, queue="q", no_ack=True)
    site.settle_down()
    lasting = lasting_of(site, "q")
    assert (lasting.next_number, lasting.reserved_to) == (1, 1 + AHEAD)
    push(site)
    publish_persistent(client, b"2")
    site.settle_down()
    client.tell(Basic.Get, queue="q")
    site.settle_down()
    site = site.crash()
    client = site.connect()
    client.tell(Basic.Get, queue="q")
    site.settle_down()
    [answer] = client.read()
    assert (answer.body, answer.method.redelivered) == (b"2", True)


def test_numbers_are_written_once_for_each_time_the_log_goes_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site, client = start("q", "unused")
    publish_persistent(client, b"1")
    client.tell(Queue.Purge, queue="q")
    site.settle_down()
    queue_id, unused = lasting_of(site, "q").id, lasting_of(site, "unused").id
    push(site)
    for _ in range(3):
        [numbers] = counted(site.log, queue_id)
        assert numbers[0] == 2
        assert counted(site.log, unused) == []
        # Before that record is gone too, there is no other, also after a start.
        site = site.crash()
        monkeypatch.setattr(cleaner, "STEP", 1)
        client = site.connect()
        at = lasting_of(site, "q").counted_at
        while site.journal.batches.first <= at:
            assert lasting_of(site, "q").counted_at == at
            assert len(counted(site.log, queue_id)) == 1
            publish_persistent(client, b"x" * 300, key="other")
            client.tell(Queue.Purge, queue="other")
            site.step()
        assert lasting_of(site, "q").counted_at > at
        push(site)


def test_queue_that_is_new_is_not_counted_while_all_that_it_wrote_is_there() -> None:
    site, client = start()
    push(site)
    declare(client, "new")
    publish_persistent(client, b"1", key="new")
    site.settle_down()
    lasting = lasting_of(site, "new")
    began = lasting.counted_at
    while site.journal.batches.first <= began:
        assert counted(site.log, lasting.id) == []
        publish_persistent(client, b"x" * 300, key="other")
        client.tell(Queue.Purge, queue="other")
        site.step()
    push(site)
    assert lasting_of(site.crash(), "new").next_number == 2


def test_scratch_log_has_no_counters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody ever reads them."""
    monkeypatch.setattr(paging, "HEAD_BYTES", 1000)
    monkeypatch.setattr(paging, "HEAD_BYTES_MIN", 100)
    site = DurableSite(memory=20_000)
    client = site.connect()
    declare(client, "q", durable=False)
    for _ in range(5):
        for _ in range(100):
            client.publish(b"x" * 100, key="q")
            site.settle_down()
        client.tell(Queue.Purge, queue="q")
        site.settle_down()
    scratch = site.broker.pager.scratch
    assert scratch is not None
    log = scratch.log
    assert isinstance(log, SimLog)
    assert log.first > 3, "nothing was cleaned"
    [lasting] = scratch.queues.values()
    assert lasting.next_number > 100
    assert counted(log, lasting.id) == []

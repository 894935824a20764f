"""The start of a log goes: what it said of the numbers of queues is said again, but not more."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from broker.core import cleaner, paging, records
from broker.core.cleaner import Cleaner
from broker.core.lasting import AHEAD, Lasting
from broker.core.records import Kind
from broker.storage.log import LogState
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


def churn(site: DurableSite, client: Client, name: str = "other") -> None:
    """A message comes and goes."""
    publish_persistent(client, b"x" * 300, key=name)
    client.tell(Queue.Purge, queue=name)
    site.settle_down()


def push(site: DurableSite) -> None:
    """The log lets all go that is in it now."""
    client = site.connect()
    stop = site.log.next
    for _ in range(100):
        churn(site, client)
        if site.log.first >= stop:
            return
    raise AssertionError(f"the log begins at {site.log.first}, not at {stop}")


def counted(log: SimLog, queue_id: int) -> list[tuple[int, int]]:
    """(batch, next number) of all counters records of a queue."""
    return [
        (position, next_number)
        for position, batch in enumerate(log.batches, log.first)
        for kind, at, _ in records.each(batch)
        if kind == Kind.COUNTERS
        for name, next_number, _ in records.read_counters(batch, at)
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


def test_numbers_are_written_once_for_each_time_the_log_goes_round() -> None:
    site, client = start("q", "unused")
    queue_id, unused = lasting_of(site, "q").id, lasting_of(site, "unused").id
    for _ in range(4):
        # It has records everywhere.
        while site.log.first < 4 or not counted(site.log, queue_id):
            churn(site, client, "q")
        [(at, next_number)] = counted(site.log, queue_id)
        assert counted(site.log, unused) == []
        # Before that record is gone too, there is no other, also after a start.
        site = site.crash()
        client = site.connect()
        assert site.log.first < at
        while (first := site.journal.batches.first) <= at:
            assert counted(site.log, queue_id) == [(at, next_number)], first
            churn(site, client, "q")
        site.settle_down()


def test_queue_that_is_new_is_not_counted_while_all_that_it_wrote_is_there() -> None:
    site, client = start()
    for _ in range(4):
        push(site)
        # The others are counted before it is there, and again before what it wrote is gone.
        declare(client, "new")
        lasting = lasting_of(site, "new")
        publish_persistent(client, b"1", key="new")
        client.tell(Queue.Purge, queue="new")
        began = lasting.counted_at
        assert site.journal.batches.first < began
        while site.journal.batches.first <= began:
            assert counted(site.log, lasting.id) == []
            churn(site, client)
        push(site)
        assert [next_number for _, next_number in counted(site.log, lasting.id)] == [2]
        client.tell(Queue.Delete, queue="new")
        site.settle_down()


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


def partly_wanted(monkeypatch: pytest.MonkeyPatch) -> tuple[DurableSite, Client]:
    """A log of which every other message is wanted, and that need not be cleaned for that: these
    are a third of it."""
    monkeypatch.setattr(cleaner, "SLACK", 1 << 30)
    site, client = start("kept")
    for _ in range(6):
        publish_persistent(client, b"y" * 700, key="other")
        publish_persistent(client, b"x" * 300, key="kept")
        site.settle_down()
    client.tell(Queue.Purge, queue="other")
    site.settle_down()
    assert site.log.first == 1
    return site, client


def become_full(site: DurableSite, room: int) -> None:
    """The disk has room for so many batches, each of which may have 1 KiB."""
    site.log.become(LogState.FULL, room)
    site.settle_down()


def test_full_log_is_cleaned_for_what_comes_back_however_much_is_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site, _ = partly_wanted(monkeypatch)
    while site.log.first < 7:
        stop = site.log.oldest.stop
        become_full(site, room=4)
        assert site.log.first >= stop
        site.log.become(LogState.OPEN)
        site.settle_down()
    site = site.crash()
    assert site.vhost.queues["kept"].messages_ready == 6
    assert site.vhost.queues["other"].messages_ready == 0


def test_full_log_is_not_cleaned_where_that_would_take_the_room_of_settlements(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What does not fit frees nothing."""
    site, _ = partly_wanted(monkeypatch)
    monkeypatch.setattr(cleaner, "STEP", 1000)
    next_batch = site.log.next
    become_full(site, room=1)
    assert (site.log.first, site.log.next) == (1, next_batch)
    become_full(site, room=2)
    assert site.log.first > 1


def test_full_log_is_not_cleaned_where_nothing_would_come_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All of it is wanted: it would be stored anew again and again."""
    monkeypatch.setattr(cleaner, "SLACK", 0)
    site, client = start()
    for _ in range(9):
        publish_persistent(client, b"x" * 300, key="other")
        site.settle_down()
    for _ in range(3):
        become_full(site, room=100)
        site.log.become(LogState.OPEN)
        site.settle_down()
    assert site.log.next < 20


def test_full_log_is_cleaned_to_the_end_though_nothing_else_happens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A step that found nothing that is wanted was the last one, until somebody did something."""
    site, _ = partly_wanted(monkeypatch)
    monkeypatch.setattr(cleaner, "STEP", 1)
    site.log.become(LogState.FULL, 4)
    while site.log.told or site.log.reads or site.log.can_work:
        site.log.work(1)
        site.log.tell(1)
        site.log.answer(1)
    assert site.log.first == 5


def test_log_of_which_nothing_is_wanted_is_cleaned_though_nobody_does_anything() -> None:
    site = DurableSite()
    client = site.connect()
    declare(client, "q")
    for _ in range(40):
        publish_persistent(client, b"x" * 200)
        site.settle_down()
    client.tell(Queue.Purge, queue="q")
    site.settle_down()
    assert site.log.size_bytes < 1000


def test_step_is_shorter_where_much_is_stored_anew_and_grows_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cleaner, "STEP", 1000)
    monkeypatch.setattr(cleaner, "STEP_MIN", 100)
    step = Cleaner(DurableSite().journal)
    for _ in range(5):
        step._set_step(1)
    assert step._step == 1000
    step._set_step(cleaner.STEP_RUNS * 4)
    assert step._step == 250
    step._set_step(cleaner.STEP_RUNS * 10)
    assert step._step == 100
    step._set_step(0)
    assert step._step == 200
    for _ in range(5):
        step._set_step(1)
    assert step._step == 1000

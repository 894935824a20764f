"""What is in a log alone and due soon is read before it is due."""

from __future__ import annotations

import pytest

from broker.core import foreseen, paging
from broker.core.deadlines import NEAR_MS
from broker.core.queue import Queue as CoreQueue
from tests.durable.site import DurableSite
from tests.durable.test_delayed import declare as declare_delayed
from tests.durable.test_delayed import delay, store
from tests.durable.test_dying import NOW, declare, expiring, left, wait
from tests.protocol.client import Basic, Client, Queue, publish_octets

DUE = NOW + 20 * NEAR_MS
"""When the first of the messages that are looked at are due."""
BODIES = [b"%06d" % place + b"x" * 94 for place in range(400)]
SOON = BODIES[1:300:8]
"""These are due, one each millisecond; all others wait for an hour."""
KINDS = ["delayed", "letters"]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "HEAD_BYTES", 1_000)
    monkeypatch.setattr(paging, "HEAD_BYTES_MIN", 100)
    monkeypatch.setattr(paging, "RECORD_BYTES", 2_000)


def begin(kind: str = "delayed") -> tuple[DurableSite, Client, CoreQueue]:
    """Most messages are in a log alone: those that wait at an exchange until they go to q, or in q
    until they go to d as dead letters, or to nobody."""
    site = DurableSite(now=NOW, memory=80_000)
    client = site.connect()
    if kind == "delayed":
        declare_delayed(site, client)
    else:
        declare(site, client, letters=kind == "letters")
    for place, body in enumerate(BODIES):
        milliseconds = DUE - NOW + place // 8 if body in SOON else 3_600_000
        if kind == "delayed":
            delay(client, body, milliseconds)
        else:
            client.feed(publish_octets(body, **expiring(milliseconds)))
        site.settle_down()
    line = store(site) if kind == "delayed" else site.vhost.queues["q"]
    assert line.paged is not None
    assert line.paged.count > 300
    return site, client, line


def octets_of(line: CoreQueue) -> int:
    """Octets of memory of what was read before it is due."""
    assert line.expiry is not None
    return line.expiry._foreseen.octets


def arrived(site: DurableSite, kind: str) -> int:
    """How many messages are where they go when they are due."""
    return site.vhost.queues["q" if kind == "delayed" else "d"].messages_ready


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_read_before_needs_no_disk_when_it_is_due(kind: str) -> None:
    site, _, line = begin(kind)
    wait(site, DUE - NEAR_MS // 2)
    assert octets_of(line) > 100 * len(SOON) / 2
    count = arrived(site, kind)
    site.wait_until(DUE + 100)
    assert not site.log.reads
    assert arrived(site, kind) == count + len(SOON)
    assert octets_of(line) == 0
    site.settle_down()
    assert left(site, "q" if kind == "delayed" else "d") == SOON


@pytest.mark.parametrize("kind", KINDS)
def test_reading_begins_a_second_before_what_is_due_first(kind: str) -> None:
    site, _, line = begin(kind)
    site.wait_until(DUE - 3 * NEAR_MS)
    assert not site.log.reads
    site.wait_until(DUE - NEAR_MS)
    assert len(site.log.reads) == 1
    site.settle_down()
    assert octets_of(line) > 0


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_there_in_time_is_read_when_it_is_due(kind: str) -> None:
    site, _, line = begin(kind)
    site.wait_until(DUE + 100)
    site.settle_down()
    wait(site, DUE + 200)
    assert left(site, "q" if kind == "delayed" else "d") == SOON
    assert octets_of(line) == 0
    site.settle_down()
    assert not line.dying


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_read_before_is_read_when_it_is_due(kind: str) -> None:
    site, _, line = begin(kind)
    site.wait_until(DUE - NEAR_MS)
    site.reads_fail()
    assert octets_of(line) == 0
    site.try_again()
    site.settle_down()
    wait(site, DUE + 200)
    assert left(site, "q" if kind == "delayed" else "d") == SOON


def test_what_nobody_will_look_at_is_not_read() -> None:
    site, _, line = begin("nobody")
    wait(site, DUE + 100)
    assert octets_of(line) == 0
    assert line.messages_ready == len(BODIES) - len(SOON)


@pytest.mark.parametrize("kind", KINDS)
def test_it_has_little_room_and_is_read_as_there_is_some(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreseen, "READ_AT_ONCE", 5)
    monkeypatch.setattr(foreseen, "ROOM_SHARE", 0.1)
    site, _, line = begin(kind)
    wait(site, DUE - 10)
    most = site.broker.pager.mark * 0.1 + 5 * 1000
    assert 0 < octets_of(line) < most
    for place in range(len(SOON) + 10):
        wait(site, DUE + place)
        assert octets_of(line) < most
    assert octets_of(line) == 0
    assert left(site, "q" if kind == "delayed" else "d") == SOON


def test_those_that_are_due_first_are_read_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreseen, "SORTED_AT_ONCE", 10)
    monkeypatch.setattr(foreseen, "READ_AT_ONCE", 10)
    site = DurableSite(now=NOW, memory=80_000)
    client = site.connect()
    declare_delayed(site, client)
    for place, body in enumerate(BODIES):
        # The last ones are due first.
        delay(client, body, DUE - NOW + len(BODIES) - place)
        site.settle_down()
    line = store(site)
    assert line.paged is not None
    assert line.expiry is not None
    site.wait_until(DUE - NEAR_MS)
    site.log.answer(1)
    stop = line.paged.stop
    assert set(line.expiry._foreseen._contents) >= set(range(stop - 10, stop))


def test_a_message_that_leaves_before_it_is_due_leaves_nothing_here() -> None:
    site, client, line = begin("letters")
    wait(site, DUE - NEAR_MS // 2)
    assert octets_of(line) > 0
    client.tell(Basic.Consume, queue="q", consumer_tag="c", no_ack=True)
    site.settle_down()
    assert sorted(client.bodies()) == BODIES
    wait(site, DUE + 100)
    assert (octets_of(line), arrived(site, "letters")) == (0, 0)
    site.settle_down()
    assert line.expiry is not None
    assert site.broker.memory_used == line.expiry.octets


@pytest.mark.parametrize("is_read", [True, False])
@pytest.mark.parametrize("is_deleted", [True, False])
def test_a_purge_forgets_it(is_read: bool, is_deleted: bool) -> None:
    """Also while it is being read."""
    site, client, line = begin("letters")
    site.wait_until(DUE - NEAR_MS // 2)
    if is_read:
        site.settle_down()
    else:
        assert site.log.reads
    if is_deleted:
        client.tell(Queue.Delete, queue="q")
    else:
        client.tell(Queue.Purge, queue="q")
    site.settle_down()
    wait(site, DUE + 100)
    assert octets_of(line) == 0
    assert arrived(site, "letters") == 0
    assert site.broker.memory_used == 0


def test_a_delayed_message_that_was_read_can_be_cancelled_and_sent_now() -> None:
    site, _, _ = begin()
    wait(site, DUE - NEAR_MS // 2)
    line = store(site)
    assert line.cancel(2)
    assert line.send_now(10)
    site.settle_down()
    assert left(site, "q") == [SOON[1]]
    wait(site, DUE + 100)
    assert left(site, "q") == SOON[2:]
    assert octets_of(line) == 0


def test_it_counts_as_memory() -> None:
    site, _, line = begin()
    wait(site, DUE - NEAR_MS // 2)
    line.touch()
    site.broker.run_deliveries()
    octets, used = octets_of(line), site.broker.memory_used
    assert octets > 0
    assert line.expiry is not None
    line.expiry._foreseen.clear()
    line.touch()
    site.broker.run_deliveries()
    assert site.broker.memory_used == used - octets

"""What is in a log alone and due soon is read before it is due."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core import foreseen, paging
from broker.core.deadlines import NEAR_MS
from broker.core.message import MESSAGE_OVERHEAD
from broker.core.queue import Queue as CoreQueue
from tests.durable.site import DurableSite
from tests.durable.test_delayed import declare as declare_delayed
from tests.durable.test_delayed import delay, store
from tests.durable.test_dying import NOW, declare, expiring, left, wait
from tests.protocol.client import Basic, Client, Queue, publish_octets
from tests.wire.profiles import examples

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
    monkeypatch.setattr(foreseen, "ROOM_SHARE", 1)


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
    read = [number for number, message in line.expiry._foreseen._contents.items() if message]
    assert len(read) == 10
    assert min(read) >= line.paged.stop - foreseen.WINDOW_MS


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


def test_a_message_with_two_deadlines_is_read_and_counted_once() -> None:
    """It came back, so that it is known twice when it is due."""
    site, _, line = begin("letters")
    assert line.expiry is not None
    assert line.paged is not None
    first = line.paged.first
    for number in range(first, first + 8):
        for _ in range(2):
            line.expiry._deadlines.add(DUE + 50, number, site.broker.timers.now)
    wait(site, DUE - 10)
    kept = line.expiry._foreseen
    read = [message[0] for message in kept._contents.values() if message is not None]
    assert len(read) > 8
    assert kept._coming.count == 0
    assert octets_of(line) == sum(map(len, read)) + MESSAGE_OVERHEAD * len(read)
    wait(site, DUE + 100)
    assert octets_of(line) == 0


def test_many_octets_are_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreseen, "READ_BYTES", 1000)
    site, _, line = begin()
    site.wait_until(DUE - NEAR_MS)
    sizes: list[int] = []
    while site.log.reads:
        sizes.append(sum(size for _, _, size in site.log.reads[0][0]))
        site.log.answer(1)
    assert len(sizes) > 5
    assert max(sizes) <= 1000
    assert octets_of(line) > 100 * len(SOON)


def test_what_is_larger_than_its_room_is_read_when_it_is_due(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(foreseen, "ROOM_SHARE", 0.001)
    site, _, line = begin()
    site.wait_until(DUE - NEAR_MS)
    assert not site.log.reads
    wait(site, DUE + 100)
    assert left(site, "q") == SOON
    assert octets_of(line) == 0


def test_it_is_not_read_before_while_much_memory_is_used() -> None:
    site, _, line = begin()
    more = site.broker.pager.mark + site.broker.limits.memory // 4
    # Others have it.
    site.broker.memory_used += more
    wait(site, DUE - 10)
    assert line.expiry is not None
    assert not line.expiry._foreseen._contents
    wait(site, DUE + 100)
    site.broker.memory_used -= more
    assert left(site, "q") == SOON
    assert octets_of(line) == 0


def test_it_counts_as_memory_as_soon_as_it_is_there() -> None:
    site, _, line = begin()
    site.wait_until(DUE - NEAR_MS)
    octets, used = octets_of(line), site.broker.memory_used
    site.log.answer(len(site.log.reads))
    assert octets_of(line) > octets
    assert site.broker.memory_used - used == octets_of(line) - octets


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_read_in_time_is_not_remembered_for_ever(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreseen, "READ_AT_ONCE", 1)
    site, _, line = begin(kind)
    site.wait_until(DUE + 100)
    assert line.expiry is not None
    # A disk that answers once.
    site.log.answer(1)
    wait(site, DUE + 200)
    assert (line.expiry._foreseen._coming.count, octets_of(line)) == (0, 0)


def test_those_that_are_read_into_memory_are_not_remembered() -> None:
    site, client, line = begin("letters")
    site.wait_until(DUE - NEAR_MS)
    assert site.log.reads
    client.tell(Basic.Consume, queue="q", consumer_tag="c")
    site.settle_down()
    assert line.paged is None
    wait(site, DUE + 100)
    assert octets_of(line) == 0
    assert arrived(site, "letters") == 0


@pytest.mark.parametrize("kind", KINDS)
def test_without_letters_what_was_read_is_let_go(kind: str) -> None:
    """The queue has a dead-letter exchange no more; what is delayed is routed in any case."""
    site, _, line = begin(kind)
    wait(site, DUE - NEAR_MS // 2)
    line.follow(line.rules._replace(dead_letter_exchange=None))
    wait(site, DUE + 100)
    assert octets_of(line) == 0
    assert arrived(site, kind) == (len(SOON) if kind == "delayed" else 0)


pairs = st.tuples(st.integers(0, 2000), st.integers(0, 40))


@examples(200)
@given(
    st.lists(st.one_of(st.lists(pairs, max_size=30), st.integers(0, 400)), max_size=12),
    st.integers(0, 20),
)
def test_all_that_come_and_are_not_due_are_taken_the_first_ones_first(
    steps: list[list[tuple[int, int]] | int], least: int
) -> None:
    coming = foreseen._Coming()
    model: list[tuple[int, int]] = []
    now = 0
    for step in steps:
        if isinstance(step, int):
            now += step
            coming.forget(now)
        else:
            coming.add(step)
            model += step
        model = [pair for pair in model if pair[0] > now and pair[1] >= least]
        following = coming.next(now, least)
        assert (following is None) == (not model)
        if following is not None:
            assert following in model
            model.remove(following)
            coming.pop()
        assert coming.count >= len(model)
    while (following := coming.next(now, least)) is not None:
        model.remove(following)
        coming.pop()
    assert (model, coming.count) == ([], 0)


def test_few_are_sorted_at_once_however_many_come() -> None:
    coming = foreseen._Coming()
    count = 5 * foreseen.SORTED_AT_ONCE
    coming.add([(1000 + place * 7919 % 40, place * 104_729 % count) for place in range(count)])
    taken: list[tuple[int, int]] = []
    while (following := coming.next(0, 0)) is not None:
        coming.pop()
        assert len(coming._line[0]) < foreseen.SORTED_AT_ONCE
        taken.append(following)
    assert len({number for _, number in taken}) == count
    ends = [deadline // foreseen.WINDOW_MS for deadline, _ in taken]
    assert ends == sorted(ends)

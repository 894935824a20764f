"""Messages with times of their own that share a record: each of them goes its own way."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core import cleaner, records
from broker.core.expiring import JOINED_BYTES, JOINED_MAX, can_join
from broker.core.message import with_time
from broker.core.records import HEAD, Kind
from broker.errors import ReplyCode
from broker.wire.properties import DELIVERY_MODE, EXPIRATION
from tests.durable.site import PERSISTENT, DurableSite
from tests.durable.test_delayed import declare, later, listed, restarted, store
from tests.durable.test_dying import NOW, expiring, left, wait
from tests.durable.test_records import message, put
from tests.protocol.client import Basic, Client, Queue, is_close, publish_octets, text
from tests.wire.profiles import examples

TIMES = st.integers(0, 2**62)


def puts(site: DurableSite) -> int:
    """How many records of messages the log has."""
    return sum(
        kind == Kind.PUT
        for _, batch in site.log.crashed().replay()
        for kind, _, _ in records.each(batch)
    )


def delay_all(client: Client, delays: list[int], size: int = 0) -> None:
    """Publishes messages that wait in one chunk; their bodies say for how long."""
    client.feed(
        b"".join(
            publish_octets(b"%d" % each + b"x" * size, exchange="x", key="k", **later(each))
            for each in delays
        )
    )


def delayed_site(**limits: Any) -> tuple[DurableSite, Client]:
    site = DurableSite(now=NOW, **limits)
    client = site.connect()
    declare(site, client)
    return site, client


@examples(60)
@given(TIMES, st.lists(TIMES, min_size=1, max_size=5), st.integers(1, 3))
def test_messages_that_live_differently_long_come_back_as_they_were(
    published: int, ttls: list[int], targets: int
) -> None:
    content, size, origin, framing = message(b"body")
    messages = [(content, size, with_time(origin, published, ttl), framing) for ttl in ttls]
    batch = put([(number, 7) for number in range(targets)], messages) + b"behind"
    assert records.read_put(batch, HEAD.size).messages(batch) == messages
    _, count, expiring = records.read_put_targets(batch, HEAD.size)
    assert count == len(ttls)
    assert expiring is not None
    assert expiring[0] == published
    assert list(expiring[1]) in (ttls, ttls[:1] if len(set(ttls)) == 1 else ttls)


def test_format_of_joined_messages_is_as_it_was() -> None:
    content, size, origin, framing = message(b"hi", "x", "k")
    messages = [(content, size, with_time(origin, 7, ttl), framing) for ttl in (8, 9)]
    columns = "0700000000000000 0800000000000000 0900000000000000"
    assert put([(1, 2)], messages).endswith(bytes.fromhex(columns) + 2 * content)


def test_only_what_is_alike_but_for_its_time_to_live_is_joined() -> None:
    content, size, plain, framing = message(b"hi")
    first, second = ((content, size, with_time(plain, 7, ttl), framing) for ttl in (8, 9))
    assert can_join(first, second, 1)
    assert not can_join(first, second, JOINED_MAX)
    assert not can_join(first, (content, size, plain, framing), 1)
    assert not can_join((content, size, plain, framing), second, 1)
    assert not can_join(first, (content, size, with_time(plain, 8, 9), framing), 1)
    other = message(b"hi", key="other")[2]
    assert not can_join(first, (content, size, with_time(other, 7, 9), framing), 1)
    large, size, _, _ = message(b"x" * JOINED_BYTES, frame_max=2**20)
    assert not can_join(first, (large, size, second[2], framing), 1)


def test_delayed_messages_that_came_together_are_stored_together_and_due_alone() -> None:
    site, client = delayed_site()
    delays = [1000 + 7 * place % 40 for place in range(40)]
    delay_all(client, delays)
    site.settle_down()
    assert puts(site) == 3
    site = restarted(site)
    assert [each.due - NOW for each in listed(site)] == delays
    wait(site, NOW + 1019)
    assert left(site, "q") == [b"%d" % each for each in sorted(delays)[:20]]
    site = restarted(site)
    wait(site, NOW + 1040)
    assert left(site, "q") == [b"%d" % each for each in sorted(delays)[20:]]
    assert restarted(site).journal.batches.live_bytes < 500


def test_one_of_those_that_are_stored_together_is_cancelled_for_good() -> None:
    site, client = delayed_site()
    delay_all(client, [100, 200, 300, 400])
    site.settle_down()
    ids = [each.number for each in listed(site)]
    assert store(site).cancel(ids[1])
    assert store(site).send_now(ids[2])
    wait(site, NOW + 1)
    site = restarted(site)
    assert left(site, "q") == [b"300"]
    assert store(site).cancel(ids[0])
    wait(site, NOW + 2)
    site = restarted(site)
    wait(site, NOW + 1000)
    assert left(site, "q") == [b"400"]


def test_what_is_left_of_a_record_is_stored_anew_with_its_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cleaner, "SLACK", 0)
    site, client = delayed_site()
    delay_all(client, list(range(1000, 1016)))
    site.settle_down()
    first = site.journal.batches.first
    for place in (3, 4, 9):
        assert store(site).cancel(listed(site)[0].number + place)
    client.tell(Basic.Consume, queue="q", consumer_tag="c", no_ack=True)
    for _ in range(200):
        client.feed(publish_octets(b"x" * 1000, key="q", **PERSISTENT))
        site.settle_down()
    assert site.journal.batches.first > first + 50
    site = restarted(site)
    due = [each.due - NOW - 1000 for each in listed(site)]
    assert due == [place for place in range(16) if place not in (3, 4, 9)]
    wait(site, NOW + 1007)
    site = restarted(site)
    wait(site, NOW + 2000)
    assert left(site, "q") == [b"%d" % (1000 + place) for place in due]


@pytest.mark.parametrize("lasts", [True, False])
def test_those_that_are_paged_out_together_are_read_when_each_is_due(lasts: bool) -> None:
    site, client = delayed_site(memory=80_000)
    client.tell(Basic.Consume, queue="q", consumer_tag="c", no_ack=True)
    site.settle_down()
    client.read()
    delays = [1000 + 77 * place % 400 for place in range(400)]
    for start in range(0, 400, 20):
        for each in delays[start : start + 20]:
            content = later(each, lasts=lasts)
            client.feed(publish_octets(b"%d" % each + b"x" * 90, exchange="x", key="k", **content))
        site.settle_down()
    assert store(site).paged is not None
    for stop in (1100, 1101, 1399):
        wait(site, NOW + stop)
    bodies = client.bodies()
    assert [int(body.rstrip(b"x")) for body in bodies] == sorted(delays)
    site.settle_down()
    assert site.broker.memory_used == 0


def test_expirations_that_came_together_are_stored_together_and_end_alone() -> None:
    site = DurableSite(now=NOW)
    client = site.connect()
    dead = {"x-dead-letter-exchange": text(""), "x-dead-letter-routing-key": text("dead")}
    client.tell(Queue.Declare, queue="dead", durable=True, arguments={})
    client.tell(Queue.Declare, queue="q", durable=True, arguments=dead)
    site.settle_down()
    client.read()
    before = puts(site)
    lives = [500, 100, 300, 300, 200, 60_000]
    client.feed(
        b"".join(publish_octets(b"%d" % each, **expiring(each)) for each in lives)
        + publish_octets(b"plain", **PERSISTENT)
        + publish_octets(b"100", **expiring(100))
    )
    site.settle_down()
    assert puts(site) == before + 3
    site = restarted(site)
    wait(site, NOW + 299)
    assert left(site, "dead") == [b"100", b"100", b"200"]
    site = restarted(site)
    wait(site, NOW + 500)
    assert left(site, "dead") == [b"300", b"300", b"500"]
    assert left(site, "q") == [b"60000", b"plain"]


def test_a_wrong_expiration_among_others_is_answered_where_it_stands() -> None:
    site = DurableSite(now=NOW)
    client = site.connect()
    client.tell(Queue.Declare, queue="q", durable=True, arguments={})
    site.settle_down()
    client.read()
    wrong: dict[str, Any] = {
        "flags": DELIVERY_MODE | EXPIRATION,
        "properties": b"\x02" + b"\x03abc",
    }
    client.feed(
        b"".join(publish_octets(body, **expiring(1000 + len(body))) for body in (b"1", b"22"))
        + publish_octets(b"3", **wrong)
        + publish_octets(b"4", **expiring(1000))
    )
    site.settle_down()
    [answer] = client.read()
    text_of = "invalid expiration 'abc': no_integer"
    assert is_close(answer.method, ReplyCode.PRECONDITION_FAILED, text_of, Basic.Publish)
    assert left(site, "q") == [b"1", b"22"]


@pytest.mark.parametrize("lasts", [True, False])
def test_those_that_expire_from_everywhere_in_a_log_die_in_order(lasts: bool) -> None:
    site = DurableSite(now=NOW, memory=400_000)
    client = site.connect()
    dead = {"x-dead-letter-exchange": text(""), "x-dead-letter-routing-key": text("dead")}
    client.tell(Queue.Declare, queue="dead", durable=True, arguments={})
    client.tell(Queue.Declare, queue="q", durable=True, arguments=dead)
    client.tell(Basic.Consume, queue="dead", consumer_tag="c", no_ack=True)
    site.settle_down()
    client.read()
    lives = [10_000 + 7 * place % 1500 for place in range(1500)]
    for start in range(0, len(lives), 50):
        for each in lives[start : start + 50]:
            client.feed(publish_octets(b"%d" % each + b"x" * 90, **expiring(each, lasts=lasts)))
        site.settle_down()
    queue = site.vhost.queues["q"]
    assert queue.paged is not None
    assert queue.paged.count > 500
    assert queue.messages_ready == 1500
    died: list[int] = []
    # Several slices of them at once, and some alone.
    for stop in (10_003, 11_300, 11_301, *range(11_600, 11_650)):
        wait(site, NOW + stop)
        died += [int(body.rstrip(b"x")) for body in client.bodies()]
        assert died == sorted(lives)[: len(died)]
        assert all(each <= stop for each in died)
    assert len(died) == len(lives)
    assert queue.messages_ready == 0
    assert not queue.dying
    site.settle_down()
    assert site.broker.memory_used == 0

"""Delayed messages over restarts, and those that are in a log alone."""

from __future__ import annotations

from typing import Any

import pytest

from broker.core import cleaner, delayed, paging
from broker.core.delayed import RELEASED_AT_ONCE, Delayed, Waiting
from broker.core.policies import Policy
from broker.storage.log import LogState
from broker.wire.properties import DELIVERY_MODE, HEADERS, headers_table
from broker.wire.table import Field, encode_table
from tests.durable.site import PERSISTENT, DurableSite
from tests.durable.test_dying import NOW, left, wait
from tests.protocol.client import Basic, Client, Confirm, Exchange, Queue, publish_octets, text
from tests.protocol.test_dead_letters import header_of
from tests.protocol.test_expiry import number


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "HEAD_BYTES", 1_000)
    monkeypatch.setattr(paging, "HEAD_BYTES_MIN", 100)
    monkeypatch.setattr(paging, "RECORD_BYTES", 2_000)


def declare(site: DurableSite, client: Client, *, lasts: bool = True) -> None:
    """A delayed exchange, and a durable queue."""
    client.tell(
        Exchange.Declare,
        exchange="x",
        exchange_type="x-delayed-message",
        durable=lasts,
        arguments={"x-delayed-type": text("direct")},
    )
    client.tell(Queue.Declare, queue="q", durable=True, arguments={})
    client.tell(Queue.Bind, queue="q", exchange="x", routing_key="k", arguments={})
    site.settle_down()
    client.read()


def later(milliseconds: int, *, lasts: bool = True, **headers: Field) -> dict[str, Any]:
    """The properties of a message."""
    table = encode_table({"x-delay": number(milliseconds), **headers})
    if lasts:
        return {"flags": HEADERS | DELIVERY_MODE, "properties": table + b"\x02"}
    return {"flags": HEADERS, "properties": table}


def delay(client: Client, body: bytes, milliseconds: int, **options: Any) -> None:
    """Publishes one that waits."""
    content = later(milliseconds, **options)
    client.feed(publish_octets(body, exchange="x", key="k", **content))


def store(site: DurableSite) -> Delayed:
    """Where it waits."""
    found = site.vhost.exchanges["x"].delayed
    assert found is not None
    return found


def listed(site: DurableSite, **arguments: Any) -> list[Waiting]:
    """What waits, read from the disk where it has to be."""
    pages: list[list[Waiting]] = []
    store(site).browse(pages.append, **arguments)
    site.settle_down()
    (page,) = pages
    return page


def restarted(site: DurableSite, *, clean: bool = False) -> DurableSite:
    """A stop and a start."""
    after = site.stop() if clean else site.crash()
    after.broker.run_deliveries()
    after.settle_down()
    return after


@pytest.mark.parametrize("clean", [True, False])
def test_delays_and_their_times_survive(clean: bool) -> None:
    site = DurableSite(now=NOW)
    client = site.connect()
    declare(site, client)
    for milliseconds in (500, 100, 300):
        delay(client, b"%d" % milliseconds, milliseconds)
    delay(client, b"transient", 100, lasts=False)
    site.settle_down()
    site.wait_until(NOW + 50)
    site = restarted(site, clean=clean)
    wait(site, NOW + 99)
    assert left(site, "q") == []
    wait(site, NOW + 100)
    assert left(site, "q") == [b"100"]
    site = restarted(site, clean=clean)
    wait(site, NOW + 1000)
    assert left(site, "q") == [b"300", b"500"]
    site = restarted(site, clean=clean)
    wait(site, NOW + 2000)
    assert left(site, "q") == []
    assert store(site).messages_ready == 0


def test_what_came_due_while_nothing_ran_is_routed_at_the_start() -> None:
    site = DurableSite(now=NOW)
    client = site.connect()
    declare(site, client)
    for milliseconds in (300, 100, 200, 5000):
        delay(client, b"%d" % milliseconds, milliseconds)
    site.settle_down()
    site = DurableSite(site.log.crashed(), NOW + 1000)
    site.broker.run_deliveries()
    site.settle_down()
    assert left(site, "q") == [b"100", b"200", b"300"]
    assert [each.due for each in listed(site)] == [NOW + 5000]


def test_a_publisher_is_confirmed_when_a_delayed_message_is_durable() -> None:
    site = DurableSite(now=NOW)
    client = site.connect()
    declare(site, client)
    client.tell(Confirm.Select)
    client.read()
    delay(client, b"1", 100)
    assert client.read() == []
    site.settle_down()
    assert [item.kind for item in client.read()] == [Basic.Ack]


def test_a_message_waits_or_is_in_its_queue_after_a_crash() -> None:
    """Whatever batch was the last one that the disk has."""
    site = DurableSite(now=NOW)
    client = site.connect()
    declare(site, client)
    for place in range(10):
        delay(client, b"%d" % place, 100 + place // 5)
    site.settle_down()
    site.wait_until(NOW + 100)
    site.wait_until(NOW + 101)
    for keep in range(4):
        after = DurableSite(site.log.crashed(keep), NOW)
        after.broker.run_deliveries()
        after.settle_down()
        there = left(after, "q")
        assert len(there) + store(after).messages_ready == 10
        wait(after, NOW + 200)
        assert sorted(there + left(after, "q")) == [b"%d" % place for place in range(10)]


@pytest.mark.parametrize("lasts", [True, False])
def test_what_waits_is_paged_out_and_comes_in_time(lasts: bool) -> None:
    site = DurableSite(now=NOW, memory=80_000)
    client = site.connect()
    declare(site, client)
    client.tell(Basic.Consume, queue="q", consumer_tag="c", no_ack=True)
    site.settle_down()
    client.read()
    bodies = [b"%06d" % place + b"x" * 94 for place in range(400)]
    # Not in the order in which they are due.
    times = [1000 + 7 * place % 400 for place in range(400)]
    for body, milliseconds in zip(bodies, times, strict=True):
        delay(client, body, milliseconds, lasts=lasts)
        site.settle_down()
    queue = store(site)
    assert queue.paged is not None
    assert queue.paged.count > 200
    assert queue.messages_ready == 400
    in_order = [body for _, body in sorted(zip(times, bodies, strict=True))]
    wait(site, NOW + 1199)
    assert client.bodies() == in_order[:200]
    assert queue.messages_ready == 200
    wait(site, NOW + 2000)
    assert client.bodies() == in_order[200:]
    assert queue.messages_ready == 0
    assert not queue.dying
    site.settle_down()
    assert site.broker.memory_used == 0


def test_what_is_due_later_waits_for_what_is_being_read() -> None:
    site = DurableSite(now=NOW)
    client = site.connect()
    declare(site, client)
    delay(client, b"1", 100)
    site.settle_down()
    site = restarted(site)
    client = site.connect()
    delay(client, b"2", 200)
    site.settle_down()
    site.wait_until(NOW + 300)
    assert site.vhost.queues["q"].messages_ready == 0
    site.settle_down()
    wait(site, NOW + 301)
    assert left(site, "q") == [b"1", b"2"]


def test_many_in_a_log_alone_go_out_by_and_by() -> None:
    site = DurableSite(now=NOW)
    client = site.connect()
    declare(site, client)
    total = 2 * RELEASED_AT_ONCE + 1
    for place in range(total):
        delay(client, b"%d" % place, 100)
    site.settle_down()
    site = restarted(site)
    site.broker.timers.advance(NOW + 100)
    site.broker.timers.advance(NOW + 150)
    assert store(site).messages_ready == RELEASED_AT_ONCE + 1
    site.settle_down()
    wait(site, NOW + 200)
    assert left(site, "q") == [b"%d" % place for place in range(total)]


def test_what_is_large_is_read_by_and_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delayed, "RELEASED_BYTES", 2_500)
    site = DurableSite(now=NOW)
    client = site.connect()
    declare(site, client)
    bodies = [b"%d" % place * size for place, size in enumerate((1000, 1000, 4000, 10, 10, 1000))]
    for body in bodies:
        delay(client, body, 100)
    site.settle_down()
    site = restarted(site)
    site.wait_until(NOW + 100)
    counts = [len(site.log.reads[0][0])]
    while site.step():
        counts += [len(site.log.reads[0][0])] if site.log.reads else []
    assert counts[0] == 2
    assert left(site, "q") == bodies


def test_it_is_tried_again_to_read_what_is_due() -> None:
    site = DurableSite(now=NOW)
    client = site.connect()
    declare(site, client)
    delay(client, b"1", 100)
    delay(client, b"2", 200)
    site.settle_down()
    site = restarted(site)
    site.wait_until(NOW + 100)
    site.reads_fail()
    site.settle_down()
    site.wait_until(NOW + 300)
    site.try_again()
    site.settle_down()
    assert site.vhost.queues["q"].messages_ready == 0
    wait(site, NOW + 2000)
    assert left(site, "q") == [b"1", b"2"]


def test_cleaning_keeps_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleaner, "SLACK", 0)
    site = DurableSite(now=NOW)
    client = site.connect()
    declare(site, client)
    for place in range(20):
        delay(client, b"%d" % place, 1000 + place)
        site.settle_down()
    first = site.journal.batches.first
    client.tell(Basic.Consume, queue="q", consumer_tag="c", no_ack=True)
    for _ in range(200):
        client.feed(publish_octets(b"x" * 1000, key="q", **PERSISTENT))
        site.settle_down()
    assert site.journal.batches.first > first + 50
    site = restarted(site)
    assert [each.due for each in listed(site)] == [NOW + 1000 + place for place in range(20)]
    wait(site, NOW + 1009)
    site = restarted(site)
    wait(site, NOW + 3000)
    assert left(site, "q") == [b"%d" % place for place in range(20)]


def test_a_transient_exchange_keeps_nothing() -> None:
    site = DurableSite(now=NOW)
    client = site.connect()
    declare(site, client, lasts=False)
    delay(client, b"1", 100)
    site.settle_down()
    site = restarted(site)
    assert "x" not in site.vhost.exchanges
    wait(site, NOW + 200)
    assert left(site, "q") == []


def test_what_waits_goes_with_its_exchange_for_good() -> None:
    site = DurableSite(now=NOW)
    client = site.connect()
    declare(site, client)
    delay(client, b"1", 100)
    site.settle_down()
    client.tell(Exchange.Delete, exchange="x")
    site.settle_down()
    client = (site := restarted(site)).connect()
    declare(site, client)
    assert site.vhost.exchanges["x"].delayed is None
    wait(site, NOW + 200)
    assert left(site, "q") == []
    live = site.journal.batches.live_bytes
    delay(client, b"2", 100)
    wait(site, NOW + 400)
    assert left(site, "q") == [b"2"]
    assert site.journal.batches.live_bytes > live


def test_an_exchange_that_delays_by_policy_keeps_what_waits() -> None:
    site = DurableSite(now=NOW)
    client = site.connect()
    declare(site, client)
    site.vhost.set_policy(Policy("later", "^amq[.]fanout$", {"delayed-message": True}))
    client.tell(Queue.Bind, queue="q", exchange="amq.fanout", routing_key="", arguments={})
    client.feed(publish_octets(b"1", exchange="amq.fanout", **later(100)))
    site.settle_down()
    site = restarted(site)
    site.vhost.clear_policy("later")
    site.settle_down()
    site = restarted(site)
    wait(site, NOW + 99)
    assert left(site, "q") == []
    wait(site, NOW + 100)
    assert left(site, "q") == [b"1"]


def test_what_is_in_a_log_alone_is_listed_cancelled_and_sent_now() -> None:
    site = DurableSite(now=NOW)
    client = site.connect()
    declare(site, client)
    for place in range(5):
        delay(client, b"%d" % place, 1000 - place)
    site.settle_down()
    site = restarted(site)
    client = site.connect()
    delay(client, b"in memory", 500)
    site.settle_down()
    assert listed(site, start=4) == [
        Waiting(4, NOW + 997, ["k"], 1),
        Waiting(5, NOW + 996, ["k"], 1),
        Waiting(6, NOW + 500, ["k"], 9),
    ]
    assert [each.number for each in listed(site, most=2)] == [1, 2]
    queue = store(site)
    assert queue.cancel(2)
    assert not queue.cancel(2)
    assert queue.send_now(4)
    assert not queue.send_now(4)
    assert [each.number for each in listed(site)] == [1, 3, 5, 6]
    assert left(site, "q") == [b"3"]
    site.settle_down()
    site = restarted(site)
    assert [each.number for each in listed(site)] == [1, 3, 5, 6]
    wait(site, NOW + 2000)
    assert left(site, "q") == [b"in memory", b"4", b"2", b"0"]
    assert not store(site).dying


def test_blind_copies_are_known_after_a_crash_and_shown_to_nobody() -> None:
    site = DurableSite(now=NOW)
    client = site.connect()
    declare(site, client)
    copies = Field("array", [text("k")])
    content = later(100, BCC=copies)
    client.feed(publish_octets(b"1", exchange="x", key="nobody", **content))
    site.settle_down()
    site = restarted(site)
    wait(site, NOW + 100)
    client = site.connect()
    client.tell(Basic.Get, queue="q", no_ack=True)
    site.settle_down()
    (item,) = client.read()
    assert headers_table(header_of(item)) == {"x-delay": number(-100)}
    assert item.method.routing_key == "nobody"


def test_nothing_delayed_is_confirmed_after_the_log_has_failed() -> None:
    site = DurableSite(now=NOW)
    client = site.connect()
    declare(site, client)
    client.tell(Confirm.Select)
    client.read()
    site.log.become(LogState.FAILED)
    site.settle_down()
    delay(client, b"1", 100)
    site.settle_down()
    assert [item.kind for item in client.read()] == [Basic.Nack]

"""Expiry, limits and dead letters of messages that last, or that are in a log alone."""

from __future__ import annotations

from typing import Any

import pytest

from broker.core import graves, paging, reading
from broker.wire.frames import HEADER, frame
from broker.wire.methods import shortstr
from broker.wire.properties import DELIVERY_MODE, EXPIRATION, headers_table
from broker.wire.table import Field, plain
from tests.durable.site import PERSISTENT, DurableSite, publish_persistent
from tests.protocol.client import Basic, Client, Queue, publish_octets, text

NOW = 10_000_000


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "HEAD_BYTES", 1_000)
    monkeypatch.setattr(paging, "HEAD_BYTES_MIN", 100)
    monkeypatch.setattr(paging, "RECORD_BYTES", 2_000)
    monkeypatch.setattr(reading, "FETCH_BYTES", 2_000)


def declare(site: DurableSite, client: Client, *, letters: bool = True, **arguments: int) -> None:
    """Two durable queues: q, with these arguments, and d, where its dead letters go."""
    names = {
        f"x-{name.replace('_', '-')}": Field("signedint", value)
        for name, value in arguments.items()
    }
    if letters:
        names |= {"x-dead-letter-exchange": text(""), "x-dead-letter-routing-key": text("d")}
    for name, table in (("d", {}), ("q", names)):
        client.tell(Queue.Declare, queue=name, durable=True, arguments=table)
    site.settle_down()
    client.read()


def expiring(milliseconds: int, *, lasts: bool = True) -> dict[str, Any]:
    """The properties of a message."""
    octets = shortstr(str(milliseconds))
    if lasts:
        return {"flags": DELIVERY_MODE | EXPIRATION, "properties": b"\x02" + octets}
    return {"flags": EXPIRATION, "properties": octets}


def wait(site: DurableSite, now: int) -> None:
    """Time goes on, and the disk does what it has to."""
    site.wait_until(now)
    site.settle_down()
    while site.broker.timers.next is not None and site.broker.timers.next <= now:
        site.wait_until(now)
        site.settle_down()


def left(site: DurableSite, name: str) -> list[bytes]:
    """What basic.get finds."""
    client = site.connect()
    bodies: list[bytes] = []
    while True:
        client.tell(Basic.Get, queue=name, no_ack=True)
        site.settle_down()
        found = client.bodies()
        if not found:
            return bodies
        bodies += found


def test_a_ttl_goes_on_while_the_broker_is_down() -> None:
    site = DurableSite(now=NOW)
    client = site.connect()
    declare(site, client, message_ttl=1000)
    publish_persistent(client, b"1")
    site.wait_until(NOW + 600)
    publish_persistent(client, b"2", b"3")
    site.settle_down()
    site = DurableSite(site.log.crashed(), NOW + 1100)
    site.broker.run_deliveries()
    site.settle_down()
    assert len(left(site, "d")) == 1
    wait(site, NOW + 1599)
    assert site.vhost.queues["q"].messages_ready == 2
    wait(site, NOW + 1600)
    assert left(site, "q") == []
    assert left(site, "d") == [b"2", b"3"]


def test_an_expiration_of_its_own_survives_where_it_is() -> None:
    site = DurableSite(now=NOW)
    client = site.connect()
    declare(site, client)
    publish_persistent(client, b"stays")
    client.feed(publish_octets(b"goes", **expiring(500)))
    client.feed(publish_octets(b"goes later", **expiring(900)))
    publish_persistent(client, b"stays too")
    site.settle_down()
    site = site.crash()
    site.broker.run_deliveries()
    wait(site, NOW + 500)
    assert site.vhost.queues["q"].messages_ready == 3
    site = site.crash()
    site.broker.run_deliveries()
    wait(site, NOW + 2000)
    assert left(site, "q") == [b"stays", b"stays too"]
    assert left(site, "d") == [b"goes", b"goes later"]


def test_a_message_is_in_one_queue_or_in_the_other_after_a_crash() -> None:
    """Whatever batch was the last one that the disk has."""
    site = DurableSite(now=NOW)
    client = site.connect()
    declare(site, client)
    bodies = [b"%d" % number for number in range(10)]
    publish_persistent(client, *bodies)
    site.settle_down()
    client.tell(Basic.Consume, queue="q", consumer_tag="c")
    site.settle_down()
    client.tell(Basic.Nack, delivery_tag=4, multiple=True, requeue=False)
    for tag in (6, 8):
        client.tell(Basic.Reject, delivery_tag=tag, requeue=False)
    for keep in range(4):
        after = DurableSite(site.log.crashed(keep), NOW)
        after.broker.run_deliveries()
        there, gone = left(after, "q"), left(after, "d")
        assert sorted(there + gone, key=int) == bodies
        assert there == sorted(there, key=int)
    site.settle_down()
    after = site.crash()
    assert left(after, "d") == [b"0", b"1", b"2", b"3", b"5", b"7"]


def test_the_history_of_a_message_survives() -> None:
    site = DurableSite(now=NOW)
    client = site.connect()
    declare(site, client)
    publish_persistent(client, b"1")
    site.settle_down()
    client.tell(Basic.Get, queue="q")
    site.settle_down()
    client.tell(Basic.Reject, delivery_tag=1, requeue=False)
    site.settle_down()
    site = site.crash()
    client = site.connect()
    client.tell(Basic.Get, queue="d", no_ack=True)
    site.settle_down()
    (item,) = client.read()
    events = plain(headers_table(frame(HEADER, 1, item.header))["x-death"])
    assert isinstance(events, list)
    assert [(event["queue"], event["reason"], event["time"]) for event in events] == [
        (b"q", b"rejected", NOW // 1000)
    ]


@pytest.mark.parametrize("lasts", [True, False])
@pytest.mark.parametrize("letters", [True, False])
def test_messages_expire_that_are_in_a_log_alone(lasts: bool, letters: bool) -> None:
    """Each at its time, in the middle of what is paged out, read for its dead letter or not."""
    site = DurableSite(now=NOW, memory=80_000)
    client = site.connect()
    declare(site, client, letters=letters)
    bodies = [b"%06d" % number + b"x" * 94 for number in range(400)]
    for place, body in enumerate(bodies):
        own = expiring(1000 + place, lasts=lasts) if place % 2 else {}
        client.feed(publish_octets(body, **(own or (PERSISTENT if lasts else {}))))
        site.settle_down()
    queue = site.vhost.queues["q"]
    assert queue.paged is not None
    assert queue.paged.count > 200
    assert queue.messages_ready == 400
    wait(site, NOW + 1200)
    assert queue.messages_ready == 300
    assert queue.messages_ready == len(queue.ready) + len(queue.paged)
    wait(site, NOW + 1400)
    assert queue.messages_ready == 200
    assert left(site, "d") == (bodies[1::2] if letters else [])
    assert left(site, "q") == bodies[::2]
    site.settle_down()
    assert site.broker.memory_used == 0
    assert not queue.dying


def test_a_backlog_under_a_ttl_expires_from_the_log() -> None:
    site = DurableSite(now=NOW, memory=40_000)
    client = site.connect()
    declare(site, client, message_ttl=1000)
    bodies = [b"%06d" % number + b"x" * 94 for number in range(300)]
    for place, body in enumerate(bodies):
        site.wait_until(NOW + place)
        publish_persistent(client, body)
        site.settle_down()
    assert site.vhost.queues["q"].paged is not None
    wait(site, NOW + 1149)
    assert len(left(site, "d")) == 150
    wait(site, NOW + 2000)
    assert left(site, "q") == []
    assert left(site, "d") == bodies[150:]
    assert site.broker.memory_used == 0


def test_rejected_messages_whose_contents_were_let_go_are_read_for_their_letters() -> None:
    site = DurableSite(now=NOW, memory=40_000)
    client = site.connect()
    declare(site, client)
    bodies = [b"%06d" % number + b"x" * 94 for number in range(400)]
    for body in bodies:
        publish_persistent(client, body)
        site.settle_down()
    client.tell(Basic.Consume, queue="q", consumer_tag="c")
    site.settle_down()
    assert len(client.bodies()) == 400
    client.tell(Basic.Nack, delivery_tag=0, multiple=True, requeue=False)
    site.settle_down()
    assert left(site, "d") == bodies
    assert left(site, "q") == []
    site.settle_down()
    assert site.broker.memory_used == 0


def test_the_oldest_of_a_backlog_are_dropped_that_are_in_a_log_alone() -> None:
    site = DurableSite(now=NOW, memory=40_000)
    client = site.connect()
    declare(site, client, max_length=250)
    bodies = [b"%06d" % number + b"x" * 94 for number in range(600)]
    for body in bodies:
        publish_persistent(client, body)
        site.settle_down()
    queue = site.vhost.queues["q"]
    assert queue.paged is not None
    assert queue.messages_ready == 250
    site = site.crash()
    assert left(site, "d") == bodies[:350]
    assert left(site, "q") == bodies[350:]


def test_octets_of_bodies_are_limited_after_a_start_too() -> None:
    """What was there before counts when it is read: nothing is dropped too early."""
    site = DurableSite(now=NOW)
    client = site.connect()
    declare(site, client, max_length_bytes=1000)
    publish_persistent(client, *[b"x" * 100 for _ in range(8)])
    site.settle_down()
    site = site.crash()
    site.broker.run_deliveries()
    client = site.connect()
    publish_persistent(client, b"y" * 200)
    site.settle_down()
    queue = site.vhost.queues["q"]
    assert queue.messages_ready == 9
    publish_persistent(client, b"z" * 900)
    site.settle_down()
    assert left(site, "d") == [b"x" * 100] * 8 + [b"y" * 200]
    assert left(site, "q") == [b"z" * 900]
    assert queue.body_bytes == 0


@pytest.mark.parametrize("letters", [True, False])
def test_octets_of_bodies_are_exact_when_messages_expire_in_a_log(letters: bool) -> None:
    site = DurableSite(now=NOW, memory=60_000)
    client = site.connect()
    declare(site, client, letters=letters, max_length_bytes=35_000)
    for place in range(300):
        own = expiring(1000 + place) if place % 2 else PERSISTENT
        client.feed(publish_octets(b"x" * 100, **own))
        site.settle_down()
    queue = site.vhost.queues["q"]
    assert queue.paged is not None
    assert queue.messages_ready == 300
    wait(site, NOW + 1200)
    assert (queue.messages_ready, queue.body_bytes) == (200, 20_000)
    publish_persistent(client, *[b"y" * 100 for _ in range(160)])
    site.settle_down()
    assert (queue.messages_ready, queue.body_bytes) == (350, 35_000)
    assert len(left(site, "d")) == (110 if letters else 0)
    assert len(left(site, "q")) == 350
    assert queue.body_bytes == 0


def test_returns_are_counted_over_a_crash() -> None:
    site = DurableSite(now=NOW)
    client = site.connect()
    declare(site, client, delivery_limit=2)
    publish_persistent(client, b"poison")
    site.settle_down()
    for _ in range(2):
        client.tell(Basic.Get, queue="q")
        site.settle_down()
        client.tell(Basic.Nack, delivery_tag=0, multiple=True, requeue=True)
        site.settle_down()
        site = site.crash()
        client = site.connect()
    client.tell(Basic.Get, queue="q")
    site.settle_down()
    client.tell(Basic.Nack, delivery_tag=0, multiple=True, requeue=True)
    site.settle_down()
    assert left(site, "q") == []
    assert left(site, "d") == [b"poison"]


def test_what_waits_for_its_next_try_goes_on_waiting_after_a_crash() -> None:
    site = DurableSite(now=NOW)
    client = site.connect()
    declare(site, client, delayed_retry_min=5000)
    client.tell(Queue.Delete, queue="q")
    arguments = {
        "x-delayed-retry-type": text("all"),
        "x-delayed-retry-min": Field("signedint", 5000),
    }
    client.tell(Queue.Declare, queue="q", durable=True, arguments=arguments)
    site.settle_down()
    publish_persistent(client, b"1", b"2")
    site.settle_down()
    client.tell(Basic.Get, queue="q")
    site.settle_down()
    client.tell(Basic.Nack, delivery_tag=0, multiple=True, requeue=True)
    site.settle_down()
    for _ in range(2):
        site = site.crash()
        site.wait_until(site.broker.timers.now + 1000)
        client = site.connect()
        client.tell(Basic.Consume, queue="q", consumer_tag="c")
        site.settle_down()
        assert [item.body for item in client.read() if item.body] == [b"2"]
    wait(site, NOW + 4999)
    assert client.bodies() == []
    wait(site, NOW + 6000)
    (again,) = client.read()
    assert (again.body, again.method.redelivered) == (b"1", True)
    client.tell(Basic.Ack, delivery_tag=0, multiple=True)
    site.settle_down()
    assert site.broker.memory_used == 0


def test_a_purge_while_contents_are_read_leaves_nothing() -> None:
    site = DurableSite(now=NOW, memory=60_000)
    client = site.connect()
    declare(site, client, max_length_bytes=35_000)
    for _ in range(300):
        client.feed(publish_octets(b"x" * 100, **expiring(1000)))
        site.settle_down()
    queue = site.vhost.queues["q"]
    assert queue.paged is not None
    site.wait_until(NOW + 1000)
    assert queue.dying
    client.tell(Queue.Purge, queue="q")
    site.settle_down()
    assert (queue.dying, queue.body_bytes, queue.messages) == (set(), 0, 0)
    client.tell(Queue.Purge, queue="d")
    wait(site, NOW + 3000)
    client.tell(Queue.Purge, queue="d")
    site.settle_down()
    assert site.broker.memory_used == 0


def test_what_is_gone_when_it_was_read_upsets_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contents are asked for, and no log has them any more when the answer comes."""
    asked: list[Any] = []
    monkeypatch.setattr(graves, "read_contents", lambda queue, entries, done: asked.append(done))
    site = DurableSite(now=NOW, memory=60_000)
    client = site.connect()
    declare(site, client)
    for _ in range(300):
        client.feed(publish_octets(b"x" * 100, **expiring(1000)))
        site.settle_down()
    site.wait_until(NOW + 1000)
    assert len(asked) == 1
    while asked:
        asked.pop()([])
        site.wait_until(site.broker.timers.now + 10)
    assert not site.broker.graves.lines

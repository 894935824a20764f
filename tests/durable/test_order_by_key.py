"""Queues with keys whose messages last, or are in a log alone: none hides behind another, and what
is read keeps the order of its key."""

from __future__ import annotations

from typing import Any

import pytest

from broker.core import paging, reading
from broker.wire.methods import Method, shortstr
from broker.wire.properties import DELIVERY_MODE, EXPIRATION, HEADERS
from broker.wire.table import Field, encode_table
from tests.durable.site import DurableSite
from tests.protocol.client import Basic, Client, Queue, publish_octets, text

LIMIT = 200_000
ROOMS = {"x-group-by": text("key")}
SHARES = {"x-fair-by": text("key")}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "HEAD_BYTES", 1_000)
    monkeypatch.setattr(paging, "HEAD_BYTES_MIN", 100)
    monkeypatch.setattr(paging, "RECORD_BYTES", 2_000)
    monkeypatch.setattr(reading, "FETCH_BYTES", 2_000)


def declare(client: Client, arguments: dict[str, Any]) -> None:
    client.tell(Queue.Declare, queue="q", durable=True, arguments=arguments)
    site_of(client).settle_down()
    client.read()


def site_of(client: Client) -> DurableSite:
    assert isinstance(client.site, DurableSite)
    return client.site


def publish(client: Client, key: str, count: int = 1, *, lasts: bool = True) -> list[bytes]:
    """Messages of one key, ten at a time; the disk keeps up."""
    properties = encode_table({"key": Field("longstr", key)}) + bytes([1 + lasts])
    named: dict[str, Any] = {"flags": HEADERS | DELIVERY_MODE, "properties": properties}
    made = [f"{key}{number}".encode().ljust(300) for number in range(1, count + 1)]
    for start in range(0, count, 10):
        client.feed(b"".join(publish_octets(body, **named) for body in made[start : start + 10]))
        site_of(client).settle_down()
    return [body.rstrip() for body in made]


def consume(client: Client, prefetch: int) -> None:
    client.tell(Basic.Qos, prefetch_count=prefetch)
    client.tell(Basic.Consume, queue="q", consumer_tag="c")
    site_of(client).settle_down()


def deliveries(client: Client) -> list[tuple[bytes, int, bool]]:
    """(body, tag, redelivered) of what was delivered since."""
    site_of(client).settle_down()
    return [
        (item.body.rstrip(), item.method.delivery_tag, item.method.redelivered)
        for item in client.read()
        if item.kind is Basic.Deliver
    ]


def names(found: list[tuple[bytes, int, bool]]) -> list[bytes]:
    return [body for body, _, _ in found]


def restart(site: DurableSite, *, cleanly: bool) -> DurableSite:
    site.settle_down()
    log = site.stop().log if cleanly else site.log
    return DurableSite(log.crashed(), site.broker.timers.now, memory=LIMIT)


@pytest.mark.parametrize("lasts", [True, False])
def test_backlog_of_a_busy_key_hides_no_other(*, lasts: bool) -> None:
    site = DurableSite(memory=LIMIT)
    client = site.connect()
    declare(client, ROOMS)
    consume(client, 3)
    publish(client, "busy", 600, lasts=lasts)
    others = [publish(client, f"o{number}", lasts=lasts)[0] for number in range(50)]
    queue = site.vhost.queues["q"]
    assert queue.paged is not None
    assert queue.paged.count > 200
    first, *found = deliveries(client)
    assert first[0] == b"busy1"
    got = []
    while found:
        got += names(found)
        for _, tag, _ in found:
            client.tell(Basic.Ack, delivery_tag=tag)
        found = deliveries(client)
    # What is in memory may pass what has to be read.
    assert sorted(got) == sorted(others)
    client.tell(Basic.Ack, delivery_tag=first[1])
    assert names(deliveries(client)) == [b"busy2"]


@pytest.mark.parametrize("cleanly", [True, False])
def test_keys_are_learnt_after_a_restart(*, cleanly: bool) -> None:
    site = DurableSite(memory=LIMIT)
    client = site.connect()
    declare(client, ROOMS)
    publish(client, "busy", 300)
    others = [publish(client, f"o{number}")[0] for number in range(20)]
    site = restart(site, cleanly=cleanly)
    client = site.connect()
    late = publish(client, "late") + publish(client, "busy")
    consume(client, 0)
    first, *found = names(deliveries(client))
    assert first == b"busy1"
    assert sorted(found) == sorted([*others, late[0]])


def test_tenant_is_served_after_a_restart_however_long_the_backlog_of_another_is() -> None:
    site = DurableSite(memory=LIMIT)
    client = site.connect()
    declare(client, SHARES)
    publish(client, "large", 300)
    publish(client, "small", 2)
    site = restart(site, cleanly=True)
    client = site.connect()
    consume(client, 3)
    found = deliveries(client)
    # What is known at the start goes out; from then on the one with fewer in work is next.
    client.tell(Basic.Ack, delivery_tag=found[0][1])
    assert names(deliveries(client)) == [b"small1"]
    client.tell(Basic.Ack, delivery_tag=found[1][1])
    assert names(deliveries(client)) == [b"large4"]
    client.tell(Basic.Ack, delivery_tag=found[2][1])
    assert names(deliveries(client)) == [b"small2"]


@pytest.mark.parametrize("is_restarted", [True, False])
def test_message_that_waits_for_its_retry_holds_back_its_key(*, is_restarted: bool) -> None:
    site = DurableSite(memory=LIMIT)
    site.wait_until(10_000)
    client = site.connect()
    retries = {
        "x-delayed-retry-type": text("all"),
        "x-delayed-retry-min": Field("signedint", 5000),
    }
    declare(client, {**ROOMS, **retries})
    publish(client, "a", 2)
    publish(client, "b", 1)
    client.tell(Basic.Get, queue="q", no_ack=False)
    site.settle_down()
    client.tell(Basic.Nack, delivery_tag=1, requeue=True)
    if is_restarted:
        site = restart(site, cleanly=False)
        client = site.connect()
    site.wait_until(12_000)
    consume(client, 0)
    assert names(deliveries(client)) == [b"b1"]
    site.wait_until(16_000)
    ((body, tag, redelivered),) = deliveries(client)
    assert (body, redelivered) == (b"a1", True)
    client.tell(Basic.Ack, delivery_tag=tag)
    assert names(deliveries(client)) == [b"a2"]


def test_what_others_passed_is_not_redelivered_when_it_was_paged_out() -> None:
    site = DurableSite(memory=LIMIT)
    client = site.connect()
    declare(client, ROOMS)
    consume(client, 2)
    publish(client, "busy", 600)
    publish(client, "other")
    (first, other) = deliveries(client)
    assert (first[0], other[0]) == (b"busy1", b"other1")
    got = [first]
    for _ in range(400):
        client.tell(Basic.Ack, delivery_tag=got[-1][1])
        got += deliveries(client)
    assert names(got) == [b"busy%d" % number for number in range(1, 402)]
    assert not any(redelivered for _, _, redelivered in got)


@pytest.mark.parametrize("arguments", [ROOMS, SHARES, {**ROOMS, **SHARES}], ids=str)
def test_purge_spares_what_is_with_a_consumer_over_a_crash(arguments: dict[str, Any]) -> None:
    site = DurableSite(memory=LIMIT)
    client = site.connect()
    declare(client, arguments)
    publish(client, "a", 400)
    publish(client, "b", 3)
    consume(client, 2)
    held = names(deliveries(client))
    assert len(held) == 2
    client.tell(Queue.Purge, queue="q")
    site = restart(site, cleanly=False)
    client = site.connect()
    consume(client, 0)
    found = deliveries(client)
    if arguments is SHARES:
        assert sorted(names(found)) == sorted(held)
    else:
        assert names(found)[0] == held[0]
        assert site.vhost.queues["q"].messages == 2
    assert all(redelivered for _, _, redelivered in found)


def test_what_cannot_be_read_holds_back_its_key_until_it_can() -> None:
    site = DurableSite(memory=LIMIT)
    client = site.connect()
    declare(client, ROOMS)
    publish(client, "busy", 600)
    publish(client, "lost", 2)
    publish(client, "busy", 100)
    consume(client, 1)
    (busy,) = deliveries(client)
    client.tell(Basic.Qos, prefetch_count=2)
    client.tell(Basic.Consume, queue="q", consumer_tag="d")
    site.reads_fail()
    publish(client, "new")
    assert set(names(deliveries(client))) <= {b"new1", b"lost1"}
    site.try_again()
    client.tell(Basic.Consume, queue="q", consumer_tag="e")
    deliveries(client)
    assert site.vhost.queues["q"].unacked_count == 3
    client.tell(Basic.Ack, delivery_tag=busy[1])
    assert b"busy2" in names(deliveries(client))


@pytest.mark.parametrize("cleanly", [True, False])
def test_what_others_passed_is_not_redelivered_after_a_clean_stop(*, cleanly: bool) -> None:
    site = DurableSite(memory=LIMIT)
    client = site.connect()
    declare(client, ROOMS)
    publish(client, "a", 2)
    publish(client, "b", 2)
    consume(client, 0)
    assert names(deliveries(client)) == [b"a1", b"b1"]
    for _ in range(2):
        # The second start has it from what the first one wrote.
        site = restart(site, cleanly=cleanly)
    client = site.connect()
    consume(client, 0)
    found = deliveries(client)
    assert [(body, redelivered) for body, _, redelivered in found] == [(b"a1", True), (b"b1", True)]
    for _, tag, _ in found:
        client.tell(Basic.Ack, delivery_tag=tag)
    found = deliveries(client)
    # After a kill the log knows only up to where messages were handed out.
    assert [(body, redelivered) for body, _, redelivered in found] == [
        (b"a2", not cleanly),
        (b"b2", not cleanly),
    ]


@pytest.mark.parametrize("argument", ["x-group-by", "x-fair-by"])
@pytest.mark.parametrize("durable", [True, False])
def test_what_lives_no_time_at_all_is_for_who_has_room_and_stops_nobody(
    argument: str, *, durable: bool
) -> None:
    """Also where the queue has a TTL that is longer."""
    site = DurableSite(now=1_000)
    client = site.connect()
    arguments = {argument: text("key"), "x-message-ttl": Field("signedint", 3_000)}
    client.tell(Queue.Declare, queue="q", durable=durable, arguments=arguments)
    site.settle_down()
    client.tell(Basic.Qos, prefetch_count=2)
    client.tell(Basic.Consume, queue="q")
    client.read()
    octets = b""
    for number, lifetime in enumerate(("0", "30", "0", "500")):
        properties = b"\x02" + shortstr(lifetime)
        flags = DELIVERY_MODE | EXPIRATION
        octets += publish_octets(b"%d" % number, flags=flags, properties=properties)
    client.feed(octets)
    site.settle_down()
    assert client.bodies() == [b"0", b"1"]
    client.tell(Basic.Ack, delivery_tag=2, multiple=True)
    site.settle_down()
    assert client.bodies() == [b"3"]


@pytest.mark.parametrize("kind", [Basic.Ack, Basic.Reject])
def test_a_key_that_is_free_again_is_for_the_consumer_that_comes_first(kind: type[Method]) -> None:
    """Whose room comes of the same settlement."""
    site = DurableSite()
    client = site.connect(channels=2)
    declare(client, ROOMS)
    for channel, rank in ((1, 5), (2, 0)):
        client.tell(Basic.Qos, channel, prefetch_count=1)
        arguments = {"x-priority": Field("signedint", rank)}
        client.tell(Basic.Consume, channel, queue="q", arguments=arguments)
    site.settle_down()
    publish(client, "a", 2)
    site.settle_down()
    assert [each.channel for each in client.read() if each.kind is Basic.Deliver] == [1]
    client.tell(kind, delivery_tag=1)
    site.settle_down()
    assert [each.channel for each in client.read()] == [1]

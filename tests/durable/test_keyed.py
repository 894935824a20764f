"""Queues with keys whose messages are in a log: what is known of them, and when."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from broker.wire.properties import DELIVERY_MODE, HEADERS
from broker.wire.table import Field, Table, encode_table
from tests.durable.site import DurableSite
from tests.durable.test_priorities_machine import little_memory
from tests.protocol.client import Basic, Client, Queue, octets_of, publish_octets, text

MEMORY = 60_000
ARGUMENTS: dict[str, Table] = {
    "groups": {"x-group-by": text("key")},
    "shares": {"x-fair-by": text("key")},
    "both": {"x-group-by": text("key"), "x-fair-by": text("key")},
}


@pytest.fixture(params=sorted(ARGUMENTS))
def arguments(request: pytest.FixtureRequest) -> Table:
    return ARGUMENTS[request.param]


@pytest.fixture
def small() -> Iterator[None]:
    with little_memory():
        yield


def declare(client: Client, arguments: Table, **more: Field) -> None:
    named = {f"x-{name.replace('_', '-')}": field for name, field in more.items()}
    client.tell(Queue.Declare, queue="q", durable=True, arguments={**arguments, **named})
    settle_down(client)
    client.read()


def settle_down(client: Client) -> None:
    site = client.site
    assert isinstance(site, DurableSite)
    site.settle_down()


def publish(client: Client, body: bytes, key: str) -> None:
    properties = encode_table({"key": text(key)}) + b"\x02"
    client.feed(publish_octets(body, flags=HEADERS | DELIVERY_MODE, properties=properties))
    settle_down(client)


def publish_backlog(client: Client, keys: list[str]) -> None:
    for number, key in enumerate(keys):
        publish(client, b"%04d" % number + b"x" * 300, key)


def consume(client: Client, prefetch: int) -> None:
    client.tell(Basic.Qos, prefetch_count=prefetch)
    client.consume()


def deliveries(client: Client) -> list[Any]:
    return [item for item in client.read() if item.kind is Basic.Deliver]


def bodies(client: Client) -> list[bytes]:
    return [item.body[:4] for item in deliveries(client)]


@pytest.mark.parametrize("others", [0, 3])
def test_what_waits_for_its_retry_holds_its_key_and_comes_back_after_a_crash(
    arguments: Table, others: int
) -> None:
    site = DurableSite()
    client = site.connect()
    retry = {"delayed_retry_type": text("all"), "delayed_retry_min": Field("long", 1000)}
    declare(client, arguments, **retry)
    for _ in range(others):
        publish(client, b"else", "b")
    publish(client, b"once", "a")
    consume(client, 10)
    site.settle_down()
    (once,) = (item for item in deliveries(client) if item.body == b"once")
    client.tell(Basic.Nack, delivery_tag=once.method.delivery_tag, requeue=True)
    site.settle_down()
    site = site.crash()
    client = site.connect()
    consume(client, 10)
    site.settle_down()
    bodies(client)
    publish(client, b"more", "a")
    assert bodies(client) == ([b"more"] if "x-group-by" not in arguments else [])
    site.advance(2000)
    site.settle_down()
    (once,) = deliveries(client)
    assert (once.body, once.method.redelivered) == (b"once", True)
    client.tell(Basic.Ack, delivery_tag=once.method.delivery_tag)
    site.settle_down()
    assert bodies(client) == ([b"more"] if "x-group-by" in arguments else [])


@pytest.mark.usefixtures("small")
def test_what_has_expired_is_not_delivered_while_others_before_it_are_being_read(
    arguments: Table,
) -> None:
    site = DurableSite(memory=MEMORY)
    client = site.connect()
    declare(client, arguments, message_ttl=Field("long", 1000))
    backlog = ["a"] * 40 + [f"b{place % 7}" for place in range(103)]
    publish_backlog(client, backlog + [f"n{place}" for place in range(7)])
    site.advance(900)
    consume(client, 3)
    site.log.work(10)
    site.log.tell(10)
    site.collect()
    assert site.log.reads
    taken = deliveries(client)
    assert taken
    site.advance(200)
    for item in taken:
        client.tell(Basic.Ack, delivery_tag=item.method.delivery_tag)
    assert bodies(client) == []
    site.settle_down()
    assert bodies(client) == []
    assert site.vhost.queues["q"].messages == 0


@pytest.mark.usefixtures("small")
def test_what_is_settled_while_it_is_being_read_once_more_does_not_come_back(
    arguments: Table,
) -> None:
    site = DurableSite(memory=MEMORY)
    client = site.connect()
    declare(client, arguments)
    publish_backlog(client, [f"b{place % 7}" if place >= 20 else "a" for place in range(150)])
    consume(client, 3)
    seen: list[bytes] = []
    while site.vhost.queues["q"].messages:
        before = len(seen)
        # The disk reads, and does nothing else.
        site.log.answer(1)
        site.collect()
        taken = deliveries(client)
        seen += [item.body for item in taken]
        tags = [item.method.delivery_tag for item in taken]
        client.feed(b"".join(octets_of(Basic.Ack, delivery_tag=tag) for tag in tags))
        assert len(seen) > before or site.step() or site.log.reads, "nobody does anything"
    assert len(seen) == len(set(seen)) == 150


@pytest.mark.usefixtures("small")
def test_what_was_settled_after_the_disk_failed_does_not_come_back(arguments: Table) -> None:
    site = DurableSite(memory=MEMORY)
    client = site.connect()
    declare(client, arguments)
    publish_backlog(client, [f"b{place % 7}" if place >= 20 else "a" for place in range(150)])
    site.journal.fail()
    consume(client, 3)
    seen: list[bytes] = []
    while site.log.reads or client.reader.received:
        site.log.answer(1)
        site.collect()
        taken = deliveries(client)
        seen += [item.body for item in taken]
        for item in taken:
            client.tell(Basic.Ack, delivery_tag=item.method.delivery_tag)
    assert len(seen) == len(set(seen)) == 150


@pytest.mark.usefixtures("small")
def test_what_is_unacknowledged_when_the_log_is_closed_was_not_passed_by_others(
    arguments: Table,
) -> None:
    site = DurableSite(memory=MEMORY)
    client = site.connect()
    declare(client, arguments)
    publish_backlog(client, [f"b{place % 7}" if place >= 20 else "a" for place in range(150)])
    consume(client, 6)
    site.settle_down()
    seen = set(bodies(client))
    site.broker.close_journal()
    site = DurableSite(site.log.crashed(), memory=MEMORY)
    client = site.connect()
    client.consume(no_ack=True)
    site.settle_down()
    marked = {item.body[:4] for item in deliveries(client) if item.method.redelivered}
    assert len(seen) == 6
    assert marked == seen


@pytest.mark.usefixtures("small")
def test_what_was_passed_before_a_stop_is_redelivered_after_it_was_seen_and_the_broker_killed(
    arguments: Table,
) -> None:
    site = DurableSite()
    client = site.connect()
    declare(client, arguments)
    publish_backlog(client, ["a"] * 5 + ["b"])
    consume(client, 2)
    site.settle_down()
    assert b"0005" in bodies(client)
    site = site.stop()
    client = site.connect()
    client.tell(Basic.Get, queue="q", no_ack=True)
    site.settle_down()
    consume(client, 2)
    site.settle_down()
    marks = {item.body[:4]: item.method.redelivered for item in deliveries(client)}
    assert marks == {b"0001": False, b"0005": True}
    site = site.crash()
    client = site.connect()
    client.consume(no_ack=True)
    site.settle_down()
    unmarked = {item.body[:4] for item in deliveries(client) if not item.method.redelivered}
    assert unmarked.isdisjoint(marks)

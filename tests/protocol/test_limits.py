"""Queues that are limited in length."""

from __future__ import annotations

import pytest

from broker.wire.table import Field
from tests.protocol.client import (
    Basic,
    Client,
    Confirm,
    Queue,
    Site,
    publish_octets,
    text,
)
from tests.protocol.test_expiry import count, left, number


@pytest.fixture
def client(site: Site) -> Client:
    return site.connect(channels=2)


@pytest.fixture
def site() -> Site:
    return Site()


def declare(client: Client, **limits: Field) -> None:
    """A queue q whose dead letters go to d."""
    names = {name.replace("_", "-"): value for name, value in limits.items()}
    dead = {"x-dead-letter-exchange": text(""), "x-dead-letter-routing-key": text("d")}
    client.queue("d")
    client.queue("q", arguments={f"x-{name}": value for name, value in names.items()} | dead)


def test_the_oldest_messages_are_dropped(site: Site, client: Client) -> None:
    declare(client, max_length=number(2))
    for body in (b"1", b"2", b"3", b"4"):
        client.publish(body)
    assert left(client) == [b"3", b"4"]
    assert left(client, "d") == [b"1", b"2"]
    assert site.broker.memory_used == 0


def test_octets_of_bodies_are_limited_and_those_of_headers_are_not(
    site: Site, client: Client
) -> None:
    declare(client, max_length_bytes=number(10))
    for body in (b"aaaa", b"bbbb", b"cc"):
        client.publish(body)
    assert count(client) == 3
    client.publish(b"d")
    assert left(client) == [b"bbbb", b"cc", b"d"]
    client.publish(b"x" * 11)
    assert left(client) == []
    assert left(client, "d") == [b"aaaa", b"x" * 11]
    assert site.vhost.queues["q"].body_bytes == 0


def test_both_limits_hold(client: Client) -> None:
    declare(client, max_length=number(3), max_length_bytes=number(5))
    for body in (b"1", b"2", b"3", b"4", b"555"):
        client.publish(body)
    assert left(client) == [b"3", b"4", b"555"]
    for body in (b"1", b"2", b"333", b"4"):
        client.publish(body)
    assert left(client) == [b"2", b"333", b"4"]


def test_unacknowledged_messages_do_not_count(client: Client) -> None:
    declare(client, max_length=number(1), max_length_bytes=number(1))
    client.tell(Basic.Qos, prefetch_count=2)
    client.consume(no_ack=False)
    client.read()
    for body in (b"1", b"2", b"3"):
        client.publish(body)
    assert client.bodies() == [b"1", b"2"]
    assert count(client) == 1
    client.tell(Basic.Nack, delivery_tag=2, multiple=True, requeue=True)
    assert client.bodies() == [b"1", b"2"]


def test_what_comes_back_may_be_too_much(client: Client) -> None:
    declare(client, max_length=number(1))
    client.publish(b"1")
    client.tell(Basic.Get, queue="q")
    client.publish(b"2")
    client.read()
    client.tell(Basic.Nack, delivery_tag=1, requeue=True)
    assert left(client) == [b"2"]
    assert left(client, "d") == [b"1"]


def test_a_burst_to_a_ready_consumer_arrives_whole(client: Client) -> None:
    declare(client, max_length=number(1))
    client.consume(no_ack=True)
    client.feed(publish_octets(b"x") * 300)
    assert len(client.bodies()) == 300
    assert left(client, "d") == []


def test_a_length_of_zero_is_for_who_is_ready(client: Client) -> None:
    declare(client, max_length=number(0))
    client.publish(b"1")
    assert left(client, "d") == [b"1"]
    client.consume(no_ack=True)
    client.publish(b"2")
    assert client.bodies() == [b"2"]


@pytest.mark.parametrize("overflow", ["reject-publish", "reject-publish-dlx"])
def test_what_is_too_much_is_refused(site: Site, client: Client, overflow: str) -> None:
    declare(client, max_length=number(2), overflow=text(overflow))
    client.ask(Confirm.Select)
    client.feed(b"".join(publish_octets(body) for body in (b"1", b"2", b"3", b"4")))
    answers = client.read()
    assert [(item.kind, item.method.delivery_tag) for item in answers] == [
        (Basic.Ack, 2),
        (Basic.Nack, 4),
    ]
    assert [item.method.multiple for item in answers] == [True, True]
    assert left(client) == [b"1", b"2"]
    assert left(client, "d") == ([b"3", b"4"] if overflow.endswith("dlx") else [])
    client.publish(b"5")
    assert [item.kind for item in client.read()] == [Basic.Ack]
    client.ask(Queue.Purge, queue="q")
    assert site.broker.memory_used == 0


def test_without_confirms_it_is_dropped_in_silence(client: Client) -> None:
    declare(client, max_length_bytes=number(3), overflow=text("reject-publish"))
    for body in (b"1", b"22", b"3"):
        client.publish(body)
    assert client.read() == []
    assert left(client) == [b"1", b"22"]


def test_other_queues_take_what_one_refuses(client: Client) -> None:
    declare(client, max_length=number(1), overflow=text("reject-publish"))
    client.queue("other")
    for name in ("q", "other"):
        client.ask(Queue.Bind, queue=name, exchange="amq.fanout", routing_key="")
    client.ask(Confirm.Select)
    for body in (b"1", b"2"):
        client.publish(body, exchange="amq.fanout", key="")
    assert [item.kind for item in client.read()] == [Basic.Ack, Basic.Nack]
    assert left(client) == [b"1"]
    assert left(client, "other") == [b"1", b"2"]


def test_a_burst_is_not_refused_while_a_consumer_takes_it(client: Client) -> None:
    declare(client, max_length=number(1), overflow=text("reject-publish"))
    client.ask(Confirm.Select)
    client.consume(no_ack=True)
    client.feed(publish_octets(b"x") * 300)
    received = client.read()
    assert sum(item.kind is Basic.Deliver for item in received) == 300
    assert not any(item.kind is Basic.Nack for item in received)

"""Queues with priorities, and what else a queue can have."""

from __future__ import annotations

from typing import Any

import pytest

from broker.wire.methods import shortstr
from broker.wire.properties import EXPIRATION, PRIORITY
from broker.wire.table import Field
from tests.protocol.client import (
    Basic,
    Client,
    Confirm,
    Queue,
    Site,
    Tx,
    publish_octets,
    text,
)
from tests.protocol.test_expiry import count, left, number


@pytest.fixture
def site() -> Site:
    site = Site()
    site.wait_until(1000)
    return site


@pytest.fixture
def client(site: Site) -> Client:
    return site.connect(channels=2)


def declare(client: Client, **arguments: Field) -> None:
    """A queue q with priorities whose dead letters go to d."""
    names = {f"x-{name.replace('_', '-')}": value for name, value in arguments.items()}
    dead = {"x-dead-letter-exchange": text(""), "x-dead-letter-routing-key": text("d")}
    client.queue("d")
    client.queue("q", arguments={"x-max-priority": number(9), **dead, **names})


def of(priority: int, expiration: int | None = None) -> dict[str, Any]:
    """Properties of a message."""
    if expiration is None:
        return {"flags": PRIORITY, "properties": bytes([priority])}
    octets = bytes([priority]) + shortstr(str(expiration))
    return {"flags": PRIORITY | EXPIRATION, "properties": octets}


def publish(client: Client, *messages: tuple[bytes, int]) -> None:
    """Publishes (body, priority) in one chunk."""
    client.feed(b"".join(publish_octets(body, **of(priority)) for body, priority in messages))


def test_what_is_higher_goes_first_and_equals_in_order(site: Site, client: Client) -> None:
    declare(client)
    publish(client, (b"1", 1), (b"2", 5), (b"3", 255), (b"4", 5), (b"5", 0), (b"6", 9))
    client.publish(b"7")
    assert count(client) == 7
    assert left(client) == [b"3", b"6", b"2", b"4", b"1", b"5", b"7"]
    assert site.broker.memory_used == 0


def test_chunks_go_to_a_consumer_as_single_messages_would(site: Site, client: Client) -> None:
    declare(client)
    client.tell(Basic.Qos, 2, prefetch_count=2)
    client.consume(channel=2)
    publish(client, (b"1", 0), (b"2", 9), (b"3", 1), (b"4", 7), (b"5", 1))
    assert client.bodies(2) == [b"1", b"2"]
    client.tell(Basic.Ack, 2, delivery_tag=2, multiple=True)
    assert client.bodies(2) == [b"4", b"3"]
    client.tell(Basic.Ack, 2, delivery_tag=0, multiple=True)
    client.tell(Basic.Ack, 2, delivery_tag=0, multiple=True)
    assert client.bodies(2) == [b"5"]
    assert site.broker.memory_used == 0


def test_each_priority_expires_on_time(site: Site, client: Client) -> None:
    declare(client, message_ttl=number(500))
    client.publish(b"high", **of(9))
    client.publish(b"low", **of(0, 100))
    client.publish(b"middle", **of(5, 200))
    site.wait_until(1100)
    assert (count(client), left(client, "d")) == (2, [b"low"])
    site.wait_until(1200)
    assert (count(client), left(client, "d")) == (1, [b"middle"])
    site.wait_until(1500)
    assert (count(client), left(client, "d")) == (0, [b"high"])
    assert site.broker.memory_used == 0


def test_a_ttl_of_zero_is_for_who_has_room(site: Site, client: Client) -> None:
    declare(client, message_ttl=number(0))
    client.tell(Basic.Qos, 2, prefetch_count=1)
    client.consume(channel=2)
    publish(client, (b"1", 0), (b"2", 9))
    assert client.bodies(2) == [b"1"]
    assert left(client, "d") == [b"2"]


def test_the_oldest_of_the_lowest_are_dropped(site: Site, client: Client) -> None:
    declare(client, max_length=number(3))
    publish(client, (b"1", 5), (b"2", 0), (b"3", 0), (b"4", 9))
    assert left(client, "d") == [b"2"]
    publish(client, (b"5", 4), (b"6", 4), (b"7", 4))
    assert left(client, "d") == [b"3", b"5", b"6"]
    assert left(client) == [b"4", b"1", b"7"]
    assert site.broker.memory_used == 0


def test_octets_of_all_priorities_count(site: Site, client: Client) -> None:
    declare(client, max_length_bytes=number(6))
    publish(client, (b"aaa", 5), (b"bbb", 0), (b"c", 9))
    assert left(client, "d") == [b"bbb"]
    publish(client, (b"dd", 1), (b"e", 1))
    assert left(client, "d") == [b"dd"]
    assert left(client) == [b"c", b"aaa", b"e"]
    assert site.vhost.queues["q"].octets_ready == 0


def test_a_full_queue_refuses_every_priority(client: Client) -> None:
    declare(client, max_length=number(1), overflow=text("reject-publish"))
    client.ask(Confirm.Select)
    publish(client, (b"1", 0), (b"2", 9))
    kinds = [(item.kind, item.method.delivery_tag) for item in client.read()]
    assert kinds == [(Basic.Ack, 1), (Basic.Nack, 2)]
    assert left(client) == [b"1"]


def test_rejected_and_worn_messages_die_in_the_order_in_which_they_were_held(
    site: Site, client: Client
) -> None:
    declare(client, delivery_limit=number(1))
    publish(client, (b"1", 1), (b"2", 5), (b"3", 1), (b"4", 9))
    client.consume(channel=2)
    assert client.bodies(2) == [b"4", b"2", b"1", b"3"]
    client.tell(Basic.Reject, 2, delivery_tag=2, requeue=False)
    client.tell(Basic.Nack, 2, delivery_tag=0, multiple=True, requeue=True)
    assert client.bodies(2) == [b"4", b"1", b"3"]
    client.tell(Basic.Nack, 2, delivery_tag=0, multiple=True, requeue=True)
    assert left(client, "d") == [b"2", b"4", b"1", b"3"]
    assert count(client) == 0
    assert site.broker.memory_used == 0


def test_purging_and_deleting_count_all(site: Site, client: Client) -> None:
    declare(client)
    publish(client, (b"held", 3))
    client.tell(Basic.Get, 2, queue="q")
    assert client.bodies(2) == [b"held"]
    publish(client, (b"1", 0), (b"2", 5), (b"3", 9))
    assert client.ask(Queue.Purge, queue="q").message_count == 3
    publish(client, (b"4", 1), (b"5", 2))
    assert client.ask(Queue.Delete, queue="q").message_count == 2
    assert site.broker.memory_used == 0


def test_a_transaction_is_sorted_when_it_commits(client: Client) -> None:
    declare(client)
    client.ask(Tx.Select)
    publish(client, (b"1", 0), (b"2", 5))
    client.ask(Tx.Commit)
    assert left(client) == [b"2", b"1"]


def test_a_dead_letter_keeps_its_priority(client: Client) -> None:
    declare(client)
    to_q = {"x-dead-letter-exchange": text(""), "x-dead-letter-routing-key": text("q")}
    client.queue("source", arguments=to_q)
    for body, priority in ((b"1", 1), (b"2", 8), (b"3", 4)):
        client.publish(body, key="source", **of(priority))
    client.consume("source", channel=2)
    assert client.bodies(2) == [b"1", b"2", b"3"]
    client.tell(Basic.Nack, 2, delivery_tag=0, multiple=True, requeue=False)
    assert left(client) == [b"2", b"3", b"1"]


def test_other_queues_of_the_same_message_are_not_sorted(client: Client) -> None:
    declare(client)
    client.queue("plain")
    client.queue("few", arguments={"x-max-priority": number(2)})
    for name in ("q", "plain", "few"):
        client.ask(Queue.Bind, queue=name, exchange="amq.fanout")
    client.feed(
        b"".join(
            publish_octets(body, exchange="amq.fanout", **of(priority))
            for body, priority in ((b"1", 1), (b"2", 5), (b"3", 2), (b"4", 9))
        )
    )
    assert left(client) == [b"4", b"2", b"3", b"1"]
    assert left(client, "plain") == [b"1", b"2", b"3", b"4"]
    assert left(client, "few") == [b"2", b"3", b"4", b"1"]

"""Messages and queues that expire."""

from __future__ import annotations

from typing import Any

import pytest

from broker.wire.methods import shortstr
from broker.wire.properties import EXPIRATION
from broker.wire.table import Field
from tests.protocol.client import Basic, Channel, Client, Confirm, Queue, Site, Tx, publish_octets


def number(value: int) -> Field:
    """An argument."""
    return Field("signedint", value)


def expiring(milliseconds: int) -> dict[str, Any]:
    """The property of a message."""
    return {"flags": EXPIRATION, "properties": shortstr(str(milliseconds))}


@pytest.fixture
def site() -> Site:
    site = Site()
    site.wait_until(1000)
    return site


@pytest.fixture
def client(site: Site) -> Client:
    return site.connect(channels=2)


def count(client: Client, name: str = "q") -> int:
    """As a declaration tells it."""
    return int(client.ask(Queue.Declare, queue=name, passive=True).message_count)


def left(client: Client, name: str = "q") -> list[bytes]:
    """What basic.get finds."""
    bodies: list[bytes] = []
    while True:
        client.tell(Basic.Get, queue=name, no_ack=True)
        found = client.bodies()
        if not found:
            return bodies
        bodies += found


def test_message_expires_after_the_ttl_of_its_queue(site: Site, client: Client) -> None:
    client.queue(arguments={"x-message-ttl": number(100)})
    client.publish(b"1")
    site.wait_until(1050)
    client.publish(b"2")
    site.wait_until(1099)
    assert count(client) == 2
    site.wait_until(1100)
    assert count(client) == 1
    assert left(client) == [b"2"]
    assert site.broker.memory_used == 0


def test_message_expires_behind_one_that_does_not(site: Site, client: Client) -> None:
    client.queue()
    client.publish(b"stays")
    client.publish(b"late", **expiring(5000))
    client.publish(b"early", **expiring(10))
    client.publish(b"stays too")
    site.wait_until(1010)
    assert count(client) == 3
    site.wait_until(6000)
    assert left(client) == [b"stays", b"stays too"]
    assert site.broker.memory_used == 0


@pytest.mark.parametrize(("own", "gone_at"), [(50, 1050), (500, 1100)])
def test_the_lower_of_two_times_holds(site: Site, client: Client, own: int, gone_at: int) -> None:
    client.queue(arguments={"x-message-ttl": number(100)})
    client.publish(**expiring(own))
    site.wait_until(gone_at - 1)
    assert count(client) == 1
    site.wait_until(gone_at)
    assert count(client) == 0


def test_a_ttl_of_zero_is_for_who_is_ready(site: Site, client: Client) -> None:
    client.queue(arguments={"x-message-ttl": number(0)})
    client.publish(b"nobody")
    assert count(client) == 0
    client.consume(no_ack=True)
    client.feed(publish_octets(b"1") * 300)
    assert len(client.bodies()) == 300
    client.publish(**expiring(0))
    assert len(client.bodies()) == 1
    assert site.broker.memory_used == 0


def test_an_expiration_of_zero_is_for_who_is_ready(site: Site, client: Client) -> None:
    client.queue()
    client.publish(b"plain")
    client.publish(b"nobody", **expiring(0))
    assert left(client) == [b"plain"]
    client.consume(no_ack=True)
    client.publish(b"somebody", **expiring(0))
    assert client.bodies() == [b"somebody"]


@pytest.mark.parametrize("ttl", [None, 200])
def test_a_requeued_message_keeps_its_deadline(site: Site, client: Client, ttl: int | None) -> None:
    arguments = {"x-message-ttl": number(ttl)} if ttl else {}
    client.queue(arguments=arguments)
    client.publish(b"1", **({} if ttl else expiring(200)))
    client.publish(b"2", **({} if ttl else expiring(300)))
    site.wait_until(1150)
    client.tell(Basic.Get, queue="q")
    assert client.bodies() == [b"1"]
    client.tell(Basic.Nack, delivery_tag=1, requeue=True)
    site.wait_until(1199)
    assert count(client) == 2
    site.wait_until(1200)
    assert count(client) == (0 if ttl else 1)


def test_one_that_comes_back_too_late_expires_at_once(site: Site, client: Client) -> None:
    client.queue(arguments={"x-message-ttl": number(100)})
    client.publish()
    client.tell(Basic.Get, queue="q")
    client.read()
    site.wait_until(1200)
    client.tell(Basic.Nack, delivery_tag=1, requeue=True)
    assert count(client) == 0
    assert site.broker.memory_used == 0


def test_unacknowledged_messages_do_not_expire(site: Site, client: Client) -> None:
    client.queue(arguments={"x-message-ttl": number(100)})
    client.consume()
    client.publish(b"1", **expiring(50))
    assert client.bodies() == [b"1"]
    site.wait_until(5000)
    client.tell(Basic.Ack, delivery_tag=1)
    assert client.read() == []
    assert site.broker.memory_used == 0


def test_time_in_a_transaction_begins_with_the_commit(site: Site, client: Client) -> None:
    client.queue(arguments={"x-message-ttl": number(100)})
    client.ask(Tx.Select)
    client.publish(b"1")
    client.publish(b"2", **expiring(60))
    site.wait_until(1090)
    client.ask(Tx.Commit)
    site.wait_until(1149)
    assert count(client) == 2
    site.wait_until(1150)
    assert count(client) == 1
    site.wait_until(1190)
    assert count(client) == 0


def test_many_expire_in_several_turns_and_all_of_them(site: Site, client: Client) -> None:
    client.queue(arguments={"x-message-ttl": number(10)})
    client.feed(publish_octets(b"x") * 3500)
    site.wait_until(1020)
    assert count(client) == 0
    client.queue("own")
    client.feed(publish_octets(b"x", key="own", **expiring(10)) * 3500)
    site.wait_until(1040)
    assert count(client, "own") == 0
    assert site.broker.memory_used == 0


def test_deadlines_of_what_was_delivered_are_forgotten(site: Site, client: Client) -> None:
    client.queue()
    for _ in range(30):
        client.feed(publish_octets(b"x", **expiring(1_000_000)) * 200)
        client.tell(Basic.Qos, prefetch_count=0)
        tag = client.consume(no_ack=True)
        assert len(client.bodies()) == 200
        client.ask(Basic.Cancel, consumer_tag=tag)
    expiry = site.vhost.queues["q"].expiry
    assert expiry is not None
    client.publish(**expiring(1_000_000))
    assert len(expiry._deadlines) < 2_000
    client.ask(Queue.Purge, queue="q")
    assert site.broker.memory_used == 0


def test_confirms_do_not_wait_for_what_expires(site: Site, client: Client) -> None:
    client.ask(Confirm.Select)
    client.queue(arguments={"x-message-ttl": number(0)})
    client.publish()
    assert [item.kind for item in client.read()] == [Basic.Ack]


def test_a_queue_expires_that_nobody_uses(site: Site, client: Client) -> None:
    client.queue(arguments={"x-expires": number(100)})
    client.publish()
    site.wait_until(1099)
    assert "q" in site.vhost.queues
    site.wait_until(1100)
    assert "q" not in site.vhost.queues
    assert ("queue_expired", {"vhost": "/", "queue": "q"}) in site.notes
    assert site.broker.memory_used == 0


def test_each_use_of_a_queue_puts_its_end_off(site: Site, client: Client) -> None:
    arguments = {"x-expires": number(100)}
    client.queue(arguments=arguments)
    site.wait_until(1090)
    client.queue(arguments=arguments)
    site.wait_until(1180)
    client.tell(Basic.Get, queue="q")
    site.wait_until(1270)
    tag = client.consume()
    site.wait_until(9000)
    assert "q" in site.vhost.queues
    client.ask(Basic.Cancel, consumer_tag=tag)
    site.wait_until(9099)
    # A publish is no use of a queue.
    client.publish()
    assert "q" in site.vhost.queues
    site.wait_until(9100)
    assert "q" not in site.vhost.queues


def test_a_queue_that_is_deleted_expires_no_more(site: Site, client: Client) -> None:
    arguments = {"x-expires": number(100), "x-message-ttl": number(50)}
    client.queue(arguments=arguments)
    client.publish()
    client.ask(Queue.Delete, queue="q")
    client.queue()
    client.publish()
    site.wait_until(2000)
    assert count(client) == 1


def test_one_that_was_delivered_at_once_and_comes_back_expires(site: Site, client: Client) -> None:
    client.queue()
    client.consume(channel=2)
    client.publish(**expiring(1000))
    assert len(client.bodies()) == 1
    site.wait_until(1500)
    client.tell(Channel.Close, 2, reply_code=0, reply_text="", class_id=0, method_id=0)
    client.read()
    assert count(client) == 1
    site.wait_until(2000)
    assert count(client) == 0
    assert site.broker.memory_used == 0


def test_what_expired_is_not_delivered_however_much_it_is(site: Site, client: Client) -> None:
    client.queue(arguments={"x-message-ttl": number(1000)})
    client.feed(publish_octets(b"x") * 3000)
    site.broker.timers.advance(6000)
    client.consume(no_ack=True)
    assert client.bodies() == []
    site.wait_until(6010)
    assert client.bodies() == []
    client.publish(b"fresh")
    assert client.bodies() == [b"fresh"]
    assert site.broker.memory_used == 0


def test_basic_get_waits_while_much_expires(site: Site, client: Client) -> None:
    client.queue(arguments={"x-message-ttl": number(1000)})
    client.feed(publish_octets(b"x") * 3000)
    site.wait_until(1900)
    client.publish(b"fresh")
    site.broker.timers.advance(2000)
    client.tell(Basic.Get, queue="q", no_ack=True)
    site.wait_until(2010)
    assert client.bodies() == [b"fresh"]


def test_many_queues_expire_before_anything_is_taken(site: Site, client: Client) -> None:
    for place in range(1500):
        client.queue(f"q{place}", arguments={"x-message-ttl": number(1000)})
        client.publish(key=f"q{place}")
    site.broker.timers.advance(5000)
    for place in range(1500):
        client.tell(Basic.Get, queue=f"q{place}", no_ack=True)
    assert {item.kind for item in client.read()} == {Basic.GetEmpty}

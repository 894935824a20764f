"""Queues that take no message that is like one in them."""

from __future__ import annotations

import pytest

from broker.core.policies import Policy
from broker.wire.table import Field, Table
from tests.protocol.client import (
    Basic,
    Client,
    Exchange,
    Queue,
    Site,
    publish_octets,
    text,
)
from tests.protocol.deduplicating import ON, drain, marked, number


@pytest.fixture
def site() -> Site:
    site = Site()
    site.wait_until(1_000_000)
    return site


@pytest.fixture
def client(site: Site) -> Client:
    return site.connect(channels=2)


def present(client: Client, **more: Field) -> None:
    table = {**ON, **{key.replace("_", "-"): field for key, field in more.items()}}
    client.queue("q", arguments=table)


def test_message_is_a_duplicate_while_an_equal_one_is_in_the_queue(client: Client) -> None:
    present(client)
    for body in (b"a", b"b"):
        client.publish(body, **marked("1"))
    client.consume("q", 2)
    client.publish(b"c", **marked("1"))
    assert client.bodies(2) == [b"a"]
    # It is there until it is acknowledged.
    client.tell(Basic.Nack, 2, delivery_tag=1, requeue=True)
    client.publish(b"d", **marked("1"))
    assert client.bodies(2) == [b"a"]
    client.tell(Basic.Ack, 2, delivery_tag=2)
    client.publish(b"e", **marked("1"))
    assert client.bodies(2) == [b"e"]
    assert client.site.broker.counters.messages_deduplicated == 3


@pytest.mark.parametrize("highest", [None, 3])
@pytest.mark.parametrize("one_by_one", [False, True])
def test_what_is_taken_at_once_is_gone_at_once(
    client: Client, highest: int | None, one_by_one: bool
) -> None:
    present(client, **({"x_max_priority": number(highest)} if highest else {}))
    client.consume("q", 2, no_ack=True)
    octets = [publish_octets(b"%d" % place, key="q", **marked("1")) for place in range(3)]
    for chunk in octets if one_by_one else [b"".join(octets)]:
        client.feed(chunk)
    # Within one chunk nobody has taken the first one yet.
    assert client.bodies(2) == ([b"0", b"1", b"2"] if one_by_one else [b"0"])
    assert client.site.broker.window_bytes == 0


@pytest.mark.parametrize("way", ["purge", "reject", "expire", "maxlen", "get", "priorities"])
def test_message_that_left_in_any_way_may_come_again(site: Site, client: Client, way: str) -> None:
    more = {
        "expire": {"x_message_ttl": number(100)},
        "maxlen": {"x_max_length": number(1)},
        "priorities": {"x_max_priority": number(2)},
    }
    present(client, **more.get(way, {}))
    client.publish(b"a", **marked("1"))
    if way == "purge":
        client.ask(Queue.Purge, queue="q")
    elif way == "reject":
        client.consume("q", 2)
        client.tell(Basic.Reject, 2, delivery_tag=1, requeue=False)
        client.tell(Basic.Cancel, 2, consumer_tag=client.read(2)[0].method.consumer_tag)
    elif way == "expire":
        site.advance(100)
    elif way == "maxlen":
        client.publish(b"b", **marked("2"))
    elif way == "get":
        client.tell(Basic.Get, queue="q", no_ack=True)
    else:
        assert drain(client) == [b"a"]
    client.read()
    client.publish(b"c", **marked("1"))
    client.publish(b"d", **marked("1"))
    assert drain(client) == [b"c"]
    assert site.broker.memory_used == 0


def test_dead_letter_that_comes_is_known_and_never_dropped(client: Client) -> None:
    present(client, x_dead_letter_exchange=text("amq.fanout"))
    client.ask(Queue.Bind, queue="q", exchange="amq.fanout")
    client.publish(b"a", **marked("1"))
    client.consume("q", 2)
    client.tell(Basic.Reject, 2, delivery_tag=1, requeue=False)
    client.publish(b"b", **marked("1"))
    assert client.bodies(2) == [b"a", b"a"]
    client.tell(Basic.Ack, 2, delivery_tag=2)
    client.publish(b"c", **marked("1"))
    assert client.bodies(2) == [b"c"]


def test_delayed_message_is_no_duplicate_of_one_that_has_left(site: Site, client: Client) -> None:
    present(client)
    delayed: Table = {"x-delayed-type": text("fanout")}
    client.ask(Exchange.Declare, exchange="d", exchange_type="x-delayed-message", arguments=delayed)
    client.ask(Queue.Bind, queue="q", exchange="d")
    for body in (b"a", b"b"):
        client.publish(body, exchange="d", **marked("1", x_delay=number(100)))
    site.advance(100)
    assert drain(client) == [b"a"]
    client.publish(b"c", exchange="d", **marked("1"))
    assert drain(client) == [b"c"]


def test_queue_may_be_asked_to_remember_later(site: Site, client: Client) -> None:
    present(client)
    client.publish(b"a", **marked("1"))
    site.vhost.set_policy(Policy("p", "q", {"cache-size": 5}))
    assert drain(client) == [b"a"]
    for body in (b"b", b"c"):
        client.publish(body, **marked("1"))
    assert drain(client) == [b"b"]
    site.vhost.clear_policy("p")
    for body in (b"d", b"e"):
        client.publish(body, **marked("1"))
    assert drain(client) == [b"d"]
    client.ask(Queue.Delete, queue="q")
    assert site.broker.memory_used == site.broker.present_count == 0

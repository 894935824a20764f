"""Messages that wait at an exchange before somebody takes them once."""

from __future__ import annotations

import pytest

from broker.wire.table import Table
from tests.protocol.client import Client, Exchange, Queue, Site, text
from tests.protocol.deduplicating import KIND, ON, drain, exchange, marked, number


@pytest.fixture
def site() -> Site:
    site = Site()
    site.wait_until(1_000_000)
    return site


@pytest.fixture
def client(site: Site) -> Client:
    return site.connect(channels=2)


def test_delayed_message_is_judged_by_its_queue_when_it_gets_there(
    site: Site, client: Client
) -> None:
    client.queue("q", arguments={**ON, "x-cache-size": number(10)})
    delayed: Table = {"x-delayed-type": text("fanout")}
    client.ask(Exchange.Declare, exchange="d", exchange_type="x-delayed-message", arguments=delayed)
    client.ask(Queue.Bind, queue="q", exchange="d")
    for body in (b"a", b"b"):
        client.publish(body, exchange="d", **marked("1", x_delay=number(100)))
    client.publish(b"c", **marked("2"))
    site.advance(100)
    client.publish(b"d", **marked("1"))
    assert drain(client) == [b"c", b"a"]


def test_delaying_exchange_judges_when_a_message_comes(site: Site, client: Client) -> None:
    client.queue("q")
    arguments = {"x-delayed-type": text(KIND), "x-cache-size": number(5)}
    client.ask(
        Exchange.Declare, exchange="d", exchange_type="x-delayed-message", arguments=arguments
    )
    client.ask(Queue.Bind, queue="q", exchange="d")
    for body in (b"a", b"b"):
        client.publish(body, exchange="d", **marked("1", x_delay=number(100)))
    site.advance(100)
    client.publish(b"c", exchange="d", **marked("1"))
    assert drain(client) == [b"a"]


def test_exchange_behind_a_delaying_one_judges_what_has_waited(site: Site, client: Client) -> None:
    exchange(client, x_cache_size=number(10))
    delayed: Table = {"x-delayed-type": text("fanout")}
    client.ask(Exchange.Declare, exchange="d", exchange_type="x-delayed-message", arguments=delayed)
    client.ask(Exchange.Bind, destination="x", source="d")
    for body in (b"a", b"b"):
        client.publish(body, exchange="d", **marked("1", x_delay=number(100)))
    site.advance(1000)
    client.publish(b"c", exchange="d", **marked("1"))
    assert drain(client) == [b"a"]
    assert site.broker.counters.messages_deduplicated == 2
    assert site.broker.counters.messages_unroutable_dropped == 0

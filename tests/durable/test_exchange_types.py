"""Exchanges that hash, over a restart: every key finds its queue again."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from broker.wire.properties import HEADERS
from broker.wire.table import Table, encode_table
from tests.durable.site import DurableSite
from tests.protocol.client import Basic, Client, Exchange, Queue, publish_octets, text

QUEUES = [f"queue {number}" for number in range(5)]
KEYS = [f"key {number}" for number in range(100)]


def declare(site: DurableSite, client: Client, kind: str, arguments: Table) -> None:
    client.tell(
        Exchange.Declare, exchange="x", exchange_type=kind, durable=True, arguments=arguments
    )
    for number, queue in enumerate(QUEUES, start=1):
        client.tell(Queue.Declare, queue=queue, durable=True)
        client.tell(Queue.Bind, queue=queue, exchange="x", routing_key=f"{number}")
    site.settle_down()
    assert len(client.read()) == 1 + 2 * len(QUEUES)


def owners(site: DurableSite) -> dict[str, set[str]]:
    """The keys whose messages come into each queue."""
    client = site.connect(channels=len(QUEUES))
    for number, queue in enumerate(QUEUES, start=1):
        client.consume(queue, number, no_ack=True)
    for key in KEYS:
        headers = encode_table({"key": text(key)})
        client.feed(
            publish_octets(key.encode(), exchange="x", key=key, flags=HEADERS, properties=headers)
        )
    site.settle_down()
    found = {
        queue: {item.body.decode() for item in client.read(number) if item.kind is Basic.Deliver}
        for number, queue in enumerate(QUEUES, start=1)
    }
    assert set().union(*found.values()) == set(KEYS)
    return found


@pytest.mark.parametrize("restart", [DurableSite.stop, DurableSite.crash])
@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("x-consistent-hash", {}),
        ("x-consistent-hash", {"hash-header": text("key")}),
        ("x-modulus-hash", {}),
    ],
)
def test_every_key_finds_its_queue_again(
    restart: Callable[[DurableSite], DurableSite], kind: str, arguments: Table
) -> None:
    site = DurableSite()
    declare(site, site.connect(), kind, arguments)
    before = owners(site)
    site = restart(site)
    # Bound in another order after the next start, as a log that is cleaned has it.
    vhost = site.vhost
    x, queue = vhost.get_exchange("x"), vhost.get_queue(QUEUES[0])
    vhost.unbind(x, queue, "1", {}, None)
    vhost.bind(x, queue, "1", {})
    site.collect()
    site.settle_down()
    assert owners(site) == before
    assert owners(restart(site)) == before


@pytest.mark.parametrize("kind", ["x-random", "x-local-random"])
def test_exchange_by_chance_comes_back_with_its_type(kind: str) -> None:
    site = DurableSite()
    site.vhost.declare_exchange("x", kind, durable=True)
    site.vhost.bind(
        site.vhost.get_exchange("x"), site.vhost.declare_queue("q", durable=True), "", {}
    )
    site.collect()
    site.settle_down()
    vhost = site.crash().vhost
    exchange = vhost.get_exchange("x")
    assert exchange.type == kind
    assert vhost.route(exchange, ["any"]) == ([vhost.queues["q"]], False)

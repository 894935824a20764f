"""Messages that say what they are, and a durable exchange that takes them once."""

from __future__ import annotations

from typing import Any

from broker.wire.properties import DELIVERY_MODE, HEADERS
from broker.wire.table import Field, Table, encode_table
from tests.durable.site import DurableSite
from tests.protocol.client import Basic, Client, Exchange, Queue, publish_octets, text

ON: Table = {"x-message-deduplication": Field("bool", value=True)}


def number(value: int) -> Field:
    return Field("signedint", value)


def marked(key: str, *, persistent: bool = True, **others: Field) -> dict[str, Any]:
    table = {"x-deduplication-header": text(key), **others}
    if not persistent:
        return {"flags": HEADERS, "properties": encode_table(table)}
    return {"flags": HEADERS | DELIVERY_MODE, "properties": encode_table(table) + b"\x02"}


def settle(site: DurableSite, client: Client) -> list[Any]:
    site.settle_down()
    return client.read()


def exchange(site: DurableSite, **arguments: Field) -> Client:
    """A client, and an exchange with a durable queue."""
    client = site.connect()
    table = {"x-cache-size": number(10)}
    table |= {key.replace("_", "-"): field for key, field in arguments.items()}
    client.tell(
        Exchange.Declare,
        exchange="x",
        exchange_type="x-message-deduplication",
        durable=True,
        arguments=table,
    )
    site.settle_down()
    client.tell(Queue.Declare, queue="q", durable=True)
    site.settle_down()
    client.tell(Queue.Bind, queue="q", exchange="x")
    settle(site, client)
    return client


def send(client: Client, *keys: str, **options: Any) -> None:
    """Publishes these in one chunk, each with its number as the body."""
    options.setdefault("exchange", "x")
    mark = {"persistent": options.pop("persistent", True), **options.pop("more", {})}
    octets = [
        publish_octets(b"%s%d" % (key.encode(), place), **options, **marked(key, **mark))
        for place, key in enumerate(keys)
    ]
    client.feed(b"".join(octets))


def remembered(site: DurableSite) -> list[bytes]:
    found = site.vhost.exchanges["x"].duplicates
    assert found is not None
    return [key for key, _ in found.window]


def taken(site: DurableSite, queue: str = "q") -> list[str]:
    """What is in a queue, which is acknowledged."""
    client = site.connect()
    client.consume(queue)
    site.settle_down()
    found = [item for item in client.read() if item.kind is Basic.Deliver]
    if found:
        client.tell(Basic.Ack, delivery_tag=found[-1].method.delivery_tag, multiple=True)
    client.ask(Basic.Cancel, consumer_tag=found[-1].method.consumer_tag) if found else None
    site.settle_down()
    return [item.body.decode() for item in found]

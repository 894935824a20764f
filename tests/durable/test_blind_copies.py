"""BCC: where dead letters go, and nobody sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from broker.wire.properties import DELIVERY_MODE, HEADERS
from broker.wire.table import Field, Table, decode_table, encode_table
from tests.durable.site import DurableSite
from tests.protocol.client import Basic, Client, Exchange, Queue, Received, text

Restart = Callable[[DurableSite], DurableSite]
COPIES: Table = {
    "n": Field("signedint", 1),
    "CC": Field("array", [text("cc")]),
    "BCC": Field("array", [text("bcc")]),
}


def wired(site: DurableSite, **more: Field) -> Client:
    """A queue whose dead letters go to three others by their keys."""
    client = site.connect()
    octets: dict[str, Any] = {key.replace("_", "-"): field for key, field in more.items()}
    client.tell(Exchange.Declare, exchange="dlx", exchange_type="direct", durable=True)
    site.settle_down()
    for name in ("key", "cc", "bcc"):
        client.tell(Queue.Declare, queue=name, durable=True)
        site.settle_down()
        client.tell(Queue.Bind, queue=name, exchange="dlx", routing_key=name)
        site.settle_down()
    arguments = {"x-dead-letter-exchange": text("dlx"), **octets}
    client.tell(Queue.Declare, queue="q", durable=True, arguments=arguments)
    site.settle_down()
    client.tell(Queue.Bind, queue="q", exchange="amq.fanout")
    site.settle_down()
    client.read()
    return client


def publish(site: DurableSite, client: Client) -> None:
    properties = encode_table(COPIES) + b"\x02"
    flags = HEADERS | DELIVERY_MODE
    client.publish(b"m", exchange="amq.fanout", key="key", flags=flags, properties=properties)
    site.settle_down()


def fetched(site: DurableSite, queue: str) -> tuple[Client, Received]:
    client = site.connect()
    client.tell(Basic.Get, queue=queue)
    site.settle_down()
    (item,) = client.read()
    return client, item


def headers_of(item: Received) -> Table:
    return decode_table(item.header[18:-1])


def plain_restart(site: DurableSite) -> DurableSite:
    return site


@pytest.mark.parametrize("restart", [plain_restart, DurableSite.stop, DurableSite.crash])
def test_dead_letters_go_where_the_message_was_to_go(restart: Restart) -> None:
    site = DurableSite()
    publish(site, wired(site))
    site = restart(site)
    client, item = fetched(site, "q")
    seen = {name: COPIES[name] for name in ("n", "CC")}
    assert headers_of(item) == seen
    client.tell(Basic.Reject, delivery_tag=1, requeue=False)
    site.settle_down()
    site = restart(site)
    for name in ("key", "cc", "bcc"):
        _, letter = fetched(site, name)
        assert letter.body == b"m"
        headers = headers_of(letter)
        (death,) = cast("list[Field]", headers["x-death"].value)
        # RabbitMQ does not say them there, either.
        event = cast(Table, death.value)
        assert event["routing-keys"] == Field("array", [text("key"), text("cc")])
        assert {key: headers[key] for key in headers if "death" not in key} == seen


def test_with_a_key_of_the_queue_they_are_forgotten() -> None:
    site = DurableSite()
    publish(site, wired(site, x_dead_letter_routing_key=text("key")))
    client, _ = fetched(site, "q")
    client.tell(Basic.Reject, delivery_tag=1, requeue=False)
    site.settle_down()
    _, letter = fetched(site, "key")
    assert {key for key in headers_of(letter) if "death" not in key} == {"n"}
    assert [site.vhost.queues[name].messages for name in ("cc", "bcc")] == [0, 0]


def test_redelivered_message_with_a_count_does_not_show_them() -> None:
    site = DurableSite()
    publish(site, wired(site, x_delivery_limit=Field("signedint", 3)))
    client, _ = fetched(site, "q")
    client.tell(Basic.Reject, delivery_tag=1, requeue=True)
    site.settle_down()
    _, item = fetched(site, "q")
    assert set(headers_of(item)) == {"n", "CC", "x-delivery-count"}

"""Clients of queues with a consumer timeout, and what becomes of it."""

from __future__ import annotations

from broker.protocol.consumer_timeout import MARKS
from broker.wire.table import Field, Table
from tests.protocol.client import Basic, Client, Site, publish_octets, text

TIMEOUT = 16_000
SPAN = TIMEOUT // MARKS
"""How late a late delivery may be noticed."""


def timeout(milliseconds: int = TIMEOUT, action: str | None = None) -> Table:
    arguments: Table = {"x-consumer-timeout": Field("signedint", milliseconds)}
    if action is not None:
        arguments["x-consumer-timeout-action"] = text(action)
    return arguments


def fill(client: Client, count: int, key: str = "q", channel: int = 1) -> None:
    octets = [publish_octets(b"%d" % n, key=key, channel=channel) for n in range(count)]
    client.feed(b"".join(octets))


def counts(client: Client, name: str = "q") -> tuple[int, int]:
    queue = client.site.vhost.queues[name]
    return queue.messages_ready, queue.unacked_count


def deliveries(client: Client, channel: int | None = None) -> list[tuple[int, bytes, bool]]:
    """(tag, body, redelivered) of what came."""
    return [
        (item.method.delivery_tag, item.body, item.method.redelivered)
        for item in client.read(channel)
        if item.kind in (Basic.Deliver, Basic.GetOk)
    ]


def timeouts_noted(site: Site) -> list[dict[str, object]]:
    return [details for event, details in site.notes if event == "consumer_timeout"]

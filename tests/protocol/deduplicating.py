"""Messages that say what they are, and exchanges that take them once."""

from __future__ import annotations

from typing import Any

from broker.wire.methods import shortstr
from broker.wire.properties import HEADERS, MESSAGE_ID
from broker.wire.table import Field, Table, encode_table
from tests.protocol.client import Basic, Client, Exchange, Queue, text

KIND = "x-message-deduplication"
ON: Table = {KIND: Field("bool", value=True)}


def number(value: int) -> Field:
    return Field("signedint", value)


def marked(key: object, **others: Field) -> dict[str, Any]:
    """What makes `Client.publish` say that a message is this."""
    field = key if isinstance(key, Field) else text(str(key))
    table = {"x-deduplication-header": field, **{k.replace("_", "-"): v for k, v in others.items()}}
    return {"flags": HEADERS, "properties": encode_table(table)}


def called(message_id: str) -> dict[str, Any]:
    return {"flags": MESSAGE_ID, "properties": shortstr(message_id)}


def exchange(
    client: Client, name: str = "x", kind: str = KIND, queue: str = "q", **arguments: Field
) -> None:
    """An exchange with one queue."""
    table = {key.replace("_", "-"): field for key, field in arguments.items()}
    client.ask(Exchange.Declare, exchange=name, exchange_type=kind, arguments=table)
    client.queue(queue)
    client.ask(Queue.Bind, queue=queue, exchange=name, routing_key="k")


def drain(client: Client, queue: str = "q", channel: int = 2) -> list[bytes]:
    """What is in a queue, which is emptied."""
    tag = client.consume(queue, channel, no_ack=True)
    bodies = client.bodies(channel)
    client.ask(Basic.Cancel, channel, consumer_tag=tag)
    return bodies

"""Definitions as records: what was declared and lasts, as field tables.

Queues are named by ids that are never reused, so that what is written of a queue cannot be taken
for another of the same name. A binding names its queue by id too.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from broker.core.exchange import Destination, Exchange
from broker.core.queue import Queue
from broker.core.records import Kind
from broker.wire.table import Field, Table, encode_table

if TYPE_CHECKING:
    from broker.core.broker import Broker
    from broker.core.lasting import Lasting
    from broker.core.vhost import VHost

DELETIONS = frozenset({Kind.EXCHANGE_DELETED, Kind.QUEUE_DELETED, Kind.BINDING_DELETED})
"""Records that take a definition away; their table is the same, or the part of it that names it."""


def vhost_table(name: str) -> bytes:
    """A virtual host."""
    return encode_table({"name": _text(name)})


def exchange_table(exchange: Exchange) -> bytes:
    """A durable exchange."""
    return encode_table(
        {
            "vhost": _text(exchange.vhost_name),
            "name": _text(exchange.name),
            "type": _text(exchange.type),
            "auto_delete": Field("bool", exchange.auto_delete),
            "internal": Field("bool", exchange.internal),
            "arguments": Field("table", exchange.arguments),
        }
    )


def queue_table(queue: Queue) -> bytes:
    """A durable queue."""
    return encode_table(
        {
            "id": Field("long", _id_of(queue)),
            "vhost": _text(queue.vhost_name),
            "name": _text(queue.name),
            "auto_delete": Field("bool", queue.auto_delete),
            "arguments": Field("table", queue.arguments),
        }
    )


def binding_table(source: Exchange, destination: Destination, key: str, arguments: Table) -> bytes:
    """A binding between durable ones."""
    table = {
        "vhost": _text(source.vhost_name),
        "source": _text(source.name),
        "key": _text(key),
        "arguments": Field("table", arguments),
    }
    if isinstance(destination, Queue):
        table["queue"] = Field("long", _id_of(destination))
    else:
        table["exchange"] = _text(destination.name)
    return encode_table(table)


def key_of(kind: Kind, table: Mapping[str, Field]) -> Hashable:
    """What tells definitions apart: a later one with the same key replaces it, or deletes it."""
    if kind in (Kind.QUEUE, Kind.QUEUE_DELETED):
        return queue_key(_number(table, "id"))
    if kind in (Kind.EXCHANGE, Kind.EXCHANGE_DELETED):
        return exchange_key(_string(table, "vhost"), _string(table, "name"))
    if kind in (Kind.BINDING, Kind.BINDING_DELETED):
        return binding_key(encode_table(table))
    return vhost_key(_string(table, "name"))


def vhost_key(name: str) -> Hashable:
    """The key of a virtual host."""
    return "vhost", name


def exchange_key(vhost: str, name: str) -> Hashable:
    """The key of an exchange."""
    return "exchange", vhost, name


def queue_key(queue_id: int) -> Hashable:
    """The key of a queue."""
    return "queue", queue_id


def binding_key(table: bytes) -> Hashable:
    """The key of a binding: all of it."""
    return "binding", table


def _id_of(queue: Queue) -> int:
    assert queue.lasting is not None
    return queue.lasting.id


def make_all(
    broker: Broker, tables: Sequence[tuple[Kind, Table]], lasting: Callable[[int], Lasting]
) -> dict[int, Queue]:
    """Makes everything that these say, in the order in which it can be made, and returns the
    queues by id. `lasting` is what is known of a queue by its id. A binding whose ends are gone is
    left out."""
    by_kind: dict[Kind, list[Table]] = {}
    for kind, table in tables:
        by_kind.setdefault(kind, []).append(table)
    for table in by_kind.get(Kind.VHOST, []):
        broker.add_vhost(_string(table, "name"))
    for table in by_kind.get(Kind.EXCHANGE, []):
        _make_exchange(broker.add_vhost(_string(table, "vhost")), table)
    queues = {}
    for table in by_kind.get(Kind.QUEUE, []):
        queue = _make_queue(broker, broker.add_vhost(_string(table, "vhost")), table)
        queue.lasting = lasting(_number(table, "id"))
        queues[queue.lasting.id] = queue
    for table in by_kind.get(Kind.BINDING, []):
        _make_binding(broker.add_vhost(_string(table, "vhost")), table, queues)
    return queues


def _make_exchange(vhost: VHost, table: Table) -> None:
    exchange = Exchange(
        vhost.name,
        _string(table, "name"),
        _string(table, "type"),
        durable=True,
        auto_delete=table["auto_delete"].value is True,
        internal=table["internal"].value is True,
        arguments=cast(Table, table["arguments"].value),
    )
    vhost.exchanges[exchange.name] = exchange


def _make_queue(broker: Broker, vhost: VHost, table: Table) -> Queue:
    queue = Queue(
        broker,
        vhost.name,
        _string(table, "name"),
        durable=True,
        auto_delete=table["auto_delete"].value is True,
        arguments=cast(Table, table["arguments"].value),
    )
    vhost.queues[queue.name] = queue
    return queue


def _make_binding(vhost: VHost, table: Table, queues: Mapping[int, Queue]) -> None:
    source = vhost.exchanges.get(_string(table, "source"))
    destination: Destination | None
    if "queue" in table:
        destination = queues.get(_number(table, "queue"))
    else:
        destination = vhost.exchanges.get(_string(table, "exchange"))
    if source is not None and destination is not None:
        arguments = cast(Table, table["arguments"].value)
        vhost.bind(source, destination, _string(table, "key"), arguments)


def _text(value: str) -> Field:
    return Field("longstr", value)


def _string(table: Mapping[str, Field], name: str) -> str:
    return cast(str, table[name].value)


def _number(table: Mapping[str, Field], name: str) -> int:
    return cast(int, table[name].value)

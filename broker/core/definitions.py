"""Definitions as records: what was declared and lasts, as field tables.

Queues are named by ids that are never reused, so that what is written of a queue cannot be taken
for another of the same name. A binding names its queue by id too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

from broker.core.delayed import Delayed
from broker.core.exchange import Destination, Exchange
from broker.core.history import History
from broker.core.policies import Policy, make_policy, policy_text
from broker.core.priorities import PriorityQueue, make_queue
from broker.core.queue import Queue
from broker.core.records import Kind
from broker.core.users import Permission, User
from broker.wire.table import Field, Table, encode_table

if TYPE_CHECKING:
    from broker.core.broker import Broker
    from broker.core.lasting import Lasting
    from broker.core.vhost import VHost

_DELETED = {
    Kind.EXCHANGE: Kind.EXCHANGE_DELETED,
    Kind.QUEUE: Kind.QUEUE_DELETED,
    Kind.BINDING: Kind.BINDING_DELETED,
    Kind.USER: Kind.USER_DELETED,
    Kind.POLICY: Kind.POLICY_DELETED,
}
DELETIONS = frozenset(_DELETED.values())
"""Records that take a definition away; their table is the same, or the part of it that names it."""


class Definition(NamedTuple):
    """Something that lasts, as it is written: `table` says all of it, `key` tells it apart."""

    key: Hashable
    kind: Kind
    table: bytes

    @property
    def deletion(self) -> Kind:
        """The kind of the record that takes it away."""
        return _DELETED[self.kind]


def vhost_definition(name: str) -> Definition:
    """A virtual host."""
    return _definition(Kind.VHOST, {"name": _text(name)})


def user_definition(user: User) -> Definition:
    """A user, with the salted hash of the password."""
    hashed = user.password_hash
    return _definition(
        Kind.USER,
        {
            "name": _text(user.name),
            "password_hash": Field("void", None) if hashed is None else Field("binary", hashed),
            "tags": Field("array", [_text(tag) for tag in sorted(user.tags)]),
            "permissions": Field(
                "array",
                [
                    Field(
                        "table",
                        {
                            "vhost": _text(vhost),
                            "configure": _text(permission.configure),
                            "write": _text(permission.write),
                            "read": _text(permission.read),
                        },
                    )
                    for vhost, permission in user.permissions.items()
                ],
            ),
            "loopback_only": Field("bool", user.loopback_only),
        },
    )


def policy_definition(vhost: str, policy: Policy) -> Definition:
    """A policy, or an operator policy, of this virtual host."""
    return _definition(
        Kind.POLICY,
        {
            "vhost": _text(vhost),
            "name": _text(policy.name),
            "is_operator": Field("bool", policy.is_operator),
            "value": _text(policy_text(policy)),
        },
    )


def exchange_definition(exchange: Exchange) -> Definition:
    """A durable exchange."""
    table = {
        "vhost": _text(exchange.vhost_name),
        "name": _text(exchange.name),
        "type": _text(exchange.type),
        "auto_delete": Field("bool", exchange.auto_delete),
        "internal": Field("bool", exchange.internal),
        "arguments": Field("table", exchange.arguments),
    }
    if exchange.window_id is not None:
        table["window"] = Field("long", exchange.window_id)
    return _definition(Kind.EXCHANGE, table)


def queue_definition(queue: Queue) -> Definition:
    """A durable queue, or what a durable exchange keeps."""
    table = {
        "id": Field("long", _id_of(queue)),
        "vhost": _text(queue.vhost_name),
        "name": _text(queue.name),
        "auto_delete": Field("bool", queue.auto_delete),
        "arguments": Field("table", queue.arguments),
    }
    if isinstance(queue, History):
        table["exchange"] = _text(queue.exchange.name)
    elif isinstance(queue, Delayed):
        table["delayed_at"] = _text(queue.exchange.name)
    if isinstance(queue, PriorityQueue):
        # By priority: the ids that its messages have in the log, beside its own.
        ids = queue.stored_lanes()
        table["lanes"] = Field("table", {str(p): Field("long", ids[p]) for p in ids})
    return _definition(Kind.QUEUE, table)


def binding_definition(
    source: Exchange, destination: Destination, key: str, arguments: Table
) -> Definition:
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
    return _definition(Kind.BINDING, table)


def _definition(kind: Kind, table: Table) -> Definition:
    return Definition(key_of(kind, table), kind, encode_table(table))


def key_of(kind: Kind, table: Mapping[str, Field]) -> Hashable:
    """What tells definitions apart: a later one with the same key replaces it, or deletes it."""
    if kind in (Kind.QUEUE, Kind.QUEUE_DELETED):
        return "queue", _number(table, "id")
    if kind in (Kind.EXCHANGE, Kind.EXCHANGE_DELETED):
        return "exchange", _string(table, "vhost"), _string(table, "name")
    if kind in (Kind.BINDING, Kind.BINDING_DELETED):
        # A binding is the same in whatever order its arguments come.
        arguments = cast(Table, table["arguments"].value)
        in_order = Field("table", dict(sorted(arguments.items())))
        return "binding", encode_table({**table, "arguments": in_order})
    if kind in (Kind.USER, Kind.USER_DELETED):
        return "user", _string(table, "name")
    if kind in (Kind.POLICY, Kind.POLICY_DELETED):
        is_operator = table["is_operator"].value is True
        return "policy", _string(table, "vhost"), is_operator, _string(table, "name")
    return "vhost", _string(table, "name")


def _id_of(queue: Queue) -> int:
    assert queue.lasting is not None
    return queue.lasting.id


def make_all(
    broker: Broker, tables: Sequence[tuple[Kind, Table]], lasting: Callable[[int], Lasting]
) -> dict[int, Queue]:
    """Makes everything that these say, in the order in which it can be made, and returns the
    queues by id. `lasting` is what is known of a queue by its id. A binding whose ends are gone is
    left out. Raises PolicyError for a policy that is none to this version."""
    by_kind: dict[Kind, list[Table]] = {}
    for kind, table in tables:
        by_kind.setdefault(kind, []).append(table)
    for table in by_kind.get(Kind.VHOST, []):
        broker.add_vhost(_string(table, "name"))
    for table in by_kind.get(Kind.USER, []):
        user = _make_user(table)
        broker.users[user.name] = user
    for table in by_kind.get(Kind.POLICY, []):
        _make_policy(broker.add_vhost(_string(table, "vhost")), table)
    for table in by_kind.get(Kind.EXCHANGE, []):
        _make_exchange(broker.add_vhost(_string(table, "vhost")), table)
    for vhost in broker.vhosts.values():
        for exchange in vhost.exchanges.values():
            vhost.policies.apply(exchange)
    queues: dict[int, Queue] = {}
    for table in by_kind.get(Kind.QUEUE, []):
        vhost = broker.add_vhost(_string(table, "vhost"))
        queue: Queue | None
        if "exchange" in table:
            queue = _make_history(broker, vhost.exchanges.get(_string(table, "exchange")))
        elif "delayed_at" in table:
            queue = _make_delayed(vhost, vhost.exchanges.get(_string(table, "delayed_at")))
        else:
            queue = _make_queue(broker, vhost, table)
        if queue is not None:
            queue.lasting = lasting(_number(table, "id"))
            queues[queue.lasting.id] = queue
        if isinstance(queue, PriorityQueue):
            for priority, queue_id in _lanes_of(table).items():
                queues[queue_id] = queue.add_lane(priority, lasting(queue_id))
    for table in by_kind.get(Kind.BINDING, []):
        _make_binding(broker.add_vhost(_string(table, "vhost")), table, queues)
    return queues


def ids_of(table: Table) -> list[int]:
    """The ids of a queue in the log."""
    return [_number(table, "id"), *_lanes_of(table).values()]


def highest_id(tables: Sequence[tuple[Kind, Table]]) -> int:
    """The highest id that these give to anything; 0 if they give none."""
    ids = [_number(table, "window") for _, table in tables if "window" in table]
    return max(
        [*ids, *(max(ids_of(table)) for kind, table in tables if kind is Kind.QUEUE)], default=0
    )


def _lanes_of(table: Table) -> dict[int, int]:
    lanes = cast(Table, table["lanes"].value) if "lanes" in table else {}
    return {int(priority): cast(int, field.value) for priority, field in lanes.items()}


def _make_user(table: Table) -> User:
    permissions = {}
    for item in cast(list[Field], table["permissions"].value):
        allowed = cast(Table, item.value)
        permissions[_string(allowed, "vhost")] = Permission(
            _string(allowed, "configure"), _string(allowed, "write"), _string(allowed, "read")
        )
    return User(
        _string(table, "name"),
        cast("bytes | None", table["password_hash"].value),
        frozenset(cast(str, tag.value) for tag in cast(list[Field], table["tags"].value)),
        permissions,
        table["loopback_only"].value is True,
    )


def _make_policy(vhost: VHost, table: Table) -> None:
    value = cast(dict[str, object], json.loads(_string(table, "value")))
    is_operator = table["is_operator"].value is True
    vhost.policies.restore(make_policy(_string(table, "name"), value, is_operator=is_operator))


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
    if "window" in table:
        exchange.window_id = _number(table, "window")
    vhost.exchanges[exchange.name] = exchange


def _make_queue(broker: Broker, vhost: VHost, table: Table) -> Queue:
    queue = make_queue(
        broker,
        vhost.name,
        _string(table, "name"),
        durable=True,
        auto_delete=table["auto_delete"].value is True,
        arguments=cast(Table, table["arguments"].value),
    )
    vhost.queues[queue.name] = queue
    return queue


def _make_history(broker: Broker, exchange: Exchange | None) -> History | None:
    if exchange is None or not exchange.router.history_length:
        return None
    exchange.history = History(broker, exchange)
    return exchange.history


def _make_delayed(vhost: VHost, exchange: Exchange | None) -> Delayed | None:
    if exchange is None:
        return None
    exchange.delayed = Delayed(vhost.broker, exchange)
    vhost.has_delayed = True
    return exchange.delayed


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

"""A declared exchange: its properties, and the router of its type behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from broker.errors import AMQPError, ReplyCode
from broker.wire.table import Field, Table, type_class
from exchanges import EXCHANGE_TYPES
from exchanges import Exchange as Router

if TYPE_CHECKING:
    from broker.core.queue import Queue

Destination: TypeAlias = "Queue | Exchange"


def check_type(type_name: str) -> None:
    """Raises COMMAND_INVALID for an unknown exchange type."""
    if type_name not in EXCHANGE_TYPES:
        raise AMQPError(ReplyCode.COMMAND_INVALID, f"unknown exchange type '{type_name}'")


class Exchange:
    """An exchange of one virtual host. `alternate` names where unrouted messages go."""

    __slots__ = (
        "alternate",
        "arguments",
        "auto_delete",
        "durable",
        "internal",
        "name",
        "router",
        "type",
        "vhost_name",
    )

    def __init__(
        self,
        vhost_name: str,
        name: str,
        type_name: str,
        *,
        durable: bool = False,
        auto_delete: bool = False,
        internal: bool = False,
        arguments: Table | None = None,
    ) -> None:
        self.vhost_name = vhost_name
        self.name = name
        self.type = type_name
        self.durable = durable
        self.auto_delete = auto_delete
        self.internal = internal
        self.arguments: Table = arguments or {}
        alternate = self.arguments.get("alternate-exchange")
        self.alternate = str(alternate.value) if alternate else None
        self.router: Router[Destination] = EXCHANGE_TYPES[type_name]()


def comparable(table: Table) -> dict[str, object]:
    """A table as `exchanges` compares it: values of the same class of types are equal if they are
    the same value; None stands for void, which in a binding means presence. `x-match` stays as
    it is, since the error text about it names its wire type."""
    return {
        name: field if name == "x-match" else _comparable(field) for name, field in table.items()
    }


def _comparable(field: Field) -> object:
    if field.type == "void":
        return None
    value = field.value
    if isinstance(value, dict):
        value = tuple(sorted((name, _comparable(inner)) for name, inner in value.items()))
    elif isinstance(value, list):
        value = tuple(map(_comparable, value))
    return type_class(field.type), value

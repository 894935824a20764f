"""A declared exchange: its properties, and the router of its type behind them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

from broker.core.deduplication.asked import DEDUPLICATION
from broker.errors import AMQPError, ReplyCode
from broker.wire.table import Field, Table, encode_table, plain
from exchanges import EXCHANGE_TYPES, ExchangeArgumentError
from exchanges import Exchange as Router

if TYPE_CHECKING:
    from broker.core.deduplication.duplicates import Duplicates
    from broker.core.delayed import Delayed
    from broker.core.history import History
    from broker.core.queue import Queue

Destination: TypeAlias = "Queue | Exchange"

DELAYED_MESSAGE = "x-delayed-message"
"""The type of exchanges that route as another type does, when messages are due."""
PREDECLARED = (
    ("amq.direct", "direct", False),
    ("amq.fanout", "fanout", False),
    ("amq.topic", "topic", False),
    ("amq.headers", "headers", False),
    ("amq.match", "headers", False),
    ("amq.rabbitmq.trace", "topic", True),
)
"""(name, type, internal) of the exchanges every virtual host has, beside the default one."""
_QUEUES_ONLY = frozenset({"x-local-random"})
"""Exchange types to which no exchange can be bound."""


def is_type(name: str) -> bool:
    """Whether there are exchanges of this type."""
    return name in EXCHANGE_TYPES or name in (DELAYED_MESSAGE, DEDUPLICATION)


def check_type(type_name: str) -> None:
    """Raises COMMAND_INVALID for an unknown exchange type."""
    if not is_type(type_name):
        raise AMQPError(ReplyCode.COMMAND_INVALID, f"unknown exchange type '{type_name}'")


def check_destination(source: Exchange, destination: Destination) -> None:
    """Raises PRECONDITION_FAILED for an exchange where only queues can be bound."""
    if source.routing_type in _QUEUES_ONLY and isinstance(destination, Exchange):
        raise AMQPError(ReplyCode.PRECONDITION_FAILED, "Destination not found")


def label_of(destination: Destination) -> str:
    """What tells a destination apart in its virtual host, in every run of the broker."""
    kind = "exchange" if isinstance(destination, Exchange) else "queue"
    return f"{kind} {destination.name}"


class Exchange:
    """An exchange of one virtual host. `alternate` names where unrouted messages go; `policy` is
    the definition that holds for it. It routes as its `routing_type` does, and if it `delays`, what
    is to be delayed waits here until then.

    Raises PRECONDITION_FAILED for arguments that its type does not take, COMMAND_INVALID for an
    unknown type in them.
    """

    __slots__ = (
        "alternate",
        "arguments",
        "auto_delete",
        "declared_type",
        "delayed",
        "delays",
        "duplicates",
        "durable",
        "history",
        "internal",
        "name",
        "policy",
        "router",
        "routing_type",
        "type",
        "vhost_name",
        "window_id",
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
        # That of the one whose messages wait here, if they do.
        self.declared_type = _declared_type(type_name, self.arguments)
        self.routing_type = self.declared_type
        if self.declared_type == DEDUPLICATION:
            # As in the plugin: bindings have no say.
            self.routing_type = "fanout"
        self.router: Router[Destination] = _make_router(self.routing_type, self.arguments)
        # What is kept for who is bound later; who makes the exchange, sets it.
        self.history: History | None = None
        # What waits here; None until something does.
        self.delayed: Delayed | None = None
        # What it has taken lately, where that matters, and what that is called in the log.
        self.duplicates: Duplicates | None = None
        self.window_id: int | None = None
        self.apply_policy({})

    def apply_policy(self, definition: Mapping[str, object]) -> None:
        """Policies say this for it from now on; its arguments come first."""
        self.policy = definition
        argument = self.arguments.get("alternate-exchange")
        alternate = argument.value if argument else definition.get("alternate-exchange")
        self.alternate: str | None = None if alternate is None else str(alternate)
        is_delayed = definition.get("delayed-message") is True
        self.delays = is_delayed or self.type == DELAYED_MESSAGE


def _declared_type(type_name: str, arguments: Table) -> str:
    """Texts of RabbitMQ's delayed message plugin (rabbit_exchange_type_delayed_message)."""
    if type_name != DELAYED_MESSAGE:
        return type_name
    field = arguments.get("x-delayed-type")
    if field is None or field.type not in ("longstr", "binary"):
        raise _invalid("'x-delayed-type' must be an existing exchange type")
    value = field.value
    name = value.decode("latin-1") if isinstance(value, bytes) else str(value)
    if name == DELAYED_MESSAGE:
        raise _invalid(f"'{DELAYED_MESSAGE}' can't be used for 'x-delayed-type'")
    check_type(name)
    return name


def _invalid(text: str) -> AMQPError:
    return AMQPError(ReplyCode.PRECONDITION_FAILED, f"Invalid argument, {text}")


def _make_router(type_name: str, arguments: Table) -> Router[Destination]:
    try:
        return EXCHANGE_TYPES[type_name].from_arguments(arguments, label_of)
    except ExchangeArgumentError as error:
        raise AMQPError(ReplyCode.PRECONDITION_FAILED, str(error)) from None


class _Argument:
    """The value of a binding argument. It equals a header of the same value, and another argument
    only if that is of the same wire type: the type is part of a binding's identity."""

    __slots__ = ("_octets", "_plain")

    def __init__(self, field: Field) -> None:
        # Octets equal themselves, as a float that is not a number does not.
        self._octets = encode_table({"": field})
        self._plain = plain(field)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, _Argument):
            return self._octets == other._octets
        return self._plain == other

    def __hash__(self) -> int:
        return hash(str(self._plain))


def binding_arguments(table: Table) -> dict[str, object]:
    """The arguments of a binding for `exchanges`; None stands for void, which means presence.
    `x-match` stays a field, since the error text about it names its type."""
    return {name: _binding_argument(name, field) for name, field in table.items()}


def _binding_argument(name: str, field: Field) -> object:
    if name == "x-match":
        return field
    return None if field.type == "void" else _Argument(field)

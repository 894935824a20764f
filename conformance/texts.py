"""The reply texts that RabbitMQ composes from names, whole and cut as they travel."""

from __future__ import annotations

from conformance.fields import octets

DEFAULT_EXCHANGE = "ACCESS_REFUSED - operation not permitted on the default exchange"
NO_DECLARED_QUEUE = "NOT_FOUND - no previously declared queue"


def cut(text: str) -> str:
    """A reply text as it fits its short string: 255 octets, the last three of them dots."""
    raw = octets(text)
    return text if len(raw) <= 255 else raw[:252].decode("utf-8", "surrogateescape") + "..."


def no_queue(queue: str) -> str:
    """404 for a missing queue."""
    return cut(f"NOT_FOUND - no queue '{queue}' in vhost '/'")


def no_exchange(exchange: str) -> str:
    """404 for a missing exchange."""
    return cut(f"NOT_FOUND - no exchange '{exchange}' in vhost '/'")


def locked(queue: str) -> str:
    """405 for a queue that is exclusive to another connection, or not exclusive as asked for."""
    return cut(
        f"RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{queue}' in vhost '/'."
        " It could be originally declared on another connection or the exclusive property value"
        " does not match that of the original declaration."
    )


def inequivalent(argument: str, title: str, received: str, current: str) -> str:
    """406 for a redeclare; `title` is "queue 'q'" or "exchange 'x'", the values as RabbitMQ
    shows them."""
    return cut(
        f"PRECONDITION_FAILED - inequivalent arg '{argument}' for {title} in vhost '/':"
        f" received {received} but current is {current}"
    )


def invalid_argument(argument: str, queue: str, wrong: str) -> str:
    """406 for an argument of queue.declare; `wrong` is the Erlang term that RabbitMQ shows."""
    return cut(
        f"PRECONDITION_FAILED - invalid arg '{argument}' for queue '{queue}' in vhost '/': {wrong}"
    )


def in_use(title: str) -> str:
    """406 for delete with if_unused."""
    return cut(f"PRECONDITION_FAILED - {title} in vhost '/' in use")

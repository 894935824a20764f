"""What holds for a queue: its arguments, and what policies add to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from broker.wire.table import Table

DROP_HEAD = "drop-head"
REJECT_PUBLISH = "reject-publish"
REJECT_PUBLISH_DLX = "reject-publish-dlx"
AT_LEAST_ONCE = "at-least-once"


class QueueRules(NamedTuple):
    """The rules of one queue. None stands for no limit, and for what is not set. Durations are in
    milliseconds."""

    message_ttl: int | None = None
    expires: int | None = None
    max_length: int | None = None
    max_length_bytes: int | None = None
    """Octets of bodies."""
    overflow: str = DROP_HEAD
    dead_letter_exchange: str | None = None
    dead_letter_routing_key: str | None = None
    dead_letter_strategy: str = "at-most-once"
    delivery_limit: int | None = None
    consumer_timeout: int | None = None
    """How long a delivery may stay unsettled; 0 for ever, as None does."""
    consumer_timeout_action: str | None = None
    """What becomes of it then; None for what the broker is set to."""

    @property
    def has_limit(self) -> bool:
        """Whether the length of the queue is bounded."""
        return self.max_length is not None or self.max_length_bytes is not None

    @property
    def refuses(self) -> bool:
        """Whether what is published to a full queue is refused, and not what is there dropped."""
        return self.overflow != DROP_HEAD


LEAST = frozenset(
    {
        "message-ttl",
        "expires",
        "max-length",
        "max-length-bytes",
        "delivery-limit",
        "consumer-timeout",
    }
)
"""Where both an argument and a policy say something, the lower one holds; for all others the
argument does (RabbitMQ, "Policies")."""

_FIELDS = {name.replace("_", "-"): name for name in QueueRules._fields}


def rules_of(arguments: Table, policy: Mapping[str, object] | None = None) -> QueueRules:
    """The rules of a queue with these (checked) arguments, and this definition of a policy."""
    values: dict[str, object] = {}
    for key in _FIELDS:
        field = arguments.get(f"x-{key}")
        if field is not None:
            values[key] = field.value
    for key, value in (policy or {}).items():
        if key not in _FIELDS:
            continue
        if key not in values:
            values[key] = value
        elif key in LEAST:
            values[key] = _least(values[key], value)
    limit = values.get("delivery-limit")
    if isinstance(limit, int) and limit < 0:
        # RabbitMQ: a negative one is none.
        del values["delivery-limit"]
    found: dict[str, Any] = {_FIELDS[key]: value for key, value in values.items()}
    return QueueRules(**found)


def _least(one: object, other: object) -> object:
    assert isinstance(one, int)
    assert isinstance(other, int)
    return min(one, other)

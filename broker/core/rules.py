"""What holds for a queue: its arguments, and what policies add to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from broker.core.arguments import EXPIRY_MAX_MS, is_quorum
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
    delayed_retry_type: str = "disabled"
    """Which messages wait that come back: `all`, those that `failed` (nack and reject), those that
    were `returned` otherwise, or none (`disabled`)."""
    delayed_retry_min: int = 1000
    delayed_retry_max: int | None = None
    delayed_retry_multiplier: float | None = None
    """How much longer each wait is; None for waits in proportion to their number."""
    consumer_timeout: int | None = None
    """How long a delivery may stay unsettled; 0 for ever, as None does."""
    consumer_timeout_action: str | None = None
    """What becomes of it then; None for what the broker is set to."""
    counts_deliveries: bool = False
    """Whether a redelivered message says how often it came back (`x-delivery-count`): in a quorum
    queue, and where that is limited."""

    def delays(self, *, failed: bool) -> bool:
        """Whether messages wait that come back so."""
        kind = "failed" if failed else "returned"
        return self.delayed_retry_type in ("all", kind)

    @property
    def has_limit(self) -> bool:
        """Whether the length of the queue is bounded."""
        return self.max_length is not None or self.max_length_bytes is not None

    @property
    def keeps_letters(self) -> bool:
        """Whether what dies must not be lost on its way: at-least-once, which needs an overflow of
        reject-publish as in RabbitMQ."""
        is_wanted = self.dead_letter_strategy == AT_LEAST_ONCE
        return is_wanted and self.overflow == REJECT_PUBLISH and bool(self.dead_letter_exchange)

    @property
    def refuses(self) -> bool:
        """Whether what is published to a full queue is refused."""
        return self.has_limit and self.overflow != DROP_HEAD

    @property
    def drops(self) -> bool:
        """Whether what is in a full queue is dropped."""
        return self.has_limit and self.overflow == DROP_HEAD


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

NO_RULES = QueueRules()
"""Those of a queue without arguments and policies."""

_FIELDS = {name.replace("_", "-"): name for name in QueueRules._fields if "counts" not in name}
RULE_ARGUMENTS = frozenset(f"x-{key}" for key in _FIELDS)
"""The arguments that are rules: they may change while a queue is there."""
_DURATIONS = frozenset(
    {"message-ttl", "expires", "consumer-timeout", "delayed-retry-min", "delayed-retry-max"}
)


def rules_of(arguments: Table, policy: Mapping[str, object] | None = None) -> QueueRules:
    """The rules of a queue with these (checked) arguments, and this definition of a policy."""
    if not arguments and not policy:
        return NO_RULES
    values: dict[str, object] = {}
    for key in _FIELDS:
        field = arguments.get(f"x-{key}")
        if field is not None:
            values[key] = field.value
    for key, value in (policy or {}).items():
        if key not in _FIELDS:
            continue
        # RabbitMQ bounds only arguments; ten years are as good as more.
        bounded = lower(key, value, EXPIRY_MAX_MS) if key in _DURATIONS else value
        if key not in values:
            values[key] = bounded
        elif key in LEAST:
            values[key] = lower(key, values[key], bounded)
    limit = values.get("delivery-limit")
    if isinstance(limit, int) and limit < 0:
        del values["delivery-limit"]
    found: dict[str, Any] = {_FIELDS[key]: value for key, value in values.items()}
    counts = is_quorum(arguments) or "delivery-limit" in values
    return QueueRules(**found, counts_deliveries=counts)


def lower(key: str, one: object, other: object) -> int:
    """The lower one of two limits. A negative delivery limit is none (RabbitMQ 4)."""
    assert isinstance(one, int)
    assert isinstance(other, int)
    if key == "delivery-limit" and min(one, other) < 0:
        return max(one, other)
    return min(one, other)

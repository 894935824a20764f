"""The keys that the definition of a policy may have, and what their values may be. Texts as in
RabbitMQ (rabbit_policies, rabbit_mirror_queue_misc), where it has one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from broker.core.arguments import TIMEOUT_ACTIONS, is_max_age
from exchanges.erlang import erlang_term

Check = Callable[[object], bool]
"""Whether a value, as read from JSON, is allowed."""

NAME_MAX = 255
"""Octets of a name or routing key: they are short strings on the wire."""


def term(value: object) -> str:
    """A value read from JSON as RabbitMQ writes it in its texts."""
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        fields = (f"{term(name)} => {term(item)}" for name, item in value.items())
        return f"#{{{','.join(fields)}}}"
    if isinstance(value, list):
        return f"[{','.join(map(term, value))}]"
    if isinstance(value, str):
        # A half of a surrogate pair stands for no octets.
        return erlang_term(value.encode("utf-8", "replace"))
    return erlang_term(value)


def is_name(value: object) -> bool:
    """Whether this is a text of at most 255 octets."""
    if not isinstance(value, str):
        return False
    try:
        return len(value.encode()) <= NAME_MAX
    except UnicodeEncodeError:
        return False


def is_whole(value: object) -> bool:
    """Whether this is a whole number; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def _from(least: int, most: float = math.inf) -> Check:
    return lambda value: isinstance(value, int) and is_whole(value) and least <= value <= most


def _one_of(*values: object) -> Check:
    # An array and a dictionary have no hash.
    return lambda value: not isinstance(value, bool) and value in list(values)


def _is_multiplier(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 1 <= value < math.inf


_WHOLE = _from(0)

_DEDUPLICATION: dict[str, tuple[Check, str]] = {
    "message-deduplication": (
        lambda value: isinstance(value, bool),
        "message-deduplication value",
    ),
    "cache-size": (_from(1), "deduplication cache size"),
    "cache-ttl": (_from(1), "deduplication cache TTL"),
    "cache-persistence": (_one_of("disk", "memory"), "deduplication cache persistence"),
    "deduplication-header": (
        lambda value: is_name(value) and bool(value),
        "deduplication header name",
    ),
}
"""Also as RabbitMQ's deduplication plugin spells them, with `x-` in front."""
_KEYS: dict[str, tuple[Check, str]] = {
    "alternate-exchange": (is_name, "alternate exchange name"),
    "dead-letter-exchange": (is_name, "dead letter exchange name"),
    "dead-letter-routing-key": (is_name, "dead letter routing key"),
    "dead-letter-strategy": (_one_of("at-most-once", "at-least-once"), "dead letter strategy"),
    "message-ttl": (_WHOLE, "message TTL"),
    "expires": (_from(1), "queue expiry"),
    "max-length": (_WHOLE, "maximum length"),
    "max-length-bytes": (_WHOLE, "maximum length in bytes"),
    "max-in-memory-length": (_WHOLE, "maximum memory in bytes"),
    "max-in-memory-bytes": (_WHOLE, "maximum memory in bytes"),
    "overflow": (_one_of("drop-head", "reject-publish", "reject-publish-dlx"), "overflow value"),
    # RabbitMQ 4 takes a negative one, which is no limit.
    "delivery-limit": (is_whole, "delivery limit"),
    "consumer-timeout": (_WHOLE, "consumer timeout"),
    "consumer-timeout-action": (_one_of(*TIMEOUT_ACTIONS), "consumer timeout action"),
    "delayed-message": (lambda value: isinstance(value, bool), "delayed-message value"),
    "delayed-retry-type": (
        _one_of("disabled", "all", "failed", "returned"),
        "delayed-retry-type value",
    ),
    "delayed-retry-min": (_WHOLE, "minimum delay of a retry"),
    "delayed-retry-max": (_WHOLE, "maximum delay of a retry"),
    "delayed-retry-multiplier": (_is_multiplier, "delayed-retry-multiplier value"),
    "queue-mode": (_one_of("default", "lazy"), "queue-mode value"),
    "queue-version": (_one_of(1, 2), "queue-version value"),
    "queue-master-locator": (
        _one_of("min-masters", "client-local", "random"),
        "queue-master-locator value",
    ),
    "queue-leader-locator": (
        _one_of("client-local", "balanced", "random", "least-leaders"),
        "queue leader locator value",
    ),
    "initial-cluster-size": (_WHOLE, "cluster size"),
    "target-group-size": (_from(1), "target group size"),
    "max-age": (lambda value: isinstance(value, str) and is_max_age(value), "max age"),
    "stream-max-segment-size-bytes": (_WHOLE, "segment size"),
    "stream-filter-size-bytes": (_from(16, 255), "filter size"),
    "ha-mode": (_one_of("all", "exactly", "nodes"), "ha-mode value"),
    "ha-params": (lambda value: is_whole(value) or isinstance(value, list), "ha-params value"),
    "ha-sync-mode": (_one_of("manual", "automatic"), "ha-sync-mode value"),
    "ha-sync-batch-size": (_from(1), "ha-sync-batch-size value"),
    "ha-promote-on-shutdown": (_one_of("always", "when-synced"), "ha-promote-on-shutdown value"),
    "ha-promote-on-failure": (_one_of("always", "when-synced"), "ha-promote-on-failure value"),
    "federation-upstream": (is_name, "federation upstream"),
    "federation-upstream-set": (is_name, "federation upstream set"),
    "federation-upstream-pattern": (lambda value: isinstance(value, str), "upstream pattern"),
    "shards-per-node": (_WHOLE, "number of shards"),
    "routing-key": (is_name, "routing key"),
    **{
        f"{prefix}{key}": (check, meaning)
        for prefix in ("", "x-")
        for key, (check, meaning) in _DEDUPLICATION.items()
    },
}
"""Every key of RabbitMQ 3.13 and the plugins that come with it, and those that are ours."""

OPERATOR_KEYS = frozenset(
    {
        "expires",
        "message-ttl",
        "max-length",
        "max-length-bytes",
        "max-in-memory-length",
        "max-in-memory-bytes",
        "delivery-limit",
        "queue-version",
        "overflow",
    }
)
"""What an operator policy may say."""

_IGNORED = frozenset(
    {
        "max-in-memory-length",
        "max-in-memory-bytes",
        "queue-mode",
        "queue-version",
        "queue-master-locator",
        "queue-leader-locator",
        "initial-cluster-size",
        "target-group-size",
        "max-age",
        "stream-max-segment-size-bytes",
        "stream-filter-size-bytes",
        "ha-mode",
        "ha-params",
        "ha-sync-mode",
        "ha-sync-batch-size",
        "ha-promote-on-shutdown",
        "ha-promote-on-failure",
        "federation-upstream",
        "federation-upstream-set",
        "federation-upstream-pattern",
        "shards-per-node",
        "routing-key",
    }
)
"""Of mirrors, streams, federation and shards, and of how RabbitMQ stores."""


def without_effect(definition: Mapping[str, object]) -> list[str]:
    """The keys of this definition that are accepted and do nothing."""
    return sorted(_IGNORED & definition.keys())


def wrong_definition(definition: object, *, is_operator: bool) -> str | None:
    """What is wrong with the definition of a policy, in one sentence; None if nothing is."""
    if not isinstance(definition, Mapping):
        return f"definition must be a dictionary: {term(definition)}"
    if not definition:
        return "no policy provided"
    unknown = {}
    for key in sorted(definition):
        value = definition[key]
        if key not in _KEYS or (is_operator and key not in OPERATOR_KEYS):
            unknown[key] = value
            continue
        is_allowed, meaning = _KEYS[key]
        if not is_allowed(value):
            return f"{term(value)} is not a valid {meaning}"
    if unknown:
        pairs = ",".join(f"{{{term(key)},{term(value)}}}" for key, value in unknown.items())
        return f"[{pairs}] are not recognised policy settings"
    if "ha-mode" not in definition and any(key.startswith("ha-") for key in definition):
        return (
            "ha-mode must be specified to specify ha-params, ha-sync-mode or ha-promote-on-shutdown"
        )
    return None

"""The arguments of queues, exchanges and consumers: what is allowed, and when two declarations
mean the same. Texts as in RabbitMQ (rabbit_amqqueue, rabbit_misc)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator

from broker.errors import AMQPError, ReplyCode, queue_title
from broker.wire.table import INTEGER_TYPES, Field, Table, plain
from exchanges.erlang import erlang_string, erlang_term

_CLASSIC = Field("longstr", "classic")
"""What a queue is that names no type."""
EXPIRY_MAX_MS = 315_360_000_000
"""Ten years of 365 days: RabbitMQ's largest TTL (rabbit_misc:check_expiry)."""
PRIORITY_MAX = 255
SHORTSTR_MAX = 255

Check = Callable[[Field, Table], "str | None"]
"""Takes a value and all arguments; returns what is wrong with it, as Erlang prints it."""


def _integer(field: Field) -> str | None:
    if field.type in INTEGER_TYPES:
        return None
    return f'"expected integer, got {field.type}"'


def _number(field: Field) -> int:
    assert isinstance(field.value, int)
    return field.value


def _check_non_negative(field: Field, _: Table) -> str | None:
    wrong = _integer(field)
    if wrong is None and _number(field) < 0:
        return f"{{value_negative,{field.value}}}"
    return wrong


def check_expiry(milliseconds: int) -> str | None:
    """What is wrong with a duration in milliseconds, or None."""
    if milliseconds < 0:
        return f"{{value_negative,{milliseconds}}}"
    if milliseconds > EXPIRY_MAX_MS:
        return f"{{value_too_large,{milliseconds}}}"
    return None


def _check_ttl(field: Field, _: Table) -> str | None:
    return _integer(field) or check_expiry(_number(field))


def _check_expires(field: Field, arguments: Table) -> str | None:
    wrong = _integer(field)
    if wrong is None and field.value == 0:
        return "{value_zero,0}"
    return wrong or _check_ttl(field, arguments)


def _check_priority(field: Field, arguments: Table) -> str | None:
    wrong = _check_non_negative(field, arguments)
    if wrong is None and _number(field) > PRIORITY_MAX:
        return f"{{max_value_exceeded,{field.value}}}"
    return wrong


def _check_boolean(field: Field, _: Table) -> str | None:
    return None if field.type == "bool" else f"{{unacceptable_type,{field.type}}}"


def _one_of(values: Iterable[str], wrong: str) -> Check:
    allowed = frozenset(values)

    def check(field: Field, _: Table) -> str | None:
        if field.type != "longstr":
            return f"{{unacceptable_type,{field.type}}}"
        return None if field.value in allowed else wrong

    return check


def _check_dlx(field: Field, _: Table) -> str | None:
    return None if field.type == "longstr" else f"{{unacceptable_type,{field.type}}}"


def _check_dlx_routing_key(field: Field, arguments: Table) -> str | None:
    if field.type != "longstr":
        return f"{{unacceptable_type,{field.type}}}"
    if len(str(field.value).encode("utf-8", "surrogateescape")) > SHORTSTR_MAX:
        return '"a routing key has 255 octets at most"'
    return None if "x-dead-letter-exchange" in arguments else "routing_key_but_no_dlx_defined"


def _check_queue_type(field: Field, _: Table) -> str | None:
    if field.type != "longstr":
        return f"{{unacceptable_type,{field.type}}}"
    if field.value == "stream":
        return '"streams are not supported by this broker"'
    if field.value not in ("classic", "quorum"):
        return erlang_string(f"unsupported queue type '{field.value}'")
    return None


def is_max_age(text: str) -> bool:
    """Whether this is an age as streams have it: a number and its unit."""
    return re.fullmatch("0*[1-9][0-9]*[YMDhms]", text) is not None


def _check_max_age(field: Field, _: Table) -> str | None:
    if field.type != "longstr":
        return f"{{unacceptable_type,{field.type}}}"
    return None if is_max_age(str(field.value)) else "invalid_max_age"


def _check_cluster_size(field: Field, _: Table) -> str | None:
    wrong = _integer(field)
    if wrong is None and field.value == 0:
        return "{value_zero,0}"
    return wrong or _check_non_negative(field, _)


def _check_queue_version(field: Field, arguments: Table) -> str | None:
    wrong = _check_non_negative(field, arguments)
    if wrong is None and field.value not in (1, 2):
        return erlang_string(f"unsupported queue version '{field.value}'")
    return wrong


def _check_queue_mode(field: Field, _: Table) -> str | None:
    if field.type != "longstr":
        return f"{{unacceptable_type,{field.type}}}"
    if field.value not in ("default", "lazy"):
        return erlang_string(f"unsupported queue mode '{field.value}'")
    return None


DISPATCHES = ("round-robin", "least-loaded")
REQUEUE = "requeue"
CANCEL_CONSUMER = "cancel-consumer"
CLOSE_CHANNEL = "close-channel"
TIMEOUT_ACTIONS = (REQUEUE, CANCEL_CONSUMER, CLOSE_CHANNEL)
_TIMEOUT_ARGUMENTS: dict[str, Check] = {
    "x-consumer-timeout": _check_non_negative,
    "x-consumer-timeout-action": _one_of(TIMEOUT_ACTIONS, "invalid_consumer_timeout_action"),
}


def _check_multiplier(field: Field, _: Table) -> str | None:
    if field.type not in (*INTEGER_TYPES, "float", "double"):
        return f'"expected number, got {field.type}"'
    assert isinstance(field.value, int | float)
    return None if 1 <= field.value < math.inf else '"expected a number from 1 on"'


def _check_positive(field: Field, arguments: Table) -> str | None:
    if field.type in ("longstr", "binary"):
        # As the deduplication plugin has it.
        return None if is_positive_text(field.value) else '"expected an integer greater than 0"'
    wrong = _check_non_negative(field, arguments)
    return "{value_zero,0}" if wrong is None and field.value == 0 else wrong


def is_positive_text(value: object) -> bool:
    """Whether this is the text of an integer from 1 on."""
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
    return re.fullmatch("0{0,999}[1-9][0-9]{0,17}", text, re.ASCII) is not None


def is_header_name(value: object) -> bool:
    """Whether a header can be called so."""
    return (
        isinstance(value, str) and 0 < len(value.encode("utf-8", "surrogateescape")) <= SHORTSTR_MAX
    )


def _check_header_name(field: Field, _: Table) -> str | None:
    if field.type != "longstr":
        return f"{{unacceptable_type,{field.type}}}"
    return None if is_header_name(field.value) else '"a header is called by 1 to 255 octets"'


def _check_key(field: Field, arguments: Table) -> str | None:
    """What messages are told apart by: the name of a header, or `routing-key`."""
    if field.type != "longstr":
        return f"{{unacceptable_type,{field.type}}}"
    if not 0 < len(str(field.value).encode("utf-8", "surrogateescape")) <= SHORTSTR_MAX:
        return '"expected the name of a header, or routing-key"'
    highest = arguments.get("x-max-priority")
    if highest is not None and highest.value:
        return '"a queue with x-max-priority has an order of its own"'
    return None


RETRY_TYPES = ("disabled", "all", "failed", "returned")
"""Which messages wait that come back."""

QUEUE_ARGUMENTS: dict[str, Check] = {
    "x-queue-type": _check_queue_type,
    "x-expires": _check_expires,
    "x-message-ttl": _check_ttl,
    "x-dead-letter-exchange": _check_dlx,
    "x-dead-letter-routing-key": _check_dlx_routing_key,
    "x-dead-letter-strategy": _one_of(("at-most-once", "at-least-once"), "invalid_dlx_strategy"),
    "x-max-length": _check_non_negative,
    "x-max-length-bytes": _check_non_negative,
    "x-max-in-memory-length": _check_non_negative,
    "x-max-in-memory-bytes": _check_non_negative,
    "x-max-priority": _check_priority,
    "x-overflow": _one_of(
        ("drop-head", "reject-publish", "reject-publish-dlx"), "invalid_overflow"
    ),
    "x-queue-mode": _check_queue_mode,
    "x-queue-version": _check_queue_version,
    "x-single-active-consumer": _check_boolean,
    "x-delivery-limit": lambda field, _: _integer(field),
    "x-quorum-initial-group-size": _check_cluster_size,
    "x-initial-cluster-size": _check_cluster_size,
    "x-max-age": _check_max_age,
    "x-stream-max-segment-size-bytes": _check_non_negative,
    "x-queue-leader-locator": _one_of(
        ("client-local", "balanced", "random", "least-leaders"), "invalid_queue_locator_arg"
    ),
    "x-delayed-retry-type": _one_of(RETRY_TYPES, "invalid_delayed_retry_type"),
    "x-delayed-retry-min": _check_ttl,
    "x-delayed-retry-max": _check_ttl,
    "x-delayed-retry-multiplier": _check_multiplier,
    "x-dispatch": _one_of(DISPATCHES, "invalid_dispatch"),
    "x-message-deduplication": _check_boolean,
    "x-cache-size": _check_positive,
    "x-cache-ttl": _check_positive,
    "x-cache-persistence": _one_of(("disk", "memory"), "invalid_cache_persistence"),
    "x-deduplication-header": _check_header_name,
    "x-group-by": _check_key,
    "x-fair-by": _check_key,
    **_TIMEOUT_ARGUMENTS,
}
"""Every queue argument that is checked, on every queue type: RabbitMQ's in its order, then ours."""

COMPARED_ARGUMENTS = (
    *[key for key in QUEUE_ARGUMENTS if key not in ("x-queue-type", *_TIMEOUT_ARGUMENTS)],
    "x-queue-type",
)
"""Those that a redeclaration compares, in order. RabbitMQ lets the consumer timeout differ."""


def check_queue_arguments(arguments: Table, name: str, vhost: str) -> None:
    """Raises PRECONDITION_FAILED for the first argument with a bad type or value."""
    for key, check in QUEUE_ARGUMENTS.items():
        field = arguments.get(key)
        wrong = check(field, arguments) if field else None
        if wrong:
            raise AMQPError(
                ReplyCode.PRECONDITION_FAILED,
                f"invalid arg '{key}' for {queue_title(name, vhost)}: {wrong}",
            )


CONSUMER_ARGUMENTS: dict[str, Check] = {
    "x-priority": lambda field, _: _integer(field),
    "x-cancel-on-ha-failover": _check_boolean,
    **_TIMEOUT_ARGUMENTS,
}
_STREAM_ARGUMENTS = ("x-stream-offset", "x-stream-filter", "x-stream-match-unfiltered")


def consumer_priority(arguments: Table, queue: str, vhost: str) -> int:
    """Checks the arguments of a consumer and returns its `x-priority`, 0 by default.

    Raises PRECONDITION_FAILED for a bad type, and for what belongs to streams.
    """
    title = queue_title(queue, vhost)
    for key, check in CONSUMER_ARGUMENTS.items():
        field = arguments.get(key)
        wrong = check(field, arguments) if field else None
        if wrong:
            raise AMQPError(
                ReplyCode.PRECONDITION_FAILED, f"invalid arg '{key}' for {title}: {wrong}"
            )
    for key in _STREAM_ARGUMENTS:
        if key in arguments:
            raise AMQPError(
                ReplyCode.PRECONDITION_FAILED,
                f"invalid arg '{key}' for {title} of queue type rabbit_classic_queue",
            )
    priority = arguments.get("x-priority")
    return _number(priority) if priority else 0


def assert_equal(key: str, title: str, received: object, current: object) -> None:
    """Compares one property of a redeclared queue or exchange; raises PRECONDITION_FAILED."""
    if received != current:
        raise AMQPError(ReplyCode.PRECONDITION_FAILED, inequality(key, title, received, current))


def inequality(key: str, title: str, received: object, current: object) -> str:
    """How RabbitMQ says that a property of a redeclared queue or exchange differs."""
    return (
        f"inequivalent arg '{key}' for {title}: "
        f"received '{_shown(received)}' but current is '{_shown(current)}'"
    )


def assert_arguments_equal(
    keys: Iterable[str], title: str, received: Table, current: Table
) -> None:
    """Compares these arguments of a redeclared queue or exchange; others may differ.

    Raises PRECONDITION_FAILED with the text of rabbit_misc:assert_args_equivalence/4.
    """
    for _, text in unequal_arguments(keys, title, received, current):
        raise AMQPError(ReplyCode.PRECONDITION_FAILED, text)


def unequal_arguments(
    keys: Iterable[str], title: str, received: Table, current: Table
) -> Iterator[tuple[str, str]]:
    """Those of these arguments that differ, each with the text that says so."""
    for key in keys:
        new, old = received.get(key), current.get(key)
        if new is None and old is None:
            continue
        if new is None or old is None:
            if key == "x-queue-type" and (new or old) == _CLASSIC:
                continue
            told, have = _described(new), _described(old)
        elif plain(new) != plain(old) or isinstance(new.value, float) != isinstance(
            old.value, float
        ):
            told, have = f"'{_shown(new.value)}'", f"'{_shown(old.value)}'"
        else:
            continue
        yield key, f"inequivalent arg '{key}' for {title}: received {told} but current is {have}"


def _described(field: Field | None) -> str:
    if field is None:
        return "none"
    return f"the value '{_shown(field.value)}' of type '{field.type}'"


def _shown(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return erlang_term(value)


def is_quorum(arguments: Table) -> bool:
    """Whether these declare a quorum queue, which keeps every message, persistent or not."""
    kind = arguments.get("x-queue-type")
    return kind is not None and kind.value == "quorum"

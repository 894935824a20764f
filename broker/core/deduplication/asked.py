"""What an exchange or queue is asked to do about duplicates: the arguments and keys of policies of
RabbitMQ's deduplication plugin (rabbitmq-message-deduplication) and of LavinMQ.

Texts about an exchange are the plugin's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from broker.core.arguments import EXPIRY_MAX_MS, is_header_name, is_positive_text
from broker.errors import AMQPError, ReplyCode
from broker.wire.table import INTEGER_TYPES, Field, Table

DEDUPLICATION: Final = "x-message-deduplication"
"""The argument that asks for it, and the type of an exchange that is for nothing else."""
CACHE_SIZE: Final = "x-cache-size"
CACHE_TTL: Final = "x-cache-ttl"
PERSISTENCE: Final = "x-cache-persistence"
HEADER: Final = "x-deduplication-header"
EXCHANGE_ARGUMENTS: Final = (DEDUPLICATION, CACHE_SIZE, CACHE_TTL, PERSISTENCE, HEADER)
"""What a redeclaration of an exchange compares."""
DEFAULT_SIZE: Final = 100_000
"""Ids that are remembered where nothing says how many: some 40 MB."""
SIZE_MAX: Final = 2**31 - 1
"""A larger size counts as this one. What memory there is bounds it before that."""
MESSAGE_ID: Final = ("message-id", "message_id")
"""What stands for the property, in the place of a header's name."""
PERSISTENCES: Final = ("disk", "memory")


class Deduplication(NamedTuple):
    """What is asked for: of the last ids, so many (`size`), none is to come again within `ttl`
    milliseconds (None for ever). With a size of 0, of a queue: none that is in there."""

    size: int
    ttl: int | None = None
    header: str = HEADER
    """The header that says what a message is, or one of MESSAGE_ID."""
    persists: bool = True
    """Whether it is to last where the exchange or queue does."""


def deduplication_of(
    arguments: Table, policy: Mapping[str, object], *, exchange_type: str | None = None
) -> Deduplication | None:
    """What these arguments and this definition of a policy ask for; None if nothing.
    `exchange_type` is None for a queue. Arguments come first. What is none of the values that are
    taken today has no effect: earlier versions did not look at it."""
    if not arguments and not policy and exchange_type != DEDUPLICATION:
        return None
    found = {key: value for key in EXCHANGE_ARGUMENTS if (value := policy.get(key)) is not None}
    for key in EXCHANGE_ARGUMENTS:
        # Leveret's own policies are named without the prefix, as others are.
        if (value := policy.get(key.removeprefix("x-"))) is not None:
            found[key] = value
        if (field := arguments.get(key)) is not None:
            found[key] = field.value
    if found.get(DEDUPLICATION) is not True and exchange_type != DEDUPLICATION:
        return None
    size, ttl = _whole(found.get(CACHE_SIZE)), _whole(found.get(CACHE_TTL))
    header = found.get(HEADER)
    if size is None and (ttl is not None or exchange_type is not None):
        size = DEFAULT_SIZE
    return Deduplication(
        0 if size is None else min(size, SIZE_MAX),
        None if ttl is None else min(ttl, EXPIRY_MAX_MS),
        _text(header) if is_header_name(header) else HEADER,
        _text(found.get(PERSISTENCE)) != "memory",
    )


def _whole(value: object) -> int | None:
    if isinstance(value, int):
        return value if value > 0 else None
    return int(_text(value)) if is_positive_text(value) else None


def _text(value: object) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def _is_positive(field: Field) -> bool:
    """Whether this is an integer from 1 on; the plugin takes its text, too."""
    if field.type in INTEGER_TYPES:
        return isinstance(field.value, int) and field.value > 0
    return field.type in ("longstr", "binary") and is_positive_text(field.value)


def check_exchange(type_name: str, arguments: Table) -> None:
    """Raises PRECONDITION_FAILED for the first argument of an exchange that is not what it has to
    be."""
    switch = arguments.get(DEDUPLICATION)
    if switch is not None and switch.type != "bool":
        raise _invalid(f"'{DEDUPLICATION}' must be a boolean")
    is_plugins = type_name == DEDUPLICATION
    if not is_plugins and (switch is None or switch.value is not True):
        return
    size = arguments.get(CACHE_SIZE)
    if (size is None and is_plugins) or (size is not None and not _is_positive(size)):
        raise AMQPError(
            ReplyCode.PRECONDITION_FAILED,
            f"Missing or invalid argument, '{CACHE_SIZE}' must be an integer greater than 0",
        )
    ttl = arguments.get(CACHE_TTL)
    if ttl is not None and not _is_positive(ttl):
        raise _invalid(f"'{CACHE_TTL}' must be an integer greater than 0")
    kept = arguments.get(PERSISTENCE)
    if kept is not None and not (kept.type == "longstr" and kept.value in PERSISTENCES):
        raise _invalid(f"'{PERSISTENCE}' must be either 'disk' or 'memory'")
    header = arguments.get(HEADER)
    if header is not None and not (header.type == "longstr" and is_header_name(header.value)):
        raise _invalid(f"'{HEADER}' must be the name of a header")


def _invalid(text: str) -> AMQPError:
    return AMQPError(ReplyCode.PRECONDITION_FAILED, f"Invalid argument, {text}")

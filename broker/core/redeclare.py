"""What happens when a queue or exchange that is there is declared with other properties: RabbitMQ
refuses it, and so it is here unless a virtual host is told otherwise."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from broker.core.arguments import (
    COMPARED_ARGUMENTS,
    check_queue_arguments,
    inequality,
    unequal_arguments,
)
from broker.core.deduplication.asked import EXCHANGE_ARGUMENTS, check_exchange
from broker.core.definitions import exchange_definition, queue_definition
from broker.core.exchange import Exchange
from broker.core.queue import Queue
from broker.core.rules import RULE_ARGUMENTS
from broker.errors import AMQPError, ReplyCode, exchange_title, queue_title
from broker.wire.table import Table

if TYPE_CHECKING:
    from broker.core.vhost import VHost

Difference = tuple[str, str]
"""A property or argument that differs, and the text that says so."""


class Redeclare(enum.Enum):
    """What a declaration with other properties does."""

    STRICT = "strict"
    """It is refused, as in RabbitMQ."""
    WARN = "warn"
    """It is answered as if nothing differed, and noted. Nothing is changed."""
    ADOPT = "adopt"
    """The arguments are taken over, if all that differ can be; if not, it is refused."""


ALTERNATE = "alternate-exchange"
_EXCHANGE_ADOPTED = frozenset({ALTERNATE, *EXCHANGE_ARGUMENTS})
_ADOPTED = RULE_ARGUMENTS | {
    *EXCHANGE_ARGUMENTS,
    "x-queue-mode",
    "x-queue-version",
    "x-queue-leader-locator",
    "x-max-in-memory-length",
    "x-max-in-memory-bytes",
    "x-quorum-initial-group-size",
    "x-initial-cluster-size",
    "x-max-age",
    "x-stream-max-segment-size-bytes",
}
"""What a queue can take over: its rules, and what has no effect."""
_ADOPTED_BESIDE = sorted(_ADOPTED.difference(COMPARED_ARGUMENTS))
"""Of these, what RabbitMQ lets differ."""


def _mode(vhost: VHost) -> Redeclare:
    return vhost.broker.redeclare.get(vhost.name, Redeclare.STRICT)


def gets_argument(
    vhost: VHost, existing: Queue | Exchange | None, key: str, arguments: Table
) -> bool:
    """Whether a declaration with these arguments may give this one to what it declares: what is
    there has another, if it is there."""
    if existing is None:
        return True
    return _mode(vhost) is Redeclare.ADOPT and existing.arguments.get(key) != arguments.get(key)


def redeclare_queue(
    vhost: VHost, queue: Queue, properties: Mapping[str, object], arguments: Table
) -> None:
    """A queue that is there is declared with these properties and arguments.

    Raises PRECONDITION_FAILED for the first that differs and may not, or for a bad argument.
    """
    mode = _mode(vhost)
    keys = COMPARED_ARGUMENTS
    if mode is Redeclare.ADOPT:
        keys = (*keys, *_ADOPTED_BESIDE)
    title = queue_title(queue.name, vhost.name)
    found = _differences(queue, properties, keys, title, arguments)
    differences = _allowed(mode, found, _ADOPTED)
    if not differences:
        return
    if mode is Redeclare.ADOPT:
        adopted = _replaced(queue.arguments, arguments, _ADOPTED)
        check_queue_arguments(adopted, queue.name, vhost.name)
        if queue.lasting is not None:
            vhost.broker.check_can_change()
        queue.arguments = adopted
        if queue.lasting is not None:
            vhost.broker.redefine(queue_definition(queue))
    _follow(vhost, queue, mode, differences)


def redeclare_exchange(
    vhost: VHost, exchange: Exchange, properties: Mapping[str, object], arguments: Table
) -> None:
    """The same of an exchange; it can take over its alternate exchange, and what is about
    duplicates."""
    mode = _mode(vhost)
    title = exchange_title(exchange.name, vhost.name)
    found = _differences(exchange, properties, (ALTERNATE, *EXCHANGE_ARGUMENTS), title, arguments)
    differences = _allowed(mode, found, _EXCHANGE_ADOPTED)
    if not differences:
        return
    if mode is Redeclare.ADOPT:
        adopted = _replaced(exchange.arguments, arguments, _EXCHANGE_ADOPTED)
        check_exchange(exchange.declared_type, adopted)
        if exchange.durable:
            vhost.broker.check_can_change()
        exchange.arguments = adopted
        if exchange.durable:
            vhost.broker.redefine(exchange_definition(exchange))
    _follow(vhost, exchange, mode, differences)


def _differences(
    existing: Queue | Exchange,
    properties: Mapping[str, object],
    keys: Iterable[str],
    title: str,
    arguments: Table,
) -> Iterator[Difference]:
    """What differs, in the order in which RabbitMQ compares."""
    for name, value in properties.items():
        current = getattr(existing, name)
        if value != current:
            yield name, inequality(name, title, value, current)
    yield from unequal_arguments(keys, title, arguments, existing.arguments)


def _allowed(mode: Redeclare, found: Iterator[Difference], adopted: Collection[str]) -> list[str]:
    """What differs, in words. Raises PRECONDITION_FAILED for the first that may not."""
    differences = []
    for key, text in found:
        if mode is Redeclare.STRICT or (mode is Redeclare.ADOPT and key not in adopted):
            raise AMQPError(ReplyCode.PRECONDITION_FAILED, text)
        differences.append(text)
    return differences


def _follow(
    vhost: VHost, declared: Queue | Exchange, mode: Redeclare, differences: list[str]
) -> None:
    """A declaration that differs is answered: what was adopted holds, and it is counted and
    noted."""
    is_adopted = mode is Redeclare.ADOPT
    counters = vhost.broker.counters
    if is_adopted:
        counters.redeclares_adopted += 1
        vhost.policies.apply(declared)
        vhost.epoch += 1
    else:
        counters.redeclares_kept += 1
    vhost.broker.note("redeclared", {"differences": differences, "is_adopted": is_adopted})


def _replaced(current: Table, received: Table, keys: Collection[str]) -> Table:
    """The current arguments, with these as received."""
    kept = {key: field for key, field in current.items() if key not in keys}
    return kept | {key: field for key, field in received.items() if key in keys}

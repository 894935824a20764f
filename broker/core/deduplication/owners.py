"""Which exchanges and queues know duplicates, as their arguments and policies ask for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from broker.core.deduplication.asked import Deduplication, deduplication_of
from broker.core.deduplication.duplicates import Duplicates
from broker.core.deduplication.present import Present
from broker.core.deduplication.remembered import PRESENT, Remembered
from broker.core.definitions import exchange_definition
from broker.core.exchange import Exchange
from broker.core.queue import Queue

if TYPE_CHECKING:
    from broker.core.broker import Broker


def follow(broker: Broker, owner: Queue | Exchange, policy: Mapping[str, object]) -> int:
    """An exchange or queue does about duplicates what its arguments and this definition of a policy
    ask for. Returns 1 if it begins to do something, -1 if it ceases to, 0 else."""
    kind = owner.declared_type if isinstance(owner, Exchange) else None
    asked = deduplication_of(owner.arguments, policy, exchange_type=kind)
    before = owner.duplicates
    if before is not None and (asked is None or _is_other(before, asked)):
        # What is in memory alone is not to come back later, either.
        before.close()
        owner.duplicates = None
    if asked is not None:
        if owner.duplicates is not None:
            owner.duplicates.change(asked)
        else:
            owner.duplicates = _make(broker, owner, asked)
            if asked.persists and owner.durable:
                _store(broker, owner)
    return (owner.duplicates is not None) - (before is not None)


def _is_other(before: Duplicates, asked: Deduplication) -> bool:
    return asked.persists != before.asked.persists or bool(asked.size) == isinstance(
        before, Present
    )


def _make(broker: Broker, owner: Queue | Exchange, asked: Deduplication) -> Duplicates:
    if not asked.size and isinstance(owner, Queue):
        return Present(broker, owner, asked)
    return Duplicates(broker, owner, asked)


def _store(broker: Broker, owner: Queue | Exchange) -> None:
    """What is remembered lasts, if anything does. What the log has of it is there again."""
    journal = broker.journal
    assert owner.duplicates is not None
    if journal is None:
        return
    if isinstance(owner, Exchange):
        window_id = _window_id(broker, owner)
    elif owner.lasting is not None:
        window_id = owner.lasting.id | (PRESENT if owner.present is not None else 0)
    else:
        return
    read = journal.read_windows
    originals = read.take(window_id) if read is not None else []
    remembered = Remembered(journal, window_id, has_floor=not window_id & PRESENT)
    owner.duplicates.last(remembered, originals)


def _window_id(broker: Broker, exchange: Exchange) -> int:
    if exchange.window_id is None:
        exchange.window_id = broker.next_queue_id
        broker.next_queue_id += 1
        definition = exchange_definition(exchange)
        if broker.journal is not None and definition.key in broker.journal.definitions:
            broker.journal.extend(definition.key, definition.kind, definition.table)
        else:
            # One of those that are there from the beginning, or it is being declared.
            broker.define(definition)
    return exchange.window_id

"""What messages are told apart by in a queue with `x-group-by` or `x-fair-by`: the value of a
header, or their routing key.

A key is a hash of the value with its type, salted anew in each process: eight octets however long
a value is. That two values have the same hash hardly ever happens, and would only let them be one
group, or share one turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from broker.core.message import CONTENT, MESSAGE, ORIGIN, ROUTING_KEY, Entry
from broker.wire.field_reader import field_reader

BY_ROUTING_KEY = "routing-key"
"""What stands for the routing key in place of the name of a header."""

Key: TypeAlias = int | None
"""None for messages without the header, or with a void one."""

Reader: TypeAlias = Callable[[Iterable[Entry]], "list[Key]"]
"""Keys of messages that are in memory, one for each."""


def make_reader(name: str) -> Reader:
    """What reads the keys of messages by the header of this name, or by their routing keys."""
    if name == BY_ROUTING_KEY:
        return _routing_keys
    read = field_reader(name)

    def keys(entries: Iterable[Entry]) -> list[Key]:
        values = [read(entry[MESSAGE][CONTENT]) for entry in entries]
        return [None if value is None else hash(value) for value in values]

    return keys


def _routing_keys(entries: Iterable[Entry]) -> list[Key]:
    return [hash(entry[MESSAGE][ORIGIN][ROUTING_KEY]) for entry in entries]

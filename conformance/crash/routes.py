"""Exchanges and bindings as a model: which queues a message must reach."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Binding:
    """A binding to a queue, or to an exchange. `number` stands for the headers it asks for."""

    source: str
    destination: str
    to_queue: bool = True
    key: str = ""
    number: int = 0

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments on the wire."""
        return {"x-match": "all", "number": self.number} if self.number else {}


def fits(kind: str, binding: Binding, key: str, number: int) -> bool:
    """Whether an exchange of this type sends a message with this key and number along."""
    if kind == "fanout":
        return True
    if kind == "direct":
        return binding.key == key
    if kind == "topic":
        return _topic_fits(binding.key.split("."), key.split("."))
    return binding.number == number


def _topic_fits(pattern: list[str], words: list[str]) -> bool:
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(_topic_fits(pattern[1:], words[skip:]) for skip in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and _topic_fits(pattern[1:], words[1:])


def route(
    kinds: Mapping[str, str],
    bindings: Iterable[Binding],
    exchange: str,
    key: str,
    number: int = 0,
) -> list[str]:
    """The queues that a message to this exchange reaches, each once, sorted.

    `kinds` are the types of the exchanges by name. The default exchange is the caller's affair.
    """
    known = list(bindings)
    reached: set[str] = set()
    visited: set[str] = set()
    pending = [exchange]
    while pending:
        source = pending.pop()
        if source in visited or source not in kinds:
            continue
        visited.add(source)
        for binding in known:
            if binding.source == source and fits(kinds[source], binding, key, number):
                if binding.to_queue:
                    reached.add(binding.destination)
                else:
                    pending.append(binding.destination)
    return sorted(reached)

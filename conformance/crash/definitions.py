"""Queues, exchanges and bindings that come and go, as a model: what one client made of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from conformance.crash.routes import Binding, route

Arguments = Mapping[str, Any]

QUEUE_ARGUMENTS: tuple[Arguments, ...] = (
    {},
    {"x-max-length": 100_000},
    {"x-message-ttl": 86_400_000, "x-expires": 86_400_000},
    {"x-max-priority": 3},
    {"x-dead-letter-exchange": "d.fanout", "x-dead-letter-routing-key": "dead"},
)
EXCHANGE_ARGUMENTS: tuple[Arguments, ...] = ({}, {"alternate-exchange": "d.nowhere"})
DURABLE_QUEUES = ("d.q1", "d.q2", "d.q3", "d.q4")
TRANSIENT_QUEUES = ("d.t1", "d.t2")
KINDS = {
    "d.direct": "direct",
    "d.topic": "topic",
    "d.headers": "headers",
    "d.fanout": "fanout",
    "d.brief": "direct",
}
TRANSIENT_EXCHANGES = ("d.brief",)
KEYS = {"direct": ("k1", "k2"), "topic": ("a.*", "#.b"), "headers": ("",), "fanout": ("",)}
PROBES: tuple[tuple[str, str, int], ...] = (
    ("d.direct", "k1", 0),
    ("d.direct", "k2", 0),
    ("d.topic", "a.x", 0),
    ("d.topic", "q.b", 0),
    ("d.headers", "", 1),
    ("d.headers", "", 2),
    ("d.fanout", "", 0),
    ("d.brief", "k1", 0),
    ("d.brief", "k2", 0),
)
"""(exchange, routing key, number header): each tells bindings apart by where it arrives."""


@dataclass(frozen=True, slots=True)
class State:
    """What exists: names with the index of their arguments, bindings, persistent messages."""

    queues: Mapping[str, int] = field(default_factory=dict)
    exchanges: Mapping[str, int] = field(default_factory=dict)
    bindings: frozenset[Binding] = frozenset()
    messages: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def restarted(self) -> State:
        """What a restart leaves: the durable ones and bindings between them."""
        queues = {name: a for name, a in self.queues.items() if name in DURABLE_QUEUES}
        exchanges = {n: a for n, a in self.exchanges.items() if n not in TRANSIENT_EXCHANGES}
        left = State(queues, exchanges, self.bindings, self.messages)
        return left._without_loose_ends()

    def _without_loose_ends(self) -> State:
        bindings = frozenset(
            b
            for b in self.bindings
            if b.source in self.exchanges
            and b.destination in (self.queues if b.to_queue else self.exchanges)
        )
        messages = {name: m for name, m in self.messages.items() if name in self.queues}
        return replace(self, bindings=bindings, messages=messages)

    def after(self, change: Change) -> State:
        """The state once this change has happened."""
        name = change.name
        if change.method == "queue.declare":
            messages = {**self.messages, name: ()}
            queues = {**self.queues, name: change.arguments}
            return replace(self, queues=queues, messages=messages)
        if change.method == "exchange.declare":
            return replace(self, exchanges={**self.exchanges, name: change.arguments})
        if change.method == "queue.delete":
            left = {n: a for n, a in self.queues.items() if n != name}
            return replace(self, queues=left)._without_loose_ends()
        if change.method == "exchange.delete":
            left = {n: a for n, a in self.exchanges.items() if n != name}
            return replace(self, exchanges=left)._without_loose_ends()
        if change.method == "queue.purge":
            return replace(self, messages={**self.messages, name: ()})
        if change.method == "basic.publish":
            kept = (*self.messages[name], change.message)
            return replace(self, messages={**self.messages, name: kept})
        assert change.binding is not None
        if change.method.endswith(".unbind"):
            return replace(self, bindings=self.bindings - {change.binding})
        return replace(self, bindings=self.bindings | {change.binding})

    def emptied(self) -> State:
        """The same with no message in any queue."""
        return replace(self, messages=dict.fromkeys(self.queues, ()))

    def arrivals(self) -> dict[tuple[str, str, int], list[str]]:
        """Where each probe to an exchange that exists must arrive."""
        kinds = {name: KINDS[name] for name in self.exchanges}
        return {p: route(kinds, self.bindings, *p) for p in PROBES if p[0] in self.exchanges}


@dataclass(frozen=True, slots=True)
class Change:
    """One method that changes a State. `arguments` is an index, `message` a number."""

    method: str
    name: str = ""
    arguments: int = 0
    binding: Binding | None = None
    message: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """The queues and exchanges that it is about."""
        return (self.binding.source, self.binding.destination) if self.binding else (self.name,)

    def __str__(self) -> str:
        what = self.binding or f"{self.name} {self.message or self.arguments}"
        return f"{self.method} {what}"


@dataclass(frozen=True, slots=True)
class Observed:
    """What a broker shows of a State: arguments are None if it refuses every known set of them."""

    queues: Mapping[str, int | None]
    exchanges: Mapping[str, int | None]
    messages: Mapping[str, tuple[int, ...]]
    arrivals: Mapping[tuple[str, str, int], list[str]]


def differences(state: State, observed: Observed) -> Iterator[str]:
    """In words, what is not as in this state."""
    for what, wanted, found in (
        ("queue", state.queues, observed.queues),
        ("exchange", state.exchanges, observed.exchanges),
    ):
        for name in sorted(set(wanted) | set(found)):
            if name not in found:
                yield f"{what} {name} is gone"
            elif name not in wanted:
                yield f"{what} {name} is there"
            elif wanted[name] != found[name]:
                yield f"{what} {name} has arguments {found[name]}, not {wanted[name]}"
    for name, kept in state.messages.items():
        seen = observed.messages.get(name, ())
        if name in observed.queues and seen != kept:
            yield f"queue {name} has messages {seen}, not {kept}"
    for probe, queues in state.arrivals().items():
        if probe in observed.arrivals and observed.arrivals[probe] != queues:
            yield f"{probe} arrives in {observed.arrivals[probe]}, not in {queues}"


def judge_definitions(
    state: State, pending: Change | None, observed: Observed
) -> tuple[State, list[str]]:
    """The state that the broker is in, and what is wrong with it.

    A change that was not answered may have happened or not.
    """
    candidates = [state] if pending is None else [state, state.after(pending)]
    judged = [(c.restarted(), list(differences(c.restarted(), observed))) for c in candidates]
    return min(judged, key=lambda pair: len(pair[1]))

"""The durable queues and exchanges that last as long as a data directory, and the ways to them."""

from __future__ import annotations

from typing import Any

from conformance.channel import Channel
from conformance.crash.record import Record
from conformance.crash.routes import Binding, route

DIRECT, FAN, TOPIC = "crash.direct", "crash.fan", "crash.topic"
KINDS = {DIRECT: "direct", FAN: "fanout", TOPIC: "topic"}
URGENT = "urgent"
"""The queue with priorities."""
LEDGER = "ledger"
"""Consumed by transactions only."""
QUEUES: dict[str, dict[str, Any]] = {
    "work.1": {},
    "work.2": {},
    "fan.1": {},
    "fan.2": {},
    "fan.3": {},
    "topic.1": {},
    "topic.2": {},
    URGENT: {"x-max-priority": 5},
    LEDGER: {},
    "booked": {},
}
BINDINGS = (
    Binding(DIRECT, "work.1", key="work.1"),
    Binding(DIRECT, "work.2", key="work.2"),
    Binding(DIRECT, "work.2", key="both"),
    Binding(DIRECT, "work.1", key="both"),
    Binding(DIRECT, URGENT, key=URGENT),
    Binding(DIRECT, LEDGER, key=LEDGER),
    Binding(DIRECT, "booked", key="booked"),
    Binding(FAN, "fan.1"),
    Binding(FAN, "fan.2"),
    Binding(FAN, "fan.3"),
    Binding(FAN, URGENT),
    # The same message by two bindings is one copy.
    Binding(TOPIC, "topic.1", key="a.*"),
    Binding(TOPIC, "topic.1", key="#.red"),
    Binding(TOPIC, "topic.2", key="#.red"),
    Binding(TOPIC, "fan.1", key="b.#"),
)

Way = tuple[str, str, list[str]]
"""(exchange, routing key, queues reached)."""


def _way(exchange: str, key: str) -> Way:
    return exchange, key, route(KINDS, BINDINGS, exchange, key)


WAYS: list[Way] = [
    ("", "work.1", ["work.1"]),
    ("", "topic.2", ["topic.2"]),
    *(_way(DIRECT, key) for key in ("work.1", "work.2", "both", URGENT, LEDGER)),
    _way(FAN, "any"),
    *(_way(TOPIC, key) for key in ("a.green", "a.red", "b.c.red", "b")),
]
"""What publishers choose from."""
BOOKINGS: list[Way] = [
    _way(DIRECT, "booked"),
    _way(DIRECT, "both"),
    _way(DIRECT, LEDGER),
    _way(FAN, "booked"),
]
"""What transactions choose from."""


def new_record() -> Record:
    """An empty record of these queues."""
    prioritised = {name for name, arguments in QUEUES.items() if "x-max-priority" in arguments}
    return Record(set(QUEUES) - prioritised, prioritised)


def declare(channel: Channel) -> None:
    """Declares everything; raises ConformanceError if something is there and different."""
    for exchange, kind in KINDS.items():
        channel.declare_exchange(exchange, kind, durable=True)
    for queue, arguments in QUEUES.items():
        channel.declare_queue(queue, durable=True, arguments=arguments)
    for binding in BINDINGS:
        channel.bind(binding.destination, binding.source, binding.key)

"""`--backlog`: a queue that nobody consumes grows, stands and is drained."""

# ruff: noqa: T201  # figures are what it is for
from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.scale.deliveries import Deliveries
from tests.scale.measured_broker import MeasuredBroker
from tests.scale.phases import Phases, print_phases
from tests.scale.publishes import Publishes

QUEUE = "backlog"
BARRIER = "barrier"
"""A durable queue: its declare-ok comes when all that was published before is durable."""
AMPLE_PER_MESSAGE = 1000
"""Octets of memory beside a message's body that are more than enough."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """So many messages of `size` octets, in a broker with this setting for its memory."""

    count: int
    size: int
    persistent: bool
    memory: str
    idle_s: float

    def in_memory(self, count: int) -> Backlog:
        """Of `count` messages, in a broker that has no reason to page them out."""
        octets = 4 * count * (self.size + AMPLE_PER_MESSAGE) + (1 << 30)
        return Backlog(count, self.size, self.persistent, str(octets), self.idle_s)


def measure_backlog(parent: Path, backlog: Backlog, compare: int) -> None:
    """Prints the figures of a backlog, and of one of `compare` messages that stays in memory."""
    paged = _measure(parent, backlog)
    if compare:
        plain = _measure(parent, backlog.in_memory(compare))
        published, drained = (a / b for a, b in zip(paged, plain, strict=True))
        print(
            f"with --memory {backlog.memory} against memory for all:"
            f" published {published:.2f} times as fast, drained {drained:.2f} times"
        )


def _measure(parent: Path, backlog: Backlog) -> tuple[float, float]:
    """Messages a second that were published and that were drained."""
    count, kind = backlog.count, "persistent" if backlog.persistent else "transient"
    print(f"{count:,} {kind} messages of {backlog.size} octets, --memory {backlog.memory}:")
    with (
        tempfile.TemporaryDirectory(dir=parent) as folder,
        MeasuredBroker(Path(folder), "--memory", backlog.memory, timed=True) as broker,
        Phases(broker.pid, broker.data_dir) as phases,
    ):
        channel = broker.first_connection().channel()
        publishes = Publishes(QUEUE, backlog.size, persistent=backlog.persistent)
        channel.declare_queue(QUEUE, durable=backlog.persistent)
        with phases.phase("publish") as publish:
            publishes.send(channel, 0, count)
            held = channel.message_count(QUEUE)
            channel.declare_queue(BARRIER, durable=True)
        if held != count:
            raise RuntimeError(f"{held} messages in the queue where {count} were published")
        with phases.phase("idle"):
            time.sleep(backlog.idle_s)
        with phases.phase("drain") as drain:
            consuming = broker.connection().channel()
            deliveries = Deliveries(consuming, QUEUE, backlog.size, persistent=backlog.persistent)
            deliveries.receive_until(count)
            left = consuming.message_count(QUEUE)
        if left:
            raise RuntimeError(f"{left} messages in the queue when all had been delivered")
        for client in (channel, consuming):
            client.connection.drop()
        windows = broker.stop()
    rates = count / publish.seconds, count / drain.seconds
    each_us = [phase.cpu_ns / count / 1e3 for phase in (publish, drain)]
    print(f"  published {rates[0]:,.0f} messages/s, {each_us[0]:.1f} us of CPU each")
    print(f"  drained {rates[1]:,.0f} messages/s in order, {each_us[1]:.1f} us of CPU each")
    print_phases(phases.phases, windows)
    return rates

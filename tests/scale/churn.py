"""`--churn`: many messages pass through a queue in which few are alive at a time, one of them for
ever."""

# ruff: noqa: T201  # figures are what it is for
from __future__ import annotations

import tempfile
from pathlib import Path

from tests.scale.deliveries import Deliveries
from tests.scale.measured_broker import MeasuredBroker
from tests.scale.phases import Phases, mib, print_phases
from tests.scale.publishes import Publishes
from tests.scale.resources import disk_octets

QUEUE = "churn"
PREFETCH_MAX = 1000


def measure_churn(parent: Path, count: int, alive: int, size: int, memory: str) -> None:
    """Prints the largest disk use while `count` persistent messages pass, `alive` at a time."""
    # What is alive is published in steps, so that acknowledged messages are replaced soon.
    step = max(1, alive // 10)
    publishes = Publishes(QUEUE, size, persistent=True)
    with (
        tempfile.TemporaryDirectory(dir=parent) as folder,
        MeasuredBroker(Path(folder), "--memory", memory, timed=True) as broker,
        Phases(broker.pid, broker.data_dir) as phases,
    ):
        channel = broker.first_connection().channel()
        channel.declare_queue(QUEUE, durable=True)
        publishes.send(channel, 0, 1)
        kept = broker.connection().channel()
        if kept.get(QUEUE, no_ack=False) is None:
            raise RuntimeError("the first message is not there")
        prefetch = min(PREFETCH_MAX, max(1, alive // 2))
        consuming = broker.connection().channel()
        deliveries = Deliveries(consuming, QUEUE, size, persistent=True, prefetch=prefetch, first=1)
        published = 0
        with phases.phase("churn") as churn:
            while deliveries.count < count:
                while published < count and published - deliveries.acked + 1 + step <= alive:
                    number = min(step, count - published)
                    publishes.send(channel, 1 + published, number)
                    published += number
                deliveries.receive()
                if published == count:
                    deliveries.ack()
            left = consuming.message_count(QUEUE)
        if left:
            raise RuntimeError(f"{left} messages in the queue when all had been delivered")
        at_end = disk_octets(broker.data_dir)
        for client in (channel, kept, consuming):
            client.connection.drop()
        windows = broker.stop()
    print(
        f"{count:,} persistent messages of {size} octets through a queue, {alive} alive at a time:"
    )
    print(f"  {count / churn.seconds:,.0f} messages/s in order, one never acknowledged")
    print(
        f"  disk at most {mib(churn.disk_octets)}, {mib(at_end)} at the end;"
        f" {alive * size:,} octets of bodies alive"
    )
    print_phases(phases.phases, windows)

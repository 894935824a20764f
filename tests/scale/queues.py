"""What a publish to one queue costs, alone and among many queues."""

# ruff: noqa: T201  # figures are what it is for
from __future__ import annotations

import statistics
from pathlib import Path

from conformance.channel import Channel
from tests.conftest import BrokerProcess, ended_broker, started_broker
from tests.scale.idle import connect
from tests.scale.publishes import Publishes
from tests.scale.resources import cpu_ns, settled_kb

SIZE = 100
AT_ONCE = 500
"""Publishes in one write."""


def measure_queues(folder: Path, queues: int, pairs: int, messages: int) -> None:
    """A publish to one queue alone, and to one of many; the two brokers take turns."""
    brokers: list[BrokerProcess] = []
    try:
        for name in ("one", "many"):
            (folder / name).mkdir()
            brokers.append(started_broker(folder / name))
        _measure(brokers, queues, pairs, messages)
        for broker in brokers:
            ended_broker(broker)
    finally:
        for broker in brokers:
            broker.kill()


def _measure(brokers: list[BrokerProcess], queues: int, pairs: int, messages: int) -> None:
    channels = [connect(broker).channel() for broker in brokers]
    pids = [broker.process.pid for broker in brokers]
    before = settled_kb(pids[1])
    _declare(channels[0], 1)
    _declare(channels[1], queues)
    size = (settled_kb(pids[1]) - before) / queues
    names = ("q0", f"q{queues // 2}")
    alone, many = [], []
    for pair in range(pairs + 1):
        order = (0, 1) if pair % 2 else (1, 0)
        spent = {
            which: _cpu_per_message_us(pids[which], channels[which], names[which], messages)
            for which in order
        }
        # The first one warms up.
        if pair:
            alone.append(spent[0])
            many.append(spent[1])
    ratio = statistics.median(b / a for a, b in zip(alone, many, strict=True))
    print(f"{queues} queues: {size:.2f} KB each")
    print(
        f"CPU of a publish: {statistics.median(alone):.3f} us to one queue alone, "
        f"{statistics.median(many):.3f} us to one of {queues}; ratio {ratio:.3f} "
        f"(medians of {pairs} pairs of {messages} messages)"
    )
    for channel in channels:
        channel.connection.drop()


def _declare(channel: Channel, count: int) -> None:
    """Queues q0 to q(count - 1)."""
    for number in range(count):
        channel.send("queue.declare", queue=f"q{number}", nowait=number < count - 1)
    channel.expect("queue.declare-ok")


def _cpu_per_message_us(pid: int, channel: Channel, queue: str, count: int) -> float:
    """Microseconds of the broker's CPU for each publish, all handled."""
    publishes = Publishes(queue, SIZE, persistent=False, at_once=AT_ONCE)
    before = cpu_ns(pid)
    publishes.send(channel, 0, count)
    channel.call("basic.qos")
    spent = cpu_ns(pid) - before
    channel.call("queue.purge", queue=queue)
    return spent / count / 1000

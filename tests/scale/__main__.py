"""`python -m tests.scale`: memory at rest, memory of idle connections, cost of many queues.

Prints figures; nothing is judged, since machines differ. Linux only: it reads /proc.
"""

# ruff: noqa: T201  # figures are what it is for
from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx

from conformance.channel import Channel
from conformance.client import Address, Connection
from conformance.fuzz.world import method
from conformance.methods import encode_frame, encode_header
from tests.conftest import BrokerProcess, ended_broker, started_broker

BODY = b"x" * 100
AT_ONCE = 500
"""Publishes in one write."""


def resident_kb(broker: BrokerProcess) -> int:
    """Kilobytes of memory that the broker's process holds."""
    status = Path(f"/proc/{broker.pid}/status").read_text(encoding="ascii")
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1])


def cpu_ns(broker: BrokerProcess) -> int:
    """Nanoseconds that the broker's threads have run so far."""
    tasks = Path(f"/proc/{broker.pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def connect(broker: BrokerProcess) -> Connection:
    return Connection(Address(broker.host, broker.port), timeout_s=60).open()


def settled_kb(broker: BrokerProcess) -> int:
    """The same once it has not changed for a second."""
    last, since = resident_kb(broker), time.monotonic()
    while time.monotonic() < since + 1:
        time.sleep(0.1)
        now = resident_kb(broker)
        if now != last:
            last, since = now, time.monotonic()
    return last


def measure_idle(folder: Path, connections: int) -> None:
    """Memory of a broker that does nothing, and of connections that do nothing."""
    broker = started_broker(folder)
    while True:
        try:
            httpx.get(f"{broker.http_url}/health").raise_for_status()
            break
        except httpx.TransportError:
            time.sleep(0.05)
    httpx.get(f"{broker.http_url}/metrics").raise_for_status()
    idle = settled_kb(broker)
    print(f"idle, HTTP on: {idle / 1024:.1f} MB")
    # The first connections also pay for what all of them share.
    warm = [connect(broker) for _ in range(10)]
    for connection in warm:
        connection.channel()
    before = settled_kb(broker)
    held = []
    for _ in range(connections):
        held.append(connect(broker))
        held[-1].channel()
    grown = settled_kb(broker) - before
    print(f"{connections} idle connections with a channel: {grown / connections:.1f} KB each")
    for connection in warm + held:
        connection.drop()
    time.sleep(1)
    print(f"after they left: {(settled_kb(broker) - idle) / 1024:+.1f} MB")
    ended_broker(broker)


def declare(channel: Channel, count: int) -> None:
    """Queues q0 to q(count - 1)."""
    for number in range(count):
        channel.send("queue.declare", queue=f"q{number}", nowait=number < count - 1)
    channel.expect("queue.declare-ok")


def cpu_per_message_us(broker: BrokerProcess, channel: Channel, queue: str, count: int) -> float:
    """Microseconds of the broker's CPU for each publish, all confirmed."""
    unit = (
        method(1, "basic.publish", routing_key=queue)
        + encode_frame(2, 1, encode_header(len(BODY)))
        + encode_frame(3, 1, BODY)
    )
    before = cpu_ns(broker)
    for _ in range(count // AT_ONCE):
        channel.connection.send_raw(unit * AT_ONCE)
    channel.call("basic.qos")
    spent = cpu_ns(broker) - before
    channel.call("queue.purge", queue=queue)
    return spent / count / 1000


def measure_queues(folder: Path, queues: int, pairs: int, messages: int) -> None:
    """A publish to one queue alone, and to one of many; the two brokers take turns."""
    folders = [folder / name for name in ("one", "many")]
    for place in folders:
        place.mkdir()
    brokers = [started_broker(place) for place in folders]
    channels = [connect(broker).channel() for broker in brokers]
    before = settled_kb(brokers[1])
    declare(channels[0], 1)
    declare(channels[1], queues)
    size = (settled_kb(brokers[1]) - before) / queues
    names = ("q0", f"q{queues // 2}")
    alone, many = [], []
    for pair in range(pairs + 1):
        order = (0, 1) if pair % 2 else (1, 0)
        spent = {
            which: cpu_per_message_us(brokers[which], channels[which], names[which], messages)
            for which in order
        }
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
    for broker, channel in zip(brokers, channels, strict=True):
        channel.connection.drop()
        ended_broker(broker)


def main() -> int:
    """Always 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.scale", description=__doc__)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--queues", type=int, default=10_000)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--messages", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure_idle(Path(folder), options.connections)
        measure_queues(Path(folder), options.queues, options.pairs, options.messages)
    return 0


if __name__ == "__main__":
    sys.exit(main())

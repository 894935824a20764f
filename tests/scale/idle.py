"""Memory of a broker that does nothing, and of connections that do nothing."""

# ruff: noqa: T201  # figures are what it is for
from __future__ import annotations

import time
from pathlib import Path

import httpx

from conformance.client import Address, Connection
from tests.conftest import BrokerProcess, ended_broker, started_broker
from tests.scale.resources import settled_kb


def connect(broker: BrokerProcess) -> Connection:
    """An open connection."""
    return Connection(Address(broker.host, broker.port), timeout_s=60).open()


def measure_idle(folder: Path, connections: int) -> None:
    """Memory at rest, then with so many connections, then without them."""
    broker = started_broker(folder)
    try:
        _measure(broker, connections)
        ended_broker(broker)
    finally:
        broker.kill()


def _measure(broker: BrokerProcess, connections: int) -> None:
    pid = broker.process.pid
    httpx.get(f"{broker.http_url}/metrics").raise_for_status()
    idle = settled_kb(pid)
    print(f"idle, HTTP on: {idle / 1024:.1f} MB")
    # The first connections also pay for what all of them share.
    warm = [connect(broker) for _ in range(10)]
    for connection in warm:
        connection.channel()
    before = settled_kb(pid)
    held = []
    for _ in range(connections):
        held.append(connect(broker))
        held[-1].channel()
    grown = settled_kb(pid) - before
    print(f"{connections} idle connections with a channel: {grown / connections:.1f} KB each")
    for connection in warm + held:
        connection.drop()
    time.sleep(1)
    print(f"after they left: {(settled_kb(pid) - idle) / 1024:+.1f} MB")

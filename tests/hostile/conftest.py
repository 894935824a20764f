"""Sockets to a running broker that end with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from conformance.client import Address, Connection
from tests.conftest import RunningBroker

Dial = Callable[..., Connection]


@pytest.fixture
def dial() -> Iterator[Dial]:
    """Connects to a broker, without a word: `dial(broker)`, `dial(broker, "alice", "secret")`."""
    connections: list[Connection] = []

    def connect(broker: RunningBroker, user: str = "guest", password: str = "guest") -> Connection:
        address = Address(broker.host, broker.port, user, password)
        connections.append(Connection(address, timeout_s=20))
        return connections[-1]

    yield connect
    for connection in connections:
        connection.drop()

"""Fixtures of the client tests: connections that end with the test, and names nobody else uses."""

import uuid
from collections.abc import Iterator
from typing import Any

import pika
import pytest

from tests.conftest import RunningBroker


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def name() -> str:
    """A name for a queue, exchange or application that no other test uses."""
    return f"test-{uuid.uuid4()}"


@pytest.fixture
def connection(broker: RunningBroker) -> Iterator[Any]:
    """A blocking pika connection."""
    connection = pika.BlockingConnection(pika.URLParameters(broker.url))
    yield connection
    if connection.is_open:
        connection.close()


@pytest.fixture
def channel(connection: Any) -> Any:
    """A channel of `connection`."""
    return connection.channel()

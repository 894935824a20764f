"""Clients on their way to an open connection."""

from typing import Any

from broker.protocol.connection import LOGIN_FAILURE_DELAY_S
from broker.protocol.states import ConnectionState
from broker.wire.frames import PROTOCOL_HEADER
from broker.wire.methods import commands
from tests.protocol.client import CAPABILITIES, Client, Site, announcing

Connection = commands.Connection


def start(site: Site, peer: str = "127.0.0.1") -> tuple[Client, Any]:
    """A client that got connection.start."""
    client = site.greet(peer)
    client.feed(PROTOCOL_HEADER)
    (received,) = client.read()
    return client, received.method


def log_in(
    client: Client,
    response: bytes = b"\0guest\0guest",
    mechanism: str = "PLAIN",
    capabilities: tuple[str, ...] = CAPABILITIES,
) -> None:
    client.tell(
        Connection.StartOk,
        0,
        client_properties=announcing(capabilities),
        mechanism=mechanism,
        response=response,
        locale="en_US",
    )


def tuned(site: Site, **answers: int) -> Client:
    """A client that answered connection.tune."""
    client, _ = start(site)
    log_in(client)
    client.read()
    answers = {"channel_max": 2047, "frame_max": 131072, "heartbeat": 60} | answers
    client.tell(Connection.TuneOk, 0, **answers)
    return client


def assert_dropped_silently(client: Client) -> None:
    """No word, and the socket closes after a while."""
    assert client.read() == []
    assert client.connection.state is ConnectionState.CLOSED
    assert client.connection.close_in_s == LOGIN_FAILURE_DELAY_S
    assert client.connection not in client.site.broker.connections

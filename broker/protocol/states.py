"""The states of a connection, and what may come in each.

Theory of operation. A connection is born AWAITING_HEADER. After the protocol header the server
asks and the client answers, one method a state: STARTING takes start-ok, TUNING takes tune-ok,
OPENING takes open, and RUNNING takes everything. An error or a connection.close from this side
leads to CLOSING, where only connection.close and close-ok count; CLOSED takes nothing. Legality
is the table: what is not in it is an error.
"""

from __future__ import annotations

import enum

from broker.wire.methods import Method, commands


class ConnectionState(enum.Enum):
    """Where a connection is, with RabbitMQ's names (rabbit_reader)."""

    AWAITING_HEADER = "pre_init"
    STARTING = "starting"
    TUNING = "tuning"
    OPENING = "opening"
    RUNNING = "running"
    CLOSING = "closing"
    CLOSED = "closed"


LEGAL: dict[ConnectionState, frozenset[type[Method]]] = {
    ConnectionState.AWAITING_HEADER: frozenset(),
    ConnectionState.STARTING: frozenset({commands.Connection.StartOk}),
    ConnectionState.TUNING: frozenset({commands.Connection.TuneOk}),
    ConnectionState.OPENING: frozenset({commands.Connection.Open}),
    ConnectionState.RUNNING: frozenset(
        {
            commands.Connection.Close,
            commands.Connection.UpdateSecret,
        }
    ),
    ConnectionState.CLOSING: frozenset({commands.Connection.Close, commands.Connection.CloseOk}),
    ConnectionState.CLOSED: frozenset(),
}
"""The methods of class connection that may come on channel 0, by state."""

HANDSHAKE = (
    ConnectionState.AWAITING_HEADER,
    ConnectionState.STARTING,
    ConnectionState.TUNING,
    ConnectionState.OPENING,
)

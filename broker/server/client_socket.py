"""The socket of one AMQP client: an asyncio protocol, since a stream costs a task and 60 µs more
for each message in flight."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from broker.protocol.connection import Connection
from broker.protocol.states import HANDSHAKE, ConnectionState

if TYPE_CHECKING:
    from broker.server.server import Server

READ_SIZE = 262_144
"""Octets the loop reads at once. After a full read the others have a turn first: libuv would go
on reading from a peer that floods, up to 32 times."""
PACE_OCTETS_PER_S = 250_000_000
"""How fast a client is read that publishes faster than is consumed. Consumers have their turns
meanwhile, and memory that is used again costs less than memory that is new."""
PACE_MAX_S = 0.01
"""The longest pause for that."""
WRITE_BUFFER_HIGH = 262_144
"""Octets a client may leave unread in our buffer before its consumers wait."""
UNREAD_MAX = 4 << 20
"""Octets a client may leave unread before nothing more is read from it: answers are not bounded by
prefetch as deliveries are."""
CLOSE_PATIENCE_S = 5.0
"""Seconds a closing socket has to take what was sent last."""


class ClientSocket(asyncio.Protocol):
    """Octets from the socket to the connection, and back."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.connection: Connection
        self.transport: asyncio.Transport
        self._timer: asyncio.TimerHandle | None = None
        self._closing: asyncio.TimerHandle | None = None
        self._aborting: asyncio.TimerHandle | None = None
        self._resuming: asyncio.Handle | None = None
        self._is_reading = True
        self._is_open = False
        # Octets read since the last pause for consumers to catch up.
        self._unpaced = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=WRITE_BUFFER_HIGH)
        server = self.server
        self.connection = server.accept(self)
        self.connection.output.unread = self.transport.get_write_buffer_size
        deadline = server.settings.handshake_timeout_s
        self._timer = server.loop.call_later(deadline, self._handshake_is_late)

    def data_received(self, data: bytes) -> None:
        """A chunk has come."""
        connection = self.connection
        self._unpaced += len(data)
        self.server.advance()
        connection.receive_data(data, self.server.loop.time())
        self.server.flush()
        if not self._is_open and connection.was_open:
            self._opened()
        broker = self.server.broker
        if connection.is_blocked or connection.is_waiting:
            self._stop_reading()
        elif broker.is_behind:
            broker.is_behind = False
            self._stop_reading()
            # A large body comes in several chunks, of which only the last one tells.
            delay = min(PACE_MAX_S, self._unpaced / PACE_OCTETS_PER_S)
            self._unpaced = 0
            self.server.loop.call_later(delay, self.resume_reading)
        elif connection.wants_turn or len(data) >= READ_SIZE:
            self._stop_reading()
            self.server.loop.call_soon(self.resume_reading)

    def eof_received(self) -> bool:
        """The client will send no more: it is done with, and the transport closes itself."""
        self.connection.receive_eof()
        self.server.flush()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        for timer in (self._timer, self._closing, self._aborting):
            if timer is not None:
                timer.cancel()
        self.connection.receive_eof()
        self.server.forget(self)
        self.server.flush()

    def pause_writing(self) -> None:
        """The client does not read: its consumers wait."""
        self.connection.output.is_congested = True

    def resume_writing(self) -> None:
        """The client reads again."""
        self.server.advance()
        self.connection.resume_output()
        self.server.flush()
        self.resume_reading()

    def _continue_output(self) -> None:
        """What was written went to the socket at once: consumers that had to wait go on."""
        self._resuming = None
        self.server.advance()
        self.connection.continue_output()
        self.server.flush()

    def _stop_reading(self) -> None:
        if self._is_reading and not self.transport.is_closing():
            self._is_reading = False
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """The others had a turn: handles what has waited, then goes on reading, unless the
        connection waits for memory or its client takes no answers."""
        connection = self.connection
        if self._is_reading or not self._may_read():
            return
        if connection.wants_turn:
            self.server.advance()
            connection.resume_input()
            self.server.broker.is_behind = False
            self.server.flush()
        if connection.wants_turn:
            self.server.loop.call_soon(self.resume_reading)
        elif self._may_read():
            self._is_reading = True
            connection.heartbeat.resume(self.server.loop.time())
            self.transport.resume_reading()

    def _may_read(self) -> bool:
        return (
            not self.connection.is_blocked
            and not self.connection.is_waiting
            and not self.transport.is_closing()
            and self.transport.get_write_buffer_size() <= UNREAD_MAX
        )

    def flush(self, now: float) -> None:
        """Writes what the connection has to send, and closes when it wants to."""
        connection = self.connection
        pieces = connection.output.take()
        if pieces and not self.transport.is_closing():
            self.transport.writelines(pieces)
            connection.heartbeat.last_sent = now
            if self.transport.get_write_buffer_size() > UNREAD_MAX:
                # Its heartbeats wait in the socket: silence does not count.
                connection.heartbeat.is_paused = True
                self._stop_reading()
        if connection.has_waited:
            connection.has_waited = False
            self.server.loop.call_soon(self.resume_reading)
        if connection.close_in_s is not None:
            self.close_soon()
        elif (
            connection.output.is_starved
            and not connection.output.is_congested
            and self._resuming is None
        ):
            self._resuming = self.server.loop.call_soon(self._continue_output)

    def close_soon(self) -> None:
        """Closes the socket as the connection asked for; a peer that reads nothing is cut off."""
        delay = self.connection.close_in_s
        assert delay is not None
        loop = self.server.loop
        if delay:
            if self._closing is None:
                self._closing = loop.call_later(delay, self._close)
        else:
            self._close()

    def _close(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
        if self._aborting is None:
            # A peer that reads nothing would keep it open for as long as it likes.
            self._aborting = self.server.loop.call_later(CLOSE_PATIENCE_S, self.transport.abort)

    def _handshake_is_late(self) -> None:
        connection = self.connection
        if connection.state in HANDSHAKE:
            connection.close_reason = f"handshake timeout in state {connection.state.value}"
            self._close()
        else:
            self._tick()

    def _tick(self) -> None:
        """Heartbeats; arms itself anew."""
        connection = self.connection
        loop = self.server.loop
        now = loop.time()
        connection.tick(now)
        self.server.flush()
        deadline = connection.next_deadline()
        if deadline is not None and connection.state is ConnectionState.RUNNING:
            self._timer = loop.call_at(max(deadline, now + 0.01), self._tick)

    def _opened(self) -> None:
        """The handshake is over: from now on the timer is for heartbeats."""
        self._is_open = True
        self.server.note_open(self.connection)
        if self._timer is not None:
            self._timer.cancel()
        self._tick()

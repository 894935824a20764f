"""The server: listeners, sockets and the clock around one broker. Several can run in one
process; they share nothing."""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
import socket
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from broker import __version__
from broker.core.broker import Broker, Identity, Limits
from broker.core.journal import Journal
from broker.core.redeclare import Redeclare
from broker.errors import AMQPError, ReplyCode
from broker.protocol.connection import Connection
from broker.protocol.states import HANDSHAKE
from broker.server.client_socket import ClientSocket
from broker.server.data_directory import open_directory, open_scratch, remove_scratch
from broker.server.default_user import make_default_user
from broker.server.notes import log_note
from broker.server.read_errors import ReadErrors
from broker.server.settings import Settings, memory_limit_bytes, size_bytes
from broker.storage.log import Caller, LogError
from broker.storage.segment_log import SegmentLog

LOG = logging.getLogger("leveret.server")

FILES_RESERVED = 64
"""File descriptors kept for listeners, HTTP and files when connections take the rest."""
DISK_INTERVAL_S = 2.0
"""Seconds between looks at the free disk space."""
SHUTDOWN_S = 3.0
"""Seconds clients have to answer connection.close before the process ends."""
_SHUTDOWN_TEXT = "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'"
_BACKLOG = 1024


class StartError(OSError):
    """What keeps the broker from starting. Its text is one line for the user."""


class Server:
    """One broker with its listeners. `files_max` bounds the sockets it accepts."""

    def __init__(self, settings: Settings, *, files_max: int | None = None) -> None:
        self.settings = settings
        self.loop = asyncio.get_running_loop()
        # Message time when the clock that never jumps says 0.
        self._zero_s = time.time() - time.monotonic()
        self._alarm: asyncio.TimerHandle | None = None
        # When that is, in message time.
        self._alarm_at = 0
        self.broker = make_broker(settings, self.loop.call_soon_threadsafe, self._message_time())
        self.broker.nack_on_alarm = frozenset(settings.nack_on_alarm)
        self.broker.consumer_timeout_action = settings.consumer_timeout_action
        # Not before: definitions of a file change no queue.
        self.broker.redeclare = {
            vhost: Redeclare(mode) for vhost, mode in settings.redeclare.items()
        }
        self.addresses: list[tuple[str, int]] = []
        self.sockets_max = max(1, files_max - FILES_RESERVED) if files_max else None
        self.is_stopping = False
        self._outbox: list[Connection] = []
        self._sockets: dict[Connection, ClientSocket] = {}
        self._opening: dict[Connection, ClientSocket] = {}
        self._listeners: list[asyncio.Server] = []
        self._all_closed = asyncio.Event()
        self._read_errors = ReadErrors(self.broker, self.loop, self._log_went_on)
        if self.broker.journal is not None:
            self._follow(self.broker.journal)
            self.broker.pager.open_scratch = self._open_scratch
            self._watch_disk()

    async def listen(self) -> None:
        """Listens on every host of the settings. Raises StartError."""
        port = self.settings.port
        for host in self.settings.host:
            try:
                listener = await self.loop.create_server(
                    lambda: ClientSocket(self), host, port, backlog=_BACKLOG
                )
            except (OSError, OverflowError) as error:
                await self.close()
                raise StartError(f"cannot listen on {host} port {port}: {error}") from None
            self._listeners.append(listener)
            for listening in listener.sockets:
                name = listening.getsockname()
                self.addresses.append((name[0], name[1]))
                # Several hosts share one port, also where the system chose it.
                port = port or name[1]
        # What expired while nothing ran, and when the next thing is due.
        self.broker.run_deliveries()
        self.flush()

    def accept(self, client: ClientSocket) -> Connection:
        """The connection for a new socket; one that is too many is closed at once."""
        transport = client.transport
        peer = transport.get_extra_info("peername") or ("unknown", 0)
        local = transport.get_extra_info("sockname") or ("unknown", 0)
        self._tune_socket(transport.get_extra_info("socket"))
        connection = Connection(
            self.broker,
            peer=(peer[0], peer[1]),
            local=(local[0], local[1]),
            outbox=self._outbox,
            now=self.loop.time(),
            login_failure_delay_s=self.settings.login_failure_delay_s,
        )
        refusal = self._refusal()
        if refusal:
            LOG.warning("refused %s: %s", connection.name, refusal)
            connection.close_reason = refusal
            transport.abort()
        self._sockets[connection] = client
        self._opening[connection] = client
        return connection

    def _tune_socket(self, tcp: socket.socket | None) -> None:
        if tcp is not None and tcp.family in (socket.AF_INET, socket.AF_INET6):
            tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.settings.tcp_keepalive:
                tcp.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def open_sockets(self) -> int:
        """Sockets of clients that are open, those in the handshake included."""
        return len(self._sockets)

    def _refusal(self) -> str:
        """Why one more socket is too many; empty if it is not."""
        if self.sockets_max is not None and len(self._sockets) >= self.sockets_max:
            return f"out of file descriptors ({self.sockets_max} connections)"
        most = self.settings.max_unauthenticated_connections
        if len(self._opening) >= most:
            return f"too many connections that have not logged in ({most})"
        return ""

    def _message_time(self) -> int:
        # The loop's own clock stands still for a turn, which may be longer than a message lives.
        return int((self._zero_s + time.monotonic()) * 1000)

    def advance(self) -> None:
        """Begins a batch: what is due happens, a bounded part of it at a time."""
        # Each chunk of each connection begins here. What is set for now has an alarm.
        now, timers = self._message_time(), self.broker.timers
        if now > timers.now:
            timers.advance(now)

    def _ring(self) -> None:
        """Something is due."""
        self._alarm = None
        self.advance()
        self.broker.run_deliveries()
        self.flush()

    def _set_alarm(self, due: int) -> None:
        """Sees to it that time advances when the next thing is due."""
        if self._alarm is not None:
            if self._alarm_at <= due:
                return
            self._alarm.cancel()
        self._alarm_at = due
        delay_ms = due - self._message_time() + 1
        self._alarm = self.loop.call_later(max(0, delay_ms) / 1000, self._ring)

    def flush(self) -> None:
        """Writes what every connection has to send; ends a batch."""
        outbox = self._outbox
        now = self.loop.time()
        while outbox:
            connections = outbox[:]
            outbox.clear()
            for connection in connections:
                client = self._sockets.get(connection)
                if client is not None:
                    client.flush(now)
                else:
                    connection.data_to_send()
        blocked = self.broker.blocked
        if blocked and not self.broker.has_alarm():
            self.loop.call_soon(self._unblock)
        self.broker.write()
        due = self.broker.timers.next
        if due is not None:
            self._set_alarm(due)

    def _log_went_on(self) -> None:
        """Something is durable now, or was read again."""
        self.advance()
        self.broker.run_deliveries()
        self.flush()

    def _watch_disk(self) -> None:
        """Pauses publishers while the disk is nearly full; looks again after a while."""
        least = size_bytes(self.settings.disk_free_min)
        if not least or self.is_stopping:
            return
        free = shutil.disk_usage(self.settings.data_dir).free
        is_short = free < least
        if is_short != self.broker.is_disk_short:
            self.broker.is_disk_short = is_short
            self.broker.note("disk_space", {"free": free, "least": least, "is_short": is_short})
        # A log that is cleaned in steps goes on, though nobody does anything.
        self.flush()
        self.loop.call_later(DISK_INTERVAL_S, self._watch_disk)

    def _follow(self, journal: Journal) -> None:
        journal.on_progress = self._log_went_on
        journal.log.on_state = partial(self._log_has_changed, journal)
        if isinstance(journal.log, SegmentLog):
            self._read_errors.follow(journal.log)

    def _open_scratch(self) -> Journal | None:
        journal = open_scratch(self.settings.data_dir, self.loop.call_soon_threadsafe)
        if journal is not None:
            self._follow(journal)
        return journal

    def _log_has_changed(self, journal: Journal) -> None:
        """A log is full, goes on, or has failed."""
        event = "log_state" if journal is self.broker.journal else "scratch_state"
        self.broker.note(event, {"state": journal.log.state.value, "reason": journal.log.reason})
        if journal.has_failed:
            journal.fail()
        self.flush()

    def note_open(self, connection: Connection) -> None:
        """A client has logged in: it counts no more among those that have not."""
        self._opening.pop(connection, None)

    def _unblock(self) -> None:
        """Lets a connection that waited for memory go on; `flush` asks for the next one, so that
        others have a turn in between."""
        blocked = self.broker.blocked
        if not blocked or self.broker.has_alarm():
            return
        connection = blocked.pop(0)
        self.advance()
        assert isinstance(connection, Connection)
        connection.unblock(self.loop.time())
        self.broker.is_behind = False
        client = self._sockets.get(connection)
        if client is not None:
            client.resume_reading()
        self.flush()

    def forget(self, client: ClientSocket) -> None:
        """A socket is gone."""
        connection = client.connection
        self._sockets.pop(connection, None)
        self._opening.pop(connection, None)
        log_note(
            "connection_closed",
            {
                "connection": connection.name,
                "reason": connection.close_reason,
                "opened": connection.was_open,
                "said_something": connection.has_received,
                "user": connection.user.name if connection.was_open else "",
                "vhost": connection.vhost.name if connection.was_open else "",
            },
        )
        if not self._sockets:
            self._all_closed.set()

    async def close(self) -> None:
        """Stops listening, closes every client with 320, and waits a while for their answers."""
        for listener in self._listeners:
            listener.close()
        self._all_closed.clear()
        for connection, client in list(self._sockets.items()):
            if connection.state in HANDSHAKE:
                client.transport.abort()
            else:
                connection.close(ReplyCode.CONNECTION_FORCED, _SHUTDOWN_TEXT)
                client.resume_reading()
        self.flush()
        if self._sockets:
            try:
                await asyncio.wait_for(self._all_closed.wait(), SHUTDOWN_S)
            except TimeoutError:
                for client in list(self._sockets.values()):
                    client.transport.abort()
                await asyncio.sleep(0)
        for listener in self._listeners:
            await listener.wait_closed()
        self._listeners.clear()
        if self._alarm is not None:
            self._alarm.cancel()
        self._read_errors.stop()
        self.broker.pager.close()
        if not self.settings.transient:
            remove_scratch(self.settings.data_dir)
        self.broker.close_journal()


def make_broker(settings: Settings, call: Caller, now: int = 0) -> Broker:
    """A broker as the settings want it, with what its data directory has; it is `now` in message
    time. Raises StartError."""
    limits = Limits(
        frame_max=settings.frame_max,
        channel_max=settings.channel_max,
        heartbeat_s=settings.heartbeat_s,
        message_size_max=settings.max_message_size,
        connections=settings.max_connections,
        consumers_per_channel=settings.consumers_per_channel_max,
        memory=memory_limit_bytes(settings.memory),
    )
    identity = Identity(
        product_version=settings.product_version,
        leveret_version=__version__,
        cluster_name=f"leveret@{socket.gethostname()}",
    )
    broker = Broker(secrets.token_bytes, limits=limits, identity=identity, note=log_note)
    broker.timers.advance(now)
    if not settings.transient:
        try:
            open_directory(broker, settings.data_dir, call)
        except LogError as error:
            raise StartError(str(error)) from None
    if settings.definitions is not None:
        _import(broker, settings.definitions)
    make_default_user(broker, settings)
    return broker


def _import(broker: Broker, path: Path) -> None:
    from broker.server.definitions_file import DefinitionsError  # noqa: PLC0415  # only with a file
    from broker.server.definitions_import import import_definitions  # noqa: PLC0415  # the same

    try:
        import_definitions(broker, path)
    except (DefinitionsError, AMQPError) as error:
        broker.close_journal()
        raise StartError(str(error)) from None


def shown(addresses: Iterable[tuple[str, int]]) -> str:
    """Addresses for a log line, IPv6 in brackets."""
    return ", ".join(
        f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in addresses
    )

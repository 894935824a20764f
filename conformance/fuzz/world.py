"""A broker with its clients in memory: what `broker.server` is with sockets, without them."""

from __future__ import annotations

import itertools

from broker.core.broker import Broker, Limits
from broker.core.users import Permission
from broker.protocol.connection import Connection
from broker.protocol.methods.connection import open as open_connection
from broker.protocol.states import ConnectionState
from broker.wire.methods import commands, make
from conformance.methods import encode_frame, encode_method

LOCAL = ("127.0.0.1", 5672)
FIRST_TOKEN = "AAAAAAAAAAAAAAAAAAAAAQ"
"""The address of the first channel that asks for replies."""
PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"


class World:
    """One broker. Its random names are numbers, so that two worlds with one history are equal.

    `errors` collects what the broker noted as internal errors: there must never be any.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._numbers = itertools.count(1)
        self.notes: list[tuple[str, dict[str, object]]] = []
        self.errors: list[BaseException] = []
        self.broker = Broker(
            lambda size: next(self._numbers).to_bytes(size, "big"),
            limits=limits,
            note=self._note,
        )
        self.vhost = self.broker.add_vhost("/")
        self.user = self.broker.add_user(
            "guest", b"guest", permissions={"/": Permission()}, loopback_only=True
        )
        self.peers: dict[Connection, Peer] = {}
        self.outbox: list[Connection] = []

    def _note(self, event: str, details: dict[str, object]) -> None:
        self.notes.append((event, details))
        if event == "internal_error":
            error = details["error"]
            assert isinstance(error, BaseException)
            self.errors.append(error)

    def restart_names(self) -> None:
        """Begins anew with the random names: the next one is that of `FIRST_TOKEN`."""
        self._numbers = itertools.count(1)

    def connect(self, host: str = "127.0.0.1") -> Peer:
        """A client that has said nothing yet."""
        return Peer(self, host)

    def logged_in(self, channel_max: int = 2047, frame_max: int = 131072) -> Peer:
        """A client in the state in which the handshake leaves it, without the handshake."""
        peer = Peer(self, "127.0.0.1")
        connection = peer.connection
        connection.state = ConnectionState.OPENING
        connection.user = self.user
        connection.capabilities = frozenset({"consumer_cancel_notify", "connection.blocked"})
        connection.channel_max = channel_max
        connection.frame_max = frame_max
        open_connection(connection, _OPEN)
        self.flush()
        peer.sent.clear()
        return peer

    def flush(self) -> None:
        """Takes what every connection has to send, until nobody has anything more."""
        outbox = self.outbox
        while outbox:
            connections = outbox[:]
            outbox.clear()
            for connection in connections:
                octets = connection.data_to_send()
                if octets:
                    self.peers[connection].sent.append(octets)
                connection.continue_output()
                if connection.wants_turn and not connection.output.is_congested:
                    connection.resume_input()
        blocked = self.broker.blocked
        if blocked and not self.broker.has_alarm():
            waiting = blocked.pop(0)
            assert isinstance(waiting, Connection)
            waiting.unblock(0.0)
            self.flush()


class Peer:
    """One client: what it is connected by, and what the broker sent it."""

    __slots__ = ("connection", "sent", "world")

    def __init__(self, world: World, host: str) -> None:
        self.world = world
        self.sent: list[bytes] = []
        self.connection = Connection(
            world.broker, peer=(host, 40000), local=LOCAL, outbox=world.outbox, now=0.0
        )
        self.connection.output.unread = self._unread
        world.peers[self.connection] = self

    def feed(self, octets: bytes) -> None:
        """One chunk from the client."""
        connection = self.connection
        connection.receive_data(octets, 0.0)
        self.world.flush()
        while connection.wants_turn and not connection.output.is_congested:
            connection.resume_input()
            self.world.flush()

    @property
    def is_read(self) -> bool:
        """Whether the shell reads from its socket."""
        connection = self.connection
        return not (connection.is_blocked or connection.wants_turn)

    def stop_reading(self) -> None:
        """The client takes no more octets from its socket."""
        self.connection.output.is_congested = True

    def go_on_reading(self) -> None:
        """The client reads again what the broker sends."""
        self.connection.resume_output()
        self.world.flush()
        self.feed(b"")

    def _unread(self) -> int:
        """Octets that wait in front of a client that does not read."""
        return sum(map(len, self.sent)) if self.connection.output.is_congested else 0

    def take(self) -> bytes:
        """What the broker sent since the last time."""
        octets = b"".join(self.sent)
        self.sent.clear()
        return octets

    def leave(self) -> None:
        """The client's socket is gone."""
        self.connection.receive_eof()
        self.world.flush()
        del self.world.peers[self.connection]

    @property
    def is_open(self) -> bool:
        """Whether the connection takes everything."""
        return self.connection.state is ConnectionState.RUNNING


def method(channel: int, name: str, **fields: object) -> bytes:
    """A method frame."""
    return encode_frame(1, channel, encode_method(name, **fields))


def start_ok(user: bytes = b"guest", password: bytes = b"guest", **fields: object) -> bytes:
    """connection.start-ok with PLAIN."""
    values: dict[str, object] = {
        "client_properties": {"capabilities": {"authentication_failure_close": True}},
        "mechanism": "PLAIN",
        "response": b"\0" + user + b"\0" + password,
        "locale": "en_US",
    }
    return method(0, "connection.start-ok", **(values | fields))


def tune_ok(channel_max: int = 2047, frame_max: int = 131072, heartbeat: int = 0) -> bytes:
    """connection.tune-ok."""
    return method(
        0,
        "connection.tune-ok",
        channel_max=channel_max,
        frame_max=frame_max,
        heartbeat=heartbeat,
    )


def open_vhost(name: str = "/") -> bytes:
    """connection.open."""
    return method(0, "connection.open", virtual_host=name)


_OPEN = make(commands.Connection.Open, virtual_host="/", capabilities="", insist=False)

"""What must hold of a broker whatever was fed to it. Each function raises `InvariantError`."""

from __future__ import annotations

from broker.core.message import CONTENT, MESSAGE, MESSAGE_OVERHEAD
from broker.core.queue import Queue
from broker.protocol.connection import Connection
from broker.protocol.states import HANDSHAKE, ConnectionState
from conformance.fuzz.world import World

KEPT_BEFORE_LOGIN = 8192 + 8
"""Octets of an incomplete frame that are kept of a client that has not logged in."""
KEPT_FRAMES = 3
"""A publish waits for its three frames before it is handled."""
CLOSED = (ConnectionState.CLOSING, ConnectionState.CLOSED)


class InvariantError(AssertionError):
    """Something holds no longer."""


def require(holds: bool, text: str) -> None:
    """Raises InvariantError with the text unless it holds."""
    if not holds:
        raise InvariantError(text)


def check_held(connection: Connection) -> None:
    """What one connection keeps between two chunks is bounded by what was negotiated."""
    kept = len(connection._rest)
    if connection.state in HANDSHAKE:
        require(kept <= KEPT_BEFORE_LOGIN, f"{kept} octets kept before login")
        require(not connection.channels, "channels before login")
        return
    require(kept <= KEPT_FRAMES * (connection.frame_max + 8), f"{kept} octets kept")
    if connection.state in CLOSED:
        require(not connection.channels, "channels of a closed connection")
        require(kept <= connection.frame_max + 8, f"{kept} octets kept of a closed connection")
    require(len(connection.channels) <= connection.channel_max, "more channels than negotiated")
    for number, channel in connection.channels.items():
        require(0 < number <= connection.channel_max, f"channel number {number}")
        assembly = channel.assembly
        if assembly is not None:
            kept = sum(map(len, assembly._frames)) + len(assembly._small)
            most = 2 * assembly.body_size
            require(kept <= most, f"{kept} octets kept of a body of {assembly.body_size}")


def check_errors(world: World) -> None:
    """The broker has answered everything itself."""
    if world.errors:
        raise InvariantError(f"internal error: {world.errors[0]!r}") from world.errors[0]


def check_left(world: World, stays: Connection) -> None:
    """Of the connections that are gone the broker holds nothing; `stays` is the one that stays."""
    broker = world.broker
    check_errors(world)
    require(list(broker.connections) == [stays], "a connection that is gone is known")
    require(not broker.touched, "a queue waits for its deliveries")
    require(not broker.cancelled, "a consumer waits to be told that its queue is gone")
    require(not broker.blocked, "a connection that is gone waits for memory")
    require(not broker.reply_sinks, "a channel that is gone waits for replies")
    ready = 0
    for queue in world.vhost.queues.values():
        if queue.owner is stays:
            continue
        require(queue.owner is None, f"queue {queue.name!r} belongs to somebody who is gone")
        require(not len(queue.consumers), f"queue {queue.name!r} has a consumer who is gone")
        require(queue.unacked_count == 0, f"queue {queue.name!r} has unacknowledged messages")
        require(queue.unacked_bytes == 0, f"queue {queue.name!r} has unacknowledged octets")
        ready += queue.ready_bytes
    require(broker.memory_used == ready, f"{broker.memory_used} octets used, {ready} are ready")


def check_queues(world: World) -> None:
    """The sums that queues keep are those of their messages, and bindings lead somewhere."""
    for queue in world.vhost.queues.values():
        entries = [*queue._ready, *queue._returned]
        size = sum(len(entry[MESSAGE][CONTENT]) + MESSAGE_OVERHEAD for entry in entries)
        require(size == queue.ready_bytes, f"queue {queue.name!r} counts its octets wrong")
        numbers = [entry[0] for entry in queue._ready]
        require(numbers == sorted(set(numbers)), f"queue {queue.name!r} is out of order")
    vhost = world.vhost
    for destination, sources in vhost._sources.items():
        known = vhost.queues if isinstance(destination, Queue) else vhost.exchanges
        require(known.get(destination.name) is destination, "a binding to what is gone")
        for source, count in sources.items():
            require(vhost.exchanges.get(source.name) is source, "a binding of what is gone")
            bound = sum(b.destination is destination for b in source.router.bindings())
            require(bound == count, "bindings are counted wrong")


def state(world: World) -> object:
    """What another broker with the same history has to be equal in."""
    return {
        (queue.name, queue.durable, queue.auto_delete): [
            (entry[MESSAGE][0], entry[2]) for entry in [*sorted(queue._returned), *queue._ready]
        ]
        for queue in world.vhost.queues.values()
    }, {
        exchange.name: sorted(
            (b.binding_key, b.destination.name) for b in exchange.router.bindings()
        )
        for exchange in world.vhost.exchanges.values()
    }

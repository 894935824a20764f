"""What must hold of a broker whatever was fed to it. Each function raises `InvariantError`."""

from __future__ import annotations

from broker.core.message import CONTENT, MESSAGE, MESSAGE_OVERHEAD
from broker.core.queue import Queue
from broker.protocol.connection import Connection
from broker.protocol.states import HANDSHAKE, ConnectionState
from conformance.fuzz.world import World

KEPT_BEFORE_LOGIN = 8192 + 8
"""Octets of an incomplete frame that are kept of a client that has not logged in."""
CHUNK_MAX = 262_144
"""Octets that a socket hands over at once."""
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
    channels = connection.channels
    most = connection.frame_max + 8
    if connection.state in HANDSHAKE:
        most = KEPT_BEFORE_LOGIN
        require(not channels, "channels before login")
    elif connection.state in CLOSED:
        require(not channels, "channels of a closed connection")
    elif connection.is_blocked or connection.wants_turn:
        # The last chunk waits as a whole.
        most += CHUNK_MAX
    if kept > most:
        raise InvariantError(f"{kept} octets kept in state {connection.state}")
    if len(channels) > connection.channel_max:
        raise InvariantError("more channels than negotiated")
    for number, channel in channels.items():
        assembly = channel.assembly
        if not 0 < number <= connection.channel_max:
            raise InvariantError(f"channel number {number}")
        if assembly is not None and assembly.header is not None:
            body = sum(map(len, assembly._frames)) + len(assembly._small)
            if body > 2 * assembly.body_size:
                raise InvariantError(f"{body} octets kept of a body of {assembly.body_size}")


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
        if queue.owner or len(queue.consumers) or queue.unacked_count or queue.unacked_bytes:
            raise InvariantError(_told(queue))
        for lane in queue.lanes:
            ready += lane.ready_bytes
            if lane.expiry is not None:
                ready += lane.expiry.octets
    if broker.memory_used != ready:
        raise InvariantError(f"{broker.memory_used} octets used, {ready} are ready")


def _told(queue: Queue) -> str:
    """What a queue holds of somebody who is gone."""
    return (
        f"queue {queue.name!r}: owner {queue.owner}, {len(queue.consumers)} consumers, "
        f"{queue.unacked_count} unacknowledged messages of {queue.unacked_bytes} octets"
    )


def check_queues(world: World) -> None:
    """The sums that queues keep are those of their messages, and bindings lead somewhere."""
    for queue in world.vhost.queues.values():
        entries = [*queue.ready, *queue.returned]
        size = sum(len(entry[MESSAGE][CONTENT]) + MESSAGE_OVERHEAD for entry in entries)
        require(size == queue.ready_bytes, f"queue {queue.name!r} counts its octets wrong")
        numbers = [entry[0] for entry in queue.ready]
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
            (entry[MESSAGE][0], entry[2]) for entry in [*sorted(queue.returned), *queue.ready]
        ]
        for queue in world.vhost.queues.values()
    }, {
        exchange.name: sorted(
            (b.binding_key, b.destination.name) for b in exchange.router.bindings()
        )
        for exchange in world.vhost.exchanges.values()
    }

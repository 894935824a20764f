"""What a connection does while memory or disk space is short: it is handled up to its first
publish, then waits (RabbitMQ, "Memory and Disk Alarms"). In some virtual hosts publishes on
channels in confirm mode are refused instead (`Broker.nack_on_alarm`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.errors import AMQPError, ReplyCode
from broker.protocol.refusal import RefusedContent
from broker.wire.methods import commands, make

if TYPE_CHECKING:
    from broker.protocol.channel import Channel
    from broker.protocol.connection import Connection


def is_refusing(channel: Channel) -> bool:
    """Whether publishes on this channel are refused during an alarm, and pause nobody."""
    return channel.is_confirming and channel.vhost.name in channel.connection.broker.nack_on_alarm


def pause(connection: Connection) -> None:
    """Lets this connection stop here, at a publish, until the alarm is over.

    Raises RESOURCE_ERROR if it would wait for itself: if its own unfinished contents and
    transactions hold more than there may be.
    """
    broker = connection.broker
    if broker.is_memory_short and _held(connection) > broker.limits.memory:
        raise _too_much(connection, "more than")
    if not connection.is_blocked:
        connection.is_blocked = True
        connection.heartbeat.is_paused = True
        broker.blocked.append(connection)
        if connection.understands("connection.blocked"):
            reason = f"low on {' & '.join(broker.alarms())}"
            connection.send_method(0, make(commands.Connection.Blocked, reason=reason))


def must_stay(channel: Channel) -> bool:
    """Whether a body frame has to stay where it is: because the connection is paused, or because
    its content is refused from now on and the frame is to be looked at again.

    One unfinished content of a connection may always end, but not when many connections have one:
    raises RESOURCE_ERROR once the others hold twice the limit.
    """
    connection = channel.connection
    broker = connection.broker
    assembly = channel.assembly
    if not broker.has_alarm() or isinstance(assembly, RefusedContent | None):
        return False
    held_by_others = broker.memory_used - _held(connection)
    is_too_much = broker.is_memory_short and held_by_others > 2 * broker.limits.memory
    if not is_too_much and _unfinished(connection) == 1:
        return False
    if is_refusing(channel):
        channel.assembly = RefusedContent.instead_of(assembly, broker)
    elif is_too_much:
        raise _too_much(connection, "beside others far above")
    else:
        pause(connection)
    return True


def _unfinished(connection: Connection) -> int:
    """Contents that the connection has begun, without those that are refused."""
    assemblies = [channel.assembly for channel in connection.channels.values()]
    return sum(not isinstance(assembly, RefusedContent | None) for assembly in assemblies)


def _held(connection: Connection) -> int:
    """Octets in unfinished contents and open transactions of this connection."""
    return sum(
        (channel.assembly.held if channel.assembly is not None else 0)
        + (channel.transaction.size if channel.transaction is not None else 0)
        for channel in connection.channels.values()
    )


def _too_much(connection: Connection, why: str) -> AMQPError:
    return AMQPError(
        ReplyCode.RESOURCE_ERROR,
        f"unfinished contents and transactions take {_held(connection)} octets, {why} the memory "
        f"limit ({connection.broker.limits.memory})",
    )

"""What a connection does while memory or disk space is short: it is handled up to its first
publish, then waits (RabbitMQ, "Memory and Disk Alarms")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.errors import AMQPError, ReplyCode
from broker.wire.methods import commands, make

if TYPE_CHECKING:
    from broker.protocol.connection import Connection


def must_wait(connection: Connection) -> bool:
    """Whether this connection has to stop here, at a publish.

    Raises RESOURCE_ERROR if it would wait for itself: if its own unfinished contents and
    transactions hold more than there may be.
    """
    broker = connection.broker
    if not broker.has_alarm():
        return False
    if broker.is_memory_short and _held(connection) > broker.limits.memory:
        raise _too_much(connection, "more than")
    if not connection.is_blocked:
        connection.is_blocked = True
        connection.heartbeat.is_paused = True
        broker.blocked.append(connection)
        if connection.understands("connection.blocked"):
            reason = f"low on {' & '.join(broker.alarms())}"
            connection.send_method(0, make(commands.Connection.Blocked, reason=reason))
    return True


def must_wait_at_body(connection: Connection) -> bool:
    """The same at a body frame. One unfinished content of a connection may always end, but not
    when many connections have one: raises RESOURCE_ERROR once the others hold twice the limit."""
    broker = connection.broker
    if not broker.has_alarm():
        return False
    held_by_others = broker.memory_used - _held(connection)
    if broker.is_memory_short and held_by_others > 2 * broker.limits.memory:
        raise _too_much(connection, "beside others far above")
    unfinished = sum(channel.assembly is not None for channel in connection.channels.values())
    return unfinished > 1 and must_wait(connection)


def _held(connection: Connection) -> int:
    """Octets in unfinished contents and open transactions of this connection."""
    return sum(
        (channel.assembly.received if channel.assembly is not None else 0)
        + (channel.transaction.size if channel.transaction is not None else 0)
        for channel in connection.channels.values()
    )


def _too_much(connection: Connection, why: str) -> AMQPError:
    return AMQPError(
        ReplyCode.RESOURCE_ERROR,
        f"unfinished contents and transactions take {_held(connection)} octets, {why} the memory "
        f"limit ({connection.broker.limits.memory})",
    )

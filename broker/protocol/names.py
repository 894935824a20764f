"""The names clients give to queues and exchanges, and who may use them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.core.reply import REPLY_TO_NAME
from broker.errors import AMQPError, ReplyCode

if TYPE_CHECKING:
    from broker.protocol.channel import Channel

_OPERATIONS = ("configure", "write", "read")


def clean(name: str) -> str:
    """The name without carriage returns and line feeds, which RabbitMQ strips too."""
    return name.replace("\r", "").replace("\n", "")


def queue_name(channel: Channel, name: str) -> str:
    """The queue meant: an empty name stands for the one declared last on this channel.

    Raises NOT_FOUND if none was.
    """
    if name:
        return name
    if not channel.last_queue_name:
        raise AMQPError(ReplyCode.NOT_FOUND, "no previously declared queue")
    return channel.last_queue_name


def check_not_reserved(kind: str, name: str) -> None:
    """Raises ACCESS_REFUSED for a new name that begins with `amq.`."""
    if name.startswith("amq."):
        raise AMQPError(
            ReplyCode.ACCESS_REFUSED, f"{kind} name '{name}' contains reserved prefix 'amq.*'"
        )


def check_not_default(name: str) -> None:
    """Raises ACCESS_REFUSED for the default exchange, which cannot be declared, deleted, bound."""
    if not name:
        raise AMQPError(ReplyCode.ACCESS_REFUSED, "operation not permitted on the default exchange")


def check_permission(channel: Channel, operation: str, kind: str, name: str) -> None:
    """Raises ACCESS_REFUSED unless the user of this channel may `operation` on the resource."""
    connection = channel.connection
    connection.broker.check_permission(connection.user, operation, kind, name, channel.vhost.name)


def check_any_permission(channel: Channel, kind: str, name: str) -> None:
    """For passive declares: raises ACCESS_REFUSED unless the user has some permission on it, so
    that names cannot be probed."""
    permission = channel.connection.user.permissions.get(channel.vhost.name)
    if permission is None or not any(permission.allows(o, name) for o in _OPERATIONS):
        check_permission(channel, "configure", kind, name)


def is_reply_to(name: str) -> bool:
    """Whether a queue name means direct reply-to."""
    return name.startswith(REPLY_TO_NAME)

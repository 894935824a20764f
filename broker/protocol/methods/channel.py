"""Class channel (AMQP 0-9-1 reference, section 1.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.errors import AMQPError, ReplyCode
from broker.wire.methods import commands

if TYPE_CHECKING:
    from broker.protocol.channel import Channel


def open(  # noqa: A001  # named as in the spec
    channel: Channel, method: commands.Channel.Open
) -> None:
    """channel.open on a channel that is open already: an error of the whole connection."""
    raise AMQPError(ReplyCode.CHANNEL_ERROR, "second 'channel.open' seen")


def close(channel: Channel, method: commands.Channel.Close) -> None:
    """channel.close: the channel lets go of everything, then answers."""
    channel.flush_confirms()
    channel.release()
    channel.send(commands.Channel.CloseOk())
    channel.connection.forget_channel(channel)


def flow(channel: Channel, method: commands.Channel.Flow) -> None:
    """channel.flow: on is the only way; off is refused, as RabbitMQ does since 2.0."""
    if not method.active:
        raise AMQPError(ReplyCode.NOT_IMPLEMENTED, "active=false")
    channel.send(commands.Channel.FlowOk(active=True))

"""Class confirm, RabbitMQ's extension for publisher confirms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.errors import AMQPError, ReplyCode
from broker.wire.methods import commands

if TYPE_CHECKING:
    from broker.protocol.channel import Channel


def select(channel: Channel, method: commands.Confirm.Select) -> None:
    """confirm.select: from now on publishes are numbered, from 1. Twice is fine."""
    if channel.transaction is not None:
        raise AMQPError(ReplyCode.PRECONDITION_FAILED, "cannot switch from tx to confirm mode")
    channel.is_confirming = True
    if not method.nowait:
        channel.send(commands.Confirm.SelectOk())

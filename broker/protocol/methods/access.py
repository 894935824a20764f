"""Class access of AMQP 0-8: granted, as RabbitMQ still does for old clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.wire.methods import AccessRequest, AccessRequestOk

if TYPE_CHECKING:
    from broker.protocol.channel import Channel


def request(channel: Channel, method: AccessRequest) -> None:
    """access.request: everybody gets ticket 1."""
    channel.send(AccessRequestOk())

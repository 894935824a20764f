"""What the methods share that bind queues and exchanges, and unbind them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.core.exchange import Destination, Exchange
from broker.wire.table import Table

if TYPE_CHECKING:
    from broker.protocol.channel import Channel


def unbind_ends(
    channel: Channel,
    source: Exchange | None,
    destination: Destination | None,
    key: str,
    arguments: Table,
) -> None:
    """Takes a binding away, if there is one; INTERNAL_ERROR if the log may go on having it."""
    if source is not None and destination is not None:
        channel.vhost.unbind(source, destination, key, arguments, channel.connection)
    if ends_last(source, destination):
        channel.connection.broker.check_is_gone()


def ends_last(source: Exchange | None, destination: Destination | None) -> bool:
    """Whether a binding between these lasts, or may have when they were there."""
    return all(end is None or end.durable for end in (source, destination))

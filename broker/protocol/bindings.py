"""What the methods share that bind queues and exchanges, and unbind them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from broker.core.exchange import Destination, Exchange
from broker.protocol.waiting import wait
from broker.wire.table import Table

if TYPE_CHECKING:
    from broker.protocol.channel import Channel


def waits_for_history(
    channel: Channel, source: Exchange, bind: Callable[[], None], method_index: int
) -> bool:
    """Whether the exchange keeps messages that have to be read before anything is bound to it:
    `bind` is called once they are."""
    history = source.history
    if history is None or history.load():
        return False
    history.when_loaded(wait(channel, bind, method_index))
    return True


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

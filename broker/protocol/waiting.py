"""Answers that have to wait: for the disk, or for messages that are read again. Nothing else of
the connection is handled before, so that order stays as it was asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from broker.errors import AMQPError, ReplyCode, storage_failed
from broker.protocol.states import ConnectionState

if TYPE_CHECKING:
    from broker.protocol.channel import Channel
    from broker.protocol.connection import Connection


def wait(
    channel: Channel, action: Callable[[], None], method_index: int = 0
) -> Callable[[bool], None]:
    """Lets the connection read nothing more until what is returned is called, which does `action`
    first, unless the channel has ended. It is called with whether what was waited for has come:
    if it never will, the connection is closed with INTERNAL_ERROR and a text that says why. Errors
    name the method with this index."""
    connection = channel.connection
    connection.is_waiting = True

    def go_on(has_come: bool) -> None:
        connection.is_waiting = False
        if connection.state is not ConnectionState.RUNNING:
            return
        try:
            if not has_come:
                raise _error(connection)
            if connection.channels.get(channel.number) is channel:
                action()
            later, connection.told_later = connection.told_later, []
            for consumer in later:
                consumer.sink.cancelled(consumer)
        except AMQPError as error:
            if error.method_index is None:
                error.method_index = method_index
            connection.fail(error, channel.number)
        connection.continue_input()

    return go_on


def _error(connection: Connection) -> AMQPError:
    """Why it never comes: nothing is durable any more, or it cannot be read."""
    journal = connection.broker.journal
    if journal is not None and journal.has_failed:
        return storage_failed(journal.log.reason, 0)
    lines = [line for each in connection.broker.journals for line in each.log.unreadable]
    # The newest one: what else there is, is in the broker's log.
    reason = f": {lines[-1]}" if lines else ""
    return AMQPError(ReplyCode.INTERNAL_ERROR, f"message cannot be read again{reason}")

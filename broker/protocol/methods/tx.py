"""Class tx (AMQP 0-9-1 reference, section 1.9)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.errors import AMQPError, ReplyCode
from broker.protocol.publish import publish_committed
from broker.protocol.transaction import Outcome, Transaction
from broker.wire.methods import commands

if TYPE_CHECKING:
    from broker.protocol.channel import Channel


def select(channel: Channel, method: commands.Tx.Select) -> None:
    """tx.select: publishes and settlements wait for a commit. Twice is fine."""
    if channel.is_confirming:
        raise AMQPError(ReplyCode.PRECONDITION_FAILED, "cannot switch from confirm to tx mode")
    if channel.transaction is None:
        channel.transaction = Transaction(channel.connection.broker)
    channel.send(commands.Tx.SelectOk())


def commit(channel: Channel, method: commands.Tx.Commit) -> None:
    """tx.commit: does what has waited, and begins anew."""
    channel.begin_change()
    transaction = _take(channel)
    publishes = transaction.publishes[:]
    transaction.drop()
    is_whole = True
    for route, message, queues in publishes:
        is_whole &= publish_committed(channel, route, message, queues)
    for tags, outcome in transaction.settlements:
        for tag in tags:
            groups = channel.unacked.take(tag, multiple=False) or []
            if outcome is Outcome.REQUEUED:
                channel.requeue(groups, failed=True)
            elif outcome is Outcome.REJECTED:
                channel.reject(groups)
            else:
                channel.acknowledge(groups)
    if channel.timeouts is not None:
        for tag, multiple in transaction.late:
            channel.timeouts.settle(tag, multiple=multiple)
    channel.connection.broker.counters.messages_acknowledged += transaction.acknowledged
    if not is_whole:
        raise AMQPError(ReplyCode.PRECONDITION_FAILED, "partial tx completion")
    channel.note_written()
    channel.answer(commands.Tx.CommitOk(), lasts=False)


def rollback(channel: Channel, method: commands.Tx.Rollback) -> None:
    """tx.rollback: forgets what has waited; deliveries are unacknowledged again."""
    _take(channel).drop()
    channel.send(commands.Tx.RollbackOk())


def _take(channel: Channel) -> Transaction:
    transaction = channel.transaction
    if transaction is None:
        raise AMQPError(ReplyCode.PRECONDITION_FAILED, "channel is not transactional")
    channel.transaction = Transaction(channel.connection.broker)
    return transaction

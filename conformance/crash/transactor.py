"""Transactions that take messages from one queue and publish others."""

from __future__ import annotations

import time

from conformance.channel import Channel
from conformance.client import Connection
from conformance.crash.bodies import random_size
from conformance.crash.look import seen_in
from conformance.crash.publisher import BACKLOG_MOST, published
from conformance.crash.record import Copy, Message, Stage, Transaction
from conformance.crash.topology import BOOKINGS, LEDGER
from conformance.crash.worker import Worker

AT_ONCE = 5
"""The most that one transaction gets, and publishes."""


class Transactor(Worker):
    """Commits most transactions, rolls some back, and leaves some open for a while.

    `number` names it in its messages.
    """

    number = 0

    def work(self, connection: Connection) -> None:
        channel = connection.channel()
        channel.call("tx.select")
        self._held: dict[int, Copy] = {}
        while not self.ending.is_set():
            self._get(channel)
            transaction = Transaction()
            self.record.transactions.append(transaction)
            if self.chance.random() < 0.5:
                self._publish(channel, transaction)
                self._ack(channel, transaction)
            else:
                self._ack(channel, transaction)
                self._publish(channel, transaction)
            if self.chance.random() < 0.15:
                self.ending.wait(0.05)
            if self.ending.is_set():
                return
            if self.chance.random() < 0.8:
                self._commit(channel, transaction)
            else:
                self._roll_back(channel, transaction)
            self.ending.wait(self.chance.choice([0.0, 0.001, 0.01]))

    def _get(self, channel: Channel) -> None:
        for _ in range(self.chance.randint(0, AT_ONCE)):
            if len(self._held) >= AT_ONCE:
                return
            message = channel.get(LEDGER, no_ack=False)
            if message is None or self.ending.is_set():
                return
            self.counts["delivered"] += 1
            copy = self.record.delivery(LEDGER, seen_in(message), time.monotonic())
            if copy is not None:
                self._held[message["delivery_tag"]] = copy

    def _publish(self, channel: Channel, transaction: Transaction) -> None:
        if self.record.backlog > BACKLOG_MOST:
            return
        for _ in range(self.chance.randint(0, AT_ONCE)):
            exchange, key, queues = self.chance.choice(BOOKINGS)
            number = self.record.next_number(self.number)
            message = Message(self.number, number, exchange, key, transaction=transaction)
            self.record.publishing(message, queues)
            channel.connection.send_raw(published(channel, message, random_size(self.chance)))
            self.counts["published"] += 1

    def _ack(self, channel: Channel, transaction: Transaction) -> None:
        multiple = self.chance.random() < 0.5
        for tag, copy in self._held.items():
            copy.acked = True
            copy.transaction = transaction
            transaction.acked.append((LEDGER, copy.message.key))
            if not multiple:
                channel.send("basic.ack", delivery_tag=tag)
        if multiple and self._held:
            channel.send("basic.ack", delivery_tag=max(self._held), multiple=True)

    def _commit(self, channel: Channel, transaction: Transaction) -> None:
        transaction.stage = Stage.COMMITTING
        channel.call("tx.commit")
        transaction.committed_at = time.monotonic()
        transaction.stage = Stage.COMMITTED
        for queue, key in transaction.published:
            message = self.record.queues[queue][key].message
            if not message.confirmed:
                self.counts["confirmed"] += 1
            message.confirmed = True
        for copy in self._held.values():
            copy.held = False
        self.record.backlog -= len(self._held)
        self.counts["acked"] += len(self._held)
        self.counts["commits"] += 1
        self._held.clear()

    def _roll_back(self, channel: Channel, transaction: Transaction) -> None:
        """What was acked stays with this channel, unacked."""
        transaction.stage = Stage.ROLLED_BACK
        self.record.backlog -= len(transaction.published)
        for copy in self._held.values():
            copy.acked = False
            copy.transaction = None
        channel.call("tx.rollback")

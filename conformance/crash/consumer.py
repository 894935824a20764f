"""A consumer that acks, acks many at once, returns, holds on to messages, and comes again."""

from __future__ import annotations

import time
from collections import deque

from conformance.channel import Channel
from conformance.client import Connection
from conformance.crash.look import seen_in
from conformance.crash.record import Copy
from conformance.crash.worker import Worker
from conformance.methods import Method

Held = tuple[int, Copy]
"""Delivery tag and copy."""


class Consumer(Worker):
    """Consumes one queue with a random prefetch count, pace and mixture of settlements."""

    queue = ""

    def work(self, connection: Connection) -> None:
        channel = connection.channel()
        while True:
            self._consume(channel)
            channel.call("channel.open")

    def _consume(self, channel: Channel) -> None:
        """One life of the channel, from qos to close-ok."""
        prefetch = self.chance.choice([1, 5, 50, 300])
        self._held: list[Held] = []
        self._flows: deque[list[Copy]] = deque()
        pause_s = self.chance.choice([0.0, 0.0, 0.0, 0.002, 0.02])
        channel.call("basic.qos", prefetch_count=prefetch)
        channel.consume(self.queue, "consumer")
        wanted = 1
        life = self.chance.choice([20, 500, 5_000])
        while life > 0 or self.ending.is_set():
            self._take(channel.next_method("a delivery"))
            if self.ending.is_set():
                continue
            if len(self._held) >= wanted:
                life -= len(self._held)
                self._settle(channel, must=len(self._held) >= prefetch)
                room = prefetch - len(self._held)
                wanted = len(self._held) + self.chance.randint(1, max(1, min(room, 30)))
                wanted = min(wanted, prefetch)
                if pause_s:
                    self.ending.wait(pause_s)
        self._leave(channel)

    def _take(self, method: Method) -> None:
        now = time.monotonic()
        if method.name == "basic.deliver" and self.ending.is_set():
            # A broker that stops gives others what those held whose connection it has closed.
            return
        if method.name == "basic.deliver":
            self.counts["delivered"] += 1
            copy = self.record.delivery(self.queue, seen_in(method), now)
            if copy is not None:
                self._held.append((method["delivery_tag"], copy))
        elif method.name == "channel.flow-ok":
            for copy in self._flows.popleft():
                copy.settled_at = now
        elif method.name != "basic.cancel-ok":
            raise AssertionError(f"got {method}")

    def _settle(self, channel: Channel, *, must: bool) -> None:
        share = self.chance.random()
        if share < 0.4:
            self._ack(channel, self.chance.sample(self._held, len(self._held)))
        elif share < 0.8 or (must and share > 0.96):
            self._ack(channel, self._held, multiple=True)
        elif share < 0.86:
            back = self.chance.choice(self._held)
            self._return(channel, [back], "basic.nack")
            self._ack(channel, list(self._held))
        elif share < 0.9:
            self._return(channel, self._held, "basic.nack", multiple=True)
        elif share < 0.96:
            self._return(channel, [self.chance.choice(self._held)], "basic.reject")

    def _ack(self, channel: Channel, held: list[Held], *, multiple: bool = False) -> None:
        copies = [copy for _, copy in held]
        for copy in copies:
            copy.acked = True
            copy.held = False
        if multiple:
            channel.send("basic.ack", delivery_tag=held[-1][0], multiple=True)
        else:
            for tag, _ in held:
                channel.send("basic.ack", delivery_tag=tag)
        self._flows.append(copies)
        channel.send("channel.flow", active=True)
        self.counts["acked"] += len(copies)
        self.record.backlog -= len(copies)
        self._drop(held)

    def _return(
        self, channel: Channel, held: list[Held], method: str, *, multiple: bool = False
    ) -> None:
        for _, copy in held:
            copy.held = False
        fields = {"multiple": True} if multiple else {}
        channel.send(method, delivery_tag=held[-1][0], requeue=True, **fields)
        self.counts["returned"] += len(held)
        self._drop(held)

    def _drop(self, held: list[Held]) -> None:
        gone = {tag for tag, _ in held}
        self._held = [each for each in self._held if each[0] not in gone]

    def _leave(self, channel: Channel) -> None:
        """Cancels and closes the channel: what is held goes back to the queue."""
        channel.send("basic.cancel", consumer_tag="consumer")
        while (method := channel.next_method("basic.cancel-ok")).name != "basic.cancel-ok":
            self._take(method)
        while self._flows:
            self._take(channel.next_method("channel.flow-ok"))
        for _, copy in self._held:
            copy.held = False
        channel.call("channel.close")

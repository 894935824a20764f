"""What an exchange of type x-recent-history keeps: its last messages, for who is bound later.

They are a queue that nobody consumes from and nobody can name. So they count as memory, are paged
out when it is short, and last if the exchange does and they are persistent. When something is
bound they are copied into it, and all of them have to be in memory for that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from broker.core.dead_letters import carbon_copies
from broker.core.exchange import Destination, Exchange
from broker.core.limits import is_full, is_over
from broker.core.lines import first, take_first
from broker.core.message import TTL, Message, with_time
from broker.core.queue import Queue
from broker.core.reading import fetch
from broker.core.rules import QueueRules
from broker.wire import properties

if TYPE_CHECKING:
    from broker.core.broker import Broker

BODIES_MAX: Final = 64 << 20
"""Octets of bodies that one exchange keeps: all of it is read when something is bound."""


class History(Queue):
    """The last messages of one exchange, the oldest first."""

    __slots__ = ("exchange",)

    def __init__(self, broker: Broker, exchange: Exchange) -> None:
        super().__init__(
            broker,
            exchange.vhost_name,
            f"history of exchange {exchange.name}",
            durable=exchange.durable,
        )
        self.exchange = exchange
        length = exchange.router.history_length
        self.apply_rules(QueueRules(max_length=length, max_length_bytes=BODIES_MAX))

    def publish(self, messages: list[Message], size: int) -> None:
        """Keeps messages; nobody counts that as routing them."""
        super().publish(messages, size)
        self.broker.counters.messages_routed -= len(messages)

    def expect(self, published: int, ttl: int, first: int, stop: int) -> None:
        """An expiration counts from when a message comes to a queue, not here."""

    def deliver(self) -> None:
        """Drops what is too much."""
        self._is_touched = False
        dropped = []
        while is_over(self):
            if first(self) is None:
                fetch(self)
                break
            dropped.append(take_first(self))
        if dropped:
            for store in self.stores:
                store.settled(dropped)

    def load(self) -> bool:
        """Whether all is in memory; if not, it is being read (`when_loaded`)."""
        fetch(self)
        return self.paged is None

    def when_loaded(self, callback: Callable[[bool], None]) -> None:
        """Calls back when all is in memory, or cannot be read. It is being read."""
        self.waiting.append(partial(self._go_on, callback))

    def _go_on(self, callback: Callable[[bool], None], is_there: bool) -> None:
        if is_there and not self.load():
            self.when_loaded(callback)
            return
        # Nobody consumes it: it would stay in memory.
        self.broker.pager.want(self)
        callback(is_there)

    def share(self, destination: Destination) -> None:
        """Something was bound: gives it all that is kept, as if it were published now; later, if
        that has to be read first."""

        def copy(is_there: bool) -> None:
            if is_there and not self.is_deleted:
                self._copy_all(destination)

        if self.load():
            copy(True)
        else:
            self.when_loaded(copy)

    def _copy_all(self, destination: Destination) -> None:
        if self._is_touched:
            self.deliver()
        for _, message, _ in list(self.ready):
            self._copy(message, destination)

    def _copy(self, message: Message, destination: Destination) -> None:
        content, header_size, origin, framing = message
        broker = self.broker
        targets: Sequence[Queue]
        if isinstance(destination, Exchange):
            header = content[:header_size]
            keys = [origin[1], *carbon_copies(properties.headers_table(header))]
            targets, _ = broker.vhosts[self.vhost_name].route(destination, keys, header)
        else:
            targets = [destination]
        targets = [
            queue
            for queue in targets
            if queue is not self
            and not queue.is_deleted
            and not (queue.refuses and is_full(queue, message))
        ]
        if targets:
            now = with_time(origin, broker.timers.now, origin[TTL])
            broker.enqueue(targets, [(content, header_size, now, framing)])

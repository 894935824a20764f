"""What an exchange of type x-recent-history keeps: its last messages, for who is bound later.

They are a queue that nobody consumes from and nobody can name. So they count as memory, are paged
out when it is short, and last if the exchange does and they are persistent. When something is
bound they are copied into it, and all of them have to be in memory for that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Final

from broker.core.dead_letters import carbon_copies
from broker.core.delayed import apart
from broker.core.exchange import Destination, Exchange
from broker.core.expiring import Expiring
from broker.core.limits import is_full, is_over
from broker.core.lines import first, take_first
from broker.core.message import (
    BCC,
    FRAMING,
    ORIGIN,
    ROUTING_KEY,
    TTL,
    Message,
    Origin,
    header_of,
    message_of,
    seen,
    with_time,
)
from broker.core.queue import Queue
from broker.core.reading import fetch
from broker.core.rules import QueueRules
from broker.errors import AMQPError, ReplyCode, exchange_title
from broker.wire import properties

if TYPE_CHECKING:
    from broker.core.broker import Broker

BODIES_MAX: Final = 64 << 20
"""Octets of bodies that one exchange keeps: all of it is read when something is bound."""
LENGTH_MAX: Final = 5_000
"""Messages that one exchange keeps, whatever was asked for: all are copied in one go."""
FULL_FROM: Final = 2
"""From so many times the memory limit on nothing is copied: a binding is no publish, and waits for
no alarm, as its connection may be one that consumes."""


_COPIES: Final = b"CC"
"""What the header frame of a message has that has further routing keys."""


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
        length = min(exchange.router.history_length, LENGTH_MAX)
        self.apply_rules(QueueRules(max_length=length, max_length_bytes=BODIES_MAX))

    def publish(self, messages: list[Message], size: int) -> None:
        """Keeps messages; nobody counts that as routing them."""
        super().publish(messages, size)
        self.broker.counters.messages_routed -= len(messages)

    def expect(self, messages: Sequence[Message], first: int) -> None:
        """An expiration counts from when a message comes to a queue, not here."""

    def expect_again(self, expiring: Expiring) -> None:
        """Nor does it after a start."""

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

    def check_room(self) -> None:
        """Before something is bound: RESOURCE_ERROR if memory is so short that nothing may be
        copied."""
        limit = self.broker.limits.memory
        if limit and self.messages_ready and self._others > FULL_FROM * limit:
            title = exchange_title(self.exchange.name, self.vhost_name)
            raise AMQPError(
                ReplyCode.RESOURCE_ERROR,
                f"there is no memory for what {title} keeps: {self._others} octets are"
                f" used beside it, far above the limit ({limit})",
            )

    @property
    def _others(self) -> int:
        """Octets of memory that all else takes."""
        return self.broker.memory_used - self.ready_bytes

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
        now = self.broker.timers.now
        # Those of one origin go as one, as they were published.
        for (origin, framing), run in groupby(map(message_of, list(self.ready)), key=_kind):
            timed = with_time(origin, now, origin[TTL])
            messages = [(content, size, timed, framing) for content, size, _, _ in run]
            if isinstance(destination, Exchange):
                self._route(destination, messages)
            else:
                self._enqueue([destination], messages)

    def _route(self, destination: Exchange, messages: list[Message]) -> None:
        vhost = self.broker.vhosts[self.vhost_name]
        for message in messages:
            header = header_of(message)
            keys = [message[ORIGIN][ROUTING_KEY]]
            if _COPIES in header:
                headers = properties.headers_table(header)
                keys += [*carbon_copies(headers), *carbon_copies(headers, BCC)]
            found, _ = vhost.route(destination, keys, seen(header))
            waiting, targets = apart(found)
            vhost.enqueue(waiting, message)
            self._enqueue([queue for queue in targets if queue is not self], [message])

    def _enqueue(self, queues: Sequence[Queue], messages: list[Message]) -> None:
        there = [queue for queue in queues if not queue.is_deleted]
        taking = [queue for queue in there if not queue.rules.refuses]
        if taking:
            self.broker.enqueue(taking, messages)
        for queue in there:
            if queue.rules.refuses:
                for message in messages:
                    if not is_full(queue, message):
                        self.broker.enqueue([queue], [message])


def _kind(message: Message) -> tuple[Origin, int]:
    return message[ORIGIN], message[FRAMING]

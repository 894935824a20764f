"""A transaction on one channel: what waits for its commit (AMQP 0-9-1, section 1.9 of the
reference; RabbitMQ, "AMQP 0-9-1 Model": atomic only for one queue)."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from broker.core.message import ORIGIN, PERSISTENT, Message, size_of
from broker.core.queue import Queue
from broker.errors import AMQPError, ReplyCode
from broker.protocol.assembly import PUBLISH

if TYPE_CHECKING:
    from broker.core.broker import Broker
    from broker.protocol.publish_once import Sent
    from broker.protocol.route import Route

LASTING_BYTES_MAX = 1 << 30
"""Octets of messages that last in one transaction. They are written as one batch, in which places
have four octets, and which is one piece for the disk and for cleaning."""


class Outcome(enum.Enum):
    """How deliveries are settled."""

    ACKNOWLEDGED = enum.auto()
    REJECTED = enum.auto()
    REQUEUED = enum.auto()


class Transaction:
    """Publishes with the queues they were routed to (None and `Sent`: route at commit), and
    settlements as (delivery tags, outcome). `settled` holds the tags of all settlements: the client
    may not settle them again, though they stay unacknowledged until the commit. `late` are the
    settlements, as (delivery tag, multiple), that may be about what timed out. What is held counts
    in `Broker.memory_used` until `drop`."""

    __slots__ = (
        "_broker",
        "acknowledged",
        "lasting_bytes",
        "late",
        "publishes",
        "settled",
        "settlements",
        "size",
    )

    def __init__(self, broker: Broker) -> None:
        self.publishes: list[tuple[Route, Message, list[Queue] | Sent | None]] = []
        self.settlements: list[tuple[list[int], Outcome]] = []
        self.settled: set[int] = set()
        self.late: list[tuple[int, bool]] = []
        # How many of these are acknowledgements.
        self.acknowledged = 0
        self._broker = broker
        self.size = 0
        self.lasting_bytes = 0

    def publish(
        self, route: Route, messages: list[Message], queues: list[Queue] | Sent | None
    ) -> None:
        """Keeps messages for the commit. Raises AMQPError if that becomes too much for one."""
        size = size_of(messages)
        if messages[0][ORIGIN][PERSISTENT]:
            self.lasting_bytes += size
            if self.lasting_bytes > LASTING_BYTES_MAX:
                raise AMQPError(
                    ReplyCode.PRECONDITION_FAILED,
                    f"persistent messages of one transaction are larger than {LASTING_BYTES_MAX}"
                    " octets",
                    PUBLISH,
                )
        self.publishes += [(route, message, queues) for message in messages]
        # Counted for each queue, as they will be after the commit.
        size *= max(1, len(queues)) if isinstance(queues, list) else 1
        self.size += size
        self._broker.memory_used += size

    def drop(self) -> None:
        """It holds nothing any more."""
        self.publishes.clear()
        self._broker.memory_used -= self.size
        self.size = 0

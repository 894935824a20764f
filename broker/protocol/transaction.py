"""A transaction on one channel: what waits for its commit (AMQP 0-9-1, section 1.6 of the
reference; RabbitMQ, "AMQP 0-9-1 Model": atomic only for one queue)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from broker.core.message import Message
from broker.core.queue import Queue

if TYPE_CHECKING:
    from broker.protocol.publish import Route


@dataclass(slots=True)
class Transaction:
    """Publishes with the queues they were routed to (None: route at commit), and settlements as
    (delivery tags, whether they are requeued). `settled` holds the tags of all settlements: the
    client may not settle them again, though they stay unacknowledged until the commit."""

    publishes: list[tuple[Route, Message, list[Queue] | None]] = field(default_factory=list)
    settlements: list[tuple[list[int], bool]] = field(default_factory=list)
    settled: set[int] = field(default_factory=set)

"""A client of the machine, and what it knows: what it holds, what it waits for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.durable.model import NEVER, Item, QueueModel
from tests.durable.site import DurableSite
from tests.protocol.client import Confirm, Tx

CONFIRM, CONSUME, TX = 1, 2, 3
"""The channels of each client, and what they are for."""


@dataclass(eq=False)
class ConsumerModel:
    """A consumer: what it may hold, and what it holds."""

    queue: QueueModel = field(repr=False)
    prefetch: int
    no_ack: bool
    held: int = 0

    def has_room(self) -> bool:
        return self.no_ack or not self.prefetch or self.held < self.prefetch


@dataclass
class Held:
    """A delivery that is not settled."""

    queue: QueueModel
    item: Item
    consumer: ConsumerModel | None


@dataclass
class Wish:
    """What a client waits for. `answered` is told the answer; `durable` is the batch that must be
    durable before. `queue` is what the wish is for and must stay while it waits. `is_late` is
    whether it was asked for when the log had failed."""

    kind: type
    answered: Callable[[Any], object]
    durable: int = 0
    queue: QueueModel | None = field(default=None, repr=False)
    is_late: bool = False


@dataclass
class Publish:
    """A publish, and where it goes."""

    body: bytes
    size: int
    persistent: bool
    targets: list[QueueModel] = field(default_factory=list)

    def must_last(self) -> bool:
        """Whether a queue that lasts is to keep it."""
        return self.persistent and any(
            queue.lasts and queue.gone == NEVER for queue in self.targets
        )


@dataclass
class Sent:
    """Publishes that a client sent, in one chunk."""

    exchange: str
    key: str
    in_tx: bool
    publishes: list[Publish] = field(default_factory=list)


class Peer:
    """One client with three channels."""

    def __init__(self, site: DurableSite) -> None:
        self.client = site.connect(channels=3)
        self.client.tell(Confirm.Select, CONFIRM)
        self.client.tell(Tx.Select, TX)
        assert len(self.client.read()) == 2
        self.wish: Wish | None = None
        # What it published while publishers have to wait.
        self.waiting: Sent | None = None
        self.consumers: dict[str, ConsumerModel] = {}
        self.consumers_so_far = 0
        self.held: dict[int, dict[int, Held]] = {CONFIRM: {}, CONSUME: {}, TX: {}}
        # By number of the publish, the batch it is in.
        self.unconfirmed: dict[int, int] = {}
        self.published = 0
        self.tx_publishes: list[Publish] = []
        self.tx_tags: list[int] = []

    @property
    def is_idle(self) -> bool:
        """Whether it waits for nothing."""
        return self.wish is None and self.waiting is None

    def tx_size(self) -> int:
        """Octets of memory that its transaction holds."""
        return sum(each.size * max(1, len(each.targets)) for each in self.tx_publishes)

    def note_publish(self, batch: int) -> None:
        self.published += 1
        self.unconfirmed[self.published] = batch

    def release(self, channel: int, tag: int) -> Held:
        """A delivery is settled, or given back."""
        held = self.held[channel].pop(tag)
        if held.consumer is not None:
            held.consumer.held -= 1
        return held

    def tags_up_to(self, channel: int, tag: int) -> list[int]:
        return [known for known in self.held[channel] if known <= tag]

    def free_tags(self, channel: int) -> list[int]:
        """Deliveries that can be settled."""
        return [tag for tag in self.held[channel] if channel != TX or tag not in self.tx_tags]

    def all_held(self) -> list[Held]:
        return [held for channel in self.held.values() for held in channel.values()]

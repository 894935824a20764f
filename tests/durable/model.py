"""What a broker that lasts has to have, said as plainly as can be: for everything, the batch of
the log in which it came and the one in which it went."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

ALWAYS = 0
"""Came before anything that can still be lost."""
NEVER = 1 << 62
"""Is still here."""


@dataclass(eq=False)
class Thing:
    """Something that lasts or not. A crash that leaves batches up to `kept` leaves what came by
    then and was not gone by then."""

    lasts: bool
    came: int
    gone: int = NEVER

    def survives(self, kept: int) -> bool:
        return self.lasts and self.came <= kept < self.gone


@dataclass(eq=False)
class Item(Thing):
    """A message in one queue."""

    number: int = 0
    body: bytes = b""
    size: int = 0
    # Whether somebody has seen it while that could be written down.
    was_seen: bool = False
    # Whether the next delivery is marked; None: who knows.
    mark: bool | None = False


@dataclass(eq=False)
class ExchangeModel(Thing):
    """A fan-out exchange."""

    name: str = ""


@dataclass(eq=False)
class QueueModel(Thing):
    """A queue: the numbers that are ready and those that are held, in `items`."""

    name: str = ""
    items: dict[int, Item] = field(default_factory=dict)
    ready: list[int] = field(default_factory=list)
    held: set[int] = field(default_factory=set)
    next_number: int = 1

    def add(self, body: bytes, size: int, at: int, *, persistent: bool) -> None:
        number = self.next_number
        self.next_number += 1
        self.items[number] = Item(persistent, at, number=number, body=body, size=size)
        self.ready.append(number)

    def find(self, body: bytes) -> Item | None:
        return next((item for item in self.items.values() if item.body == body), None)

    def hand_out(self, item: Item, *, is_noted: bool) -> None:
        self.ready.remove(item.number)
        self.held.add(item.number)
        item.was_seen |= is_noted

    def settle(self, item: Item, at: int) -> None:
        self.held.discard(item.number)
        item.gone = at

    def give_back(self, item: Item) -> None:
        if item.number in self.held and self.gone == NEVER:
            self.held.remove(item.number)
            self.ready = sorted([*self.ready, item.number])
            item.mark = True

    def purge(self, at: int) -> int:
        for number in self.ready:
            self.items[number].gone = at
        count = len(self.ready)
        self.ready.clear()
        return count

    def after_crash(self, kept: int, *, is_exact: bool) -> QueueModel:
        """What is there again. Without a clean stop more may be marked than was seen."""
        queue = QueueModel(lasts=True, came=ALWAYS, name=self.name)
        for number, item in self.items.items():
            if item.survives(kept):
                mark = True if item.was_seen else item.mark if is_exact else None
                queue.items[number] = Item(
                    True, ALWAYS, number=number, body=item.body, size=item.size,
                    was_seen=item.was_seen, mark=mark,
                )  # fmt: skip
                queue.ready.append(number)
        queue.next_number = self.next_number
        return queue


@dataclass(eq=False)
class BindingModel(Thing):
    """What an exchange passes on to something."""

    source: ExchangeModel = field(default_factory=lambda: ExchangeModel(True, ALWAYS))
    target: QueueModel | ExchangeModel = field(default_factory=lambda: ExchangeModel(True, ALWAYS))


class World:
    """All queues, exchanges and bindings there were since the last start."""

    def __init__(self) -> None:
        self.every_queue: list[QueueModel] = []
        self.every_exchange = [ExchangeModel(True, ALWAYS, name="amq.fanout")]
        self.every_binding: list[BindingModel] = []

    @property
    def queues(self) -> dict[str, QueueModel]:
        return {queue.name: queue for queue in self.every_queue if queue.gone == NEVER}

    @property
    def exchanges(self) -> dict[str, ExchangeModel]:
        return {each.name: each for each in self.every_exchange if each.gone == NEVER}

    @property
    def bindings(self) -> list[BindingModel]:
        return [binding for binding in self.every_binding if binding.gone == NEVER]

    def delete(self, thing: QueueModel | ExchangeModel, at: int) -> None:
        thing.gone = at
        for binding in self.bindings:
            if thing in (binding.source, binding.target):
                binding.gone = at

    def bind(self, source: str, target: QueueModel | ExchangeModel, at: int) -> BindingModel:
        exchange = self.exchanges[source]
        for binding in self.bindings:
            if (binding.source, binding.target) == (exchange, target):
                return binding
        new = BindingModel(exchange.lasts and target.lasts, at, source=exchange, target=target)
        self.every_binding.append(new)
        return new

    def route(self, exchange: str, key: str) -> list[QueueModel]:
        if not exchange:
            return [self.queues[key]] if key in self.queues else []
        work: list[ExchangeModel] = [self.exchanges[exchange]]
        queues: dict[QueueModel, None] = {}
        for source in work:
            for binding in self.bindings:
                target = binding.target
                if binding.source is source and isinstance(target, QueueModel):
                    queues[target] = None
                elif binding.source is source and target not in work:
                    assert isinstance(target, ExchangeModel)
                    work.append(target)
        return list(queues)

    def after_crash(self, kept: int, *, is_exact: bool) -> World:
        """What a start finds in batches up to `kept`."""
        world = World()
        heirs: dict[Thing, QueueModel | ExchangeModel] = {
            self.every_exchange[0]: world.every_exchange[0]
        }
        for queue in self.every_queue:
            if queue.survives(kept):
                heir = heirs[queue] = queue.after_crash(kept, is_exact=is_exact)
                world.every_queue.append(heir)
        for exchange in self.every_exchange[1:]:
            if exchange.survives(kept):
                heirs[exchange] = new = ExchangeModel(True, ALWAYS, name=exchange.name)
                world.every_exchange.append(new)
        for binding in self.every_binding:
            if binding.survives(kept):
                source = heirs[binding.source]
                assert isinstance(source, ExchangeModel)
                target = heirs[binding.target]
                world.every_binding.append(BindingModel(True, ALWAYS, source=source, target=target))
        return world

    def names(self) -> tuple[list[str], list[str], list[tuple[str, str]]]:
        """Queues, exchanges and bindings by name, sorted."""
        ends = [(binding.source.name, binding.target.name) for binding in self.bindings]
        return sorted(self.queues), sorted(self.exchanges), sorted(ends)


def is_prefix(numbers: Iterable[int], ready: list[int]) -> bool:
    """Whether these are the first ones that are ready, in whatever order."""
    found = sorted(numbers)
    return found == ready[: len(found)]

"""How clients of the machine ask for things, and what they declare, bind and delete."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.durable.model import ExchangeModel, QueueModel
from tests.durable.observer import Observer
from tests.durable.peer import CONFIRM, Peer, Wish
from tests.protocol.client import Exchange, Queue

QUEUES = {"q0": True, "q1": True, "t0": False}
EXCHANGES = {"x0": True, "x1": False}
SOURCES = ("amq.fanout", *EXCHANGES)
"""Names, and whether these last."""
PEERS = 2


class Defining:
    """The part of the machine that is about definitions."""

    seen: Observer

    # Finds a client that waits for nothing, if possible the one of this number.
    idle: Callable[[int], Peer]

    def ask(
        self, peer: Peer, wish: Wish, kind: Any, channel: int, *, strict: bool = True, **args: Any
    ) -> None:
        peer.wish = wish
        peer.client.tell(kind, channel, **args)
        self.seen.look(strict=strict)

    def declare_queue(self, number: int, name: str) -> None:
        peer = self.idle(number)
        world, at = self.seen.world, self.seen.at
        lasts = QUEUES[name]
        durable = 0
        if name not in world.queues:
            world.every_queue.append(QueueModel(lasts, at, name=name))
            durable = at if lasts else 0
        count = len(world.queues[name].ready)

        def answered(method: Any) -> None:
            self.seen.check("conservation", method.message_count == count, "in declare-ok")

        wish = Wish(Queue.DeclareOk, answered, durable)
        self.ask(peer, wish, Queue.Declare, CONFIRM, queue=name, durable=lasts)

    def delete_queue(self, number: int, name: str) -> None:
        peer = self.idle(number)
        queue = self.seen.world.queues.get(name)
        waited_for = [each.wish.queue for each in self.seen.peers if each.wish is not None]
        if queue is None or queue in waited_for:
            return
        count = len(queue.ready)
        self.seen.world.delete(queue, self.seen.at)

        def answered(method: Any) -> None:
            self.seen.check("conservation", method.message_count == count, "in delete-ok")

        wish = Wish(Queue.DeleteOk, answered, self.seen.at if queue.lasts else 0)
        self.ask(peer, wish, Queue.Delete, CONFIRM, queue=name)

    def declare_exchange(self, number: int, name: str) -> None:
        peer = self.idle(number)
        world, at = self.seen.world, self.seen.at
        durable = 0
        if name not in world.exchanges:
            world.every_exchange.append(ExchangeModel(EXCHANGES[name], at, name=name))
            durable = at if EXCHANGES[name] else 0
        wish = Wish(Exchange.DeclareOk, nothing, durable)
        arguments: dict[str, Any] = {"exchange_type": "fanout", "durable": EXCHANGES[name]}
        self.ask(peer, wish, Exchange.Declare, CONFIRM, exchange=name, **arguments)

    def delete_exchange(self, number: int, name: str) -> None:
        peer = self.idle(number)
        exchange = self.seen.world.exchanges.get(name)
        waited_for = [each.waiting.exchange for each in self.seen.peers if each.waiting is not None]
        if exchange is None or name in waited_for:
            return
        self.seen.world.delete(exchange, self.seen.at)
        wish = Wish(Exchange.DeleteOk, nothing, self.seen.at if exchange.lasts else 0)
        self.ask(peer, wish, Exchange.Delete, CONFIRM, exchange=name)

    def bind(self, number: int, source: str, name: str, *, unbind: bool) -> None:
        peer = self.idle(number)
        world = self.seen.world
        queue, exchange = world.queues.get(name), world.exchanges.get(source)
        if queue is None or exchange is None:
            return
        known = [b for b in world.bindings if (b.source, b.target) == (exchange, queue)]
        unbind = unbind and bool(known)
        if unbind:
            known[0].gone = self.seen.at
        binding = known[0] if unbind else world.bind(source, queue, self.seen.at)
        is_new = unbind or not known
        kind, ok = (Queue.Unbind, Queue.UnbindOk) if unbind else (Queue.Bind, Queue.BindOk)
        wish = Wish(ok, nothing, self.seen.at if binding.lasts and is_new else 0)
        self.ask(peer, wish, kind, CONFIRM, queue=name, exchange=source)

    def bind_exchanges(self, number: int, name: str) -> None:
        peer = self.idle(number)
        world = self.seen.world
        if name not in world.exchanges:
            return
        binding = world.bind("amq.fanout", world.exchanges[name], self.seen.at)
        is_new = binding.came == self.seen.at
        wish = Wish(Exchange.BindOk, nothing, self.seen.at if binding.lasts and is_new else 0)
        ends: dict[str, Any] = {"destination": name, "source": "amq.fanout"}
        self.ask(peer, wish, Exchange.Bind, CONFIRM, **ends)


def nothing(method: Any) -> None:
    """The answer says nothing."""

"""How clients of the machine ask for things, and what they declare, bind and delete."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.durable.model import NEVER, ExchangeModel, QueueModel, Thing
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
        wish.is_late = self.seen.has_failed
        peer.wish = wish
        peer.client.tell(kind, channel, **args)
        self.seen.look(strict=strict)

    def is_refused(self, peer: Peer, kind: Any, ok: type, lasts: object, **args: Any) -> bool:
        """Whether the log has failed and should know of this, which is refused then: nothing is
        different afterwards."""
        if not lasts or not self.seen.has_failed:
            return False
        self.ask(peer, Wish(ok, nothing, NEVER), kind, CONFIRM, **args)
        self.seen.check("answers", peer not in self.seen.peers, f"{kind} {args} is not refused")
        return True

    def is_lost(self, thing: Thing) -> bool:
        """Whether something lasts of which the log does not know."""
        return thing.lasts and thing.came > self.seen.site.log.durable

    def declare_queue(self, number: int, name: str) -> None:
        peer = self.idle(number)
        world, at = self.seen.world, self.seen.at
        lasts = QUEUES[name]
        durable = 0
        known = world.queues.get(name)
        is_new = lasts and (known is None or self.is_lost(known))
        if self.is_refused(peer, Queue.Declare, Queue.DeclareOk, is_new, queue=name, durable=lasts):
            return
        if known is not None:
            durable = known.came if lasts else 0
        else:
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
        if self.is_refused(peer, Queue.Delete, Queue.DeleteOk, queue.lasts, queue=name):
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
        arguments: dict[str, Any] = {"exchange_type": "fanout", "durable": EXCHANGES[name]}
        known = world.exchanges.get(name)
        is_new = EXCHANGES[name] and (known is None or self.is_lost(known))
        if self.is_refused(
            peer, Exchange.Declare, Exchange.DeclareOk, is_new, exchange=name, **arguments
        ):
            return
        if known is not None:
            durable = known.came if EXCHANGES[name] else 0
        else:
            world.every_exchange.append(ExchangeModel(EXCHANGES[name], at, name=name))
            durable = at if EXCHANGES[name] else 0
        wish = Wish(Exchange.DeclareOk, nothing, durable)
        self.ask(peer, wish, Exchange.Declare, CONFIRM, exchange=name, **arguments)

    def delete_exchange(self, number: int, name: str) -> None:
        peer = self.idle(number)
        exchange = self.seen.world.exchanges.get(name)
        waited_for = [each.waiting.exchange for each in self.seen.peers if each.waiting is not None]
        if exchange is None or name in waited_for:
            return
        if self.is_refused(peer, Exchange.Delete, Exchange.DeleteOk, exchange.lasts, exchange=name):
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
        changes = queue.lasts and exchange.lasts and (unbind or not known or self.is_lost(known[0]))
        kind, ok = (Queue.Unbind, Queue.UnbindOk) if unbind else (Queue.Bind, Queue.BindOk)
        if self.is_refused(peer, kind, ok, changes, queue=name, exchange=source):
            return
        if unbind:
            known[0].gone = self.seen.at
        binding = known[0] if unbind else world.bind(source, queue, self.seen.at)
        durable = self.seen.at if unbind else binding.came
        wish = Wish(ok, nothing, durable if binding.lasts else 0)
        self.ask(peer, wish, kind, CONFIRM, queue=name, exchange=source)

    def bind_exchanges(self, number: int, name: str) -> None:
        peer = self.idle(number)
        world = self.seen.world
        if name not in world.exchanges:
            return
        ends: dict[str, Any] = {"destination": name, "source": "amq.fanout"}
        exchange = world.exchanges[name]
        known = [
            b for b in world.bindings if b.source.name == "amq.fanout" and b.target == exchange
        ]
        is_new = exchange.lasts and (not known or self.is_lost(known[0]))
        if self.is_refused(peer, Exchange.Bind, Exchange.BindOk, is_new, **ends):
            return
        binding = world.bind("amq.fanout", exchange, self.seen.at)
        wish = Wish(Exchange.BindOk, nothing, binding.came if binding.lasts else 0)
        self.ask(peer, wish, Exchange.Bind, CONFIRM, **ends)


def nothing(method: Any) -> None:
    """The answer says nothing."""

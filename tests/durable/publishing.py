"""How clients of the machine publish, and how their transactions end."""

from __future__ import annotations

from collections.abc import Callable

from broker.core.broker import MEMORY_LOW_SHARE
from broker.wire.methods import commands
from tests.durable.defining import nothing
from tests.durable.model import NEVER, Item
from tests.durable.observer import Observer, size_of_body
from tests.durable.peer import CONFIRM, TX, Peer, Publish, Sent, Wish
from tests.durable.site import PERSISTENT
from tests.protocol.client import Tx, publish_octets

BACKLOG_MAX = 40
PLACES = [("", "q0"), ("", "q0"), ("", "q1"), ("", "t0"), ("amq.fanout", ""), ("x0", "")]
"""Exchanges and routing keys."""


class Publishing:
    """The part of the machine that is about publishes and transactions."""

    seen: Observer
    bodies: int

    idle: Callable[[int], Peer]
    ask: Callable[..., None]

    def publish_some(
        self, number: int, choice: int, count: int, padding: int, *, persistent: bool, in_tx: bool
    ) -> None:
        peer = self.idle(number)
        world = self.seen.world
        exchange, key = PLACES[choice]
        if exchange not in ("", *world.exchanges):
            return
        targets = world.route(exchange, key)
        if any(len(queue.ready) > BACKLOG_MAX for queue in targets) or not self.has_memory(
            count * (padding + 400) * len(targets)
        ):
            return
        octets = []
        frame_max = peer.client.connection.frame_max
        sent = Sent(exchange, key, in_tx)
        for _ in range(count):
            self.bodies += 1
            body = b"%06d" % self.bodies + b"x" * padding
            size = size_of_body(body, frame_max, persistent=persistent)
            sent.publishes.append(Publish(body, size, persistent))
            octets.append(
                publish_octets(
                    body,
                    exchange=exchange,
                    key=key,
                    channel=TX if in_tx else CONFIRM,
                    frame_max=frame_max,
                    **(PERSISTENT if persistent else {}),
                )
            )
        self.send(peer, sent, b"".join(octets))

    def send(self, peer: Peer, sent: Sent, octets: bytes) -> None:
        """Publishes; if publishers have to wait, it comes to be when they go on."""
        is_full = self.seen.site.is_full
        peer.client.feed(octets)
        told = [received.kind for received in peer.client.reader.received]
        is_blocked = commands.Connection.Blocked in told
        self.seen.check("pauses", is_blocked == is_full, f"{is_blocked} but full is {is_full}")
        if is_blocked:
            peer.waiting = sent
        else:
            self.seen.arrive(peer, sent, self.seen.at)
        self.seen.look()

    def has_memory(self, size: int) -> bool:
        broker = self.seen.site.broker
        limit = broker.limits.memory
        if broker.is_memory_short:
            limit = int(limit * MEMORY_LOW_SHARE)
        used = broker.memory_used + sum(journal.index_bytes for journal in broker.journals)
        for peer in self.seen.peers:
            if peer.waiting is not None:
                places = len(self.seen.world.route(peer.waiting.exchange, peer.waiting.key))
                used += places * sum(400 + publish.size for publish in peer.waiting.publishes)
        return not broker.limits.memory or used + size < limit

    def is_stored(self, item: Item) -> bool:
        """Whether a message is in the log, and is to go from there."""
        return item.lasts and not (self.seen.has_failed and item.came >= self.seen.site.log.next)

    def commit(self, number: int) -> None:
        peer = self.idle(number)
        publishes, peer.tx_publishes = peer.tx_publishes, []
        tags, peer.tx_tags = peer.tx_tags, []
        lasts = False
        for publish in publishes:
            self.seen.add(publish, self.seen.at)
            lasts |= publish.must_last()
            if lasts and self.seen.has_failed:
                # The connection is closed here.
                tags = []
                break
        for tag in tags:
            held = peer.release(TX, tag)
            held.queue.settle(held.item, self.seen.at)
            is_there = held.queue.lasts and held.queue.gone == NEVER
            lasts |= is_there and self.is_stored(held.item)
        wish = Wish(Tx.CommitOk, nothing, self.seen.at if lasts else 0)
        self.ask(peer, wish, Tx.Commit, TX)

    def roll_back(self, number: int) -> None:
        peer = self.idle(number)
        peer.tx_publishes, peer.tx_tags = [], []
        self.ask(peer, Wish(Tx.RollbackOk, nothing), Tx.Rollback, TX)

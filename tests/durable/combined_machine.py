"""Clients that use all features at once, on a broker with little memory, a clock that is driven,
and an end at any moment; beside it the model.

After each step the disk does what it has to; then every queue must hold exactly what the model
says. In the midst of steps a broker may end, too: then every message must be where it was, or where
what was asked for in that moment takes it (`combined_crash`).
"""

from __future__ import annotations

from collections import deque
from typing import Any

from broker.core.policies import Policy
from broker.wire.methods import Method, shortstr
from broker.wire.properties import DELIVERY_MODE, EXPIRATION, HEADERS, PRIORITY
from broker.wire.table import Field, encode_table
from tests.durable.combined_contents import Found
from tests.durable.combined_model import (
    BRIEF,
    LASTING,
    LETTERS,
    WORK,
    Definition,
    Item,
    Model,
    State,
)
from tests.durable.combined_observer import CHANNELS, GET, CombinedObserver, Worker
from tests.durable.site import DurableSite
from tests.protocol.client import (
    Basic,
    Channel,
    Confirm,
    Exchange,
    Queue,
    Received,
    publish_octets,
    text,
)

HIGHEST = 3
BACKLOG_MAX = 40


class CombinedMachine(CombinedObserver):
    """`limits` are those of the broker; checks that are `off` are not made. Some queues have
    priorities (`has_ranks`), limits may be in octets (`has_octets`)."""

    off: frozenset[str] = frozenset()
    persistent_share = 0.85
    limits: dict[str, Any] = {}  # noqa: RUF012  # set anew by who wants others
    has_ranks = True
    has_octets = False

    def __init__(self) -> None:
        self.site = DurableSite(now=1_000_000, **self.limits)
        self.model = Model(self.has_ranks)
        self.names = 0
        self.starts = 0
        self.came: dict[str, deque[Received]] = {queue: deque() for queue in LETTERS}
        self.policies: dict[str, Definition] = {}
        # Publishes of this step, with their names, by number of the confirm.
        self.unconfirmed: dict[int, Item] = {}
        self.published = 0
        self.found: dict[str, list[Found]] = {}
        # Octets of bodies that were delivered in this turn.
        self.taken: dict[str, list[int]] = {}
        self.connect()
        self.set_policy(WORK, {})

    # Clients

    def connect(self) -> None:
        """Clients of a broker that has just started declare what they need."""
        self.publisher = self.site.connect()
        self.worker = Worker(self.site.connect(channels=GET))
        self.published = 0
        self.unconfirmed.clear()
        ask = self._ask
        ask(Confirm.Select)
        ranks = {"x-max-priority": Field("byte", HIGHEST)} if self.has_ranks else {}
        for queue in LETTERS:
            arguments = ranks if queue in (WORK, BRIEF) else {}
            ask(Queue.Declare, queue=queue, durable=queue in LASTING, arguments=arguments)
        kind = {"x-delayed-type": text("direct")}
        later: dict[str, Any] = {"exchange_type": "x-delayed-message", "arguments": kind}
        ask(Exchange.Declare, exchange="later", durable=True, **later)
        ask(Exchange.Declare, exchange="dlx", exchange_type="direct", durable=True)
        for queue in (WORK, BRIEF):
            ask(Queue.Bind, queue=queue, exchange="later", routing_key=queue)
            ask(Queue.Bind, queue=LETTERS[queue], exchange="dlx", routing_key=queue)
        self.model.is_there = self._is_there

    def _ask(self, kind: type[Method], **arguments: Any) -> None:
        self.publisher.tell(kind, **arguments)
        self.site.settle_down()
        self.publisher.read()

    def _is_there(self, queue: str, name: str) -> bool:
        """Whether a queue has a message now, or has handed it out in this turn."""
        came = (received.body[:6].decode() for received in self.came[queue])
        return name in came or name in (found.body[:6].decode() for found in self.found[queue])

    def begin(self) -> None:
        """Something happens."""
        self.model.turn += 1
        self.model.now = self.site.broker.timers.now

    # What clients do

    def publish(self, queue: str, wanted: list[dict[str, Any]]) -> None:
        """Publishes a chunk of messages to a queue, some by way of the exchange that delays."""
        self.begin()
        octets = []
        for index, kind in enumerate(wanted):
            self.names += 1
            name = f"{self.names:06}"
            body = name.encode() + b"x" * kind["padding"]
            delay = kind["delay"]
            # It lasts at the exchange, wherever it goes from there.
            lasts = kind["persistent"] and (queue in LASTING or bool(delay))
            item = Item(name, body, queue, min(kind["priority"], HIGHEST), lasts, kind["ttl"])
            octets.append(self._octets(queue, body, kind))
            self.published += 1
            self.unconfirmed[self.published] = item
            self.model.add(item)
            item.place = self.model.turn, index
            if delay:
                item.state, item.due = State.DELAYED, self.model.now + delay
            else:
                item.published = self._stamp(queue, item, by_way=delay is not None)
        self.publisher.feed(b"".join(octets))

    def _stamp(self, queue: str, item: Item, *, by_way: bool) -> int | None:
        """When the message is said to be published, if that matters to anybody."""
        queues = LETTERS if by_way else [queue]
        timed = any(self.model.rules[each].number("message-ttl") is not None for each in queues)
        return self.model.now if timed or item.ttl is not None else None

    def _octets(self, queue: str, body: bytes, kind: dict[str, Any]) -> bytes:
        flags, properties = DELIVERY_MODE | PRIORITY, bytes([1 + kind["persistent"]])
        if kind["delay"]:
            flags |= HEADERS
            table = encode_table({"x-delay": Field("signedint", kind["delay"])})
            properties = table + properties
        properties += bytes([kind["priority"]])
        if kind["ttl"] is not None:
            flags |= EXPIRATION
            properties += shortstr(str(kind["ttl"]))
        return publish_octets(
            body,
            exchange="" if kind["delay"] is None else "later",
            key=queue,
            flags=flags,
            properties=properties,
            frame_max=self.publisher.connection.frame_max,
        )

    def consume(self, queue: str, prefetch: int) -> None:
        """Consumes a queue, unless that is so already."""
        if queue in self.worker.prefetch:
            return
        self.begin()
        channel = CHANNELS[queue]
        self.worker.client.tell(Basic.Qos, channel, prefetch_count=prefetch)
        self.worker.client.tell(Basic.Consume, channel, queue=queue, consumer_tag=queue)
        self.worker.prefetch[queue] = prefetch
        self.worker.before[queue] = self.worker.last[channel]

    def cancel(self, queue: str) -> None:
        """Consumes no more; what is held stays held."""
        if queue in self.worker.prefetch:
            self.begin()
            self.worker.client.tell(Basic.Cancel, CHANNELS[queue], consumer_tag=queue)
            del self.worker.prefetch[queue]

    def get(self, queue: str) -> None:
        """Asks for one message."""
        self.begin()
        self.worker.client.tell(Basic.Get, GET, queue=queue)
        self.site.settle_down()
        answers = (Basic.GetOk, Basic.GetEmpty)
        [answer] = [r for r in self.worker.client.reader.received if r.kind in answers]
        if answer.kind is Basic.GetEmpty:
            self.worker.client.reader.received.remove(answer)
            ready = [i for i in self.model.of(queue, State.READY) if not self.model.is_due(i)]
            self.check("delivery", not ready, f"get-empty, but {queue} has {len(ready)}")
        else:
            answer.method.consumer_tag = queue

    def settle(self, channel: int, share: int, how: str, *, multiple: bool) -> None:
        """Settles a delivery, or all up to it."""
        held = self.worker.held[channel]
        if not held:
            return
        self.begin()
        known = list(held)
        tag = known[share % len(known)]
        for each in [each for each in known if each == tag or (multiple and each < tag)]:
            item = held.pop(each)
            if how == "ack":
                self.model.end(item, "acked")
            elif how == "reject":
                self.model.die(item, "rejected")
            else:
                self.model.give_back(item, failed=True)
        if how == "ack":
            self.worker.client.tell(Basic.Ack, channel, delivery_tag=tag, multiple=multiple)
        else:
            requeue = how == "requeue"
            arguments = {"delivery_tag": tag, "multiple": multiple, "requeue": requeue}
            self.worker.client.tell(Basic.Nack, channel, **arguments)

    def recover(self, channel: int) -> None:
        """All that is held on a channel goes back."""
        self.begin()
        for item in self.worker.held[channel].values():
            self.model.give_back(item, failed=False)
        self.worker.held[channel].clear()
        self.worker.client.tell(Basic.Recover, channel, requeue=True)

    def leave(self, channel: int) -> None:
        """A channel is closed, with its consumer, and opened again."""
        self.begin()
        for item in self.worker.held[channel].values():
            self.model.give_back(item, failed=False)
        self.worker.held[channel].clear()
        self.worker.last[channel] = 0
        for queue, number in CHANNELS.items():
            if number == channel:
                self.worker.prefetch.pop(queue, None)
        self.worker.client.tell(Channel.Close, channel)
        self.worker.client.tell(Channel.Open, channel)

    def purge(self, queue: str) -> None:
        """Drops what is ready or waits."""
        self.begin()
        gone = self.model.of(queue, State.READY, State.WAITING)
        for item in gone:
            self.model.end(item, "purged")
        self.publisher.tell(Queue.Purge, queue=queue)
        self.site.settle_down()
        [answer] = [r for r in self.publisher.read() if r.kind is Queue.PurgeOk]
        self.check("conservation", answer.method.message_count == len(gone), "in purge-ok")

    def set_policy(self, queue: str, definition: Definition) -> None:
        """Another policy holds for a queue, and for the one like it that does not last."""
        self.begin()
        for each in (queue, LETTERS[BRIEF] if queue != WORK else BRIEF):
            mine = dict(definition)
            if "dead-letter-exchange" in mine and queue != WORK:
                mine |= {"dead-letter-exchange": "", "dead-letter-routing-key": LETTERS[each]}
            self.model.set_rules(each, mine)
            if mine:
                self.site.vhost.set_policy(Policy(each, f"^{each}$", mine, "queues"))
            elif each in self.policies:
                self.site.vhost.clear_policy(each, is_operator=False)
                del self.policies[each]
            if mine:
                self.policies[each] = mine
        self.site.broker.run_deliveries()
        self.site.collect()

    def pass_time(self, milliseconds: int, *, jump: bool) -> None:
        """Time goes on, from one thing that is due to the next, or all at once."""
        broker = self.site.broker
        target = broker.timers.now + milliseconds
        while not jump and broker.timers.next is not None and broker.timers.next <= target:
            self._advance(max(broker.timers.next, broker.timers.now))
        self._advance(target)

    def _advance(self, now: int) -> None:
        self.site.broker.timers.advance(now)
        self.site.broker.run_deliveries()
        self.site.collect()
        self.begin()
        self.rest()

"""Clients that use all features of the broker, on queues that have any of them, with a clock that
is driven and an end at any moment. What has to hold after each step, `mixed_judge` says."""

from __future__ import annotations

from random import Random
from typing import Any

from broker.core.policies import Policy
from broker.wire.methods import Method, shortstr
from broker.wire.properties import (
    DELIVERY_MODE,
    EXPIRATION,
    HEADERS,
    PRIORITY,
)
from broker.wire.table import Field, Table, encode_table
from tests.durable.mixed_hearing import Hearing, Seen, Sent, Step
from tests.durable.mixed_world import (
    FANOUT,
    LATER,
    LETTERS,
    ONCE,
    QUEUES,
    WORK,
    Copy,
    QueueFacts,
    State,
    Subscription,
    Window,
    World,
)
from tests.durable.site import DurableSite
from tests.protocol.client import (
    Basic,
    Channel,
    Confirm,
    Exchange,
    Queue,
    publish_octets,
    text,
)

SLOTS = 3
"""Consumers that a queue may have at a time, each on a channel of its own."""
GET = len(QUEUES) * SLOTS + 1
"""The channel of basic.get."""


class MixedClients(Hearing):
    """A publisher and a worker, and what they do."""

    limits: dict[str, Any] = {}  # noqa: RUF012  # set anew by who wants others
    persistent_share = 0.85
    # What is used in this run, of what not all runs use.
    swarm: frozenset[str] = frozenset()

    def __init__(self, dice: Random) -> None:
        self.world = World([some_queue(name, dice) for name in QUEUES])
        if dice.random() < 0.5:
            self.world.once = Window(dice.choice([3, 50]), None)
        self.site = DurableSite(now=1_000_000, **self.limits)
        self.names = self.tags = self.steps = 0
        self.told: list[str] = []
        self.policies: dict[str, dict[str, object]] = {}
        self.unanswered: dict[int, Sent] = {}
        # What is held, by channel and tag; and what was late and is still to be settled.
        self.held: dict[int, dict[int, Seen]] = {}
        self.late: dict[int, dict[int, Seen]] = {}
        self.step = Step(self.site.broker.timers.now)
        self.connect()

    # Clients

    def connect(self) -> None:
        """Clients of a broker that has just started declare what they need."""
        self.publisher = self.site.connect()
        self.worker = self.site.connect(channels=GET)
        self.published = 0
        self.unanswered.clear()
        self.held = {number: {} for number in range(1, GET + 1)}
        self.late = {number: {} for number in range(1, GET + 1)}
        self._ask(Confirm.Select)
        kind = {"x-delayed-type": text("direct")}
        more: dict[str, Any] = {"exchange_type": "x-delayed-message", "arguments": kind}
        self._ask(Exchange.Declare, exchange=LATER, durable=True, **more)
        size: Table = {"x-cache-size": Field("signedint", self.world.once.size)}
        more = {"exchange_type": "x-message-deduplication", "arguments": size}
        self._ask(Exchange.Declare, exchange=ONCE, durable=True, **more)
        for name in QUEUES:
            self.declare(name)

    def declare(self, name: str) -> None:
        """A queue is there from now on."""
        facts = self.world.queues[name]
        if not facts.exists:
            self.tell("declares", name)
            facts.consumers.clear()
            facts.latest.clear()
            if facts.window is not None:
                facts.window = Window(facts.window.size, facts.window.ttl)
        facts.exists = True
        facts.used = facts.used[0], self.now
        if not self.step.is_open:
            facts.used = self.now, self.now
        more: dict[str, Any] = {"durable": facts.durable, "arguments": facts.arguments}
        self._ask(Queue.Declare, queue=name, **more)
        if name in WORK:
            self._ask(Queue.Bind, queue=name, exchange=LATER, routing_key=name)
        if name in FANOUT:
            self._ask(Queue.Bind, queue=name, exchange=ONCE)

    def _ask(self, kind: type[Method], **arguments: Any) -> None:
        self.publisher.tell(kind, **arguments)
        self.site.settle_down()
        answers = self.publisher.read()
        assert len(answers) == 1, answers
        assert answers[0].kind is not Channel.Close, answers

    # What clients do

    def publish(self, wanted: list[dict[str, Any]]) -> None:
        """Publishes a chunk of messages, to a queue or by way of an exchange."""
        octets = b""
        for kind in wanted:
            self.names += 1
            name = f"{self.names:06}"
            body = name.encode() + b"x" * kind.pop("padding")
            by_way, delay, queue = kind.pop("by_way"), kind.pop("delay"), kind.pop("queue")
            sent = Sent([], by_way)
            for target in FANOUT if by_way == ONCE else [queue]:
                copy = Copy(name, body, WORK.index(target), queue=target, **kind)
                copy.place = self.steps, self.names
                if by_way == LATER and delay:
                    copy.state, copy.due = State.DELAYED, self.now + delay
                self.world.add(copy)
                sent.copies.append(copy)
            self.step.sent.append(sent)
            self.published += 1
            self.unanswered[self.published] = sent
            octets += self._octets(sent.copies[0], by_way, delay)
            self.tell("publishes", by_way, sent.copies)
        self.publisher.feed(octets)

    def _octets(self, copy: Copy, by_way: str, delay: int) -> bytes:
        table: Table = {"x-delay": Field("signedint", delay)} if by_way == LATER else {}
        keys = {"room": copy.room, "tenant": copy.tenant, "x-deduplication-header": copy.identity}
        table |= {name: text(value) for name, value in keys.items() if value is not None}
        flags = HEADERS | DELIVERY_MODE | PRIORITY
        properties = encode_table(table) + bytes([1 + copy.persistent, copy.priority])
        if copy.ttl is not None:
            flags |= EXPIRATION
            properties += shortstr(str(copy.ttl))
        frame_max = self.publisher.connection.frame_max
        more: dict[str, Any] = {"flags": flags, "properties": properties, "frame_max": frame_max}
        return publish_octets(copy.body, exchange=by_way, key=copy.queue, **more)

    def consume(self, queue: str, asked: dict[str, Any]) -> None:
        """One more consumes a queue, if there is a place."""
        facts = self.world.queues[queue]
        first = QUEUES.index(queue) * SLOTS + 1
        taken = {each.channel for each in facts.consumers}
        free = [
            each
            for each in range(first, first + SLOTS)
            if each not in taken and not self.held[each] and not self.late[each]
        ]
        if not facts.exists or not free:
            return
        self.tags += 1
        consumer = Subscription(queue, free[0], f"{queue}-{self.tags}", **asked)
        self.tell("consumes", consumer)
        table: Table = {"x-priority": Field("signedint", consumer.rank)}
        if consumer.timeout is not None:
            table["x-consumer-timeout"] = Field("signedint", consumer.timeout)
        if consumer.action:
            table["x-consumer-timeout-action"] = text(consumer.action)
        facts.consumers.append(consumer)
        self.use(facts)
        channel = consumer.channel
        self.worker.tell(Basic.Qos, channel, prefetch_count=consumer.prefetch)
        more = {"consumer_tag": consumer.tag, "no_ack": consumer.no_ack, "arguments": table}
        self.worker.tell(Basic.Consume, channel, queue=queue, **more)

    def cancel(self, consumer: Subscription) -> None:
        """Consumes no more; what is held stays held."""
        self.tell("cancels", consumer.tag)
        self._leaves(consumer)
        self.worker.tell(Basic.Cancel, consumer.channel, consumer_tag=consumer.tag)

    def get(self, queue: str, *, no_ack: bool) -> None:
        """Asks for one message."""
        facts = self.world.queues[queue]
        if not facts.exists:
            return
        self.tell("gets from", queue)
        self.use(facts)
        self.step.gets += 1
        self.getting = Subscription(queue, GET, no_ack=no_ack)
        self.worker.tell(Basic.Get, GET, queue=queue, no_ack=no_ack)
        self.site.settle_down()
        answers = [r for r in self.worker.reader.received if r.kind is Basic.GetEmpty]
        for answer in answers:
            self.worker.reader.received.remove(answer)
            self.getting = Subscription(queue, GET)
            eligible = self.eligible(queue)
            self.check("delivery", self.step.is_open or not eligible, ("get-empty", eligible))

    def eligible(self, queue: str) -> list[Copy]:
        """What might be handed out now."""
        return [
            copy
            for copy in self.world.of(queue, State.READY)
            if not self.may_be_over(copy) and not self.is_withheld(copy)
        ]

    def may_be_over(self, copy: Copy) -> bool:
        end = self.world.deadline(copy, copy.queue, latest=False)
        return end is not None and end <= self.now

    def is_withheld(self, copy: Copy) -> bool:
        """Whether another message of its key is held or waits."""
        if not self.world.queues[copy.queue].has_groups or copy.room is None:
            return False
        others = self.world.of(copy.queue, State.HELD, State.WAITING)
        return any(each.room == copy.room for each in others)

    def settle(self, channel: int, share: int, how: str, *, multiple: bool) -> None:
        """Settles a delivery, or all up to it; also one that was late."""
        known = sorted([*self.held[channel], *self.late[channel]])
        tag = known[share % len(known)]
        for each in [each for each in known if each == tag or (multiple and each < tag)]:
            seen = self.held[channel].pop(each, None)
            if seen is None:
                del self.late[channel][each]
                self.step.late_acks += 1
            else:
                self.step.settled[seen.copy] = how
                self.step.acked += how == "ack"
        self.tell(how, channel, tag, "and before" * multiple, list(self.step.settled))
        if how == "ack":
            self.worker.tell(Basic.Ack, channel, delivery_tag=tag, multiple=multiple)
        else:
            requeue = how == "requeue"
            more = {"delivery_tag": tag, "multiple": multiple, "requeue": requeue}
            self.worker.tell(Basic.Nack, channel, **more)

    def give_back(self, channel: int, *, leave: bool) -> None:
        """All that is held on a channel goes back; it may be closed for that, and opened again."""
        self.tell("leaves" if leave else "recovers", channel)
        for seen in self.held[channel].values():
            self.step.settled[seen.copy] = "return"
        self.held[channel].clear()
        if leave:
            self._channel_is_gone(channel)
            self.worker.tell(Channel.Close, channel)
            self.worker.tell(Channel.Open, channel)
        else:
            self.worker.tell(Basic.Recover, channel, requeue=True)

    def purge(self, queue: str) -> None:
        """Drops what is ready or waits."""
        if not self.world.queues[queue].exists:
            return
        self.tell("purges", queue)
        there = self.world.of(queue, State.READY, State.WAITING)
        self.step.purged.add(queue)
        self.publisher.tell(Queue.Purge, queue=queue)
        self.site.settle_down()
        [answer] = [r for r in self.publisher.reader.received if r.kind is Queue.PurgeOk]
        self.publisher.reader.received.remove(answer)
        count = answer.method.message_count
        self.check("conservation", self.step.is_open or count == len(there), "in purge-ok")
        facts = self.world.queues[queue]
        if facts.window is not None:
            facts.window = Window(facts.window.size, facts.window.ttl)
            if self.step.is_open:
                facts.window.doubts(
                    each.identity for each in self.world.known.values() if each.identity
                )

    def set_policy(self, queue: str, definition: dict[str, object]) -> None:
        """Another policy holds for a queue."""
        if definition.get("dead-letter-exchange") == "":
            definition["dead-letter-routing-key"] = LETTERS[queue]
        self.tell("policy of", queue, definition)
        self.step.changed.add(queue)
        self.world.set_rules(queue, definition, self.now)
        if definition:
            self.site.vhost.set_policy(Policy(queue, f"^{queue}$", definition, "queues"))
            self.policies[queue] = definition
        elif self.policies.pop(queue, None):
            self.site.vhost.clear_policy(queue, is_operator=False)
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
        self.tell("it is later")
        self.rest()


def some_queue(name: str, dice: Random) -> QueueFacts:
    """A queue with any features."""
    facts = QueueFacts(name, durable=dice.random() < 0.8)
    facts.order = dice.choice(["plain", "ranks", "groups", "shares", "both"])
    facts.turns = dice.choice(["", "", "single", "least-loaded"])
    if name in WORK:
        facts.remembers = dice.choice(["", "", "present", "window"])
    if facts.remembers == "window":
        facts.window = dice.choice([Window(3, None), Window(50, None), Window(50, 60)])
    return facts

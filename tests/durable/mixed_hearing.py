"""What clients of a broker with all features are told, and what is known of one step of a run."""

from __future__ import annotations

from dataclasses import dataclass, field

from broker.wire.properties import headers_table
from tests.durable.combined_contents import Death, deaths_of
from tests.durable.combined_observer import header_octets
from tests.durable.mixed_world import Copy, QueueFacts, Subscription, World
from tests.durable.site import DurableSite
from tests.protocol.client import Basic, Channel, Client, Received


@dataclass
class Sent:
    """A publish: what became of it is answered once for all its copies."""

    copies: list[Copy]
    by_way: str
    answer: bool | None = None


@dataclass
class Seen:
    """A delivery."""

    copy: Copy
    holder: Subscription
    tag: int
    deaths: tuple[Death, ...]
    again: bool
    count: int | None


@dataclass
class Step:
    """What is known of one step. What is `open` may have happened, or not: the broker ended in the
    midst of it."""

    began: int
    settled: dict[Copy, str] = field(default_factory=dict)
    sent: list[Sent] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    purged: set[str] = field(default_factory=set)
    late: set[Copy] = field(default_factory=set)
    dropped: set[str] = field(default_factory=set)
    acked: int = 0
    closed: int = 0
    late_acks: int = 0
    gets: int = 0
    changed: set[str] = field(default_factory=set)
    restored: frozenset[str] = frozenset()
    ended: str = ""
    is_open: bool = False


class Hearing:
    """A publisher and a worker, and what they have heard so far."""

    site: DurableSite
    world: World
    step: Step
    steps: int
    told: list[str]
    publisher: Client
    worker: Client
    unanswered: dict[int, Sent]
    getting: Subscription
    # What is held, by channel and tag; and what was late and is still to be settled.
    held: dict[int, dict[int, Seen]]
    late: dict[int, dict[int, Seen]]

    def tell(self, *words: object) -> None:
        """Adds a line to the story of this run."""
        now = self.site.broker.timers.now - 1_000_000
        self.told.append(f"{self.steps:4} at {now:6}: {' '.join(map(str, words))}")

    @property
    def now(self) -> int:
        return self.site.broker.timers.now

    def use(self, facts: QueueFacts) -> None:
        """A queue is used now."""
        facts.used = (facts.used[0] if self.step.is_open else self.now), self.now

    def _leaves(self, consumer: Subscription) -> None:
        facts = self.world.queues[consumer.queue]
        if consumer in facts.consumers:
            facts.consumers.remove(consumer)
            self.use(facts)

    def _channel_is_gone(self, channel: int) -> None:
        self.late[channel].clear()
        for facts in self.world.queues.values():
            for consumer in [each for each in facts.consumers if each.channel == channel]:
                self._leaves(consumer)

    def read(self) -> None:
        """What the broker says counts from now on."""
        for received in self.publisher.read():
            assert received.kind in (Basic.Ack, Basic.Nack), received.method
            tag, multiple = received.method.delivery_tag, received.method.multiple
            for each in [n for n in self.unanswered if n == tag or (multiple and n < tag)]:
                sent = self.unanswered.pop(each)
                sent.answer = received.kind is Basic.Ack
                for copy in sent.copies:
                    copy.is_confirmed = sent.answer
        for received in self.worker.read():
            self._hear(received)

    def _hear(self, received: Received) -> None:
        method, channel = received.method, received.channel
        if received.kind in (Basic.Deliver, Basic.GetOk):
            self._delivered(received)
        elif received.kind is Basic.Cancel:
            self.tell("is told of the end of", method.consumer_tag)
            for facts in self.world.queues.values():
                for each in [c for c in facts.consumers if c.tag == method.consumer_tag]:
                    self._leaves(each)
        elif received.kind is Channel.Close:
            self.tell("channel", channel, "is closed:", method.reply_text)
            self.step.closed += len(self.held[channel])
            self.step.late |= {seen.copy for seen in self.held[channel].values()}
            self.held[channel].clear()
            self._channel_is_gone(channel)
            self.worker.tell(Channel.CloseOk, channel)
            self.worker.tell(Channel.Open, channel)

    def _delivered(self, received: Received) -> None:
        method, channel = received.method, received.channel
        holder = self.getting if received.kind is Basic.GetOk else None
        if holder is None:
            queue = method.consumer_tag.partition("-")[0]
            consumers = self.world.queues[queue].consumers
            holder = next((c for c in consumers if c.tag == method.consumer_tag), None)
            self.check("dispatch", holder is not None, f"{method.consumer_tag} is not there")
            assert holder is not None
        copy = self.world.find(holder.queue, received.body)
        self.check("conservation", copy is not None, f"delivered, never published: {received}")
        assert copy is not None
        self.check("body", received.body == copy.body, copy)
        octets = header_octets(received)
        count = headers_table(octets).get("x-delivery-count")
        times = None if count is None else int(str(count.value))
        again = bool(method.redelivered)
        tag = method.delivery_tag
        seen = Seen(copy, holder, tag, deaths_of(octets), again, times)
        self.tell("got", copy.name, "at", holder.tag or "get", "tag", tag, "again" * again)
        self.step.seen.append(seen)
        if not holder.no_ack:
            self.held[channel][tag] = seen

    def check(self, invariant: str, holds: object, words: object = "") -> None:
        """Raises if an invariant does not hold."""
        raise NotImplementedError

    def rest(self) -> None:
        """Ends a step."""
        raise NotImplementedError

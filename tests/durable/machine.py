"""What clients, disk and crashes do to a broker that lasts, step by step."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from broker.errors import ReplyCode
from tests.durable.defining import EXCHANGES, PEERS, QUEUES, SOURCES, Defining, nothing
from tests.durable.model import NEVER
from tests.durable.observer import Observer
from tests.durable.peer import CONFIRM, CONSUME, TX, ConsumerModel, Peer, Wish
from tests.durable.publishing import Publishing
from tests.protocol.client import Basic, Queue

queue_names = st.sampled_from(["q0", "q0", "q1", "t0"])
peers = st.integers(0, PEERS - 1)
shares = st.integers(0, 15)


class DurableMachine(Defining, Publishing, RuleBasedStateMachine):
    """Rules that do nothing where they make no sense: so few steps are rejected."""

    off: frozenset[str] = frozenset()
    persistent_share = 0.85
    limits: dict[str, Any] = {}  # noqa: RUF012  # set anew by who wants others

    def __init__(self) -> None:
        super().__init__()
        self.seen = Observer(**self.limits)
        self.seen.off = self.off
        self.bodies = 0
        self.is_over = False
        self.connect()
        # What most runs need, so that they need not find it.
        for name in ("q0", "q1"):
            self.declare_queue(0, name)
            self.seen.site.settle_down()
            self.seen.look()

    def connect(self) -> None:
        site = self.seen.site
        while len(self.seen.peers) < PEERS:
            self.seen.peers.append(Peer(site))
        self.seen.look()

    def idle(self, number: int) -> Peer:
        """A client that waits for nothing, if possible this one. The disk works until there is
        one."""
        while True:
            for peer in (self.seen.peers[number], *self.seen.peers):
                if peer.is_idle:
                    return peer
            assert self.disk_goes_on(), "a client waits for nothing"

    # Definitions

    @rule(
        number=peers,
        what=st.sampled_from(
            ["queue", "queue", "exchange", "exchange", "bind", "bind", "deletion"]
        ),
        share=shares,
    )
    def define(self, number: int, what: str, share: int) -> None:
        """Declares, binds, unbinds or deletes something."""
        queue = list(QUEUES)[share % 3]
        exchange = list(EXCHANGES)[share % 2]
        if what == "queue":
            self.declare_queue(number, queue)
        elif what == "exchange":
            self.declare_exchange(number, exchange)
        elif what == "deletion":
            if share % 4 == 3:
                self.delete_exchange(number, exchange)
            else:
                self.delete_queue(number, queue)
        elif share % 5 == 4:
            self.bind_exchanges(number, exchange)
        else:
            self.bind(number, SOURCES[share % 3], list(QUEUES)[share // 3 % 3], unbind=share > 11)

    # Publishing

    @rule(
        number=peers,
        choice=st.integers(0, 5),
        count=st.integers(1, 4),
        padding=st.sampled_from([0, 0, 90, 300]),
        persistent=st.sampled_from([True, True, True, False]),
        in_tx=st.sampled_from([False, False, False, True]),
    )
    def publish(
        self, number: int, choice: int, count: int, padding: int, *, persistent: bool, in_tx: bool
    ) -> None:
        self.publish_some(number, choice, count, padding, persistent=persistent, in_tx=in_tx)

    @rule(choice=st.integers(0, 3), count=st.integers(1, 4))
    def publish_persistent(self, choice: int, count: int) -> None:
        self.publish_some(0, choice, count, 90, persistent=True, in_tx=False)

    @rule(number=peers, commit=st.sampled_from([True, True, False]))
    def end_transaction(self, number: int, *, commit: bool) -> None:
        if commit:
            self.commit(number)
        else:
            self.roll_back(number)

    # Consuming

    @rule(
        number=peers,
        name=queue_names,
        prefetch=st.sampled_from([0, 1, 2, 5]),
        no_ack=st.sampled_from([False, False, False, True]),
    )
    def consume(self, number: int, name: str, prefetch: int, *, no_ack: bool) -> None:
        self.consume_from(number, name, prefetch, no_ack=no_ack)

    def consume_from(self, number: int, name: str, prefetch: int, *, no_ack: bool) -> None:
        peer = self.idle(number)
        queue = self.seen.world.queues.get(name)
        if queue is None:
            return
        if any(consumer.queue is queue for consumer in peer.consumers.values()):
            return
        peer.client.tell(Basic.Qos, CONSUME, prefetch_count=prefetch)
        assert peer.client.read(CONSUME)[-1].kind is Basic.QosOk
        self.seen.at = self.seen.site.log.next
        peer.consumers_so_far += 1
        tag = f"c{peer.consumers_so_far}"
        consumer = ConsumerModel(queue, 0 if no_ack else prefetch, no_ack)

        def answered(method: Any) -> None:
            assert method.consumer_tag == tag
            peer.consumers[tag] = consumer

        wish = Wish(Basic.ConsumeOk, answered, queue=queue)
        arguments: dict[str, Any] = {"queue": name, "consumer_tag": tag, "no_ack": no_ack}
        self.ask(peer, wish, Basic.Consume, CONSUME, **arguments)

    def cancel(self, number: int, share: int) -> None:
        peer = self.idle(number)
        if not peer.consumers:
            return
        tag = list(peer.consumers)[share % len(peer.consumers)]
        wish = Wish(Basic.CancelOk, lambda method: peer.consumers.pop(tag))
        self.ask(peer, wish, Basic.Cancel, CONSUME, consumer_tag=tag)

    @rule(number=peers, name=queue_names, in_tx=st.booleans())
    def get(self, number: int, name: str, *, in_tx: bool) -> None:
        peer = self.idle(number)
        queue = self.seen.world.queues.get(name)
        if queue is None:
            return
        wish = Wish(Basic.GetOk, nothing, queue=queue)
        self.ask(peer, wish, Basic.Get, TX if in_tx else CONFIRM, queue=name)

    @rule(
        number=peers,
        channel=st.sampled_from([CONFIRM, CONSUME, CONSUME, CONSUME, TX]),
        share=shares,
        how=st.sampled_from(["ack", "ack", "ack", "reject", "requeue"]),
        multiple=st.booleans(),
    )
    def settle(self, number: int, channel: int, share: int, how: str, *, multiple: bool) -> None:
        self.settle_some(number, channel, share, how, multiple=multiple)

    def settle_some(
        self, number: int, channel: int, share: int, how: str, *, multiple: bool
    ) -> None:
        peer = self.idle(number)
        if not (known := peer.free_tags(channel)):
            return
        tag = known[share % len(known)] if share else known[0]
        tags = [each for each in known if each <= tag] if multiple else [tag]
        if channel == TX:
            peer.tx_tags += tags
            how = "ack" if how == "requeue" else how
        else:
            for each in tags:
                held = peer.release(channel, each)
                if how == "requeue":
                    held.queue.give_back(held.item)
                else:
                    held.queue.settle(held.item, self.seen.at)
        if how == "ack":
            peer.client.tell(Basic.Ack, channel, delivery_tag=tag, multiple=multiple)
        else:
            requeue = how == "requeue"
            arguments = {"delivery_tag": tag, "multiple": multiple, "requeue": requeue}
            peer.client.tell(Basic.Nack, channel, **arguments)
        self.seen.look()

    @rule(number=peers, multiple=st.booleans(), share=shares)
    def acknowledge(self, number: int, share: int, *, multiple: bool) -> None:
        self.settle_some(number, CONSUME, share, "ack", multiple=multiple)

    @rule(
        number=peers,
        what=st.sampled_from(["cancel", "purge", "death"]),
        name=queue_names,
        share=shares,
    )
    def interrupt(self, number: int, what: str, name: str, share: int) -> None:
        """Something that happens less often."""
        if what == "cancel":
            self.cancel(number, share)
        elif what == "purge":
            self.purge(number, name)
        else:
            self.connection_dies(number)
            self.connect()

    def purge(self, number: int, name: str) -> None:
        peer = self.idle(number)
        queue = self.seen.world.queues.get(name)
        if queue is None:
            return
        lasts = queue.lasts and any(self.is_stored(queue.items[number]) for number in queue.ready)
        count = queue.purge(self.seen.at)

        def answered(method: Any) -> None:
            self.seen.check("conservation", method.message_count == count, "in purge-ok")

        wish = Wish(Queue.PurgeOk, answered, self.seen.at if lasts else 0)
        self.ask(peer, wish, Queue.Purge, CONFIRM, queue=name)

    # The disk

    @rule(count=st.integers(1, 3), tell=st.booleans())
    def disk_works(self, count: int, *, tell: bool) -> None:
        for log in self.seen.site.logs:
            log.work(count)
        if tell:
            self.disk_tells(count)

    def disk_tells(self, count: int) -> None:
        for _ in range(count):
            for log in self.seen.site.logs:
                self.seen.at = self.seen.site.log.next
                log.tell(1)
                self.seen.look()

    @rule(count=st.integers(1, 2))
    def reads_are_answered(self, count: int) -> None:
        for _ in range(count):
            for log in self.seen.site.logs:
                self.seen.at = self.seen.site.log.next
                log.answer(1)
                self.seen.look()

    def disk_goes_on(self) -> bool:
        busy = [log for log in self.seen.site.logs if log.can_work or log.has_news]
        if not busy:
            return False
        for log in busy:
            log.work(1)
        self.disk_tells(1)
        self.reads_are_answered(1)
        return True

    def check_if_quiet(self) -> None:
        """What must hold when the disk has done all it had to, if it has."""
        if not any(log.can_work or log.has_news for log in self.seen.site.logs):
            self.seen.check_quiet()

    @rule()
    def all_is_done(self) -> None:
        while self.disk_goes_on():
            pass
        self.seen.check_quiet()

    # The end of things

    def connection_dies(self, number: int, *, closed: bool = False) -> None:
        """Somebody is gone, or is closed by the broker."""
        peer = self.seen.peers[number]
        if closed:
            peer.client.connection.close(ReplyCode.CONNECTION_FORCED, "CONNECTION_FORCED - test")
        else:
            peer.client.connection.receive_eof()
        self.seen.site.collect()
        peer.client.read()
        self.seen.forget(peer)
        self.seen.look(strict=False)

    @rule(what=st.integers(0, 11), keep=st.integers(0, 2), name=queue_names)
    def the_end(self, what: int, keep: int, name: str) -> None:
        """A crash or a stop, seldom enough that something happens in between."""
        if what == 0:
            self.stop_and_start()
        elif what <= 3:
            self.start(stop=False, keep=keep)
        elif what <= 6:
            self.consume_from(what % PEERS, name, what, no_ack=False)
        else:
            self.publish_some(what % PEERS, what % 4, 4, 90, persistent=True, in_tx=False)

    def stop_and_start(self) -> None:
        while self.seen.peers:
            self.connection_dies(0, closed=True)
        self.start(stop=True, keep=0)

    def start(self, *, stop: bool, keep: int) -> None:
        seen = self.seen
        kept = seen.site.log.durable + min(keep, seen.site.log.undurable)
        site = seen.site.stop() if stop else seen.site.crash(keep)
        seen.world = seen.world.after_crash(NEVER - 1 if stop else kept, is_exact=stop)
        seen.site, seen.peers = site, []
        seen.at = site.log.next
        seen.check_started()
        self.connect()

    def teardown(self) -> None:
        if self.seen.is_broken:
            return
        self.all_is_done()
        self.stop_and_start()

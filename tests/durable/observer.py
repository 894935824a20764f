"""Looks at what clients got, and compares it with what has to be: after each step, once all is
done, and after a start."""

from __future__ import annotations

from typing import Any

from broker.core.message import MESSAGE_OVERHEAD
from broker.storage.log import LogState
from broker.wire.methods import commands
from broker.wire.properties import DELIVERY_MODE
from tests.durable.insides import bare_tags, is_out_of_reach, state_of
from tests.durable.model import NEVER, QueueModel, World, is_prefix
from tests.durable.peer import ConsumerModel, Held, Peer, Publish, Sent
from tests.durable.site import DurableSite
from tests.protocol.client import Basic, Received, content_octets

Connection = commands.Connection
FAILED = LogState.FAILED


class ViolationError(AssertionError):
    """An invariant does not hold."""

    def __init__(self, invariant: str, text: str) -> None:
        super().__init__(f"{invariant}: {text}")
        self.invariant = invariant


class Observer:
    """A site and its clients beside the model. Checks that are `off` are not made."""

    off: frozenset[str] = frozenset()

    def __init__(self, **limits: Any) -> None:
        self.limits = limits
        self.site = DurableSite(**limits)
        self.world = World()
        self.peers: list[Peer] = []
        # The batch that what happens in this step gets into.
        self.at = self.site.log.next
        self.was_empty: list[QueueModel] = []
        # Whether an invariant did not hold: then nothing more is worth looking at.
        self.is_broken = False

    def check(self, invariant: str, holds: object, text: object = "") -> None:
        if not holds and invariant not in self.off:
            self.is_broken = True
            raise ViolationError(invariant, str(text))

    @property
    def has_failed(self) -> bool:
        """Whether the broker knows that nothing more will be durable."""
        return self.site.log.state is FAILED

    def look(self, *, strict: bool = True) -> None:
        """Takes all that was sent. With `strict`, each queue was delivered from its front."""
        self.was_empty.clear()
        self.resume_publishers()
        handed: dict[QueueModel, list[int]] = {}
        count = len(self.peers)
        for peer in self.in_order_of_their_ends():
            for received in peer.client.read():
                self.take(peer, received, handed)
        strict = strict and len(self.peers) == count
        for queue, numbers in handed.items():
            # What was ready before: what is, and what was just taken.
            ready = sorted([*queue.ready, *numbers])
            self.check("order", not strict or is_prefix(numbers, ready), (numbers, ready))
        for queue in self.was_empty:
            self.check("delivery", not queue.ready, f"get-empty, but {queue.ready}")
        self.at = self.site.log.next
        self.check_accounts()

    def in_order_of_their_ends(self) -> list[Peer]:
        """The clients; those in front whose connection was closed: what they held went on to
        others, and perhaps from these to others again."""
        notes = self.site.notes
        ended = [details["connection"] for event, details in notes if event == "connection_error"]
        notes.clear()
        names = {name: place - len(ended) for place, name in enumerate(ended)}
        return sorted(self.peers, key=lambda peer: names.get(peer.client.connection.name, 0))

    # What is published

    def arrive(self, peer: Peer, sent: Sent, at: int) -> None:
        """The broker took publishes."""
        targets = self.world.route(sent.exchange, sent.key)
        for publish in sent.publishes:
            publish.targets = targets
            if sent.in_tx:
                peer.tx_publishes.append(publish)
            else:
                self.add(publish, at)
                peer.note_publish(at if publish.must_last() else 0)

    def add(self, publish: Publish, at: int) -> None:
        """A message is in its queues."""
        for queue in publish.targets:
            if queue.gone == NEVER:
                queue.add(publish.body, publish.size, at, persistent=publish.persistent)

    def resume_publishers(self) -> None:
        """What publishers sent who had to wait, is taken."""
        for connection, at in self.site.unblocked:
            for peer in self.peers:
                if peer.client.connection is connection and peer.waiting is not None:
                    told = [received.kind for received in peer.client.reader.received]
                    self.check("pauses", Connection.Unblocked in told, "it was not told to go on")
                    sent, peer.waiting = peer.waiting, None
                    self.arrive(peer, sent, at)
        self.site.unblocked.clear()

    # What came

    def take(self, peer: Peer, received: Received, handed: dict[QueueModel, list[int]]) -> None:
        method = received.method
        wish = peer.wish
        if received.kind in (Basic.Ack, Basic.Nack):
            self.take_confirm(peer, received)
        elif received.kind is Basic.Deliver:
            consumer = peer.consumers[method.consumer_tag]
            last = self.hand_out(peer, received, consumer.queue, consumer, consumer.no_ack)
            mine = [n for n in handed.setdefault(consumer.queue, []) if n == last]
            self.check("conservation", not mine, f"{last} came twice")
            handed[consumer.queue].append(last)
        elif received.kind is Basic.Cancel:
            gone = peer.consumers.pop(method.consumer_tag)
            self.check("definitions", gone.queue.gone != NEVER, "a consumer was cancelled")
        elif received.kind is Connection.Close:
            self.take_end(peer, method.reply_text)
            # What it got comes to others now.
            handed.clear()
        elif received.kind in (Connection.Blocked, Connection.Unblocked):
            waits = peer.waiting is not None
            self.check("pauses", waits == (received.kind is Connection.Blocked), received.kind)
        elif wish is not None and received.kind in (wish.kind, Basic.GetEmpty):
            self.check("answers", wish.durable <= self.site.log.durable, f"{received.kind} early")
            peer.wish = None
            if received.kind is Basic.GetEmpty:
                assert wish.queue is not None
                self.was_empty.append(wish.queue)
            elif received.kind is Basic.GetOk:
                assert wish.queue is not None
                last = self.hand_out(peer, received, wish.queue, None, False)
                handed.setdefault(wish.queue, []).append(last)
            else:
                wish.answered(method)
        else:
            raise ViolationError("protocol", f"{received.kind} {getattr(method, 'reply_text', '')}")

    def take_confirm(self, peer: Peer, received: Received) -> None:
        tag = received.method.delivery_tag
        first = min(peer.unconfirmed, default=tag) if received.method.multiple else tag
        batches = []
        for seq in range(first, tag + 1):
            self.check("confirms", seq in peer.unconfirmed, f"{seq} is confirmed twice, or unknown")
            batches.append(peer.unconfirmed.pop(seq, 0))
        durable = self.site.log.durable
        is_durable = max(batches, default=0) <= durable
        if received.kind is Basic.Ack:
            text = f"{first} to {tag} are confirmed; they are in {batches}, durable is {durable}"
            self.check("confirms", is_durable, text)
        else:
            # Also what need not last, if it came behind something that had to.
            self.check("confirms", self.has_failed, f"{first} to {tag} are refused without need")

    def take_end(self, peer: Peer, text: str) -> None:
        """The broker closed this connection."""
        wish = peer.wish
        is_get = wish is not None and wish.kind is Basic.GetOk
        is_unread = self.site.is_unread or any(log.state is FAILED for log in self.site.logs)
        is_refused = wish is not None and self.has_failed
        if is_refused and wish is not None and wish.is_late:
            is_refused = wish.durable > self.site.log.durable
        self.check("answers", is_refused or (is_get and is_unread), f"closed: {text}")
        self.forget(peer)
        peer.client.connection.receive_eof()

    def forget(self, peer: Peer) -> None:
        """A client is gone, and what it held is back."""
        for held in peer.all_held():
            held.queue.give_back(held.item)
        self.peers.remove(peer)
        self.site.clients.remove(peer.client)

    def hand_out(
        self,
        peer: Peer,
        received: Received,
        queue: QueueModel,
        consumer: ConsumerModel | None,
        no_ack: bool,
    ) -> int:
        """Somebody got a message; returns its number."""
        item = queue.find(received.body)
        is_ready = item is not None and item.number in queue.ready
        self.check("conservation", is_ready, f"{received.body!r} is not ready in {queue.name}")
        assert item is not None
        marked = received.method.redelivered
        self.check(
            "redelivered", item.mark in (None, marked), f"{received.body!r}: {marked} ({item})"
        )
        # Without a log nothing says who has seen what.
        queue.hand_out(item, is_noted=not self.has_failed)
        if no_ack:
            queue.settle(item, self.at)
            return item.number
        if consumer is not None:
            consumer.held += 1
            limit = consumer.prefetch or consumer.held
            self.check("prefetch", consumer.held <= limit, f"{consumer.held} held")
        peer.held[received.channel][received.method.delivery_tag] = Held(queue, item, consumer)
        return item.number

    # What is counted

    def check_accounts(self) -> None:
        """Counts and octets of the broker, recomputed."""
        broker, journal = self.site.broker, self.site.journal
        held_bytes = dict.fromkeys(self.world.queues, 0)
        for peer in self.peers:
            bare = bare_tags(peer)
            for channel, tags in peer.held.items():
                for tag, held in tags.items():
                    if held.queue.gone == NEVER:
                        size = MESSAGE_OVERHEAD if (channel, tag) in bare else held.item.size
                        held_bytes[held.queue.name] += size
        memory = sum(peer.tx_size() for peer in self.peers)
        for name, model in self.world.queues.items():
            queue = self.site.vhost.queues.get(name)
            if queue is None:
                raise ViolationError("definitions", f"there is no {name}")
            found = (queue.messages_ready, queue.unacked_count)
            self.check("conservation", found == (len(model.ready), len(model.held)), found)
            self.check("memory", queue.unacked_bytes == held_bytes[name], queue.unacked_bytes)
            memory += queue.ready_bytes + queue.unacked_bytes
            if queue.paged is not None:
                memory += queue.paged.tail_bytes
            elif not model.ready:
                self.check("memory", queue.ready_bytes == 0, f"{name} holds {queue.ready_bytes}")
        self.check("memory", broker.memory_used == memory, (broker.memory_used, memory))
        log, batches = self.site.log, journal.batches
        sizes = [batches.size(at) for at in range(batches.first, log.next)]
        wanted = [len(log.batches[at - log.first]) for at in range(batches.first, log.next)]
        self.check("log bytes", sizes == wanted, (sizes, wanted))
        self.check("log bytes", batches.total_bytes == sum(wanted) + batches.pending_bytes)
        waiting = sum(
            batches.size(at) for at in range(max(batches.first, journal.durable + 1), log.next)
        )
        waiting += batches.pending_bytes
        waiting = 0 if self.has_failed else waiting
        self.check("log bytes", journal.waiting_bytes == waiting, journal.waiting_bytes)

    def check_live(self) -> None:
        """What the log holds for somebody, recomputed; nothing waits to be written."""
        journal = self.site.journal
        if self.has_failed:
            # What is settled stays in the log.
            self.check_scratch()
        if journal.has_pending or self.has_failed:
            return
        live = sum(len(octets) for octets, _ in journal.definitions.values())
        for name, model in self.world.queues.items():
            lasting = self.site.vhost.queues[name].lasting
            self.check("definitions", (lasting is not None) == model.lasts, name)
            if lasting is None:
                continue
            count = 0
            for run in lasting.stored.runs_from(0):
                numbers = len(lasting.stored.unsettled(run))
                count += numbers
                live += run.share * numbers
            here = [*model.ready, *model.held]
            wanted = sum(model.items[number].lasts for number in here)
            self.check("conservation", count == lasting.stored.count == wanted, (count, wanted))
        self.check("live bytes", journal.batches.live_bytes == live, live)
        self.check_scratch()

    def check_scratch(self) -> None:
        """What the scratch log holds is what is paged out, or about to be."""
        pager = self.site.broker.pager
        if pager.scratch is None:
            return
        live = 0
        for queue in self.site.vhost.queues.values():
            if queue.scratch is None:
                continue
            stored = queue.scratch.stored
            live += sum(run.share * len(stored.unsettled(run)) for run in stored.runs_from(0))
            # A log that has failed forgets nothing.
            is_known = stored.count <= queue.messages or pager.scratch.has_failed
            self.check("live bytes", is_known, stored.count)
        self.check("live bytes", pager.scratch.batches.live_bytes == live, live)

    # When all is done

    def check_quiet(self) -> None:
        """The disk has done all it had to: nobody waits for it any more."""
        for peer in self.peers:
            self.check("answers", peer.wish is None, peer.wish)
            is_alarm = self.site.is_full or self.site.broker.is_memory_short
            self.check("pauses", peer.waiting is None or is_alarm, "nobody lets it go on")
            self.check("confirms", not peer.unconfirmed, f"{peer.unconfirmed} are not confirmed")
            for consumer in peer.consumers.values():
                is_idle = consumer.has_room() and bool(consumer.queue.ready)
                is_idle = is_idle and not is_out_of_reach(self.site, consumer.queue.name)
                self.check("delivery", not is_idle, f"{consumer} has room")
        self.check_live()

    # After a start

    def check_started(self) -> None:
        """What is there after a start is what must be; and it is the same after two starts."""
        vhost = self.site.vhost
        queues, exchanges, bindings = self.world.names()
        ends = [
            (exchange.name, binding.destination.name)
            for exchange in vhost.exchanges.values()
            for binding in exchange.router.bindings()
        ]
        declared = [name for name in vhost.exchanges if name[:4] != "amq." and name]
        self.check("definitions", sorted(vhost.queues) == queues, sorted(vhost.queues))
        wanted = [name for name in exchanges if name != "amq.fanout"]
        self.check("definitions", sorted(declared) == wanted, declared)
        self.check("definitions", sorted(ends) == bindings, (ends, bindings))
        self.check("memory", self.site.broker.memory_used == 0)
        again = DurableSite(self.site.log.crashed(1 << 30), **self.limits)
        self.check("recovery", state_of(again) == state_of(self.site), "a second start differs")
        self.drain(again)

    def drain(self, site: DurableSite) -> None:
        """Everything is consumed and deleted, and nothing is left."""
        client = site.connect()
        for name, model in self.world.queues.items():
            client.tell(Basic.Consume, queue=name, no_ack=True)
            site.settle_down()
            found = [(r.body, r.method) for r in client.read() if r.kind is Basic.Deliver]
            wanted = [model.items[number] for number in model.ready]
            bodies = [body for body, _ in found]
            is_all = sorted(bodies) == sorted(item.body for item in wanted)
            self.check("conservation", is_all, f"{name} has {bodies}")
            in_order = bodies == [item.body for item in wanted]
            self.check("order", in_order or not is_all, f"{name} has {bodies}")
            for body, method in found:
                item = model.find(body)
                fits = item is None or item.mark in (None, method.redelivered)
                self.check("redelivered", fits, f"{body!r}: {method.redelivered}")
        self.check("memory", site.broker.memory_used == 0, site.broker.memory_used)
        batches = site.journal.batches
        definitions = sum(len(octets) for octets, _ in site.journal.definitions.values())
        self.check("live bytes", batches.live_bytes == definitions, batches.live_bytes)
        for journal in site.broker.journals[1:]:
            self.check("live bytes", not journal.batches.live_bytes, "in the scratch log")


def size_of_body(body: bytes, frame_max: int, *, persistent: bool) -> int:
    """Octets of memory that a message takes."""
    flags, properties = (DELIVERY_MODE, b"\x02") if persistent else (0, b"")
    content = content_octets(body, flags=flags, properties=properties, frame_max=frame_max)
    return len(content) + MESSAGE_OVERHEAD

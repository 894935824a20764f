"""Queues with keys that last, against lists: what is published, held, returned, settled, dropped
and restarted in any order, in a broker with little memory."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from broker.wire.properties import DELIVERY_MODE, HEADERS
from broker.wire.table import Field, encode_table
from tests.durable.site import DurableSite
from tests.durable.test_priorities_machine import little_memory
from tests.protocol.client import Basic, Client, Queue, publish_octets
from tests.wire.profiles import steps

LIMIT = 110_000
NAMES = (None, "a", "a", "b", "c")
ARGUMENTS = {
    "groups": ("x-group-by",),
    "shares": ("x-fair-by",),
    "both": ("x-group-by", "x-fair-by"),
}
HEADER_OF = {"x-group-by": "room", "x-fair-by": "tenant"}


@dataclass(order=True)
class Sent:
    """A message, sorted as it came."""

    place: int
    room: str | None
    tenant: str | None
    lasts: bool
    body: bytes
    was_seen: bool = False


class KeysLast(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.small = little_memory()
        self.small.__enter__()
        self.site = DurableSite(memory=LIMIT)
        self.ready: list[Sent] = []
        self.held: dict[int, Sent] = {}
        self.sent = 0
        self.was_killed = False

    @initialize(kind=st.sampled_from(sorted(ARGUMENTS)))
    def begin(self, kind: str) -> None:
        self.kind = kind
        self.connect()

    def connect(self) -> None:
        self.client: Client = self.site.connect()
        names = ARGUMENTS[self.kind]
        arguments = {name: Field("longstr", HEADER_OF[name]) for name in names}
        self.client.tell(Queue.Declare, queue="q", durable=True, arguments=arguments)
        self.site.settle_down()
        (item,) = self.client.read()
        assert item.method.message_count == len(self.ready)

    @precondition(lambda self: len(self.ready) < 150)
    @rule(
        keys=st.lists(
            st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)), min_size=1, max_size=6
        ),
        lasts=st.booleans(),
        times=st.sampled_from([1, 1, 5]),
    )
    def publish(
        self, keys: list[tuple[str | None, str | None]], times: int, *, lasts: bool
    ) -> None:
        octets = []
        for room, tenant in keys * times:
            self.sent += 1
            body = b"%05d" % self.sent + b"x" * 150
            names = {"room": room, "tenant": tenant}
            table = {name: Field("longstr", key) for name, key in names.items() if key is not None}
            properties = encode_table(table) + bytes([1 + lasts])
            octets.append(
                publish_octets(body, flags=HEADERS | DELIVERY_MODE, properties=properties)
            )
            self.ready.append(Sent(self.sent, room, tenant, lasts, body))
        self.client.feed(b"".join(octets))

    def eligible(self) -> list[Sent]:
        """The first of each key that may go out; all that have none."""
        if self.kind == "shares":
            return self.ready
        taken = {sent.room for sent in self.held.values() if sent.room is not None}
        found = []
        for sent in self.ready:
            if sent.room is None:
                found.append(sent)
            elif sent.room not in taken:
                taken.add(sent.room)
                found.append(sent)
        return found

    def may_be_next(self) -> list[Sent]:
        """What may go out: what is in memory may pass what has to be read, but none of its key."""
        firsts: dict[str | None, Sent] = {}
        if self.kind == "both":
            return self.eligible()
        for sent in self.eligible():
            firsts.setdefault(sent.tenant if self.kind == "shares" else sent.room, sent)
        return list(firsts.values())

    @rule(no_ack=st.booleans(), times=st.sampled_from([1, 1, 10]))
    def get(self, times: int, *, no_ack: bool) -> None:
        for _ in range(times):
            self.client.tell(Basic.Get, queue="q", no_ack=no_ack)
            self.site.settle_down()
            (item,) = self.client.read()
            allowed = self.may_be_next()
            if not allowed:
                assert item.kind is Basic.GetEmpty
                return
            (sent,) = (sent for sent in allowed if sent.body == item.body)
            self.ready.remove(sent)
            assert item.method.message_count == len(self.ready)
            assert item.method.redelivered or not sent.was_seen
            assert self.was_killed or not item.method.redelivered or sent.was_seen
            sent.was_seen = True
            if not no_ack:
                self.held[item.method.delivery_tag] = sent

    @precondition(lambda self: self.held)
    @rule(data=st.data(), requeue=st.booleans(), multiple=st.booleans())
    def settle(self, data: st.DataObject, *, requeue: bool, multiple: bool) -> None:
        tag = data.draw(st.sampled_from(sorted(self.held)), "tag")
        tags = [each for each in self.held if each == tag or (multiple and each < tag)]
        self.client.tell(Basic.Nack, delivery_tag=tag, multiple=multiple, requeue=requeue)
        settled = [self.held.pop(each) for each in tags]
        if requeue:
            self.ready = sorted([*self.ready, *settled])

    @precondition(lambda self: len(self.ready) > 10)
    @rule()
    def purge(self) -> None:
        self.client.tell(Queue.Purge, queue="q")
        self.site.settle_down()
        (item,) = self.client.read()
        assert item.method.message_count == len(self.ready)
        self.ready.clear()

    @rule()
    def disk_works(self) -> None:
        self.site.step()

    @rule(cleanly=st.booleans())
    def restart(self, *, cleanly: bool) -> None:
        self.site.settle_down()
        log = self.site.stop().log if cleanly else self.site.log
        self.site = DurableSite(log.crashed(), self.site.broker.timers.now, memory=LIMIT)
        kept = [each for each in [*self.ready, *self.held.values()] if each.lasts]
        self.ready, self.held = sorted(kept), {}
        self.was_killed |= not cleanly
        self.connect()

    def teardown(self) -> None:
        try:
            while self.ready and self.may_be_next():
                self.get(10, no_ack=True)
            assert self.site.vhost.queues["q"].unacked_count == len(self.held)
            self.client.tell(Queue.Delete, queue="q")
            self.site.settle_down()
            assert self.site.broker.memory_used == 0
            assert not self.site.journal.queues
        finally:
            self.small.__exit__(None, None, None)


TestKeysLast = KeysLast.TestCase
TestKeysLast.settings = steps(40, 30)

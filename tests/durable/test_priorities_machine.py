"""A queue with priorities that lasts, against sorted lists: what is published, held, returned,
settled, dropped and restarted in any order, in a broker with little memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from broker.core import cleaner, paging, reading
from broker.wire.properties import DELIVERY_MODE, PRIORITY
from broker.wire.table import Field
from tests.durable.site import DurableSite
from tests.protocol.client import Basic, Client, Queue, publish_octets
from tests.wire.profiles import steps

HIGHEST = 3
LIMIT = 40_000


@dataclass(order=True)
class Sent:
    """A message, sorted as it is to be delivered."""

    rank: int
    place: int
    lasts: bool
    body: bytes
    was_seen: bool = False


@contextmanager
def little_memory() -> Iterator[None]:
    with (
        mock.patch.object(paging, "HEAD_BYTES", 1_000),
        mock.patch.object(paging, "HEAD_BYTES_MIN", 100),
        mock.patch.object(paging, "RECORD_BYTES", 2_000),
        mock.patch.object(reading, "FETCH_BYTES", 2_000),
        mock.patch.object(cleaner, "SLACK", 0),
    ):
        yield


class PrioritiesLast(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.small = little_memory()
        self.small.__enter__()
        self.site = DurableSite(memory=LIMIT)
        self.ready: list[Sent] = []
        self.held: dict[int, Sent] = {}
        self.sent = 0
        self.connect()

    def connect(self) -> None:
        self.client: Client = self.site.connect()
        arguments = {"x-max-priority": Field("byte", HIGHEST)}
        self.client.tell(Queue.Declare, queue="q", durable=True, arguments=arguments)
        self.site.settle_down()
        (item,) = self.client.read()
        assert item.method.message_count == len(self.ready)

    @precondition(lambda self: len(self.ready) < 150)
    @rule(
        priorities=st.lists(st.sampled_from([0, 1, 2, 3, 255]), min_size=1, max_size=6),
        lasts=st.booleans(),
        times=st.sampled_from([1, 1, 5]),
    )
    def publish(self, priorities: list[int], times: int, *, lasts: bool) -> None:
        octets = []
        for priority in priorities * times:
            self.sent += 1
            body = b"%05d" % self.sent + b"x" * 150
            properties = bytes([1 + lasts, priority])
            octets.append(
                publish_octets(body, flags=DELIVERY_MODE | PRIORITY, properties=properties)
            )
            self.ready.append(Sent(-min(priority, HIGHEST), self.sent, lasts, body))
        self.ready.sort()
        self.client.feed(b"".join(octets))

    @rule(no_ack=st.booleans(), times=st.sampled_from([1, 1, 10]))
    def get(self, times: int, *, no_ack: bool) -> None:
        for _ in range(times):
            self.client.tell(Basic.Get, queue="q", no_ack=no_ack)
            self.site.settle_down()
            (item,) = self.client.read()
            if not self.ready:
                assert item.kind is Basic.GetEmpty
                return
            wanted = self.ready.pop(0)
            assert item.body == wanted.body
            assert item.method.message_count == len(self.ready)
            assert item.method.redelivered or not wanted.was_seen
            wanted.was_seen = True
            if not no_ack:
                self.held[item.method.delivery_tag] = wanted

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
        self.connect()

    def teardown(self) -> None:
        try:
            while self.ready:
                self.get(10, no_ack=True)
            assert self.site.vhost.queues["q"].unacked_count == len(self.held)
            self.client.tell(Queue.Delete, queue="q")
            self.site.settle_down()
            assert self.site.broker.memory_used == 0
            assert not self.site.journal.queues
        finally:
            self.small.__exit__(None, None, None)


TestPrioritiesLast = PrioritiesLast.TestCase
TestPrioritiesLast.settings = steps(30, 30)

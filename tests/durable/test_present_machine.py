"""A queue that takes no message like one in it, against a set: restarts, paging and cleaning."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broker.core import cleaner, paging, reading
from broker.core.deduplication import duplicates
from broker.wire.properties import DELIVERY_MODE, HEADERS, PRIORITY
from broker.wire.table import Field, Table, encode_table
from tests.durable.site import DurableSite
from tests.protocol.client import Basic, Channel, Client, Queue, publish_octets, text
from tests.wire.profiles import steps

KEYS = st.lists(st.integers(0, 40), min_size=1, max_size=30)


class PresentMachine(RuleBasedStateMachine):
    """What is in the queue: (whether it lasts, body) by id."""

    @initialize(
        highest=st.sampled_from([0, 2]),
        limit=st.sampled_from([0, 20]),
        keyed=st.sampled_from(["", "x-fair-by", "x-group-by"]),
    )
    def begin(self, highest: int, limit: int, keyed: str) -> None:
        self.site = DurableSite(memory=60_000)
        self.inside: dict[int, tuple[bool, str]] = {}
        # What a client holds, by delivery tag.
        self.held: dict[int, int] = {}
        self.count = 0
        self.limit = limit
        asked: Table = {"x-message-deduplication": Field("bool", value=True)}
        if keyed:
            asked[keyed] = text("x-deduplication-header")
        elif highest:
            asked["x-max-priority"] = Field("signedint", highest)
        if limit:
            asked |= {
                "x-max-length": Field("signedint", limit),
                "x-overflow": text("reject-publish"),
            }
        client = self.site.connect()
        client.tell(Queue.Declare, queue="q", durable=True, arguments=asked)
        self.site.settle_down()
        self.client = self.site.connect()

    @rule(
        keys=KEYS,
        persistent=st.booleans(),
        priority=st.integers(0, 2),
        size=st.sampled_from([1, 500]),
    )
    def publish(self, keys: list[int], persistent: bool, priority: int, size: int) -> None:
        chunk = b""
        for key in keys:
            self.count += 1
            body = str(self.count).ljust(size, ".")
            table = encode_table({"x-deduplication-header": Field("signedint", key)})
            chunk += publish_octets(
                body.encode(),
                flags=HEADERS | DELIVERY_MODE | PRIORITY,
                properties=table + bytes([1 + persistent, priority]),
            )
            is_full = self.limit and len(self.inside) - len(self.held) >= self.limit
            if key not in self.inside and not is_full:
                self.inside[key] = persistent, body
        publisher = self.site.connect()
        publisher.feed(chunk)
        self.site.settle_down()
        publisher.tell(Channel.Close, reply_code=200)

    def body_of(self, key: int) -> str:
        return self.inside[key][1]

    @rule(count=st.integers(1, 10))
    def get(self, count: int) -> None:
        by_body = {body: key for key, (_, body) in self.inside.items()}
        for _ in range(count):
            self.client.tell(Basic.Get, queue="q")
            self.site.settle_down()
            for item in self.client.read():
                if item.kind is Basic.GetOk:
                    self.held[item.method.delivery_tag] = by_body[item.body.decode()]

    @precondition(lambda self: self.held)
    @rule(choice=st.randoms(use_true_random=False), how=st.sampled_from(["ack", "back", "reject"]))
    def settle(self, choice: Any, how: str) -> None:
        tag = choice.choice(sorted(self.held))
        key = self.held.pop(tag)
        if how == "ack":
            self.client.tell(Basic.Ack, delivery_tag=tag)
        else:
            self.client.tell(Basic.Reject, delivery_tag=tag, requeue=how == "back")
        if how != "back":
            del self.inside[key]
        self.site.settle_down()

    @rule()
    def purge(self) -> None:
        other = self.site.connect()
        other.tell(Queue.Purge, queue="q")
        self.site.settle_down()
        held = set(self.held.values())
        self.inside = {key: item for key, item in self.inside.items() if key in held}

    @rule()
    def take_all(self) -> None:
        other: Client = self.site.connect()
        other.consume("q", no_ack=True)
        self.site.settle_down()
        held = set(self.held.values())
        found = sorted(body.decode() for body in other.bodies())
        assert found == sorted(item[1] for key, item in self.inside.items() if key not in held)
        other.tell(Channel.Close, reply_code=200)
        self.inside = {key: item for key, item in self.inside.items() if key in held}

    @rule(is_stopped=st.booleans())
    def restart(self, is_stopped: bool) -> None:
        before = self.site
        self.site = before.stop() if is_stopped else before.crash()
        self.site.broker.limits = before.broker.limits
        self.site.broker.pager = paging.Pager(self.site.broker)
        self.site.broker.pager.open_scratch = self.site._open_scratch
        self.client = self.site.connect()
        self.held = {}
        self.inside = {key: item for key, item in self.inside.items() if item[0]}

    @invariant()
    def it_knows_what_is_in_it(self) -> None:
        if not hasattr(self, "site") or self.site.broker.blocked:
            return
        queue = self.site.vhost.queues["q"]
        assert queue.present is not None
        assert queue.messages == len(self.inside)
        known = sorted(int(key[1:]) for key, _ in queue.present.window)
        assert known == sorted(self.inside)

    def teardown(self) -> None:
        if not hasattr(self, "site"):
            return
        self.client.tell(Channel.Close, reply_code=200)
        other = self.site.connect()
        other.tell(Queue.Delete, queue="q")
        self.site.settle_down()
        assert self.site.broker.memory_used == 0


@pytest.fixture(autouse=True, scope="module")
def _small() -> Any:
    """Heads and pieces of a few messages, and a log that is cleaned at once."""
    with pytest.MonkeyPatch.context() as patch:
        # Of a limit that is as low as it is here, for paging.
        patch.setattr(duplicates, "MEMORY_SHARE", 1)
        patch.setattr(paging, "HEAD_BYTES", 1_000)
        patch.setattr(paging, "HEAD_BYTES_MIN", 100)
        patch.setattr(paging, "RECORD_BYTES", 2_000)
        patch.setattr(reading, "FETCH_BYTES", 2_000)
        patch.setattr(cleaner, "SLACK", 0)
        patch.setattr(cleaner, "STEP_MIN", 100)
        yield


TestPresentMachine = PresentMachine.TestCase
TestPresentMachine.settings = steps(30, 25)

"""Exchanges and a queue that know duplicates against lists, with restarts, commits and cleaning."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from broker.core import cleaner
from broker.core.deduplication.duplicates import Duplicates
from broker.storage.log import LogState
from broker.wire.properties import DELIVERY_MODE, HEADERS
from broker.wire.table import Field, Table, encode_table
from tests.durable.site import DurableSite
from tests.protocol.client import Basic, Channel, Confirm, Exchange, Queue, Tx, publish_octets, text
from tests.wire.profiles import steps

NAMES = st.sampled_from(["small", "timed", "queue"])
KEYS = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6)
SIZES = {"small": 3, "timed": 100, "queue": 4}
TTL = 60


class Item:
    """A publish that was taken. `expires` is None for never; `body` is never used twice."""

    def __init__(self, key: str, body: str, expires: int | None, *, is_written: bool) -> None:
        self.key, self.body, self.expires = key, body, expires
        self.is_written = is_written

    def is_there(self, now: int) -> bool:
        return self.expires is None or self.expires > now


class DeduplicationMachine(RuleBasedStateMachine):
    """Each of NAMES has a queue of its own. What it remembers is a list, the oldest first."""

    def __init__(self) -> None:
        super().__init__()
        self.site = DurableSite(now=1000)
        self.has_failed = False
        self.count = 0
        self.lists: dict[str, list[Item]] = {name: [] for name in SIZES}
        self.queued: dict[str, list[Item]] = {name: [] for name in SIZES}
        self.dropped = 0
        client = self.site.connect()
        for name, most in SIZES.items():
            size: Table = {"x-cache-size": Field("signedint", most)}
            if name == "timed":
                size["x-cache-ttl"] = Field("signedint", TTL)
            asked = {"x-message-deduplication": Field("bool", value=True), **size}
            full: Table = {
                "x-max-length": Field("signedint", 10),
                "x-overflow": text("reject-publish"),
            }
            arguments = {**full, **asked} if name == "queue" else full
            client.tell(Queue.Declare, queue=f"q-{name}", durable=True, arguments=arguments)
            self.site.settle_down()
            kind = "x-message-deduplication" if name != "queue" else "fanout"
            more = size if name != "queue" else {}
            client.tell(
                Exchange.Declare, exchange=name, exchange_type=kind, durable=True, arguments=more
            )
            self.site.settle_down()
            client.tell(Queue.Bind, queue=f"q-{name}", exchange=name)
            self.site.settle_down()
            client.read()
        self.connect()

    def connect(self) -> None:
        self.client = self.site.connect(channels=2)
        self.client.ask(Confirm.Select)
        self.client.ask(Tx.Select, 2)

    def octets(
        self, name: str, keys: list[str], channel: int, own: int | None, *, persistent: bool
    ) -> tuple[bytes, list[Item]]:
        """Publishes, and what becomes of them if they are taken."""
        chunk, items = b"", []
        now = self.site.broker.timers.now
        for key in keys:
            self.count += 1
            table = {"x-deduplication-header": text(key)}
            if own is not None:
                table["x-cache-ttl"] = Field("signedint", own)
            ttl = own if own is not None else TTL if name == "timed" else None
            flags: dict[str, Any] = {"flags": HEADERS, "properties": encode_table(table)}
            if persistent:
                flags = {
                    "flags": HEADERS | DELIVERY_MODE,
                    "properties": encode_table(table) + b"\x02",
                }
            # Large enough that there is something to clean soon.
            body = str(self.count).ljust(400, ".")
            chunk += publish_octets(body.encode(), exchange=name, channel=channel, **flags)
            expires = None if ttl is None else now + ttl
            items.append(Item(key, body, expires, is_written=persistent and not self.has_failed))
        return chunk, items

    def take(self, name: str, item: Item, *, persistent: bool) -> bool:
        """What becomes of one publish; whether it is confirmed."""
        now = self.site.broker.timers.now
        known = self.lists[name]
        if any(each.key == item.key and each.is_there(now) for each in known):
            self.dropped += 1
            return True
        if len(self.queued[name]) >= 10:
            return False
        self.queued[name].append(item)
        if self.has_failed and persistent:
            return False
        known[:] = [each for each in known if each.key != item.key]
        if item.is_there(now):
            known.append(item)
        del known[: -SIZES[name]]
        return True

    @rule(name=NAMES, keys=KEYS, persistent=st.booleans(), one_by_one=st.booleans())
    def publish(self, name: str, keys: list[str], persistent: bool, one_by_one: bool) -> None:
        self.send(name, keys, None, persistent=persistent, one_by_one=one_by_one)

    @rule(keys=KEYS, own=st.sampled_from([0, 5, 200]), persistent=st.booleans())
    def publish_with_a_time(self, keys: list[str], own: int, persistent: bool) -> None:
        self.send("timed", keys, own, persistent=persistent, one_by_one=False)

    def send(
        self, name: str, keys: list[str], own: int | None, *, persistent: bool, one_by_one: bool
    ) -> None:
        answers: list[bool] = []
        for part in [[key] for key in keys] if one_by_one else [keys]:
            chunk, items = self.octets(name, part, 1, own, persistent=persistent)
            self.client.feed(chunk)
            answers += [self.take(name, item, persistent=persistent) for item in items]
        self.site.settle_down()
        told: dict[int, bool] = {}
        for item in self.client.read(1):
            assert item.kind in (Basic.Ack, Basic.Nack)
            last = item.method.delivery_tag
            # A nack goes ahead of confirms that wait.
            first = self.told + 1 if item.method.multiple else last
            for tag in range(first, last + 1):
                told.setdefault(tag, item.kind is Basic.Ack)
        if not self.has_failed:
            assert [told[self.told + place + 1] for place in range(len(answers))] == answers
        self.told += len(answers)

    told = 0

    @rule(name=NAMES, keys=KEYS, persistent=st.booleans(), commits=st.booleans())
    def transact(self, name: str, keys: list[str], persistent: bool, commits: bool) -> None:
        if self.has_failed or len(self.queued[name]) + len(keys) > 10:
            return
        chunk, items = self.octets(name, keys, 2, None, persistent=persistent)
        self.client.feed(chunk)
        self.client.tell(Tx.Commit if commits else Tx.Rollback, 2)
        self.site.settle_down()
        assert len(self.client.read(2)) == 1
        if commits:
            for item in items:
                self.take(name, item, persistent=persistent)

    @rule(name=NAMES)
    def consume(self, name: str) -> None:
        """All that is in a queue is what was taken, and is acknowledged."""
        other = self.site.connect()
        other.consume(f"q-{name}")
        self.site.settle_down()
        found = other.read()
        assert [item.body.decode() for item in found] == [each.body for each in self.queued[name]]
        if found:
            last = found[-1].method.delivery_tag
            other.tell(Basic.Ack, delivery_tag=last, multiple=True)
        other.tell(Channel.Close, reply_code=200)
        self.site.settle_down()
        self.queued[name] = []

    @rule()
    def purge(self) -> None:
        if self.has_failed:
            return
        other = self.site.connect()
        other.tell(Queue.Purge, queue="q-queue")
        self.site.settle_down()
        self.queued["queue"] = []
        self.lists["queue"] = []

    @rule(by=st.sampled_from([1, 30, 70, 5000]))
    def wait(self, by: int) -> None:
        self.site.advance(by)

    @rule()
    def fail(self) -> None:
        """Nothing is written any more, until the next start."""
        if not self.has_failed:
            self.site.log.become(LogState.FAILED)
            self.site.settle_down()
            self.has_failed = True

    @rule(is_stopped=st.booleans())
    def restart(self, is_stopped: bool) -> None:
        before = self.site
        self.site = before.stop() if is_stopped and not self.has_failed else before.crash()
        self.told = 0
        now = self.site.broker.timers.now
        self.dropped = 0
        for name, items in self.lists.items():
            if not self.has_failed:
                self.queued[name] = [each for each in self.queued[name] if each.is_written]
            found = [key.decode()[1:] for key, _ in self.window(name).window]
            wanted = [each for each in items if each.is_written and each.is_there(now)]
            keys = [each.key for each in wanted]
            # What a transient one has pushed out may be there again.
            assert [key for key in found if key in keys] == keys
            known = {each.key: each for each in wanted}
            self.lists[name] = [
                known.get(key.decode()[1:])
                or Item(key.decode()[1:], "", original[0], is_written=True)
                for key, original in self.window(name).window
            ]
        if self.has_failed:
            self.has_failed = False
            for name in SIZES:
                self.drain(name)
        self.connect()

    def drain(self, name: str) -> None:
        """Nobody says what a failed log has."""
        other = self.site.connect()
        other.consume(f"q-{name}", no_ack=True)
        self.site.settle_down()
        other.tell(Channel.Close, reply_code=200)
        self.queued[name] = []

    def window(self, name: str) -> Duplicates:
        vhost = self.site.vhost
        owner = vhost.queues["q-queue"] if name == "queue" else vhost.exchanges[name]
        assert owner.duplicates is not None
        return owner.duplicates

    @invariant()
    def they_know_what_the_lists_have(self) -> None:
        now = self.site.broker.timers.now
        for name, items in self.lists.items():
            there = [each.key for each in items if each.is_there(now)]
            window = self.window(name).window
            known = [key for key, _ in window if window.original(key, now) is not None]
            assert [key.decode()[1:] for key in known] == there
            assert len(window) <= SIZES[name]
        assert self.site.broker.counters.messages_deduplicated == self.dropped

    def teardown(self) -> None:
        client = self.site.connect()
        for name in SIZES:
            client.tell(Exchange.Delete, exchange=name)
            client.tell(Queue.Delete, queue=f"q-{name}")
            self.site.settle_down()
        if not self.has_failed:
            assert self.site.broker.memory_used == 0


@pytest.fixture(autouse=True, scope="module")
def _tidy() -> Any:
    """The log is cleaned at once, little by little."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cleaner, "SLACK", 0)
        patch.setattr(cleaner, "STEP_MIN", 100)
        yield


TestDeduplicationMachine = DeduplicationMachine.TestCase
TestDeduplicationMachine.settings = steps(40, 30)

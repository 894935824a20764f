"""Messages that wait for seconds, in a log alone, against a list of them: whatever happens
meanwhile, each arrives once, with its own body, not before its time, and leaves nothing."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from broker.core import cleaner, foreseen, paging, reading
from broker.core.expiry import Expiry
from broker.core.policies import Policy
from broker.storage.log import LogState
from broker.wire.methods import shortstr
from broker.wire.properties import DELIVERY_MODE, EXPIRATION, HEADERS, PRIORITY
from broker.wire.table import Field, encode_table
from tests.durable.combined_contents import memory_of
from tests.durable.site import DurableSite
from tests.durable.test_dying import NOW, wait
from tests.protocol.client import Basic, Client, Exchange, Queue, publish_octets, text

LIMIT = 90_000
ALIVE_MAX = 220
STEPS = 70
SEEDS = [*range(5), 81]
"""In the last one a message is due twice."""
QUEUES: dict[str, dict[str, Field]] = {
    "plain": {},
    "lanes": {"x-max-priority": Field("byte", 2)},
    "keys": {"x-group-by": text("key")},
    "shares": {"x-fair-by": text("key")},
}
DELAYED = "delayed"
ARRIVALS = {DELAYED: "q", **dict.fromkeys(QUEUES, "d")}
"""Where messages go when they are due, by where they wait."""
LETTERS = Policy(
    "letters",
    f"^({'|'.join(QUEUES)})$",
    {"dead-letter-exchange": "", "dead-letter-routing-key": "d"},
    "queues",
)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch.setattr)


def make_small(assign: Any) -> None:
    """Sets the limits that walks are made with."""
    assign(paging, "HEAD_BYTES", 600)
    assign(paging, "HEAD_BYTES_MIN", 100)
    assign(paging, "MARK_SHARE", 0.1)
    assign(paging, "RECORD_BYTES", 1_000)
    assign(reading, "FETCH_BYTES", 1_000)
    assign(cleaner, "SLACK", 2_000)
    assign(cleaner, "STEP", 1_000)
    assign(foreseen, "READ_AT_ONCE", 7)
    assign(foreseen, "LOOKED_AT", 20)
    assign(foreseen, "SORTED_AT_ONCE", 16)
    assign(foreseen, "READ_BYTES", 2_000)
    assign(foreseen, "ROOM_SHARE", 1)


@dataclass
class Sent:
    """A message that waits, in a queue or (`DELAYED`) at an exchange."""

    name: str
    body: bytes
    home: str
    due: int
    lasts: bool
    # Its id at the exchange.
    number: int = 0


class Walk:
    """One walk. `read_before` counts what was there when it was due."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.site = DurableSite(now=NOW, memory=LIMIT)
        self.names = 0
        self.waiting: dict[str, Sent] = {}
        self.held: dict[int, Sent] = {}
        # Those that a crash may bring back, although they arrived.
        self.doubtful: set[str] = set()
        self.has_letters = False
        self.connect()
        self.set_letters()

    def connect(self) -> None:
        client = self.client = self.site.connect()
        self.held.clear()
        kind = {"x-delayed-type": text("direct")}
        more: dict[str, Any] = {"exchange_type": "x-delayed-message", "arguments": kind}
        client.tell(Exchange.Declare, exchange="x", durable=True, **more)
        for name, arguments in [("q", {}), ("d", {}), *QUEUES.items()]:
            client.tell(Queue.Declare, queue=name, durable=True, arguments=arguments)
        client.tell(Queue.Bind, queue="q", exchange="x", routing_key="k")
        self.site.settle_down()
        client.read()
        self.sink: Client = self.site.connect()
        for name in ("q", "d"):
            self.sink.tell(Basic.Consume, queue=name, consumer_tag=name, no_ack=True)

    @property
    def now(self) -> int:
        return self.site.broker.timers.now

    def rest(self) -> None:
        """All that can be done now is done; what is due has arrived, and nothing else."""
        wait(self.site, self.now)
        self.hear()
        held = {sent.name for sent in self.held.values()}
        late = [m for m in self.waiting.values() if m.due <= self.now and m.name not in held]
        for sent in late:
            assert sent.home != DELAYED, f"{sent} has not arrived"
            assert not self.has_letters, f"{sent} has not arrived"
            del self.waiting[sent.name]
        assert not self.doubtful or not self.doubtful & set(self.waiting)
        self.doubtful.clear()
        for name in QUEUES:
            queue = self.site.vhost.queues[name]
            there = [m for m in self.waiting.values() if m.home == name]
            assert queue.messages == len(there), name
        unacked = sum(queue.unacked_bytes for queue in self.site.vhost.queues.values())
        assert memory_of(self.site, unacked) == self.site.broker.memory_used

    def hear(self) -> None:
        """What arrived was due, and is what was sent."""
        for received in self.sink.read():
            if received.kind is not Basic.Deliver:
                continue
            name = received.body[:6].decode()
            sent = self.waiting.pop(name, None)
            if sent is None:
                assert name in self.doubtful, f"{name} arrives again, or after its end"
                continue
            assert received.body == sent.body
            assert received.method.consumer_tag == ARRIVALS[sent.home]
            assert sent.due <= self.now, f"{sent} is early"
            self.doubtful.add(name)

    # What happens

    def publish(self) -> None:
        dice = self.dice
        home = dice.choice([DELAYED, *QUEUES])
        count = dice.choice([1, 3, 40])
        used = self.site.broker.memory_used + self.site.journal.index_bytes
        if len(self.waiting) + count > ALIVE_MAX or used > LIMIT * 0.6:
            return
        times = dice.choice([[3000], [2500, 10_000], [5, 1500, 7000], [10_000, 3_600_000]])
        near = dice.randint(*sorted([times[0], times[-1]]))
        octets = []
        delayed = self.site.vhost.exchanges["x"].delayed
        number = 1 if delayed is None else delayed.next_number
        for index in range(count):
            self.names += 1
            name = f"{self.names:06}"
            milliseconds = dice.choice([near, near, near + dice.randrange(50), *times])
            body = name.encode() * dice.choice([1, 5, 40, 150 if dice.random() < 0.1 else 10])
            lasts = dice.random() < 0.8
            sent = Sent(name, body, home, self.now + milliseconds, lasts, number + index)
            self.waiting[name] = sent
            octets.append(self._octets(sent, milliseconds))
        if dice.random() < 0.5:
            octets = [b"".join(octets)]
        for each in octets:
            self.client.feed(each)
            if dice.random() < 0.5:
                self.site.settle_down()

    def _octets(self, sent: Sent, milliseconds: int) -> bytes:
        mode = bytes([1 + sent.lasts])
        if sent.home == DELAYED:
            table = encode_table({"x-delay": Field("signedint", milliseconds)})
            kind: dict[str, Any] = {"exchange": "x", "key": "k"}
            kind |= {"flags": HEADERS | DELIVERY_MODE, "properties": table + mode}
        else:
            table = encode_table({"key": text(self.dice.choice("abc"))})
            properties = table + mode + bytes([self.dice.randrange(3)])
            properties += shortstr(str(milliseconds))
            flags = HEADERS | DELIVERY_MODE | PRIORITY | EXPIRATION
            kind = {"exchange": "", "key": sent.home, "flags": flags, "properties": properties}
        return publish_octets(sent.body, frame_max=self.client.connection.frame_max, **kind)

    def pass_time(self) -> None:
        target = self.now + self.dice.choice([1, 20, 100, 500, 500, 1000, 1000, 2500])
        if self.dice.random() < 0.3:
            self.site.broker.timers.advance(target)
            self.site.broker.run_deliveries()
            self.site.collect()
        elif self.dice.random() < 0.5:
            self.site.wait_until(target)
        else:
            wait(self.site, target)

    def get(self) -> None:
        name = self.dice.choice(list(QUEUES))
        for _ in range(self.dice.choice([1, 1, 20])):
            self.client.tell(Basic.Get, queue=name)
            self.site.settle_down()
            [answer] = [r for r in self.client.read() if r.kind in (Basic.GetOk, Basic.GetEmpty)]
            if answer.kind is Basic.GetOk:
                sent = self.waiting[answer.body[:6].decode()]
                assert answer.body == sent.body
                assert sent.home == name
                assert sent.due > self.now, f"{sent} is handed out, and over"
                assert sent not in self.held.values()
                self.held[answer.method.delivery_tag] = sent

    def settle(self) -> None:
        for tag in self.dice.sample(sorted(self.held), len(self.held) // 2):
            sent = self.held.pop(tag)
            if self.dice.random() < 0.5:
                del self.waiting[sent.name]
                self.client.tell(Basic.Ack, delivery_tag=tag)
            else:
                self.client.tell(Basic.Nack, delivery_tag=tag, requeue=True)

    def purge(self) -> None:
        name = self.dice.choice(list(QUEUES))
        held = {sent.name for sent in self.held.values()}
        for sent in [m for m in self.waiting.values() if m.home == name and m.name not in held]:
            del self.waiting[sent.name]
            if sent.due <= self.now:
                # It has died already, and may be on its way.
                self.doubtful.add(sent.name)
        self.client.tell(Queue.Purge, queue=name)

    def set_letters(self) -> None:
        self.rest()
        self.has_letters = not self.has_letters
        if self.has_letters:
            self.site.vhost.set_policy(LETTERS)
        else:
            self.site.vhost.clear_policy("letters", is_operator=False)
        self.site.broker.run_deliveries()
        self.site.collect()

    def look_after(self) -> None:
        """Delayed messages are cancelled, or sent now."""
        self.rest()
        delayed = self.site.vhost.exchanges["x"].delayed
        known = [m for m in self.waiting.values() if m.home == DELAYED]
        for sent in self.dice.sample(known, min(len(known), self.dice.choice([1, 10]))):
            assert delayed is not None
            if self.dice.random() < 0.5:
                assert delayed.cancel(sent.number)
                del self.waiting[sent.name]
            else:
                sent.due = self.now
                assert delayed.send_now(sent.number)
        self.site.broker.run_deliveries()
        self.site.collect()

    def disk_is_bad(self) -> None:
        """Something cannot be read for a while."""
        if self.waiting:
            self.site.log.bad = self.dice.choice(list(self.waiting.values())).name.encode() * 2
        for _ in range(self.dice.choice([1, 5])):
            self.site.wait_until(self.now + self.dice.choice([1, 20, 500]))
            # The cleaner tries without end.
            for _ in range(20):
                self.site.step()
        self.site.log.bad = b""
        self.site.try_again()
        wait(self.site, self.now + 2 * reading.READ_AGAIN_MS)

    def disk_is_full(self) -> None:
        self.site.log.become(LogState.FULL, room=self.dice.randrange(4))
        self.site.settle_down()
        self.pass_time()
        self.site.settle_down()
        self.site.log.become(LogState.OPEN)
        # Publishers are read again.
        self.site.settle_down()

    def restart(self) -> None:
        wait(self.site, self.now)
        self.hear()
        is_clean = self.dice.random() < 0.5
        site = self.site.stop() if is_clean else self.site.crash()
        # What was held may have died when its client left.
        self.hear()
        self._begin_anew(site)

    def crash(self) -> None:
        """An end in the midst of what the disk does."""
        self.rest()
        self.pass_time()
        for _ in range(self.dice.randrange(4)):
            for log in self.site.logs:
                log.work(1)
                log.tell(1)
                log.answer(1)
            self.site.collect()
        self.hear()
        self._begin_anew(self.site.crash(self.dice.randrange(3)))

    def _begin_anew(self, site: DurableSite) -> None:
        self.site = site
        self.held.clear()
        for sent in [sent for sent in self.waiting.values() if not sent.lasts]:
            del self.waiting[sent.name]
        self.connect()
        if self.dice.random() < 0.5:
            self.site.broker.timers.advance(self.now + 1000)
        self.site.broker.run_deliveries()

    def end(self) -> None:
        """All is acknowledged, or due: nothing is left."""
        for tag in self.held:
            self.client.tell(Basic.Ack, delivery_tag=tag)
        for sent in self.held.values():
            del self.waiting[sent.name]
        self.held.clear()
        self.rest()
        last = max((sent.due for sent in self.waiting.values()), default=self.now)
        wait(self.site, last)
        self.rest()
        assert not self.waiting
        for expiry in self.expiries():
            kept = expiry._foreseen
            assert (kept._contents, kept._coming.count, kept.octets) == ({}, 0, 0)
        assert self.site.broker.memory_used == self.kept_bytes()

    def kept_bytes(self) -> int:
        """Octets of what queues keep beside messages."""
        keyed = (queue.keyed for queue in self.site.vhost.all_queues())
        indexes = sum(each._extra for each in keyed if each is not None)
        return indexes + sum(expiry.octets for expiry in self.expiries())

    def expiries(self) -> Iterator[Expiry]:
        for queue in self.site.vhost.all_queues():
            for lane in queue.lanes:
                if lane.expiry is not None:
                    yield lane.expiry


ACTIONS = {
    Walk.publish: 30,
    Walk.pass_time: 40,
    Walk.get: 4,
    Walk.settle: 4,
    Walk.purge: 1,
    Walk.set_letters: 2,
    Walk.look_after: 3,
    Walk.disk_is_bad: 2,
    Walk.disk_is_full: 2,
    Walk.restart: 2,
    Walk.crash: 2,
}


def walk(seed: int, count: int = STEPS) -> Walk:
    """One walk. Raises what is wrong."""
    made = Walk(seed)
    for act in made.dice.choices(list(ACTIONS), list(ACTIONS.values()), k=count):
        act(made)
        if made.dice.random() < 0.7:
            made.rest()
    made.end()
    return made


@pytest.mark.parametrize("seed", SEEDS)
def test_what_waits_arrives_once_and_in_time(seed: int) -> None:
    walk(seed)

"""What clients got and what is in the queues, compared with what has to be."""

from __future__ import annotations

from collections import deque

from broker.wire.properties import headers_table
from tests.durable.combined_contents import Found, contents, deaths_of, memory_of
from tests.durable.combined_model import LETTERS, Item, Model, State
from tests.durable.observer import ViolationError
from tests.durable.site import DurableSite
from tests.protocol.client import Basic, Client, Received

CHANNELS = dict(zip(LETTERS, range(1, 5), strict=True))
"""The channel on which each queue is consumed; basic.get has the next one."""
GET = 5


class Worker:
    """The client that consumes: what it holds, by channel and tag, and its prefetch counts."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.held: dict[int, dict[int, Item]] = {number: {} for number in range(1, GET + 1)}
        self.prefetch: dict[str, int] = {}
        # The last tag on each channel, and the last one before its consumer came.
        self.last = dict.fromkeys(self.held, 0)
        self.before: dict[str, int] = {}

    def count(self, queue: str) -> int:
        """What the consumer of this queue holds."""
        return sum(tag > self.before[queue] for tag in self.held[CHANNELS[queue]])

    def room(self, queue: str) -> bool:
        """Whether it consumes this queue, and may hold more."""
        return queue in self.prefetch and self.count(queue) < self.prefetch[queue]


class CombinedObserver:
    """A site and its clients beside the model. Checks that are `off` are not made."""

    off: frozenset[str] = frozenset()
    site: DurableSite
    model: Model
    worker: Worker
    publisher: Client
    came: dict[str, deque[Received]]
    found: dict[str, list[Found]]
    taken: dict[str, list[int]]
    unconfirmed: dict[int, Item]

    def check(self, invariant: str, holds: object, words: object = "") -> None:
        """Raises if an invariant does not hold, unless it is off."""
        if not holds and invariant not in self.off:
            raise ViolationError(invariant, str(words))

    def rest(self) -> None:
        """All is done that can be done now; what is there is what has to be."""
        self.settle_down()
        self.model.now = self.site.broker.timers.now
        self.found = {queue: contents(self.site.vhost.queues[queue]) for queue in LETTERS}
        self.take_answers()
        self.take_confirms()
        self.model.pass_time()
        moved = self.model.send_letters()
        moved = True
        while moved:
            moved = self.take()
            moved |= self.model.judge()
        for queue, line in self.came.items():
            for received in line:
                item = self.model.find(queue, received.body[:6].decode())
                told = f"delivered, and not ready: {item}"
                self.check(_kind_of_surplus(item, queue), holds=False, words=told)
            line.clear()
        self.check_refusals()
        self.model.end_turn()
        self.compare()
        self.check_counts()

    def settle_down(self) -> None:
        """The disk does what it has to, and what is due happens, until there is no more."""
        timers = self.site.broker.timers
        self.site.settle_down()
        while timers.next is not None and timers.next <= timers.now:
            timers.advance(timers.now)
            self.site.broker.run_deliveries()
            self.site.collect()
            self.site.settle_down()

    def take_answers(self) -> None:
        """What the worker got, by queue, in order."""
        for received in self.worker.client.read():
            if received.kind in (Basic.Deliver, Basic.GetOk):
                self.came[received.method.consumer_tag].append(received)

    def take_confirms(self) -> None:
        """Nothing is confirmed that was not published, and nothing published is left out."""
        for received in self.publisher.read():
            assert received.kind in (Basic.Ack, Basic.Nack), received.method
            tag = received.method.delivery_tag
            tags = [tag] if not received.method.multiple else list(self.unconfirmed)
            for each in [each for each in tags if each <= tag]:
                item = self.unconfirmed.pop(each)
                if received.kind is Basic.Ack:
                    item.is_confirmed = True
                else:
                    self.refuse(item)
        self.check("confirms", not self.unconfirmed, list(self.unconfirmed))

    def refuse(self, item: Item) -> None:
        """A publish was answered with basic.nack."""
        overflow = self.model.rules[item.queue].overflow
        self.check("confirms", overflow != "drop-head", f"{item.name} is refused")
        self.model.refused.append((item.queue, len(item.body)))
        if overflow == "reject-publish-dlx":
            self.model.die(item, "maxlen")
        else:
            self.model.end(item, "refused")

    def check_refusals(self) -> None:
        """Who refuses is full, also where consumers had room and waited for the disk."""
        for queue, octets in self.model.refused:
            taken = self.taken.get(queue, [])
            is_full = self.model.is_over(queue, 1 + len(taken), octets + sum(taken))
            self.check("limits", is_full, f"{queue} refused {octets} and is not full")
        self.model.refused.clear()
        self.taken.clear()

    def take(self) -> bool:
        """Deliveries of messages that are ready; whether there was one."""
        moved = False
        for queue, line in self.came.items():
            while line:
                item = self.model.find(queue, line[0].body[:6].decode())
                if item is None or (item.queue, item.state) != (queue, State.READY):
                    break
                self.hand_out(queue, item, line.popleft())
                moved = True
        return moved

    def hand_out(self, queue: str, item: Item, received: Received) -> None:
        """A delivery: it is in time, in order, and says what it has to."""
        model, turn = self.model, self.model.turn
        self.check("time", not model.is_due(item), f"{item.name} of {queue} came late")
        for other in model.of(queue, State.READY):
            if other is item or model.is_due(other):
                continue
            # Who still waited may have been passed a moment ago.
            was_there = other.back_in != turn
            is_before = was_there and other.goes_before(item, model.ranks(queue))
            if is_before and other.place[0] == turn:
                # It came in this turn, too, perhaps later.
                mine, its = item.place[1], other.place[1]
                is_known = item.place[0] == turn and mine is not None and its is not None
                is_before = is_known and (its or 0) < (mine or 0)
            self.check("order", not is_before, f"{item.name} goes before {other.name} of {queue}")
        self.check_header(queue, item, received)
        item.state = State.HELD
        self.taken.setdefault(queue, []).append(len(item.body))
        channel, tag = received.channel, received.method.delivery_tag
        self.worker.held[channel][tag] = item
        self.worker.last[channel] = tag
        if channel != GET:
            count = self.worker.count(queue)
            self.check("prefetch", count <= self.worker.prefetch[queue], count)

    def check_header(self, queue: str, item: Item, received: Received) -> None:
        """A delivery says how often the message came back, and how it died."""
        headers = headers_table(header_octets(received))
        self.check("body", received.body == item.body, item.name)
        if not item.is_counted_more:
            marked = received.method.redelivered
            self.check("returns", marked == (item.returns > 0), f"{item.name} marked {marked}")
            counted = self.model.rules[queue].number("delivery-limit") is not None
            wanted = item.returns if counted and item.returns else None
            found = headers.get("x-delivery-count")
            count = found.value if found is not None else None
            self.check("returns", count == wanted, f"{item.name} says {count}, not {wanted}")
        found_deaths = deaths_of(header_octets(received))
        self.check("deaths", found_deaths == item.deaths, (item.name, found_deaths, item.deaths))
        if item.deaths:
            last = item.deaths[0]
            wanted_last = [headers[f"x-last-death-{key}"].value for key in ("queue", "reason")]
            self.check("deaths", wanted_last == list(last[:2]), (item.name, wanted_last))

    # What is there

    def compare(self) -> None:
        """Every queue holds what the model has there, as the model has it."""
        self.compare_delayed()
        for queue, found in self.found.items():
            names = [each.body[:6].decode() for each in found]
            self.check("conservation", len(set(names)) == len(names), f"{queue}: {names} twice")
            wanted = {i.name: i for i in self.model.of(queue, State.READY, State.WAITING)}
            more, less = sorted(set(names) - set(wanted)), sorted(set(wanted) - set(names))
            self.check("conservation", not less, f"{queue} lacks {less}, has {names}")
            for name in more:
                item = self.model.find(queue, name)
                self.check(_kind_of_surplus(item, queue), False, f"{queue} has {name}: {item}")
            for each, name in zip(found, names, strict=True):
                if name in wanted:
                    self.compare_one(queue, wanted[name], each)
            ready = [wanted[n] for n, f in zip(names, found, strict=True) if f.until is None]
            for place, item in enumerate(ready):
                for behind in ready[place + 1 :]:
                    late = behind.goes_before(item, self.model.ranks(queue))
                    self.check("order", not late, f"{behind.name} is behind {item.name}")

    def compare_one(self, queue: str, item: Item, found: Found) -> None:
        """A message is as it has to be."""
        what = f"{item.name} of {queue}"
        self.check("body", found.body == item.body, what)
        is_waiting = found.until is not None
        self.check("retries", is_waiting == (item.state is State.WAITING), f"{what}: {found}")
        if found.until is not None:
            low, high = item.until
            self.check("retries", low <= found.until <= high, (what, found.until, item.until))
            item.until = found.until, found.until
        if item.is_counted_more:
            item.is_counted_more = False
            known = item.returns <= found.returns <= max(1, item.returns)
            self.check("returns", known, f"{what}: {found.returns}, not {item.returns}")
            item.returns = found.returns
        self.check("returns", found.returns == item.returns, f"{what}: {found} {item.returns}")
        if item.is_unsure and {death[1] for death in found.deaths[:1]} < {"expired", "maxlen"}:
            item.deaths, item.is_unsure = found.deaths, False
        self.check("deaths", found.deaths == item.deaths, (what, found.deaths, item.deaths))
        self.check("time", found.published == item.published, (what, found, item.published))
        self.check("time", found.ttl == item.ttl, (what, found, item.ttl))

    def compare_delayed(self) -> None:
        """What waits at the exchange is what has to wait there, as long as it has to."""
        delayed = self.site.vhost.exchanges["later"].delayed
        found = contents(delayed) if delayed is not None else []
        dues = {each.body[:6].decode(): (each.published or 0) + (each.ttl or 0) for each in found}
        items = [i for i in self.model.alive if i.state is State.DELAYED]
        wanted = {item.name: item.due for item in items}
        less, more = sorted(set(wanted) - set(dues)), sorted(set(dues) - set(wanted))
        self.check("time", not more, f"delayed: {more} are not released")
        self.check("conservation", not less, f"delayed: {less} are gone")
        self.check("time", dues == wanted, (dues, wanted))
        for item in items:
            item.due = dues.get(item.name, item.due)

    def check_counts(self) -> None:
        """Counts, and octets of memory, recomputed."""
        held_bytes = 0
        vhost = self.site.vhost
        for name in LETTERS:
            queue = vhost.queues[name]
            ready, held, waiting = self.model.counts(name)
            counted = queue.messages_ready, queue.unacked_count, queue.messages
            wanted = ready, held, ready + held + waiting
            self.check("conservation", counted == wanted, (name, counted, wanted))
            held_bytes += queue.unacked_bytes
            idle = self.worker.room(name) and ready
            self.check("delivery", not idle, f"{name} has {ready} and a consumer with room")
        octets = memory_of(self.site, held_bytes)
        used = self.site.broker.memory_used
        self.check("memory", octets == used, (octets, used))
        journal = self.site.journal
        self.check("memory", journal.durable == self.site.log.next - 1, "not all is durable")


def header_octets(received: Received) -> bytes:
    """The header of a delivery as a frame."""
    header = received.header
    return b"\x02\x00\x01" + len(header).to_bytes(4, "big") + header + b"\xce"


def _kind_of_surplus(item: Item | None, queue: str) -> str:
    """The invariant that says that a message should not be in a queue any more."""
    if item is not None and item.fate in ("expired", "maxlen"):
        return "time" if item.fate == "expired" else "limits"
    if item is not None and item.queue == LETTERS[queue]:
        reason = item.deaths[0][1] if item.deaths else ""
        return {"expired": "time", "maxlen": "limits"}.get(reason, "conservation")
    return "conservation"

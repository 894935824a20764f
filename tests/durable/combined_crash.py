"""Ends and starts of a broker in which features meet: at rest, or in the midst of things, when
every message is where it was, or where what was asked for in that moment takes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import copy

from broker.errors import ReplyCode
from tests.durable.combined_contents import Found, contents, deaths_of
from tests.durable.combined_machine import CombinedMachine
from tests.durable.combined_model import (
    LASTING,
    LETTERS,
    Item,
    Model,
    State,
    died,
    is_cycle,
)
from tests.durable.combined_observer import header_octets
from tests.durable.site import DurableSite
from tests.protocol.client import Basic, Received

DELAYED = "later"
"""Where messages are that wait at the exchange."""
ROUNDS = 4
"""Deaths of one message that a crash may leave it behind or before."""


def start(machine: CombinedMachine, keep: int, downtime: int) -> None:
    """A broker starts with what the log has."""
    site = machine.site
    log = site.log.crashed(keep)
    machine.site = DurableSite(log, site.broker.timers.now + downtime, **machine.limits)
    machine.starts += 1
    for line in machine.came.values():
        line.clear()
    machine.model.taken_up(machine.site.broker.timers.now)
    policies = {each.name: dict(each.definition) for each in machine.site.vhost.policies.all()}
    machine.check("definitions", policies == machine.policies, (policies, machine.policies))
    machine.connect()


def stop_at_rest(machine: CombinedMachine, downtime: int) -> None:
    """A clean stop, when clients have gone."""
    for channel in machine.worker.held:
        machine.leave(channel)
        machine.rest()
    machine.site.broker.close_journal()
    machine.check("recovery", not machine.site.log.undurable, "a stop leaves something")
    machine.begin()
    machine.model.end_of_broker(is_exact=True)
    start(machine, 0, downtime)
    machine.rest()


def crash_at_rest(machine: CombinedMachine, downtime: int) -> None:
    """A crash when the disk has nothing to do."""
    machine.begin()
    machine.model.end_of_broker(is_exact=False)
    start(machine, 0, downtime)
    machine.rest()


class Midst:
    """What happens while the disk is late, until the broker ends."""

    def __init__(self, machine: CombinedMachine) -> None:
        self.machine = machine
        machine.begin()
        self.began = machine.model.now
        self.turn = machine.model.turn
        # What came to each queue meanwhile, by number.
        self.arrivals: dict[str, dict[int, Item]] = {}
        self.before = {item: copy(item) for item in machine.model.alive}
        # What messages were meanwhile.
        self.between: dict[Item, list[Item]] = {}

    def pass_time(self, milliseconds: int) -> None:
        """Time goes on."""
        broker = self.machine.site.broker
        broker.timers.advance(broker.timers.now + milliseconds)
        broker.run_deliveries()
        self.machine.site.collect()

    def disk_works(self, count: int) -> None:
        """The disk does some of what it has to."""
        for log in self.machine.site.logs:
            log.work(count)
            log.tell(count)
            log.answer(count)
            self.machine.site.collect()

    def crash(self, keep: int, downtime: int) -> None:
        """The broker ends without a warning; `keep` more batches than it knows of are kept."""
        self.hear()
        self._end(keep, downtime, is_clean=False)

    def stop(self, downtime: int) -> None:
        """The broker ends in good order: what is held comes back."""
        machine = self.machine
        self.hear()
        machine.model.now = machine.site.broker.timers.now
        for held in machine.worker.held.values():
            for item in held.values():
                if item.state is State.HELD:
                    machine.model.give_back(item, failed=False)
        for client in machine.site.clients:
            client.connection.close(ReplyCode.CONNECTION_FORCED, "CONNECTION_FORCED - test")
        machine.site.collect()
        machine.site.broker.close_journal()
        # Letters whose contents have to be read first are left.
        self._end(0, downtime, is_clean=not machine.limits)

    def hear(self) -> None:
        """What clients were told counts, and what they do next comes after it."""
        machine = self.machine
        for item in machine.model.alive:
            self.between.setdefault(item, []).append(copy(item))
        for received in machine.publisher.read():
            if received.kind in (Basic.Ack, Basic.Nack):
                tag = received.method.delivery_tag
                tags = list(machine.unconfirmed) if received.method.multiple else [tag]
                for each in [each for each in tags if each <= tag]:
                    item = machine.unconfirmed.pop(each)
                    item.is_confirmed = received.kind is Basic.Ack
                    if received.kind is Basic.Nack:
                        machine.refuse(item)
        for received in machine.worker.client.read():
            if received.kind is Basic.Deliver:
                known = machine.model.find(received.method.consumer_tag, received.body[:6].decode())
                machine.check("conservation", known is not None, "delivered, and never published")
                held = machine.worker.held[received.channel]
                if known is not None:
                    self._hand_out(known, received)
                    held[received.method.delivery_tag] = known

    def _hand_out(self, item: Item, received: Received) -> None:
        """A message is held, perhaps where it came to just now."""
        deaths = deaths_of(header_octets(received))
        if item.state is State.DELAYED or deaths != item.deaths:
            item.published, item.earliest = None, self.began
            item.place = self.machine.model.turn, None
        if deaths != item.deaths:
            item.queue, item.deaths = received.method.consumer_tag, deaths
            item.ttl, item.returns = None, 0
        item.state = State.HELD

    def _end(self, keep: int, downtime: int, *, is_clean: bool) -> None:
        machine = self.machine
        model = machine.model
        known = [item for item in model.items.values() if item in self.before]
        new = [item for item in model.alive if item not in self.before]
        model.forget_letters()
        start(machine, keep, downtime)
        machine.settle_down()
        model.now = machine.site.broker.timers.now
        where = self._found()
        for item in [*known, *new]:
            versions = [copy(item)]
            # After a clean stop all is as it was, if that is known.
            if not (is_clean and item.persistent) or item.earliest is not None:
                versions += self.between.get(item, [])
                versions += [self.before[item]] if item in self.before else []
            if machine.limits:
                versions += unread(versions)
            may_be_new = item in new and not item.is_confirmed
            self._judge(item, versions, where.pop(item.name, []), may_be_missing=may_be_new)
        strangers = {name: places for name, places in where.items() if places}
        machine.check("conservation", not strangers, f"nobody knows of {strangers}")
        self._put_in_order()
        machine.unconfirmed.clear()
        model.alive = [item for item in (*known, *new) if item.state is not State.GONE]
        machine.rest()

    def _found(self) -> dict[str, list[tuple[str, Found]]]:
        """By name of the message, where it is."""
        vhost = self.machine.site.vhost
        found: dict[str, list[tuple[str, Found]]] = {}
        delayed = vhost.exchanges["later"].delayed
        queues = {name: vhost.queues[name] for name in LETTERS}
        for name, queue in [*queues.items(), (DELAYED, delayed)]:
            for each in contents(queue) if queue is not None else []:
                found.setdefault(each.body[:6].decode(), []).append((name, each))
        return found

    def _judge(
        self,
        item: Item,
        versions: list[Item],
        places: list[tuple[str, Found]],
        *,
        may_be_missing: bool,
    ) -> None:
        """A message is in one place, and may be there."""
        machine, model = self.machine, self.machine.model
        machine.check("conservation", len(places) <= 1, f"{item} is in {places}")
        outcomes = list(all_outcomes(model, _different(versions), self.began))
        if not places:
            gone = [each for each in outcomes if each.state is State.GONE]
            told = f"{item} is gone; possible: {outcomes}"
            machine.check("conservation", gone or may_be_missing, told)
            item.state, item.fate = State.GONE, gone[0].fate if gone else "never was"
            return
        [(queue, found)] = places
        fitting = [each for each in outcomes if fits(each, queue, found)]
        told = f"{item} is in {queue} as {found}; possible: {outcomes}"
        there = [each for each in outcomes if _place(each) == queue]
        invariant = "conservation" if not there else _differs(there, found)
        machine.check(invariant, fitting, told)
        known = fitting or there or outcomes
        take_over(item, known[0], found, model.turn)
        if item.place[0] >= self.turn:
            self.arrivals.setdefault(queue, {})[found.number] = item

    def _put_in_order(self) -> None:
        """What was published meanwhile is in order; what came otherwise is where it is."""
        for queue, items in self.arrivals.items():
            published: dict[int, tuple[int, int | None]] = {}
            for index, (_, item) in enumerate(sorted(items.items())):
                rank = item.priority if self.machine.model.ranks(queue) else 0
                if item.place[1] is not None and queue != DELAYED:
                    before = published.get(rank, (0, 0))
                    self.machine.check("order", before < item.place, f"{item} is behind {before}")
                    published[rank] = item.place
                if queue != DELAYED:
                    item.place = self.machine.model.turn, index


def _different(items: Iterable[Item]) -> list[Item]:
    """Each version once."""
    return list({(repr(item), item.returns): item for item in items}.values())


def unread(versions: Iterable[Item]) -> list[Item]:
    """What came back after its time, as long as it is only counted: where memory is short it has to
    be read before it can go on, and is in its place if the broker ends before that."""
    late = [item for item in versions if item.state is State.GONE and item.fate == "expired"]
    return [changed(item, state=State.READY, fate="") for item in late if item.returns]


def all_outcomes(model: Model, versions: Iterable[Item], began: int) -> Iterable[Item]:
    """What may have become of a message that was so, or so, when a broker ended, and what happened
    then began."""
    todo = list(versions)
    for _ in range(2 * ROUNDS):
        following: list[Item] = []
        for item in todo:
            yield item
            following += _next(model, item, began)
        todo = following


def _next(model: Model, item: Item, began: int) -> list[Item]:
    """What may become of it by and by; of one that is gone, nothing."""
    found: list[Item] = []
    if item.state is State.GONE:
        if item.fate in ("rejected", "expired", "maxlen", "delivery_limit"):
            found += _letters(model, item, began)
        return found
    queue = item.queue
    is_lost = not item.persistent or (item.state is not State.DELAYED and queue not in LASTING)
    if is_lost:
        found.append(changed(item, state=State.GONE, fate="lost with the broker"))
    if item.state is State.HELD:
        found.append(changed(item, state=State.READY))
    if item.state is State.DELAYED and item.due <= model.now:
        place = model.turn, None
        released = changed(item, state=State.READY, published=None, earliest=item.due, place=place)
        found.append(released)
    if item.state is State.WAITING and item.until[0] <= model.now:
        found.append(changed(item, state=State.READY))
    if item.state in (State.READY, State.HELD):
        if model.may_be_over(item):
            found.append(changed(item, state=State.GONE, fate="expired"))
        rules = model.rules[queue]
        if rules.is_limited and rules.overflow == "drop-head":
            found.append(changed(item, state=State.GONE, fate="maxlen"))
    return found


def _letters(model: Model, item: Item, began: int) -> list[Item]:
    """Where a dead message may have gone."""
    if model.rules[item.queue].definition.get("dead-letter-exchange") is None:
        return []
    deaths = died(item.deaths, item.queue, item.fate)
    target = LETTERS[item.queue]
    if item.fate != "rejected" and is_cycle(target, deaths):
        return []
    letter = changed(item, state=State.READY, queue=target, ttl=None, returns=0, fate="")
    letter.deaths, letter.published, letter.earliest = deaths, None, began
    letters = [letter]
    rules = model.rules[target]
    if rules.is_limited and rules.overflow != "drop-head":
        fate = "maxlen" if rules.overflow == "reject-publish-dlx" else "refused"
        letters.append(changed(letter, state=State.GONE, fate=fate))
    return letters


def changed(item: Item, **values: object) -> Item:
    """Another version of it."""
    other = copy(item)
    for name, value in values.items():
        setattr(other, name, value)
    return other


def _place(item: Item) -> str:
    if item.state is State.DELAYED:
        return DELAYED
    return item.queue if item.state in (State.READY, State.WAITING) else ""


def fits(item: Item, queue: str, found: Found) -> bool:
    """Whether it is there as this says."""
    return _place(item) == queue and all(right(item, found) for right in RIGHT.values())


def _differs(items: Iterable[Item], found: Found) -> str:
    """The invariant that does not hold, if a message is where it may be, but not as it has to."""
    wrongs = [[name for name, right in RIGHT.items() if not right(i, found)] for i in items]
    return (min(wrongs, key=len, default=[]) or ["conservation"])[0]


def _is_right_wait(item: Item, found: Found) -> bool:
    if item.state is not State.WAITING:
        return found.until is None
    return found.until is not None and item.until[0] <= found.until <= item.until[1]


def _is_right_time(item: Item, found: Found) -> bool:
    if item.state is State.DELAYED:
        return (found.published or 0) + (found.ttl or 0) == item.due
    is_new = item.published is None and item.earliest is not None
    return found.ttl == item.ttl and (is_new or found.published == item.published)


RIGHT: dict[str, Callable[[Item, Found], bool]] = {
    "deaths": lambda item, found: found.deaths == item.deaths,
    "retries": _is_right_wait,
    "returns": lambda item, found: item.returns <= found.returns <= max(1, item.returns),
    "time": _is_right_time,
}
"""What must be right of a message that was found, by invariant."""


def take_over(item: Item, version: Item, found: Found, turn: int) -> None:
    """This is what became of a message."""
    if (version.queue, version.deaths) != (item.queue, item.deaths):
        version.place = turn, None
    if item.state is State.DELAYED and version.state is not State.DELAYED:
        version.place = turn, None
    for name in ("queue", "state", "deaths", "place", "ttl", "due"):
        setattr(item, name, getattr(version, name))
    if item.state is State.WAITING and found.until is not None:
        item.until = found.until, found.until
    if item.state is not State.DELAYED:
        item.published, item.ttl = found.published, found.ttl
    item.returns = found.returns
    item.is_counted_more = False
    item.fate = ""

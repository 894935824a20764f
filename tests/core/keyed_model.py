"""The plainest model of a queue with keys: lists, looked through for each message."""

from __future__ import annotations

from dataclasses import dataclass, field

from broker.core.rules import QueueRules


@dataclass(eq=False)
class Sent:
    number: int
    room: str | None
    tenant: str | None
    expires: int | None
    returns: int = 0
    until: int = 0


@dataclass(eq=False)
class Worker:
    prefetch: int
    no_ack: bool
    got: list[int] = field(default_factory=list)
    held: int = 0

    @property
    def room(self) -> int:
        return self.prefetch - self.held if self.prefetch and not self.no_ack else 10**6


@dataclass
class Model:
    """What waits, in order; who holds what; and whose turn it is."""

    kind: str
    rules: QueueRules
    now: int = 1000
    ready: list[Sent] = field(default_factory=list)
    arrived: list[Sent] = field(default_factory=list)
    waiting: list[Sent] = field(default_factory=list)
    held: dict[int, Sent] = field(default_factory=dict)
    line: list[Worker] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)
    turns: dict[str | None, int] = field(default_factory=dict)
    turn: int = 0
    # Whether messages leave otherwise than to a consumer.
    loses: bool = False

    @property
    def count(self) -> int:
        return len(self.ready) + len(self.arrived)

    def busy(self) -> set[str | None]:
        if self.kind == "shares":
            return set()
        held = [*self.held.values(), *self.waiting]
        return {sent.room for sent in held if sent.room is not None}

    def eligible(self) -> list[Sent]:
        """The first of each key that may go out; all that have none."""
        taken, found = self.busy(), []
        for sent in self.ready:
            if self.kind == "shares" or sent.room is None:
                found.append(sent)
            elif sent.room not in taken:
                taken.add(sent.room)
                found.append(sent)
        return found

    def load(self, tenant: str | None) -> int:
        return sum(sent.tenant == tenant for sent in self.held.values())

    def note_turns(self) -> None:
        """Who begins to wait stands at the end; who does no more, leaves."""
        tenants = list(dict.fromkeys(sent.tenant for sent in self.eligible()))
        for tenant in [tenant for tenant in self.turns if tenant not in tenants]:
            del self.turns[tenant]
        for tenant in tenants:
            if tenant not in self.turns:
                self.turn += 1
                self.turns[tenant] = self.turn

    def next(self, number: int | None = None) -> Sent | None:
        """What goes out next. `number` is what did."""
        eligible = self.eligible()
        if not eligible or self.kind == "groups":
            return eligible[0] if eligible else None
        self.note_turns()
        tenants = {sent.tenant for sent in eligible}
        first = min(tenants, key=lambda tenant: (self.load(tenant), self.turns[tenant]))
        if number is not None and self.loses:
            # What left otherwise is found out when its turn comes: until then it may have had one,
            # and the next one of its group none.
            (sent,) = (sent for sent in eligible if sent.number == number)
            first = sent.tenant
            if self.kind == "both":
                return sent
        return next(sent for sent in eligible if sent.tenant == first)

    def go_out(self, sent: Sent, *, no_ack: bool) -> None:
        self.ready.remove(sent)
        if not no_ack:
            self.held[sent.number] = sent
        if self.kind != "groups":
            before = self.turns.keys() & {sent.tenant}
            self.note_turns()
            for tenant in before & self.turns.keys():
                self.turn += 1
                self.turns[tenant] = self.turn

    def expire(self) -> None:
        self.ready = [s for s in self.ready if s.expires is None or s.expires > self.now]

    def first_worker(self) -> Worker | None:
        while self.line:
            if self.line[0].room > 0:
                return self.line[0]
            self.line.pop(0)
        return None

    def deliver(self, numbers: dict[Worker, list[int]]) -> None:
        """`numbers` is what each worker got."""
        arrived, self.arrived = self.arrived, []
        self.expire()
        if self.kind != "groups" and arrived and not self.ready and not self.loses:
            first = self.first_worker()
            if first is not None and first.room >= len(arrived):
                self.deliver_as_they_came(arrived)
                arrived = []
        if self.kind == "groups":
            self.hand_out(numbers)
            for sent in arrived:
                self.ready.append(sent)
                if not self.eligible():
                    # Who is asked whether there is room leaves the line if there is none.
                    self.first_worker()
                self.hand_out(numbers)
        else:
            self.ready += arrived
            self.note_turns()
        self.hand_out(numbers)
        if self.rules.max_length is not None:
            del self.ready[: max(0, len(self.ready) - self.rules.max_length)]

    def hand_out(self, numbers: dict[Worker, list[int]]) -> None:
        while self.eligible() and (worker := self.first_worker()) is not None:
            got = numbers[worker][len(worker.got) :]
            sent = self.next(got[0] if got else None)
            assert sent is not None
            self.hand(worker, sent)

    def deliver_as_they_came(self, arrived: list[Sent]) -> None:
        for sent in arrived:
            self.ready.append(sent)
            worker = self.first_worker()
            assert worker is not None
            if sent in self.eligible():
                self.hand(worker, sent)

    def hand(self, worker: Worker, sent: Sent) -> None:
        self.go_out(sent, no_ack=worker.no_ack)
        worker.got.append(sent.number)
        worker.held += not worker.no_ack
        self.line.remove(worker)
        self.line.append(worker)

    def wake(self, worker: Worker) -> None:
        if worker in self.workers and worker not in self.line:
            self.line.append(worker)

    def come_back(self, sent: Sent) -> None:
        limit = self.rules.delivery_limit
        if limit is not None and sent.returns >= limit:
            return
        sent.returns += 1
        if self.rules.delays(failed=True):
            sent.until = self.now + self.rules.delayed_retry_min
            self.waiting.append(sent)
        else:
            self.stand_in_line([sent])

    def stand_in_line(self, back: list[Sent]) -> None:
        alive = [s for s in back if s.expires is None or s.expires > self.now]
        self.ready = sorted([*self.ready, *alive], key=lambda sent: sent.number)
        if self.kind != "groups":
            self.note_turns()

    def advance(self, now: int) -> None:
        self.now = now
        due = [sent for sent in self.waiting if sent.until <= now]
        self.waiting = [sent for sent in self.waiting if sent.until > now]
        self.stand_in_line(due)
        self.expire()

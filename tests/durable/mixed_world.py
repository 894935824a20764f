"""What is known of every message where all features may meet: where it was last, since when, and
what a queue is asked for. Nothing here says what a broker will do."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain

from broker.wire.table import Field, Table
from tests.durable.combined_model import Death, Rules

FAMILIES = 3
WORK = tuple(f"w{number}" for number in range(FAMILIES))
"""The queues that are published to."""
DEAD = tuple(f"d{number}" for number in range(FAMILIES))
"""Where their dead letters go; those of these go back."""
QUEUES = (*WORK, *DEAD)
LETTERS = dict(zip(QUEUES, (*DEAD, *WORK), strict=True))
LATER, ONCE = "later", "once"
"""The exchange that delays, and the one that takes no duplicates."""
FANOUT = WORK[:2]
"""The queues that are bound to `ONCE`."""
HIGHEST = 3


class State(enum.Enum):
    NEW = "new"
    READY = "ready"
    HELD = "held"
    WAITING = "waiting"
    DELAYED = "delayed"
    GONE = "gone"


PRESENT = (State.READY, State.HELD, State.WAITING)


@dataclass(eq=False)
class Subscription:
    """A consumer; basic.get is one without a tag. `timeout` and `action` are what it asks for."""

    queue: str
    channel: int
    tag: str = ""
    prefetch: int = 0
    rank: int = 0
    no_ack: bool = False
    timeout: int | None = None
    action: str = ""


@dataclass(eq=False)
class Copy:
    """A message in the queues of one family. Times are in milliseconds, and where they are not
    known exactly, the first and the last that are possible."""

    name: str
    body: bytes
    family: int
    room: str | None = None
    tenant: str | None = None
    identity: str | None = None
    priority: int = 0
    persistent: bool = True
    ttl: int | None = None
    state: State = State.NEW
    queue: str = ""
    # When it came: (step, index within it; None among those that came in whatever order).
    place: tuple[int, int | None] = (0, None)
    arrived: tuple[int, int] = (0, 0)
    due: int = 0
    until: int = 0
    returns: int = 0
    deaths: tuple[Death, ...] = ()
    holder: Subscription | None = None
    held_since: tuple[int, int] = (0, 0)
    fate: str = ""
    is_confirmed: bool = False

    def __repr__(self) -> str:
        where = (self.queue, self.state.value, self.place, self.deaths, f"{self.returns} returns")
        lasts = "persistent" if self.persistent else "transient"
        keys = f"{lasts} {self.room}/{self.tenant}/{self.identity} priority {self.priority}"
        times = f"ttl {self.ttl} since {self.arrived} due {self.due} until {self.until}"
        return f"{self.name} {where} {keys} {times} {self.fate}"

    @property
    def is_there(self) -> bool:
        """Whether it is in its queue."""
        return self.state in PRESENT


@dataclass
class Window:
    """Ids that an exchange or queue has taken lately, the oldest first: when each expires, and
    whether it lasts. Of those in `doubt` it is not known."""

    size: int
    ttl: int | None
    ids: dict[str, tuple[int | None, bool]] = field(default_factory=dict)
    doubt: set[str] = field(default_factory=set)
    # Those that made room and may be in the log still.
    left: set[str] = field(default_factory=set)

    def knows(self, identity: str, now: int) -> bool | None:
        """Whether this would be a duplicate; None if nobody can tell."""
        if identity in self.doubt:
            return None
        expires = self.ids.get(identity, (0, False))[0]
        return expires is None or expires > now

    def take(self, identity: str, now: int, *, lasts: bool) -> None:
        """A message with this id was taken."""
        if self.doubt - {identity} and len(self.ids) + len(self.doubt) >= self.size:
            # Nobody knows which one has to go.
            self.doubt |= self.ids.keys()
            self.ids.clear()
        self.doubt.discard(identity)
        self.ids.pop(identity, None)
        self.left.discard(identity)
        while len(self.ids) >= self.size:
            oldest = next(iter(self.ids))
            if self.ids.pop(oldest)[1]:
                self.left.add(oldest)
        self.ids[identity] = None if self.ttl is None else now + self.ttl, lasts

    def doubts(self, identities: Iterable[str]) -> None:
        """Whether these were taken is not known."""
        touched = set(identities)
        if touched and len(self.ids.keys() | touched | self.doubt) > self.size:
            touched |= self.ids.keys()
        self.doubt |= touched
        for identity in touched:
            self.ids.pop(identity, None)

    def restart(self, *, durable: bool) -> None:
        """What does not last is forgotten, and what made room for that may be there again."""
        if durable:
            # Also where doubts have left fewer than there is room for.
            self.doubt |= self.left
        self.left.clear()
        self.ids = {each: known for each, known in self.ids.items() if durable and known[1]}
        if not durable:
            self.doubt.clear()


@dataclass
class QueueFacts:
    """A queue: what it was declared with, what its policy says, and who consumes it."""

    name: str
    durable: bool = True
    order: str = "plain"
    turns: str = ""
    remembers: str = ""
    rules: Rules = field(default_factory=Rules)
    exists: bool = True
    consumers: list[Subscription] = field(default_factory=list)
    # When it was used last: it may have been as early, and as late.
    used: tuple[int, int] = (0, 0)
    window: Window | None = None
    # The message with this id that came last, None if nobody knows which one.
    latest: dict[str, Copy | None] = field(default_factory=dict)

    @property
    def arguments(self) -> Table:
        """What it is declared with."""
        table: Table = {}
        if self.order == "ranks":
            table["x-max-priority"] = Field("byte", HIGHEST)
        if self.order in ("groups", "both"):
            table["x-group-by"] = Field("longstr", "room")
        if self.order in ("shares", "both"):
            table["x-fair-by"] = Field("longstr", "tenant")
        if self.turns == "single":
            table["x-single-active-consumer"] = Field("bool", value=True)
        if self.turns == "least-loaded":
            table["x-dispatch"] = Field("longstr", self.turns)
        if self.remembers:
            table["x-message-deduplication"] = Field("bool", value=True)
        if self.window is not None:
            table["x-cache-size"] = Field("signedint", self.window.size)
            if self.window.ttl is not None:
                table["x-cache-ttl"] = Field("signedint", self.window.ttl)
        return table

    @property
    def has_groups(self) -> bool:
        return self.order in ("groups", "both")

    @property
    def is_keyed(self) -> bool:
        return self.order in ("groups", "shares", "both")

    @property
    def active(self) -> list[Subscription]:
        """The consumers that may get something."""
        return self.consumers[:1] if self.turns == "single" else self.consumers

    def timeout_of(self, holder: Subscription) -> int:
        """How long a delivery may stay unsettled; 0 for ever."""
        own = self.rules.number("consumer-timeout") if holder.timeout is None else holder.timeout
        return own or 0

    def action_of(self, holder: Subscription) -> str:
        """What becomes of a late one."""
        asked = holder.action or str(self.rules.definition.get("consumer-timeout-action", ""))
        return "requeue" if asked == "cancel-consumer" and not holder.tag else asked or "requeue"

    def rank_of(self, copy: Copy) -> int:
        return min(copy.priority, HIGHEST) if self.order == "ranks" else 0

    def goes_before(self, one: Copy, other: Copy) -> bool:
        """Whether one must be delivered before the other, if both are ready."""
        if self.rank_of(one) != self.rank_of(other):
            return self.rank_of(one) > self.rank_of(other)
        if one.place[0] != other.place[0]:
            return one.place[0] < other.place[0]
        mine, its = one.place[1], other.place[1]
        return mine is not None and its is not None and mine < its


class World:
    """All messages, queues and windows."""

    def __init__(self, queues: Iterable[QueueFacts]) -> None:
        self.queues = {facts.name: facts for facts in queues}
        self.once = Window(50, None)
        self.alive: list[Copy] = []
        self.known: dict[tuple[int, str], Copy] = {}

    def add(self, copy: Copy) -> None:
        self.alive.append(copy)
        self.known[copy.family, copy.name] = copy

    def find(self, queue: str, body: bytes) -> Copy | None:
        """The message with this body, as it is in this queue."""
        return self.known.get((QUEUES.index(queue) % FAMILIES, body[:6].decode()))

    def of(self, queue: str, *states: State) -> list[Copy]:
        """The messages of a queue in one of these states."""
        return [each for each in self.alive if each.queue == queue and each.state in states]

    def deadline(self, copy: Copy, queue: str, *, latest: bool) -> int | None:
        """When it expires there, at the earliest or at the latest; None for never."""
        rules = self.queues[queue].rules
        ttl = rules.number("message-ttl")
        arrived = copy.arrived[latest]
        ends = [] if copy.ttl is None else [arrived + copy.ttl]
        if ttl is not None:
            ends.append(ttl + max(arrived, rules.since if latest else rules.began))
        return min(ends, default=None)

    def set_rules(self, queue: str, definition: dict[str, object], now: int) -> None:
        """Another policy holds for a queue from now on."""
        facts = self.queues[queue]
        rules = facts.rules
        had = rules.number("message-ttl") is not None
        timeouts = {each: facts.timeout_of(each) for each in self._holders(queue)}
        rules.definition = definition
        if not had and rules.number("message-ttl") is not None:
            rules.since = rules.began = rules.before = now
        for copy in self.of(queue, State.HELD):
            assert copy.holder is not None
            if timeouts[copy.holder] != facts.timeout_of(copy.holder):
                copy.held_since = copy.held_since[0], now
        facts.used = facts.used[0], now

    def _holders(self, queue: str) -> set[Subscription]:
        holders = (each.holder for each in self.of(queue, State.HELD))
        return {each for each in holders if each is not None}

    def restarted(self, now: int) -> None:
        """A broker started: what does not last is forgotten, and all queues are in use. A TTL that
        is younger than some message counts from now on."""
        for facts in self.queues.values():
            rules = facts.rules
            older = [
                each
                for each in chain(self.of(facts.name, *PRESENT))
                if each.arrived[0] <= rules.before
            ]
            rules.began = 0
            if older:
                rules.since = now
            facts.consumers.clear()
            facts.used = now, now
            if facts.window is not None:
                facts.window.restart(durable=facts.durable)
        self.once.restart(durable=True)

"""What has to become of every message where features meet: priorities, times to live, limits, dead
letters, delays and retries. Said as plainly as can be, by message."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

WORK, BRIEF, DEAD, BRIEF_DEAD = "work", "brief", "dead", "brief-dead"
LETTERS = {WORK: DEAD, BRIEF: BRIEF_DEAD, DEAD: WORK, BRIEF_DEAD: BRIEF}
"""The queues, and where their dead letters go. The last two get nothing else."""
LASTING = frozenset({WORK, DEAD})
Definition = Mapping[str, object]
Death = tuple[str, str, int]


class State(enum.Enum):
    READY = "ready"
    HELD = "held"
    WAITING = "waiting"
    """It came back, and is tried again later."""
    DELAYED = "delayed"
    """At the exchange, until it is due."""
    GONE = "gone"


@dataclass(eq=False)
class Item:
    """A message. `place` is when it came to its queue: (turn, index within the turn; None among
    those that came in whatever order). Times are in milliseconds."""

    name: str
    body: bytes
    queue: str
    priority: int
    persistent: bool
    ttl: int | None
    state: State = State.READY
    place: tuple[int, int | None] = (0, None)
    published: int | None = None
    due: int = 0
    # When its wait is over: it must be between these two, which are the same once it is known.
    until: tuple[int, int] = (0, 0)
    # The turn in which it was over.
    back_in: int | None = None
    returns: int = 0
    # Whether one more may be counted than came back, since who has seen what is not known exactly.
    is_counted_more: bool = False
    deaths: tuple[Death, ...] = ()
    fate: str = ""
    # When it may have come to its queue, if that is not known.
    earliest: int | None = None
    # Whether it may have died of another reason: it was too much and its time was over.
    is_unsure: bool = False
    # What clients were told of it.
    is_confirmed: bool = False

    def __repr__(self) -> str:
        known = (self.name, self.queue, self.state.value, self.place, self.deaths, self.fate)
        return f"{known}, published {self.published}, ttl {self.ttl}, until {self.until}"

    @property
    def is_timed(self) -> bool:
        """Whether it is known when it came, as far as it matters."""
        return self.published is not None or self.earliest is None

    def goes_before(self, other: Item, ranks: bool) -> bool:
        """Whether it must be delivered before another one of its queue."""
        if ranks and self.priority != other.priority:
            return self.priority > other.priority
        if self.place[0] != other.place[0]:
            return self.place[0] < other.place[0]
        mine, its = self.place[1], other.place[1]
        return mine is not None and its is not None and mine < its


@dataclass
class Rules:
    """What holds for a queue: the definition of its policy, and since when it has a TTL: for
    messages that do not say when they were published, and for the others."""

    definition: Definition = field(default_factory=dict)
    since: int = 0
    began: int = 0
    # What `since` was when the broker ended.
    before: int = 0

    def number(self, key: str) -> int | None:
        value = self.definition.get(key)
        assert value is None or isinstance(value, int)
        return value

    @property
    def overflow(self) -> object:
        return self.definition.get("overflow", "drop-head")

    @property
    def is_limited(self) -> bool:
        return "max-length" in self.definition or "max-length-bytes" in self.definition

    def delays(self, failed: bool) -> bool:
        kind = self.definition.get("delayed-retry-type", "disabled")
        return kind in ("all", "failed" if failed else "returned")

    def delay(self, times: int) -> int:
        """How long a message waits that came back so often, without chance."""
        least, most = self.number("delayed-retry-min") or 0, self.number("delayed-retry-max")
        multiplier = self.definition.get("delayed-retry-multiplier")
        if multiplier is None:
            delay = least * times
        else:
            assert isinstance(multiplier, int | float)
            delay = int(least * multiplier ** (times - 1))
        return delay if most is None else min(delay, most)


class Model:
    """All messages there ever were. `is_there` says which of those among which chance decides are
    in a queue."""

    def __init__(self, has_ranks: bool) -> None:
        self.now = 0
        self.turn = 0
        self.has_ranks = has_ranks
        # Whether a broker started in this turn, which judges queues by parts.
        self.has_started = False
        self.items: dict[tuple[str, str], Item] = {}
        # Those that are not gone, as of the last turn.
        self.alive: list[Item] = []
        self.rules = {queue: Rules() for queue in LETTERS}
        self.is_there: Callable[[str, str], bool] = lambda queue, name: False
        # Where the TTL began anew at the last start.
        self._begun_anew: set[tuple[str, int]] = set()
        # What died in this turn, and why.
        self._letters: list[tuple[Item, str]] = []
        # Queues that refused a message in this turn, and the octets of its body.
        self.refused: list[tuple[str, int]] = []

    def of(self, queue: str, *states: State) -> list[Item]:
        """The messages of a queue in one of these states."""
        return [item for item in self.alive if item.queue == queue and item.state in states]

    def add(self, item: Item) -> None:
        """A message was published."""
        self.items[item.queue, item.name] = item
        self.alive.append(item)

    def end_turn(self) -> None:
        """What is gone is not looked at again."""
        self.has_started = False
        self.alive = [item for item in self.alive if item.state is not State.GONE]

    def find(self, queue: str, name: str) -> Item | None:
        """A message of the queue, or of the one whose dead letters these are."""
        return self.items.get((self.family(queue), name))

    @staticmethod
    def family(queue: str) -> str:
        """The queue that a message, or dead letter, was published to."""
        return WORK if queue in LASTING else BRIEF

    def ranks(self, queue: str) -> bool:
        """Whether messages of a queue go by priority."""
        return self.has_ranks and queue in (WORK, BRIEF)

    # What holds

    def set_rules(self, queue: str, definition: Definition) -> None:
        """Another policy holds from now on."""
        rules = self.rules[queue]
        had = rules.number("message-ttl") is not None
        rules.definition = definition
        if not had and rules.number("message-ttl") is not None:
            rules.since = rules.began = self.now
            self._begun_anew = {lane for lane in self._begun_anew if lane[0] != queue}

    def deadline(self, item: Item) -> int | None:
        """When it expires where it is."""
        rules = self.rules[item.queue]
        ttl, published = rules.number("message-ttl"), item.published
        ends = [] if item.ttl is None else [(published or 0) + item.ttl]
        if ttl is not None:
            began = rules.since if self._lane(item) in self._begun_anew else rules.began
            ends.append(ttl + (rules.since if published is None else max(published, began)))
        return min(ends, default=None)

    def may_be_over(self, item: Item) -> bool:
        """Whether its time may be over, whatever is not known of when it began."""
        rules = self.rules[item.queue]
        begin = item.earliest if item.published is None else item.published
        begin = rules.before if begin is None else begin
        ttls = [ttl for ttl in (rules.number("message-ttl"), item.ttl) if ttl is not None]
        return begin + min(ttls, default=self.now) <= self.now

    def _lane(self, item: Item) -> tuple[str, int]:
        return item.queue, item.priority if self.ranks(item.queue) else 0

    def octets(self, queue: str) -> int:
        return sum(len(item.body) for item in self.of(queue, State.READY))

    def is_over(self, queue: str, more: int = 0, octets: int = 0) -> bool:
        """Whether a queue would hold more than it may with so much more in it."""
        rules = self.rules[queue]
        length, most = rules.number("max-length"), rules.number("max-length-bytes")
        if length is not None and len(self.of(queue, State.READY)) + more > length:
            return True
        return most is not None and self.octets(queue) + octets > most

    # The end of a broker

    def end_of_broker(self, *, is_exact: bool) -> None:
        """What does not last is gone, what was held is back. Without a clean stop more may be
        counted as delivered than was."""
        for item in self.alive:
            if not item.persistent or (
                item.state is not State.DELAYED and item.queue not in LASTING
            ):
                self.end(item, "lost with the broker")
            elif item.state is not State.DELAYED:
                item.state = State.READY if item.state is State.HELD else item.state
                item.is_counted_more = not is_exact
        self.end_turn()

    def taken_up(self, now: int) -> None:
        """A broker started: nobody knows since when its queues have a TTL."""
        self.now = now
        self.has_started = True
        # What came to its queue while a broker ended (`earliest`) says when it did: only the model
        # does not know it, and no TTL begins anew for that.
        undated = [i for i in self.alive if i.published is None and i.earliest is None]
        unknown = [item for item in undated if item.state is not State.DELAYED]
        self._begun_anew = {self._lane(item) for item in unknown if item.queue in LASTING}
        for queue, rules in self.rules.items():
            rules.before, rules.since = rules.since, now
            rules.began = 0 if queue in LASTING else now
        for item in self.alive:
            if item.state is State.DELAYED and item.queue == BRIEF and item.due <= now:
                self.end(item, "its queue is gone")

    def forget_letters(self) -> None:
        """What died is on its way no more."""
        self._letters.clear()
        self.refused.clear()

    # What happens

    def arrive(self, item: Item, index: int | None, published: int | None) -> None:
        """A message is in its queue."""
        item.state = State.READY
        item.place = self.turn, index
        item.published = published
        item.returns, item.is_counted_more = 0, False

    def give_back(self, item: Item, *, failed: bool) -> None:
        """A delivery comes back."""
        rules = self.rules[item.queue]
        limit = rules.number("delivery-limit")
        if limit is not None and item.returns >= limit:
            self.die(item, "delivery_limit")
            return
        item.returns += 1
        if rules.delays(failed):
            delay = rules.delay(item.returns)
            item.state = State.WAITING
            end = self.deadline(item)
            low, high = self.now + delay, self.now + delay + delay // 10
            # It does not outlive its time.
            if not item.is_timed:
                item.until = self.now, high
            elif end is not None:
                item.until = min(low, end), min(high, end)
            else:
                item.until = low, high
        else:
            self._come_back(item)

    def _come_back(self, item: Item) -> None:
        deadline = self.deadline(item)
        item.state = State.READY
        if item.is_timed and deadline is not None and deadline <= self.now:
            self.die(item, "expired")

    def die(self, item: Item, reason: str) -> None:
        """A message leaves its queue other than by an acknowledgement."""
        item.state, item.fate = State.GONE, reason
        item.is_unsure = self.has_started
        if self.rules[item.queue].definition.get("dead-letter-exchange") is not None:
            self._letters.append((item, reason))

    def send_letters(self) -> bool:
        """What died goes on to the next queue; whether anything did."""
        letters, self._letters = self._letters, []
        for item, reason in letters:
            item.deaths, item.ttl = died(item.deaths, item.queue, reason), None
            target = LETTERS[item.queue]
            if reason != "rejected" and is_cycle(target, item.deaths):
                item.fate = f"{reason}, round and round"
                continue
            overflow = self.rules[target].overflow
            may_refuse = overflow != "drop-head" and self.rules[target].is_limited
            if self.rules[target].number("message-ttl") == 0:
                # Or it was taken, and expired.
                may_refuse = may_refuse and self.is_over(target, 1, len(item.body))
            if may_refuse and not self.is_there(target, item.name):
                self.refused.append((target, len(item.body)))
                item.fate = "refused"
                if overflow == "reject-publish-dlx":
                    item.queue = target
                    self.die(item, "maxlen")
                continue
            item.queue = target
            self.arrive(item, None, self.now)
        return bool(letters)

    def end(self, item: Item, fate: str) -> None:
        """A message is gone for good."""
        item.state, item.fate = State.GONE, fate

    def pass_time(self) -> None:
        """What waited long enough goes on."""
        delayed = [
            item for item in self.alive if item.state is State.DELAYED and item.due <= self.now
        ]
        for index, item in enumerate(sorted(delayed, key=lambda each: (each.due, each.place[0]))):
            self.arrive(item, index, self.now)
        for queue in LETTERS:
            for item in self.of(queue, State.WAITING):
                if item.until[1] <= self.now:
                    item.back_in = self.turn
                    self._come_back(item)

    def is_due(self, item: Item) -> bool:
        """Whether nobody is to have it any more: its time is over, and it did not come just now
        to live no time at all."""
        deadline = self.deadline(item)
        if deadline is None or deadline > self.now:
            return False
        return deadline < self.now or item.place[0] != self.turn

    def _is_over(self, item: Item) -> bool:
        """Whether its time is over. Where it began anew after a start, some may have expired before
        that was seen."""
        deadline, ttl = self.deadline(item), self.rules[item.queue].number("message-ttl")
        if deadline is not None and deadline <= self.now:
            return True
        was_over = ttl is not None and (item.published or self.now) + ttl <= self.now
        is_anew = self._lane(item) in self._begun_anew
        return was_over and is_anew and not self.is_there(item.queue, item.name)

    def judge(self) -> bool:
        """What is left after all that could be delivered was: expires, or is too much. Whether
        something happened that others may follow from."""
        for queue in LETTERS:
            # What lives no time at all is judged last.
            is_brief = self.rules[queue].number("message-ttl") == 0
            for item in self.of(queue, State.READY):
                if self.is_due(item) and not is_brief:
                    self.die(item, "expired")
            if self.rules[queue].overflow == "drop-head":
                self._drop(queue)
            for item in self.of(queue, State.READY):
                if self._is_over(item):
                    self.die(item, "expired")
        return self.send_letters()

    def _drop(self, queue: str) -> None:
        while self.is_over(queue):
            ready = self.of(queue, State.READY)
            lowest = min(item.priority for item in ready) if self.ranks(queue) else 0
            lane = [i for i in ready if not self.ranks(queue) or i.priority == lowest]
            first = [i for i in lane if not any(j.goes_before(i, False) for j in lane)]
            # Those that came in whatever order: which of them are first, nobody knows.
            gone = [i for i in first if not self.is_there(queue, i.name)] if len(first) > 1 else []
            item = (gone or first)[0]
            self.die(item, "maxlen")
            end = self.deadline(item)
            item.is_unsure |= end is not None and end <= self.now

    def counts(self, queue: str) -> tuple[int, int, int]:
        """Messages that are ready, held, waiting."""
        states = (State.READY, State.HELD, State.WAITING)
        return tuple(len(self.of(queue, state)) for state in states)  # type: ignore[return-value]


def died(before: tuple[Death, ...], queue: str, reason: str) -> tuple[Death, ...]:
    """The deaths with one more, the newest first."""
    times = next((count for q, r, count in before if (q, r) == (queue, reason)), 0)
    rest = tuple(death for death in before if death[:2] != (queue, reason))
    return ((queue, reason, times + 1), *rest)


def is_cycle(target: str, deaths: tuple[Death, ...]) -> bool:
    """Whether a message would go round without anybody having rejected it."""
    for queue, reason, _ in deaths:
        if reason == "rejected":
            return False
        if queue == target:
            return True
    return False

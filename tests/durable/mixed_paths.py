"""What may have become of one message in one step: each place where it was seen must follow from
the one before, by what happened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tests.durable.combined_model import Death, died, is_cycle
from tests.durable.mixed_hearing import Step
from tests.durable.mixed_world import LETTERS, WORK, Copy, State, World


@dataclass(frozen=True)
class Point:
    """Where a message was, or is. Without a queue it is gone; `returns` None is not known."""

    queue: str
    state: State
    deaths: tuple[Death, ...] = ()
    returns: int | None = None
    again: bool = False
    is_settled: bool = False
    """Whether who got it, needed not acknowledge it."""


class NotSoError(Exception):
    """A message cannot have come from here to there: the invariant, and why."""


def fail(invariant: str, why: str) -> NotSoError:
    return NotSoError(invariant, why)


class Paths:
    """Judges what happened to messages in a step that is over at `now`."""

    def __init__(
        self, world: World, step: Step, now: int, duplicates: set[Copy], doubtful: set[Copy]
    ) -> None:
        self.world, self.step, self.now = world, step, now
        self.duplicates, self.doubtful = duplicates, doubtful
        self.refused = {copy for sent in step.sent if sent.answer is False for copy in sent.copies}
        # Deaths that were seen, by reason, and messages that died and went nowhere.
        self.died: Counter[str] = Counter()
        self.vanished = 0
        # Whether others may have died that nobody knows of.
        self.is_unsure = False
        # Messages that came to each queue, and those that were too much there.
        self.came: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()

    def follow(self, copy: Copy, points: Sequence[Point]) -> str:
        """What became of a message that was at these points, the first of which is from before.
        Returns its fate, empty if it is somewhere. Raises NotSoError."""
        if not self.step.is_open:
            fate, one = "", points[0]
            for number, other in enumerate(points[1:]):
                fate = self._go(copy, one, other, is_first=number == 0)
                if other.returns is None and other.deaths == one.deaths:
                    how = self.way_back(copy, is_first=number == 0)
                    back = one.state is State.HELD and how is not None
                    other = replace(other, returns=(one.returns or 0) + back)  # noqa: PLW2901
                one = other
            return fate
        last: NotSoError | None = None
        # What it was last is what is most likely.
        for number in reversed(range(len(points) - 1)):
            try:
                return self._go(copy, points[number], points[-1], is_first=True)
            except NotSoError as error:
                last = last or error
        assert last is not None
        raise last

    def _go(self, copy: Copy, one: Point, other: Point, *, is_first: bool) -> str:
        if one.state is State.HELD and other is one:
            return ""
        if one.state in (State.NEW, State.DELAYED) and other.state is not one.state:
            # Messages are not lost before they come.
            if copy in self.duplicates:
                if other.queue:
                    raise fail("duplicates", "a duplicate is taken")
                return "duplicate"
            if one.state is State.DELAYED and copy.due > self.now:
                if other.queue or not (self._never_was(copy) or self._may_be_lost(copy, one)):
                    raise fail("time", "it is not due")
                return "lost with the broker"
            fate = self._not_taken(copy, one, other)
            if fate:
                return fate
            # It came, and perhaps goes on.
            self.came[one.queue] += 1
            one = Point(one.queue, State.READY, (), 0)
        how = self.way_back(copy, is_first=is_first)
        returned = one.state is State.HELD and how in ("requeue", "return", "late")
        if returned or (one.state is State.WAITING and other.state is not State.WAITING):
            self.came[one.queue] += 1
        if not other.queue:
            return self._vanish(copy, one, is_first=is_first)
        if other.deaths == one.deaths:
            self._stay(copy, one, other, is_first=is_first)
        else:
            self._die(copy, one, other, is_first=is_first)
        return ""

    def _not_taken(self, copy: Copy, one: Point, other: Point) -> str:
        """Why it never came to its queue, if it did not."""
        if other.queue:
            if copy in self.refused and copy.family >= 0 and not self._goes_on_refused(one, other):
                by_way_of_others = sum(c.name == copy.name for c in self.refused) > 1
                if not by_way_of_others and not self.step.is_open:
                    raise fail("confirms", "it is refused, and there")
            return ""
        if not self._is_there(one.queue):
            return "unroutable"
        if copy in self.refused and self.world.queues[one.queue].rules.is_limited:
            self.is_unsure = True
            return "refused"
        may_be_another = self.step.is_open and copy.identity is not None
        if copy in self.doubtful or may_be_another:
            self.is_unsure = True
            self.came[one.queue] += 1
            return "a duplicate, perhaps"
        if self._never_was(copy):
            return "never was"
        return ""

    def _never_was(self, copy: Copy) -> bool:
        """Whether a broker may have ended before it had it."""
        is_new = any(copy in sent.copies for sent in self.step.sent)
        return self.step.is_open and is_new and not copy.is_confirmed

    def _is_there(self, queue: str) -> bool:
        """Whether a queue was there all the time, also when a broker started."""
        was_there = not self.step.ended or queue in self.step.restored
        return was_there and self.world.queues[queue].exists

    def _goes_on_refused(self, one: Point, other: Point) -> bool:
        """Whether a queue that takes no more sent it on."""
        rules = self.world.queues[one.queue].rules
        return rules.overflow == "reject-publish-dlx" and other.deaths != one.deaths

    # It is where it was

    def _stay(self, copy: Copy, one: Point, other: Point, *, is_first: bool) -> None:
        if one.queue != other.queue:
            raise fail("conservation", f"it is in {other.queue} without having died")
        if one.state is State.DELAYED:
            return
        if one.queue in self.step.dropped and other.state is not State.HELD:
            raise fail("conservation", f"{one.queue} is gone")
        how = self.way_back(copy, is_first=is_first) if one.state is State.HELD else None
        if self.step.ended:
            how = self.way_back(copy)
        if one.state is State.HELD and other.state is not State.HELD and how is None:
            raise fail("conservation", "it is held, and in its queue")
        if one.state is State.HELD and other.state is State.HELD and how is None and is_first:
            raise fail("conservation", "it is delivered while it is held")
        if how in ("ack", "reject") and not self.step.is_open:
            raise fail("conservation", f"it was settled ({how}), and is there")
        if one.state is State.WAITING and copy.until > self.now and other.state is not one.state:
            raise fail("retries", "its wait is not over")
        if not self.step.ended and other.state is State.WAITING and one.state is State.READY:
            raise fail("retries", "it waits, and did not come back")
        limit = self.world.queues[one.queue].rules.number("delivery-limit")
        is_worn = limit is not None and (one.returns or 0) >= limit and not self.step.ended
        if is_worn and how in ("requeue", "return", "late"):
            raise fail("returns", f"it came back {one.returns} times, of {limit}")
        self._check_returns(copy, one, other, more=how is not None)

    def _check_returns(self, copy: Copy, one: Point, other: Point, *, more: bool) -> None:
        was, found = one.returns or 0, other.returns
        least = was + more
        if self.step.ended and self.step.ended != "stop":
            times = sum(seen.copy is copy for seen in self.step.seen)
            fits = found is None or was <= found <= max(1, least + times)
        elif self.step.ended:
            fits = found is None or found in (was, was + (one.state is State.HELD))
        else:
            fits = found is None or found == least
            if other.state is State.HELD:
                fits = fits and other.again == (least > 0)
        if not fits:
            raise fail("returns", f"{found} (again: {other.again}), not {least}")

    def way_back(self, copy: Copy, *, is_first: bool = True) -> str | None:
        """How it may have come back to its queue in this step: if it was held before (`is_first`),
        or was handed out in the step."""
        how = self.step.settled.get(copy) if is_first else None
        if how is None and copy in self.step.late:
            how = "late"
        if how is None and self.step.ended:
            how = "end"
        return how

    # It died

    def _die(self, copy: Copy, one: Point, other: Point, *, is_first: bool) -> None:
        """It is where its deaths have taken it; each of them may have been."""
        hops = _more(one.deaths, other.deaths)
        queue = one.queue
        for _ in hops:
            queue = LETTERS[queue]
        if queue != other.queue:
            raise fail("conservation", f"it is in {other.queue}, and died as {hops}")
        if len(hops) == 1 and died(one.deaths, *hops[0]) != other.deaths:
            raise fail("deaths", f"{other.deaths} after {one.deaths}")
        if other.returns and not self.step.ended:
            raise fail("returns", "a letter came back before it came")
        for number, (place, reason) in enumerate(hops):
            if len(hops) == 1 and place != one.queue:
                raise fail("deaths", f"it died in {place}, and was in {one.queue}")
            self._may_die(copy, place, reason, one if number == 0 else None, is_first=is_first)
            if self.world.queues[place].rules.definition.get("dead-letter-exchange") is None:
                raise fail("deaths", f"{place} has no dead letters")
            self.died[reason] += 1
            self.dropped[place] += reason == "maxlen"
            self.came[LETTERS[place]] += 1

    def _may_die(
        self, copy: Copy, queue: str, reason: str, one: Point | None, *, is_first: bool
    ) -> None:
        """Raises if it cannot have died so there. `one` is where it was before, if it came in no
        other way."""
        rules = self.world.queues[queue].rules
        how = self.way_back(copy, is_first=is_first) if one is not None else None
        is_held = one is not None and one.state is State.HELD
        if self.step.is_open and reason != "rejected" and how in ("ack", "reject"):
            # The end may have come before that lasted: then it came back, and died as any other.
            how = "end"
        if is_held and how is None:
            raise fail("conservation", f"it died ({reason}) while it is held")
        if reason == "rejected":
            if how != "reject":
                raise fail("deaths", f"nobody rejected it ({how})")
        elif reason == "delivery_limit":
            limit, returns = rules.number("delivery-limit"), one.returns if one is not None else 0
            if how not in ("requeue", "return", "late", "end") or limit is None:
                raise fail("deaths", f"delivery_limit {limit} after {how}")
            if (returns or 0) < limit:
                raise fail("returns", f"it came back {returns} times, of {limit}")
        elif reason == "expired":
            self._may_expire(copy, queue, one)
        elif not rules.is_limited:
            raise fail("limits", f"{queue} has none")
        elif rules.overflow == "reject-publish":
            raise fail("limits", f"{queue} refuses, and drops nothing")
        if is_held and reason in ("expired", "maxlen") and how in ("ack", "reject"):
            raise fail("deaths", f"{reason} after {how}")

    def _may_expire(self, copy: Copy, queue: str, one: Point | None) -> None:
        came = one is None or one.state in (State.NEW, State.DELAYED)
        if not came and queue == copy.queue and copy.is_there:
            end = self.world.deadline(copy, queue, latest=False)
        else:
            ttl = self.world.queues[queue].rules.number("message-ttl")
            ends = [each for each in (ttl, copy.ttl if queue in WORK else None) if each is not None]
            end = min((self.step.began + each for each in ends), default=None)
        if end is None or end > self.now:
            raise fail("time", f"it expires at {end} in {queue}, not now")

    # It is gone

    def _vanish(self, copy: Copy, one: Point, *, is_first: bool) -> str:
        how = self.way_back(copy, is_first=is_first)
        if one.is_settled:
            return "delivered"
        if one.state is State.HELD:
            if how == "ack":
                return "acked"
            if one.queue in self.step.dropped:
                return "its queue is gone"
            if how is None:
                raise fail("conservation", "it is held no more, and nobody settled it")
        if one.queue in self.step.purged:
            return "purged"
        if one.queue in self.step.dropped:
            return "its queue is gone"
        if self._may_be_lost(copy, one):
            return "lost with the broker"
        reasons = ["rejected", "delivery_limit", "expired", "maxlen"]
        whys = []
        for reason in reasons:
            try:
                self._may_die(copy, one.queue, reason, one, is_first=is_first)
            except NotSoError as error:
                whys.append(str(error))
                continue
            if self._letter_may_vanish(one.queue, died(one.deaths, one.queue, reason), reason):
                self.vanished += 1
                self.dropped[one.queue] += reason == "maxlen"
                return reason
            whys.append(f"{reason}, but then it is a letter")
        raise fail("conservation", f"it is gone: {whys}")

    def _may_be_lost(self, copy: Copy, one: Point) -> bool:
        if not self.step.ended:
            return False
        is_lasting = one.state is State.DELAYED or self.world.queues[one.queue].durable
        return not copy.persistent or not is_lasting

    def _letter_may_vanish(
        self, queue: str, deaths: tuple[Death, ...], reason: str, depth: int = 3
    ) -> bool:
        """Whether what died there may be nowhere."""
        rules = self.world.queues[queue].rules
        target = self.world.queues[LETTERS[queue]]
        if rules.definition.get("dead-letter-exchange") is None:
            return True
        if not self._is_there(target.name) or (
            reason != "rejected" and is_cycle(target.name, deaths)
        ):
            return True
        if target.name in self.step.dropped or target.name in self.step.purged:
            return True
        if self.step.ended and not target.durable:
            return True
        if any(each.no_ack for each in target.consumers):
            # It would have been seen.
            return False
        its = target.rules
        if its.is_limited and its.overflow == "reject-publish":
            return True
        if depth == 0:
            return True
        further = []
        ttl = its.number("message-ttl")
        if ttl is not None and self.step.began + ttl <= self.now:
            further.append("expired")
        if its.is_limited:
            further.append("maxlen")
        return any(
            self._letter_may_vanish(target.name, died(deaths, target.name, each), each, depth - 1)
            for each in further
        )


def _more(before: tuple[Death, ...], after: tuple[Death, ...]) -> list[tuple[str, str]]:
    """The deaths since, the newest last."""
    was = {death[:2]: death[2] for death in before}
    found: list[tuple[str, str]] = []
    for queue, reason, count in after:
        more = count - was.pop((queue, reason), 0)
        if more < 0:
            raise fail("deaths", f"{after} after {before}")
        found += [(queue, reason)] * more
    if was:
        raise fail("deaths", f"{after} after {before}")
    return found[::-1]

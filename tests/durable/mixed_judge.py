"""What has to hold after each step, whatever features meet in it: every message is in one place,
and there for a reason; order, turns, times and counts are as promised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

from broker.protocol.consumer_timeout import MARK_MIN_MS, MARKS
from tests.durable.combined_contents import Found
from tests.durable.mixed_contents import contents_of, whole_memory_of
from tests.durable.mixed_duplicates import Duplicates
from tests.durable.mixed_hearing import Seen, Step
from tests.durable.mixed_machine import GET
from tests.durable.mixed_orders import Orders
from tests.durable.mixed_paths import NotSoError, Paths, Point
from tests.durable.mixed_world import (
    LATER,
    QUEUES,
    Copy,
    State,
)
from tests.durable.observer import ViolationError

STORY = 30
"""Lines of the story of a run that are told with what does not hold."""
LATE_MS = 500
"""How late a lease may be looked at."""


class MixedMachine(Duplicates):
    """A site and its clients, and what is known of them. Checks that are `off` are not made."""

    off: frozenset[str] = frozenset()
    ready_before: Mapping[str, int] = MappingProxyType({})

    def check(self, invariant: str, holds: object, words: object = "") -> None:
        """Raises if an invariant does not hold, unless it is off."""
        if not holds and invariant not in self.off:
            story = "\n".join(self.told[-STORY:])
            raise ViolationError(invariant, f"{words}\n{story}")

    def begin(self, *, is_open: bool = False) -> Step:
        """Another step begins."""
        self.steps += 1
        self.step = Step(self.now, is_open=is_open)
        self.before = self._counters()
        self.was = {each: (each.state, each.queue, each.place) for each in self.world.alive}
        facts = self.world.queues.values()
        queues = self.site.vhost.queues.values()
        # Whose messages are all in memory.
        self.whole = {queue.name for queue in queues if queue.paged is None}
        self.active = {each.name: each.consumers[0] for each in facts if each.consumers}
        return self.step

    def rest(self) -> None:
        """All is done that can be done now, and what came of it is judged. Ends the step."""
        self.settle_down()
        self.read()
        self.settle_down()
        self._find_late()
        self._find_queues()
        places = self._places()
        duplicates = self.judge_duplicates(places)
        paths = Paths(self.world, self.step, self.now, duplicates, self.doubtful)
        self._follow_all(paths, places)
        strangers = {name: found for name, found in places.items() if found}
        self.check("conservation", not strangers, f"nobody knows of {strangers}")
        self._check_limits(paths)
        Orders(self).check()
        self._check_times()
        self._check_counts()
        self._check_counters(paths)
        self.note_latest()
        self.world.alive = [each for each in self.world.alive if each.state is not State.GONE]
        self.begin()

    def settle_down(self) -> None:
        """The disk does what it has to, and what is due happens, until there is no more."""
        timers = self.site.broker.timers
        self.site.settle_down()
        while timers.next is not None and timers.next <= timers.now:
            timers.advance(timers.now)
            self.site.broker.run_deliveries()
            self.site.collect()
            self.site.settle_down()

    # What the broker holds

    def _find_late(self) -> None:
        """What is held no more, and was not settled, was late."""
        for number in range(1, GET + 1):
            channel = self.worker.connection.channels.get(number)
            if channel is None:
                continue
            unacked = set(channel.unacked.tags_to(channel.unacked.next_tag - 1))
            held = self.held[number]
            gone = {
                tag
                for tag, seen in held.items()
                if tag not in unacked and seen.copy.queue not in self.step.dropped
            }
            self.check("prefetch", unacked <= held.keys(), (number, unacked, list(held)))
            for tag in gone:
                seen = held.pop(tag)
                self.late[number][tag] = seen
                self.step.late.add(seen.copy)
                self.tell("late:", seen.copy)
        for copy in self.step.late:
            self._check_late(copy)

    def _check_late(self, copy: Copy) -> None:
        if copy.holder is None:
            # It came in this step.
            return
        facts = self.world.queues[copy.queue]
        if copy.holder not in facts.consumers:
            # Policies that change do not reach who consumes no more.
            return
        timeout = facts.timeout_of(copy.holder)
        started, action = copy.held_since, facts.action_of(copy.holder)
        is_late = timeout and started[0] + timeout <= self.now
        if action != "close-channel":
            self.check("timeouts", is_late, f"not late ({timeout}): {copy}")

    def _find_queues(self) -> None:
        """Queues are gone only if nobody used them for long enough."""
        for name, facts in self.world.queues.items():
            expires = facts.rules.number("expires")
            is_there = name in self.site.vhost.queues
            if facts.exists and not is_there:
                self.tell("gone:", name)
                is_over = expires is not None and facts.used[0] + expires <= self.now
                self.check("leases", is_over and not facts.consumers, (name, facts.used, expires))
                self.step.dropped.add(name)
                facts.exists = False
            elif is_there and expires is not None and not facts.consumers:
                told = name, facts.used, expires, self.now
                self.check("leases", facts.used[1] + expires > self.now, told)

    def _places(self) -> dict[tuple[int, str], list[tuple[str, Found]]]:
        """By family and name of the message, where it is."""
        found: dict[tuple[int, str], list[tuple[str, Found]]] = {}
        self.contents: dict[str, list[Found]] = {}
        for name in QUEUES:
            queue = self.site.vhost.queues.get(name)
            self.contents[name] = contents_of(queue) if queue is not None else []
            for each in self.contents[name]:
                copy = self.world.find(name, each.body)
                self.check("conservation", copy is not None, (name, each))
                assert copy is not None
                found.setdefault((copy.family, copy.name), []).append((name, each))
        delayed = self.site.vhost.exchanges[LATER].delayed
        for each in contents_of(delayed) if delayed is not None else []:
            text = each.body[:6].decode()
            family = next(c.family for c in self.world.known.values() if c.name == text)
            found.setdefault((family, text), []).append((LATER, each))
        return found

    # Each message

    def _follow_all(
        self, paths: Paths, places: dict[tuple[int, str], list[tuple[str, Found]]]
    ) -> None:
        seen: dict[Copy, list[Seen]] = {}
        for each in self.step.seen:
            seen.setdefault(each.copy, []).append(each)
        self.arrivals: list[Copy] = []
        for copy in self.world.alive:
            found = places.pop((copy.family, copy.name), [])
            self.check("conservation", len(found) <= 1, f"{copy} is in {found}")
            self._follow(paths, copy, seen.get(copy, []), found)

    def _follow(
        self, paths: Paths, copy: Copy, seen: list[Seen], found: list[tuple[str, Found]]
    ) -> None:
        if copy.state is State.HELD and copy.queue in self.step.dropped:
            copy.state, copy.fate = State.GONE, "its queue is gone"
            return
        points = [Point(copy.queue, copy.state, copy.deaths, copy.returns)]
        points += [
            Point(
                s.holder.queue,
                State.HELD,
                s.deaths,
                s.count if s.deaths == copy.deaths else None,
                again=s.again,
                is_settled=s.holder.no_ack,
            )
            for s in seen
        ]
        last = self._holding(copy, seen)
        if found:
            self.check("conservation", last is None, f"{copy} is held, and in {found}")
            queue, there = found[0]
            is_delayed = queue == LATER
            state = State.DELAYED if is_delayed else State.READY
            state = state if there.until is None or is_delayed else State.WAITING
            points.append(
                Point(copy.queue if is_delayed else queue, state, there.deaths, there.returns)
            )
        elif last is None:
            points.append(Point("", State.GONE))
        elif not seen:
            return
        try:
            fate = paths.follow(copy, points)
        except NotSoError as error:
            self.check(error.args[0], False, f"{error.args[1]}: {copy}, then {points[1:]}")
            fate = "?"
        self._take_over(copy, points[-1], fate, last, found[0][1] if found else None)

    def _holding(self, copy: Copy, seen: list[Seen]) -> Seen | None:
        """The delivery by which a message is held now."""
        holds = [each for held in self.held.values() for each in held.values() if each.copy is copy]
        self.check("conservation", len(holds) <= 1, f"{copy} is held twice: {holds}")
        return holds[0] if holds else None

    def _take_over(
        self, copy: Copy, point: Point, fate: str, last: Seen | None, found: Found | None
    ) -> None:
        """This is what became of a message."""
        was = copy.queue, copy.deaths, copy.state in (State.NEW, State.DELAYED)
        if not point.queue:
            copy.state, copy.fate, copy.holder = State.GONE, fate, None
            if fate != "acked":
                self.tell("gone:", copy)
            return
        if point.deaths != copy.deaths:
            self.tell("died:", copy, "->", point.deaths)
            copy.ttl, copy.returns = None, point.returns or 0
        elif point.returns is not None:
            copy.returns = point.returns
        elif was[2]:
            copy.returns = 0
        elif point.again and copy.state is not State.NEW:
            back = self.step.settled.get(copy) or copy in self.step.late
            copy.returns = max(1, copy.returns + bool(back)) if back else max(1, copy.returns)
        copy.queue, copy.deaths = point.queue, point.deaths
        is_new = (copy.queue, copy.deaths, False) != was and point.state is not State.DELAYED
        if is_new:
            copy.arrived = self.step.began, self.now
            if not was[2] or copy.due or copy.deaths:
                copy.place = self.steps, None
        copy.state = point.state
        copy.until = found.until if found is not None and found.until is not None else 0
        if point.state is State.HELD:
            assert last is not None
            copy.holder = last.holder
            copy.held_since = self.step.began, self.now
        else:
            copy.holder = None

    # What holds of all

    def _check_limits(self, paths: Paths) -> None:
        """A queue is never too long, and nothing is too much that is not."""
        for name, facts in self.world.queues.items():
            length = facts.rules.number("max-length")
            ready = len(self.world.of(name, State.READY))
            if length is None or not facts.exists or self.step.ended:
                continue
            drops = facts.rules.overflow == "drop-head"
            self.check("limits", not drops or ready <= length, f"{name}: {ready} of {length}")
            most = self.ready_before.get(name, 0) + paths.came[name] - length
            dropped = paths.dropped[name]
            self.check("limits", dropped <= max(0, most), f"{name}: {dropped}, not {most}")
        self.ready_before = {name: len(self.world.of(name, State.READY)) for name in QUEUES}

    def _check_times(self) -> None:
        """Nothing is there past its time, or before it."""
        for copy in self.world.alive:
            if copy.state is State.DELAYED:
                self.check("time", copy.due > self.now, f"is not released: {copy}")
            elif copy.state is State.READY:
                end = self.world.deadline(copy, copy.queue, latest=True)
                self.check("time", end is None or end > self.now, f"over at {end}: {copy}")
            elif copy.state is State.WAITING:
                self.check("retries", copy.until > self.now, f"its wait is over: {copy}")
            elif copy.state is State.HELD and copy.holder is not None:
                facts = self.world.queues[copy.queue]
                timeout = facts.timeout_of(copy.holder)
                end = copy.held_since[1] + timeout + max(timeout // MARKS, MARK_MIN_MS)
                is_late = timeout and copy.holder in facts.consumers and end < self.now
                self.check("timeouts", not is_late, f"late since {end}: {copy}")

    def _check_counts(self) -> None:
        """Counts, and octets of memory, recomputed."""
        octets = 0
        for name in QUEUES:
            queue = self.site.vhost.queues.get(name)
            if queue is None:
                continue
            ready, held, waiting = (
                len(self.world.of(name, each)) for each in (State.READY, State.HELD, State.WAITING)
            )
            counted = queue.messages_ready, queue.unacked_count, queue.messages
            wanted = ready, held, ready + held + waiting
            self.check("conservation", counted == wanted, (name, counted, wanted))
            octets += queue.unacked_bytes
        octets = whole_memory_of(self.site, octets)
        used = self.site.broker.memory_used
        self.check("memory", octets == used, (octets, used))

    def _counters(self) -> dict[str, int]:
        counters = self.site.broker.counters
        names = (
            "messages_received",
            "messages_confirmed",
            "messages_delivered",
            "messages_redelivered",
            "messages_acknowledged",
            "messages_deduplicated",
            "messages_timed_out",
            "messages_settled_late",
        )
        found = {name: getattr(counters, name) for name in names}
        deaths: Counter[str] = Counter()
        for (reason, _), count in counters.messages_dead_lettered.items():
            deaths[reason] += count
        return found | {f"died {reason}": count for reason, count in deaths.items()}

    def _check_counters(self, paths: Paths) -> None:
        """The broker's totals grew by what happened."""
        step = self.step
        if step.ended:
            return
        now = self._counters()
        grown = {name: count - self.before.get(name, 0) for name, count in now.items()}
        answers = [sent.answer for sent in step.sent]
        self.check("confirms", None not in answers, f"not answered: {step.sent}")
        wanted = {
            "messages_received": len(step.sent),
            "messages_confirmed": answers.count(True),
            "messages_delivered": len(step.seen),
            "messages_redelivered": sum(each.again for each in step.seen),
            "messages_acknowledged": step.acked,
            "messages_timed_out": len(step.late),
            "messages_settled_late": step.late_acks,
        }
        if not self.doubtful:
            wanted["messages_deduplicated"] = self.dropped
        timed_out = grown["messages_timed_out"]
        if len(step.late) - step.closed < timed_out < len(step.late):
            # Who is late has its channel closed, with what it holds and is not late.
            wanted["messages_timed_out"] = timed_out
        found = {name: grown[name] for name in wanted}
        self.check("counters", found == wanted, (found, wanted))
        dead = {name[5:]: count for name, count in grown.items() if name.startswith("died ")}
        more = Counter(dead)
        more.subtract(paths.died)
        is_fine = min(more.values(), default=0) >= 0 and (more.total() >= paths.vanished)
        is_exact = not paths.vanished and not paths.is_unsure and not step.dropped
        is_fine = is_fine and (not is_exact or more.total() == 0)
        self.check("counters", is_fine, f"died: {dead}, seen {paths.died} and {paths.vanished}")

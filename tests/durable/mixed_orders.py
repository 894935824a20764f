"""Who got what, and in which order: keys, priorities, turns and shares."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from tests.durable.mixed_hearing import Seen
from tests.durable.mixed_world import Copy, QueueFacts, State, Subscription

if TYPE_CHECKING:
    from tests.durable.mixed_judge import MixedMachine


class Orders:
    """Judges the deliveries of a step that is over. What was ready before and still is, could have
    been delivered all the time."""

    def __init__(self, machine: MixedMachine) -> None:
        self.machine, self.world, self.step = machine, machine.world, machine.step
        self.stayed: dict[str, list[Copy]] = {name: [] for name in self.world.queues}
        self.out: dict[str, list[Copy]] = {name: [] for name in self.world.queues}
        moved = {seen.copy for seen in self.step.seen} | self.step.settled.keys() | self.step.late
        for copy in self.world.alive:
            state, queue, place = machine.was.get(copy, (State.NEW, "", None))
            if copy in moved or (copy.state, copy.queue, copy.place) != (state, queue, place):
                continue
            if state is State.READY:
                self.stayed[queue].append(copy)
            elif state in (State.HELD, State.WAITING):
                self.out[queue].append(copy)

    def check(self) -> None:
        """Raises what does not hold."""
        for facts in self.world.queues.values():
            if not facts.exists:
                continue
            self._lines(facts)
            self._keys(facts)
            self._idle(facts)
            if not self.step.ended:
                seen = [s for s in self.step.seen if s.holder.queue == facts.name]
                self._passed(facts, seen)
                if not self.step.late:
                    self._turns(facts, seen)
                    self._shares(facts, seen)

    def _check(self, invariant: str, holds: object, words: object) -> None:
        self.machine.check(invariant, holds, words)

    def _lines(self, facts: QueueFacts) -> None:
        """Messages stand as they came."""
        found = self.machine.contents[facts.name]
        copies = [self.world.find(facts.name, each.body) for each in found if each.until is None]
        for one, other in combinations(filter(None, copies), 2):
            self._check("order", not facts.goes_before(other, one), f"{other} is behind {one}")

    def _keys(self, facts: QueueFacts) -> None:
        """No two messages of a group are out at once."""
        if not facts.has_groups:
            return
        out: dict[str, Copy] = {}
        for copy in self.world.of(facts.name, State.HELD, State.WAITING):
            if copy.room is not None:
                self._check("groups", copy.room not in out, f"{copy} and {out.get(copy.room)}")
                out[copy.room] = copy

    def _are_in_line(self, facts: QueueFacts, one: Copy, other: Copy) -> bool:
        """Whether two messages must go in order."""
        if facts.has_groups:
            return one.room is not None and one.room == other.room
        return facts.order != "shares" or one.tenant == other.tenant

    def _passed(self, facts: QueueFacts, seen: list[Seen]) -> None:
        """Nobody passed what was to be delivered before."""
        for each in seen:
            copy = each.copy
            if each.deaths != copy.deaths or copy.queue != facts.name:
                continue
            for other in self.stayed[facts.name]:
                if self._are_in_line(facts, copy, other):
                    passed = facts.goes_before(other, copy)
                    self._check("order", not passed, f"{copy} passed {other}")
            for other in self.out[facts.name]:
                is_busy = facts.has_groups and copy.room is not None and copy.room == other.room
                self._check("groups", not is_busy, f"{copy} while {other} is out")
        for first, second in combinations(seen, 2):
            was = [self.machine.was.get(s.copy, (None, "", None))[:2] for s in (first, second)]
            both = was == [(State.READY, facts.name)] * 2
            is_same = first.holder is second.holder and first.copy is not second.copy
            if both and is_same and self._are_in_line(facts, first.copy, second.copy):
                if {first.copy, second.copy} & (self.step.settled.keys() | self.step.late):
                    continue
                if first.deaths == first.copy.deaths and second.deaths == second.copy.deaths:
                    late = facts.goes_before(second.copy, first.copy)
                    self._check("order", not late, f"{first.copy} came before {second.copy}")

    def _holds(self, consumer: Subscription) -> int:
        held = self.machine.held[consumer.channel].values()
        return sum(seen.holder is consumer for seen in held)

    def _has_room(self, consumer: Subscription) -> bool:
        """Whether it has room for sure, whatever was late."""
        late = len(self.machine.late[consumer.channel])
        return consumer.no_ack or self._holds(consumer) + late < consumer.prefetch

    def _idle(self, facts: QueueFacts) -> None:
        """Nobody who has room is left without a message."""
        free = [each for each in facts.active if self._has_room(each)]
        for each in facts.consumers:
            fits = each.no_ack or self._holds(each) <= each.prefetch
            self._check("prefetch", fits, f"{each} holds {self._holds(each)}")
        eligible = self.machine.eligible(facts.name) if free else []
        self._check("delivery", not eligible, f"{free} have room for {eligible}")

    def _turns(self, facts: QueueFacts, seen: list[Seen]) -> None:
        """Who comes first, gets first."""
        active = self.machine.active.get(facts.name)
        for consumer in {each.holder for each in seen if each.holder.tag}:
            if facts.turns == "single":
                told = f"{consumer} got something, {active} is active"
                self._check("single active", consumer in (active, *facts.active), told)
                continue
            for other in facts.consumers:
                if other is consumer or not self._has_room(other):
                    continue
                told = f"{consumer} got something, and {other} has room"
                self._check("consumer priority", other.rank <= consumer.rank, told)
                is_fewest = facts.turns == "least-loaded" and other.rank == consumer.rank
                # What was late may count for who had it until it is settled.
                late = self.machine.late[consumer.channel] or self.machine.late[other.channel]
                is_fewest = is_fewest and not late
                has_more = self._holds(consumer) - 1 > self._holds(other)
                if is_fewest and not consumer.no_ack:
                    self._check("least loaded", not has_more, told)

    def _shares(self, facts: QueueFacts, seen: list[Seen]) -> None:
        """The value that holds least is next."""
        is_known = facts.name in self.machine.whole and not self.machine.limits
        if facts.order != "shares" or not is_known:
            # What has to be read first is passed by others.
            return
        held: dict[str | None, int] = {}
        for copy in self.world.of(facts.name, State.HELD):
            held[copy.tenant] = held.get(copy.tenant, 0) + 1
        for each in seen:
            if each.holder.no_ack or each.copy.queue != facts.name:
                continue
            mine = held.get(each.copy.tenant, 0) - 1
            for other in self.stayed[facts.name]:
                if other.tenant != each.copy.tenant:
                    is_fair = mine <= held.get(other.tenant, 0)
                    self._check("shares", is_fair, f"{each.copy} came before {other}: {held}")

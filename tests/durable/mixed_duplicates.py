"""Which publishes are duplicates, and who has taken what: as far as that is known."""

from __future__ import annotations

from collections.abc import Collection

from tests.durable.combined_contents import Found
from tests.durable.mixed_machine import MixedClients
from tests.durable.mixed_world import LATER, ONCE, QUEUES, Copy, State

Places = dict[tuple[int, str], list[tuple[str, Found]]]
"""By family and name of the message, where it is."""


class Duplicates(MixedClients):
    """Clients, and what is known of ids."""

    def judge_duplicates(self, places: Places) -> set[Copy]:
        """Which of the publishes of this step are duplicates, as far as that is known."""
        was_seen = {seen.copy for seen in self.step.seen}
        duplicates: set[Copy] = set()
        # Those of which nobody knows; and how often something was dropped.
        self.doubtful: set[Copy] = set()
        self.dropped = 0
        taken: dict[str, dict[str, Copy]] = {name: {} for name in QUEUES}
        for copy in self._released():
            if copy.queue in self.step.dropped or self.step.ended:
                self.doubtful.add(copy)
                self._doubt([copy.identity or ""], [copy])
                continue
            known = self._known(copy, taken)
            latest = self.world.queues[copy.queue].latest.get(copy.identity or "")
            is_present = self.world.queues[copy.queue].window is None
            if is_present and latest is not None and not self._stays(latest, places):
                known = None
            is_there = copy in was_seen or bool(places.get((copy.family, copy.name)))
            if known or (known is None and not is_there):
                duplicates |= {copy} if known else set()
                if known is None:
                    self.doubtful.add(copy)
                    self._doubt([copy.identity or ""], [copy])
                self.dropped += bool(known)
            elif copy.identity is not None:
                self._remember(copy, copy.identity, taken)
        for sent in self.step.sent:
            there = {
                copy
                for copy in sent.copies
                if copy in was_seen or places.get((copy.family, copy.name))
            }
            identity = sent.copies[0].identity
            if identity is None or (sent.by_way == LATER and sent.copies[0].state is State.DELAYED):
                continue
            if sent.by_way == ONCE:
                known = None if self._is_short() else self.world.once.knows(identity, self.now)
                if known:
                    duplicates |= set(sent.copies)
                    self.dropped += 1
                    continue
                if known is None and not there:
                    self.doubtful |= set(sent.copies)
                    self._doubt([identity], sent.copies)
                    continue
            taking = [c for c in sent.copies if self._takes(c, taken, there, sent.answer)]
            for copy in sent.copies:
                known = self._known(copy, taken) if copy not in taking else False
                duplicates |= {copy} if known else set()
                self.doubtful |= {copy} if known is None else set()
                self.dropped += bool(known)
            for copy in taking:
                self._remember(copy, identity, taken)
            if sent.by_way == ONCE and taking and sent.answer is not False:
                lasts = sent.copies[0].persistent and any(
                    self.world.queues[c.queue].durable for c in taking
                )
                self.world.once.take(identity, self.now, lasts=lasts)
        if self.step.is_open:
            self._doubt_all()
        return duplicates

    def _released(self) -> list[Copy]:
        """What is due and comes to a queue that knows duplicates, in order."""
        due = [
            copy
            for copy in self.world.alive
            if copy.state is State.DELAYED
            and copy.due <= self.now
            and copy.identity is not None
            and (self.world.queues[copy.queue].exists or copy.queue in self.step.dropped)
        ]
        return sorted(due, key=lambda copy: (copy.due, copy.place[0], copy.place[1] or 0))

    def _stays(self, copy: Copy, places: Places) -> bool:
        """Whether it is still in its queue."""
        found = places.get((copy.family, copy.name), [])
        seen = (each for held in self.held.values() for each in held.values())
        is_held = any(each.copy is copy and each.holder.queue == copy.queue for each in seen)
        return is_held or any(queue == copy.queue for queue, _ in found)

    def _doubt_all(self) -> None:
        ids = {c.identity for sent in self.step.sent for c in sent.copies if c.identity}
        self._doubt(ids, None)
        # What was asked for in the midst may never have been taken: then nothing had to make room.
        for window in (self.world.once, *[each.window for each in self.world.queues.values()]):
            if window is not None:
                window.doubts(window.left)

    def _doubt(self, identities: Collection[str], copies: list[Copy] | None) -> None:
        """Who has taken messages with these ids, nobody knows: of these copies, or at all."""
        self.world.once.doubts(identities)
        for name, facts in self.world.queues.items():
            if copies is None or name in {copy.queue for copy in copies}:
                if facts.window is not None:
                    facts.window.doubts(identities)
                facts.latest |= dict.fromkeys(identities)

    def _is_short(self) -> bool:
        """Whether ids had to go since they took too much memory."""
        return any(event == "deduplication_short" for event, _ in self.site.notes)

    def _known(self, copy: Copy, taken: dict[str, dict[str, Copy]]) -> bool | None:
        """Whether its queue has taken a message with this id; None if nobody knows."""
        facts = self.world.queues[copy.queue]
        identity = copy.identity or ""
        if not facts.remembers or not facts.exists:
            return False
        if self._is_short():
            return None
        if facts.window is not None:
            return facts.window.knows(identity, self.now)
        earlier = taken[copy.queue].get(identity)
        if earlier is not None:
            # Where each is judged alone, the other may be gone: from a queue that is limited, or
            # to who need not acknowledge it.
            may_be_gone = facts.rules.is_limited or self._was_handed_over(earlier)
            return None if may_be_gone else True
        latest = facts.latest.get(identity, copy)
        if latest is None:
            return None
        return latest.is_there and latest.queue == copy.queue and latest is not copy

    def _was_handed_over(self, copy: Copy) -> bool:
        """Whether it was delivered in this step to who need not acknowledge it."""
        return any(seen.copy is copy and seen.holder.no_ack for seen in self.step.seen)

    def _takes(
        self, copy: Copy, taken: dict[str, dict[str, Copy]], there: set[Copy], answer: bool | None
    ) -> bool:
        """Whether its queue takes it now."""
        if not self.world.queues[copy.queue].exists:
            return False
        known = self._known(copy, taken)
        if known or (known is None and copy not in there):
            return False
        rules = self.world.queues[copy.queue].rules
        return answer is not False or not (rules.is_limited and rules.overflow != "drop-head")

    def _remember(self, copy: Copy, identity: str, taken: dict[str, dict[str, Copy]]) -> None:
        facts = self.world.queues[copy.queue]
        taken[copy.queue][identity] = copy
        if facts.window is not None:
            lasts = copy.persistent and facts.durable
            facts.window.take(identity, self.now, lasts=lasts)

    def note_latest(self) -> None:
        """The message with each id that came last to a queue that knows what it holds."""
        for name, facts in self.world.queues.items():
            came: dict[str, list[Copy]] = {}
            for copy in self.world.alive:
                is_new = copy.place[0] == self.steps and copy.queue == name and copy.is_there
                if is_new and copy.identity is not None:
                    came.setdefault(copy.identity, []).append(copy)
            for identity, copies in came.items():
                facts.latest[identity] = copies[0] if len(copies) == 1 else None
            for identity, latest in list(facts.latest.items()):
                was_lost = latest is not None and latest.fate == "lost with the broker"
                if was_lost or (self.step.is_open and identity in facts.latest):
                    facts.latest[identity] = None
            there = {
                c.identity for c in self.world.of(name, State.READY, State.HELD, State.WAITING)
            }
            for identity in [i for i, last in facts.latest.items() if last is None]:
                if identity not in there and not self.step.is_open:
                    del facts.latest[identity]

"""The tags that timed out against a set of them."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.core.consumer import Consumer
from broker.core.queue import Queue
from broker.protocol import late as module
from broker.protocol.late import LATE_MAX, LateTags
from tests.core.fakes import Sink, make_broker
from tests.wire.profiles import steps

QUEUE = Queue(make_broker(), "/", "q")
CONSUMERS = [Consumer(Sink(), QUEUE, tag, no_ack=False) for tag in "ab"]


class LateMachine(RuleBasedStateMachine):
    """A dict (tag -> who keeps its place for it) beside the record."""

    def __init__(self) -> None:
        super().__init__()
        self.before, module.LATE_MAX = module.LATE_MAX, 8
        self.record = LateTags()
        self.model: dict[int, Consumer | None] = {}
        self.forgotten_to = 0
        # Places that are kept, and not given back yet.
        self.kept = dict.fromkeys(CONSUMERS, 0)

    def teardown(self) -> None:
        module.LATE_MAX = self.before

    def give_back(self, places: module.Places) -> None:
        for consumer, count in places.items():
            self.kept[consumer] -= count

    @rule(
        tags=st.sets(st.integers(1, 60), min_size=1, max_size=12),
        keeper=st.sampled_from([None, *CONSUMERS]),
    )
    def add(self, tags: set[int], keeper: Consumer | None) -> None:
        tags -= self.model.keys()
        if keeper is not None:
            self.kept[keeper] += len(tags)
        self.give_back(self.record.add(sorted(tags), keeper))
        self.model |= dict.fromkeys(tags, keeper)
        if len(self.model) > 8:
            forgotten = sorted(self.model)[:-4]
            for tag in forgotten:
                del self.model[tag]
            self.forgotten_to = forgotten[-1]

    @rule(tag=st.integers(0, 61))
    def take_one(self, tag: int) -> None:
        is_known = tag in self.record
        count, places = self.record.take(tag, multiple=False)
        assert count == is_known
        self.give_back(places)
        self.model.pop(tag, None)

    @rule(tag=st.integers(0, 61))
    def take_all_up_to(self, tag: int) -> None:
        taken = [known for known in self.model if known <= tag or not tag]
        count, places = self.record.take(tag, multiple=True)
        assert count == len(taken)
        self.give_back(places)
        for known in taken:
            del self.model[known]

    @precondition(lambda self: self.model)
    @rule()
    def take_the_first(self) -> None:
        self.take_one(min(self.model))

    @invariant()
    def it_knows_what_the_dict_knows(self) -> None:
        assert len(self.record) == len(self.model)
        for tag in range(62):
            assert (tag in self.record) == (tag in self.model or 0 < tag <= self.forgotten_to)

    @invariant()
    def every_place_is_kept_for_a_tag(self) -> None:
        for consumer, count in self.kept.items():
            assert count == list(self.model.values()).count(consumer)


TestLateMachine = LateMachine.TestCase
TestLateMachine.settings = steps(60, 30)


def test_record_is_bounded_and_forgiving() -> None:
    record = LateTags()
    for first in range(1, 100_001, 1000):
        record.add(list(range(first, first + 1000)))
        assert len(record) <= LATE_MAX
    assert all(tag in record for tag in (1, 50_000, 100_000))
    assert 100_001 not in record

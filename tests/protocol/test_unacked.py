"""The record of unsettled deliveries against a dict of tags."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from broker.core.consumer import Consumer
from broker.core.message import NUMBER, Entry
from broker.core.queue import Queue
from broker.protocol import unacked as module
from broker.protocol.unacked import Group, Unacked
from tests.core.fakes import Sink, make_broker, make_message
from tests.wire.profiles import steps

QUEUE = Queue(make_broker(), "/", "q")
CONSUMERS = [Consumer(Sink(), QUEUE, tag, no_ack=False) for tag in "abc"]
MESSAGE = make_message()


def entries(*numbers: int) -> list[Entry]:
    return [(number, MESSAGE, 0) for number in numbers]


def flat(groups: list[Group]) -> list[tuple[Consumer, int]]:
    """The deliveries in groups, by consumer and number."""
    return [(consumer, entry[NUMBER]) for consumer, group in groups for entry in group]


class UnackedMachine(RuleBasedStateMachine):
    """A dict (tag -> consumer) beside the record; a delivery's number is its tag."""

    # Small, so that every way of keeping house is gone.
    compact_from, holes_max = 3, 4

    @initialize()
    def begin(self) -> None:
        self.before = module._COMPACT_FROM, module._HOLES_MAX
        module._COMPACT_FROM, module._HOLES_MAX = self.compact_from, self.holes_max
        self.record = Unacked()
        self.model: dict[int, Consumer] = {}
        self.next_tag = 1

    def teardown(self) -> None:
        if hasattr(self, "before"):
            module._COMPACT_FROM, module._HOLES_MAX = self.before

    def some_tag(self, choice: int, *, known: bool) -> int:
        tags = list(self.model)
        return tags[choice % len(tags)] if tags and known else choice % (self.next_tag + 2)

    @rule(consumer=st.sampled_from(CONSUMERS), count=st.integers(1, 12))
    def deliver(self, consumer: Consumer, count: int) -> None:
        tags = range(self.next_tag, self.next_tag + count)
        self.record.add(consumer, entries(*tags))
        self.model |= dict.fromkeys(tags, consumer)
        self.next_tag += count

    @rule(count=st.integers(1, 12))
    def skip(self, count: int) -> None:
        self.record.skip(count)
        self.next_tag += count

    @rule(choice=st.integers(0, 200), known=st.booleans(), multiple=st.booleans())
    def settle(self, choice: int, *, known: bool, multiple: bool) -> None:
        tag = self.some_tag(choice, known=known)
        if multiple and tag == 0:
            settled = list(self.model)
        elif tag not in self.model:
            assert self.record.tags(tag, multiple=multiple) == []
            assert self.record.take(tag, multiple=multiple) is None
            return
        else:
            settled = [t for t in self.model if t <= tag] if multiple else [tag]
        assert self.record.tags(tag, multiple=multiple) == settled
        groups = self.record.take(tag, multiple=multiple)
        assert groups is not None
        assert flat(groups) == [(self.model.pop(t), t) for t in settled]

    @rule(tag=st.integers(0, 300))
    def settle_all_up_to(self, tag: int) -> None:
        """The tag itself may be settled, or never have been given out."""
        settled = [t for t in self.model if t <= tag]
        assert self.record.tags_to(tag) == settled
        assert flat(self.record.take_to(tag)) == [(self.model.pop(t), t) for t in settled]

    @rule(consumer=st.sampled_from(CONSUMERS), stop=st.integers(0, 300))
    def look_for_a_consumer(self, consumer: Consumer, stop: int) -> None:
        wanted = [t for t, who in self.model.items() if who is consumer and t < stop]
        assert self.record.tags_of(consumer, stop) == wanted

    @rule(share=st.integers(0, 100))
    def settle_from_the_front(self, share: int) -> None:
        """As the hot path does."""
        count = self.record.run_length() * share // 100
        first = self.record.front_tag
        groups = self.record.take_front(count)
        wanted = [(self.model.pop(tag), tag) for tag in range(first, first + count)]
        assert flat(groups) == wanted

    @rule()
    def settle_all(self) -> None:
        assert flat(self.record.take_all()) == [(c, t) for t, c in self.model.items()]
        self.model.clear()

    @invariant()
    def it_holds_what_the_dict_holds(self) -> None:
        assert len(self.record) == len(self.model)
        assert self.record.next_tag == self.next_tag
        assert self.record.tags(0, multiple=True) == list(self.model)

    @invariant()
    def a_run_is_unsettled_and_nothing_is_before_it(self) -> None:
        run = range(self.record.front_tag, self.record.front_tag + self.record.run_length())
        assert list(run) == list(self.model)[: len(run)]

    @invariant()
    def it_takes_room_for_what_it_holds(self) -> None:
        places = len(self.record._entries)
        assert places == len(self.record._consumers)
        bound = self.compact_from + self.holes_max + 3 * len(self.model) + 1
        assert places <= 2 * bound + 24


class RealUnackedMachine(UnackedMachine):
    """The same with the real bounds."""

    compact_from, holes_max = module._COMPACT_FROM, module._HOLES_MAX


TestUnackedMachine = UnackedMachine.TestCase
TestUnackedMachine.settings = steps(70, 40)
TestRealUnackedMachine = RealUnackedMachine.TestCase
TestRealUnackedMachine.settings = steps(20, 30)


def test_groups_are_runs_of_one_consumer() -> None:
    a, b, _ = CONSUMERS
    record = Unacked()
    for consumer, number in ((a, 1), (a, 2), (b, 3), (a, 4)):
        record.add(consumer, entries(number))
    groups = record.take(0, multiple=True)
    assert groups is not None
    assert [(c, [e[NUMBER] for e in group]) for c, group in groups] == [
        (a, [1, 2]),
        (b, [3]),
        (a, [4]),
    ]


def test_tag_0_is_none_unless_multiple() -> None:
    record = Unacked()
    record.add(CONSUMERS[0], entries(1))
    assert record.take(0, multiple=False) is None
    assert record.tags(0, multiple=False) == []
    assert Unacked().take(0, multiple=True) == []


@pytest.mark.parametrize("tag", [2, 3, 2**63, 2**64 - 1])
def test_tag_that_was_never_given_out_is_unknown(tag: int) -> None:
    record = Unacked()
    record.add(CONSUMERS[0], entries(1))
    for multiple in (False, True):
        assert record.take(tag, multiple=multiple) is None
        assert record.tags(tag, multiple=multiple) == []


def test_settled_messages_are_let_go_of() -> None:
    record = Unacked()
    record.add(CONSUMERS[0], entries(*range(1, 101)))
    record.take_front(99)
    kept: list[Any] = [entry for entry in record._entries if entry is not None]
    assert len(kept) == 1


def test_one_old_delivery_does_not_keep_what_came_after_it() -> None:
    record = Unacked()
    record.add(CONSUMERS[0], entries(1))
    for _ in range(200):
        record.skip(100)
    for tag in range(20_002, 40_000):
        record.add(CONSUMERS[1], entries(tag))
        assert record.take(tag, multiple=False) is not None
    assert len(record) == 1
    assert len(record._entries) < 2_000
    assert flat(record.take_all()) == [(CONSUMERS[0], 1)]

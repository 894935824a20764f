"""The crash harness's model of definitions: what it must find, and what it must let pass."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from typing import Any

import pytest

from conformance.crash.definer import Definitions, random_change
from conformance.crash.definitions import Change, Observed, State, judge_definitions
from conformance.crash.findings import Kind
from conformance.crash.routes import Binding, route

TO_Q1 = Binding("d.direct", "d.q1", key="k1")
CHANGES = (
    Change("queue.declare", "d.q1", 1),
    Change("queue.declare", "d.t1", 0),
    Change("exchange.declare", "d.direct", 1),
    Change("exchange.declare", "d.brief", 0),
    Change("queue.bind", binding=TO_Q1),
    Change("queue.bind", binding=Binding("d.direct", "d.t1", key="k2")),
    Change("queue.bind", binding=Binding("d.brief", "d.q1", key="k1")),
    Change("basic.publish", "d.q1", message=7),
)


def made(*changes: Change) -> State:
    state = State()
    for change in changes:
        state = state.after(change)
    return state


def shown(state: State) -> Observed:
    """What a faultless broker shows."""
    return Observed(dict(state.queues), dict(state.exchanges), state.messages, state.arrivals())


def wrong(state: State, observed: Observed, pending: Change | None = None) -> list[str]:
    return judge_definitions(state, pending, observed)[1]


def test_restart_leaves_what_is_durable_at_both_ends() -> None:
    left = made(*CHANGES).restarted()
    assert left == State({"d.q1": 1}, {"d.direct": 1}, frozenset({TO_Q1}), {"d.q1": (7,)})
    assert wrong(made(*CHANGES), shown(left)) == []


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"queues": {}}, "queue d.q1 is gone"),
        ({"queues": {"d.q1": 2}}, "queue d.q1 has arguments 2, not 1"),
        ({"queues": {"d.q1": None}}, "queue d.q1 has arguments None, not 1"),
        ({"queues": {"d.q1": 1, "d.t1": 0}}, "queue d.t1 is there"),
        ({"exchanges": {}}, "exchange d.direct is gone"),
        ({"exchanges": {"d.direct": 1, "d.brief": 0}}, "exchange d.brief is there"),
        ({"messages": {"d.q1": ()}}, "queue d.q1 has messages (), not (7,)"),
        ({"messages": {"d.q1": (6, 7)}}, "queue d.q1 has messages (6, 7), not (7,)"),
        (
            {"arrivals": {("d.direct", "k1", 0): []}},
            "('d.direct', 'k1', 0) arrives in [], not in ['d.q1']",
        ),
        (
            {"arrivals": {("d.direct", "k2", 0): ["d.q1"]}},
            "('d.direct', 'k2', 0) arrives in ['d.q1'], not in []",
        ),
    ],
)
def test_difference_is_found(changed: dict[str, Any], text: str) -> None:
    state = made(*CHANGES)
    observed = replace(shown(state.restarted()), **changed)
    assert wrong(state, observed) == [text]


def test_change_that_was_not_answered_may_have_happened_or_not() -> None:
    state = made(*CHANGES)
    pending = Change("queue.delete", "d.q1")
    before, after = state.restarted(), state.after(pending).restarted()
    assert judge_definitions(state, pending, shown(before)) == (before, [])
    assert judge_definitions(state, pending, shown(after)) == (after, [])
    assert wrong(state, shown(after))[0] == "queue d.q1 is gone"
    half = replace(shown(after), exchanges={})
    assert wrong(state, half, pending) == ["exchange d.direct is gone"]


def test_deleted_queue_takes_its_messages_and_bindings_along() -> None:
    again = made(*CHANGES, Change("queue.delete", "d.q1"), CHANGES[0])
    assert again.messages["d.q1"] == ()
    assert TO_Q1 not in again.bindings


def test_unbound_and_purged_stay_so() -> None:
    state = made(*CHANGES, Change("queue.unbind", binding=TO_Q1), Change("queue.purge", "d.q1"))
    assert state.restarted() == State({"d.q1": 1}, {"d.direct": 1}, frozenset(), {"d.q1": ()})


def test_routes_follow_bindings_between_exchanges_and_end_in_circles() -> None:
    kinds = {"a": "direct", "b": "topic", "c": "headers", "d": "fanout"}
    bindings = [
        Binding("a", "b", to_queue=False, key="x.y"),
        Binding("b", "a", to_queue=False, key="#"),
        Binding("b", "one", key="*.y"),
        Binding("b", "two", key="#.z"),
        Binding("b", "three", key="x.#.y"),
        Binding("c", "four", number=2),
        Binding("d", "five"),
    ]
    assert route(kinds, bindings, "a", "x.y") == ["one", "three"]
    assert route(kinds, bindings, "a", "y") == []
    assert route(kinds, bindings, "b", "x.y.z") == ["two"]
    assert route(kinds, bindings, "c", "", 2) == ["four"]
    assert route(kinds, bindings, "c", "", 1) == []
    assert route(kinds, bindings, "d", "any") == ["five"]


def test_random_changes_reach_every_method_and_fit_the_state() -> None:
    definitions = Definitions()
    chance = random.Random(3)
    methods = set()
    for _ in range(2_000):
        change = random_change(definitions, chance)
        methods.add(change.method)
        definitions.state = definitions.state.after(change)
        definitions.state.arrivals()
    assert methods == {
        "queue.declare", "queue.delete", "queue.bind", "queue.unbind", "queue.purge",
        "exchange.declare", "exchange.delete", "exchange.bind", "exchange.unbind", "basic.publish",
    }  # fmt: skip


def test_what_is_undone_is_as_old_as_the_last_answer_about_it() -> None:
    known = Definitions()
    before = time.monotonic()
    for change in (CHANGES[0], CHANGES[2], CHANGES[4]):
        known.pending = change
        known.answered()
    after = time.monotonic()
    told = known.told("queue d.q1 is gone", after + 1)
    assert told.kind is Kind.DEFINITION
    assert told.age_s is not None
    assert 1 <= told.age_s <= 1 + after - before
    assert str(CHANGES[0]) in told.text
    assert str(CHANGES[2]) not in told.text
    # The binding is about its queue too, and was the last.
    assert told.text.count("answered") == 3
    assert known.told("queue d.t1 is there", after).age_s is None

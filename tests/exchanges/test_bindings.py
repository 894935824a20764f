"""What holds for the bindings of every exchange type."""

import math
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from exchanges import EXCHANGE_TYPES, Binding, Exchange, Headers
from exchanges.base import freeze
from tests.exchanges.model import MATCHES, binding_key, counted_steps, footprint

every_type = pytest.mark.parametrize("kind", list(EXCHANGE_TYPES))

KEYS = ["", "a", "b", "a.b", "a.*", "#", "#.#", "a.#.b", "*", "a.b.a"]
ARGUMENTS: list[dict[str, object]] = [
    {},
    {"a": 1},
    {"a": 1, "b": "x"},
    {"x-match": "any", "a": 1, "b": "x"},
    {"x-match": "all-with-x", "x-a": None},
    {"a": [1, {"b": ["x"]}]},
    {"a": {"b": 1, "c": [2]}},
]
HEADERS: list[dict[str, object]] = [{}, {"a": 1}, {"b": "x"}, {"a": 1, "b": "x", "x-a": 2}]

keys = st.sampled_from(KEYS)
destinations = st.sampled_from("opqr")
arguments = st.sampled_from(ARGUMENTS)


class Bindings(RuleBasedStateMachine):
    """Compares an exchange with a list of bindings and a definition of matching."""

    kind: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.exchange: Exchange[str] = EXCHANGE_TYPES[self.kind]()
        self.model: list[tuple[str, str, Headers]] = []

    @rule(key=keys, destination=destinations, given=arguments)
    def bind(self, key: str, destination: str, given: Headers) -> None:
        binding = (binding_key(self.kind, key), destination, given)
        assert self.exchange.bind(*binding) == (binding not in self.model)
        if binding not in self.model:
            self.model.append(binding)

    @rule(key=keys, destination=destinations, given=arguments)
    def unbind(self, key: str, destination: str, given: Headers) -> None:
        binding = (binding_key(self.kind, key), destination, given)
        assert self.exchange.unbind(*binding) == (binding in self.model)
        if binding in self.model:
            self.model.remove(binding)

    @rule(destination=destinations)
    def unbind_destination(self, destination: str) -> None:
        left = [binding for binding in self.model if binding[1] != destination]
        assert self.exchange.unbind_destination(destination) == len(self.model) - len(left)
        self.model = left

    @rule(key=keys, headers=st.sampled_from(HEADERS))
    def route(self, key: str, headers: Headers) -> None:
        routed = list(self.exchange.route(key, headers))
        assert len(routed) == len(set(routed))
        matching = {
            destination
            for bound, destination, given in self.model
            if MATCHES[self.kind](bound, given, key, headers)
        }
        if self.exchange.is_selective:
            assert len(routed) == min(1, len(matching))
            assert set(routed) <= matching
            assert routed == list(self.exchange.route(key, headers))
        else:
            assert set(routed) == matching

    @invariant()
    def lists_every_binding_in_order(self) -> None:
        assert [tuple(binding) for binding in self.exchange.bindings()] == self.model
        assert len(self.exchange) == len(self.model)
        assert self.exchange.is_empty == (not self.model)

    def teardown(self) -> None:
        for binding in self.model:
            assert self.exchange.unbind(*binding)
        unused = EXCHANGE_TYPES[self.kind]()
        assert list(self.exchange.route("a", {})) == list(unused.route("a", {})) == []
        self.exchange.preparation = 0
        assert footprint(self.exchange) == footprint(unused)


class DirectBindings(Bindings):
    kind = "direct"


class FanoutBindings(Bindings):
    kind = "fanout"


class TopicBindings(Bindings):
    kind = "topic"


class HeadersBindings(Bindings):
    kind = "headers"


class ConsistentHashBindings(Bindings):
    kind = "x-consistent-hash"


class ModulusHashBindings(Bindings):
    kind = "x-modulus-hash"


class RecentHistoryBindings(Bindings):
    kind = "x-recent-history"


class LocalRandomBindings(Bindings):
    kind = "x-local-random"


TestDirectBindings = DirectBindings.TestCase
TestFanoutBindings = FanoutBindings.TestCase
TestTopicBindings = TopicBindings.TestCase
TestHeadersBindings = HeadersBindings.TestCase
TestConsistentHashBindings = ConsistentHashBindings.TestCase
TestModulusHashBindings = ModulusHashBindings.TestCase
TestRecentHistoryBindings = RecentHistoryBindings.TestCase
TestLocalRandomBindings = LocalRandomBindings.TestCase
for machine in Bindings.__subclasses__():
    machine.TestCase.settings = settings(max_examples=40, deadline=None)


@every_type
def test_binding_again_is_no_new_binding(kind: str) -> None:
    exchange = EXCHANGE_TYPES[kind]()
    key = binding_key(kind, "key")
    assert exchange.bind(key, "queue", {"a": 1})
    assert not exchange.bind(key, "queue", {"a": 1})
    assert len(exchange) == 1
    assert exchange.unbind(key, "queue", {"a": 1})
    assert exchange.is_empty


@every_type
def test_bindings_that_differ_in_arguments_only_are_two(kind: str) -> None:
    exchange = EXCHANGE_TYPES[kind]()
    key = binding_key(kind, "key")
    assert exchange.bind(key, "queue", {"a": 1})
    assert exchange.bind(key, "queue", {})
    assert exchange.unbind(key, "queue", {})
    assert list(exchange.route("key", {"a": 1})) == ["queue"]
    assert exchange.unbind(key, "queue", {"a": 1})
    assert list(exchange.route("key", {"a": 1})) == []


@every_type
def test_unbinding_what_is_not_bound_is_no_error(kind: str) -> None:
    exchange = EXCHANGE_TYPES[kind]()
    key = binding_key(kind, "key")
    exchange.bind(key, "queue", {})
    assert not exchange.unbind("other", "queue", {})
    assert not exchange.unbind(key, "other", {})
    assert not exchange.unbind(key, "queue", {"a": 1})
    assert exchange.unbind_destination("other") == 0
    assert len(exchange) == 1


@every_type
def test_bindings_keep_the_arguments_they_were_given(kind: str) -> None:
    exchange = EXCHANGE_TYPES[kind]()
    given = {"list": [1, [2]], "table": {"b": {"c": [None]}}}
    key = binding_key(kind, "key")
    exchange.bind(key, "queue", given)
    (binding,) = exchange.bindings()
    assert binding == Binding(key, "queue", given)
    assert binding.arguments is given


@every_type
def test_a_routed_collection_does_not_change_afterwards(kind: str) -> None:
    exchange = EXCHANGE_TYPES[kind]()
    key = binding_key(kind, "key")
    exchange.bind(key, "first", {})
    routed = exchange.route("key", {})
    exchange.bind(key, "second", {})
    exchange.unbind_destination("first")
    assert list(routed) == ["first"]


@every_type
def test_any_hashable_value_is_a_destination(kind: str) -> None:
    exchange = EXCHANGE_TYPES[kind]()
    key = binding_key(kind, "key")
    exchange.bind(key, 7, {})
    assert list(exchange.route("key", {})) == [7]
    exchange.unbind(key, 7, {})
    exchange.bind(key, ("queue", "/", "name"), {})
    assert list(exchange.route("key", {})) == [("queue", "/", "name")]


def busy_exchange(kind: str, bindings: int) -> Exchange[str]:
    exchange: Exchange[str] = EXCHANGE_TYPES[kind]()
    for i in range(bindings):
        exchange.bind(binding_key(kind, f"key.{i}.#.x"), f"queue{i}", {"number": i})
    return exchange


@every_type
def test_routing_leaves_nothing_behind(kind: str) -> None:
    exchange = busy_exchange(kind, 20)
    for i in range(20):
        exchange.route(f"key.{i}.#.x", {"number": i})
    before = footprint(exchange)
    for i in range(2000):
        exchange.route(f"key.{i}.unknown", {"number": -i - 1})
    assert footprint(exchange) == before


@every_type
def test_binding_and_unbinding_leave_nothing_behind(kind: str) -> None:
    exchange = busy_exchange(kind, 20)
    exchange.route("key.1.#.x", {})
    before = footprint(exchange)
    for i in range(2000):
        key = binding_key(kind, f"key.{i % 40}.*.{i}.#")
        exchange.bind(key, f"queue{i % 25}", {"cycle": i})
        exchange.unbind(key, f"queue{i % 25}", {"cycle": i})
        exchange.bind(binding_key(kind, f"*.{i}"), "temporary", {"cycle": i})
        exchange.unbind_destination("temporary")
    exchange.route("key.1.#.x", {})
    assert footprint(exchange) == before


@every_type
def test_unbinding_a_destination_costs_the_same_among_few_and_many(kind: str) -> None:
    def steps(bindings: int) -> int:
        exchange = busy_exchange(kind, bindings)
        exchange.bind(binding_key(kind, "key.1.#.x"), "leaving", {})
        exchange.bind(binding_key(kind, "key.2"), "leaving", {"number": 2})
        with counted_steps() as counted:
            assert exchange.unbind_destination("leaving") == 2
        return counted.count

    assert steps(5) == steps(5000)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"a": {"b": 1, "c": [2]}}, {"a": {"c": [2], "b": 1}}),
        ({"a": b"x"}, {"a": bytearray(b"x")}),
        ({"a": math.nan}, {"a": float("nan")}),
    ],
)
def test_equal_arguments_are_the_same(one: Headers, other: Headers) -> None:
    assert freeze(one) == freeze(other)
    assert hash(freeze(one)) == hash(freeze(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": [1, 2]}, {"a": [2, 1]}),
        ({"a": [1]}, {"a": (1,)}),
        ({"a": [[1], 2]}, {"a": [[1, 2]]}),
        ({"a": {"b": 1}}, {"a": [("b", 1)]}),
        ({"a": {}}, {"a": []}),
        ({"a": None}, {}),
        ({"a": ("int", 1)}, {"a": ("bool", True)}),
        ({"a": "x"}, {"a": b"x"}),
    ],
)
def test_unequal_arguments_are_not_the_same(one: Any, other: Any) -> None:
    assert freeze(one) != freeze(other)

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchanges import TopicExchange
from tests.exchanges.model import counted_steps, topic_matches


def exchange(*patterns: str) -> TopicExchange[str]:
    """Every pattern is bound to a destination of the same name."""
    topic: TopicExchange[str] = TopicExchange()
    for pattern in patterns:
        topic.bind(pattern, pattern, {})
    return topic


WORDS_OF_RABBITMQ = [
    # Observed on RabbitMQ 3.10.8: pattern, keys that match, keys that do not.
    ("", [""], [".", "a"]),
    ("#", ["", ".", "..", "a", "a.b", "#", "*"], []),
    ("*", ["a", "ab", "#", "*"], ["", ".", "a.b"]),
    (".", ["."], ["", "..", "a."]),
    ("*.*", [".", "a.", ".a", "a.b"], ["", "a", ".."]),
    ("a.*", ["a.", "a.b", "a.*", "a.#"], ["a", "a..", "a.b.c"]),
    ("a.#", ["a", "a.", "a..", "a.a.b"], ["", "aa", ".a", "b.a"]),
    ("#.", [".", "..", "a.", "a.b."], ["", "a", ".a"]),
    ("a.*.b", ["a..b", "a.a.b"], ["a.b", "a.a.a.b"]),
    ("a.#.b", ["a.b", "a..b", "a.a.a.b"], ["a", "b", "ab"]),
    ("#.*", ["a", ".", "a.b"], [""]),
    ("#.*.#", ["a", ".", "a.b.a"], [""]),
    ("a*", ["a*"], ["a", "ab", "a.b"]),
    ("#a", ["#a"], ["a", "b.a"]),
    ("A", ["A"], ["a"]),
]


@pytest.mark.parametrize(("pattern", "matching", "other"), WORDS_OF_RABBITMQ)
def test_words_and_wildcards_match_as_in_rabbitmq(
    pattern: str, matching: list[str], other: list[str]
) -> None:
    topic = exchange(pattern)
    assert [key for key in matching + other if topic.route(key, {})] == matching


def test_every_pattern_and_key_of_up_to_four_words_agrees_with_the_definition() -> None:
    keys = [".".join(words) for n in range(5) for words in product("ab*#", repeat=n)]
    topic = exchange(*keys)
    for key in keys:
        routed = list(topic.route(key, {}))
        assert set(routed) == {pattern for pattern in keys if topic_matches(pattern, key)}
        assert len(routed) == len(set(routed))


words = st.lists(st.sampled_from(["a", "b", "", "*", "#"]), max_size=9).map(".".join)


@given(pattern=words, key=words)
def test_a_pattern_alone_agrees_with_the_definition(pattern: str, key: str) -> None:
    assert bool(exchange(pattern).route(key, {})) == topic_matches(pattern, key)


@given(patterns=st.sets(words, max_size=12), key=words)
def test_patterns_together_route_as_each_alone(patterns: set[str], key: str) -> None:
    expected = {pattern for pattern in patterns if topic_matches(pattern, key)}
    assert set(exchange(*sorted(patterns)).route(key, {})) == expected


def test_a_queue_whose_patterns_all_match_gets_a_message_once() -> None:
    topic = TopicExchange[str]()
    for pattern in ("a.b", "a.*", "*.b", "#", "#.b", "a.#", "#.#"):
        topic.bind(pattern, "queue", {})
    assert list(topic.route("a.b", {})) == ["queue"]


def test_patterns_that_match_the_same_keys_are_bindings_of_their_own() -> None:
    topic = TopicExchange[str]()
    assert topic.bind("#", "queue", {})
    assert topic.bind("#.#", "queue", {})
    assert topic.unbind("#", "queue", {})
    assert list(topic.route("a", {})) == ["queue"]
    assert topic.unbind("#.#", "queue", {})
    assert list(topic.route("a", {})) == []


def test_queues_of_one_pattern_come_in_order_of_binding() -> None:
    topic = TopicExchange[str]()
    for destination in ("z", "a", "m"):
        topic.bind("a.*", destination, {})
    assert list(topic.route("a.b", {})) == ["z", "a", "m"]


def test_unbinding_a_pattern_leaves_longer_and_shorter_ones() -> None:
    topic = exchange("a", "a.*.#", "a.*.#.b")
    assert topic.unbind("a.*.#", "a.*.#", {})
    assert list(topic.route("a", {})) == ["a"]
    assert list(topic.route("a.c.b", {})) == ["a.*.#.b"]


def steps(topic: TopicExchange[str], key: str) -> int:
    topic.route(key, {})
    with counted_steps() as counted:
        topic.route(key, {})
    return counted.count


def test_any_words_twice_in_a_row_costs_no_more_than_once() -> None:
    key = ".".join(["a"] * 20)
    many = exchange("#.#.#.#.#.#.#.#.#.#.#.#.zz")
    assert list(many.route(key, {})) == []
    assert list(many.route(key + ".zz", {})) == ["#.#.#.#.#.#.#.#.#.#.#.#.zz"]
    assert steps(many, key) == steps(exchange("#.zz"), key) < 300


@pytest.mark.parametrize("length", [10, 20, 40, 80, 127])
@pytest.mark.parametrize("hashes", [1, 4, 16, 60])
@pytest.mark.parametrize("between", ["a", "*"])
def test_cost_is_bounded_by_words_times_nodes(length: int, hashes: int, between: str) -> None:
    topic = exchange(".".join(["#", between] * hashes) + ".#.zz")
    nodes = 2 * hashes + 3
    assert steps(topic, ".".join(["a"] * length)) <= 12 * (length + 1) * nodes


def test_dozens_of_patterns_full_of_wildcards_share_their_cost() -> None:
    patterns = [".".join(["#", "a", "*"] * n) + f".#.z{n}" for n in range(1, 40)]
    topic = exchange(*patterns)
    nodes = 3 * 39 + 2 * 39 + 1
    assert steps(topic, ".".join(["a"] * 127)) <= 12 * 128 * nodes


def test_patterns_that_do_not_begin_to_match_cost_nothing() -> None:
    few = exchange("a.b.c", "a.*.d")
    many = exchange("a.b.c", "a.*.d", *(f"other{i}.key.#" for i in range(2000)))
    assert list(many.route("a.b.c", {})) == ["a.b.c"]
    assert steps(many, "a.b.c") == steps(few, "a.b.c")

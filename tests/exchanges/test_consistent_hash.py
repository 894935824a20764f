"""The consistent hash exchange: shares by weight, and keys that stay where they are."""

from collections import Counter

import pytest

from exchanges import BindingArgumentError, ConsistentHashExchange, ExchangeArgumentError, Headers
from exchanges.base import RANDOM, ROUTING_KEY, KeyFrom, KeySource
from exchanges.consistent_hash import EXACT_WEIGHT, POINTS_MAX, POINTS_PER_WEIGHT

KEYS = [f"room-{number}" for number in range(20_000)]
HUGE = 10**30


def exchange(**weights: int) -> ConsistentHashExchange[str]:
    made: ConsistentHashExchange[str] = ConsistentHashExchange()
    for destination, weight in weights.items():
        assert made.bind(str(weight), destination, {})
    return made


def owners(made: ConsistentHashExchange[str]) -> dict[str, str]:
    """The destination of each key."""
    return {key: found for key in KEYS for found in made.route(key, {})}


def shares(made: ConsistentHashExchange[str]) -> dict[str, float]:
    """Which part of the keys each destination has."""
    counts = Counter(owners(made).values())
    return {destination: count / len(KEYS) for destination, count in counts.items()}


def test_message_goes_to_one_destination_and_to_none_if_nothing_is_bound() -> None:
    assert list(exchange().route("key", {})) == []
    assert list(exchange(a=1).route("key", {})) == ["a"]
    assert len(owners(exchange(a=1, b=2, c=3))) == len(KEYS)


def test_destinations_of_one_weight_have_equal_shares() -> None:
    found = shares(exchange(**{f"queue{number}": 1 for number in range(8)}))
    assert len(found) == 8
    assert all(share == pytest.approx(1 / 8, rel=0.25) for share in found.values())


def test_shares_are_as_the_weights() -> None:
    found = shares(exchange(a=1, b=2, c=5, d=12))
    assert found == {
        destination: pytest.approx(weight / 20, rel=0.2)
        for destination, weight in (("a", 1), ("b", 2), ("c", 5), ("d", 12))
    }


def test_larger_weights_spread_more_evenly() -> None:
    found = shares(exchange(**{f"queue{number}": 20 for number in range(8)}))
    assert all(share == pytest.approx(1 / 8, rel=0.06) for share in found.values())


def test_destination_that_comes_takes_its_share_and_moves_nothing_else() -> None:
    made = exchange(a=1, b=1, c=1, d=1)
    before = owners(made)
    made.bind("1", "new", {})
    after = owners(made)
    moved = [key for key in KEYS if before[key] != after[key]]
    assert {after[key] for key in moved} == {"new"}
    assert len(moved) / len(KEYS) == pytest.approx(1 / 5, rel=0.25)


def test_destination_that_goes_leaves_its_share_to_the_others_and_moves_nothing_else() -> None:
    made = exchange(a=1, b=1, c=1, d=1)
    before = owners(made)
    made.unbind_destination("b")
    after = owners(made)
    assert {before[key] for key in KEYS if before[key] != after[key]} == {"b"}
    assert {after[key] for key in KEYS if before[key] == "b"} == {"a", "c", "d"}
    made.bind("1", "b", {})
    assert owners(made) == before


def test_more_weight_only_takes_keys_from_others() -> None:
    made = exchange(a=1, b=1)
    before = owners(made)
    made.bind("2", "b", {})
    after = owners(made)
    assert {after[key] for key in KEYS if before[key] != after[key]} == {"b"}
    assert shares(made)["b"] == pytest.approx(3 / 4, rel=0.1)
    made.unbind("2", "b", {})
    assert owners(made) == before


def test_keys_stay_where_they_are_whatever_the_order_of_binding() -> None:
    made = exchange(a=1, b=2, c=3)
    other = exchange(c=3, x=9, a=1, b=2)
    other.unbind_destination("x")
    assert owners(other) == owners(made)


def test_keys_go_where_they_went_in_every_version() -> None:
    # A durable exchange has to find the same places after an upgrade.
    made = exchange(a=1, b=1, c=1)
    found = [*map("".join, (made.route(f"key{number}", {}) for number in range(12)))]
    assert found == list("bcbacaacaaac")


def test_labels_place_destinations_and_not_their_text() -> None:
    labels = {1: "a", 2: "b", 3: "c"}
    made: ConsistentHashExchange[int] = ConsistentHashExchange(labels.__getitem__)
    for destination in labels:
        made.bind("1", destination, {})
    named = exchange(a=1, b=1, c=1)
    for key in KEYS[:500]:
        (found,) = made.route(key, {})
        assert (labels[found],) == named.route(key, {})


def test_any_weight_is_taken_and_the_points_stay_few() -> None:
    made = exchange(a=HUGE, b=3 * HUGE, c=1)
    found = shares(made)
    assert found["b"] == pytest.approx(3 / 4, rel=0.05)
    assert made.preparation <= POINTS_MAX + 3


def test_many_destinations_have_a_point_each_at_least() -> None:
    made = exchange(huge=HUGE, **{f"queue{number}": 1 for number in range(300)})
    made.route("key", {})
    assert 300 + POINTS_MAX // 2 <= made.preparation <= POINTS_MAX + 301


def test_keys_move_beyond_one_share_only_where_points_are_halved() -> None:
    made = exchange(a=EXACT_WEIGHT // 2, b=EXACT_WEIGHT // 2)
    before = owners(made)
    assert made.preparation == EXACT_WEIGHT // 2 * 2 * POINTS_PER_WEIGHT
    made.bind("10", "c", {})
    after = owners(made)
    moved = [key for key in KEYS if before[key] != after[key]]
    assert any(after[key] != "c" for key in moved)
    assert len(moved) < len(KEYS) * 0.6


def test_ring_is_made_once_for_all_messages() -> None:
    made = exchange(a=2, b=1)
    for key in KEYS[:100]:
        made.route(key, {})
    assert made.preparation == 3 * POINTS_PER_WEIGHT


@pytest.mark.parametrize("key", ["1", "+2", "03", "7"])
def test_whole_number_from_one_on_is_a_weight(key: str) -> None:
    assert exchange().bind(key, "queue", {})


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("", "The binding key must be an integer: <<>>"),
        ("abc", 'The binding key must be an integer: <<"abc">>'),
        (" 5", 'The binding key must be an integer: <<" 5">>'),
        ("5\n", 'The binding key must be an integer: <<"5\\n">>'),
        ("1_0", 'The binding key must be an integer: <<"1_0">>'),
        ("1.5", 'The binding key must be an integer: <<"1.5">>'),
        ("٣", 'The binding key must be an integer: <<"٣">>'),
        ("0", "The binding key must be greater than 0"),
        ("-1", "The binding key must be greater than 0"),
    ],
)
def test_other_keys_are_refused_and_change_nothing(key: str, text: str) -> None:
    made = exchange(a=1)
    with pytest.raises(BindingArgumentError) as refused:
        made.bind(key, "queue", {})
    assert str(refused.value) == text
    assert list(made.route("key", {})) == ["a"]
    assert len(made) == 1


def declared(**arguments: object) -> ConsistentHashExchange[str]:
    named = {name.replace("_", "-", 1): value for name, value in arguments.items()}
    return ConsistentHashExchange.from_arguments(named, str)


def test_arguments_say_what_is_hashed() -> None:
    assert declared().key_source == ROUTING_KEY
    assert declared(hash_header="h").key_source == KeySource(KeyFrom.HEADER, "h")
    for name in ("message_id", "correlation_id", "timestamp"):
        assert declared(hash_property=name).key_source == KeySource(KeyFrom.PROPERTY, name)
    assert declared().key_source != RANDOM


def test_only_the_routing_key_makes_a_way_that_is_fixed() -> None:
    assert declared().is_fixed
    assert not declared(hash_header="h").is_fixed
    assert not declared(hash_property="message_id").is_fixed


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"hash_property": "app_id"}, "Unsupported property: app_id"),
        (
            {"hash_header": "h", "hash_property": "nonsense"},
            "hash-header and hash-property are mutually exclusive",
        ),
        (
            {"hash_header": 5},
            "Invalid hash-header field type signedint (value 5); expected longstr",
        ),
        (
            {"hash_property": ("bool", True)},
            "Invalid hash-property field type bool (value true); expected longstr",
        ),
    ],
)
def test_wrong_arguments_are_refused(arguments: Headers, text: str) -> None:
    with pytest.raises(ExchangeArgumentError) as refused:
        declared(**arguments)
    assert str(refused.value) == text

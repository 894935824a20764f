"""The modulus hash exchange, and the random ones, which choose by a key of chance."""

import random
from collections import Counter

import pytest

from exchanges import (
    BindingArgumentError,
    LocalRandomExchange,
    ModulusHashExchange,
    RandomExchange,
)
from exchanges.base import RANDOM

KEYS = [f"key-{number}" for number in range(10_000)]


def spread(made: ModulusHashExchange[str], keys: list[str]) -> dict[str, float]:
    counts = Counter(found for key in keys for found in made.route(key, {}))
    return {destination: count / len(keys) for destination, count in counts.items()}


def test_each_binding_has_an_equal_share() -> None:
    made: ModulusHashExchange[str] = ModulusHashExchange()
    for key, destination in (("x", "a"), ("y", "a"), ("", "b"), ("x", "c")):
        made.bind(key, destination, {})
    assert spread(made, KEYS) == {
        "a": pytest.approx(1 / 2, rel=0.1),
        "b": pytest.approx(1 / 4, rel=0.1),
        "c": pytest.approx(1 / 4, rel=0.1),
    }


def test_keys_stay_where_they_are_whatever_the_order_of_binding() -> None:
    bindings = [("x", "a"), ("y", "a"), ("", "b"), ("x", "c")]
    one: ModulusHashExchange[str] = ModulusHashExchange()
    other: ModulusHashExchange[str] = ModulusHashExchange()
    for key, destination in bindings:
        one.bind(key, destination, {})
    for key, destination in reversed(bindings):
        other.bind(key, destination, {})
    assert [one.route(key, {}) for key in KEYS] == [other.route(key, {}) for key in KEYS]


def test_keys_go_where_they_went_in_every_version() -> None:
    made: ModulusHashExchange[str] = ModulusHashExchange()
    for destination in "abc":
        made.bind("", destination, {})
    found = [*map("".join, (made.route(f"key{number}", {}) for number in range(12)))]
    assert found == list("babacccbabcb")


def test_way_by_modulus_is_fixed_and_a_random_one_is_not() -> None:
    assert ModulusHashExchange().is_fixed
    for kind in (RandomExchange, LocalRandomExchange):
        assert kind().key_source == RANDOM
        assert not kind().is_fixed


@pytest.mark.parametrize("kind", [RandomExchange, LocalRandomExchange])
def test_chance_spreads_evenly_over_the_bindings(kind: type[RandomExchange[str]]) -> None:
    dice = random.Random(4)
    made = kind()
    for number, destination in enumerate("aabc"):
        made.bind("", destination, {"number": number})
    chances = [dice.randbytes(8).hex() for _ in range(10_000)]
    assert spread(made, chances) == {
        "a": pytest.approx(1 / 2, rel=0.1),
        "b": pytest.approx(1 / 4, rel=0.1),
        "c": pytest.approx(1 / 4, rel=0.1),
    }


def test_local_random_exchange_is_bound_without_keys() -> None:
    made: LocalRandomExchange[str] = LocalRandomExchange()
    with pytest.raises(BindingArgumentError, match=r"^Non empty binding 'k' key not permitted$"):
        made.bind("k", "a", {})
    assert made.is_empty
    assert list(made.route("", {})) == []

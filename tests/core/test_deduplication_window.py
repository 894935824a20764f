"""The window of ids against a list that is searched, and what counts as the same id."""

from __future__ import annotations

import gc
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from broker.core.deduplication.window import ENTRY_BYTES, EXPIRES, ID_MAX, Original, Window, id_of
from broker.wire.table import INTEGER_TYPES, Field
from tests.wire.profiles import examples, steps
from tests.wire.strategies import fields

IDS = st.sampled_from([b"s%d" % number for number in range(12)])
TTLS = st.one_of(st.none(), st.integers(0, 30))


class WindowMachine(RuleBasedStateMachine):
    """A list of (id, original), the oldest first, as the window leaves it."""

    @initialize(size=st.integers(1, 8), ttl=TTLS)
    def begin(self, size: int, ttl: int | None) -> None:
        # What has left, and nobody has asked for.
        self.gone: dict[bytes, Original] = {}
        self.window = Window(size, ttl, self.gone.__setitem__)
        self.size, self.ttl = size, ttl
        self.model: list[tuple[bytes, Original]] = []
        self.now = 0
        self.position = 0

    def is_there(self, original: Original) -> bool:
        return original[EXPIRES] is None or original[EXPIRES] > self.now

    @rule(id_=IDS, own=TTLS)
    def publish(self, id_: bytes, own: int | None) -> None:
        known = [each for name, each in self.model if name == id_ and self.is_there(each)]
        assert self.window.original(id_, self.now) == (known[0] if known else None)
        if known:
            return
        self.position += 1
        ttl = self.ttl if own is None else own
        original = (None if ttl is None else self.now + ttl, self.position, -self.position)
        assert self.window.expiry(self.now, own) == original[EXPIRES]
        self.window.add(id_, self.now, original)
        self.model = [pair for pair in self.model if pair[0] != id_]
        self.model.append((id_, original))

    @rule(id_=IDS)
    def reject(self, id_: bytes) -> None:
        self.window.forget(id_)
        self.model = [pair for pair in self.model if pair[0] != id_]

    @rule(by=st.integers(0, 12))
    def wait(self, by: int) -> None:
        self.now += by

    @rule(most=st.integers(0, 3))
    def expire(self, most: int) -> None:
        before = len(self.window)
        self.window.expire(self.now, most)
        assert before - len(self.window) <= most

    @rule(size=st.integers(1, 8), ttl=TTLS)
    def change(self, size: int, ttl: int | None) -> None:
        self.window.change(size, ttl)
        self.size, self.ttl = size, ttl

    @rule()
    def write_down_and_read_again(self) -> None:
        again = Window(self.size, self.ttl, self.gone.__setitem__)
        for id_, original in self.window:
            again.restore(id_, original)
        assert list(again) == list(self.window)
        self.window = again

    @rule(id_=IDS)
    def move(self, id_: bytes) -> None:
        known = self.window.get(id_)
        if known is not None:
            moved = (known[0], known[1] + 1000, known[2])
            self.window.replace(id_, moved)
            self.model = [(name, moved if name == id_ else each) for name, each in self.model]

    @rule()
    def clear(self) -> None:
        self.window.clear()
        self.model.clear()

    @invariant()
    def it_holds_the_last_ones_that_the_list_holds(self) -> None:
        if not hasattr(self, "window"):
            return
        held = list(self.window)
        assert len(held) <= self.size
        left = len(self.model) - len(held)
        assert held == self.model[left:]
        for place, (_, original) in enumerate(self.model[:left], 1):
            # It had to make room for those after it, or has expired.
            assert len(self.model) - place >= self.size or not self.is_there(original)
        # It tells of each that leaves, with what it last knew of it.
        there = dict(self.model)
        for name, original in self.gone.items():
            assert original == there.get(name, original)
        self.gone.clear()
        self.model = held
        assert self.window.oldest == (held[0][1] if held else None)
        assert self.window.memory == sum(len(name) + ENTRY_BYTES for name, _ in held)


TestWindowMachine = WindowMachine.TestCase
TestWindowMachine.settings = steps(100, 40)


def test_duplicate_is_known_until_its_original_expires() -> None:
    window = Window(10, ttl=100)
    window.add(b"a", 1000, (1100, 7, 1))
    assert window.original(b"a", 1099) == (1100, 7, 1)
    assert window.original(b"a", 1100) is None
    assert window.get(b"a") == (1100, 7, 1)
    assert window.original(b"b", 1000) is None


def test_without_a_ttl_only_the_size_counts() -> None:
    window = Window(2)
    for name in (b"a", b"b", b"c"):
        window.add(name, 0, (window.expiry(0, None), 0, 0))
    assert [window.original(name, 10**15) is None for name in (b"a", b"b", b"c")] == [
        True,
        False,
        False,
    ]


def test_ttl_of_a_message_comes_before_that_of_the_window() -> None:
    window = Window(10, ttl=100)
    assert [window.expiry(5, own) for own in (None, 10, 1000)] == [105, 15, 1005]
    endless = Window(10)
    assert [endless.expiry(5, own) for own in (None, 10, 0)] == [None, 15, 5]


def test_rejected_publish_leaves_nothing() -> None:
    gone: list[bytes] = []
    window = Window(10, None, lambda key, original: gone.append(key))
    window.add(b"a", 0, (None, 0, 0))
    window.forget(b"a")
    window.forget(b"a")
    assert (window.original(b"a", 0), len(window), window.memory, gone) == (None, 0, 0, [b"a"])


def test_what_has_expired_goes_as_others_come() -> None:
    window = Window(10_000, ttl=10)
    for number in range(1000):
        window.add(b"%d" % number, 0, (10, 0, 0))
    for number in range(1000, 2000):
        window.add(b"%d" % number, 50, (60, 0, 0))
    assert len(window) == 1000


def test_smaller_window_lets_the_oldest_go_at_once() -> None:
    window = Window(10)
    for number in range(10):
        window.add(b"%d" % number, 0, (None, 0, 0))
    window.change(3, None)
    assert [name for name, _ in window] == [b"7", b"8", b"9"]


def test_memory_is_about_what_python_takes() -> None:
    count = 20_000
    window = Window(count)
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(count):
            window.add(b"s%019d" % number, 0, (10**12 + number, 10**6, (10**6 << 24) + number))
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert 0.7 < window.memory / taken < 1.4


# Ids


@pytest.mark.parametrize("kind", sorted(INTEGER_TYPES))
def test_number_is_the_same_id_in_every_width(kind: str) -> None:
    assert id_of(Field(kind, 7)) == id_of(Field("long", 7))


def test_number_is_no_text_and_no_truth() -> None:
    seven = [Field("long", 7), Field("longstr", "7"), Field("double", 7.0), Field("longstr", "i7")]
    assert len({id_of(field) for field in seven}) == 4
    assert id_of(Field("bool", value=True)) != id_of(Field("long", 1))


def test_text_is_the_same_id_in_octets_and_characters() -> None:
    assert id_of(Field("longstr", "hé")) == id_of(Field("binary", "hé".encode()))
    assert id_of(Field("longstr", "")) == b"s"


def test_nothing_is_no_id() -> None:
    assert id_of(None) is None
    assert id_of(Field("void", None)) is None


def test_long_ids_are_kept_as_hashes() -> None:
    long = [id_of(Field("longstr", "x" * size)) for size in (ID_MAX, ID_MAX + 1, 100_000)]
    assert len(set(long)) == 3
    assert all(name is not None and len(name) == 33 for name in long)
    assert id_of(Field("longstr", "x" * (ID_MAX - 1))) == b"s" + b"x" * (ID_MAX - 1)


@examples(100)
@given(fields)
def test_any_field_is_an_id_of_bounded_size_or_none(field: Field) -> None:
    name = id_of(field)
    assert name == id_of(field)
    assert (name is None) == (field.type == "void")
    assert name is None or len(name) <= ID_MAX

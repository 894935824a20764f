"""Records: what is written is read again, octet for octet, wherever it stands in a batch."""

from __future__ import annotations

import sys
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core import records
from broker.core.deduplication import remembered
from broker.core.message import (
    MESSAGE_OVERHEAD,
    Message,
    body_of,
    make_origin,
    size_of,
    with_time,
)
from broker.core.records import HEAD, Kind, RecordError
from broker.wire.frames import body_frames
from broker.wire.properties import header_frame
from broker.wire.table import Field, Table, encode_table
from tests.wire.profiles import examples

U64 = st.integers(0, 2**64 - 1)
U32 = st.integers(0, 2**32 - 1)
TARGETS = st.lists(st.tuples(U64, U64), min_size=1, max_size=5)
# Names are up to 255 octets, whatever these are.
NAMES = st.binary(max_size=255).map(lambda octets: octets.decode("utf-8", "surrogateescape"))
WRITTEN = """
01 4d000000
0100 0100000000000000 0200000000000000
0400 01 78 01 6b
0700001000000000 01000000 21000000 17000000
02 0007 0000000f 003c 0000 0000000000000002 1000 02 ce
03 0007 00000002 6869 ce
"""
BODIES = st.lists(st.binary(max_size=40), min_size=1, max_size=6)


def message(body: bytes, exchange: str = "", key: str = "q", frame_max: int = 4096) -> Message:
    header = header_frame(7, len(body), 0x1000, b"\x02")
    content = header + b"".join(body_frames(7, body, frame_max))
    return content, len(header), make_origin(exchange, key, persistent=True), frame_max << 16 | 7


def put(targets: list[tuple[int, int]], messages: list[Message]) -> bytes:
    return b"".join(records.put(targets, messages))


@examples(60)
@given(st.binary(max_size=9), TARGETS, NAMES, NAMES, BODIES, st.sampled_from([16, 4096, 2**32 - 1]))
def test_stored_messages_come_back_as_they_were(
    before: bytes,
    targets: list[tuple[int, int]],
    exchange: str,
    key: str,
    bodies: list[bytes],
    frame_max: int,
) -> None:
    messages = [message(body, exchange, key, frame_max) for body in bodies]
    batch = before + put(targets, messages) + b"behind"
    found = records.read_put(batch, len(before) + HEAD.size)
    assert found.targets == targets
    assert found.messages(batch) == messages
    assert [body_of(each) for each in found.messages(batch)] == bodies
    assert size_of(found.messages(batch)) == size_of(messages)
    assert MESSAGE_OVERHEAD * len(bodies) < size_of(messages)


def test_longest_names_and_most_targets_fit() -> None:
    longest = message(b"", "\udcff" * 255, "ü" * 127)
    targets = [(number, 2**64 - 1) for number in range(65535)]
    batch = put(targets, [longest])
    found = records.read_put(batch, HEAD.size)
    assert found.targets == targets
    assert found.messages(batch) == [longest]


@examples(60)
@given(U64, st.sets(st.integers(0, 60)))
def test_settled_numbers_come_back_as_ranges(queue_id: int, offsets: set[int]) -> None:
    numbers = sorted(2**33 + offset for offset in offsets)
    firsts, counts = records.ranges(numbers)
    batch = records.settled(queue_id, firsts, counts)
    found = records.read_settled(batch, HEAD.size)
    assert found[0] == queue_id
    assert [n for first, count in found[1] for n in range(first, first + count)] == numbers
    # As few ranges as can be.
    assert len(found[1]) == sum(number - 1 not in numbers for number in numbers)


@examples(30)
@given(st.dictionaries(U64, U64, max_size=5))
def test_marks_come_back(marks: dict[int, int]) -> None:
    batch = records.delivered(marks)
    assert dict(records.read_delivered(batch, HEAD.size)) == marks


@examples(30)
@given(U64, st.dictionaries(U64, U64, min_size=1, max_size=5))
def test_returns_come_back(queue_id: int, returns: dict[int, int]) -> None:
    batch = records.returned(queue_id, returns)
    found = list(records.read_returned(batch, HEAD.size))
    assert found == [(queue_id, number, times) for number, times in returns.items()]


@examples(30)
@given(st.lists(st.tuples(U64, U64, U64), min_size=1, max_size=5))
def test_counters_come_back(states: list[tuple[int, int, int]]) -> None:
    assert list(records.read_counters(records.counters(states), HEAD.size)) == states


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind >= Kind.VHOST])
def test_definition_comes_back(kind: Kind) -> None:
    table: Table = {
        "name": Field("longstr", "\udcff\0ü" * 90),
        "arguments": Field("table", {"n": Field("long", -1), "void": Field("void", None)}),
    }
    batch = b"before" + records.definition(kind, encode_table(table))
    [(found, at, end)] = records.each(batch[6:])
    assert found == kind
    assert records.read_definition(batch, at + 6, end + 6) == table


@examples(40)
@given(st.lists(st.tuples(st.sampled_from(list(Kind)), st.binary(max_size=30)), max_size=8))
def test_every_record_of_a_batch_is_found(written: list[tuple[Kind, bytes]]) -> None:
    batch = b"".join(HEAD.pack(kind, len(payload)) + payload for kind, payload in written)
    assert [(kind, batch[at:end]) for kind, at, end in records.each(batch)] == written


def test_batch_that_ends_within_a_record_is_refused() -> None:
    batch = records.delivered({1: 2}) + records.settled(3, [4], [5])
    ends = {0, len(records.delivered({1: 2})), len(batch)}
    for size in range(len(batch)):
        if size not in ends:
            with pytest.raises(RecordError):
                list(records.each(batch[:size]))


def test_format_is_as_it_was() -> None:
    """What is on disks must stay readable: these octets may never change."""
    stored = put([(1, 2)], [message(b"hi", "x", "k")])
    assert stored == bytes.fromhex(WRITTEN)
    settled = "02 24000000 0100000000000000 02000000 0200000000000000 0900000000000000"
    assert records.settled(1, [2, 9], [3, 1]) == bytes.fromhex(settled + "03000000 01000000")
    delivered = "03 14000000 01000000 0100000000000000 0200000000000000"
    assert records.delivered({1: 2}) == bytes.fromhex(delivered)
    assert records.returned(1, {2: 3})[0] == 4
    assert records.counters([(1, 2, 3)])[0] == 5
    definitions = [16, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27]
    assert records.held(1, {2: 3})[0] == 6
    ids = "07 27000000 0100000000000000 0900000000000000 01000000"
    ids += "0a00000000000000 ffffffffffffffff 02 7331"
    assert remembered.record(1, 9, [(b"s1", None, 10)]) == bytes.fromhex(ids)
    assert [kind.value for kind in Kind] == [1, 2, 3, 4, 5, 6, 7, *definitions]
    now = with_time(make_origin("x", "k", persistent=True), 7, 8)
    timed = put([(1, 2)], [(*message(b"hi", "x", "k")[:2], now, 0)])
    assert timed.endswith(
        bytes.fromhex("0700000000000000 0800000000000000") + message(b"hi", "x", "k")[0]
    )
    assert records.read_put(timed, HEAD.size).origin == now


def test_columns_are_little_endian_on_every_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = [1, 2**31, 77]
    other = {"little": "big", "big": "little"}[sys.byteorder]
    here = records.column("I", numbers)
    assert here == b"".join(number.to_bytes(4, "little") for number in numbers)
    # A machine of the other kind has its own octets swapped, and so swaps them back.
    swapped = array("I", numbers)
    swapped.byteswap()
    monkeypatch.setattr(sys, "byteorder", other)
    assert records.column("I", swapped) == here
    assert records.read_column("I", b"xx" + here + b"yy", 2, 3) == swapped

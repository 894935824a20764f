"""What exchanges that hash are given of a message, and what their rings cost."""

import pytest

from broker.core.routing import Passage
from broker.protocol.reader import WORK_MAX
from broker.wire.properties import (
    CORRELATION_ID,
    HEADERS,
    MESSAGE_ID,
    TIMESTAMP,
    header_frame,
)
from broker.wire.table import Field, encode_table
from exchanges import KeyFrom, KeySource
from exchanges.base import RANDOM, ROUTING_KEY
from exchanges.consistent_hash import POINTS_MAX
from tests.core.fakes import header_with, make_broker, make_vhost

HEADER = header_frame(
    1,
    0,
    HEADERS | CORRELATION_ID | MESSAGE_ID | TIMESTAMP,
    encode_table({"h": Field("longstr", "v")}) + b"\x03cor" + b"\x02id" + (7).to_bytes(8, "big"),
)


def passage(header: bytes = b"") -> Passage:
    return Passage(["first", "second"], header, lambda count: b"\xab" * count)


@pytest.mark.parametrize(
    ("source", "key", "missing"),
    [
        (ROUTING_KEY, "first", "first"),
        (RANDOM, "ab" * 8, "ab" * 8),
        (KeySource(KeyFrom.HEADER, "h"), "v", ""),
        (KeySource(KeyFrom.HEADER, "other"), "", ""),
        (KeySource(KeyFrom.PROPERTY, "correlation_id"), "cor", ""),
        (KeySource(KeyFrom.PROPERTY, "message_id"), "id", ""),
        (KeySource(KeyFrom.PROPERTY, "timestamp"), "7", ""),
    ],
)
def test_key_is_what_the_source_names(source: KeySource, key: str, missing: str) -> None:
    assert passage(HEADER).key_from(source) == key
    assert passage(header_frame(1, 0, 0, b"")).key_from(source) == missing
    assert passage().key_from(source) == missing


def test_name_of_a_header_may_be_any_octets() -> None:
    header = header_frame(1, 0, HEADERS, encode_table({"h\udcff": Field("longstr", "v")}))
    assert passage(header).key_from(KeySource(KeyFrom.HEADER, "h\udcff")) == "v"
    assert passage(header).values(["h\udcff"]) == {"h\udcff": b"v"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Field("short", 5), Field("long", 5)),
        (Field("longstr", "é"), Field("longstr", "é")),
        (Field("table", {"a": Field("byte", 1)}), Field("table", {"a": Field("long", 1)})),
        (Field("double", float("nan")), Field("double", float("nan"))),
    ],
)
def test_equal_header_values_are_one_key(one: Field, other: Field) -> None:
    source = KeySource(KeyFrom.HEADER, "h")
    keys = {passage(header_with({"h": field})).key_from(source) for field in (one, other)}
    assert len(keys) == 1
    assert keys != {""}


def test_ring_that_is_made_anew_counts_as_work_once_and_not_for_each_message() -> None:
    broker = make_broker()
    vhost = broker.add_vhost("/")
    exchange = vhost.declare_exchange("x", "x-consistent-hash")
    for name in ("a", "b"):
        vhost.bind(exchange, vhost.declare_queue(name), "1000000", {})
    before = broker.work
    vhost.route(exchange, ["k"])
    assert broker.work - before > POINTS_MAX // 2 > WORK_MAX
    before = broker.work
    vhost.route(exchange, ["k"])
    assert broker.work - before == 2


def test_headers_are_not_read_unless_somebody_asks() -> None:
    vhost = make_vhost()
    exchange = vhost.declare_exchange("x", "x-random")
    vhost.bind(exchange, vhost.declare_queue("q"), "", {})
    # A header frame that is none: reading it would raise.
    queues, is_fixed = vhost.route(exchange, ["k"], b"none")
    assert [queue.name for queue in queues] == ["q"]
    assert not is_fixed

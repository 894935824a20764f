"""Field tables that are deep, wide, cut or of no known type, wherever a client may send one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from broker.protocol.states import ConnectionState
from conformance.fields import Typed, encode_field, encode_longstr, encode_shortstr, encode_table
from conformance.fuzz.frames import nested_table
from conformance.fuzz.world import World, method, start_ok
from conformance.methods import encode_frame, encode_header

from .client import Client, content, greeted, opened, publish, steps, world

DEPTH_MAX = 100
CHUNK_STEPS_MAX = 400_000
"""Lines of code that the largest frame may cost: some 20 ms."""
Place = Callable[[Client, bytes], bytes]


def declare(name: str) -> Callable[[Client, bytes], bytes]:
    return lambda client, table: method(1, name, **FIELDS[name], arguments=table)


FIELDS: dict[str, dict[str, Any]] = {
    "queue.declare": {"queue": "made"},
    "exchange.declare": {"exchange": "made", "type": "fanout"},
    "queue.bind": {"queue": "q", "exchange": "amq.headers"},
    "exchange.bind": {"source": "amq.headers", "destination": "amq.fanout"},
    "queue.unbind": {"queue": "q", "exchange": "amq.headers"},
    "exchange.unbind": {"source": "amq.headers", "destination": "amq.fanout"},
    "basic.consume": {"queue": "q"},
}


def message(exchange: str, *, in_pieces: bool = False) -> Place:
    """A message with these headers: in one chunk, or its header frame by itself."""

    def octets(client: Client, table: bytes) -> bytes:
        properties = b"\x20\x00" + encode_longstr(table)
        if not in_pieces:
            return publish("q", b"x", properties, exchange=exchange)
        client.feed(method(1, "basic.publish", exchange=exchange, routing_key="q"))
        return content(b"x", properties)

    return octets


PLACES: dict[str, Place] = {
    **{name: declare(name) for name in FIELDS},
    "message": message(""),
    "message in pieces": message("", in_pieces=True),
    "message to a headers exchange": message("amq.headers"),
}
LARGEST = 131072 - 8 - 200
"""Octets of a table that fits into one frame beside everything else."""


def ready(site: World) -> Client:
    """A client with a queue that is bound to a headers exchange."""
    client = opened(site)
    client.ask(1, "queue.declare", queue="q")
    client.ask(1, "queue.bind", queue="q", exchange="amq.headers", arguments={"a": 1})
    return client


def outcome(place: str, table: bytes) -> str:
    """What a table there leads to: "taken", or the code of the close. The others go on."""
    site = world()
    other = opened(site)
    client = ready(site)
    name, code, _ = client.error(PLACES[place](client, table))
    assert not site.errors
    assert other.ask(1, "queue.declare", queue="other").name == "queue.declare-ok"
    if not client.is_open:
        assert name == "connection.close"
        assert not client.connection.channels
        return str(code)
    if name == "channel.close":
        return str(code)
    assert client.ask(1, "basic.qos").name == "basic.qos-ok"
    return "taken"


# Depth


@pytest.mark.parametrize("letter", [b"F", b"A"])
@pytest.mark.parametrize("place", PLACES)
def test_table_nested_a_hundred_deep_is_taken(place: str, letter: bytes) -> None:
    assert outcome(place, nested_table(DEPTH_MAX, letter)) == "taken"


@pytest.mark.parametrize("depth", [DEPTH_MAX + 1, 5000])
@pytest.mark.parametrize("letter", [b"F", b"A"])
@pytest.mark.parametrize("place", PLACES)
def test_table_nested_deeper_is_refused(place: str, letter: bytes, depth: int) -> None:
    assert outcome(place, nested_table(depth, letter)) in ("501", "502")


def deep_logins() -> Iterator[tuple[int, bytes]]:
    for depth in (100, 101, 1000, 5000):
        for letter in (b"F", b"A"):
            table = nested_table(depth, letter)
            yield depth, start_ok(client_properties=table)
            login = encode_shortstr("LOGIN") + encode_field("guest")
            login += encode_shortstr("PASSWORD") + encode_field("guest")
            yield depth, start_ok(mechanism="AMQPLAIN", response=login + table)


@pytest.mark.parametrize(("depth", "login"), list(deep_logins()))
def test_deep_table_in_start_ok_is_taken_or_ends_the_connection(depth: int, login: bytes) -> None:
    client = greeted(world())
    client.tell(login)
    taken = client.connection.state is ConnectionState.TUNING
    assert taken == (depth <= DEPTH_MAX and len(login) <= 8192)
    assert not client.world.errors


# Width


def wide(unit: Callable[[int], bytes], size: int) -> bytes:
    """As many units as go into a table of this size."""
    table = bytearray()
    number = 0
    while len(table) + 20 < size:
        table += unit(number)
        number += 1
    return bytes(table)


def array(item: bytes, size: int) -> bytes:
    return b"\x01aA" + encode_longstr(item * ((size - 10) // len(item)))


WIDE: dict[str, Callable[[int], bytes]] = {
    "array of void": lambda size: array(b"V", size),
    "array of bool": lambda size: array(b"t\x01", size),
    "array of empty tables": lambda size: array(b"F\x00\x00\x00\x00", size),
    "array of empty strings": lambda size: array(b"S\x00\x00\x00\x00", size),
    "array of octets": lambda size: array(b"B\x07", size),
    "fields of one name": lambda size: wide(lambda n: b"\x01aV", size),
    "fields without a name": lambda size: wide(lambda n: b"\x00V", size),
    "fields of their own name": lambda size: wide(lambda n: b"\x03%03xV" % (n % 4096), size),
    "fields with numbers": lambda size: wide(
        lambda n: b"\x04%04xl" % (n % 65536) + b"\0" * 8, size
    ),
    "tables of one field": lambda size: wide(
        lambda n: b"\x03%03xF\x00\x00\x00\x03\x01bV" % (n % 4096), size
    ),
    "one long string": lambda size: b"\x01aS" + encode_longstr(b"x" * (size - 20)),
}


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        *((place, "array of void") for place in PLACES),
        *((place, kind) for place in ("queue.declare", "message") for kind in WIDE),
    ],
)
def test_wide_table_costs_little_work(place: str, kind: str) -> None:
    client = ready(world())
    octets = PLACES[place](client, WIDE[kind](LARGEST))
    assert len(octets) > 120_000
    assert steps(lambda: client.feed(octets)) < CHUNK_STEPS_MAX
    assert not client.world.errors


@pytest.mark.parametrize("place", PLACES)
def test_table_of_a_thousand_fields_is_taken(place: str) -> None:
    table = b"".join(b"\x04k%03dS\x00\x00\x00\x01v" % n for n in range(1000))
    assert outcome(place, table) == "taken"


# Values


@pytest.mark.parametrize("place", ["queue.declare", "message"])
def test_every_type_octet_is_taken_or_refused(place: str) -> None:
    for letter in range(256):
        table = b"\x01a" + bytes([letter])
        known = letter in b"tbBsuIilLfdTDVSxFA"
        sizes = (0, 1, 2, 4, 5, 8) if known else (5,)
        outcomes = {outcome(place, table + b"\x00" * size) for size in sizes}
        assert outcomes <= {"taken", "501", "502"}
        assert ("taken" in outcomes) == known


def sample() -> bytes:
    """A table with a value of every type."""
    values: dict[str, Any] = {
        "t": True,
        **{letter: Typed(letter, 1) for letter in "bBsuIilT"},
        **{letter: Typed(letter, 1.5) for letter in "fd"},
        "D": Typed("D", (2, 314)),
        "V": None,
        "S": "text",
        "x": Typed("x", b"\xff\x00"),
        "F": {"in": {"deep": [1, None, "x"]}},
        "A": [[], {}, [True], 1 << 40],
    }
    return encode_table(values)[4:]


@pytest.mark.parametrize("place", PLACES)
def test_table_with_every_type_is_taken(place: str) -> None:
    assert outcome(place, sample()) == "taken"


@pytest.mark.parametrize("place", ["queue.declare", "message", "message in pieces"])
def test_table_that_is_cut_off_anywhere_is_refused_or_shorter(place: str) -> None:
    whole = sample()
    outcomes = [outcome(place, whole[:end]) for end in range(len(whole))]
    refused = [code for code in outcomes if code != "taken"]
    assert set(refused) <= {"501", "502"}
    # What is left is whole where a field ended, and that only.
    assert outcomes.count("taken") == 17


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "table",
    [
        b"\x01T" + b"T" + b"\xff" * 8,
        b"\x01l" + b"l" + b"\x80" + b"\x00" * 7,
        b"\x02\xff\xfet\x01",
        b"\x00V",
        b"\xff" + b"\xf0" * 255 + b"V",
        b"\x01dd\x7f\xf8\x00\x00\x00\x00\x00\x00",
        b"\x01dd\xff\xf0\x00\x00\x00\x00\x00\x00",
        b"\x01DD\xff\xff\xff\xff\xff",
        b"\x01tt\x02",
        b"\x01SS\x00\x00\x00\x02\xc3\x28",
        b"\x01aV\x01aV\x01at\x01",
    ],
)
def test_odd_values_are_taken_everywhere(place: str, table: bytes) -> None:
    assert outcome(place, table) == "taken"


@pytest.mark.parametrize("table", [b"\x01T" + b"T" + b"\xff" * 8, b"\x02\xff\xfet\x02", sample()])
def test_odd_headers_reach_the_consumer_to_the_bit(table: bytes) -> None:
    client = ready(world())
    properties = b"\x20\x40" + encode_longstr(table) + b"\xff" * 8
    [answer] = client.tell(publish("q", b"x", properties) + method(1, "basic.get", queue="q"))
    assert answer.name == "basic.get-ok"
    assert answer.method.message.property_octets == properties


@pytest.mark.parametrize(
    "value",
    [
        Typed("d", float("nan")),
        Typed("d", -0.0),
        Typed("f", float("nan")),
        [float("nan"), {"a": [float("nan")]}],
        Typed("T", (1 << 64) - 1),
        Typed("x", b"\xff"),
        Typed("D", (255, -1)),
        {"": {"": {"": []}}},
        None,
    ],
)
def test_binding_with_odd_arguments_can_be_taken_away_again(value: object) -> None:
    client = ready(world())
    exchange = client.world.vhost.exchanges["amq.headers"]
    where = {"queue": "q", "exchange": "amq.headers", "routing_key": "k"}
    for _ in range(2):
        client.ask(1, "queue.bind", **where, arguments={"v": value, "x-match": "any"})
        assert len(exchange.router) == 2
    client.tell(publish("", b"", {"headers": {"v": value}}, exchange="amq.headers"))
    client.ask(1, "queue.unbind", **where, arguments={"v": value, "x-match": "any"})
    assert len(exchange.router) == 1
    assert not client.world.errors


@pytest.mark.parametrize("x_match", [1, None, True, [], {}, "", "ALL", "any ", Typed("x", b"any")])
def test_x_match_of_another_value_is_refused(x_match: object) -> None:
    client = ready(world())
    fields = {"queue": "q", "exchange": "amq.headers", "arguments": {"x-match": x_match}}
    name, code, _ = client.error(method(1, "queue.bind", **fields))
    assert (name, code) == ("channel.close", 406)
    assert not client.world.errors


@pytest.mark.parametrize("name", ["CC", "BCC"])
@pytest.mark.parametrize(
    "value", ["q", 1, None, True, {}, {"a": ["q"]}, Typed("x", b"q"), Typed("T", 1)]
)
def test_sender_selected_keys_of_another_type_close_the_channel(name: str, value: object) -> None:
    client = ready(world())
    error = client.error(publish("q", b"x", {"headers": {name: value}}))
    assert error[:2] == ("channel.close", 406)
    assert error[2].startswith("PRECONDITION_FAILED - invalid message")
    assert client.world.vhost.queues["q"].messages_ready == 0


@pytest.mark.parametrize("name", ["CC", "BCC"])
@pytest.mark.parametrize("value", [[], [None], [1, {}, []], [Typed("x", b"q")], ["\udcff", ""]])
def test_sender_selected_keys_that_name_nothing_are_no_error(name: str, value: object) -> None:
    client = ready(world())
    assert client.error(publish("q", b"x", {"headers": {name: value}})) == ("running", 0, "")
    assert client.world.vhost.queues["q"].messages_ready == 1
    assert not client.world.errors


@pytest.mark.parametrize("size", [5, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1])
def test_table_that_says_it_is_longer_than_its_frame_is_refused(size: int) -> None:
    for payload, code in (
        (method(1, "queue.declare", queue="z")[7:-5] + size.to_bytes(4, "big"), 501),
        (encode_header(0, b"\x20\x00" + size.to_bytes(4, "big")), 502),
    ):
        client = ready(world())
        if code == 502:
            client.feed(method(1, "basic.publish", routing_key="q"))
        error = client.error(encode_frame(1 if code == 501 else 2, 1, payload))
        assert error[:2] == ("connection.close", code)
        assert not client.world.errors

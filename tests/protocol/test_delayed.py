"""Messages that are routed when they are due: exchanges that delay, and what `x-delay` and
`x-deliver-at` say."""

from __future__ import annotations

from typing import Any

import pytest

from broker.core.delay import DELAY_MAX_MS
from broker.core.delayed import Delayed, Waiting
from broker.wire.methods import shortstr
from broker.wire.properties import CONTENT_TYPE, EXPIRATION, HEADERS, header_frame, headers_table
from broker.wire.table import Field, Table, encode_table
from tests.protocol.client import (
    Basic,
    Client,
    Confirm,
    Exchange,
    Queue,
    Site,
    text,
)
from tests.protocol.test_dead_letters import fetch, header_of
from tests.protocol.test_expiry import count, left, number

NOW = 5_000_000


@pytest.fixture
def site() -> Site:
    site = Site()
    site.wait_until(NOW)
    return site


@pytest.fixture
def client(site: Site) -> Client:
    return site.connect(channels=2)


def declare(client: Client, kind: str = "direct", name: str = "x", **arguments: Any) -> None:
    """A delayed exchange."""
    table = arguments.pop("arguments", {}) | {"x-delayed-type": text(kind)}
    client.ask(
        Exchange.Declare,
        exchange=name,
        exchange_type="x-delayed-message",
        arguments=table,
        **arguments,
    )


def bind(client: Client, queue: str = "q", exchange: str = "x", key: str = "k") -> None:
    client.ask(Queue.Bind, queue=queue, exchange=exchange, routing_key=key, arguments={})


def wired(client: Client) -> None:
    """A queue bound to a delayed direct exchange."""
    declare(client)
    client.queue()
    bind(client)


def headed(**headers: Field | int) -> dict[str, Any]:
    """The properties of a message."""
    table: Table = {
        name.replace("_", "-"): value if isinstance(value, Field) else number(value)
        for name, value in headers.items()
    }
    return {"flags": HEADERS, "properties": encode_table(table)}


def delay(client: Client, body: bytes, milliseconds: Field | int, **arguments: Any) -> None:
    """Publishes one that waits."""
    arguments = {"exchange": "x", "key": "k"} | headed(x_delay=milliseconds) | arguments
    client.publish(body, **arguments)


def waiting(site: Site, exchange: str = "x") -> Delayed:
    found = site.vhost.exchanges[exchange].delayed
    assert found is not None
    return found


def listed(site: Site, **arguments: Any) -> list[Waiting]:
    pages: list[list[Waiting]] = []
    waiting(site).browse(pages.append, **arguments)
    return pages[0]


def test_a_delayed_message_is_routed_when_it_is_due(site: Site, client: Client) -> None:
    wired(client)
    delay(client, b"1", 100)
    site.wait_until(NOW + 99)
    assert count(client) == 0
    assert waiting(site).messages_ready == 1
    site.wait_until(NOW + 100)
    assert left(client) == [b"1"]
    assert waiting(site).messages_ready == 0
    assert site.broker.memory_used == 0


def test_delayed_messages_come_in_the_order_in_which_they_are_due(
    site: Site, client: Client
) -> None:
    wired(client)
    client.consume(no_ack=True)
    for milliseconds in (500, 100, 300, 200, 100, 400):
        delay(client, b"%d" % milliseconds, milliseconds)
    client.publish(b"at once", exchange="x", key="k")
    assert client.bodies() == [b"at once"]
    site.wait_until(NOW + 250)
    assert client.bodies() == [b"100", b"100", b"200"]
    site.wait_until(NOW + 600)
    assert client.bodies() == [b"300", b"400", b"500"]


@pytest.mark.parametrize(
    "field",
    [
        Field("byte", 100),
        Field("unsignedbyte", 100),
        Field("short", 100),
        Field("unsignedshort", 100),
        Field("signedint", 100),
        Field("unsignedint", 100),
        Field("long", 100),
        Field("longstr", "100"),
        Field("longstr", "+100"),
        Field("binary", b"100"),
        Field("double", 100.9),
        Field("float", 100.5),
    ],
)
def test_a_delay_is_any_number(site: Site, client: Client, field: Field) -> None:
    wired(client)
    delay(client, b"1", field)
    site.wait_until(NOW + 99)
    assert count(client) == 0
    site.wait_until(NOW + 100)
    header = header_of(fetch(client, "q"))
    value = headers_table(header)["x-delay"]
    assert value.value == -100
    is_signed = field.type in ("byte", "short", "signedint", "long")
    assert value.type == (field.type if is_signed else "long")


@pytest.mark.parametrize(
    "field",
    [
        Field("signedint", 0),
        Field("signedint", -5),
        Field("longstr", "soon"),
        Field("longstr", "-5"),
        Field("longstr", "٣"),
        Field("longstr", "9" * 5000),
        Field("double", float("nan")),
        Field("double", float("inf")),
        Field("bool", value=True),
        Field("void", None),
        Field("timestamp", 7),
        Field("decimal", (1, 100)),
        Field("table", {"x-delay": Field("long", 100)}),
        Field("array", [Field("long", 100)]),
    ],
)
def test_what_is_no_delay_is_routed_at_once_as_it_is(
    site: Site, client: Client, field: Field
) -> None:
    wired(client)
    delay(client, b"1", field)
    item = fetch(client, "q")
    assert item.header.endswith(headed(x_delay=field)["properties"])


@pytest.mark.parametrize("milliseconds", [2**32, 2**62, 2**63 - 1])
def test_any_horizon(site: Site, client: Client, milliseconds: int) -> None:
    wired(client)
    delay(client, b"1", Field("long", milliseconds))
    due = NOW + min(milliseconds, DELAY_MAX_MS)
    assert [each.due for each in listed(site)] == [due]
    site.wait_until(due - 1)
    assert count(client) == 0
    site.wait_until(due)
    item = fetch(client, "q")
    assert headers_table(header_of(item))["x-delay"] == Field("long", -milliseconds)


def test_a_text_of_many_digits_is_the_longest_delay(site: Site, client: Client) -> None:
    wired(client)
    delay(client, b"1", text("9" * 30))
    assert [each.due for each in listed(site)] == [NOW + DELAY_MAX_MS]
    assert waiting(site).send_now(1)
    header = header_of(fetch(client, "q"))
    assert headers_table(header)["x-delay"] == Field("long", 1 - 2**63)


@pytest.mark.parametrize(
    "field", [Field("long", NOW + 2000), Field("timestamp", NOW // 1000 + 2), text("5002000")]
)
def test_deliver_at_is_a_time(site: Site, client: Client, field: Field) -> None:
    wired(client)
    client.publish(b"1", exchange="x", key="k", **headed(x_deliver_at=field))
    site.wait_until(NOW + 1999)
    assert count(client) == 0
    site.wait_until(NOW + 2000)
    item = fetch(client, "q")
    assert headers_table(header_of(item)) == {"x-deliver-at": field}


def test_a_time_that_has_passed_is_now(client: Client) -> None:
    wired(client)
    client.publish(b"1", exchange="x", key="k", **headed(x_deliver_at=number(NOW)))
    assert left(client) == [b"1"]


def test_a_delay_counts_more_than_a_time(site: Site, client: Client) -> None:
    wired(client)
    for value in (number(10), text("nonsense")):
        client.publish(
            b"1", exchange="x", key="k", **headed(x_delay=value, x_deliver_at=number(NOW + 20))
        )
    site.wait_until(NOW + 10)
    assert count(client) == 1
    site.wait_until(NOW + 20)
    assert count(client) == 2


@pytest.mark.parametrize("kind", ["topic", "fanout", "headers", "x-consistent-hash", "x-random"])
def test_every_type_can_be_behind_it(site: Site, client: Client, kind: str) -> None:
    declare(client, kind)
    client.queue()
    key = {"topic": "a.#", "x-consistent-hash": "1"}.get(kind, "")
    bind(client, key=key)
    delay(client, b"1", 100, key="a.b")
    client.publish(b"2", exchange="x", key="a.c")
    assert left(client) == [b"2"]
    site.wait_until(NOW + 100)
    assert left(client) == [b"1"]


def test_a_history_keeps_what_was_released(site: Site, client: Client) -> None:
    declare(client, "x-recent-history")
    client.queue("first")
    bind(client, "first", key="")
    delay(client, b"1", 100)
    client.queue("early")
    bind(client, "early", key="")
    assert count(client, "early") == 0
    site.wait_until(NOW + 100)
    client.queue("late")
    bind(client, "late", key="")
    assert [left(client, name) for name in ("first", "early", "late")] == [[b"1"]] * 3


def test_an_expiration_counts_from_when_it_is_routed(site: Site, client: Client) -> None:
    wired(client)
    properties = headed(x_delay=1000)["properties"] + shortstr("50")
    client.publish(b"1", exchange="x", key="k", flags=HEADERS | EXPIRATION, properties=properties)
    site.wait_until(NOW + 1049)
    assert count(client) == 1
    site.wait_until(NOW + 1050)
    assert count(client) == 0
    assert site.broker.memory_used == 0


def test_a_queue_with_a_ttl_counts_from_when_it_is_routed(site: Site, client: Client) -> None:
    declare(client)
    client.queue(arguments={"x-message-ttl": number(50)})
    bind(client)
    delay(client, b"1", 1000)
    site.wait_until(NOW + 1049)
    assert count(client) == 1
    site.wait_until(NOW + 1050)
    assert count(client) == 0


def test_copies_go_out_when_it_is_due_and_nobody_sees_the_blind_ones(
    site: Site, client: Client
) -> None:
    wired(client)
    for name in ("cc", "bcc"):
        client.queue(name)
        bind(client, name, key=name)
    copies = {name: Field("array", [text(name.lower())]) for name in ("CC", "BCC")}
    client.publish(b"1", exchange="x", key="k", **headed(x_delay=number(10), **copies))
    assert [each.routing_keys for each in listed(site)] == [["k", "cc", "bcc"]]
    site.wait_until(NOW + 10)
    for name in ("q", "cc", "bcc"):
        item = fetch(client, name)
        assert headers_table(header_of(item)) == {"x-delay": number(-10), "CC": copies["CC"]}


def test_other_properties_and_the_body_stay_as_they_were(site: Site, client: Client) -> None:
    wired(client)
    odd = {"nan": Field("double", float("nan")), "n": Field("void", None)}
    table: Table = {**odd, "x-delay": number(10)}
    octets = shortstr("a/b") + encode_table(table)
    body = bytes(range(256)) * 1000
    client.publish(body, exchange="x", key="k", flags=CONTENT_TYPE | HEADERS, properties=octets)
    site.wait_until(NOW + 10)
    item = fetch(client, "q")
    assert item.body == body
    expected = shortstr("a/b") + encode_table({**odd, "x-delay": number(-10)})
    assert item.header == header_frame(1, len(body), CONTENT_TYPE | HEADERS, expected)[7:-1]
    assert (item.method.exchange, item.method.routing_key) == ("x", "k")
    assert not item.method.redelivered


def test_what_reaches_no_queue_is_dropped(site: Site, client: Client) -> None:
    declare(client)
    delay(client, b"1", 10)
    site.wait_until(NOW + 10)
    assert site.broker.memory_used == 0
    assert site.broker.counters.messages_unroutable_dropped == 1
    assert site.broker.counters.messages_routed == 0


def test_bindings_count_when_it_is_due(site: Site, client: Client) -> None:
    declare(client)
    delay(client, b"1", 10)
    client.queue()
    bind(client)
    site.wait_until(NOW + 10)
    assert left(client) == [b"1"]
    assert site.broker.counters.messages_routed == 1


def test_what_is_unrouted_when_it_is_due_goes_to_the_alternate_exchange(
    site: Site, client: Client
) -> None:
    declare(client, arguments={"alternate-exchange": text("amq.fanout")})
    client.queue()
    bind(client, exchange="amq.fanout")
    delay(client, b"1", 10)
    assert count(client) == 0
    site.wait_until(NOW + 10)
    assert left(client) == [b"1"]


def test_a_mandatory_message_is_returned_at_once_and_routed_later(
    site: Site, client: Client
) -> None:
    """As RabbitMQ's plugin has it."""
    wired(client)
    delay(client, b"1", 10, mandatory=True)
    (item,) = client.read()
    assert (item.kind, item.method.reply_code) == (Basic.Return, 312)
    site.wait_until(NOW + 10)
    assert left(client) == [b"1"]


def test_publishers_are_confirmed_before_it_is_due(client: Client) -> None:
    wired(client)
    client.ask(Confirm.Select)
    delay(client, b"1", 10)
    delay(client, b"2", 0)
    acks = [item.method.delivery_tag for item in client.read() if item.kind is Basic.Ack]
    assert max(acks) == 2


def test_a_delay_is_found_among_others_of_its_name(site: Site, client: Client) -> None:
    wired(client)
    inner: Table = {"x-delay": Field("long", 7)}
    table: Table = {
        "before": Field("table", inner),
        "x-delay": Field("long", 10),
        "text": text("\x07x-delayl"),
    }
    client.publish(b"1", exchange="x", key="k", flags=HEADERS, properties=encode_table(table))
    site.wait_until(NOW + 10)
    headers = headers_table(header_of(fetch(client, "q")))
    assert headers == {**table, "x-delay": Field("long", -10)}


def test_runs_of_one_kind_are_told_apart_when_they_are_due(site: Site, client: Client) -> None:
    """By key, by exchange, by what they were published with."""
    wired(client)
    client.queue("r")
    bind(client, "r", key="other")
    client.consume(no_ack=True)
    bodies = [b"%d" % place for place in range(12)]
    for place, body in enumerate(bodies):
        octets = headed(x_delay=10)["properties"]
        flags = HEADERS
        if place % 3 == 2:
            flags, octets = flags | EXPIRATION, octets + shortstr("5")
        channel = 1 + place // 6
        key = "other" if place in (4, 10) else "k"
        client.publish(body, exchange="x", key=key, channel=channel, flags=flags, properties=octets)
    site.wait_until(NOW + 10)
    got = client.read()
    assert [item.body for item in got] == [each for each in bodies if each not in (b"4", b"10")]
    assert {item.method.routing_key for item in got} == {"k"}
    assert left(client, "r") == [b"4", b"10"]
    assert site.broker.memory_used == 0

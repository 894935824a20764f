"""Publishing: where a message goes, what comes back, and what is confirmed."""

from typing import Any

import pytest

from broker.core.arguments import EXPIRY_MAX_MS
from broker.core.users import Permission
from broker.protocol.route import ROUTES_MAX
from broker.protocol.states import ConnectionState
from broker.wire.frames import BODY, frame
from broker.wire.methods import Method, commands, shortstr
from broker.wire.properties import EXPIRATION, HEADERS, USER_ID, header_frame
from broker.wire.table import Field, Table, encode_table
from tests.protocol.client import (
    Basic,
    Channel,
    Client,
    Confirm,
    Exchange,
    Queue,
    Site,
    is_close,
    octets_of,
    publish_octets,
    text,
)


def keys(*names: str) -> Field:
    return Field("array", [text(name) for name in names])


def with_headers(table: Table) -> dict[str, Any]:
    return {"flags": HEADERS, "properties": encode_table(table)}


def waiting(site: Site, name: str = "q") -> int:
    return site.vhost.queues[name].messages_ready


def refused(
    client: Client, code: int, explanation: str, failed: type[Method] = Basic.Publish
) -> bool:
    (item,) = client.read()
    assert item.kind is (Channel.Close if code < 500 else commands.Connection.Close)
    return is_close(item.method, code, explanation, failed)


def test_message_reaches_the_queue_its_key_names(client: Client) -> None:
    client.queue()
    client.publish(b"hello", key="q")
    got = client.ask(Basic.Get, queue="q")
    assert (got.exchange, got.routing_key, got.redelivered, got.message_count) == (
        "",
        "q",
        False,
        0,
    )


@pytest.mark.parametrize("size", [0, 1, 4087, 4088, 4089, 100_000])
def test_body_of_any_size_arrives(site: Site, size: int) -> None:
    client, small = site.connect(), site.connect(frame_max=4096)
    client.queue()
    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]
    small.consume(no_ack=True)
    client.publish(body)
    small.publish(body)
    client.feed(
        octets_of(Basic.Publish, routing_key="q")
        + header_frame(1, size, 0, b"")
        + b"".join(frame(BODY, 1, body[at : at + 999]) for at in range(0, size, 999))
    )
    assert small.bodies() == [body] * 3


def test_unroutable_message_is_dropped_or_returned(client: Client) -> None:
    client.publish(b"dropped", key="nope")
    assert client.read() == []
    client.publish(b"back", key="nope", mandatory=True, **with_headers({"a": text("b")}))
    (item,) = client.read()
    method = item.method
    assert (item.kind, item.body) == (Basic.Return, b"back")
    assert (method.reply_code, method.reply_text) == (312, "NO_ROUTE")
    assert (method.exchange, method.routing_key) == ("", "nope")
    assert item.header[12:] == b"\x20\x00" + encode_table({"a": text("b")})
    counters = client.site.broker.counters
    assert counters.messages_unroutable_dropped == counters.messages_unroutable_returned == 1


def test_immediate_is_not_implemented(client: Client) -> None:
    client.tell(Basic.Publish, routing_key="q", immediate=True)
    assert refused(client, 540, "immediate=true")


@pytest.mark.parametrize(
    ("exchange", "code", "wanted"),
    [
        ("nope", 404, "no exchange 'nope' in vhost '/'"),
        ("x", 403, "cannot publish to internal exchange 'x' in vhost '/'"),
    ],
)
def test_exchange_that_takes_nothing_closes_the_channel(
    client: Client, exchange: str, code: int, wanted: str
) -> None:
    client.ask(Exchange.Declare, exchange="x", exchange_type="direct", internal=True)
    client.tell(Basic.Publish, exchange=exchange)
    # Nothing is judged before the content is there.
    assert client.read() == []
    client.feed(header_frame(1, 0, 0, b""))
    assert refused(client, code, wanted)


def test_route_is_looked_up_again_when_something_changed(client: Client) -> None:
    for name in ("a", "b"):
        client.queue(name)
    fanout: dict[str, Any] = {"exchange": "amq.fanout", "routing_key": ""}
    site = client.site

    def publish(*returned: bytes) -> None:
        # The same octets each time: what they lead to is remembered.
        client.publish(b"x", exchange="amq.fanout", key="", mandatory=True)
        assert client.bodies() == list(returned)

    publish(b"x")
    client.ask(Queue.Bind, queue="a", **fanout)
    publish()
    client.ask(Queue.Bind, queue="b", **fanout)
    publish()
    client.ask(Queue.Unbind, queue="a", **fanout)
    publish()
    assert (waiting(site, "a"), waiting(site, "b")) == (2, 2)
    client.ask(Queue.Delete, queue="b")
    publish(b"x")
    client.queue("b")
    publish(b"x")
    client.ask(Exchange.Declare, exchange="x", exchange_type="fanout", auto_delete=True)
    client.ask(Exchange.Bind, source="amq.fanout", destination="x")
    client.ask(Queue.Bind, queue="b", exchange="x")
    publish()
    client.ask(Queue.Unbind, queue="b", exchange="x")
    assert "x" not in site.vhost.exchanges
    publish(b"x")


def test_deleted_exchange_is_missed_at_once(client: Client) -> None:
    client.ask(Exchange.Declare, exchange="x", exchange_type="fanout")
    client.publish(exchange="x")
    client.ask(Exchange.Delete, exchange="x")
    client.publish(exchange="x")
    assert refused(client, 404, "no exchange 'x' in vhost '/'")


def test_many_addresses_are_all_right(client: Client) -> None:
    for number in range(ROUTES_MAX + 10):
        client.publish(b"", key=f"nope{number}")
    assert len(client.connection.routes) <= ROUTES_MAX
    assert client.read() == []


def test_address_may_be_any_octets(client: Client) -> None:
    client.queue()
    client.ask(Queue.Bind, queue="q", exchange="amq.topic", routing_key="#")
    payload = Basic.Publish.index.to_bytes(4, "big") + b"\0\0\x09amq.topic\x03\xff\xfe.\0"
    client.feed(frame(1, 1, payload) + header_frame(1, 0, 0, b""))
    client.connection.receive_data(octets_of(Basic.Get, queue="q"), 0.0)
    assert b"\x09amq.topic\x03\xff\xfe." in client.connection.data_to_send()


# Properties that say something to the broker


@pytest.mark.parametrize("value", ["1", "+5", "007", str(EXPIRY_MAX_MS)])
def test_expiration_may_be_a_number(client: Client, value: str) -> None:
    client.queue()
    client.publish(flags=EXPIRATION, properties=shortstr(value))
    assert client.read() == []
    assert waiting(client.site) == 1


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("", "no_integer"),
        ("soon", "no_integer"),
        (" 1", "no_integer"),
        ("٣", "no_integer"),
        ("12s", '{leftover_string,"s"}'),
        ("1.5", '{leftover_string,".5"}'),
        ("1\n", '{leftover_string,"\\n"}'),
        ("-1", "{value_negative,-1}"),
        (str(EXPIRY_MAX_MS + 1), "{value_too_large,315360000001}"),
        ("9" * 200, "{value_too_large," + "9" * 200),
    ],
)
def test_expiration_that_is_no_duration_closes_the_channel(
    client: Client, value: str, wanted: str
) -> None:
    client.queue()
    client.publish(flags=EXPIRATION, properties=shortstr(value))
    (item,) = client.read()
    said = f"PRECONDITION_FAILED - invalid expiration '{value}': {wanted}"
    assert item.method.reply_text in (said, f"{said[:252]}...")
    assert waiting(client.site) == 0


def test_user_id_is_the_users_own(client: Client) -> None:
    client.queue()
    client.publish(flags=USER_ID, properties=shortstr("guest"))
    assert waiting(client.site) == 1
    client.publish(flags=USER_ID, properties=shortstr("admin"))
    wanted = "user_id property set to 'admin' but authenticated user was 'guest'"
    assert refused(client, 406, wanted)
    assert waiting(client.site) == 1


def test_impersonator_may_claim_to_be_anybody(site: Site) -> None:
    site.broker.add_user(
        "proxy", b"p", tags=frozenset({"impersonator"}), permissions={"/": Permission()}
    )
    client = site.connect(user="proxy", password="p")
    client.queue()
    client.publish(flags=USER_ID, properties=shortstr("admin"))
    assert waiting(site) == 1


def test_no_other_tag_makes_an_impersonator(site: Site) -> None:
    tags = frozenset({"administrator", "management", "impersonators"})
    site.broker.add_user("admin", b"p", tags=tags, permissions={"/": Permission()})
    client = site.connect(user="admin", password="p")
    client.publish(flags=USER_ID, properties=shortstr("guest"))
    wanted = "user_id property set to 'guest' but authenticated user was 'admin'"
    assert refused(client, 406, wanted)


@pytest.mark.parametrize("name", ["CC", "BCC"])
def test_sender_may_name_further_keys(client: Client, name: str) -> None:
    for queue in ("q", "a", "b"):
        client.queue(queue)
    client.publish(b"x", **with_headers({name: keys("a", "b", "a", "nope")}))
    assert [waiting(client.site, queue) for queue in ("q", "a", "b")] == [1, 1, 1]


def test_further_keys_count_as_routes_for_mandatory(client: Client) -> None:
    client.queue("a")
    client.publish(b"x", key="nope", mandatory=True, **with_headers({"CC": keys("a")}))
    assert client.read() == []
    client.publish(b"y", key="nope", mandatory=True, **with_headers({"CC": keys("none")}))
    assert client.bodies() == [b"y"]


@pytest.mark.parametrize("name", ["CC", "BCC"])
@pytest.mark.parametrize("field", [text("a"), Field("void", None), Field("table", {})])
def test_further_keys_that_are_no_array_close_the_channel(
    client: Client, name: str, field: Field
) -> None:
    client.publish(**with_headers({name: field}))
    wanted = f'invalid message: {{unacceptable_type_in_header,"{name}",{field.type}}}'
    assert refused(client, 406, wanted)


def test_special_word_inside_other_values_is_nothing_special(client: Client) -> None:
    client.queue()
    client.queue("a")
    inner = Field("table", {"CC": keys("a"), "BCC": keys("a")})
    client.publish(**with_headers({"n": inner, "t": text("\x02CC\x03BCC")}))
    assert (waiting(client.site), waiting(client.site, "a")) == (1, 0)


# Confirms


def test_publishes_are_confirmed_from_1_on(client: Client) -> None:
    client.queue()
    client.publish(b"before")
    client.ask(Confirm.Select)
    for number in range(1, 4):
        client.publish(b"x")
        (item,) = client.read()
        assert (item.method.delivery_tag, item.method.multiple) == (number, False)
    client.ask(Confirm.Select)
    client.publish(b"x", key="nope")
    (item,) = client.read()
    assert item.method.delivery_tag == 4


def test_confirms_of_a_chunk_come_as_one(client: Client) -> None:
    client.queue()
    client.ask(Confirm.Select)
    client.feed(publish_octets(b"x") * 50)
    (item,) = client.read()
    assert (item.method.delivery_tag, item.method.multiple) == (50, True)
    assert client.site.broker.counters.messages_confirmed == 50


def test_returns_come_before_the_confirm(client: Client) -> None:
    client.ask(Confirm.Select)
    client.feed(
        publish_octets(b"1", key="nope", mandatory=True)
        + publish_octets(b"2", key="nope")
        + publish_octets(b"3", key="nope", mandatory=True)
    )
    assert [(item.kind, item.body) for item in client.read()] == [
        (Basic.Return, b"1"),
        (Basic.Return, b"3"),
        (Basic.Ack, b""),
    ]


def test_returns_keep_their_place_among_deliveries(client: Client) -> None:
    client.queue()
    client.consume(no_ack=True)
    client.feed(
        publish_octets(b"1")
        + publish_octets(b"2", key="nope", mandatory=True)
        + publish_octets(b"3")
    )
    assert [(item.kind, item.body) for item in client.read()] == [
        (Basic.Deliver, b"1"),
        (Basic.Return, b"2"),
        (Basic.Deliver, b"3"),
    ]


def test_each_channel_counts_its_own(site: Site) -> None:
    client = site.connect(channels=3)
    client.queue()
    for number in (1, 2):
        client.ask(Confirm.Select, number)
    client.feed(b"".join(publish_octets(b"x", channel=number) for number in (1, 2, 3, 2, 1, 2)))
    assert [(item.channel, item.method.delivery_tag) for item in client.read()] == [(1, 2), (2, 3)]


def test_unfinished_message_is_not_confirmed(client: Client) -> None:
    client.queue()
    client.ask(Confirm.Select)
    octets = publish_octets(b"hello")
    client.feed(octets + octets[:-1])
    (item,) = client.read()
    assert item.method.delivery_tag == 1
    client.feed(octets[-1:])
    (item,) = client.read()
    assert item.method.delivery_tag == 2


def test_a_publish_that_is_refused_is_not_confirmed(client: Client) -> None:
    client.queue()
    client.ask(Confirm.Select)
    client.feed(publish_octets(b"1") + publish_octets(flags=EXPIRATION, properties=shortstr("x")))
    confirm, close = client.read()
    assert confirm.method.delivery_tag == 1
    assert close.kind is Channel.Close
    assert client.connection.state is ConnectionState.RUNNING


def test_what_is_counted(client: Client) -> None:
    for name in ("q", "r"):
        client.queue(name)
        client.ask(Queue.Bind, queue=name, exchange="amq.fanout")
    client.publish(b"1234", exchange="amq.fanout")
    client.ask(Confirm.Select)
    client.publish(b"12", key="q")
    counters = client.site.broker.counters
    assert counters.messages_received == 2
    assert counters.messages_received_confirm == counters.messages_confirmed == 1
    assert counters.messages_routed == 3
    assert counters.message_sizes.read()[1] == 6

"""Direct reply-to: an address that cannot be guessed, for as long as somebody waits."""

import re

import pytest

from broker.core.reply import REPLY_TO_NAME
from broker.wire.methods import shortstr
from broker.wire.properties import REPLY_TO, header_frame, text_property
from tests.protocol.client import (
    Basic,
    Channel,
    Client,
    Confirm,
    Queue,
    Site,
    is_close,
    octets_of,
    publish_octets,
)


def wait_for_replies(client: Client, channel: int = 1) -> str:
    return client.consume(REPLY_TO_NAME, channel, no_ack=True, consumer_tag=f"r{channel}")


def ask_for_a_reply(client: Client, body: bytes = b"?", channel: int = 1) -> None:
    client.publish(
        body, key="q", channel=channel, flags=REPLY_TO, properties=shortstr(REPLY_TO_NAME)
    )


def address_in(header: bytes) -> str:
    frame = header_frame(1, 0, int.from_bytes(header[12:14], "big"), header[14:])
    return text_property(frame, REPLY_TO) or ""


@pytest.fixture
def server(site: Site) -> Client:
    server = site.connect()
    server.queue()
    server.consume(no_ack=True)
    return server


def test_question_carries_an_address_and_the_answer_comes_back(
    client: Client, server: Client
) -> None:
    wait_for_replies(client)
    ask_for_a_reply(client)
    (question,) = server.read()
    address = address_in(question.header)
    assert re.fullmatch(r"amq\.rabbitmq\.reply-to\.[\w-]{22}", address)
    server.publish(b"!", key=address)
    (answer,) = client.read()
    method = answer.method
    assert (method.consumer_tag, method.delivery_tag, method.redelivered) == ("r1", 1, False)
    assert (method.exchange, method.routing_key, answer.body) == ("", address, b"!")
    assert client.site.vhost.queues["q"].messages == 0
    assert client.site.broker.memory_used == 0


def test_rewritten_address_leaves_the_other_properties(client: Client, server: Client) -> None:
    wait_for_replies(client)
    properties = b"\x01t" + b"\x02id" + shortstr(REPLY_TO_NAME) + b"\x01m"
    client.publish(b"?", flags=0x8000 | 0x0400 | REPLY_TO | 0x0080, properties=properties)
    (question,) = server.read()
    address = address_in(question.header)
    assert question.header[12:] == (
        b"\x86\x80" + b"\x01t" + b"\x02id" + shortstr(address) + b"\x01m"
    )


@pytest.mark.parametrize("address", ["", "me", f"{REPLY_TO_NAME}.x", f"x{REPLY_TO_NAME}"])
def test_other_addresses_are_left_alone(client: Client, server: Client, address: str) -> None:
    client.publish(b"?", flags=REPLY_TO, properties=shortstr(address))
    (question,) = server.read()
    assert address_in(question.header) == address


def test_question_without_somebody_waiting_is_refused(site: Site, server: Client) -> None:
    client = site.connect(channels=2)
    wait_for_replies(client, 2)
    ask_for_a_reply(client)
    (item,) = client.read()
    assert is_close(item.method, 406, "fast reply consumer does not exist", Basic.Publish)
    assert server.read() == []


def test_each_channel_has_an_address_of_its_own(site: Site, server: Client) -> None:
    client = site.connect(channels=3)
    for channel in (1, 2, 3):
        wait_for_replies(client, channel)
        ask_for_a_reply(client, b"%d" % channel, channel)
    for question in server.read():
        server.publish(b"to " + question.body, key=address_in(question.header))
    assert {item.channel: item.body for item in client.read()} == {
        1: b"to 1",
        2: b"to 2",
        3: b"to 3",
    }


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ({"no_ack": False}, "reply consumer cannot acknowledge"),
        ({"no_ack": True}, "reply consumer already set"),
    ],
)
def test_wrong_ways_to_wait(client: Client, arguments: dict[str, bool], wanted: str) -> None:
    if arguments["no_ack"]:
        wait_for_replies(client)
    answer = client.ask(Basic.Consume, 1, queue=REPLY_TO_NAME, **arguments)
    assert is_close(answer, 406, wanted, Basic.Consume)
    assert client.site.broker.reply_sinks == {}


def test_tag_of_a_reply_consumer_is_taken(client: Client) -> None:
    wait_for_replies(client)
    client.queue()
    answer = client.ask(Basic.Consume, queue="q", consumer_tag="r1")
    assert is_close(answer, 530, "attempt to reuse consumer tag 'r1'", Basic.Consume)


@pytest.mark.parametrize("end", ["cancel", "close", "error", "eof"])
def test_reply_to_who_is_gone_is_dropped_or_returned(
    client: Client, server: Client, end: str
) -> None:
    wait_for_replies(client)
    ask_for_a_reply(client)
    address = address_in(server.read()[0].header)
    if end == "cancel":
        assert client.ask(Basic.Cancel, consumer_tag="r1").consumer_tag == "r1"
    elif end == "close":
        client.ask(Channel.Close)
    elif end == "error":
        client.tell(Queue.Declare, passive=True, queue="nope")
    else:
        client.connection.receive_eof()
    assert client.site.broker.reply_sinks == {}
    client.read()
    server.publish(b"late", key=address)
    assert client.read() == server.read() == []
    server.publish(b"late", key=address, mandatory=True)
    assert server.bodies() == [b"late"]


def test_after_a_cancel_one_may_wait_again(client: Client, server: Client) -> None:
    for _ in range(2):
        wait_for_replies(client)
        ask_for_a_reply(client)
        server.publish(b"!", key=address_in(server.read()[0].header))
        assert client.bodies() == [b"!"]
        client.ask(Basic.Cancel, consumer_tag="r1")


def test_address_may_be_declared_while_somebody_waits(client: Client, server: Client) -> None:
    wait_for_replies(client)
    ask_for_a_reply(client)
    address = address_in(server.read()[0].header)
    for name in (address, REPLY_TO_NAME):
        for passive in (True, False):
            answer = server.ask(Queue.Declare, queue=name, passive=passive)
            assert (answer.queue, answer.message_count, answer.consumer_count) == (name, 0, 1)
    client.ask(Basic.Cancel, consumer_tag="r1")
    answer = server.ask(Queue.Declare, queue=address, passive=True)
    assert is_close(answer, 404, f"no queue '{address}' in vhost '/'", Queue.Declare)
    assert list(client.site.vhost.queues) == ["q"]


def test_replies_keep_their_place_among_deliveries(client: Client, site: Site) -> None:
    client.queue()
    client.consume(no_ack=True)
    wait_for_replies(client)
    token = client.connection.channels[1].reply_token
    server = site.connect()
    server.ask(Confirm.Select)
    server.feed(
        publish_octets(b"1")
        + publish_octets(b"2", key=f"{REPLY_TO_NAME}.{token}")
        + publish_octets(b"3")
    )
    received = client.read()
    assert [(item.method.delivery_tag, item.body) for item in received] == [
        (1, b"1"),
        (2, b"2"),
        (3, b"3"),
    ]
    (confirm,) = server.read()
    assert confirm.method.delivery_tag == 3


def test_replies_are_counted_as_deliveries(client: Client, server: Client) -> None:
    wait_for_replies(client)
    token = client.connection.channels[1].reply_token
    before = client.site.broker.counters.messages_delivered_consume_auto_ack
    server.publish(b"!", key=f"{REPLY_TO_NAME}.{token}")
    assert client.site.broker.counters.messages_delivered_consume_auto_ack == before + 1
    answer = client.ask(Basic.Ack, delivery_tag=1)
    assert is_close(answer, 406, "unknown delivery tag 1", Basic.Ack)


def test_reply_may_not_be_published_through_another_exchange(
    client: Client, server: Client
) -> None:
    wait_for_replies(client)
    token = client.connection.channels[1].reply_token
    server.feed(
        octets_of(
            Basic.Publish,
            exchange="amq.direct",
            routing_key=f"{REPLY_TO_NAME}.{token}",
            mandatory=True,
        )
        + header_frame(1, 0, 0, b"")
    )
    assert [item.kind for item in server.read()] == [Basic.Return]
    assert client.read() == []

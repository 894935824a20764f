"""Channels: opened, closed by either side, and what an error on one leaves of the others."""

import ast
from pathlib import Path

import pytest

import broker.protocol
from broker.protocol.channel import ChannelState
from broker.protocol.states import ConnectionState
from broker.wire.frames import BODY, frame
from broker.wire.methods import commands
from broker.wire.properties import header_frame
from tests.protocol.client import (
    Basic,
    Channel,
    Client,
    Confirm,
    Queue,
    Site,
    Tx,
    content_octets,
    is_close,
    octets_of,
    publish_octets,
)
from tests.protocol.snapshot import broker_values

Connection = commands.Connection


def soft_error(client: Client, channel: int = 1) -> None:
    """Makes the broker close a channel."""
    client.tell(Queue.Declare, channel, passive=True, queue="nope")


def test_highest_channel_number_may_be_used(site: Site) -> None:
    client = site.connect(channel_max=5, channels=0)
    assert isinstance(client.ask(Channel.Open, 5), Channel.OpenOk)


def test_channel_above_channel_max_is_an_error(site: Site) -> None:
    client = site.connect(channel_max=5)
    answer = client.ask(Channel.Open, 6)
    wanted = "channel number 6 is above the negotiated channel_max (5)"
    assert is_close(answer, 504, wanted, Channel.Open)


def test_more_channels_than_channel_max_are_not_allowed(site: Site) -> None:
    client = site.connect(channel_max=2, channels=2)
    answer = client.ask(Channel.Open, 3)
    wanted = "number of channels opened (2) has reached the negotiated channel_max (2)"
    assert is_close(answer, 530, wanted, None)


def test_number_is_free_again_after_a_close(client: Client) -> None:
    for _ in range(3):
        assert isinstance(client.ask(Channel.Close), Channel.CloseOk)
        assert isinstance(client.ask(Channel.Open), Channel.OpenOk)
    counters = client.site.broker.counters
    assert (counters.channels_opened, counters.channels_closed) == (4, 3)


def test_new_channel_of_an_old_number_remembers_nothing(client: Client) -> None:
    client.queue()
    client.consume(consumer_tag="ct")
    client.ask(Confirm.Select)
    client.ask(Basic.Qos, prefetch_count=1, global_=True)
    client.publish(b"1")
    client.ask(Channel.Close)
    client.ask(Channel.Open)
    client.read()
    channel = client.connection.channels[1]
    assert (channel.is_confirming, channel.prefetch, channel.consumers) == (False, 0, {})
    client.publish(b"2")
    assert client.read() == []
    answer = client.ask(Basic.Get, queue="")
    assert is_close(answer, 404, "no previously declared queue", Basic.Get)


def test_error_leaves_the_other_channels_alone(site: Site) -> None:
    client = site.connect(channels=3)
    client.queue()
    client.consume(channel=2)
    client.tell(Tx.Select, 3)
    client.publish(b"in tx", channel=3)
    soft_error(client)
    client.read()
    client.publish(b"one", channel=2)
    assert client.bodies(2) == [b"one"]
    client.tell(Tx.Commit, 3)
    assert client.bodies(2) == [b"in tx"]
    assert client.connection.state is ConnectionState.RUNNING
    assert client.connection.channels[1].state is ChannelState.CLOSING


def test_error_gives_back_all_the_channel_held(site: Site) -> None:
    client = site.connect(channels=2)
    client.queue()
    client.queue("gone", auto_delete=True)
    client.consume()
    client.consume("gone")
    client.publish(b"held")
    client.tell(Basic.Get, queue="q")
    soft_error(client)
    queue = site.vhost.queues["q"]
    assert (queue.messages_ready, queue.unacked_count, len(queue.consumers)) == (1, 0, 0)
    assert "gone" not in site.vhost.queues
    got = client.ask(Basic.Get, 2, queue="q", no_ack=True)
    assert got.redelivered


def test_everything_after_an_error_is_dropped_until_it_is_answered(client: Client) -> None:
    client.queue()
    soft_error(client)
    client.read()
    before = broker_values(client.site.broker)
    client.tell(Queue.Delete, queue="q")
    client.publish(b"dropped", mandatory=True, key="nowhere")
    client.feed(content_octets(b"no method before it"))
    client.tell(Basic.Ack, delivery_tag=99)
    soft_error(client)
    assert client.read() == []
    assert broker_values(client.site.broker) == before
    client.tell(Channel.Close)
    assert [item.kind for item in client.read()] == [Channel.CloseOk]
    client.tell(Channel.Open)
    assert client.read() == []
    client.tell(Channel.CloseOk)
    assert client.connection.channels == {}
    assert isinstance(client.ask(Channel.Open), Channel.OpenOk)


def test_what_came_before_the_error_in_the_chunk_counts(client: Client) -> None:
    client.queue()
    client.ask(Confirm.Select)
    client.feed(
        publish_octets(b"1")
        + publish_octets(b"2")
        + publish_octets(b"lost", exchange="nope")
        + publish_octets(b"after")
    )
    confirm, close = client.read()
    assert (confirm.method.delivery_tag, confirm.method.multiple) == (2, True)
    assert is_close(close.method, 404, "no exchange 'nope' in vhost '/'", Basic.Publish)
    assert client.site.vhost.queues["q"].messages_ready == 2


def test_confirms_of_other_channels_are_told_before_a_connection_closes(site: Site) -> None:
    client = site.connect(channels=2)
    client.queue()
    for number in (1, 2):
        client.ask(Confirm.Select, number)
    client.feed(
        publish_octets(b"a")
        + publish_octets(b"b", channel=2)
        + octets_of(Basic.Qos, prefetch_size=1)
    )
    received = client.read()
    assert [(item.channel, item.kind) for item in received] == [
        (1, Basic.Ack),
        (2, Basic.Ack),
        (0, Connection.Close),
    ]


def test_closing_a_connection_gives_back_all_its_channels_held(site: Site) -> None:
    client, other = site.connect(channels=2), site.connect()
    other.queue()
    for number in range(4):
        other.publish(b"%d" % number)
    client.tell(Basic.Get, 1, queue="q")
    client.tell(Basic.Get, 2, queue="q")
    client.connection.receive_eof()
    site.collect()
    queue = site.vhost.queues["q"]
    assert (queue.messages_ready, queue.unacked_count) == (4, 0)
    other.consume(no_ack=True)
    assert other.bodies() == [b"0", b"1", b"2", b"3"]
    assert site.broker.memory_used == 0


def test_content_that_was_begun_is_forgotten_with_its_channel(site: Site) -> None:
    client = site.connect(channels=2)
    client.queue()
    for channel in (1, 2):
        client.tell(Basic.Publish, channel, routing_key="q")
        client.feed(header_frame(channel, 9000, 0, b"") + frame(BODY, channel, b"x" * 8000))
    assert site.broker.memory_used >= 16000
    client.tell(Channel.Close)
    close = client.read()[-1]
    # Amid a content no method is legal.
    assert close.method.reply_code == 505
    assert site.broker.memory_used == 0


def test_flow_is_always_on(client: Client) -> None:
    assert client.ask(Channel.Flow, active=True).active
    answer = client.ask(Channel.Flow, active=False)
    assert is_close(answer, 540, "active=false", Channel.Flow)


@pytest.mark.parametrize("channel", [1, 2, 9])
def test_frame_of_a_content_without_a_publish_is_unexpected(site: Site, channel: int) -> None:
    client = site.connect(channels=2)
    client.feed(content_octets(b"x", channel=channel))
    close = client.read()[0]
    wanted = "expected method frame, got non method frame instead"
    assert is_close(close.method, 505, wanted, None)


def test_closes_are_made_in_one_module_alone() -> None:
    folder = Path(broker.protocol.__file__).parent
    made = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                # Either called, or the first argument of `make`.
                named = {ast.unparse(part) for part in (node.func, *node.args[:1])}
                is_made = ast.unparse(node.func) != "isinstance"
                if is_made and {"commands.Channel.Close", "commands.Connection.Close"} & named:
                    made.add(path.relative_to(folder).as_posix())
    assert made == {"connection.py"}

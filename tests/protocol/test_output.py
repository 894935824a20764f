"""What a connection has to send: bounded, in order, and held back from who does not read."""

from functools import partial

import pytest

from broker.core.reply import REPLY_TO_NAME
from broker.protocol import reader
from broker.protocol.output import LARGE, OUTPUT_MAX, STALLED_FROM, Output
from broker.protocol.states import ConnectionState
from tests.protocol.client import (
    Basic,
    Channel,
    Client,
    Confirm,
    Queue,
    Site,
    octets_of,
    publish_octets,
)

# One content passes the bound, never two.
BOUND = OUTPUT_MAX + 300_000


def congest(client: Client) -> None:
    """The client does not read."""
    client.connection.output.is_congested = True


def relieve(client: Client) -> None:
    """The client reads again."""
    client.connection.resume_output()
    client.site.collect()


def test_backlog_goes_out_in_bounded_pieces(client: Client) -> None:
    client.queue()
    client.feed(publish_octets(b"x" * 1000) * 3000)
    client.consume(no_ack=True)
    assert len(client.bodies()) == 3000
    assert max(client.batches) <= BOUND
    assert len(client.batches) > 3


@pytest.mark.parametrize("size", [10, 1000, 100_000])
@pytest.mark.parametrize("channels", [2, 50])
def test_consumers_of_one_connection_share_the_bound(site: Site, channels: int, size: int) -> None:
    client, publisher = site.connect(channels=channels), site.connect()
    client.queue()
    for channel in range(1, channels + 1):
        client.consume(channel=channel, no_ack=True)
    count = min(3000, 6_000_000 // size)
    publisher.feed(publish_octets(b"x" * size) * count)
    assert max(client.batches) <= BOUND
    received = [len(client.bodies(channel)) for channel in range(1, channels + 1)]
    assert sum(received) == count
    assert max(received) - min(received) <= 1


def test_pipelined_gets_wait_for_the_output(client: Client) -> None:
    client.queue()
    client.publish(b"x" * 200_000)
    pairs = [
        octets_of(Basic.Get, queue="q") + octets_of(Basic.Nack, delivery_tag=tag, requeue=True)
        for tag in range(1, 51)
    ]
    client.feed(b"".join(pairs))
    assert client.bodies() == [b"x" * 200_000] * 50
    assert max(client.batches) <= BOUND


def test_input_waits_while_the_output_is_full_and_keeps_its_order(client: Client) -> None:
    client.queue()
    client.publish(b"x" * 600_000)
    connection = client.connection
    ask = octets_of(Basic.Get, queue="q") + octets_of(Basic.Recover, requeue=True)
    connection.receive_data(ask * 4 + octets_of(Queue.Declare, queue="after"), 0.0)
    assert connection.wants_turn
    assert "after" not in client.site.vhost.queues
    connection.receive_data(octets_of(Queue.Declare, queue="later"), 0.0)
    assert "later" not in client.site.vhost.queues
    client.site.collect()
    kinds = [item.kind for item in client.read()]
    assert kinds == [Basic.GetOk, Basic.RecoverOk] * 4 + [Queue.DeclareOk] * 2
    assert list(client.site.vhost.queues) == ["q", "after", "later"]


def test_one_connection_is_bounded_in_what_it_moves_in_a_turn(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert reader.WORK_MAX == 20_000
    monkeypatch.setattr(reader, "WORK_MAX", 200)
    client.queue()
    client.feed(publish_octets(b"") * 250)
    client.consume()
    client.read()
    # Each of these few octets moves 250 messages.
    again = octets_of(Basic.Nack, delivery_tag=0, multiple=True, requeue=True)
    client.connection.receive_data(again * 4 + octets_of(Queue.Declare, queue="after"), 0.0)
    assert client.connection.wants_turn
    assert "after" not in client.site.vhost.queues
    client.site.collect()
    assert "after" in client.site.vhost.queues


# Clients that do not read


def test_consumers_of_a_client_that_does_not_read_wait(site: Site, client: Client) -> None:
    publisher = site.connect()
    client.queue()
    client.consume()
    congest(client)
    publisher.publish(b"1")
    publisher.publish(b"2")
    assert client.read() == []
    assert site.vhost.queues["q"].messages_ready == 2
    relieve(client)
    assert client.bodies() == [b"1", b"2"]


def test_others_get_what_a_client_that_does_not_read_would_have_got(site: Site) -> None:
    slow, fast = site.connect(), site.connect()
    slow.queue()
    slow.consume()
    fast.consume()
    congest(slow)
    for number in range(10):
        fast.publish(b"%d" % number)
    assert fast.bodies() == [b"%d" % number for number in range(10)]
    relieve(slow)
    fast.publish(b"a")
    fast.publish(b"b")
    assert len(slow.bodies()) == 1


def test_client_that_never_reads_does_not_grow_the_broker(site: Site) -> None:
    slow, publisher = site.connect(), site.connect()
    slow.queue()
    slow.consume(no_ack=True)
    congest(slow)
    for _ in range(20):
        publisher.feed(publish_octets(b"x" * 1000) * 100)
    assert slow.connection.output.size == 0
    assert site.vhost.queues["q"].messages_ready == 2000


def test_answers_to_a_congested_client_are_still_made(client: Client) -> None:
    client.queue()
    client.ask(Confirm.Select)
    congest(client)
    client.publish(b"1")
    assert [item.kind for item in client.read()] == [Basic.Ack]
    assert isinstance(client.ask(Basic.Get, queue="q"), Basic.GetOk)


def test_congestion_that_ends_with_the_connection_leaves_nothing(site: Site) -> None:
    slow, other = site.connect(), site.connect()
    slow.queue()
    slow.consume()
    congest(slow)
    other.publish(b"1")
    slow.connection.receive_eof()
    assert slow.connection.state is ConnectionState.CLOSED
    other.consume()
    assert other.bodies() == [b"1"]
    relieve(slow)
    assert slow.read() == []


def test_channels_of_other_connections_are_not_held_back(site: Site) -> None:
    client, other = site.connect(), site.connect()
    client.queue()
    congest(client)
    assert isinstance(other.ask(Channel.Open, 2), Channel.OpenOk)
    other.consume(channel=2)
    client.publish(b"x")
    assert other.bodies() == [b"x"]


# Replies


def replies_to(client: Client) -> str:
    client.consume(REPLY_TO_NAME, no_ack=True)
    return f"{REPLY_TO_NAME}.{client.connection.channels[1].reply_token}"


def test_large_replies_in_one_chunk_all_arrive(site: Site) -> None:
    client, responder = site.connect(), site.connect()
    address = replies_to(client)
    responder.feed(publish_octets(b"x" * 1_200_000, key=address) * 3)
    assert [len(body) for body in client.bodies()] == [1_200_000] * 3


def test_reply_arrives_though_deliveries_fill_the_output(site: Site) -> None:
    client, responder = site.connect(), site.connect()
    client.queue()
    address = replies_to(client)
    client.consume(no_ack=True)
    responder.feed(publish_octets(b"x" * 100_000) * 12 + publish_octets(b"reply", key=address))
    bodies = client.bodies()
    assert len(bodies) == 13
    assert b"reply" in bodies


def test_replies_to_a_client_that_never_reads_are_dropped_in_the_end(site: Site) -> None:
    client, responder = site.connect(), site.connect()
    address = replies_to(client)
    congest(client)
    for unread, arrives in ((STALLED_FROM, True), (STALLED_FROM + 1, False)):
        client.connection.output.unread = partial(int, unread)
        before = site.broker.counters.messages_unroutable_dropped
        responder.publish(b"x", key=address)
        assert client.bodies() == [b"x"] * arrives
        assert site.broker.counters.messages_unroutable_dropped - before == (not arrives)


# The list of pieces


def test_pieces_are_joined_but_for_large_ones() -> None:
    calls: list[None] = []
    output = Output(lambda: calls.append(None))
    assert output.take() == []
    large = b"L" * LARGE
    output.reserve(2).extend([b"a", b"b"])
    output.has_large = True
    output.reserve(LARGE).append(large)
    output.reserve(1).append(b"c")
    pieces = output.take()
    assert pieces == [b"ab", large, b"c"]
    assert pieces[1] is large
    assert (output.size, calls) == (0, [None])
    output.reserve(1).append(b"d")
    assert output.take() == [b"d"]
    assert calls == [None, None]


def test_room_is_what_is_left_of_the_bound() -> None:
    output = Output(lambda: None)
    assert output.room() == OUTPUT_MAX
    output.reserve(OUTPUT_MAX - 1).append(b"x")
    assert (output.room(), output.is_full(), output.can_take()) == (1, False, True)
    output.reserve(1).append(b"x")
    assert (output.room(), output.is_full(), output.can_take()) == (0, True, False)
    assert output.is_starved
    output.take()
    assert (output.room(), output.is_full()) == (OUTPUT_MAX, False)

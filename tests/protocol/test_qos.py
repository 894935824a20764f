"""Prefetch: for each consumer, for the whole channel, and changed while messages flow."""

import pytest

from tests.protocol.client import (
    Basic,
    Channel,
    Client,
    Queue,
    Site,
    is_close,
    octets_of,
    publish_octets,
)


@pytest.fixture
def client(site: Site) -> Client:
    client = site.connect(channels=2)
    client.queue()
    client.queue("r")
    return client


def fill(client: Client, count: int, key: str = "q") -> None:
    client.feed(b"".join(publish_octets(b"%d" % number, key=key) for number in range(count)))


def limit(client: Client, count: int, *, whole_channel: bool = False) -> None:
    answer = client.ask(Basic.Qos, prefetch_count=count, global_=whole_channel)
    assert isinstance(answer, Basic.QosOk)


def taken(client: Client) -> int:
    """How many deliveries came."""
    return len(client.bodies())


def ack(client: Client, tag: int, *, multiple: bool = False) -> None:
    client.tell(Basic.Ack, delivery_tag=tag, multiple=multiple)


def test_limit_is_for_consumers_that_come_after_it(client: Client) -> None:
    client.consume(consumer_tag="before")
    limit(client, 2)
    client.consume("r", consumer_tag="after")
    fill(client, 5)
    assert taken(client) == 5
    fill(client, 5, "r")
    assert taken(client) == 2
    limit(client, 0)
    assert taken(client) == 0
    client.consume("r", consumer_tag="free")
    assert taken(client) == 3


def test_each_consumer_has_the_limit_for_itself(client: Client) -> None:
    limit(client, 2)
    for queue in ("q", "r"):
        client.consume(queue)
        fill(client, 5, queue)
    assert taken(client) == 4
    ack(client, 4)
    assert taken(client) == 1
    ack(client, 1)
    assert taken(client) == 1


def test_limit_of_the_channel_is_shared_by_its_consumers(client: Client) -> None:
    limit(client, 3, whole_channel=True)
    for queue in ("q", "r"):
        client.consume(queue)
    fill(client, 2)
    fill(client, 5, "r")
    assert taken(client) == 3
    # Room made by one consumer may be another's.
    ack(client, 2, multiple=True)
    assert taken(client) == 2
    client.consume(channel=2)
    fill(client, 4)
    assert len(client.bodies(2)) == 4


def test_both_limits_hold(client: Client) -> None:
    limit(client, 2)
    limit(client, 3, whole_channel=True)
    for queue in ("q", "r"):
        client.consume(queue)
        fill(client, 5, queue)
    assert taken(client) == 3
    channel = client.connection.channels[1]
    assert max(consumer.unacked for consumer in channel.consumers.values()) == 2


def test_limit_of_the_channel_changes_at_once(client: Client) -> None:
    limit(client, 1, whole_channel=True)
    client.consume()
    fill(client, 10)
    assert taken(client) == 1
    limit(client, 4, whole_channel=True)
    assert taken(client) == 3
    limit(client, 2, whole_channel=True)
    ack(client, 1)
    ack(client, 2)
    assert taken(client) == 0
    ack(client, 3)
    assert taken(client) == 1
    limit(client, 0, whole_channel=True)
    assert taken(client) == 5


def test_limit_per_consumer_lifts_the_one_of_the_channel(client: Client) -> None:
    limit(client, 1, whole_channel=True)
    client.consume()
    fill(client, 3)
    assert taken(client) == 1
    limit(client, 5)
    assert taken(client) == 2


def test_consumer_without_acknowledgement_knows_no_limit_of_its_own(client: Client) -> None:
    limit(client, 1)
    client.consume(no_ack=True)
    fill(client, 50)
    assert taken(client) == 50


def test_gets_count_for_no_limit(client: Client) -> None:
    limit(client, 2, whole_channel=True)
    fill(client, 5)
    for _ in range(3):
        client.tell(Basic.Get, queue="q")
    assert taken(client) == 3
    client.consume()
    assert taken(client) == 2
    assert client.connection.channels[1].consumed_unacked == 2
    # Settling what was got makes no room.
    fill(client, 2)
    ack(client, 3, multiple=True)
    assert taken(client) == 0
    ack(client, 4)
    assert taken(client) == 1


@pytest.mark.parametrize("whole_channel", [True, False])
@pytest.mark.parametrize("kind", [Basic.Ack, Basic.Nack, Basic.Reject])
def test_every_way_of_settling_makes_room(
    client: Client, kind: type[Basic.Ack], *, whole_channel: bool
) -> None:
    limit(client, 1, whole_channel=whole_channel)
    client.consume()
    fill(client, 3)
    for tag in range(1, 4):
        assert taken(client) == 1
        client.tell(kind, delivery_tag=tag)
    assert taken(client) == 0
    assert client.site.vhost.queues["q"].messages == 0


def test_what_a_cancelled_consumer_holds_still_counts_for_the_channel(client: Client) -> None:
    limit(client, 2, whole_channel=True)
    client.consume(consumer_tag="a")
    fill(client, 5)
    assert taken(client) == 2
    client.ask(Basic.Cancel, consumer_tag="a")
    client.consume(consumer_tag="b")
    assert taken(client) == 0
    ack(client, 1)
    assert taken(client) == 1


def test_limit_is_never_exceeded_by_what_comes_in_one_chunk(client: Client) -> None:
    limit(client, 10)
    client.consume()
    fill(client, 300)
    for done in range(0, 290, 10):
        assert taken(client) == 10
        client.feed(b"".join(octets_of(Basic.Ack, delivery_tag=done + n) for n in range(1, 11)))
        assert client.site.vhost.queues["q"].unacked_count == 10


def test_limit_in_octets_is_not_implemented(client: Client) -> None:
    answer = client.ask(Basic.Qos, prefetch_size=1024)
    assert is_close(answer, 540, "prefetch_size!=0 (1024)", Basic.Qos)


def test_closed_channel_makes_room_for_others(client: Client) -> None:
    limit(client, 2)
    client.consume()
    client.consume(channel=2)
    fill(client, 8)
    assert len(client.bodies(1)) == 2
    assert len(client.bodies(2)) == 6
    client.ask(Channel.Close, 2)
    ack(client, 2, multiple=True)
    assert [item.method.redelivered for item in client.read(1)] == [True, True]


def publishes(way: str) -> list[bytes]:
    """Messages for both queues: by the keys of several, or each for both."""
    if way == "keys":
        return [publish_octets(b"%d" % n, key=key) for n, key in enumerate("qrrqq")]
    if way == "fanout":
        return [publish_octets(b"%d" % n, exchange="amq.fanout", key="") for n in range(3)]
    # A headers table with one entry: CC, an array of the long string "r".
    cc = b"\x02CCA" + (6).to_bytes(4, "big") + b"S" + (1).to_bytes(4, "big") + b"r"
    table = len(cc).to_bytes(4, "big") + cc
    return [publish_octets(b"%d" % n, flags=1 << 13, properties=table) for n in range(3)]


@pytest.mark.parametrize("way", ["keys", "fanout", "CC"])
@pytest.mark.parametrize("in_chunks", [False, True])
def test_room_of_a_channel_is_taken_in_the_order_of_the_messages(
    client: Client, way: str, in_chunks: bool
) -> None:
    for queue in ("q", "r"):
        client.ask(Queue.Bind, queue=queue, exchange="amq.fanout", routing_key="")
    limit(client, 2, whole_channel=True)
    client.consume("q", no_ack=True, consumer_tag="free")
    client.consume("r", consumer_tag="bound")
    frames = publishes(way)
    for chunk in frames if in_chunks else [b"".join(frames)]:
        client.feed(chunk)
    got = [(item.method.consumer_tag, item.body) for item in client.read()]
    if way == "keys":
        assert got == [("free", b"0"), ("bound", b"1"), ("bound", b"2")]
    else:
        assert got == [("free", b"0"), ("bound", b"0"), ("free", b"1"), ("bound", b"1")]


def test_limit_of_the_channel_that_is_lifted_lets_messages_go_in_runs_again(
    client: Client,
) -> None:
    def shares_room() -> bool:
        return client.site.vhost.queues["q"].shares_room

    client.consume()
    for count, shares in ((2, True), (3, True), (0, False), (1, True)):
        limit(client, count, whole_channel=True)
        assert shares_room() is shares
    limit(client, 1)
    assert not shares_room()
    limit(client, 2, whole_channel=True)
    client.consume("q", consumer_tag="second")
    client.ask(Basic.Cancel, consumer_tag="second")
    assert shares_room()
    client.ask(Channel.Close)
    assert not shares_room()

"""Short of memory: publishers wait at their first publish, and go on in order."""

import pytest

from broker.core.broker import MEMORY_LOW_SHARE
from broker.protocol import batch
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
    is_close,
    octets_of,
    publish_octets,
)

Connection = commands.Connection
LIMIT = 100_000


@pytest.fixture
def site() -> Site:
    return Site(memory=LIMIT)


def fill(client: Client) -> None:
    """Fills the memory with unsettled deliveries on channel 1, each of 1 KB."""
    client.queue("full")
    client.consume("full")
    for _ in range(75):
        client.publish(b"x" * 1000, key="full")
    client.publish(b"x" * 8000, key="full")
    assert client.site.broker.memory_used > LIMIT
    client.read()


def free(client: Client) -> None:
    """Settles all that `fill` made."""
    client.tell(Basic.Ack, delivery_tag=0, multiple=True)
    client.site.unblock()


@pytest.fixture
def client(site: Site) -> Client:
    """One that publishes; another one holds the memory."""
    client = site.connect(channels=2)
    client.queue()
    return client


@pytest.fixture
def holder(site: Site, client: Client) -> Client:
    holder = site.connect()
    fill(holder)
    return holder


def messages(client: Client) -> int:
    return client.site.vhost.queues["q"].messages


def test_publisher_waits_and_goes_on(client: Client, holder: Client) -> None:
    client.publish(b"1")
    client.publish(b"2")
    assert (messages(client), client.connection.is_blocked) == (0, True)
    assert client.site.broker.blocked == [client.connection]
    free(holder)
    assert (messages(client), client.connection.is_blocked) == (2, False)
    assert client.site.broker.blocked == []
    client.publish(b"3")
    client.ask(Basic.Consume, queue="q", no_ack=True)
    assert client.bodies() == [b"1", b"2", b"3"]


def test_client_is_told_if_it_understands(site: Site, client: Client, holder: Client) -> None:
    old = site.connect(capabilities=())
    for publisher in (client, old):
        publisher.publish(b"x")
        publisher.publish(b"y")
    (item,) = client.read()
    assert (item.channel, item.kind, item.method.reason) == (0, Connection.Blocked, "low on memory")
    assert old.read() == []
    assert old.connection.is_blocked
    free(holder)
    assert [item.kind for item in client.read()] == [Connection.Unblocked]
    assert old.read() == []
    assert messages(client) == 4


def test_what_came_before_the_publish_counts_and_what_came_after_waits(
    client: Client, holder: Client
) -> None:
    client.publish(b"0")
    free(holder)
    client.read()
    client.tell(Basic.Get, queue="q")
    client.read()
    fill(holder)
    client.feed(
        octets_of(Basic.Ack, delivery_tag=1)
        + octets_of(Queue.Declare, queue="before")
        + publish_octets(b"1")
        + octets_of(Queue.Declare, queue="after")
        + octets_of(Basic.Ack, 2, delivery_tag=7)
    )
    assert client.site.vhost.queues["q"].unacked_count == 0
    assert "before" in client.site.vhost.queues
    assert "after" not in client.site.vhost.queues
    kinds = [item.kind for item in client.read()]
    assert kinds == [Queue.DeclareOk, Connection.Blocked]
    client.tell(Queue.Declare, queue="much later")
    assert client.read() == []
    free(holder)
    received = client.read()
    assert [(item.channel, item.kind) for item in received] == [
        (0, Connection.Unblocked),
        (1, Queue.DeclareOk),
        (2, Channel.Close),
        (1, Queue.DeclareOk),
    ]
    assert messages(client) == 1


def test_order_is_kept_over_many_chunks(client: Client, holder: Client) -> None:
    octets = b"".join(publish_octets(b"%d" % number) for number in range(50))
    for at in range(0, len(octets), 33):
        client.feed(octets[at : at + 33])
    assert messages(client) == 0
    free(holder)
    client.consume(no_ack=True)
    assert client.bodies() == [b"%d" % number for number in range(50)]


@pytest.mark.parametrize("queues", [1, 10])
def test_memory_is_looked_at_again_within_a_run(
    site: Site, monkeypatch: pytest.MonkeyPatch, queues: int
) -> None:
    assert batch.RUN_MAX == 16_384
    monkeypatch.setattr(batch, "RUN_MAX", 20)
    client = site.connect()
    for number in range(queues):
        client.queue(f"q{number}")
        client.ask(Queue.Bind, queue=f"q{number}", exchange="amq.fanout")
    client.feed(publish_octets(b"x" * 1000, exchange="amq.fanout") * 400)
    assert client.connection.is_blocked
    assert site.broker.memory_used < LIMIT + 25 * 1300


def test_confirms_come_after_the_wait(client: Client, holder: Client) -> None:
    client.ask(Confirm.Select)
    client.feed(publish_octets(b"1") + publish_octets(b"2"))
    assert [item.kind for item in client.read()] == [Connection.Blocked]
    free(holder)
    unblocked, confirm = client.read()
    assert unblocked.kind is Connection.Unblocked
    assert (confirm.method.delivery_tag, confirm.method.multiple) == (2, True)


def test_who_does_not_publish_is_not_touched(site: Site, client: Client, holder: Client) -> None:
    other = site.connect()
    other.queue("other")
    assert isinstance(other.ask(Basic.Get, queue="q"), Basic.GetEmpty)
    other.consume("full")
    assert not other.connection.is_blocked
    holder.tell(Basic.Nack, delivery_tag=1, requeue=True)
    assert len(holder.read()) + len(other.read()) == 1


def test_each_publisher_waits_for_itself_and_all_go_on(
    site: Site, client: Client, holder: Client
) -> None:
    others = [site.connect() for _ in range(3)]
    for publisher in (client, *others):
        publisher.publish(b"x")
    assert site.broker.blocked == [p.connection for p in (client, *others)]
    free(holder)
    assert messages(client) == 4
    assert not any(p.connection.is_blocked for p in (client, *others))


def test_those_that_go_on_may_have_to_wait_again(
    site: Site, client: Client, holder: Client
) -> None:
    other = site.connect()
    client.publish(b"x" * LIMIT)
    other.publish(b"y")
    free(holder)
    # The first one filled the memory again.
    assert messages(client) == 1
    assert site.broker.blocked == [other.connection]
    assert [item.kind for item in other.read()] == [Connection.Blocked]
    client.ask(Queue.Purge, queue="q")
    site.unblock()
    assert messages(client) == 1
    assert [item.kind for item in other.read()] == [Connection.Unblocked]


def test_waiting_publisher_that_leaves_is_forgotten(client: Client, holder: Client) -> None:
    client.publish(b"lost")
    client.connection.receive_eof()
    assert client.site.broker.blocked == []
    assert client.connection.state is ConnectionState.CLOSED
    free(holder)
    assert messages(client) == 0


def test_waiting_publisher_is_not_given_up(site: Site, holder: Client) -> None:
    client = site.connect(heartbeat=10)
    client.publish(b"x", key="full")
    client.read()
    client.connection.tick(1000.0)
    site.collect()
    assert client.connection.state is ConnectionState.RUNNING
    assert client.reader.heartbeats == 1
    site.broker.blocked.remove(client.connection)
    client.connection.unblock(1000.0)
    client.connection.tick(1024.0)
    assert client.connection.state is ConnectionState.RUNNING


def test_content_in_many_frames_waits_in_the_middle_or_is_bounded(
    client: Client, holder: Client
) -> None:
    used = client.site.broker.memory_used
    client.feed(octets_of(Basic.Publish, routing_key="q") + header_frame(1, 50_000, 0, b""))
    for _ in range(10):
        client.feed(frame(BODY, 1, b"x" * 5000))
    assert messages(client) == 0
    assert client.connection.is_blocked
    assert client.site.broker.memory_used <= used + 5000
    free(holder)
    assert messages(client) == 1


def begin_content(client: Client, octets: int, channel: int = 1) -> None:
    """A content of which the last octets are missing."""
    client.tell(Basic.Publish, channel, routing_key="q")
    frames = header_frame(channel, octets + 1000, 0, b"") + frame(BODY, channel, b"x" * octets)
    client.feed(frames)


def test_unfinished_contents_count_as_memory(site: Site) -> None:
    clients = [site.connect() for _ in range(3)]
    clients[0].queue()
    for client in clients[:2]:
        begin_content(client, 51_000)
    assert site.broker.memory_used == 102_000
    assert site.broker.blocked == []
    clients[2].publish(b"x")
    assert site.broker.blocked == [clients[2].connection]
    # Each of the others may end the one it began.
    for client in clients[:2]:
        client.feed(frame(BODY, 1, b"x" * 1000))
    assert site.vhost.queues["q"].messages == 2
    for client in clients:
        client.connection.receive_eof()
    assert site.broker.memory_used == site.vhost.queues["q"].ready_bytes


def test_second_unfinished_content_waits(site: Site, holder: Client) -> None:
    client = site.connect(channels=2)
    # Amid two contents when memory runs short.
    holder.tell(Basic.Ack, delivery_tag=20, multiple=True)
    site.unblock()
    for channel in (1, 2):
        begin_content(client, 1000, channel)
    while site.broker.memory_used <= LIMIT:
        holder.publish(b"x" * 5000, key="full")
    client.feed(frame(BODY, 2, b"y" * 1000))
    assert site.broker.blocked == [client.connection]
    free(holder)
    client.feed(frame(BODY, 1, b"y" * 1000))
    assert site.vhost.queues["q"].messages == 2


def test_who_would_wait_for_himself_is_told_so(site: Site) -> None:
    for way in ("contents", "transaction"):
        client = site.connect(channels=3)
        client.queue()
        if way == "contents":
            for channel in (1, 2):
                begin_content(client, 51_000, channel)
        else:
            client.ask(Tx.Select)
            client.feed(publish_octets(b"x" * 51_000) * 2)
        held = site.broker.memory_used
        client.publish(b"x", channel=3)
        (item,) = client.read()
        wanted = (
            f"unfinished contents and transactions take {held} octets, "
            f"more than the memory limit ({LIMIT})"
        )
        assert is_close(item.method, 506, wanted, Basic.Publish)
        assert site.broker.memory_used == 0
        assert site.broker.blocked == []


def test_low_mark_keeps_publishers_from_flapping(client: Client, holder: Client) -> None:
    client.publish(b"x")
    client.read()
    settled = 0
    while not messages(client):
        assert client.site.broker.memory_used >= LIMIT * MEMORY_LOW_SHARE
        settled += 1
        holder.tell(Basic.Ack, delivery_tag=settled)
        client.site.unblock()
    assert settled > 5
    assert not client.connection.is_blocked


def test_without_a_limit_nobody_waits() -> None:
    site = Site()
    client = site.connect()
    client.queue()
    for _ in range(10):
        client.publish(b"x" * 100_000)
    assert not client.connection.is_blocked
    assert site.vhost.queues["q"].messages == 10

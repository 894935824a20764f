"""Short of memory or disk space, in a virtual host that wants no pauses: publishes on channels in
confirm mode are refused with basic.nack."""

import pytest

from broker.core.reply import REPLY_TO_NAME
from broker.wire.methods import commands, shortstr
from broker.wire.properties import REPLY_TO
from tests.protocol.client import (
    Basic,
    Channel,
    Client,
    Confirm,
    Exchange,
    Queue,
    Site,
    Tx,
    is_close,
    octets_of,
    publish_octets,
)
from tests.protocol.refusing import LIMIT, answers, connect, free, hold, make_site, messages

Connection = commands.Connection


@pytest.fixture
def site() -> Site:
    return make_site()


@pytest.fixture
def client(site: Site) -> Client:
    return connect(site)


@pytest.fixture
def holder(site: Site, client: Client) -> Client:
    return hold(site)


def test_publishes_are_refused_until_consumers_have_made_room(
    client: Client, holder: Client
) -> None:
    client.publish(b"1")
    assert answers(client.read()) == [(Basic.Nack, 1, False)]
    client.feed(publish_octets(b"2") * 3)
    assert answers(client.read()) == [(Basic.Nack, 4, True)]
    assert messages(client.site) == 0
    assert not client.connection.is_blocked
    assert client.site.broker.blocked == []
    for tag in range(1, 11):
        holder.tell(Basic.Ack, delivery_tag=tag)
    client.publish(b"5")
    client.feed(publish_octets(b"6") * 2)
    assert answers(client.read()) == [(Basic.Ack, 5, False), (Basic.Ack, 7, True)]
    assert messages(client.site) == 3


def test_disk_alarm_refuses_too(site: Site, client: Client) -> None:
    site.broker.is_disk_short = True
    client.publish(b"1")
    assert answers(client.read()) == [(Basic.Nack, 1, False)]
    site.broker.is_disk_short = False
    client.publish(b"2")
    assert answers(client.read()) == [(Basic.Ack, 2, False)]


def test_acks_and_nacks_of_one_chunk_are_in_order_and_cover_their_own(client: Client) -> None:
    accepted, refused = publish_octets(b"x" * LIMIT), publish_octets(b"refused", key="nowhere")
    client.feed(
        publish_octets(b"1")
        + accepted
        + refused * 3
        + publish_octets(b"another", channel=2)
        + octets_of(Queue.Purge, 2, queue="q", nowait=True)
        + publish_octets(b"6") * 2
    )
    received = client.read()
    assert answers([r for r in received if r.channel == 1]) == [
        (Basic.Ack, 2, True),
        (Basic.Nack, 5, True),
        (Basic.Ack, 7, True),
    ]
    assert answers([r for r in received if r.channel == 2]) == [(Basic.Nack, 1, False)]
    assert messages(client.site) == 2


def test_channel_without_confirms_pauses_its_connection(client: Client, holder: Client) -> None:
    client.publish(b"1", channel=3)
    client.publish(b"2")
    assert [item.kind for item in client.read()] == [Connection.Blocked]
    assert client.connection.is_blocked
    free(holder)
    client.site.unblock()
    unblocked, confirm = client.read()
    assert unblocked.kind is Connection.Unblocked
    assert answers([confirm]) == [(Basic.Ack, 1, False)]
    assert messages(client.site) == 2


def test_transaction_pauses_its_connection(client: Client, holder: Client) -> None:
    client.ask(Tx.Select, 3)
    client.publish(b"1", channel=3)
    assert [item.kind for item in client.read()] == [Connection.Blocked]


def test_other_virtual_host_pauses(site: Site, holder: Client) -> None:
    other = site.connect(vhost="other")
    other.ask(Confirm.Select)
    other.publish(b"1")
    assert [item.kind for item in other.read()] == [Connection.Blocked]
    assert site.broker.blocked == [other.connection]


def test_publishes_that_look_alike_are_checked_again_when_the_exchange_is_gone(
    client: Client, holder: Client
) -> None:
    client.ask(Exchange.Declare, exchange="x", exchange_type="fanout")
    octets = publish_octets(b"x", exchange="x")
    client.feed(octets * 5)
    assert answers(client.read()) == [(Basic.Nack, 5, True)]
    client.ask(Exchange.Delete, 2, exchange="x")
    client.feed(octets * 5)
    (close,) = client.read()
    assert is_close(close.method, 404, "no exchange 'x' in vhost '/'", Basic.Publish)


def test_publishes_that_look_alike_are_checked_again_for_who_wants_replies(
    client: Client, holder: Client
) -> None:
    tag = client.consume(REPLY_TO_NAME, no_ack=True)
    octets = publish_octets(b"x", flags=REPLY_TO, properties=shortstr(REPLY_TO_NAME))
    client.feed(octets * 2)
    assert answers(client.read()) == [(Basic.Nack, 2, True)]
    client.ask(Basic.Cancel, consumer_tag=tag)
    client.feed(octets)
    (close,) = client.read()
    assert is_close(close.method, 406, "fast reply consumer does not exist", Basic.Publish)


def test_refused_publishes_are_told_before_the_error_that_follows(
    client: Client, holder: Client
) -> None:
    client.feed(publish_octets(b"x") * 2 + publish_octets(b"x", exchange="nope"))
    told, close = client.read()
    assert answers([told]) == [(Basic.Nack, 2, True)]
    assert close.kind is Channel.Close


def test_refused_mandatory_message_is_not_returned(client: Client, holder: Client) -> None:
    client.publish(b"1", key="nowhere", mandatory=True)
    assert answers(client.read()) == [(Basic.Nack, 1, False)]


def test_refused_publishes_count_as_received_and_as_nothing_else(
    client: Client, holder: Client
) -> None:
    counters = client.site.broker.counters
    before = counters.messages_routed, counters.messages_confirmed
    received, total = counters.messages_received, counters.message_sizes.read()[1]
    client.feed(publish_octets(b"x" * 7) * 10 + publish_octets(b"", key="nowhere", mandatory=True))
    assert counters.messages_received == received + 11
    assert counters.messages_received_confirm == 11
    assert counters.message_sizes.read()[1] == total + 70
    assert (counters.messages_routed, counters.messages_confirmed) == before
    assert counters.messages_unroutable_dropped == counters.messages_unroutable_returned == 0

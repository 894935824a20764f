"""Contents that are refused: however they come they are read to their end, checked and dropped."""

from typing import Any

import pytest

from broker.core.users import Permission
from broker.protocol.refusal import RefusedContent
from broker.wire.frames import BODY, frame
from broker.wire.methods import commands
from broker.wire.properties import EXPIRATION, HEADERS, PRIORITY, header_frame
from broker.wire.table import Field, encode_table
from tests.protocol.client import (
    Basic,
    Client,
    Confirm,
    Exchange,
    Site,
    octets_of,
    publish_octets,
    text,
)
from tests.protocol.refusing import (
    answers,
    connect,
    free,
    hold,
    make_site,
    messages,
    outcomes,
)

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


def test_content_in_many_frames_is_dropped_as_it_comes(client: Client, holder: Client) -> None:
    used = client.site.broker.memory_used
    client.feed(octets_of(Basic.Publish, routing_key="q") + header_frame(1, 50_003, 0, b""))
    for size in (5000,) * 10 + (1, 0, 1):
        octets = frame(BODY, 1, b"x" * size)
        client.feed(octets[:1000])
        client.feed(octets[1000:])
        assert client.read() == []
        content = client.connection.channels[1].assembly
        assert isinstance(content, RefusedContent)
        assert (content._frames, len(content._small)) == ([], 0)
        assert client.site.broker.memory_used == used
    client.feed(frame(BODY, 1, b"x"))
    assert answers(client.read()) == [(Basic.Nack, 1, False)]
    free(holder)
    assert client.site.broker.memory_used == 0


def test_content_that_began_during_the_alarm_is_refused_after_it(
    client: Client, holder: Client
) -> None:
    client.feed(publish_octets(b"x" * 50_000)[:-20_000])
    free(holder)
    client.feed(publish_octets(b"x" * 50_000)[-20_000:])
    assert answers(client.read()) == [(Basic.Nack, 1, False)]
    assert client.site.broker.memory_used == 0
    # The same in pieces that are taken without joining them.
    small = client.site.connect(frame_max=4096)
    small.ask(Confirm.Select)
    octets = publish_octets(b"x" * 20_000, frame_max=4096)
    client.site.broker.is_disk_short = True
    small.feed(octets[:100])
    client.site.broker.is_disk_short = False
    for at in range(100, len(octets), 1000):
        small.feed(octets[at : at + 1000])
        assert client.site.broker.memory_used == 0
    assert answers(small.read()) == [(Basic.Nack, 1, False)]


def test_content_that_began_before_the_alarm_may_end(client: Client) -> None:
    octets = publish_octets(b"x" * 50_000)
    client.feed(octets[:-20_000])
    client.site.broker.is_disk_short = True
    client.feed(octets[-20_000:])
    assert answers(client.read()) == [(Basic.Ack, 1, False)]
    assert messages(client.site) == 1


def begin_content(client: Client, channel: int, size: int) -> None:
    """A content of which the last 1,000 octets are missing."""
    client.tell(Basic.Publish, channel, routing_key="q")
    head = header_frame(channel, size + 1000, 0, b"")
    client.feed(head + frame(BODY, channel, b"x" * size))


def test_one_of_two_contents_that_began_before_the_alarm_is_refused(client: Client) -> None:
    begin_content(client, 1, 60_000)
    begin_content(client, 2, 60_000)
    assert client.site.broker.has_alarm()
    client.feed(frame(BODY, 2, b"y" * 1000))
    client.feed(frame(BODY, 1, b"y" * 1000))
    one, other = client.read()
    assert (one.channel, *answers([one])) == (2, (Basic.Nack, 1, False))
    assert (other.channel, *answers([other])) == (1, (Basic.Ack, 1, False))
    assert messages(client.site) == 1
    assert client.site.broker.memory_used == client.site.vhost.queues["q"].ready_bytes
    assert not client.connection.is_blocked


def test_content_among_many_is_refused_where_others_are_closed(site: Site) -> None:
    clients = [site.connect(vhost=vhost) for vhost in ("/",) * 4 + ("other",)]
    for client in clients:
        client.ask(Confirm.Select)
        client.feed(octets_of(Basic.Publish) + header_frame(1, 71_000, 0, b""))
    for client in clients:
        client.feed(frame(BODY, 1, b"x" * 70_000))
    assert site.broker.memory_used == 3 * 70_000
    refused, closed = clients[3:]
    assert [item.kind for item in closed.read()] == [Connection.Close]
    refused.feed(frame(BODY, 1, b"y" * 1000))
    assert answers(refused.read()) == [(Basic.Nack, 1, False)]
    assert site.broker.memory_used == 3 * 70_000


def test_refusing_channel_may_be_closed_amid_a_content(client: Client, holder: Client) -> None:
    used = client.site.broker.memory_used
    client.feed(octets_of(Basic.Publish) + header_frame(1, 5000, 0, b"") + frame(BODY, 1, b"x" * 9))
    client.connection.receive_eof()
    assert client.site.broker.memory_used == used


def wrong_contents() -> dict[str, bytes]:
    """Publishes that are wrong in one way each."""
    header = header_frame(1, 3, 0, b"")
    cc: Any = {"flags": HEADERS, "properties": encode_table({"CC": text("q")})}
    broken: Any = {"flags": HEADERS, "properties": b"\x00\x00\x00\x07abc"}
    soon: Any = {"flags": EXPIRATION, "properties": b"\x04soon"}
    return {
        "unknown exchange": publish_octets(b"x", exchange="nope"),
        "unknown exchange, empty": publish_octets(b"", exchange="nope"),
        "internal exchange": publish_octets(b"x", exchange="internal"),
        "no permission": publish_octets(b"x", exchange="amq.fanout"),
        "immediate": octets_of(Basic.Publish, routing_key="q", immediate=True),
        "expiration": publish_octets(b"x", **soon),
        "CC": publish_octets(b"x", **cc),
        "properties": publish_octets(b"x", **broken),
        "too large": octets_of(Basic.Publish) + header_frame(1, 1 << 28, 0, b""),
        "far too large": octets_of(Basic.Publish) + header_frame(1, 1 << 30, 0, b""),
        "method instead of a header": octets_of(Basic.Publish) * 2,
        "header of another class": octets_of(Basic.Publish) + b"\x02\0\1\0\0\0\x0e"
        b"\0\x0a" + bytes(12) + b"\xce",
        "body instead of a header": octets_of(Basic.Publish) + frame(BODY, 1, b"x"),
        "method instead of a body": octets_of(Basic.Publish) + header + octets_of(Basic.Publish),
        "more than announced": octets_of(Basic.Publish) + header + frame(BODY, 1, b"four"),
        "frame end": publish_octets(b"abc")[:-1] + b"\0",
        "frame end of the method": publish_octets(b"x").replace(b"\xce", b"\0", 1),
    }


@pytest.mark.parametrize("way", wrong_contents())
@pytest.mark.parametrize("step", [1, 1 << 20])
def test_what_is_wrong_with_a_publish_is_answered_as_always(way: str, step: int) -> None:
    seen = []
    for has_alarm in (False, True):
        site = make_site()
        site.broker.add_user(
            "guest", b"guest", permissions={"/": Permission(write="^(?!amq.fanout)")}
        )
        client = site.connect(channels=2)
        client.ask(Exchange.Declare, exchange="internal", exchange_type="fanout", internal=True)
        client.queue()
        client.ask(Confirm.Select)
        client.read()
        site.broker.is_disk_short = has_alarm
        octets = publish_octets(b"abc") * 2 + wrong_contents()[way]
        for at in range(0, len(octets), step):
            client.feed(octets[at : at + step])
        told, *closes = sorted(client.read(), key=lambda r: r.kind.name)[-2:]
        assert told.kind is (Basic.Nack if has_alarm else Basic.Ack)
        assert told.method.delivery_tag == 2
        seen.append([(r.channel, r.kind, r.method.reply_text, r.method.class_id) for r in closes])
    assert seen[0] == seen[1]
    assert len(seen[0]) == 1


def session() -> bytes:
    """Publishes of many looks on two channels."""
    plain = publish_octets(b"abc")
    number = publish_octets(b"abc", flags=PRIORITY, properties=b"\x05")
    cc = {"CC": Field("array", [text("q")])}
    copied = publish_octets(b"c", key="nowhere", flags=HEADERS, properties=encode_table(cc))
    pieces = [frame(BODY, 2, piece) for piece in (b"", b"a", b"b" * 9000, b"c" * 9000)]
    many = octets_of(Basic.Publish, 2, routing_key="q") + header_frame(2, 18_001, 0, b"")
    return b"".join(
        [
            plain * 5,
            number * 3,
            copied * 3,
            plain,
            publish_octets(b"") * 4,
            publish_octets(b"2" * 300, channel=2) * 3,
            many + pieces[0] + pieces[1],
            plain * 2,
            pieces[2],
            publish_octets(b"x" * 131_064) * 2,
            publish_octets(b"x" * 131_065) * 2,
            pieces[3],
            publish_octets(b"mandatory", key="nowhere", mandatory=True, channel=2) * 2,
            plain,
        ]
    )


@pytest.mark.parametrize("has_alarm", [True, False])
@pytest.mark.parametrize("step", [1, 7, 100, 3001])
def test_pieces_of_any_size_are_answered_as_the_whole(has_alarm: bool, step: int) -> None:
    seen = []
    octets = session()
    for size in (step, len(octets)):
        site = make_site(memory=0)
        client = site.connect(channels=2)
        client.queue()
        for channel in (1, 2):
            client.ask(Confirm.Select, channel)
        site.broker.is_disk_short = has_alarm
        for at in range(0, len(octets), size):
            client.feed(octets[at : at + size])
        counters = site.broker.counters
        seen.append(
            (
                outcomes(client.read()),
                messages(site),
                counters.messages_received_confirm,
                counters.message_sizes.read(),
            )
        )
    assert seen[0] == seen[1]
    told, held, received, _ = seen[0]
    assert received == len(told[1]) + len(told[2]) == 23 + 6
    assert {kind for kinds in told.values() for kind in kinds.values()} == {
        Basic.Nack if has_alarm else Basic.Ack
    }
    assert held == (0 if has_alarm else 27)

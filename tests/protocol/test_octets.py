"""Whatever octets come, nothing but AMQP's own answers come out.

A `Site` fails a test at once if the broker notes an error of its own, or sends anything that is
no proper frame.
"""

from hypothesis import example, given
from hypothesis import strategies as st

from broker.protocol.states import ConnectionState
from broker.wire.frames import FRAME_HEADER, PROTOCOL_HEADER, frame
from broker.wire.methods import commands
from tests.protocol.client import (
    Basic,
    Channel,
    Client,
    Confirm,
    Exchange,
    Queue,
    Site,
    Tx,
    octets_of,
    publish_octets,
)
from tests.protocol.login import start, tuned
from tests.wire.profiles import examples
from tests.wire.strategies import METHOD_CLASSES

CLOSES = (commands.Connection.Close, Channel.Close)
CODES = {
    0, 311, 312, 313, 320, 402, 403, 404, 405, 406, 501, 502, 503, 504, 505, 506, 530, 540,
}  # fmt: skip

STEPS = [
    octets_of(Queue.Declare, queue="q"),
    octets_of(Exchange.Declare, exchange="x", exchange_type="topic"),
    octets_of(Queue.Bind, queue="q", exchange="x", routing_key="#"),
    octets_of(Confirm.Select),
    octets_of(Basic.Qos, prefetch_count=3),
    octets_of(Basic.Consume, queue="q", consumer_tag="ct"),
    publish_octets(b"hello", exchange="x", key="a.b") * 3,
    octets_of(Basic.Ack, delivery_tag=1) + octets_of(Basic.Ack, delivery_tag=2),
    octets_of(Basic.Nack, delivery_tag=3, requeue=True),
    octets_of(Channel.Open, 2) + octets_of(Tx.Select, 2),
    publish_octets(b"x" * 50, channel=2),
    octets_of(Tx.Commit, 2),
    octets_of(Basic.Get, 2, queue="q"),
    octets_of(Basic.Cancel, consumer_tag="ct"),
    octets_of(Queue.Delete, queue="q"),
    octets_of(Channel.Close, 2),
    octets_of(commands.Connection.Close, 0),
]
LIFE = b"".join(STEPS)
HEADER_0_9 = b"AMQP\x01\x01\x00\x09"

kinds = st.sampled_from([1, 1, 2, 3, 8, 0, 4, 255])
numbers = st.sampled_from([0, 1, 1, 1, 2, 2047, 65535])
payloads = st.one_of(
    st.binary(max_size=30),
    st.builds(
        lambda cls, octets: cls.index.to_bytes(4, "big") + octets,
        st.sampled_from(METHOD_CLASSES),
        st.one_of(st.binary(max_size=30), st.integers(0, 40).map(bytes)),
    ),
    st.builds(
        lambda flags, octets: b"\x00\x3c\x00\x00" + bytes(8) + flags.to_bytes(2, "big") + octets,
        st.integers(0, 0xFFFF),
        st.binary(max_size=20),
    ),
)
any_frames = st.lists(st.builds(frame, kinds, numbers, payloads), max_size=8).map(b"".join)


def clients() -> list[Client]:
    """One in each stage of a connection."""
    site = Site()
    greeted, _ = start(site)
    running = site.connect()
    running.queue("q")
    confirming = site.connect(frame_max=4096)
    confirming.ask(Confirm.Select)
    amid = site.connect()
    amid.tell(Basic.Publish, routing_key="q")
    return [site.greet(), greeted, tuned(site), running, confirming, amid]


def check(client: Client) -> None:
    """What came is proper, and the broker serves the next one."""
    for item in client.read():
        if item.kind in CLOSES:
            assert item.method.reply_code in CODES
            assert len(item.method.reply_text.encode()) <= 255
    assert len(client.connection._rest) <= 131072 + 16
    client.connection.receive_eof()
    client.site.collect()
    assert client.connection.state is ConnectionState.CLOSED


def check_site(site: Site) -> None:
    """Nothing is left but what is durable, and another client is served."""
    client = site.connect()
    client.queue("next")
    client.publish(b"hello", key="next")
    client.tell(Basic.Get, queue="next", no_ack=True)
    assert client.bodies() == [b"hello"]
    client.connection.receive_eof()
    queues = site.vhost.queues.values()
    assert all(not queue.unacked_count and not len(queue.consumers) for queue in queues)
    assert site.broker.memory_used == sum(queue.ready_bytes for queue in queues)
    assert site.broker.connections == {}
    assert not site.broker.touched


@examples(60)
@given(st.one_of(st.binary(max_size=60), any_frames))
def test_any_octets_in_any_stage(octets: bytes) -> None:
    everybody = clients()
    for client in everybody:
        before = client.connection.frame_max
        client.reader.frame_max = 131072
        client.feed(octets[:11])
        client.feed(octets[11:])
        # A tune-ok among them may be a real one.
        assert client.connection.frame_max in (before, 4096) or before == 8192
        check(client)
    check_site(everybody[0].site)


def mutations() -> st.SearchStrategy[list[tuple[int, int, bytes]]]:
    """(place, octets that are taken out, octets that are put in)."""
    one = st.tuples(
        st.integers(0, len(LIFE)),
        st.sampled_from([0, 0, 1, 1, 1, 4, 30]),
        st.one_of(
            st.binary(max_size=1),
            st.sampled_from([b"\x00", b"\xce", b"\xff\xff\xff\xff", bytes(8)]),
            payloads,
        ),
    )
    return st.lists(one, min_size=1, max_size=5)


@examples(100)
@given(mutations(), st.integers(1, 400))
def test_spoilt_sessions(changes: list[tuple[int, int, bytes]], chunk: int) -> None:
    octets = LIFE
    for place, out, put_in in changes:
        octets = octets[:place] + put_in + octets[place + out :]
    site = Site()
    client = site.connect(frame_max=4096)
    for at in range(0, len(octets), chunk):
        client.feed(octets[at : at + chunk])
    check(client)
    check_site(site)


@examples(60)
@given(st.integers(0, len(LIFE)))
def test_sessions_that_break_off(length: int) -> None:
    site = Site()
    client = site.connect()
    client.feed(LIFE[:length])
    check(client)
    check_site(site)


def test_life_itself_is_a_good_one() -> None:
    client = Site().connect()
    for step in STEPS:
        client.feed(step)
    received = client.read()
    assert not [item for item in received if item.kind in CLOSES]
    assert isinstance(received[-1].method, commands.Connection.CloseOk)


@examples(40)
@example(HEADER_0_9[:5])
@given(st.binary(max_size=20))
def test_any_octets_instead_of_a_protocol_header(octets: bytes) -> None:
    site = Site()
    client = site.greet()
    client.connection.receive_data(octets, 0.0)
    sent = client.connection.data_to_send()
    if PROTOCOL_HEADER.startswith(octets) or HEADER_0_9.startswith(octets):
        assert sent == b""
    elif not octets.startswith((PROTOCOL_HEADER, HEADER_0_9)):
        assert sent == PROTOCOL_HEADER
        assert client.connection.state is ConnectionState.CLOSED


@examples(30)
@given(st.integers(0, 255), st.integers(0, 65535), st.integers(0, 2**32 - 1))
def test_any_frame_header_alone(kind: int, channel: int, size: int) -> None:
    for client in clients()[1:]:
        client.feed(FRAME_HEADER.pack(kind, channel, size))
        check(client)

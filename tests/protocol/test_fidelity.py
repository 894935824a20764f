"""Contents pass as they came: header and body bit for bit, but for what the broker has to edit."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.reply import REPLY_TO_NAME
from broker.wire.frames import BODY, frame
from broker.wire.methods import shortstr
from broker.wire.properties import (
    EXPIRATION,
    HEADERS,
    REPLY_TO,
    USER_ID,
    check_properties,
    header_frame,
)
from broker.wire.table import Field, Table, encode_table
from tests.protocol.client import (
    Basic,
    Client,
    Site,
    content_octets,
    octets_of,
    publish_octets,
    text,
)
from tests.wire.contents import flags_and_octets, raw_properties
from tests.wire.profiles import examples
from tests.wire.strategies import tables


def delivered_header(site: Site, client: Client, *chunks: bytes) -> bytes:
    """The property flags and octets of a message, fed in chunks, as its consumer gets it."""
    consumer = site.connect(frame_max=4096)
    consumer.reader.frame_max = 131072
    client.queue()
    consumer.consume(no_ack=True)
    for chunk in chunks:
        client.feed(chunk)
    (item,) = consumer.read()
    return item.header[12:]


# What the broker looks at is left out here: it has tests of its own.
quiet_properties = raw_properties.map(
    lambda chosen: {f: o for f, o in chosen.items() if f not in (EXPIRATION, USER_ID)}
)


def is_routing(octets: bytes) -> bool:
    return b"\x02CC" in octets or b"\x03BCC" in octets or REPLY_TO_NAME.encode() in octets


@examples(60)
@given(quiet_properties, st.binary(max_size=40), st.booleans(), st.booleans())
def test_header_and_body_come_out_as_they_went_in(
    chosen: dict[int, bytes], body: bytes, together: bool, same_size: bool
) -> None:
    flags, octets = flags_and_octets(chosen)
    if is_routing(octets):
        return
    site = Site()
    client, other = site.connect(), site.connect(frame_max=131072 if same_size else 4096)
    other.reader.frame_max = 131072
    client.queue()
    tag = other.consume(no_ack=True)
    content = publish_octets(body, flags=flags, properties=octets)
    for chunk in [content] if together else [content[at : at + 1] for at in range(len(content))]:
        client.feed(chunk)
    client.feed(content * 3)
    received = other.read()
    header = header_frame(1, len(body), flags, octets)[7:-1]
    assert [(item.header, item.body) for item in received] == [(header, body)] * 4
    other.ask(Basic.Cancel, consumer_tag=tag)
    client.feed(content)
    other.tell(Basic.Get, queue="q")
    (item,) = other.read()
    assert (item.header, item.body) == (header, body)


ODD: dict[str, tuple[int, bytes]] = {
    "duplicate keys": (HEADERS, b"\x00\x00\x00\x06\x01aV\x01aV"),
    "unsigned widths": (
        HEADERS,
        encode_table({"i": Field("unsignedint", 7), "u": Field("unsignedshort", 7)}),
    ),
    "the other long": (HEADERS, b"\x00\x00\x00\x0b\x01kL" + bytes(8)),
    "a true that is not one": (HEADERS, b"\x00\x00\x00\x04\x01kt\x07"),
    "signalling nan": (HEADERS, b"\x00\x00\x00\x07\x01kf\x7f\xa0\x00\x01"),
    "a name that is no text": (HEADERS, b"\x00\x00\x00\x04\x02\xff\xfeV"),
    "strings that are no text": (0x8000 | REPLY_TO, b"\x02\xff\xfe\x01\x80"),
    "a late timestamp": (0x0040, b"\xff" * 8),
    "empty strings": (0xC000, b"\x00\x00"),
    "an empty table": (HEADERS, bytes(4)),
    "unsorted names": (HEADERS, encode_table({"z": text("1"), "a": text("2")})),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("together", [True, False])
def test_what_pamqp_cannot_encode_again_passes(
    site: Site, client: Client, name: str, *, together: bool
) -> None:
    flags, octets = ODD[name]
    check_properties(octets, 0, len(octets), flags)
    content = publish_octets(b"x", flags=flags, properties=octets)
    chunks = [content] if together else [content[at : at + 9] for at in range(0, len(content), 9)]
    found = delivered_header(site, client, *chunks)
    assert found == flags.to_bytes(2, "big") + octets


@examples(50)
@given(quiet_properties, tables, st.integers(0, 3))
def test_bcc_is_cut_out_and_nothing_else(
    chosen: dict[int, bytes], table: Table, place: int
) -> None:
    for name in ("BCC", "CC"):
        table.pop(name, None)
    chosen.pop(REPLY_TO, None)
    bcc = {"BCC": Field("array", [text("hidden")])}
    entries = list(table.items())
    with_bcc = encode_table(dict([*entries[:place], *bcc.items(), *entries[place:]]))
    wanted = chosen | {HEADERS: encode_table(table)}
    given_ = chosen | {HEADERS: with_bcc}

    def flat(parts: dict[int, bytes]) -> tuple[int, bytes]:
        return flags_and_octets({flag: parts[flag] for flag in sorted(parts, reverse=True)})

    site = Site()
    client = site.connect()
    client.queue("hidden")
    flags, octets = flat(given_)
    found = delivered_header(site, client, publish_octets(b"x", flags=flags, properties=octets))
    flags, octets = flat(wanted)
    assert found == flags.to_bytes(2, "big") + octets
    hidden = site.connect()
    hidden.reader.frame_max = 131072
    hidden.tell(Basic.Get, queue="hidden")
    (item,) = hidden.read()
    assert item.header[12:] == found


def test_cc_stays_where_it_is(site: Site, client: Client) -> None:
    headers = encode_table({"a": text("1"), "CC": Field("array", [text("nope")]), "b": text("2")})
    content = publish_octets(b"x", flags=HEADERS, properties=headers)
    assert delivered_header(site, client, content) == b"\x20\x00" + headers


def test_bcc_of_a_wrong_type_inside_is_not_routed_by(site: Site, client: Client) -> None:
    client.queue("a")
    items = [Field("byte", 1), text("a"), Field("array", [text("q")]), Field("void", None)]
    headers = encode_table({"BCC": Field("array", items)})
    client.publish(b"x", key="nope", flags=HEADERS, properties=headers)
    assert site.vhost.queues["a"].messages == 1


@pytest.mark.parametrize("size", [0, 1, 4088, 4089, 131064, 131065, 300_000])
@pytest.mark.parametrize(("sent", "read"), [(4096, 131072), (131072, 4096), (4096, 4096)])
def test_body_is_cut_for_who_reads_it(size: int, sent: int, read: int) -> None:
    site = Site()
    client, reader = site.connect(frame_max=sent), site.connect(frame_max=read)
    body = bytes(range(251)) * (size // 251 + 1)
    client.queue()
    reader.consume(no_ack=True)
    client.publish(body[:size])
    assert reader.bodies() == [body[:size]]


@examples(40)
@given(
    st.lists(st.sampled_from([0, 1, 5, 100, 4087, 4088]), min_size=1, max_size=12),
    st.sampled_from([4096, 131072]),
)
def test_body_in_frames_of_any_size_arrives(pieces: list[int], read: int) -> None:
    site = Site()
    client, reader = site.connect(frame_max=4096), site.connect(frame_max=read)
    client.queue()
    reader.consume(no_ack=True)
    body = b"".join(bytes([number]) * size for number, size in enumerate(pieces))
    frames, at = [], 0
    for size in pieces:
        frames.append(frame(BODY, 1, body[at : at + size]))
        at += size
    # Nothing may follow a complete body, not even an empty frame.
    while frames and frames[-1] == frame(BODY, 1, b""):
        frames.pop()
    client.feed(
        octets_of(Basic.Publish, routing_key="q")
        + header_frame(1, len(body), 0, b"")
        + (b"".join(frames) if body else b"")
    )
    assert reader.bodies() == [body]


def test_messages_of_a_run_keep_their_own_headers(site: Site, client: Client) -> None:
    client.queue()
    client.consume(no_ack=True)
    rows: list[dict[str, Any]] = [
        {"flags": 0, "properties": b""},
        {"flags": 0x0800, "properties": b"\x05"},
        {"flags": 0x0800, "properties": b"\x06"},
        {"flags": 0x8000, "properties": shortstr("text/plain")},
        {"flags": 0x8000, "properties": shortstr("text/html!")},
        {"flags": 0, "properties": b""},
    ]
    octets = [publish_octets(b"%d" % n, **row) for n, row in enumerate(rows)]
    client.feed(b"".join(octets))
    assert [(item.header[12:], item.body) for item in client.read()] == [
        (row["flags"].to_bytes(2, "big") + row["properties"], b"%d" % n)
        for n, row in enumerate(rows)
    ]


def test_returned_message_is_the_one_that_was_sent(client: Client) -> None:
    flags, octets = ODD["unsigned widths"]
    client.publish(b"x" * 5000, key="nope", mandatory=True, flags=flags, properties=octets)
    (item,) = client.read()
    content = content_octets(b"x" * 5000, flags=flags, properties=octets)
    assert content.startswith(b"\x02\x00\x01" + len(item.header).to_bytes(4, "big") + item.header)
    assert item.body == b"x" * 5000


@pytest.mark.parametrize("together", [True, False])
def test_contents_of_several_channels_may_be_interleaved(site: Site, *, together: bool) -> None:
    client = site.connect(channels=4)
    client.queue()
    client.consume(channel=4, no_ack=True)
    beat = b"\x08\x00\x00\x00\x00\x00\x00\xce"
    contents = []
    for channel in (1, 2, 3):
        pieces = [frame(BODY, channel, bytes([channel]) * size) for size in (10, 5000, 1)]
        method = octets_of(Basic.Publish, channel, routing_key="q")
        contents.append([method, header_frame(channel, 5011, 0, b""), *pieces])
    frames = [frame for step in zip(*contents, strict=True) for frame in (*step, beat)]
    for chunk in [b"".join(frames)] if together else frames:
        client.feed(chunk)
    assert client.bodies() == [bytes([channel]) * 5011 for channel in (1, 2, 3)]

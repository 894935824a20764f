"""Messages as tuples: their parts, and their content for other channels."""

from hypothesis import given
from hypothesis import strategies as st

from broker.core.message import (
    EXCHANGE,
    MESSAGE_OVERHEAD,
    ROUTING_KEY,
    TAIL,
    body_of,
    content_for,
    framing,
    header_of,
    make_origin,
    size_of,
)
from broker.wire.frames import BODY, body_frames, frame
from broker.wire.methods import commands, encode_method, make
from broker.wire.properties import header_frame
from tests.wire.profiles import examples
from tests.wire.strategies import any_text


@examples(60)
@given(any_text, any_text, st.integers(1, 2**64 - 1))
def test_tail_of_an_origin_ends_a_deliver_frame(exchange: str, key: str, tag: int) -> None:
    origin = make_origin(exchange, key)
    deliver = make(
        commands.Basic.Deliver,
        consumer_tag="ct",
        delivery_tag=tag,
        redelivered=False,
        exchange=exchange,
        routing_key=key,
    )
    octets = encode_method(7, deliver)
    assert (origin[EXCHANGE], origin[ROUTING_KEY]) == (exchange, key)
    assert octets.endswith(tag.to_bytes(8, "big") + origin[TAIL])


def test_framing_differs_by_channel_and_by_frame_size() -> None:
    all_of_them = {framing(c, s) for c in (1, 2, 65535) for s in (4096, 4097, 131072)}
    assert len(all_of_them) == 9


@examples(60)
@given(st.binary(max_size=9000), st.integers(1, 65535))
def test_parts_of_a_message(body: bytes, channel: int) -> None:
    header = header_frame(1, len(body), 0, b"")
    content = header + b"".join(body_frames(1, body, 4096))
    message = (content, len(header), make_origin("", "q"), framing(1, 4096))
    assert header_of(message) == header
    assert body_of(message) == body
    assert content_for(message, 1, 4096) is content
    assert content_for(message, channel, 131072) == header_frame(
        channel, len(body), 0, b""
    ) + b"".join(body_frames(channel, body, 4096))
    assert content_for(message, channel, 512) == header_frame(
        channel, len(body), 0, b""
    ) + b"".join(body_frames(channel, body, 512 if len(body) > 504 else 4096))


def test_size_counts_content_and_overhead() -> None:
    header = header_frame(1, 3, 0, b"")
    message = (header + frame(BODY, 1, b"abc"), len(header), make_origin("", "q"), 1)
    assert size_of([]) == 0
    assert size_of([message] * 3) == 3 * (len(header) + 11 + MESSAGE_OVERHEAD)

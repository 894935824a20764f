"""Messages, as plain tuples.

A broker holds millions of them, and makes each in one expression: an exact tuple of octets, text
and integers takes 40 ns where a class with slots takes 270, and Python's collector stops tracking
it. So these are type aliases, with the places of their fields named here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from operator import itemgetter
from typing import Final, TypeAlias

from broker.wire import frames, properties
from broker.wire.methods import shortstr
from broker.wire.table import Field, Table

Origin: TypeAlias = "tuple[str, str, bytes, bool, int | None, int | None]"
"""Where a message was published, and whether it is persistent: (exchange, routing key, tail,
persistent, published, ttl). The tail is what ends the method frame of its first delivery: a cleared
redelivered bit, both names as short strings, frame end. `published` is message time in
milliseconds, None where nobody asks; `ttl` is the expiration that the message came with, in
milliseconds, None if it came with none."""

Message: TypeAlias = tuple[bytes, int, Origin, int]
"""(content, header_size, origin, framing). `content` is the header frame, `header_size` octets,
and the body frames behind it, as they came from the publisher; `framing` is the publisher's."""

Entry: TypeAlias = tuple[int, Message, int]
"""A message in a queue: (number, message, times returned). Numbers only grow, are never reused
within a queue, and say where a returned message goes back to."""

CONTENT: Final = 0
HEADER_SIZE: Final = 1
ORIGIN: Final = 2
FRAMING: Final = 3

BLIND: Final = 1 << 50
"""Beside the framing: the header has BCC."""
BCC: Final = "BCC"

EXCHANGE: Final = 0
ROUTING_KEY: Final = 1
TAIL: Final = 2
PERSISTENT: Final = 3
PUBLISHED: Final = 4
TTL: Final = 5

NUMBER: Final = 0
MESSAGE: Final = 1
RETURNS: Final = 2

MESSAGE_OVERHEAD: Final = 250
"""Octets of memory one queued message takes beside its content: two tuples (96 and 88), the
header of the octets object (33), a number (32); measured on CPython 3.11."""

content_of = itemgetter(CONTENT)
header_size_of = itemgetter(HEADER_SIZE)
message_of = itemgetter(MESSAGE)
number_of = itemgetter(NUMBER)
origin_of = itemgetter(ORIGIN)


def framing(channel: int, frame_max: int) -> int:
    """What decides whether a message's frames can be passed on as they are: the channel number
    they carry and the frame size they were cut for."""
    return frame_max << 16 | channel


def make_origin(
    exchange: str,
    routing_key: str,
    *,
    persistent: bool = False,
    published: int | None = None,
    ttl: int | None = None,
) -> Origin:
    """The origin of messages published to `exchange` with `routing_key`."""
    tail = b"\x00" + shortstr(exchange) + shortstr(routing_key) + b"\xce"
    return exchange, routing_key, tail, persistent, published, ttl


def with_time(origin: Origin, published: int | None, ttl: int | None = None) -> Origin:
    """The same origin at this time."""
    return (*origin[:PUBLISHED], published, ttl)


def header_of(message: Message) -> bytes:
    """The header frame of a message, as it was received."""
    return message[CONTENT][: message[HEADER_SIZE]]


def body_of(message: Message) -> bytes:
    """The body of a message."""
    return frames.body(message[CONTENT], message[HEADER_SIZE])


def content_for(message: Message, channel: int, frame_max: int) -> bytes:
    """The content frames of a message for a channel number and a frame size."""
    if message[FRAMING] == framing(channel, frame_max):
        return message[CONTENT]
    return reframed(message, channel, frame_max)


def reframed(message: Message, channel: int, frame_max: int) -> bytes:
    """The same where they are known to differ from what was published."""
    content, header_size, _, framed = message
    if framed & BLIND:
        content, header_size, *_ = without_blind_copies(message)
    return frames.reframe(content, header_size, channel, frame_max)


def with_blind_copies(message: Message, header: bytes) -> Message:
    """What is kept of a message that came with this header frame: its BCC too, since its dead
    letters go there. Whoever gets it does not see that (`content_for`)."""
    if b"\x03BCC" not in header:
        return message
    copies = properties.headers_table(header).get(BCC)
    if copies is None:
        return message
    content, header_size, origin, framed = message
    edited = properties.with_headers(content[:header_size], {BCC: copies})
    return edited + content[header_size:], len(edited), origin, framed | BLIND


def without_blind_copies(message: Message) -> Message:
    """A message as others see it."""
    content, header_size, origin, framed = message
    header = seen(content[:header_size])
    return header + content[header_size:], len(header), origin, framed & ~BLIND


def seen(header: bytes) -> bytes:
    """A header frame without BCC."""
    if b"\x03BCC" in header and BCC in properties.headers_table(header):
        return properties.without_header(header, BCC)
    return header


def size_of(messages: Collection[Message]) -> int:
    """Octets of memory that these messages count for in one queue."""
    return sum(map(len, map(content_of, messages))) + MESSAGE_OVERHEAD * len(messages)


def entry_size(entry: Entry) -> int:
    """Octets of memory that this entry counts for."""
    return len(entry[MESSAGE][CONTENT]) + MESSAGE_OVERHEAD


def entries_size(entries: Collection[Entry]) -> int:
    """Octets of memory that these entries count for."""
    sizes = map(len, map(content_of, map(message_of, entries)))
    return sum(sizes) + MESSAGE_OVERHEAD * len(entries)


def counted(message: Message, times: int) -> Message:
    """The message as it is delivered after it came back so often: with an `x-delivery-count`."""
    content, header_size, origin, framed = message
    count: Table = {"x-delivery-count": Field("long", times)}
    header = properties.with_headers(content[:header_size], count)
    return header + content[header_size:], len(header), origin, framed


def body_bytes(message: Message) -> int:
    """Octets of a message's body, as its header frame says them."""
    return int.from_bytes(message[CONTENT][11:19], "big")


def bodies_bytes(entries: Iterable[Entry]) -> int:
    """Octets of the bodies of these."""
    return sum(body_bytes(entry[MESSAGE]) for entry in entries)

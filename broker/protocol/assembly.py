"""The content of one publish while its frames come in one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from broker.core.message import Message, Origin
from broker.errors import AMQPError, ReplyCode
from broker.protocol.remainder import Piece, piece_of
from broker.wire import properties
from broker.wire.frames import FRAME_MIN_SIZE, FRAME_OVERHEAD, HEADER, body_frames, frame

if TYPE_CHECKING:
    from broker.core.broker import Broker
    from broker.protocol.channel import Channel
    from broker.protocol.route import Route

NO_HEADER = "expected content header for class 60, got non content header frame instead"
PUBLISH = 0x003C0028
"""Class and method of basic.publish, which errors about a content name."""
BODY_SIZE_MAX = 536_870_912
"""RabbitMQ's hard limit on announced bodies, above max_message_size."""
SMALL = FRAME_MIN_SIZE - FRAME_OVERHEAD
"""Octets below which body frames are cut anew, so that tiny frames cost no more than large."""


class Assembly:
    """A header frame and body frames. They are kept as they came, but for tiny ones. What is held
    counts in `Broker.memory_used` until `drop`."""

    __slots__ = (
        "_broker",
        "_frames",
        "_small",
        "body_size",
        "flags",
        "header",
        "received",
        "route",
    )

    def __init__(self, broker: Broker, route: Route) -> None:
        self.route = route
        self.header: bytes | None = None
        self.flags = 0
        self.body_size = 0
        self._broker = broker
        self.received = 0
        self._frames: list[Piece] = []
        self._small = bytearray()

    def add_header(self, channel: Channel, payload: bytes) -> None:
        """Takes the payload of the header frame; raises what is wrong with it."""
        class_id = int.from_bytes(payload[:2], "big")
        if class_id != PUBLISH >> 16:
            raise AMQPError(
                ReplyCode.UNEXPECTED_FRAME,
                f"expected content header for class 60, got one for class {class_id} instead",
                PUBLISH,
            )
        if payload[2:4] != b"\x00\x00":
            # RabbitMQ does not take it for a header frame either.
            raise AMQPError(ReplyCode.UNEXPECTED_FRAME, NO_HEADER, PUBLISH)
        self.body_size = int.from_bytes(payload[4:12], "big")
        check_body_size(self.body_size, self._broker.limits.message_size_max)
        self.flags = int.from_bytes(payload[12:14], "big")
        check_header(payload, 14, len(payload), self.flags)
        self.header = frame(HEADER, channel.number, payload)

    def add_body(self, channel: Channel, chunk: bytes, at: int, end: int) -> None:
        """Takes the body frame `chunk[at:end]`."""
        size = end - at - FRAME_OVERHEAD
        if self.received + size > self.body_size:
            raise AMQPError(
                ReplyCode.FRAME_ERROR, "content body frame exceeds remaining content size", PUBLISH
            )
        if SMALL <= size <= channel.connection.frame_max - FRAME_OVERHEAD:
            self.add_frame(channel, size, [piece_of(chunk, at, end)])
        elif size:
            self.add_small(channel, chunk[at + 7 : end - 1])

    def add_frame(self, channel: Channel, size: int, pieces: Sequence[Piece]) -> None:
        """Takes a body frame with `size` octets of body that can be passed on as it is."""
        self.received += size
        self._broker.memory_used += size
        self._cut_small(channel)
        self._frames += pieces

    def add_small(self, channel: Channel, body: bytes) -> None:
        """Takes the octets of a body frame that is to be cut anew."""
        self.received += len(body)
        self._broker.memory_used += len(body)
        self._small += body
        if len(self._small) >= channel.connection.frame_max - FRAME_OVERHEAD:
            self._cut_small(channel)

    def _cut_small(self, channel: Channel) -> None:
        if self._small:
            frame_max = channel.connection.frame_max
            self._frames += body_frames(channel.number, self._small, frame_max)
            self._small.clear()

    @property
    def held(self) -> int:
        """Octets of body that it holds."""
        return self.received

    @property
    def is_complete(self) -> bool:
        """Whether all that was announced has come."""
        return self.header is not None and self.received == self.body_size

    def message(self, channel: Channel, origin: Origin) -> Message:
        """The whole."""
        assert self.header is not None
        self._cut_small(channel)
        content = b"".join([self.header, *self._frames])
        return content, len(self.header), origin, channel.framing

    def drop(self) -> None:
        """It holds nothing any more."""
        self._broker.memory_used -= self.received
        self.received = 0
        self._frames.clear()


def check_body_size(body_size: int, message_size_max: int) -> None:
    """Raises what a body of this announced size is answered with, before any of it is taken."""
    if body_size > BODY_SIZE_MAX:
        raise AMQPError(
            ReplyCode.FRAME_ERROR,
            f"content body size {body_size} exceeds maximum allowed size {BODY_SIZE_MAX}",
            PUBLISH,
        )
    if body_size > message_size_max:
        raise AMQPError(
            ReplyCode.PRECONDITION_FAILED,
            f"message size {body_size} is larger than configured max size {message_size_max}",
            PUBLISH,
        )


def check_header(octets_: bytes, at: int, end: int, flags: int) -> None:
    """Raises SYNTAX_ERROR unless `octets_[at:end]` is a property list with these flags."""
    try:
        properties.check_properties(octets_, at, end, flags)
    except properties.PropertiesError:
        raise AMQPError(ReplyCode.SYNTAX_ERROR, "malformed content header", PUBLISH) from None

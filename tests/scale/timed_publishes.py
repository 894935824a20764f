"""Messages that wait, each for a time of its own: at an exchange that delays, or in a queue until
they expire."""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from enum import Enum
from typing import Any, Final

from conformance.channel import Channel
from conformance.fields import Typed
from conformance.methods import encode_frame, encode_header, encode_method
from tests.scale.publishes import BODY, CHANNEL, HEADER, METHOD

WAIT_MAX_MS: Final = 86_400_000
"""A day: no wait is longer."""
TARGET: Final = "arrived"
"""The queue in which messages arrive in the end."""
DUE: Final = struct.Struct(">Q")
"""How each body begins: when its message is due, in nanoseconds of the monotonic
clock, which all processes share; 0 if nobody looks."""
_MARK: Final = 86_399_999
_WAIT: Final = struct.Struct(">q")


class Kind(Enum):
    """How messages wait."""

    DELAYED = "delayed"
    EXPIRING = "expiring"

    def declare(self, channel: Channel) -> None:
        """Makes where they wait and where they arrive, all of it durable."""
        channel.declare_queue(TARGET, durable=True)
        if self is Kind.DELAYED:
            arguments = {"x-delayed-type": "direct"}
            channel.declare_exchange(
                self.value, "x-delayed-message", durable=True, arguments=arguments
            )
            channel.bind(TARGET, self.value, TARGET)
        else:
            dead: dict[str, Any] = {
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": TARGET,
            }
            channel.declare_queue(self.value, durable=True, arguments=dead)

    def frames(self, size: int) -> tuple[bytes, bytes]:
        """A publish with a body of `size` octets, in two parts: what comes before and after the
        wait."""
        properties: dict[str, Any] = {"delivery_mode": 2}
        if self is Kind.DELAYED:
            method = encode_method("basic.publish", exchange=self.value, routing_key=TARGET)
            properties["headers"] = {"x-delay": Typed("l", _MARK)}
        else:
            method = encode_method("basic.publish", routing_key=self.value)
            properties["expiration"] = str(_MARK)
        head = encode_frame(METHOD, CHANNEL, method)
        head += encode_frame(HEADER, CHANNEL, encode_header(size, properties))
        before, after = head.split(self.wait_octets(_MARK))
        return before, after + encode_frame(BODY, CHANNEL, bytes(size))[: -size - 1]

    def wait_octets(self, wait_ms: int) -> bytes:
        """A wait of milliseconds as it stands in the properties, always of one length."""
        if self is Kind.DELAYED:
            return _WAIT.pack(wait_ms)
        return b"%08d" % wait_ms


class TimedPublishes:
    """Publishes persistent messages of one kind, with bodies of `size` octets."""

    def __init__(self, channel: Channel, kind: Kind, size: int) -> None:
        self._channel = channel
        self._kind = kind
        self._before, self._after = kind.frames(size)
        self._end = b"x" * (size - DUE.size) + b"\xce"
        self._sent = 0
        self._confirmed = 0
        channel.call("confirm.select")

    def send(self, waits_ms: Sequence[int], *, watched: int = 0) -> None:
        """Publishes one message for each wait; the bodies of the first ones, which somebody
        watches, say when they are due. Waits as long as the broker does not read."""
        now = time.monotonic_ns()
        pieces = []
        for place, wait_ms in enumerate(waits_ms):
            due = DUE.pack(now + wait_ms * 1_000_000 if place < watched else 0)
            wait = self._kind.wait_octets(wait_ms)
            pieces += [self._before, wait, self._after, due, self._end]
        self._sent += len(waits_ms)
        socket = self._channel.connection.socket
        socket.settimeout(self._channel.connection.timeout_s)
        socket.sendall(b"".join(pieces))

    def wait_until_durable(self) -> None:
        """Waits until all that was sent is confirmed."""
        while self._confirmed < self._sent:
            self._confirmed = self._channel.expect("basic.ack")["delivery_tag"]

"""Publishes that cost their sender next to nothing: a block of them is encoded once, and only the
numbers in the bodies change from one write to the next."""

from __future__ import annotations

import sys
from array import array

from conformance.channel import Channel
from conformance.methods import encode_frame, encode_header, encode_method

METHOD, HEADER, BODY = 1, 2, 3
CHANNEL = 1
NUMBER_SIZE = 4
"""Octets of the number that each body begins with, the most significant one first."""
SIZE_MIN, SIZE_MAX = NUMBER_SIZE, 100_000
"""Octets of a body: in one frame, with a number."""
BLOCK_OCTETS = 1 << 18
"""Octets of one write, about."""


def numbers(first: int, count: int) -> bytes:
    """Consecutive numbers as they stand in bodies."""
    values = array("I", range(first, first + count))
    if sys.byteorder == "little":
        values.byteswap()
    return values.tobytes()


def content(size: int, *, persistent: bool) -> bytes:
    """Header frame and body frame of a message with the number 0."""
    properties = {"delivery_mode": 2} if persistent else b"\0\0"
    return encode_frame(HEADER, CHANNEL, encode_header(size, properties)) + encode_frame(
        BODY, CHANNEL, b"\0" * NUMBER_SIZE + b"x" * (size - NUMBER_SIZE)
    )


class Publishes:
    """Messages to one queue by the default exchange, with bodies of `size` octets.

    After `run` messages the mandatory bit changes, which means nothing where the queue exists: a
    broker that takes equal publishes at once takes so many. 0 leaves all alike.
    """

    def __init__(
        self, queue: str, size: int, *, persistent: bool, at_once: int = 0, run: int = 0
    ) -> None:
        body = content(size, persistent=persistent)
        methods = [
            encode_frame(
                METHOD,
                CHANNEL,
                encode_method("basic.publish", routing_key=queue, mandatory=mandatory),
            )
            for mandatory in (False, True)
        ]
        self._stride = len(methods[0]) + len(body)
        self._number_at = self._stride - size - 1
        self.at_once = at_once or max(1, BLOCK_OCTETS // self._stride)
        if run:
            # Whole pairs of runs, so that blocks continue one another.
            self.at_once = max(1, self.at_once // (2 * run)) * 2 * run
        kinds = [number // run % 2 if run else 0 for number in range(self.at_once)]
        self._block = bytearray(b"".join(methods[kind] + body for kind in kinds))

    def send(self, channel: Channel, first: int, count: int) -> None:
        """Publishes the messages `first` to `first + count - 1` on channel 1; waits as long as the
        broker does not read."""
        socket = channel.connection.socket
        socket.settimeout(channel.connection.timeout_s)
        for begin in range(first, first + count, self.at_once):
            number = min(self.at_once, first + count - begin)
            octets = numbers(begin, number)
            stop = number * self._stride
            for place in range(NUMBER_SIZE):
                at = self._number_at + place
                self._block[at : stop : self._stride] = octets[place::NUMBER_SIZE]
            with memoryview(self._block) as block:
                socket.sendall(block[:stop])

"""A consumer that costs next to nothing: deliveries of one queue all have one length, so it counts
octets, and compares the numbers of a whole read at once."""

from __future__ import annotations

from conformance.channel import Channel
from conformance.methods import encode_frame, encode_method
from tests.scale.publishes import CHANNEL, METHOD, NUMBER_SIZE, content, numbers

BUFFER_OCTETS = 1 << 19
TAG = "c"
FRAME_HEAD = 7
TAG_AT = FRAME_HEAD + 4 + 1 + len(TAG)
"""Where the delivery tag is: behind class, method and consumer tag."""
TAG_SIZE = 8


class OrderError(Exception):
    """What was delivered is not what was published, in its order."""


class Deliveries:
    """Consumes a queue to which `Publishes` sent numbered messages from `first` on, and
    acknowledges many at once, at the latest when a quarter of `prefetch` is due."""

    def __init__(
        self,
        channel: Channel,
        queue: str,
        size: int,
        *,
        persistent: bool,
        prefetch: int = 1000,
        first: int = 0,
    ) -> None:
        self._channel = channel
        method = encode_method("basic.deliver", consumer_tag=TAG, routing_key=queue)
        frame = encode_frame(METHOD, CHANNEL, method)
        message = frame + content(size, persistent=persistent)
        self._head = frame[: FRAME_HEAD + 4]
        self._stride = len(message)
        self._number_at = self._stride - size - 1
        self._buffer = bytearray(max(BUFFER_OCTETS, 2 * self._stride))
        self._filled = 0
        self._first = first
        self._prefetch = prefetch
        self.count = 0
        """Messages that were delivered."""
        self.acked = 0
        channel.call("basic.qos", prefetch_count=prefetch)
        # Without an answer: deliveries are all that comes.
        channel.send("basic.consume", queue=queue, consumer_tag=TAG, nowait=True)

    def receive(self) -> None:
        """Waits for octets, and takes the messages that are complete. Raises OrderError."""
        connection = self._channel.connection
        connection.socket.settimeout(connection.timeout_s)
        with memoryview(self._buffer) as buffer:
            octets = connection.socket.recv_into(buffer[self._filled :])
        if not octets:
            raise ConnectionResetError("the broker closed the connection")
        self._filled += octets
        whole = self._filled // self._stride
        if not whole:
            return
        self._check(whole)
        used = whole * self._stride
        self._buffer[: self._filled - used] = self._buffer[used : self._filled]
        self._filled -= used
        self.count += whole
        if self.count - self.acked >= self._prefetch // 4:
            self.ack()

    def ack(self) -> None:
        """Acknowledges all that was delivered so far."""
        if self.count > self.acked:
            self._channel.send("basic.ack", delivery_tag=self.count, multiple=True)
            self.acked = self.count

    def receive_until(self, count: int) -> None:
        """Takes so many messages in all, and acknowledges the last of them."""
        while self.count < count:
            self.receive()
        self.ack()

    def _check(self, whole: int) -> None:
        first = self._first + self.count
        fields = (
            (self._number_at, numbers(first, whole), "numbers of bodies"),
            (TAG_AT + TAG_SIZE - NUMBER_SIZE, numbers(self.count + 1, whole), "delivery tags"),
        )
        if not self._buffer.startswith(self._head):
            raise OrderError(f"not a delivery: {bytes(self._buffer[:64])!r}")
        stop = whole * self._stride
        for at, expected, what in fields:
            for place in range(NUMBER_SIZE):
                found = self._buffer[at + place : stop : self._stride]
                if found != expected[place::NUMBER_SIZE]:
                    last = first + whole - 1
                    raise OrderError(f"{what} of messages {first} to {last} are not in order")

"""A publisher with confirms and a window."""

from __future__ import annotations

import time

from conformance.channel import Channel
from conformance.client import Connection, DeadlineError
from conformance.crash.bodies import make_body, properties_of, random_size
from conformance.crash.record import Message
from conformance.crash.topology import WAYS
from conformance.crash.worker import WAIT_S, Worker
from conformance.failure import ConformanceError
from conformance.methods import encode_frame, encode_header, encode_method

BACKLOG_MOST = 6_000
"""Messages in all queues above which publishers wait for consumers."""
PERSISTENT_SHARE = 0.85


class Publisher(Worker):
    """Publishes bursts along random ways. `number` names it in its messages."""

    number = 0

    def work(self, connection: Connection) -> None:
        channel = connection.channel()
        channel.call("confirm.select")
        self._waiting: dict[int, Message] = {}
        self._tag = 0
        window = self.chance.choice([1, 20, 200, 500])
        burst = self.chance.choice([1, 5, 50])
        rest_s = self.chance.choice([0.0, 0.0, 0.001, 0.01])
        while not self.ending.is_set():
            if self.record.backlog < BACKLOG_MOST:
                self._publish(channel, self.chance.randint(1, min(burst, window)))
            self._read_confirms(channel, rest_s or 0.0005)
            blocked_since = time.monotonic()
            while len(self._waiting) >= window:
                self._read_confirms(channel, 0.5)
                if time.monotonic() > blocked_since + WAIT_S:
                    raise ConformanceError(f"no confirm within {WAIT_S:g} s")
        # What the broker had sent before it died still counts.
        while True:
            self._read_confirms(channel, WAIT_S)

    def _publish(self, channel: Channel, count: int) -> None:
        octets = []
        now = time.monotonic()
        for _ in range(count):
            exchange, key, queues = self.chance.choice(WAYS)
            message = Message(
                self.number,
                self.record.next_number(self.number),
                exchange,
                key,
                persistent=self.chance.random() < PERSISTENT_SHARE,
                priority=self.chance.randrange(4),
                waits_since=now,
            )
            self._tag += 1
            self._waiting[self._tag] = message
            self.record.publishing(message, queues)
            size = random_size(self.chance)
            octets.append(published(channel, message, size))
        channel.connection.send_raw(b"".join(octets))
        self.counts["published"] += count

    def _read_confirms(self, channel: Channel, timeout_s: float) -> None:
        """Everything that is there, waiting at most this long for the first of it."""
        try:
            while True:
                frame = channel.connection.receive_frame(timeout_s)
                if frame.channel == channel.number:
                    self._confirm(channel.decode(frame).name, channel.decode(frame).fields)
                elif frame.payload[:4] == b"\x00\x0a\x00\x32":
                    raise ConformanceError(f"got {channel.decode(frame)}")
                timeout_s = 0.0001
        except DeadlineError:
            return

    def _confirm(self, name: str, fields: dict[str, int]) -> None:
        if name not in ("basic.ack", "basic.nack"):
            raise ConformanceError(f"expected a confirm, got {name} {fields}")
        tag = fields["delivery_tag"]
        tags = [tag]
        if fields["multiple"]:
            tags = [waiting for waiting in self._waiting if waiting <= tag]
        for each in tags:
            message = self._waiting.pop(each)
            message.confirmed = name == "basic.ack"
            message.waits_since = None
            self.counts["confirmed" if message.confirmed else "refused"] += 1


def published(channel: Channel, message: Message, size: int) -> bytes:
    """The frames of a basic.publish."""
    body = make_body(message.publisher, message.number, size)
    properties = properties_of(
        message.publisher, message.number, message.persistent, message.priority
    )
    method = encode_method(
        "basic.publish", exchange=message.exchange, routing_key=message.routing_key
    )
    step = channel.connection.frame_max - 8
    return b"".join(
        [
            encode_frame(1, channel.number, method),
            encode_frame(2, channel.number, encode_header(size, properties)),
            *(
                encode_frame(3, channel.number, body[start : start + step])
                for start in range(0, size, step)
            ),
        ]
    )

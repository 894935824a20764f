"""A publisher for disks that fail: it goes on whatever it is told, and knows what that was."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from conformance.channel import Channel
from conformance.client import Address, Connection, DeadlineError, Frame
from conformance.crash.publisher import Publisher, published
from conformance.crash.record import Message, Record
from conformance.failure import ConformanceError

BODY_OCTETS = 60_000
_BURST = 8
_BLOCKED = "connection.blocked"


class SteadyPublisher(Publisher):
    """Publishes persistent messages to one queue until it is told to finish.

    `window` messages wait for their confirms at most. Nothing is sent while the connection is
    blocked, and nothing beyond `limit` messages. `confirmed`, `refused` and `blocked` may be looked
    at in `until`; that a confirm comes after a refusal is an error.
    """

    def __init__(
        self, address: Address, record: Record, queue: str, number: int, *, window: int = 200
    ) -> None:
        super().__init__(address, record, threading.Event(), random.Random(number))
        self.number = number
        self.blocked = False
        self.limit = 1 << 40
        self.error: Exception | None = None
        self._queue = queue
        self._window = window
        self._finishing = False
        self._has_changed = threading.Condition()
        self.thread.start()

    @property
    def confirmed(self) -> int:
        """Messages for which an ack has come."""
        return self.counts["confirmed"]

    @property
    def refused(self) -> int:
        """Messages for which a nack has come."""
        return self.counts["refused"]

    def until(self, condition: Callable[[], bool], text: str, within_s: float = 20.0) -> None:
        """Waits until this is so; ConformanceError when time is up, or the publisher has ended."""
        deadline = time.monotonic() + within_s
        with self._has_changed:
            while not condition():
                left = deadline - time.monotonic()
                if self.error is not None:
                    raise ConformanceError(f"publisher: {self.error}, expected: {text}")
                if left <= 0:
                    raise ConformanceError(
                        f"{text}: not within {within_s:g} s ({dict(self.counts)})"
                    )
                self._has_changed.wait(left)

    def finish(self) -> None:
        """Sends nothing more, waits until everything is answered, and closes the connection."""
        self._finishing = True
        self.thread.join()
        if self.error is not None:
            raise ConformanceError(f"publisher: {self.error}")

    def end(self) -> None:
        """The broker is gone, or about to be: what it had sent before still counts."""
        self.ending.set()
        self.thread.join()

    def _run(self) -> None:
        try:
            connection = Connection(self.address, timeout_s=20.0)
            try:
                self.work(connection.open())
            finally:
                connection.drop()
        except (ConformanceError, OSError) as error:
            with self._has_changed:
                self.error = error
                self._has_changed.notify_all()

    def work(self, connection: Connection) -> None:
        """Until it is finished, or the connection ends."""
        channel = connection.channel()
        channel.call("confirm.select")
        self._waiting: dict[int, Message] = {}
        self._tag = 0
        while not self._finishing and not self.ending.is_set():
            room = min(_BURST, self._window - len(self._waiting))
            room = min(room, self.limit - self.counts["published"])
            may_send = room > 0 and not self.blocked
            if may_send:
                self._send(channel, room)
            self._read_confirms(channel, 0.0005 if may_send else 0.02)
        deadline = time.monotonic() + 20.0
        while self._waiting:
            self._read_confirms(channel, 0.02)
            if time.monotonic() > deadline:
                raise ConformanceError(f"{len(self._waiting)} messages are not confirmed")
        if not self.ending.is_set():
            connection.close()

    def _send(self, channel: Channel, count: int) -> None:
        octets = []
        for _ in range(count):
            number = self.record.next_number(self.number)
            message = Message(self.number, number, "", self._queue)
            self._tag += 1
            self._waiting[self._tag] = message
            self.record.publishing(message, [self._queue])
            octets.append(published(channel, message, BODY_OCTETS))
        channel.connection.send_raw(b"".join(octets))
        self.counts["published"] += count

    def _read_confirms(self, channel: Channel, timeout_s: float) -> None:
        try:
            while True:
                frame = channel.connection.receive_frame(timeout_s)
                with self._has_changed:
                    self._take(channel, frame)
                    self._has_changed.notify_all()
                timeout_s = 0.0001
        except DeadlineError:
            return

    def _take(self, channel: Channel, frame: Frame) -> None:
        method = channel.decode(frame)
        if method.name in (_BLOCKED, "connection.unblocked"):
            self.blocked = method.name == _BLOCKED
        elif method.name == "basic.ack" and self.refused:
            raise ConformanceError(f"got {method} after a nack")
        else:
            self._confirm(method.name, method.fields)

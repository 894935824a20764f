"""A consumer that looks when messages arrive."""

from __future__ import annotations

import struct
import time

from conformance.channel import Channel
from tests.scale.publishes import BODY, METHOD
from tests.scale.timed_publishes import DUE, TARGET

PREFETCH = 1000
READ_OCTETS = 1 << 18
_FRAME = struct.Struct(">BHI")
_ACK_EACH = PREFETCH // 4


class Arrivals:
    """Consumes the queue in which messages arrive. `late_ns` says of each that is watched how long
    after its time its last octet was read."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._unread = b""
        self._count = 0
        self._acked = 0
        self.late_ns: list[int] = []
        channel.call("basic.qos", prefetch_count=PREFETCH)
        channel.call("basic.consume", queue=TARGET)

    def receive_until(self, count: int) -> None:
        """Takes so many watched messages in all, and acknowledges the last of them."""
        connection = self._channel.connection
        connection.socket.settimeout(connection.timeout_s)
        while len(self.late_ns) < count:
            octets = connection.socket.recv(READ_OCTETS)
            if not octets:
                raise ConnectionResetError("the broker closed the connection")
            self._read(octets, time.monotonic_ns())
            if self._count - self._acked >= _ACK_EACH:
                self._ack()
        self._ack()

    def _read(self, octets: bytes, now: int) -> None:
        octets = self._unread + octets
        at, last = 0, len(octets) - _FRAME.size
        while at <= last:
            kind, channel, size = _FRAME.unpack_from(octets, at)
            stop = at + _FRAME.size + size + 1
            if stop > len(octets):
                break
            if kind == BODY:
                (due,) = DUE.unpack_from(octets, at + _FRAME.size)
                self._count += 1
                if due:
                    self.late_ns.append(now - due)
            elif kind == METHOD and channel != self._channel.number:
                raise ConnectionResetError("the broker closes the connection")
            at = stop
        self._unread = octets[at:]

    def _ack(self) -> None:
        if self._count > self._acked:
            self._acked = self._count
            self._channel.send("basic.ack", delivery_tag=self._acked, multiple=True)

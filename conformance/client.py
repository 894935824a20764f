"""A small synchronous AMQP 0-9-1 client that can also misbehave.

Everything that waits has a deadline; what was awaited and did not come raises ConformanceError
with both sides of the story.
"""

from __future__ import annotations

import re
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from conformance.channel import Channel
from conformance.failure import ConformanceError
from conformance.fields import Table, encode_table
from conformance.methods import Method, encode_frame

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
ALL_CAPABILITIES = {
    "publisher_confirms": True,
    "exchange_exchange_bindings": True,
    "basic.nack": True,
    "consumer_cancel_notify": True,
    "connection.blocked": True,
    "authentication_failure_close": True,
}
Watch = Callable[[str, dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as it came."""

    kind: int
    channel: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Address:
    """Where the broker is and who logs in."""

    host: str
    port: int
    user: str = "guest"
    password: str = "guest"
    vhost: str = "/"


class Connection:
    """A TCP connection to the broker, with nothing said yet.

    `timeout_s` bounds every single wait. `watch` is told of every method that is sent or received.
    """

    def __init__(
        self, address: Address, *, timeout_s: float = 10.0, watch: Watch | None = None
    ) -> None:
        self.address = address
        self.timeout_s = timeout_s
        self.watch = watch
        self.frame_max = 131072
        self.channel_max = 2047
        self.heartbeat_s = 0
        self.heartbeats = 0
        self.server_properties: dict[str, Any] = {}
        self._inboxes: dict[int, deque[Frame]] = {0: deque()}
        self._buffer = bytearray()
        self.channel0 = Channel(self, 0)
        self._last_channel = 0
        self.socket = socket.create_connection((address.host, address.port), timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def drop(self) -> None:
        """Closes the socket without a word."""
        self.socket.close()

    # sending

    def send_raw(self, octets: bytes) -> None:
        """Sends these octets; that the broker closed the socket is no failure yet."""
        try:
            self.socket.settimeout(self.timeout_s)
            self.socket.sendall(octets)
        except (BrokenPipeError, ConnectionResetError):
            pass
        except TimeoutError as error:
            raise ConformanceError(f"broker did not read within {self.timeout_s} s") from error

    def send_frame(self, kind: int, channel: int, payload: bytes, end: int = 0xCE) -> None:
        """Sends one frame, whatever its type, channel and end octet."""
        self.send_raw(encode_frame(kind, channel, payload, end))

    def send_heartbeat(self) -> None:
        """Sends a heartbeat frame."""
        self.send_frame(HEARTBEAT, 0, b"")

    # receiving

    def receive_frame(self, timeout_s: float | None = None) -> Frame:
        """The next frame from the socket on any channel, heartbeats included."""
        deadline = time.monotonic() + (self.timeout_s if timeout_s is None else timeout_s)
        self._fill(7, deadline)
        kind, channel, size = struct.unpack_from(">BHI", self._buffer)
        self._fill(size + 8, deadline)
        payload, end = bytes(self._buffer[7 : size + 7]), self._buffer[size + 7]
        del self._buffer[: size + 8]
        if end != 0xCE:
            raise ConformanceError(f"frame of type {kind} on channel {channel} ends with {end:#x}")
        if kind == HEARTBEAT:
            self.heartbeats += 1
        return Frame(kind, channel, payload)

    def receive_raw(self, count: int) -> bytes:
        """Exactly `count` octets from the socket."""
        self._fill(count, time.monotonic() + self.timeout_s)
        octets = bytes(self._buffer[:count])
        del self._buffer[:count]
        return octets

    def _fill(self, count: int, deadline: float) -> None:
        while len(self._buffer) < count:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise DeadlineError("nothing came in time")
            self.socket.settimeout(remaining)
            try:
                chunk = self.socket.recv(1 << 18)
            except TimeoutError as error:
                raise DeadlineError("nothing came in time") from error
            except ConnectionError as error:
                raise EndedError("broker closed the socket") from error
            if not chunk:
                raise EndedError("broker closed the socket")
            self._buffer += chunk

    def frame_for(self, channel: int, wanted: str, timeout_s: float | None = None) -> Frame:
        """The next frame on one channel; frames of others wait in their inboxes, heartbeats pass.

        A connection.close raises ConformanceError unless channel 0 was asked for.
        """
        inbox = self._inboxes.setdefault(channel, deque())
        waited_s = self.timeout_s if timeout_s is None else timeout_s
        deadline = time.monotonic() + waited_s
        while not inbox:
            try:
                frame = self.receive_frame(max(deadline - time.monotonic(), 0))
            except DeadlineError:
                raise ConformanceError(
                    f"expected {wanted}, nothing came within {waited_s:g} s"
                ) from None
            except EndedError:
                raise ConformanceError(f"expected {wanted}, broker closed the socket") from None
            if frame.kind == HEARTBEAT and frame.channel == 0:
                continue
            self._inboxes.setdefault(frame.channel, deque()).append(frame)
            if frame.channel == 0 and channel != 0:
                self._check_alive(wanted)
        return inbox.popleft()

    def _check_alive(self, wanted: str) -> None:
        frame = self._inboxes[0][0]
        if frame.payload[:4] == b"\x00\x0a\x00\x32":
            self._inboxes[0].popleft()
            closed = self.channel0.decode(frame)
            raise ConformanceError(f"expected {wanted}, got {closed}")

    def expect_end(self, within_s: float | None = None) -> None:
        """The broker closes the socket, and nothing but heartbeats comes before that."""
        waited_s = self.timeout_s if within_s is None else within_s
        deadline = time.monotonic() + waited_s
        while True:
            try:
                frame = self.receive_frame(max(deadline - time.monotonic(), 0))
            except EndedError:
                return
            except DeadlineError:
                raise ConformanceError(
                    f"broker did not close the socket within {waited_s:g} s"
                ) from None
            if frame.kind != HEARTBEAT:
                shown = Channel(self, frame.channel).show(frame)
                raise ConformanceError(f"expected the socket to close, got {shown}")

    def expect_close(
        self, code: int, text: str | re.Pattern[str] | None, method: str | None = None
    ) -> Method:
        """connection.close with this code, exact text (None: any) and failed method (None: 0, 0).

        Answers close-ok and expects the broker to close the socket.
        """
        closed = self.channel0.expect_closing("connection.close", code, text, method)
        self.channel0.send("connection.close-ok")
        self.expect_end()
        return closed

    # opening and closing

    def start(self) -> Method:
        """Sends the protocol header; returns connection.start."""
        self.send_raw(PROTOCOL_HEADER)
        start = self.channel0.expect("connection.start")
        self.server_properties = start["server_properties"]
        return start

    def start_ok(
        self,
        mechanism: str = "PLAIN",
        response: str | bytes | None = None,
        *,
        capabilities: Mapping[str, Any] | None = None,
        client_properties: Table | bytes | None = None,
        locale: str = "en_US",
    ) -> None:
        """Sends start-ok; by default with the address's credentials and every capability."""
        if client_properties is None:
            announced = ALL_CAPABILITIES if capabilities is None else dict(capabilities)
            client_properties = {"product": "conformance", "capabilities": announced}
        if response is None:
            response = credentials(mechanism, self.address.user, self.address.password)
        self.channel0.send(
            "connection.start-ok",
            client_properties=client_properties,
            mechanism=mechanism,
            response=response,
            locale=locale,
        )

    def tune_ok(
        self,
        *,
        channel_max: int | None = None,
        frame_max: int | None = None,
        heartbeat_s: int = 0,
    ) -> Method:
        """Expects tune, answers tune-ok (None takes what was offered); returns tune."""
        tune = self.channel0.expect("connection.tune")
        self.channel_max = tune["channel_max"] if channel_max is None else channel_max
        self.frame_max = tune["frame_max"] if frame_max is None else frame_max
        self.heartbeat_s = heartbeat_s
        self.channel0.send(
            "connection.tune-ok",
            channel_max=self.channel_max,
            frame_max=self.frame_max,
            heartbeat=heartbeat_s,
        )
        return tune

    def open(
        self,
        *,
        vhost: str | None = None,
        mechanism: str = "PLAIN",
        capabilities: Mapping[str, Any] | None = None,
        channel_max: int | None = None,
        frame_max: int | None = None,
        heartbeat_s: int = 0,
    ) -> Connection:
        """The whole handshake, protocol header to open-ok."""
        self.start()
        self.start_ok(mechanism, capabilities=capabilities)
        self.tune_ok(channel_max=channel_max, frame_max=frame_max, heartbeat_s=heartbeat_s)
        where = self.address.vhost if vhost is None else vhost
        self.channel0.send("connection.open", virtual_host=where)
        self.channel0.expect("connection.open-ok")
        return self

    def channel(self, number: int | None = None) -> Channel:
        """Opens a channel: this number, or the next one not yet used."""
        if number is None:
            number = self._last_channel + 1
        self._last_channel = max(self._last_channel, number)
        channel = Channel(self, number)
        channel.call("channel.open")
        return channel

    def close(self) -> None:
        """connection.close and close-ok; what came before close-ok is dropped."""
        self.channel0.send("connection.close", reply_code=200, reply_text="bye")
        while True:
            method = self.channel0.next_method("connection.close-ok")
            if method.name == "connection.close-ok":
                break
        self.drop()


class DeadlineError(ConformanceError):
    """The deadline passed."""


class EndedError(ConformanceError):
    """The broker closed the socket."""


def credentials(mechanism: str, user: str, password: str) -> bytes:
    """The SASL response of a mechanism."""
    if mechanism == "AMQPLAIN":
        return encode_table({"LOGIN": user, "PASSWORD": password})[4:]
    return b"\0" + user.encode() + b"\0" + password.encode()

"""A client without a socket: methods in, decoded answers out.

    site = Site()
    client = site.connect()
    assert client.ask(Queue.Declare, queue="q").message_count == 0
    client.publish(b"hello", key="q")

A `Site` is one broker with its connections, which share an outbox as they do in a server. What
the broker sends is taken and parsed after each chunk, strictly: every frame whole, none above
the negotiated size, every content complete. A note of "internal_error" fails the test at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from broker.core.broker import Broker, Limits
from broker.core.users import Permission
from broker.protocol.connection import Connection
from broker.wire.frames import BODY, HEADER, METHOD, PROTOCOL_HEADER, body_frames
from broker.wire.methods import Method, commands, decode_method, encode_method
from broker.wire.properties import header_frame
from broker.wire.table import Field, Table

Basic = commands.Basic
Channel = commands.Channel
Confirm = commands.Confirm
Exchange = commands.Exchange
Queue = commands.Queue
Tx = commands.Tx

CAPABILITIES = (
    "authentication_failure_close",
    "basic.nack",
    "connection.blocked",
    "consumer_cancel_notify",
    "publisher_confirms",
)
UNASKED = (Basic.Deliver, Basic.Return, Basic.Ack, Basic.Cancel)
WITH_CONTENT = (Basic.Deliver, Basic.GetOk, Basic.Return)
DELIVERING: dict[int, type[Method]] = {kind.index: kind for kind in WITH_CONTENT}
_ZERO = {"shortstr": "", "longstr": b"", "table": {}, "bit": False}


def build(kind: type[Method], **arguments: object) -> Method:
    """A method with these arguments; every other one is zero, false or empty. Nothing is
    validated."""
    method = kind.__new__(kind)
    for name in kind.__slots__:
        setattr(method, name, arguments.pop(name, _ZERO.get(kind.amqp_type(name), 0)))
    assert not arguments, f"{kind.name} has no {', '.join(arguments)}"
    return method


def octets_of(kind: type[Method], channel: int = 1, **arguments: object) -> bytes:
    """The frame of a method."""
    return encode_method(channel, build(kind, **arguments))


def content_octets(
    body: bytes,
    *,
    channel: int = 1,
    flags: int = 0,
    properties: bytes = b"",
    frame_max: int = 131072,
) -> bytes:
    """Header and body frames."""
    header = header_frame(channel, len(body), flags, properties)
    return header + b"".join(body_frames(channel, body, frame_max))


def publish_octets(
    body: bytes = b"",
    *,
    exchange: str = "",
    key: str = "q",
    channel: int = 1,
    mandatory: bool = False,
    flags: int = 0,
    properties: bytes = b"",
    frame_max: int = 131072,
) -> bytes:
    """The frames of a whole publish."""
    method = octets_of(
        Basic.Publish, channel, exchange=exchange, routing_key=key, mandatory=mandatory
    )
    return method + content_octets(
        body, channel=channel, flags=flags, properties=properties, frame_max=frame_max
    )


def text(value: str) -> Field:
    """A long string in a table."""
    return Field("longstr", value)


@dataclass(eq=False)
class Received:
    """One method from the broker, with its content if it has one (the header as a payload)."""

    channel: int
    method: Any
    header: bytes = b""
    body: bytes = b""

    @property
    def kind(self) -> type[Method]:
        return type(self.method)


def decode_delivering(kind: type[Method], payload: bytes) -> Method:
    """A method before a content. Names in it may be any octets, as the publisher's were."""
    values: dict[str, object] = {}
    at = 4
    for name in kind.__slots__:
        wire_type = kind.amqp_type(name)
        if wire_type == "shortstr":
            size = payload[at]
            values[name] = payload[at + 1 : at + 1 + size].decode("utf-8", "surrogateescape")
            at += 1 + size
        else:
            size = {"bit": 1, "short": 2, "long": 4, "longlong": 8}[wire_type]
            number = int.from_bytes(payload[at : at + size], "big")
            values[name] = bool(number) if wire_type == "bit" else number
            at += size
    assert at == len(payload)
    return build(kind, **values)


class FrameReader:
    """Parses what the broker sends; asserts that every octet is in its place."""

    def __init__(self) -> None:
        self.frame_max = 8192
        self.received: list[Received] = []
        self.heartbeats = 0
        self.has_begun = False
        self._open: dict[int, tuple[Received, int]] = {}

    def feed(self, octets: bytes) -> None:
        at = 0
        if octets == PROTOCOL_HEADER and not self.has_begun:
            # All that is said to who does not speak the protocol.
            return
        self.has_begun = True
        while at < len(octets):
            kind, channel = octets[at], int.from_bytes(octets[at + 1 : at + 3], "big")
            size = int.from_bytes(octets[at + 3 : at + 7], "big")
            assert size <= self.frame_max - 8, f"frame of {size} octets, {self.frame_max} agreed"
            assert octets[at + 7 + size] == 0xCE
            self._frame(kind, channel, octets[at + 7 : at + 7 + size])
            at += 8 + size
        # What one call of data_to_send gives out ends with a content's last frame.
        assert not self._open, "a content is cut off"

    def _frame(self, kind: int, channel: int, payload: bytes) -> None:
        if kind == METHOD:
            assert channel not in self._open, "a method amid a content"
            index = int.from_bytes(payload[:4], "big")
            if index in DELIVERING:
                received = Received(channel, decode_delivering(DELIVERING[index], payload))
                self._open[channel] = received, -1
            else:
                self.received.append(Received(channel, decode_method(payload)))
        elif kind == HEADER:
            received, missing = self._open[channel]
            assert missing == -1, "a second header"
            received.header = payload
            self._continue(channel, received, int.from_bytes(payload[4:12], "big"))
        elif kind == BODY:
            received, missing = self._open[channel]
            assert missing >= len(payload) > 0, "more body than announced"
            received.body += payload
            self._continue(channel, received, missing - len(payload))
        else:
            assert (kind, channel, payload) == (8, 0, b"")
            self.heartbeats += 1

    def _continue(self, channel: int, received: Received, missing: int) -> None:
        self._open[channel] = received, missing
        if not missing:
            del self._open[channel]
            self.received.append(received)


class Site:
    """One broker, its clients, and what it noted."""

    def __init__(self, **limits: Any) -> None:
        self.notes: list[tuple[str, dict[str, object]]] = []
        self._dice = 0
        self.broker = Broker(self._random_bytes, limits=Limits(**limits), note=self._note)
        self.vhost = self.broker.add_vhost("/")
        self.broker.add_user("guest", b"guest", permissions={"/": Permission()})
        self.outbox: list[Connection] = []
        self.clients: list[Client] = []

    def _random_bytes(self, count: int) -> bytes:
        self._dice += 1
        return self._dice.to_bytes(count, "big")

    def _note(self, event: str, details: dict[str, object]) -> None:
        if event == "internal_error":
            raise AssertionError("the broker failed") from details["error"]  # type: ignore[misc]
        self.notes.append((event, details))

    def greet(self, peer: str = "127.0.0.1") -> Client:
        """A connection on which nothing was said yet."""
        client = Client(self, peer, 40000 + len(self.clients))
        self.clients.append(client)
        return client

    def connect(
        self,
        *,
        user: str = "guest",
        password: str = "guest",
        vhost: str = "/",
        frame_max: int = 131072,
        channel_max: int = 2047,
        heartbeat: int = 0,
        capabilities: Iterable[str] = CAPABILITIES,
        channels: int = 1,
    ) -> Client:
        """A connection that is open, with channels 1 to `channels`."""
        client = self.greet()
        client.feed(PROTOCOL_HEADER)
        client.tell(
            commands.Connection.StartOk,
            0,
            client_properties=announcing(capabilities),
            mechanism="PLAIN",
            response=f"\0{user}\0{password}".encode(),
            locale="en_US",
        )
        client.tell(
            commands.Connection.TuneOk,
            0,
            frame_max=frame_max,
            channel_max=channel_max,
            heartbeat=heartbeat,
        )
        client.tell(commands.Connection.Open, 0, virtual_host=vhost)
        client.reader.frame_max = frame_max
        for number in range(1, channels + 1):
            client.tell(Channel.Open, number)
        assert [r.kind for r in client.read()[3:]] == [Channel.OpenOk] * channels
        return client

    def collect(self) -> None:
        """Takes what every connection has to send and lets those go on that wait for their turn,
        as a server does, until nobody has anything to do."""
        going = True
        while going:
            for client in self.clients:
                octets = client.connection.data_to_send()
                if octets:
                    assert client.connection in self.outbox, "octets nobody would write"
                    client.batches.append(len(octets))
                    client.reader.feed(octets)
            self.outbox.clear()
            going = sum(client.go_on() for client in self.clients) > 0

    def advance(self, milliseconds: int) -> None:
        """Lets message time pass, and what is due happen, as a server does."""
        self.wait_until(self.broker.timers.now + milliseconds)

    def wait_until(self, now: int) -> None:
        """Message time goes on to `now`, as a server has it; not further than to each thing that is
        due in between."""
        timers = self.broker.timers
        while timers.next is not None and timers.next <= now:
            timers.advance(max(timers.next, timers.now))
            self.broker.run_deliveries()
            self.collect()
        timers.advance(now)
        self.broker.run_deliveries()
        self.collect()

    def unblock(self) -> None:
        """Lets connections go on that waited for memory, as a server does."""
        while self.broker.blocked and not self.broker.has_alarm():
            self.broker.blocked.pop(0).unblock(0.0)
            self.collect()


def announcing(capabilities: Iterable[str]) -> Table:
    """Client properties with these capabilities."""
    table: Table = {name: Field("bool", value=True) for name in capabilities}
    return {"product": text("test"), "capabilities": Field("table", table)}


class Client:
    """One connection of a site."""

    def __init__(self, site: Site, host: str, port: int) -> None:
        self.site = site
        self.now = 0.0
        self.connection = Connection(
            site.broker,
            peer=(host, port),
            local=("127.0.0.1", 5672),
            outbox=site.outbox,
            now=self.now,
        )
        self.reader = FrameReader()
        # Octets of each write.
        self.batches: list[int] = []

    def feed(self, octets: bytes) -> None:
        """Hands in one chunk, and lets the site collect what comes of it."""
        self.connection.receive_data(octets, self.now)
        self.site.collect()

    def go_on(self) -> bool:
        """Goes on with what had to wait for a write or for others; False if nothing had."""
        connection = self.connection
        if connection.wants_turn and not connection.is_blocked:
            connection.resume_input()
        elif connection.output.is_starved and not connection.output.is_congested:
            connection.resume_output()
        else:
            return False
        return True

    def tell(self, kind: type[Method], channel: int = 1, **arguments: object) -> None:
        """Sends one method."""
        self.feed(octets_of(kind, channel, **arguments))

    def ask(self, kind: type[Method], channel: int = 1, **arguments: object) -> Any:
        """Sends one method and returns its answer, the only one that came on this channel or on
        channel 0; deliveries and the like stay to be read."""
        before = len(self.reader.received)
        self.tell(kind, channel, **arguments)
        received = self.reader.received[before:]
        answers = [r for r in received if r.channel in (0, channel) and r.kind not in UNASKED]
        assert len(answers) == 1, answers
        self.reader.received.remove(answers[0])
        return answers[0].method

    def publish(self, body: bytes = b"", **arguments: Any) -> None:
        """Sends one publish in one chunk."""
        arguments.setdefault("frame_max", self.connection.frame_max)
        self.feed(publish_octets(body, **arguments))

    def read(self, channel: int | None = None) -> list[Received]:
        """Takes what came, on one channel or on all."""
        received, self.reader.received = self.reader.received, []
        taken: list[Received] = []
        for item in received:
            is_asked_for = channel in (None, item.channel)
            (taken if is_asked_for else self.reader.received).append(item)
        return taken

    def bodies(self, channel: int | None = None) -> list[bytes]:
        """Takes what came and returns the bodies in it."""
        return [r.body for r in self.read(channel) if r.kind in WITH_CONTENT]

    def queue(self, name: str = "q", **arguments: Any) -> None:
        """Declares a queue."""
        assert type(self.ask(Queue.Declare, queue=name, **arguments)) is Queue.DeclareOk

    def consume(self, queue: str = "q", channel: int = 1, **arguments: object) -> str:
        """Consumes from a queue and returns the consumer tag; deliveries stay to be read."""
        before = len(self.reader.received)
        self.tell(Basic.Consume, channel, queue=queue, **arguments)
        answer = self.reader.received.pop(before)
        assert answer.kind is Basic.ConsumeOk, answer
        return str(answer.method.consumer_tag)


def is_close(method: Any, code: int, explanation: str, failed: type[Method] | None) -> bool:
    """Whether a channel.close or connection.close says just this; `failed` None stands for the
    ids 0 and 0."""
    index = failed.index if failed else 0
    found = (method.reply_code, method.reply_text, method.class_id << 16 | method.method_id)
    name = method.reply_text.partition(" - ")[0]
    wanted = (code, f"{name} - {explanation}", index)
    assert found == wanted, f"{found} is not {wanted}"
    return True

"""One channel of a Connection: sending methods and content, expecting answers."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from conformance.failure import ConformanceError, check_equal
from conformance.fields import plain
from conformance.methods import (
    LAYOUTS,
    WITH_CONTENT,
    Content,
    Method,
    body_size,
    decode_method,
    encode_frame,
    encode_header,
    encode_method,
)

if TYPE_CHECKING:
    from conformance.client import Connection, Frame

_METHOD, _HEADER, _BODY = 1, 2, 3
Pattern = re.Pattern[str]


class Channel:
    """A channel number on a connection; `Connection.channel` opens it."""

    def __init__(self, connection: Connection, number: int) -> None:
        self.connection = connection
        self.number = number

    # sending

    def send(self, name: str, **fields: Any) -> None:
        """Sends a method; fields not named are 0, false or empty."""
        if self.connection.watch:
            self.connection.watch(name, fields)
        self.connection.send_frame(_METHOD, self.number, encode_method(name, **fields))

    def call(self, name: str, **fields: Any) -> Method:
        """Sends a method and returns its -ok, which must be the next thing on the channel."""
        self.send(name, **fields)
        return self.expect(f"{name}-ok")

    def publish(self, body: bytes, *route: str | bytes, **options: Any) -> None:
        """basic.publish with its content in one write; arguments as for `publish_frames`."""
        self.connection.send_raw(self.publish_frames(body, *route, **options))

    def publish_frames(
        self,
        body: bytes,
        exchange: str | bytes = "",
        routing_key: str | bytes = "",
        *,
        mandatory: bool = False,
        immediate: bool = False,
        properties: Mapping[str, Any] | bytes = b"\0\0",
        body_frame_size: int | None = None,
    ) -> bytes:
        """The frames of basic.publish with its content.

        `properties` may be the raw octets of flags and property list. Bodies are cut into frames
        of `body_frame_size` octets of payload, by default as large as the connection allows.
        """
        method = encode_method(
            "basic.publish",
            exchange=exchange,
            routing_key=routing_key,
            mandatory=mandatory,
            immediate=immediate,
        )
        out = [
            encode_frame(_METHOD, self.number, method),
            encode_frame(_HEADER, self.number, encode_header(len(body), properties)),
        ]
        step = body_frame_size or self.connection.frame_max - 8
        out += [
            encode_frame(_BODY, self.number, body[start : start + step])
            for start in range(0, len(body), step)
        ]
        return b"".join(out)

    # receiving

    def decode(self, frame: Frame) -> Method:
        """The method in a frame; raises ConformanceError if it holds none."""
        if frame.kind != _METHOD:
            raise ConformanceError(f"got a frame of type {frame.kind} where a method was due")
        try:
            method = decode_method(frame.payload)
        except ValueError as error:
            raise ConformanceError(f"broker sent a malformed method: {error}") from error
        if self.connection.watch:
            self.connection.watch(method.name, method.fields)
        return method

    def show(self, frame: Frame) -> str:
        """A frame in words, for failure texts."""
        try:
            return str(self.decode(frame))
        except ConformanceError:
            return f"frame of type {frame.kind} on channel {frame.channel}: {frame.payload!r}"

    def next_method(self, wanted: str = "a method", timeout_s: float | None = None) -> Method:
        """The next method on this channel, with its content if it carries one."""
        method = self.decode(self.connection.frame_for(self.number, wanted, timeout_s))
        if method.name in WITH_CONTENT:
            method.content = self._next_content(method.name)
        return method

    def _next_content(self, name: str) -> Content:
        frame = self.connection.frame_for(self.number, f"content header of {name}")
        if frame.kind != _HEADER:
            raise ConformanceError(f"expected the content header of {name}, got {self.show(frame)}")
        content = Content(frame.payload, b"")
        pieces = []
        missing = body_size(frame.payload)
        while missing > 0:
            frame = self.connection.frame_for(self.number, f"body of {name}")
            if frame.kind != _BODY:
                raise ConformanceError(f"expected the body of {name}, got {self.show(frame)}")
            if len(frame.payload) + 8 > self.connection.frame_max:
                raise ConformanceError(
                    f"body frame of {len(frame.payload)} octets is over frame_max"
                )
            pieces.append(frame.payload)
            missing -= len(frame.payload)
        content.body = b"".join(pieces)
        content.body_frames = [len(piece) for piece in pieces]
        if missing:
            raise ConformanceError(f"body of {name} is {-missing} octets longer than announced")
        return content

    def expect(self, *names: str, **fields: Any) -> Method:
        """The next method on this channel is one of these, with these field values."""
        wanted = " or ".join(names)
        if fields:
            wanted += f"({', '.join(f'{name}={value!r}' for name, value in fields.items())})"
        method = self.next_method(wanted)
        matches = method.name in names and all(
            plain(method.fields.get(name)) == value for name, value in fields.items()
        )
        if not matches:
            raise ConformanceError(f"expected {wanted}, got {method}")
        return method

    def expect_closing(
        self, name: str, code: int, text: str | Pattern | None, method: str | None
    ) -> Method:
        """channel.close or connection.close with these values, not answered yet."""
        shown = text.pattern if isinstance(text, re.Pattern) else text
        wanted = f"{name} {code} {shown!r} for {method or 'no method'}"
        closed = self.next_method(wanted)
        if closed.name != name:
            raise ConformanceError(f"expected {wanted}, got {closed}")
        ids = (LAYOUTS[method].class_id, LAYOUTS[method].method_id) if method else (0, 0)
        got = closed["reply_text"]
        text_fits = text is None or got == text
        if isinstance(text, re.Pattern):
            text_fits = text.fullmatch(got) is not None
        found_ids = (closed["class_id"], closed["method_id"])
        if closed["reply_code"] != code or not text_fits or found_ids != ids:
            raise ConformanceError(f"expected {wanted} {ids}, got {closed}")
        return closed

    def expect_close(
        self, code: int, text: str | Pattern | None, method: str | None = None
    ) -> Method:
        """channel.close with this code, exact text (None: any) and failed method (None: 0, 0).

        Answers close-ok, so that the number can be opened again.
        """
        closed = self.expect_closing("channel.close", code, text, method)
        self.send("channel.close-ok")
        return closed

    def reopen(self) -> Channel:
        """Opens this number again after it was closed."""
        self.call("channel.open")
        return self

    # what most scenarios do

    def declare_queue(self, queue: str = "", **fields: Any) -> str:
        """queue.declare; returns the queue's name."""
        name: str = self.call("queue.declare", queue=queue, **fields)["queue"]
        return name

    def declare_exchange(self, exchange: str, kind: str = "direct", **fields: Any) -> str:
        """exchange.declare; returns the exchange's name."""
        self.call("exchange.declare", exchange=exchange, type=kind, **fields)
        return exchange

    def bind(self, queue: str, exchange: str, routing_key: str = "", **fields: Any) -> None:
        """queue.bind."""
        self.call("queue.bind", queue=queue, exchange=exchange, routing_key=routing_key, **fields)

    def consume(self, queue: str, consumer_tag: str = "", **fields: Any) -> str:
        """basic.consume; returns the consumer tag."""
        fields |= {"queue": queue, "consumer_tag": consumer_tag}
        tag: str = self.call("basic.consume", **fields)["consumer_tag"]
        return tag

    def expect_delivery(self, body: bytes | None = None, **fields: Any) -> Method:
        """basic.deliver is next, with this body and these field values."""
        delivery = self.expect("basic.deliver", **fields)
        if body is not None:
            check_equal(delivery.body, body, "delivered body")
        return delivery

    def deliveries(self, count: int) -> list[Method]:
        """The next `count` methods, all of them basic.deliver."""
        return [self.expect("basic.deliver") for _ in range(count)]

    def get(self, queue: str, *, no_ack: bool = True) -> Method | None:
        """basic.get; None if the queue is empty."""
        self.send("basic.get", queue=queue, no_ack=no_ack)
        found = self.expect("basic.get-ok", "basic.get-empty")
        return found if found.name == "basic.get-ok" else None

    def get_all(self, queue: str) -> list[bytes]:
        """Empties a queue by basic.get; the bodies in order."""
        self.settle(queue)
        bodies = []
        while (found := self.get(queue)) is not None:
            bodies.append(found.body)
        return bodies

    def message_count(self, queue: str) -> int:
        """Ready messages of a queue, by passive declare."""
        count: int = self.call("queue.declare", queue=queue, passive=True)["message_count"]
        return count

    def consumer_count(self, queue: str) -> int:
        """Consumers of a queue, by passive declare."""
        count: int = self.call("queue.declare", queue=queue, passive=True)["consumer_count"]
        return count

    def settle(self, *queues: str) -> None:
        """Returns when what this channel sent has taken effect on these queues."""
        for queue in queues:
            self.call("queue.declare", queue=queue, passive=True)

    def expect_silence(self, *queues: str) -> None:
        """Nothing waits on this channel: the answers to round trips come with nothing in between.

        Queues whose deliveries could be on their way are asked first, so that those would have
        come before the last answer.
        """
        self.settle(*queues)
        self.call("channel.flow", active=True)

    def confirms(self, tags: Collection[int]) -> tuple[set[int], set[int]]:
        """Reads acks and nacks, however grouped, until these tags are settled.

        Returns (acked, nacked); fails on a tag that was settled before or is none of `tags`.
        """
        waiting = set(tags)
        acked: set[int] = set()
        nacked: set[int] = set()
        while waiting:
            method = self.expect("basic.ack", "basic.nack")
            tag = method["delivery_tag"]
            settled = {t for t in waiting if t <= tag} if method["multiple"] else {tag} & waiting
            if not settled or (tag not in tags):
                raise ConformanceError(f"got {method} while {sorted(waiting)} wait for a confirm")
            waiting -= settled
            (acked if method.name == "basic.ack" else nacked).update(settled)
        return acked, nacked

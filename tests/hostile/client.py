"""A client in memory that says what it likes, octet by octet, and reads what it is answered."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, NamedTuple

from broker.core.broker import Limits
from conformance.fuzz.world import (
    PROTOCOL_HEADER,
    Peer,
    World,
    method,
    open_vhost,
    start_ok,
    tune_ok,
)
from conformance.methods import (
    WITH_CONTENT,
    Content,
    Method,
    body_size,
    decode_method,
    encode_frame,
    encode_header,
)

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
WITHOUT_A_WORD = "closed without a word"
TURN_STEPS_MAX = 2_000_000
"""Lines of code that one chunk may cost before the others have a turn: some 100 ms."""


class Answer(NamedTuple):
    """A method from the broker, with its content if it carries one."""

    channel: int
    method: Method

    @property
    def name(self) -> str:
        return self.method.name


class Client(Peer):
    """One connection of a `World`. Every answer is parsed strictly."""

    def tell(self, *octets: bytes) -> list[Answer]:
        """Feeds each of these as a chunk and returns what the broker answers to them all."""
        self.take()
        for chunk in octets:
            self.feed(chunk)
        return parse(self.take())

    def ask(self, channel: int, name: str, **fields: Any) -> Answer:
        """Sends one method; its answer, which must be the only one."""
        answers = self.tell(method(channel, name, **fields))
        assert len(answers) == 1, answers
        return answers[0]

    def error(self, *octets: bytes) -> tuple[str, int, str]:
        """What these octets are answered with: ("channel.close", code, text) or the connection's,
        or ("closed without a word", 0, "")."""
        answers = self.tell(*octets)
        closes = [answer for answer in answers if answer.name.endswith(".close")]
        if not closes:
            state = self.connection.state.value
            return (WITHOUT_A_WORD if state == "closed" else state, 0, "")
        fields = closes[-1].method.fields
        return closes[-1].name, fields["reply_code"], fields["reply_text"]


def world(**limits: Any) -> World:
    """A broker with these limits."""
    return World(Limits(**limits))


def unknown(of: World, host: str = "127.0.0.1") -> Client:
    """A client that has said nothing yet."""
    return Client(of, host)


def greeted(of: World, host: str = "127.0.0.1") -> Client:
    """A client that has sent the protocol header."""
    client = unknown(of, host)
    [answer] = client.tell(PROTOCOL_HEADER)
    assert answer.name == "connection.start"
    return client


def opened(
    of: World,
    *,
    user: bytes = b"guest",
    channel_max: int = 2047,
    frame_max: int = 131072,
    channels: int = 1,
) -> Client:
    """A client with an open connection and channels 1 to `channels`."""
    client = greeted(of)
    # The password of a test's user is the user's name.
    names = [
        answer.name
        for answer in client.tell(
            start_ok(user, user), tune_ok(channel_max, frame_max), open_vhost()
        )
    ]
    assert names == ["connection.tune", "connection.open-ok"]
    for number in range(1, channels + 1):
        assert client.ask(number, "channel.open").name == "channel.open-ok"
    return client


def content(
    body: bytes = b"",
    properties: dict[str, Any] | bytes = b"\0\0",
    channel: int = 1,
    *,
    size: int | None = None,
) -> bytes:
    """Header frame and body frame; `size` is announced instead of the body's."""
    announced = len(body) if size is None else size
    frames = encode_frame(HEADER, channel, encode_header(announced, properties))
    return frames + (encode_frame(BODY, channel, body) if body else b"")


def publish(
    key: str | bytes,
    body: bytes = b"",
    properties: dict[str, Any] | bytes = b"\0\0",
    *,
    exchange: str = "",
    channel: int = 1,
    mandatory: bool = False,
) -> bytes:
    """basic.publish with its content."""
    head = method(channel, "basic.publish", exchange=exchange, routing_key=key, mandatory=mandatory)
    return head + content(body, properties, channel)


def parse(octets: bytes) -> list[Answer]:
    """The methods in what the broker sent, contents put together. Every frame must be whole."""
    answers: list[Answer] = []
    at = 0
    while at < len(octets):
        assert octets[at : at + 4] != b"AMQP", "a protocol header among the frames"
        kind = octets[at]
        channel = int.from_bytes(octets[at + 1 : at + 3], "big")
        size = int.from_bytes(octets[at + 3 : at + 7], "big")
        payload = octets[at + 7 : at + 7 + size]
        assert octets[at + 7 + size : at + 8 + size] == b"\xce"
        at += 8 + size
        if kind == METHOD:
            answers.append(Answer(channel, decode_method(payload)))
            continue
        if kind == HEARTBEAT:
            continue
        last = answers[-1]
        assert last.channel == channel
        assert last.name in WITH_CONTENT
        if kind == HEADER:
            last.method.content = Content(payload, b"")
        else:
            last.method.message.body += payload
    for answer in answers:
        if answer.name in WITH_CONTENT:
            message = answer.method.message
            assert len(message.body) == body_size(message.header)
    return answers


def steps(work: Callable[[], object]) -> int:
    """How many lines of code a piece of work runs: a measure of work that no machine changes."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        if event == "line":
            count += 1
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(previous)
    return count


def chunk_steps(client: Client, octets: bytes) -> int:
    """The work of one turn: what handling a chunk costs until others are let in."""
    return steps(lambda: client.connection.receive_data(octets, 0.0))

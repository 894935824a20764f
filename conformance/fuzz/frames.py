"""Frames that a hostile or a broken client may send, made at random: right, odd and wrong ones.

Names, keys, tags and tables come from short lists, so that what one frame makes the next one finds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, TypeVar

from conformance.fields import Typed, encode_longstr, encode_shortstr, encode_table
from conformance.methods import (
    LAYOUTS,
    encode_frame,
    encode_header,
    encode_method,
)

T = TypeVar("T")

CHANNELS = (1, 1, 1, 1, 2, 2, 3)
METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8

QUEUES: Sequence[str | bytes] = (
    *("q0", "q0", "q1", "q1", "q2", "q3", "", ""),
    *("amq.rabbitmq.reply-to", "amq.reserved", "steady", "missing"),
    *("é" * 127, "x" * 255, "a\nb\r", "\x1b[31m", b"\xff\xfe", "\u202egnp.exe"),
)
EXCHANGES: Sequence[str | bytes] = (
    *("", "", "x0", "x1", "x2", "amq.direct", "amq.fanout", "amq.topic", "amq.headers"),
    *("amq.rabbitmq.trace", "missing", "amq.new", "ä" * 127, b"\xc3"),
)
KEYS: Sequence[str | bytes] = (
    *("q0", "q1", "q2", "a", "a.b", "a.b.c", "*", "#", "a.#", "#.b", "*.*.c"),
    *("", ".", "..", "#.#.#.#.#.#.zz", ".".join("abcdefghijklmnopqrst"), "k" * 255, b"\xf0\x9f"),
    *("amq.rabbitmq.reply-to.AAAAAAAAAAAAAAAAAAAAAw", "amq.rabbitmq.reply-to."),
)
TAGS: Sequence[str] = ("", "t0", "t1", "t2", "t3", "t" * 255, "\n\x1b[2J")
TYPES: Sequence[str | bytes] = ("direct", "fanout", "topic", "headers", "x-unknown", "", b"\xff")
DELIVERY_TAGS = (0, 1, 1, 2, 3, 4, 7, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
NUMBERS = (0, 1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 65536, (1 << 31) - 1, (1 << 32) - 1)
LETTERS = "tbBsuIilLfdTDVSxFA"

CLIENT_METHODS: Sequence[tuple[str, int]] = (
    *(("queue.declare", 10), ("queue.bind", 8), ("basic.consume", 8), ("basic.get", 8)),
    *(("exchange.declare", 6), ("exchange.bind", 5), ("queue.unbind", 3), ("exchange.unbind", 3)),
    *(("basic.cancel", 3), ("basic.qos", 4), ("basic.recover", 3), ("basic.recover-async", 2)),
    *(("queue.purge", 2), ("queue.delete", 3), ("exchange.delete", 3), ("confirm.select", 3)),
    *(("tx.select", 2), ("tx.commit", 2), ("tx.rollback", 2), ("channel.close", 2)),
    *(("channel.open", 3), ("channel.flow", 1), ("channel.close-ok", 1), ("access.request", 1)),
)
SETTLEMENTS = ("basic.ack", "basic.ack", "basic.nack", "basic.reject")


def nested_table(depth: int, letter: bytes = b"F") -> bytes:
    """The octets of a table with tables (or arrays) inside each other, without the length."""
    inner = b""
    for _ in range(depth):
        name = b"\x01a" if letter == b"F" else b""
        inner = name + letter + encode_longstr(inner)
    return inner if letter == b"F" else b"\x01a" + inner


class FrameMaker:
    """Makes frames from one source of chance."""

    def __init__(self, random: Random) -> None:
        self.random = random
        names, weights = zip(*CLIENT_METHODS, strict=True)
        self._methods: tuple[str, ...] = names
        self._weights: tuple[int, ...] = weights
        choice = self._choice
        self._values: dict[str, Callable[[], Any]] = {
            "queue": lambda: choice(QUEUES),
            "exchange": lambda: choice(EXCHANGES),
            "source": lambda: choice(EXCHANGES),
            "destination": lambda: choice(EXCHANGES),
            "routing_key": lambda: choice(KEYS),
            "consumer_tag": lambda: choice(TAGS),
            "type": lambda: choice(TYPES),
            "delivery_tag": lambda: choice(DELIVERY_TAGS),
            "prefetch_size": lambda: self._seldom(choice(NUMBERS), 0),
            "prefetch_count": lambda: choice((0, 0, 1, 2, 5, 65535)),
            "active": lambda: self._seldom(False, True),
            "requeue": lambda: self._seldom(False, True),
            "immediate": lambda: self._seldom(True, False),
            "nowait": lambda: self._seldom(True, False),
            "passive": lambda: self._seldom(True, False),
            "arguments": self.table,
        }

    def _choice(self, values: Sequence[T]) -> T:
        return values[int(self.random.random() * len(values))]

    def _seldom(self, rare: T, usual: T) -> T:
        return rare if self.random.random() < 0.15 else usual

    def number(self, bits: int) -> int:
        """A number at or near a limit."""
        return self._choice(NUMBERS) & ((1 << bits) - 1)

    # Tables

    def table(self) -> dict[str, Any] | bytes:
        """A table for arguments or headers: mostly none, or a small one."""
        chance = self.random.random()
        if chance < 0.5:
            return {}
        if chance < 0.62:
            return self._known_arguments()
        if chance < 0.9:
            return {self._name(): self.field() for _ in range(int(self.random.random() * 5))}
        if chance < 0.95:
            return self._broken_table()
        return nested_table(self._choice((3, 99, 100, 101, 300)), self._choice((b"F", b"A")))

    def _known_arguments(self) -> dict[str, Any]:
        names = (
            *("x-message-ttl", "x-expires", "x-max-length", "x-max-priority", "x-priority"),
            *("x-match", "alternate-exchange", "x-dead-letter-exchange", "x-queue-type"),
            *("x-overflow", "x-single-active-consumer", "CC", "BCC"),
        )
        values: Sequence[Any] = (
            *(0, 1, -1, 10, 1 << 40, "all", "any", "all-with-x", "x0", "quorum", "stream"),
            *("drop-head", True, [], ["q0", "q1"], [1, None], {}, None, 1.5, Typed("T", 1 << 63)),
        )
        return {self._choice(names): self._choice(values) for _ in range(2)}

    def _broken_table(self) -> bytes:
        return self._choice(
            (
                b"\x01a",
                b"\x05ab",
                b"\x01aS\x00\x00\x00\xff",
                b"\x01aS\xff\xff\xff\xff",
                b"\x01a?\x00",
                b"\x02\xff\xfet\x01",
                b"\x01aI\x00",
                b"\x01aF\x00\x00\x00\x03\x01a",
                b"\x01aA\x00\x00\x00\x02S\x00",
                b"\xff",
            )
        )

    def _name(self) -> str:
        names = ("a", "b", "x-c", "CC", "BCC", "x-match", "", "é", "\udcff", "k" * 128)
        return self._choice(names)

    def field(self) -> Any:
        """A value of any wire type."""
        letter = self._choice(LETTERS)
        if letter in "bBsuIilLT":
            bits = {"b": 8, "B": 8, "s": 16, "u": 16, "I": 32, "i": 32}.get(letter, 64)
            value = self.random.getrandbits(bits)
            if letter in "bsIlL" and value >> (bits - 1):
                value -= 1 << bits
            return Typed("l" if letter == "L" else letter, value)
        if letter == "t":
            return self.random.random() < 0.5
        if letter in "fd":
            return Typed(letter, self._choice((0.0, -0.0, 1.5, float("nan"), float("inf"))))
        if letter == "D":
            return Typed("D", (self.number(8), self.number(31)))
        if letter in "Sx":
            return Typed(letter, self._choice((b"", b"a", b"\xff\x00", b"s" * 300, b"\x02CC")))
        if letter == "F":
            return {"a": self._choice((None, "x", 1))}
        return [self._choice((None, "q0", 1))] if letter == "A" else None

    # Methods

    def method(self, name: str, channel: int | None = None) -> bytes:
        """A frame of this method with arguments at random."""
        fields = {}
        for field, kind in LAYOUTS[name].fields:
            make = self._values.get(field)
            if make is not None:
                fields[field] = make()
            elif kind == "bit":
                fields[field] = self.random.random() < 0.25
        number = self._choice(CHANNELS) if channel is None else channel
        return encode_frame(METHOD, number, encode_method(name, **fields))

    def any_method(self) -> bytes:
        """A method that a client sends on a channel, seldom one that no client may send."""
        if self.random.random() < 0.03:
            name = self._choice(tuple(LAYOUTS))
            return self.method(name, self._choice((0, 0, 1, 2)))
        return self.method(self.random.choices(self._methods, self._weights)[0])

    def settlement(self) -> bytes:
        """An ack, nack or reject."""
        return self.method(self._choice(SETTLEMENTS))

    # Contents

    def properties(self) -> bytes:
        """Flags and property list of a content header."""
        chance = self.random.random()
        if chance < 0.4:
            return b"\x00\x00"
        if chance < 0.5:
            return self.random.randbytes(2 + int(self.random.random() * 8))
        octets = b""
        flags = 0
        for position, make in enumerate(self._property_makers()):
            if self.random.random() < 0.2:
                flags |= 1 << (15 - position)
                octets += make()
        return flags.to_bytes(2, "big") + octets

    def _property_makers(self) -> Sequence[Callable[[], bytes]]:
        def text(*values: str | bytes) -> Callable[[], bytes]:
            return lambda: encode_shortstr(self._choice(values))

        def octet() -> bytes:
            return self._choice((b"\x00", b"\x01", b"\x02", b"\xff"))

        def table() -> bytes:
            return encode_table(self.table())

        return (
            *(text("text/plain"), text("utf-8", b"\xff"), table, octet, octet, text("id")),
            text("amq.rabbitmq.reply-to", "amq.rabbitmq.reply-to.x", "r"),
            *(text("1000", "", "-1", "1e3", "9" * 20, "x"), text("m"), lambda: b"\xff" * 8),
            *(text("t"), text("guest", "root"), text("app"), text("")),
        )

    def publish(self) -> bytes:
        """basic.publish with its content, which mostly is as announced."""
        channel = self._choice(CHANNELS)
        body = self._choice((b"", b"", b"x", b"hello", b"\xce" * 20, b"b" * 300))
        size = len(body)
        chance = self.random.random()
        if chance < 0.06:
            size = self._choice((0, 1, size + 1, 1 << 60, (1 << 64) - 1, 200_000_000))
        header = encode_header(
            size, self.properties(), self._seldom(50, 60) if chance > 0.9 else 60
        )
        frames = [self.method("basic.publish", channel), encode_frame(HEADER, channel, header)]
        if chance > 0.8 and body:
            cut = int(self.random.random() * len(body))
            frames += [encode_frame(BODY, channel, part) for part in (b"", body[:cut], body[cut:])]
        elif body:
            frames.append(encode_frame(BODY, channel, body))
        if chance > 0.97:
            self.random.shuffle(frames)
        copies = 1 if chance < 0.7 else 1 + int(self.random.random() * 4)
        return b"".join(frames) * copies

    def wild_frame(self) -> bytes:
        """A frame that no method made: any kind, channel, size and payload."""
        kind = self._choice((METHOD, METHOD, HEADER, BODY, HEARTBEAT, 0, 4, 65, 255))
        channel = self._choice((0, 1, 2, 3, 2047, 2048, 65535))
        if kind == METHOD:
            ids = (
                self._choice((10, 20, 30, 40, 50, 60, 85, 90, 7)),
                self._choice(
                    (10, 11, 20, 21, 30, 31, 40, 41, 50, 51, 60, 70, 71, 80, 90, 100, 110, 120, 9)
                ),
            )
            payload = b"".join(number.to_bytes(2, "big") for number in ids)
            payload += self.random.randbytes(int(self.random.random() * 24))
        else:
            payload = self.random.randbytes(int(self.random.random() * 24))
        return encode_frame(kind, channel, payload, self._seldom(0, 0xCE))

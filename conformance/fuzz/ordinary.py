"""What ordinary programs say: the frames between which the odd ones come.

Everything here is right by itself, and uses the same few names, so that sessions get deep: queues
with consumers and unsettled messages, bindings, transactions, confirms, replies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from conformance.fuzz.world import FIRST_TOKEN, method
from conformance.methods import encode_frame, encode_header

CHANNELS = (1, 2, 3)
OPENS = [method(number, "channel.open") for number in CHANNELS]
_EXCHANGES: Sequence[tuple[str, dict[str, Any]]] = (
    ("x0", {"type": "fanout"}),
    ("x1", {"type": "topic", "durable": True}),
    ("x2", {"type": "headers", "auto_delete": True}),
    ("x3", {"type": "direct", "arguments": {"alternate-exchange": "x0"}}),
)
_QUEUES: Sequence[tuple[str, dict[str, Any]]] = (
    ("q0", {"durable": True}),
    ("q1", {"auto_delete": True}),
    ("q2", {"arguments": {"x-max-priority": 5, "x-unknown": [1, {"a": None}]}}),
    ("q3", {"exclusive": True}),
)
_BINDINGS: Sequence[tuple[str, str, dict[str, Any]]] = (
    ("x0", "", {}),
    ("x1", "a.#", {}),
    ("x1", "#.b.*", {"arg": 1}),
    ("x2", "", {"x-match": "any", "h": 1, "g": "y"}),
    ("x2", "", {"x-match": "all-with-x", "x-h": None}),
    ("x3", "key", {}),
)
_CONTENTS: Sequence[tuple[bytes, dict[str, Any]]] = (
    (b"", {}),
    (b"hello", {"delivery_mode": 2, "message_id": "m"}),
    (b"b" * 200, {"headers": {"h": 1, "x-h": "v"}, "priority": 3}),
    (b"c", {"headers": {"CC": ["q1", "q2"], "BCC": ["q0"], "g": "y"}}),
    (b"r", {"reply_to": "amq.rabbitmq.reply-to", "correlation_id": "1"}),
    (b"t", {"expiration": "60000", "user_id": "guest", "timestamp": 1 << 40}),
)
_ADDRESSES = (
    *(("", "q0"), ("", "q0"), ("", "q1"), ("", "q2"), ("", "q3"), ("", "nowhere")),
    *(("x0", ""), ("x1", "a.b.c"), ("x2", ""), ("x3", "key"), ("x3", "other"), ("amq.topic", "a")),
    *(("", f"amq.rabbitmq.reply-to.{FIRST_TOKEN}"),) * 2,
)


def declarations(channel: int) -> list[bytes]:
    """Declares and binds everything."""
    return [
        *(method(channel, "exchange.declare", exchange=name, **of) for name, of in _EXCHANGES),
        *(method(channel, "queue.declare", queue=name, **of) for name, of in _QUEUES),
        *(
            method(
                channel,
                "queue.bind",
                queue=f"q{place % 4}",
                exchange=exchange,
                routing_key=key,
                arguments=arguments,
            )
            for place, (exchange, key, arguments) in enumerate(_BINDINGS)
        ),
        method(channel, "exchange.bind", source="x0", destination="x1", routing_key="a.x"),
        method(channel, "exchange.bind", source="x1", destination="x0", routing_key="#"),
    ]


def consumers(channel: int) -> Iterator[bytes]:
    """Starts consumers of every kind."""
    for place, (queue, _) in enumerate(_QUEUES):
        for no_ack in (False, True):
            yield method(
                channel,
                "basic.consume",
                queue=queue,
                consumer_tag=f"t{channel}{place}{no_ack:d}",
                no_ack=no_ack,
                arguments={"x-priority": place} if place % 2 else {},
            )
    yield method(channel, "basic.consume", queue="q0", consumer_tag="t-exclusive", exclusive=True)
    yield method(channel, "basic.consume", queue="amq.rabbitmq.reply-to", no_ack=True)
    yield method(channel, "basic.consume", queue="q0", nowait=True)


def publishes(channel: int) -> Iterator[bytes]:
    """Publishes of every content to every address, one or several at once."""
    for place, (exchange, key) in enumerate(_ADDRESSES):
        for number, (body, properties) in enumerate(_CONTENTS):
            head = method(
                channel,
                "basic.publish",
                exchange=exchange,
                routing_key=key,
                mandatory=(place + number) % 3 == 0,
            )
            half = len(body) // 2 if number % 2 else 0
            parts = [part for part in (body[:half], body[half:]) if part]
            frames = [encode_frame(3, channel, part) for part in parts]
            header = encode_frame(2, channel, encode_header(len(body), properties))
            yield (head + header + b"".join(frames)) * (1 + (place * number) % 4)


def requests(channel: int) -> Iterator[bytes]:
    """The other methods."""
    for queue, _ in _QUEUES:
        yield method(channel, "basic.get", queue=queue)
        yield method(channel, "basic.get", queue=queue, no_ack=True)
        yield method(channel, "queue.declare", queue=queue, passive=True)
    for prefetch, is_global in ((0, False), (1, False), (2, True), (0, True), (3, False)):
        yield method(channel, "basic.qos", prefetch_count=prefetch, global_=is_global)
    for name in ("recover", "recover-async"):
        yield method(channel, f"basic.{name}", requeue=True)
    for name in ("confirm.select", "tx.select", "tx.commit", "tx.commit", "tx.rollback"):
        yield method(channel, name)
    for tag in (f"t{channel}00", f"t{channel}01", "t-exclusive"):
        yield method(channel, "basic.cancel", consumer_tag=tag)
    yield method(channel, "tx.select") + method(channel, "tx.select")
    yield method(channel, "queue.declare", nowait=True, exclusive=True)
    yield method(channel, "channel.close") + method(channel, "channel.open")
    yield method(channel, "queue.purge", queue="q0")
    yield method(channel, "queue.unbind", queue="q0", exchange="x0")
    yield method(channel, "queue.unbind", queue="q1", exchange="x1", routing_key="a.#")
    yield method(channel, "exchange.unbind", source="x0", destination="x1", routing_key="a.x")
    yield method(channel, "queue.delete", queue="q1")
    yield method(channel, "queue.delete", queue="q2", if_unused=True, if_empty=True)
    yield method(channel, "exchange.delete", exchange="x3")
    yield method(channel, "channel.flow", active=True)


def settlements(channel: int) -> Iterator[bytes]:
    """Acks, nacks and rejects of the deliveries that a short session has."""
    for tag in (1, 2, 3, 4, 6):
        yield method(channel, "basic.ack", delivery_tag=tag)
        yield method(channel, "basic.reject", delivery_tag=tag, requeue=tag % 2 == 0)
    for tag in (0, 2, 5):
        yield method(channel, "basic.ack", delivery_tag=tag, multiple=True)
        yield method(channel, "basic.nack", delivery_tag=tag, multiple=True, requeue=True)
    for tags in ((1, 2, 3), (3, 1, 2), (2, 3, 4)):
        yield b"".join(method(channel, "basic.ack", delivery_tag=tag) for tag in tags)


DECLARATIONS = {channel: declarations(channel) for channel in CHANNELS}
CONSUMERS = {channel: list(consumers(channel)) for channel in CHANNELS}
PUBLISHES = {channel: list(publishes(channel)) for channel in CHANNELS}
REQUESTS = {channel: list(requests(channel)) for channel in CHANNELS}
SETTLEMENTS = {channel: list(settlements(channel)) for channel in CHANNELS}

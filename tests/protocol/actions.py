"""What clients of a random program do: each action makes the frames of one intent."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from broker.core.reply import REPLY_TO_NAME
from broker.wire.frames import BODY, frame
from broker.wire.methods import Method, commands, shortstr
from broker.wire.properties import EXPIRATION, HEADERS, PRIORITY, REPLY_TO, header_frame
from broker.wire.table import Field, encode_table
from tests.protocol.client import (
    Basic,
    Channel,
    Confirm,
    Exchange,
    Queue,
    Tx,
    octets_of,
    publish_octets,
    text,
)

if TYPE_CHECKING:
    from tests.protocol.programs import Player

CLIENTS = 3
CHANNELS = 2
QUEUES = ("q0", "q1", "q2", "q3")
# One of them wants settlements in time, one deals its messages another way, one has priorities.
ARGUMENTS = {
    "q1": {"x-consumer-timeout": Field("signedint", 150)},
    "q2": {"x-dispatch": text("least-loaded")},
    "q3": {"x-max-priority": Field("byte", 4)},
}
RUN_MS = 50
"""Message time that passes between two runs of frames."""
EXCHANGES = (("x0", "fanout"), ("x1", "topic"), ("x2", "headers"))
KEYS = (*QUEUES, "nowhere", "a.b", "#")
FRAME_SIZES = (4096, 131072, 4096)


class Intent(NamedTuple):
    """What a client wants to do; `a`, `b` and `c` choose the details."""

    name: str
    channel: int
    a: int
    b: int
    c: int


Frames = list[bytes]
Action = Callable[["Player", int, Intent], "Frames"]
ACTIONS: dict[str, Action] = {}
WEIGHTS: dict[str, int] = {}


def action(weight: int) -> Callable[[Action], Action]:
    def register(function: Action) -> Action:
        ACTIONS[function.__name__] = function
        WEIGHTS[function.__name__] = weight
        return function

    return register


def one(kind: type[Method], intent: Intent, **arguments: object) -> Frames:
    return [octets_of(kind, intent.channel, **arguments)]


def split(octets: bytes) -> Frames:
    """The frames in a sequence of octets."""
    frames = []
    while octets:
        size = 8 + int.from_bytes(octets[3:7], "big")
        frames.append(octets[:size])
        octets = octets[size:]
    return frames


def queue_of(client: int, channel: int) -> str:
    """The queue that this channel consumes from."""
    return QUEUES[(client + channel) % len(QUEUES)]


def reopen(player: Player, client: int, intent: Intent) -> Frames:
    """After an error: the channel is closed properly and opened again."""
    player.forget(client, intent.channel)
    kinds = (Channel.CloseOk, Channel.Open)
    return [octets_of(kind, intent.channel) for kind in kinds]


@action(1)
def pause(player: Player, client: int, intent: Intent) -> Frames:
    """Nothing, which a failing program shrinks to."""
    return []


@action(1)
def close_and_open(player: Player, client: int, intent: Intent) -> Frames:
    player.forget(client, intent.channel)
    return [octets_of(kind, intent.channel) for kind in (Channel.Close, Channel.Open)]


@action(2)
def declare(player: Player, client: int, intent: Intent) -> Frames:
    name = QUEUES[intent.a % 4]
    arguments = dict(ARGUMENTS.get(name, {}))
    if intent.b == 3:
        arguments["x-single-active-consumer"] = Field("bool", value=True)
    return one(
        Queue.Declare,
        intent,
        queue=name,
        auto_delete=intent.b == 1,
        exclusive=intent.b == 2,
        arguments=arguments,
        nowait=intent.c == 1,
    )


@action(2)
def delete(player: Player, client: int, intent: Intent) -> Frames:
    name = QUEUES[intent.a % 4]
    frames = one(Queue.Delete, intent, queue=name, if_empty=intent.b == 1, if_unused=intent.b == 2)
    # Mostly it comes back, so that there is something to talk about.
    again = one(Queue.Declare, intent, queue=name, arguments=ARGUMENTS.get(name, {}))
    return frames + (again if intent.c else [])


@action(2)
def bind(player: Player, client: int, intent: Intent) -> Frames:
    kind = Queue.Unbind if intent.c == 1 else Queue.Bind
    return one(
        kind,
        intent,
        queue=QUEUES[intent.a % 4],
        exchange=EXCHANGES[intent.b % 3][0],
        routing_key=KEYS[intent.c % len(KEYS)],
    )


@action(1)
def bind_exchanges(player: Player, client: int, intent: Intent) -> Frames:
    kind = Exchange.Unbind if intent.c == 1 else Exchange.Bind
    return one(
        kind,
        intent,
        destination=EXCHANGES[intent.a % 3][0],
        source=EXCHANGES[intent.b % 3][0],
        routing_key="#",
    )


BODIES = (b"", b"a", b"bb", b"c" * 200, b"d" * 4088, b"e" * 4089, b"f" * 9000, b"g")
PROPERTIES = (
    (0, b""),
    (PRIORITY, b"\x05"),
    (PRIORITY, b"\x02"),
    (PRIORITY, b"\x01"),
    (HEADERS, encode_table({"n": text("1")})),
    (HEADERS, encode_table({"CC": Field("array", [text("q1")]), "n": text("x")})),
    (HEADERS, encode_table({"BCC": Field("array", [text("q2")])})),
    (EXPIRATION, shortstr("1000")),
    (REPLY_TO, shortstr("me")),
    (REPLY_TO, shortstr(REPLY_TO_NAME)),
)


@action(14)
def publish(player: Player, client: int, intent: Intent) -> Frames:
    flags, properties = PROPERTIES[(intent.c + intent.a) % len(PROPERTIES)]
    exchange, key = ("", KEYS[intent.b % 5])
    if intent.b >= 5:
        exchange, key = EXCHANGES[intent.b - 5][0], KEYS[intent.a % len(KEYS)]
    return split(
        publish_octets(
            BODIES[intent.a],
            exchange=exchange,
            key=key,
            channel=intent.channel,
            mandatory=intent.b % 4 == 3,
            flags=flags,
            properties=properties,
            frame_max=FRAME_SIZES[client],
        )
    )


@action(10)
def publish_many(player: Player, client: int, intent: Intent) -> Frames:
    """Much the same again and again, which the hot path takes at once."""
    flags = PRIORITY if intent.c in (1, 5) else 0
    octets = [
        publish_octets(
            b"%d" % number if intent.c < 4 else b"x" * intent.c,
            key=QUEUES[intent.a % 4],
            flags=flags,
            properties=b"%c" % (number * intent.c % 6) if flags else b"",
            channel=intent.channel,
            frame_max=FRAME_SIZES[client],
        )
        for number in range(2 + intent.b)
    ]
    return split(b"".join(octets))


@action(3)
def publish_in_odd_frames(player: Player, client: int, intent: Intent) -> Frames:
    body = bytes(range(intent.a + 4)) * (1 + 600 * (intent.c == 1))
    step = 1 + intent.b * 700 if intent.c == 1 else 1 + intent.b
    method = octets_of(Basic.Publish, intent.channel, routing_key=QUEUES[intent.a % 4])
    pieces = [body[at : at + step] for at in range(0, len(body), step)]
    if intent.c == 2:
        pieces.insert(1, b"")
    header = header_frame(intent.channel, len(body), 0, b"")
    return [method, header, *(frame(BODY, intent.channel, piece) for piece in pieces)]


@action(1)
def publish_wrongly(player: Player, client: int, intent: Intent) -> Frames:
    wrongs: list[dict[str, object]] = [
        {"exchange": "nope"},
        {"flags": EXPIRATION, "properties": shortstr("soon")},
        {"flags": HEADERS, "properties": encode_table({"CC": text("q0")})},
        {"exchange": "amq.rabbitmq.trace"},
    ]
    wrong = wrongs[intent.a % len(wrongs)]
    return split(publish_octets(b"w", channel=intent.channel, **wrong))  # type: ignore[arg-type]


@action(6)
def consume(player: Player, client: int, intent: Intent) -> Frames:
    player.consumers += 1
    tag = str(player.consumers)
    no_ack = intent.b == 1
    if no_ack:
        player.no_ack.add((client, intent.channel, tag))
    priority = {"x-priority": Field("signedint", 1)} if intent.c == 1 else {}
    return one(
        Basic.Consume,
        intent,
        queue=queue_of(client, intent.channel),
        consumer_tag=tag,
        no_ack=no_ack,
        exclusive=intent.c == 5,
        arguments=priority,
    )


@action(2)
def consume_replies(player: Player, client: int, intent: Intent) -> Frames:
    player.consumers += 1
    tag = str(player.consumers)
    player.no_ack.add((client, intent.channel, tag))
    return one(Basic.Consume, intent, queue=REPLY_TO_NAME, consumer_tag=tag, no_ack=True)


@action(3)
def reply(player: Player, client: int, intent: Intent) -> Frames:
    tokens = sorted(player.site.broker.reply_sinks) or ["gone"]
    key = f"{REPLY_TO_NAME}.{tokens[intent.a % len(tokens)]}"
    return split(publish_octets(b"reply", key=key, channel=intent.channel, mandatory=intent.b == 1))


@action(2)
def cancel(player: Player, client: int, intent: Intent) -> Frames:
    tags = player.tags.get((client, intent.channel), [])
    tag = tags.pop(intent.a % len(tags)) if tags else "none"
    return one(Basic.Cancel, intent, consumer_tag=tag, nowait=intent.b == 1)


@action(4)
def qos(player: Player, client: int, intent: Intent) -> Frames:
    return one(Basic.Qos, intent, prefetch_count=intent.a % 4, global_=intent.b % 2)


@action(12)
def ack(player: Player, client: int, intent: Intent) -> Frames:
    if (intent.b, intent.c) == (1, 1):
        player.unsettled.pop((client, intent.channel), None)
        return one(Basic.Ack, intent, delivery_tag=0, multiple=True)
    return player.settle(client, Basic.Ack, intent, multiple=intent.b == 1)


@action(8)
def ack_many(player: Player, client: int, intent: Intent) -> Frames:
    """Acks for each, as the hot path takes them at once."""
    known = player.unsettled.get((client, intent.channel), [])
    count = min(len(known), 1 + intent.a)
    tags = [known.pop(0 if intent.b < 6 else -1) for _ in range(count)]
    return [frame for tag in tags for frame in one(Basic.Ack, intent, delivery_tag=tag)]


@action(4)
def nack(player: Player, client: int, intent: Intent) -> Frames:
    multiple, requeue = intent.b == 1, intent.c % 3 != 0
    return player.settle(client, Basic.Nack, intent, multiple=multiple, requeue=requeue)


@action(3)
def reject(player: Player, client: int, intent: Intent) -> Frames:
    return player.settle(client, Basic.Reject, intent, requeue=intent.c % 3 != 0)


@action(4)
def get(player: Player, client: int, intent: Intent) -> Frames:
    # The player settles what it gets without an acknowledgement only if it errs, rarely.
    return one(
        Basic.Get, intent, queue=QUEUES[intent.a % 4], no_ack=intent.b == 1 and intent.c == 1
    )


@action(1)
def purge(player: Player, client: int, intent: Intent) -> Frames:
    return one(Queue.Purge, intent, queue=QUEUES[intent.a % 4])


@action(2)
def recover(player: Player, client: int, intent: Intent) -> Frames:
    player.unsettled.pop((client, intent.channel), None)
    return one(Basic.Recover if intent.a % 2 else Basic.RecoverAsync, intent, requeue=True)


@action(3)
def confirm(player: Player, client: int, intent: Intent) -> Frames:
    return one(Confirm.Select, intent)


@action(3)
def transact(player: Player, client: int, intent: Intent) -> Frames:
    select = one(Tx.Select, intent)
    ends = (Tx.Commit, Tx.Commit, Tx.Rollback)
    return select + (one(ends[intent.a % 3], intent) if intent.b < 4 else [])


@action(1)
def close_connection(player: Player, client: int, intent: Intent) -> Frames:
    if intent.a != 7 or intent.b > 2:
        return []
    return [octets_of(commands.Connection.Close, 0)]

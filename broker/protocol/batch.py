"""The hot path: runs of publishes and of acknowledgements, taken from a chunk at once.

A publish is three frames that nearly always arrive together: method, header, body. The first
publish of a run is checked octet by octet; what follows with the same method frame, the same
header frame and the same body size differs in its body only, and costs one comparison and one
slice. Whatever is not plain (a content in several frames, or at the edge of a chunk) is left to an
`Assembly`, frame by frame.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from broker.core.expiring import can_join
from broker.core.message import ORIGIN, Message
from broker.protocol.assembly import Assembly, check_header
from broker.protocol.consumer_timeout import take
from broker.protocol.publish import check, publish, publish_special, refuse
from broker.protocol.publish_checks import without_special
from broker.protocol.refusal import RefusedContent
from broker.protocol.route import Route, find_route, origin_of, resolve
from broker.wire.frames import (
    BODY,
    CONTENT_HEADER,
    CONTENT_HEADER_MIN,
    FRAME_END,
    FRAME_HEADER,
    FRAME_OVERHEAD,
    HEADER,
)

if TYPE_CHECKING:
    from broker.protocol.channel import Channel

ACK_FRAME_SIZE = 21
RUN_MAX = 16_384
"""Messages times queues that one run of publishes may add before memory is looked at again."""
_ACK_HEAD_SIZE = 11
_ACK = struct.Struct(">QBB")
_CLASS_BASIC = 60
_HEADER_PAYLOAD_MIN = 14
_PROPERTIES_AT = CONTENT_HEADER.size
_BODY_HEAD = FRAME_HEADER.pack
_UNPACK = CONTENT_HEADER.unpack_from


def read_publishes(channel: Channel, chunk: bytes, at: int, end: int) -> int:
    """Takes as many publishes as follow with the same method frame, which is `chunk[at:end]`.

    Returns where the next frame begins. Where it raises AMQPError, `channel.connection.position`
    is behind the message that was wrong.
    """
    connection, shapes = channel.connection, channel.shapes
    route = find_route(channel, chunk[at + 7 : end - 1])
    method = chunk[at:end]
    messages: list[Message] = []
    sizes: list[int] = []
    number, own_framing = channel.number, channel.framing
    payload_max = connection.frame_max - FRAME_OVERHEAD
    size_max = min(payload_max, connection.broker.limits.message_size_max)
    last_header = len(chunk) - CONTENT_HEADER_MIN
    startswith = chunk.startswith
    limit = 0
    try:
        while end <= last_header:
            kind, frame_channel, size, class_id, weight, body_size, flags = _UNPACK(chunk, end)
            body_at: int = end + FRAME_OVERHEAD + size
            stop = body_at + (FRAME_OVERHEAD + body_size if body_size else 0)
            if (
                stop > len(chunk)
                or kind != HEADER
                or frame_channel != number
                or class_id != _CLASS_BASIC
                or weight
                or not _HEADER_PAYLOAD_MIN <= size <= payload_max
                or body_size > size_max
                or chunk[body_at - 1] != FRAME_END
                or chunk[stop - 1] != FRAME_END
                or (body_size and not startswith(_BODY_HEAD(BODY, number, body_size), body_at))
            ):
                break
            connection.position = stop
            properties_at = end + _PROPERTIES_AT
            is_known = shapes.knows(chunk, properties_at, body_at - 1, flags)
            if not is_known:
                check_header(chunk, properties_at, body_at - 1, flags)
            if not limit:
                resolve(channel, route)
                limit = max(1, RUN_MAX // route.cost)
            origin = origin_of(route, chunk, properties_at, flags)
            message = (chunk[end:stop], body_at - end, origin, own_framing)
            looked_at = message if is_known else without_special(channel, message, flags)
            if looked_at is None:
                publish_ready(channel, route, messages, sizes)
                publish_special(channel, route, message)
                sizes.append(body_size)
                return stop
            message = looked_at
            if messages and message[ORIGIN] is not messages[-1][ORIGIN]:
                _publish_others(channel, route, messages, sizes, message)
            messages.append(message)
            sizes.append(body_size)
            unit, prefix = stop - at, chunk[at : stop - body_size - 1 if body_size else stop]
            at = stop
            if startswith(prefix, at):
                most = at + unit * (limit - len(messages))
                at = _read_same(chunk, at, prefix, unit, end + unit, message, messages, most)
                sizes += [body_size] * ((at - stop) // unit)
            end = at + len(method)
            if len(messages) >= limit or not startswith(method, at):
                return at
    finally:
        publish_ready(channel, route, messages, sizes)
    # Not here as one: it is received frame by frame.
    channel.assembly = Assembly(connection.broker, route)
    return end


def _publish_others(
    channel: Channel, route: Route, messages: list[Message], sizes: list[int], message: Message
) -> None:
    """Publishes what was collected, if it cannot be one with a message of another origin."""
    if not can_join(messages[-1], message, len(messages)):
        publish_ready(channel, route, messages, sizes)


def publish_ready(
    channel: Channel, route: Route, messages: list[Message], sizes: list[int]
) -> None:
    """Publishes what was collected, and empties the lists. `sizes` are those of the bodies."""
    if sizes:
        channel.connection.broker.counters.message_sizes.observe(sizes)
        sizes.clear()
    if messages:
        publish(channel, route, messages[:])
        messages.clear()


def _read_same(
    chunk: bytes,
    at: int,
    prefix: bytes,
    unit: int,
    content_at: int,
    message: Message,
    messages: list[Message],
    most: int,
) -> int:
    """Appends the messages from `chunk[at:most]` that begin with `prefix` and take `unit` octets:
    they differ from `message` in their body only. `content_at` is where the content of the first
    one begins. Returns where the next frame begins."""
    _, header_size, origin, framing = message
    append = messages.append
    startswith = chunk.startswith
    most = min(most, len(chunk))
    stop = at + unit
    while stop <= most and startswith(prefix, at) and chunk[stop - 1] == FRAME_END:
        append((chunk[content_at:stop], header_size, origin, framing))
        at = stop
        content_at += unit
        stop += unit
    return at


def read_refused(channel: Channel, chunk: bytes, at: int, end: int) -> int:
    """Takes publishes that are refused from `at` on, where `chunk[at:end]` is the method frame of
    the first: those that look like the last one at once, others frame by frame. Returns where the
    next frame begins."""
    connection = channel.connection
    broker = connection.broker
    look = channel.refused_look
    if look is not None and look.route.stamp == (channel.vhost.epoch, broker.permission_epoch):
        count, stop = look.run_from(chunk, at)
        if count:
            refuse(channel, look.body_size, count)
            return stop
    route = find_route(channel, chunk[at + 7 : end - 1])
    channel.assembly = RefusedContent(broker, route, chunk[at:end])
    return end


def end_refused(channel: Channel, content: RefusedContent) -> None:
    """A content that is refused is complete. Raises what is wrong with it."""
    assert content.header is not None
    channel.drop_assembly()
    is_special = check(channel, content.route, content.header, content.flags)
    channel.refused_look = None if is_special else content.look(channel)
    refuse(channel, content.body_size)


def read_acks(channel: Channel, chunk: bytes, at: int) -> int:
    """Takes as many basic.ack frames as follow one another from `at` on, and returns where the
    next frame begins. Raises AMQPError with `channel.connection.position` behind the wrong one."""
    connection = channel.connection
    unacked = channel.unacked
    head = channel.ack_head
    startswith = chunk.startswith
    last = len(chunk) - ACK_FRAME_SIZE
    unpack = _ACK.unpack_from
    first = expected = unacked.front_tag
    # Under a limit of the whole channel each settlement may wake another consumer.
    may_run = not channel.prefetch
    limit = first + may_run * unacked.run_length()
    while at <= last and startswith(head, at):
        tag, multiple, frame_end = unpack(chunk, at + _ACK_HEAD_SIZE)
        if frame_end != FRAME_END:
            break
        at += ACK_FRAME_SIZE
        if tag == expected < limit and not multiple:
            expected += 1
            continue
        if expected > first:
            acknowledge_front(channel, expected - first)
        connection.position = at
        acknowledge(channel, tag, multiple=bool(multiple & 1))
        if at > last:
            return at
        first = expected = unacked.front_tag
        limit = first + may_run * unacked.run_length()
    if expected > first:
        acknowledge_front(channel, expected - first)
    return at


def acknowledge_front(channel: Channel, count: int) -> None:
    """Acknowledges the oldest `count` deliveries, none of which is settled."""
    channel.acknowledge(channel.unacked.take_front(count))
    channel.connection.broker.counters.messages_acknowledged += count


def acknowledge(channel: Channel, tag: int, *, multiple: bool) -> None:
    """basic.ack outside a transaction; raises PRECONDITION_FAILED for an unknown tag."""
    if channel.prefetch or not tag:
        channel.connection.broker.run_deliveries()
    groups = take(channel, tag, multiple=multiple)
    channel.acknowledge(groups)
    counters = channel.connection.broker.counters
    for _, entries in groups:
        counters.messages_acknowledged += len(entries)

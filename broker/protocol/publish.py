"""A publish: where its method frame leads, and its content while that is received frame by frame.

The order of checks is RabbitMQ's: size, write permission, exchange, internal, reply-to,
user-id, expiration, CC and BCC, route (rabbit_channel, handle_method of 'basic.publish').
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from broker.core.arguments import is_quorum
from broker.core.delay import delay_of
from broker.core.delayed import apart, shown, waiting_from, with_blind_copies
from broker.core.exchange import Exchange
from broker.core.expiring import can_join
from broker.core.history import History
from broker.core.limits import MAXLEN, has_room, is_full
from broker.core.message import (
    ORIGIN,
    PERSISTENT,
    PUBLISHED,
    TTL,
    Message,
    Origin,
    header_of,
    make_origin,
    with_time,
)
from broker.core.queue import Queue
from broker.core.reply import REPLY_TO_NAME, ReplyChannel
from broker.core.routing import Passage, find_queues
from broker.core.rules import REJECT_PUBLISH_DLX
from broker.errors import AMQPError, ReplyCode, exchange_title, storage_failed
from broker.protocol.assembly import PUBLISH
from broker.protocol.publish_checks import check_and_edit, expiration_of, sender_keys
from broker.wire import properties
from broker.wire.frames import CONTENT_HEADER
from broker.wire.methods import commands, decode_method

if TYPE_CHECKING:
    from broker.protocol.channel import Channel

ROUTES_MAX = 1024
"""Distinct publish frames a connection remembers; then it starts anew."""

_SPECIAL = properties.EXPIRATION | properties.USER_ID


class Route:
    """What one publish method frame says, and the queues it leads to while nothing changes.

    `queues` is None where the way depends on what else each message says, or on chance. Persistent
    messages have an origin of their own, if some of the queues last (`may_last`).
    """

    __slots__ = (
        "all_last",
        "cost",
        "exchange",
        "is_timed",
        "mandatory",
        "may_last",
        "origin",
        "persistent_origin",
        "queues",
        "refuses",
        "stamp",
    )

    def __init__(self, method: commands.Basic.Publish) -> None:
        names = method.exchange, method.routing_key
        self.origin: Origin = make_origin(*names)
        self.persistent_origin: Origin = make_origin(*names, persistent=True)
        self.mandatory = method.mandatory
        self.may_last = False
        # A quorum queue keeps every message, whatever its delivery mode.
        self.all_last = False
        self.exchange: Exchange | None = None
        self.queues: list[Queue] | None = None
        # Whether it matters to a queue when messages were published.
        self.is_timed = False
        # Whether a queue may refuse them.
        self.refuses = False
        # Steps that one message takes: queues, or what is looked at to find them.
        self.cost = 1
        # The epochs of topology and permissions for which `queues` holds.
        self.stamp = (-1, -1)


def find_route(channel: Channel, payload: bytes) -> Route:
    """The route for the payload of a basic.publish frame, remembered by its octets."""
    route = channel.routes.get(payload)
    if route is None:
        method = cast(commands.Basic.Publish, decode_method(payload))
        if method.immediate:
            raise AMQPError(ReplyCode.NOT_IMPLEMENTED, "immediate=true", PUBLISH)
        if len(channel.routes) >= ROUTES_MAX:
            channel.routes.clear()
        route = channel.routes[payload] = Route(method)
    return route


def resolve(channel: Channel, route: Route) -> None:
    """Looks where the route leads now; raises what publishing there is answered with."""
    broker = channel.connection.broker
    if route.stamp != (channel.vhost.epoch, broker.permission_epoch):
        _look(channel, route)
    now = broker.timers.now
    if route.is_timed and route.origin[PUBLISHED] != now:
        route.origin = with_time(route.origin, now)
        route.persistent_origin = with_time(route.persistent_origin, now)


def _look(channel: Channel, route: Route) -> None:
    vhost = channel.vhost
    broker = channel.connection.broker
    stamp = (vhost.epoch, broker.permission_epoch)
    name, routing_key = route.origin[:2]
    try:
        broker.check_permission(channel.connection.user, "write", "exchange", name, vhost.name)
    except AMQPError as error:
        # The frame that is being read may be one of the content.
        error.method_index = PUBLISH
        raise
    exchange = vhost.exchanges.get(name)
    if exchange is None:
        raise AMQPError(ReplyCode.NOT_FOUND, f"no {exchange_title(name, vhost.name)}", PUBLISH)
    if exchange.internal:
        raise AMQPError(
            ReplyCode.ACCESS_REFUSED,
            f"cannot publish to internal {exchange_title(name, vhost.name)}",
            PUBLISH,
        )
    route.exchange = exchange
    passage = Passage([routing_key], b"", broker.random_bytes)
    queues, is_fixed = find_queues(vhost, exchange, passage)
    is_fixed = is_fixed and not (name == "" and routing_key.startswith(REPLY_TO_NAME))
    route.queues = queues if is_fixed else None
    route.may_last = any(queue.lasting for queue in queues) if is_fixed else broker.lasts
    route.all_last = is_fixed and any(is_quorum(queue.arguments) for queue in queues)
    if is_fixed:
        route.is_timed = any(queue.rules.message_ttl is not None for queue in queues)
        route.refuses = any(queue.rules.refuses for queue in queues)
    else:
        policies = vhost.policies
        route.is_timed, route.refuses = policies.timed_count > 0, policies.refusing_count > 0
    # A time of before, when it mattered, would be wrong from now on.
    route.origin = with_time(route.origin, None)
    route.persistent_origin = with_time(route.persistent_origin, None)
    route.cost = max(1, len(queues), 0 if is_fixed else passage.steps)
    route.stamp = stamp


def origin_of(route: Route, octets: bytes, at: int, flags: int) -> Origin:
    """The origin of a message on this route, whose property list begins at `octets[at]`."""
    if route.may_last and (route.all_last or properties.is_persistent(octets, at, flags)):
        return route.persistent_origin
    return route.origin


def is_special(flags: int, header: bytes) -> bool:
    """Whether a message has properties that publishing has to look at. `header` is its header
    frame, or anything that contains it."""
    if flags & _SPECIAL:
        return True
    if flags & properties.HEADERS and (b"\x02CC" in header or b"\x03BCC" in header):
        return True
    return bool(flags & properties.REPLY_TO) and b"amq.rabbitmq.reply-to" in header


def without_special(channel: Channel, message: Message, flags: int) -> Message | None:
    """A message whose properties say nothing to the broker, as it is; one of which they say the
    expiration and no more, with that; None for all others. Raises what is wrong with the
    expiration."""
    header = header_of(message)
    if not is_special(flags, header):
        channel.shapes.learn(header, CONTENT_HEADER.size, len(header) - 1, flags)
        return message
    others = flags & ~properties.EXPIRATION
    if others == flags or channel.transaction is not None or is_special(others, header):
        return None
    content, header_size, origin, framing = message
    now = channel.connection.broker.timers.now
    return content, header_size, with_time(origin, now, expiration_of(header)), framing


def publish(channel: Channel, route: Route, messages: list[Message]) -> None:
    """Publishes messages of one resolved route that have no special properties, but perhaps an
    expiration. Either all are persistent or none; either all have an expiration or none."""
    if route.refuses and channel.transaction is None and not _all_fit(route, messages):
        for message in messages:
            # Numbered one by one, since the last one is what a refusal is about.
            _count_received(channel, 1)
            _hand_out(channel, route, message, route.queues or _queues_of(channel, route, message))
        return
    _count_received(channel, len(messages))
    if channel.transaction is not None:
        channel.transaction.publish(route, messages, route.queues)
        return
    queues = route.queues
    if queues is None:
        _publish_each(channel, route, messages)
    elif len(queues) > 1 and _share_room(queues):
        for message in messages:
            _hand_out(channel, route, message, queues)
    elif queues:
        _append(channel, queues, messages)
    else:
        _not_routed(channel, route, messages)


def _publish_each(channel: Channel, route: Route, messages: list[Message]) -> None:
    """Publishes messages each of which says where it goes. Those that wait go a few at a time."""
    exchange = route.exchange
    assert exchange is not None
    delays = exchange.delays and not route.mandatory
    now = channel.connection.broker.timers.now
    waiting: list[Message] = []
    for message in messages:
        delay = delay_of(header_of(message), now) if delays else 0
        if not delay:
            # What came before is first in each queue.
            _begin_to_wait(channel, exchange, waiting)
            _hand_out(channel, route, message, _queues_of(channel, route, message))
            continue
        content, header_size, origin, framing = message
        timed = content, header_size, with_time(origin, now, delay), framing
        if waiting and not can_join(waiting[-1], timed, len(waiting)):
            _begin_to_wait(channel, exchange, waiting)
        waiting.append(timed)
    _begin_to_wait(channel, exchange, waiting)


def _begin_to_wait(channel: Channel, exchange: Exchange, messages: list[Message]) -> None:
    """Messages wait at an exchange from now on; empties the list."""
    if messages:
        _append(channel, [channel.vhost.delayed_of(exchange)], messages[:])
        messages.clear()


def _all_fit(route: Route, messages: list[Message]) -> bool:
    """Whether no queue will refuse any of these, whatever its consumers take meanwhile."""
    queues = route.queues
    if queues is None:
        return False
    return all(has_room(queue, messages) for queue in queues if queue.rules.refuses)


def publish_special(channel: Channel, route: Route, message: Message) -> None:
    """Publishes one message whose properties say something to the broker."""
    content, header_size, origin, framing = message
    header = content[:header_size]
    edited = check_and_edit(channel, header)
    if channel.connection.broker.lasts and (
        route.all_last
        or properties.is_persistent(header, CONTENT_HEADER.size, properties.flags_of(header))
    ):
        # CC and BCC may lead to queues that last where the routing key does not.
        origin = route.persistent_origin
    expiration = properties.text_property(header, properties.EXPIRATION)
    if expiration is not None:
        origin = with_time(origin, channel.connection.broker.timers.now, int(expiration))
    message = (edited + content[header_size:], len(edited), origin, framing)
    keys = [origin[1], *sender_keys(header)]
    _count_received(channel, 1)
    queues = _queues_of(channel, route, message, keys)
    message = with_blind_copies(message, header, queues)
    if channel.transaction is not None:
        channel.transaction.publish(route, [message], queues)
    else:
        _hand_out(channel, route, message, queues)


def check(channel: Channel, route: Route, header: bytes, flags: int) -> bool:
    """Raises what a publish with this header frame is answered with. Whether others that differ in
    their body only have to be checked anew is what it returns."""
    resolve(channel, route)
    if not is_special(flags, header):
        return False
    check_and_edit(channel, header)
    sender_keys(header)
    return True


def refuse(channel: Channel, body_size: int, count: int = 1) -> None:
    """Lets publishes go no further than their checks: they are answered with basic.nack at the end
    of the batch. The channel is in confirm mode; `body_size` is that of each."""
    _count_received(channel, count)
    channel.connection.broker.counters.message_sizes.observe([body_size] * count)
    channel.refuse(count)


def publish_committed(
    channel: Channel, route: Route, message: Message, queues: list[Queue] | None
) -> bool:
    """Publishes a message of a transaction that commits. False if a queue refused it."""
    if queues is None:
        queues = _queues_of(channel, route, message)
    content, header_size, origin, framing = message
    if origin[PUBLISHED] is not None:
        now = channel.connection.broker.timers.now
        message = (content, header_size, with_time(origin, now, origin[TTL]), framing)
    return _hand_out(channel, route, message, [each for each in queues if not each.is_deleted])


def _queues_of(
    channel: Channel, route: Route, message: Message, keys: list[str] | None = None
) -> list[Queue]:
    assert route.exchange is not None
    keys = keys or [message[2][1]]
    if route.exchange.name == "" and keys[0].startswith(REPLY_TO_NAME):
        # A reply goes out at once: what was delivered before goes first.
        channel.connection.broker.run_deliveries()
        reply = channel.connection.broker.find_reply_sink(keys[0])
        return cast("list[Queue]", [ReplyChannel(reply)] if reply else [])
    return channel.vhost.route(route.exchange, keys, message[0][: message[1]])[0]


def _hand_out(channel: Channel, route: Route, message: Message, queues: list[Queue]) -> bool:
    """Publishes one message. False if a queue refused it."""
    if channel.vhost.has_delayed:
        waiting, queues = apart(queues)
        if waiting:
            now = channel.connection.broker.timers.now
            _append(channel, waiting, [waiting_from(message, now)])
            message = shown(message)
            if not queues and not route.mandatory:
                return True
    if not queues or isinstance(queues[0], History):
        # What only keeps it for others comes last: nobody gets it.
        _not_routed(channel, route, [message])
    taking = queues
    if any(queue.rules.refuses for queue in queues):
        taking = _with_room(channel, queues, message)
    if taking:
        _append(channel, taking, [message])
    return len(taking) == len(queues)


def _with_room(channel: Channel, queues: list[Queue], message: Message) -> list[Queue]:
    """Those of the queues that take this message, after their consumers took what they could. If
    one does not, its publisher is told with basic.nack, if it is to be told anything
    (rabbit_channel, `rejected`)."""
    channel.connection.broker.run_deliveries()
    full = [queue for queue in queues if queue.rules.refuses and is_full(queue, message)]
    if not full:
        return queues
    for queue in full:
        if queue.rules.overflow == REJECT_PUBLISH_DLX:
            channel.connection.broker.graves.refuse(queue, message, MAXLEN)
    if channel.is_confirming:
        channel.refuse(1)
    return [queue for queue in queues if queue not in full]


def _append(channel: Channel, queues: list[Queue], messages: list[Message]) -> None:
    broker = channel.connection.broker
    if broker.touched and _share_room(queues):
        # As one by one: what came before takes its part of that room first.
        broker.run_deliveries()
    is_written = broker.enqueue(queues, messages)
    journal = broker.journal
    if journal is None or not messages[0][ORIGIN][PERSISTENT]:
        return
    if any(queue.lasting is not None for queue in queues):
        if not is_written and not channel.is_confirming:
            raise storage_failed(journal.log.reason, 0)
        # Confirms wait for it.
        channel.written_to = journal.position


def _share_room(queues: list[Queue]) -> bool:
    """Whether consumers of one of these queues share the room of their channel with others."""
    return any(queue.shares_room for queue in queues)


def _count_received(channel: Channel, count: int) -> None:
    counters = channel.connection.broker.counters
    counters.messages_received += count
    if not channel.is_publisher:
        channel.is_publisher = True
    if channel.transaction is not None:
        counters.messages_received_confirm += count
    elif channel.is_confirming:
        channel.published += count
        counters.messages_received_confirm += count
        channel.connection.confirming[channel] = None


def _not_routed(channel: Channel, route: Route, messages: list[Message]) -> None:
    """Returns mandatory messages that no queue got, and drops others."""
    counters = channel.connection.broker.counters
    if not route.mandatory:
        counters.messages_unroutable_dropped += len(messages)
        return
    counters.messages_unroutable_returned += len(messages)
    # What was delivered before goes out before the return.
    channel.connection.broker.run_deliveries()
    for message in messages:
        channel.return_message(message, ReplyCode.NO_ROUTE, "NO_ROUTE")

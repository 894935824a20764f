"""Publishes on their way into queues.

The order of checks is RabbitMQ's: size, write permission, exchange, internal, reply-to,
user-id, expiration, CC and BCC, route (rabbit_channel, handle_method of 'basic.publish').
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from broker.core.deduplication.duplicates import Judged
from broker.core.delay import delay_of
from broker.core.delayed import apart, waiting_from
from broker.core.exchange import Exchange
from broker.core.expiring import can_join
from broker.core.history import History
from broker.core.limits import MAXLEN, has_room, is_full
from broker.core.message import (
    PUBLISHED,
    TTL,
    Message,
    header_of,
    with_blind_copies,
    with_time,
)
from broker.core.queue import Queue
from broker.core.reply import REPLY_TO_NAME, ReplyChannel
from broker.core.routing import Passage, find_queues
from broker.core.rules import REJECT_PUBLISH_DLX
from broker.errors import ReplyCode, storage_failed
from broker.protocol.publish_checks import check_and_edit, is_special, sender_keys
from broker.protocol.publish_once import (
    Sent,
    is_lost,
    is_written,
    publish_once,
    wait_for,
)
from broker.protocol.route import Route, resolve
from broker.wire import properties
from broker.wire.frames import CONTENT_HEADER

if TYPE_CHECKING:
    from broker.protocol.channel import Channel


def publish(channel: Channel, route: Route, messages: list[Message]) -> None:
    """Publishes messages of one resolved route that have no special properties, but perhaps an
    expiration. Either all are persistent or none; either all have an expiration or none."""
    if route.deduplicates:
        _publish_new(channel, route, messages)
        return
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


def _publish_new(channel: Channel, route: Route, messages: list[Message]) -> None:
    """Publishes those that are no duplicates."""
    queues = route.queues
    judge = route.judge
    if channel.transaction is not None:
        # They are judged when they count.
        _count_received(channel, len(messages))
        channel.transaction.publish(route, messages, None)
    elif (
        judge is None
        or queues is None
        or (len(queues) > 1 and _share_room(queues))
        or is_lost(channel, queues, messages[0])
    ):
        for message in messages:
            _count_received(channel, 1)
            _hand_out_new(channel, route, message)
    else:
        _count_received(channel, len(messages))
        written = is_written(channel, queues, messages[0])
        fresh, batch = judge.take(messages, is_written=written)
        if batch is not None:
            wait_for(channel, batch)
        if fresh:
            _append(channel, queues, fresh)


def _hand_out_new(
    channel: Channel, route: Route, message: Message, sent: Sent | None = None
) -> bool:
    """Publishes one message, unless it is a duplicate. False if a queue refused it."""
    assert route.exchange is not None
    header = message[0][: message[1]]
    if sent is None:
        sent = Sent([message[2][1]], header)
    judged = Judged(sent.header)

    def find() -> list[Queue]:
        if route.queues is not None and len(sent.keys) == 1:
            return [queue for queue in route.queues if not queue.is_deleted]
        return _queues_of(channel, route, message, sent.keys, judged)

    def hand_out(queues: list[Queue]) -> list[Queue]:
        stored = with_blind_copies(message, sent.header)
        return _hand_out(channel, route, stored, queues)

    return publish_once(channel, judged, route.exchange, find, hand_out, message)


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
    if route.deduplicates:
        sent = Sent(keys, header)
        if channel.transaction is not None:
            channel.transaction.publish(route, [message], sent)
        else:
            _hand_out_new(channel, route, message, sent)
        return
    queues = _queues_of(channel, route, message, keys)
    message = with_blind_copies(message, header)
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
    channel: Channel, route: Route, message: Message, queues: list[Queue] | Sent | None
) -> bool:
    """Publishes a message of a transaction that commits. False if a queue refused it."""
    content, header_size, origin, framing = message
    if origin[PUBLISHED] is not None:
        now = channel.connection.broker.timers.now
        message = (content, header_size, with_time(origin, now, origin[TTL]), framing)
    if isinstance(queues, Sent):
        return _hand_out_new(channel, route, message, queues)
    if queues is None and route.deduplicates:
        return _hand_out_new(channel, route, message)
    if queues is None:
        queues = _queues_of(channel, route, message)
    return not _hand_out(channel, route, message, [each for each in queues if not each.is_deleted])


def _queues_of(
    channel: Channel,
    route: Route,
    message: Message,
    keys: list[str] | None = None,
    judged: Judged | None = None,
) -> list[Queue]:
    assert route.exchange is not None
    keys = keys or [message[2][1]]
    if route.exchange.name == "" and keys[0].startswith(REPLY_TO_NAME):
        # A reply goes out at once: what was delivered before goes first.
        channel.connection.broker.run_deliveries()
        reply = channel.connection.broker.find_reply_sink(keys[0])
        return cast("list[Queue]", [ReplyChannel(reply)] if reply else [])
    header = message[0][: message[1]]
    passage = Passage(keys, header, channel.connection.broker.random_bytes)
    passage.judged = judged
    return find_queues(channel.vhost, route.exchange, passage)[0]


def _hand_out(channel: Channel, route: Route, message: Message, queues: list[Queue]) -> list[Queue]:
    """Publishes one message, and returns the queues that refused it."""
    if channel.vhost.has_delayed:
        waiting, queues = apart(queues)
        if waiting:
            now = channel.connection.broker.timers.now
            _append(channel, waiting, [waiting_from(message, now)])
            if not queues and not route.mandatory:
                return []
    if not queues or isinstance(queues[0], History):
        # What only keeps it for others comes last: nobody gets it.
        _not_routed(channel, route, [message])
    taking = queues
    if any(queue.rules.refuses for queue in queues):
        taking = _with_room(channel, queues, message)
    if taking:
        _append(channel, taking, [message])
    return [queue for queue in queues if queue not in taking] if taking is not queues else []


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
    if is_written is None:
        return
    journal = broker.journal
    assert journal is not None
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

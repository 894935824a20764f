"""Class queue (AMQP 0-9-1 reference, section 1.7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from broker.core.redeclare import gets_argument
from broker.core.reply import REPLY_TO_NAME
from broker.errors import AMQPError, ReplyCode, queue_title
from broker.protocol.bindings import ends_last, unbind_ends, waits_for_history
from broker.protocol.names import (
    check_any_permission,
    check_not_default,
    check_not_reserved,
    check_permission,
    clean,
    is_reply_to,
    queue_name,
)
from broker.wire.methods import Method, commands, make
from broker.wire.table import Table

if TYPE_CHECKING:
    from broker.protocol.channel import Channel


def declare(channel: Channel, method: commands.Queue.Declare) -> None:
    """queue.declare: make the queue, or check that it is the same; an empty name gets one."""
    vhost = channel.vhost
    name = clean(method.queue)
    if is_reply_to(name):
        _declare_reply_to(channel, method, name)
        return
    if method.passive:
        check_any_permission(channel, "queue", name)
        queue = vhost.get_queue(name, channel.connection)
    else:
        arguments = cast(Table, method.arguments)
        check_not_reserved("queue", name)
        name = name or channel.connection.broker.make_name("amq.gen-")
        check_permission(channel, "configure", "queue", name)
        if gets_argument(vhost, vhost.queues.get(name), "x-dead-letter-exchange", arguments):
            _check_dead_letter_exchange(channel, name, arguments)
        queue = vhost.declare_queue(
            name,
            durable=method.durable,
            auto_delete=method.auto_delete,
            owner=channel.connection if method.exclusive else None,
            arguments=arguments,
        )
        if method.exclusive:
            channel.connection.exclusive_queues[queue] = None
        channel.connection.broker.counters.queues_declared += 1
    queue.use()
    channel.last_queue_name = queue.name
    if not method.nowait:
        ready, consumers = queue.messages_ready, len(queue.consumers)
        channel.answer(_declare_ok(queue.name, ready, consumers), lasts=queue.durable)


def _declare_ok(name: str, messages: int, consumers: int) -> Method:
    return make(
        commands.Queue.DeclareOk, queue=name, message_count=messages, consumer_count=consumers
    )


def _declare_reply_to(channel: Channel, method: commands.Queue.Declare, name: str) -> None:
    """Direct reply-to is there while somebody waits for replies (RabbitMQ, "Direct Reply-to")."""
    if name != REPLY_TO_NAME and channel.connection.broker.find_reply_sink(name) is None:
        raise AMQPError(ReplyCode.NOT_FOUND, f"no {queue_title(name, channel.vhost.name)}")
    if not method.nowait:
        channel.send(_declare_ok(name, 0, 1))


def _check_dead_letter_exchange(channel: Channel, name: str, arguments: Table) -> None:
    field = arguments.get("x-dead-letter-exchange")
    if field is None:
        return
    if field.type != "longstr":
        raise AMQPError(
            ReplyCode.PRECONDITION_FAILED,
            f"invalid type '{field.type}' for arg 'x-dead-letter-exchange' in "
            f"{queue_title(name, channel.vhost.name)}",
        )
    check_permission(channel, "read", "queue", name)
    check_permission(channel, "write", "exchange", str(field.value))


def bind(channel: Channel, method: commands.Queue.Bind) -> None:
    """queue.bind: with no queue and no key, the last declared queue is bound by its name."""
    vhost = channel.vhost
    name, key = _bound(channel, method)
    exchange = clean(method.exchange)
    check_permission(channel, "write", "queue", name)
    check_not_default(exchange)
    check_permission(channel, "read", "exchange", exchange)
    source = vhost.get_exchange(exchange)
    queue = vhost.get_queue(name, channel.connection)
    if waits_for_history(channel, source, lambda: bind(channel, method), method.index):
        return
    vhost.bind(source, queue, key, cast(Table, method.arguments))
    if not method.nowait:
        channel.answer(commands.Queue.BindOk(), lasts=ends_last(source, queue))


def unbind(channel: Channel, method: commands.Queue.Unbind) -> None:
    """queue.unbind: a binding that is not there is fine."""
    vhost = channel.vhost
    name, key = _bound(channel, method)
    exchange = clean(method.exchange)
    check_permission(channel, "write", "queue", name)
    check_not_default(exchange)
    check_permission(channel, "read", "exchange", exchange)
    source, queue = vhost.exchanges.get(exchange), vhost.queues.get(name)
    unbind_ends(channel, source, queue, key, cast(Table, method.arguments))
    channel.answer(commands.Queue.UnbindOk(), lasts=ends_last(source, queue))


def _bound(
    channel: Channel, method: commands.Queue.Bind | commands.Queue.Unbind
) -> tuple[str, str]:
    name = clean(queue_name(channel, method.queue))
    if not method.queue and not method.routing_key:
        return name, name
    return name, method.routing_key


def purge(channel: Channel, method: commands.Queue.Purge) -> None:
    """queue.purge: drops what is ready."""
    name = queue_name(channel, method.queue)
    check_permission(channel, "read", "queue", name)
    queue = channel.vhost.get_queue(name, channel.connection)
    channel.begin_change()
    count = queue.purge()
    if not method.nowait:
        channel.note_written()
        channel.answer(make(commands.Queue.PurgeOk, message_count=count), lasts=False)


def delete(channel: Channel, method: commands.Queue.Delete) -> None:
    """queue.delete: one that is not there is fine, with 0 messages."""
    name = clean(queue_name(channel, method.queue))
    check_permission(channel, "configure", "queue", name)
    count, lasts = 0, True
    if name in channel.vhost.queues:
        queue = channel.vhost.get_queue(name, channel.connection)
        lasts = queue.durable
        count = channel.connection.delete_queue(
            channel.vhost,
            queue,
            if_unused=method.if_unused,
            if_empty=method.if_empty,
            must_last=True,
        )
    else:
        channel.connection.broker.check_is_gone()
    if not method.nowait:
        channel.answer(make(commands.Queue.DeleteOk, message_count=count), lasts=lasts)

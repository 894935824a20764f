"""Class basic (AMQP 0-9-1 reference, section 1.8), but for basic.publish, which is in
`broker.protocol.publish`."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from broker.core.arguments import consumer_priority
from broker.core.consumer import Consumer
from broker.core.dispatch import get as take_for_get
from broker.core.dispatch import is_coming, when_ready
from broker.core.message import MESSAGE, ORIGIN, RETURNS, content_for, counted
from broker.core.queue import Queue
from broker.core.reading import keep
from broker.core.reply import REPLY_TO_NAME
from broker.errors import AMQPError, ReplyCode, queue_title
from broker.protocol.batch import acknowledge
from broker.protocol.consumer_timeout import take, take_later, timeouts_of
from broker.protocol.names import check_permission, queue_name
from broker.protocol.transaction import Outcome
from broker.protocol.unacked import Group
from broker.protocol.waiting import wait
from broker.wire.methods import commands, encode_method, make
from broker.wire.table import Table

if TYPE_CHECKING:
    from broker.protocol.channel import Channel


def qos(channel: Channel, method: commands.Basic.Qos) -> None:
    """basic.qos: for the consumers to come, or with global for the whole channel at once
    (RabbitMQ, "Consumer Prefetch")."""
    if method.prefetch_size:
        raise AMQPError(ReplyCode.NOT_IMPLEMENTED, f"prefetch_size!=0 ({method.prefetch_size})")
    if method.global_:
        _limit(channel, method.prefetch_count)
    else:
        channel.consumer_prefetch = method.prefetch_count
        # As RabbitMQ: the later limit per consumer lifts the channel's.
        _limit(channel, 0)
    channel.send(commands.Basic.QosOk())


def _limit(channel: Channel, prefetch: int) -> None:
    """From now on the whole channel may hold so many messages; 0 for any number."""
    former, channel.prefetch = channel.prefetch, prefetch
    change = (prefetch > 0) - (former > 0)
    if change:
        channel.connection.broker.work += len(channel.consumers)
        for consumer in channel.consumers.values():
            consumer.queue.consumers.limited_count += change
    if former and (not prefetch or prefetch > former):
        channel.wake_consumers()


def consume(channel: Channel, method: commands.Basic.Consume) -> None:
    """basic.consume: answered before the first message comes."""
    if method.queue == REPLY_TO_NAME:
        _consume_replies(channel, method)
        return
    name = queue_name(channel, method.queue)
    check_permission(channel, "read", "queue", name)
    _check_tag_is_new(channel, method.consumer_tag)
    _check_consumer_limit(channel)
    queue = channel.vhost.get_queue(name, channel.connection)
    arguments = cast(Table, method.arguments)
    priority = consumer_priority(arguments, name, channel.vhost.name)
    _check_exclusive_use(queue, wants_exclusive=method.exclusive)
    tag = method.consumer_tag or channel.connection.broker.make_name("amq.ctag-")
    consumer = Consumer(
        channel,
        queue,
        tag,
        no_ack=method.no_ack,
        exclusive=method.exclusive,
        prefetch=channel.consumer_prefetch,
        priority=priority,
        arguments=arguments,
    )
    channel.consumers[tag] = consumer
    if not method.nowait:
        channel.send(make(commands.Basic.ConsumeOk, consumer_tag=tag))
    queue.add_consumer(consumer)


def _check_tag_is_new(channel: Channel, tag: str) -> None:
    if tag and (tag in channel.consumers or tag == channel.reply_consumer):
        raise AMQPError(ReplyCode.NOT_ALLOWED, f"attempt to reuse consumer tag '{tag}'")


def _check_consumer_limit(channel: Channel) -> None:
    limit = channel.connection.broker.limits.consumers_per_channel
    if limit and len(channel.consumers) >= limit:
        raise AMQPError(
            ReplyCode.NOT_ALLOWED, f"reached maximum ({limit}) of consumers per channel"
        )


def _check_exclusive_use(queue: Queue, *, wants_exclusive: bool) -> None:
    consumers = queue.consumers
    if consumers.exclusive_count or (
        wants_exclusive and (len(consumers) or consumers.single_active)
    ):
        title = queue_title(queue.name, queue.vhost_name)
        raise AMQPError(ReplyCode.ACCESS_REFUSED, f"{title} in exclusive use")


def _consume_replies(channel: Channel, method: commands.Basic.Consume) -> None:
    if not method.no_ack:
        raise AMQPError(ReplyCode.PRECONDITION_FAILED, "reply consumer cannot acknowledge")
    if channel.reply_consumer is not None:
        raise AMQPError(ReplyCode.PRECONDITION_FAILED, "reply consumer already set")
    _check_tag_is_new(channel, method.consumer_tag)
    broker = channel.connection.broker
    channel.reply_consumer = method.consumer_tag or broker.make_name("amq.ctag-")
    channel.reply_token = broker.add_reply_sink(channel)
    if not method.nowait:
        channel.send(make(commands.Basic.ConsumeOk, consumer_tag=channel.reply_consumer))


def cancel(channel: Channel, method: commands.Basic.Cancel) -> None:
    """basic.cancel: answered after the last message; an unknown tag is fine. What was delivered
    stays unacknowledged."""
    tag = method.consumer_tag or ""
    consumer = channel.consumers.pop(tag, None)
    if consumer is not None:
        consumer.queue.remove_consumer(consumer)
    elif channel.reply_token is not None and tag == channel.reply_consumer:
        channel.connection.broker.reply_sinks.pop(channel.reply_token, None)
        channel.reply_consumer = channel.reply_token = None
    if not method.nowait:
        channel.send(make(commands.Basic.CancelOk, consumer_tag=tag))
    if consumer is not None:
        channel.connection.after_consumer_left(channel.vhost, consumer)


def get(channel: Channel, method: commands.Basic.Get) -> None:
    """basic.get: the first ready message, or get-empty."""
    name = queue_name(channel, method.queue)
    check_permission(channel, "read", "queue", name)
    queue = channel.vhost.get_queue(name, channel.connection)
    counters = channel.connection.broker.counters
    queue.use()
    entry = take_for_get(queue, no_ack=method.no_ack)
    if entry is None and is_coming(queue):
        when_ready(queue, wait(channel, lambda: get(channel, method), method.index))
        return
    if entry is None:
        counters.messages_get_empty += 1
        channel.send(make(commands.Basic.GetEmpty, cluster_id=""))
        return
    tag = channel.unacked.next_tag
    if method.no_ack:
        counters.messages_delivered_get_auto_ack += 1
        channel.unacked.skip(1)
    else:
        counters.messages_delivered_get_manual_ack += 1
        getter = _getter(channel, queue)
        channel.unacked.add(getter, keep(queue, [entry]))
        if getter.timeout:
            timeouts_of(channel).watch(getter, 1)
    counters.messages_redelivered += entry[RETURNS] > 0
    message = entry[MESSAGE]
    if entry[RETURNS] and queue.rules.counts_deliveries:
        message = counted(message, entry[RETURNS])
    exchange, routing_key = message[ORIGIN][:2]
    get_ok = make(
        commands.Basic.GetOk,
        delivery_tag=tag,
        redelivered=entry[RETURNS] > 0,
        exchange=exchange,
        routing_key=routing_key,
        message_count=queue.messages_ready,
    )
    content = content_for(message, channel.number, channel.connection.frame_max)
    out = channel.connection.output.reserve(len(content))
    out += (encode_method(channel.number, get_ok), content)


def _getter(channel: Channel, queue: Queue) -> Consumer:
    """Stands for basic.get on this queue where deliveries are recorded by consumer."""
    getter = channel.getters.get(queue)
    if getter is None:
        getter = channel.getters[queue] = Consumer(channel, queue, "", no_ack=False)
    getter.unacked += 1
    return getter


def ack(channel: Channel, method: commands.Basic.Ack) -> None:
    """basic.ack: these deliveries are done with."""
    if channel.transaction is not None:
        channel.transaction.acknowledged += _settle_later(
            channel, method.delivery_tag, multiple=method.multiple, outcome=Outcome.ACKNOWLEDGED
        )
    else:
        acknowledge(channel, method.delivery_tag, multiple=method.multiple)


def nack(channel: Channel, method: commands.Basic.Nack) -> None:
    """basic.nack, RabbitMQ's extension: like reject, for many at once."""
    _reject(channel, method.delivery_tag, multiple=method.multiple, requeue=method.requeue)


def reject(channel: Channel, method: commands.Basic.Reject) -> None:
    """basic.reject: back to the queue, or gone."""
    _reject(channel, method.delivery_tag or 0, multiple=False, requeue=method.requeue)


def _reject(channel: Channel, tag: int, *, multiple: bool, requeue: bool) -> None:
    if channel.transaction is not None:
        outcome = Outcome.REQUEUED if requeue else Outcome.REJECTED
        _settle_later(channel, tag, multiple=multiple, outcome=outcome)
        return
    groups = take(channel, tag, multiple=multiple)
    if requeue:
        channel.requeue(groups, failed=True)
    else:
        channel.reject(groups)


def _settle_later(channel: Channel, tag: int, *, multiple: bool, outcome: Outcome) -> int:
    """Keeps a settlement for the commit, and returns how many deliveries it is for."""
    transaction = channel.transaction
    assert transaction is not None
    tags = take_later(channel, tag, multiple=multiple)
    transaction.settled.update(tags)
    transaction.settlements.append((tags, outcome))
    return len(tags)


def recover(channel: Channel, method: commands.Basic.Recover) -> None:
    """basic.recover: everything unacknowledged goes back to its queues."""
    recover_async(channel, method)
    channel.send(commands.Basic.RecoverOk())


def recover_async(
    channel: Channel, method: commands.Basic.Recover | commands.Basic.RecoverAsync
) -> None:
    """basic.recover-async: as recover, without an answer. Redelivery to the same consumer
    (requeue=false) is refused, as RabbitMQ does."""
    if not method.requeue:
        raise AMQPError(ReplyCode.NOT_IMPLEMENTED, "requeue=false")
    if channel.transaction is None or not channel.transaction.settled:
        channel.requeue(channel.unacked.take_all())
        return
    groups: list[Group] = []
    for tag in channel.unacked.tags(0, multiple=True):
        if tag not in channel.transaction.settled:
            groups += channel.unacked.take(tag, multiple=False) or []
    channel.requeue(groups)

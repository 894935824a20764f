"""All that a broker holds, as plain values that can be compared."""

from typing import Any

from broker.core.broker import Broker
from broker.core.consumer import Consumer
from broker.core.message import MESSAGE, NUMBER, ORIGIN, RETURNS, Entry, Message, body_of, header_of
from broker.core.queue import Queue
from broker.core.vhost import VHost
from broker.protocol.channel import Channel
from broker.protocol.connection import Connection

# Counters that tell how confirms were grouped, or what was said while nothing could be done.
_COUNTERS = (
    "channels_opened", "channels_closed", "queues_declared", "queues_created", "queues_deleted",
    "messages_received", "messages_received_confirm", "messages_confirmed", "messages_routed",
    "messages_unroutable_dropped", "messages_unroutable_returned",
    "messages_delivered_consume_manual_ack", "messages_delivered_consume_auto_ack",
    "messages_delivered_get_manual_ack", "messages_delivered_get_auto_ack",
    "messages_get_empty", "messages_redelivered", "messages_acknowledged",
)  # fmt: skip


def message_values(message: Message) -> tuple[str, str, bytes, bytes]:
    """Where it was published, its header payload and its body."""
    exchange, key = message[ORIGIN][:2]
    return exchange, key, header_of(message)[7:-1], body_of(message)


def entry_values(entry: Entry) -> Any:
    """A message in a queue; its number says where it stands."""
    return entry[NUMBER], entry[RETURNS], message_values(entry[MESSAGE])


def ready_entries(queue: Queue) -> list[Entry]:
    """What waits in a queue, in order."""
    lanes = (sorted([*lane.returned, *lane.ready]) for lane in queue.lanes)
    return [entry for entries in lanes for entry in entries]


def _consumer(consumer: Consumer) -> Any:
    sink = consumer.sink
    assert isinstance(sink, Channel)
    return (
        sink.connection.name,
        sink.number,
        consumer.tag,
        consumer.no_ack,
        consumer.prefetch,
        consumer.priority,
        consumer.unacked,
    )


def queue_values(queue: Queue) -> Any:
    """One queue with its messages and consumers."""
    return {
        "flags": (queue.durable, queue.auto_delete, queue.arguments),
        "owner": queue.owner.name if isinstance(queue.owner, Connection) else None,
        "ready": [entry_values(entry) for entry in ready_entries(queue)],
        "ready_bytes": sum(lane.ready_bytes for lane in queue.lanes),
        "unacked": (queue.unacked_count, queue.unacked_bytes),
        "consumers": [_consumer(consumer) for consumer in queue.consumers],
    }


def vhost_values(vhost: VHost) -> Any:
    """Queues, exchanges, bindings."""
    exchanges = {
        exchange.name: [
            (binding.binding_key, type(binding.destination).__name__, binding.destination.name)
            for binding in exchange.router.bindings()
        ]
        for exchange in vhost.exchanges.values()
    }
    return {name: queue_values(queue) for name, queue in vhost.queues.items()}, exchanges


def channel_values(channel: Channel) -> Any:
    """One channel: modes, limits, and what is unacknowledged on it."""
    tags = channel.unacked.tags(0, multiple=True)
    transaction = channel.transaction
    return {
        "state": channel.state.name,
        "prefetch": (channel.consumer_prefetch, channel.prefetch, channel.consumed_unacked),
        "consumers": list(channel.consumers),
        "getters": sorted((q.name, c.unacked) for q, c in channel.getters.items()),
        "tags": (tags, channel.unacked.next_tag),
        "confirms": (channel.is_confirming, channel.published, channel.confirmed),
        "last_queue": channel.last_queue_name,
        "replies": (channel.reply_consumer, channel.reply_token),
        "transaction": None
        if transaction is None
        else (
            [message_values(message) for _, message, _ in transaction.publishes],
            transaction.settlements,
        ),
    }


def broker_values(broker: Broker) -> Any:
    """The whole broker, with the channels of its open connections."""
    counters = broker.counters
    return {
        "vhosts": {name: vhost_values(vhost) for name, vhost in broker.vhosts.items()},
        "channels": {
            connection.name: {n: channel_values(c) for n, c in connection.channels.items()}
            for connection in broker.connections
            if isinstance(connection, Connection)
        },
        "memory_used": broker.memory_used,
        "counters": {name: getattr(counters, name) for name in _COUNTERS},
        "sizes": counters.message_sizes.read(),
        "reply_sinks": sorted(broker.reply_sinks),
        "waiting": (len(broker.touched), len(broker.cancelled), len(broker.blocked)),
    }


def difference(found: Any, wanted: Any, path: str = "") -> str:
    """Where two values differ first, and how; empty if they are equal."""
    if found == wanted:
        return ""
    if isinstance(found, dict) and isinstance(wanted, dict) and list(found) == list(wanted):
        return next(filter(None, (difference(found[k], wanted[k], f"{path}.{k}") for k in found)))
    if isinstance(found, list | tuple) and type(found) is type(wanted):
        pairs = enumerate(zip(found, wanted, strict=False))
        parts = (difference(a, b, f"{path}[{place}]") for place, (a, b) in pairs)
        return next(filter(None, parts), f"{path}: {len(found)} items, not {len(wanted)}: {found}")
    return f"{path}: {found!r}, not {wanted!r}"

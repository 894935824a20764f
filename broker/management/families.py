"""The metrics by name: RabbitMQ's names, types and labels, so that its dashboards and alerts work
unchanged. docs/metrics.md says the same, with what is missing against RabbitMQ."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from broker.core.broker import Broker
from broker.core.counters import Counters
from broker.management.facts import NodeFacts
from broker.management.totals import Totals

PROTOCOL = {"protocol": "amqp091"}
# RabbitMQ counts by type of queue; every queue here is what it calls a classic one.
QUEUE_TYPE = {**PROTOCOL, "queue_type": "rabbit_classic_queue"}
_NO_LABELS: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Reading:
    """A broker at the moment of a scrape."""

    broker: Broker
    facts: NodeFacts
    totals: Totals

    @property
    def counters(self) -> Counters:
        """What only grows."""
        return self.broker.counters


@dataclass(frozen=True, slots=True)
class Family:
    """A metric with one series. A scrape leaves it out where `read` returns None: what is not
    known is not made up."""

    type: Literal["counter", "gauge", "unknown"]
    name: str
    """As it is exposed, `_total` included."""
    help: str
    read: Callable[[Reading], float | None]
    labels: Mapping[str, str]


def _counter(
    name: str,
    text: str,
    read: Callable[[Counters], int],
    labels: Mapping[str, str] = _NO_LABELS,
) -> Family:
    return Family("counter", f"rabbitmq_{name}_total", text, lambda r: read(r.counters), labels)


def _gauge(
    name: str,
    text: str,
    read: Callable[[Reading], float | None],
    labels: Mapping[str, str] = _NO_LABELS,
) -> Family:
    return Family("gauge", f"rabbitmq_{name}", text, read, labels)


def _alarm(name: str, text: str, read: Callable[[Reading], bool]) -> Family:
    return Family("unknown", f"rabbitmq_alarms_{name}", text, read, _NO_LABELS)


def _is_out_of_sockets(r: Reading) -> bool:
    return r.facts.sockets_max is not None and r.facts.open_sockets() >= r.facts.sockets_max


QUEUES = (
    _gauge("queue_messages_ready", "Messages waiting in queues", lambda r: r.totals.ready),
    _gauge(
        "queue_messages_unacked",
        "Messages delivered from queues and not settled",
        lambda r: r.totals.unacked,
    ),
    _gauge(
        "queue_messages",
        "Messages in queues, ready and unacknowledged",
        lambda r: r.totals.ready + r.totals.unacked,
    ),
    _gauge("queue_consumers", "Consumers on queues", lambda r: r.totals.consumers),
    Family(
        "counter",
        "rabbitmq_queue_messages_timed_out_total",
        "Deliveries that were not settled within the timeout of their consumer",
        lambda r: r.totals.timed_out,
        _NO_LABELS,
    ),
)
"""The sums of what `/metrics/per-object` gives for each queue; of what is counted, those of queues
that are gone included."""

_OBJECTS = (
    _gauge("connections", "Open connections", lambda r: r.totals.connections),
    _gauge("channels", "Open channels", lambda r: r.totals.channels),
    _gauge("queues", "Queues", lambda r: r.totals.queues),
    _gauge("consumers", "Consumers", lambda r: r.totals.consumers),
    _gauge("connection_channels", "Channels on connections", lambda r: r.totals.channels),
    _gauge("channel_consumers", "Consumers on channels", lambda r: r.totals.channel_consumers),
    _gauge(
        "channel_messages_unacked",
        "Messages delivered on channels and not settled",
        lambda r: r.totals.channel_unacked,
    ),
    _gauge(
        "channel_messages_unconfirmed",
        "Messages published on channels in confirm mode and not confirmed",
        lambda r: r.totals.channel_unconfirmed,
    ),
)
_CHURN = (
    _counter("connections_opened", "Connections opened", lambda c: c.connections_opened),
    _counter("connections_closed", "Connections closed or lost", lambda c: c.connections_closed),
    _counter("channels_opened", "Channels opened", lambda c: c.channels_opened),
    _counter("channels_closed", "Channels closed", lambda c: c.channels_closed),
    _counter("queues_declared", "Declarations of queues", lambda c: c.queues_declared),
    _counter("queues_created", "Queues made", lambda c: c.queues_created),
    _counter("queues_deleted", "Queues deleted", lambda c: c.queues_deleted),
    _counter(
        "redeclares_kept",
        "Declarations with other arguments that found a queue or exchange and left it as it was",
        lambda c: c.redeclares_kept,
    ),
    _counter(
        "redeclares_adopted",
        "Declarations with other arguments that a queue or exchange took over",
        lambda c: c.redeclares_adopted,
    ),
    _counter("auth_attempts", "Attempts to log in", lambda c: c.auth_attempts, PROTOCOL),
    _counter(
        "auth_attempts_succeeded",
        "Logins",
        lambda c: c.auth_attempts - c.auth_attempts_failed,
        PROTOCOL,
    ),
    _counter("auth_attempts_failed", "Refused logins", lambda c: c.auth_attempts_failed, PROTOCOL),
)
_PUBLISHED = (
    _gauge(
        "global_publishers",
        "Open channels that have published",
        lambda r: r.totals.publishers,
        PROTOCOL,
    ),
    _counter(
        "global_messages_received",
        "Messages from publishers",
        lambda c: c.messages_received,
        PROTOCOL,
    ),
    _counter(
        "global_messages_received_confirm",
        "Messages from publishers that want a confirm",
        lambda c: c.messages_received_confirm,
        PROTOCOL,
    ),
    _counter(
        "global_messages_confirmed",
        "Messages confirmed to publishers",
        lambda c: c.messages_confirmed,
        PROTOCOL,
    ),
    _counter(
        "global_messages_routed",
        "Messages put into queues, once for each queue",
        lambda c: c.messages_routed,
        PROTOCOL,
    ),
    _counter(
        "global_messages_unroutable_dropped",
        "Messages that no queue got and nobody was told of",
        lambda c: c.messages_unroutable_dropped,
        PROTOCOL,
    ),
    _counter(
        "global_messages_unroutable_returned",
        "Mandatory messages that no queue got, returned to their publishers",
        lambda c: c.messages_unroutable_returned,
        PROTOCOL,
    ),
    _counter(
        "global_messages_deduplicated",
        "Duplicates that were dropped, once for each exchange and queue that dropped them",
        lambda c: c.messages_deduplicated,
        PROTOCOL,
    ),
)
_DELIVERED = (
    _gauge("global_consumers", "Consumers", lambda r: r.totals.channel_consumers, PROTOCOL),
    _counter(
        "global_messages_delivered",
        "Messages given to clients, in every way",
        lambda c: c.messages_delivered,
        QUEUE_TYPE,
    ),
    _counter(
        "global_messages_delivered_consume_manual_ack",
        "Messages delivered to consumers that acknowledge",
        lambda c: c.messages_delivered_consume_manual_ack,
        QUEUE_TYPE,
    ),
    _counter(
        "global_messages_delivered_consume_auto_ack",
        "Messages delivered to consumers that do not acknowledge",
        lambda c: c.messages_delivered_consume_auto_ack,
        QUEUE_TYPE,
    ),
    _counter(
        "global_messages_delivered_get_manual_ack",
        "Messages fetched with basic.get, to be acknowledged",
        lambda c: c.messages_delivered_get_manual_ack,
        QUEUE_TYPE,
    ),
    _counter(
        "global_messages_delivered_get_auto_ack",
        "Messages fetched with basic.get, without acknowledgement",
        lambda c: c.messages_delivered_get_auto_ack,
        QUEUE_TYPE,
    ),
    _counter(
        "global_messages_get_empty",
        "basic.get that found no message",
        lambda c: c.messages_get_empty,
        QUEUE_TYPE,
    ),
    _counter(
        "global_messages_redelivered",
        "Deliveries of messages that had been delivered before",
        lambda c: c.messages_redelivered,
        QUEUE_TYPE,
    ),
    _counter(
        "global_messages_acknowledged",
        "Messages acknowledged by clients",
        lambda c: c.messages_acknowledged,
        QUEUE_TYPE,
    ),
    _counter(
        "global_messages_settled_late",
        "Acknowledgements and rejections of deliveries that had timed out, which were ignored",
        lambda c: c.messages_settled_late,
        QUEUE_TYPE,
    ),
)
_NODE = (
    _gauge(
        "process_resident_memory_bytes",
        "Octets of memory the process has in RAM",
        lambda r: r.facts.resident_bytes(),
    ),
    _gauge(
        "resident_memory_limit_bytes",
        "Octets that queued messages may take; above it publishers are paused",
        lambda r: r.broker.limits.memory or None,
    ),
    _gauge(
        "disk_space_available_bytes",
        "Free octets in the file system of the data directory",
        lambda r: r.facts.disk_free_bytes(),
    ),
    _gauge(
        "disk_space_available_limit_bytes",
        "Free octets of disk below which publishers are paused; 0: never",
        lambda r: None if r.facts.data_dir is None else r.facts.disk_free_min,
    ),
    _gauge("process_open_fds", "Open file descriptors", lambda r: r.facts.open_files()),
    _gauge("process_max_fds", "File descriptors allowed", lambda r: r.facts.files_max),
    _gauge("process_open_tcp_sockets", "Sockets of clients", lambda r: r.facts.open_sockets()),
    _gauge("process_max_tcp_sockets", "Sockets allowed for clients", lambda r: r.facts.sockets_max),
    Family(
        "gauge",
        "process_start_time_seconds",
        "When the broker started, in seconds since 1970",
        lambda r: r.facts.started_at_unix,
        _NO_LABELS,
    ),
    _gauge(
        "erlang_uptime_seconds",
        "Seconds since the broker started",
        lambda r: time.monotonic() - r.facts.started_at,
    ),
)
_ALARMS = (
    # Asked anew: nobody else notices that memory is there again while no client publishes.
    _alarm(
        "memory_used_watermark",
        "1 while publishers have to wait for memory",
        lambda r: r.broker.check_memory(),
    ),
    _alarm(
        "free_disk_space_watermark",
        "1 while publishers have to wait for disk space",
        lambda r: "disk" in r.broker.alarms(),
    ),
    _alarm(
        "file_descriptor_limit",
        "1 while new clients are refused for want of file descriptors",
        _is_out_of_sockets,
    ),
)
FAMILIES = (*_OBJECTS, *_CHURN, *_PUBLISHED, *_DELIVERED, *_NODE, *_ALARMS)
"""Those that `/metrics/per-object` gives as `/metrics` does."""

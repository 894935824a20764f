"""Reads what `/metrics` says, and knows what it should say."""

import re
from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

Labels = frozenset[tuple[str, str]]
_TYPE = re.compile(r"^# TYPE (\S+) (\S+)$", re.MULTILINE)


def types(text: str) -> dict[str, str]:
    """Each family's type, under the name on the page."""
    return dict(_TYPE.findall(text))


def samples(text: str) -> dict[tuple[str, Labels], float]:
    """Each sample's value by its name and labels; a sample that is there twice is an error."""
    found: dict[tuple[str, Labels], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in found, key
            found[key] = sample.value
    return found


def label_names(text: str) -> dict[str, set[str]]:
    """The names of the labels of each sample name."""
    return {name: {key for key, _ in labels} for name, labels in samples(text)}


def value(text: str, name: str, labels: Mapping[str, str] | None = None) -> float:
    """The value of the one sample of this name that has these labels among its own."""
    wanted = set((labels or {}).items())
    (only,) = [v for (n, found), v in samples(text).items() if n == name and wanted <= found]
    return only


P = {"protocol"}
PQ = {"protocol", "queue_type"}
BUILD = {
    "rabbitmq_version",
    "prometheus_plugin_version",
    "prometheus_client_version",
    "erlang_version",
}
IDENTITY = {
    "rabbitmq_node",
    "rabbitmq_cluster",
    "rabbitmq_cluster_permanent_id",
    "rabbitmq_endpoint",
}
EXPECTED: dict[str, tuple[str, set[str]]] = {
    "rabbitmq_queue_messages_ready": ("gauge", set()),
    "rabbitmq_queue_messages_unacked": ("gauge", set()),
    "rabbitmq_queue_messages": ("gauge", set()),
    "rabbitmq_queue_consumers": ("gauge", set()),
    "rabbitmq_queue_messages_timed_out_total": ("counter", set()),
    "rabbitmq_connections": ("gauge", set()),
    "rabbitmq_channels": ("gauge", set()),
    "rabbitmq_queues": ("gauge", set()),
    "rabbitmq_consumers": ("gauge", set()),
    "rabbitmq_connection_channels": ("gauge", set()),
    "rabbitmq_channel_consumers": ("gauge", set()),
    "rabbitmq_channel_messages_unacked": ("gauge", set()),
    "rabbitmq_channel_messages_unconfirmed": ("gauge", set()),
    "rabbitmq_connections_opened_total": ("counter", set()),
    "rabbitmq_connections_closed_total": ("counter", set()),
    "rabbitmq_channels_opened_total": ("counter", set()),
    "rabbitmq_channels_closed_total": ("counter", set()),
    "rabbitmq_queues_declared_total": ("counter", set()),
    "rabbitmq_queues_created_total": ("counter", set()),
    "rabbitmq_queues_deleted_total": ("counter", set()),
    "rabbitmq_redeclares_adopted_total": ("counter", set()),
    "rabbitmq_redeclares_kept_total": ("counter", set()),
    "rabbitmq_auth_attempts_total": ("counter", P),
    "rabbitmq_auth_attempts_succeeded_total": ("counter", P),
    "rabbitmq_auth_attempts_failed_total": ("counter", P),
    "rabbitmq_global_publishers": ("gauge", P),
    "rabbitmq_global_messages_received_total": ("counter", P),
    "rabbitmq_global_messages_received_confirm_total": ("counter", P),
    "rabbitmq_global_messages_confirmed_total": ("counter", P),
    "rabbitmq_global_messages_routed_total": ("counter", P),
    "rabbitmq_global_messages_unroutable_dropped_total": ("counter", P),
    "rabbitmq_global_messages_unroutable_returned_total": ("counter", P),
    "rabbitmq_global_messages_deduplicated_total": ("counter", P),
    "rabbitmq_global_consumers": ("gauge", P),
    "rabbitmq_global_messages_delivered_total": ("counter", PQ),
    "rabbitmq_global_messages_delivered_consume_manual_ack_total": ("counter", PQ),
    "rabbitmq_global_messages_delivered_consume_auto_ack_total": ("counter", PQ),
    "rabbitmq_global_messages_delivered_get_manual_ack_total": ("counter", PQ),
    "rabbitmq_global_messages_delivered_get_auto_ack_total": ("counter", PQ),
    "rabbitmq_global_messages_get_empty_total": ("counter", PQ),
    "rabbitmq_global_messages_redelivered_total": ("counter", PQ),
    "rabbitmq_global_messages_acknowledged_total": ("counter", PQ),
    "rabbitmq_global_messages_settled_late_total": ("counter", PQ),
    "rabbitmq_process_resident_memory_bytes": ("gauge", set()),
    "rabbitmq_resident_memory_limit_bytes": ("gauge", set()),
    "rabbitmq_disk_space_available_bytes": ("gauge", set()),
    "rabbitmq_disk_space_available_limit_bytes": ("gauge", set()),
    "rabbitmq_process_open_fds": ("gauge", set()),
    "rabbitmq_process_max_fds": ("gauge", set()),
    "rabbitmq_process_open_tcp_sockets": ("gauge", set()),
    "rabbitmq_process_max_tcp_sockets": ("gauge", set()),
    "process_start_time_seconds": ("gauge", set()),
    "rabbitmq_erlang_uptime_seconds": ("gauge", set()),
    "rabbitmq_alarms_memory_used_watermark": ("untyped", set()),
    "rabbitmq_alarms_free_disk_space_watermark": ("untyped", set()),
    "rabbitmq_alarms_file_descriptor_limit": ("untyped", set()),
    "rabbitmq_message_size_bytes": ("histogram", P),
    **{
        f"rabbitmq_global_messages_dead_lettered_{reason}_total": (
            "counter",
            {"protocol", "queue_type", "dead_letter_strategy"},
        )
        for reason in ("rejected", "expired", "maxlen", "delivery_limit")
    },
    "rabbitmq_build_info": ("untyped", BUILD),
    "rabbitmq_identity_info": ("untyped", IDENTITY),
}

"""Every family of `/metrics`: its type and the names of its labels. But for the message sizes
(4.1 and later) and the label `rabbitmq_endpoint` this is what RabbitMQ 3.10.8 answers."""

DASHBOARD = [
    "rabbitmq_build_info",
    "rabbitmq_identity_info",
    "rabbitmq_erlang_uptime_seconds",
    "rabbitmq_queue_messages_ready",
    "rabbitmq_queue_messages_unacked",
    "rabbitmq_connections",
    "rabbitmq_channels",
    "rabbitmq_queues",
    "rabbitmq_connections_opened_total",
    "rabbitmq_connections_closed_total",
    "rabbitmq_channels_opened_total",
    "rabbitmq_channels_closed_total",
    "rabbitmq_queues_declared_total",
    "rabbitmq_queues_created_total",
    "rabbitmq_queues_deleted_total",
    "rabbitmq_process_resident_memory_bytes",
    "rabbitmq_resident_memory_limit_bytes",
    "rabbitmq_disk_space_available_bytes",
    "rabbitmq_disk_space_available_limit_bytes",
    "rabbitmq_process_open_fds",
    "rabbitmq_process_max_fds",
    "rabbitmq_global_publishers",
    "rabbitmq_global_consumers",
    "rabbitmq_global_messages_received_total",
    "rabbitmq_global_messages_received_confirm_total",
    "rabbitmq_global_messages_confirmed_total",
    "rabbitmq_global_messages_routed_total",
    "rabbitmq_global_messages_unroutable_dropped_total",
    "rabbitmq_global_messages_unroutable_returned_total",
    "rabbitmq_global_messages_delivered_total",
    "rabbitmq_global_messages_delivered_consume_manual_ack_total",
    "rabbitmq_global_messages_delivered_consume_auto_ack_total",
    "rabbitmq_global_messages_delivered_get_manual_ack_total",
    "rabbitmq_global_messages_delivered_get_auto_ack_total",
    "rabbitmq_global_messages_get_empty_total",
    "rabbitmq_global_messages_redelivered_total",
    "rabbitmq_global_messages_acknowledged_total",
    "rabbitmq_message_size_bytes_bucket",
    "rabbitmq_message_size_bytes_sum",
    "rabbitmq_message_size_bytes_count",
    "rabbitmq_consumers",
    "rabbitmq_channel_consumers",
    "rabbitmq_process_open_tcp_sockets",
    "rabbitmq_process_max_tcp_sockets",
]
"""What the expressions of the dashboard RabbitMQ-Overview name (4.1 to 4.3, 40 metrics), and the
four that only its older editions ask for."""

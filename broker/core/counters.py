"""What the broker counts, kept where things happen. Nothing here ever goes down.

Each name is the end of the Prometheus name that `broker.management.metrics` gives it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

from broker.core.rules import QueueRules

SIZE_BUCKETS = (100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 50_000_000, 100_000_000)
"""Upper bounds of the message size histogram, in octets of body: those of RabbitMQ 4.1."""
_DISTINCT_SIZES_MAX = 256


@dataclass(slots=True)
class SizeHistogram:
    """Counts body sizes. The hot path hands in lists of them; they are counted by exact size, and
    folded into the buckets when these grow past 256, and when somebody reads."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(SIZE_BUCKETS) + 1))
    total: int = 0
    _recent: Counter[int] = field(default_factory=Counter)

    def observe(self, sizes: list[int]) -> None:
        """Counts messages by their body sizes."""
        recent = self._recent
        first = sizes[0]
        same = sizes.count(first)
        if same == len(sizes):
            recent[first] += same
        else:
            recent.update(sizes)
        if len(recent) > _DISTINCT_SIZES_MAX:
            self._fold()

    def read(self) -> tuple[list[int], int]:
        """(messages per bucket, the last one without upper bound; octets in all)."""
        self._fold()
        return self.counts, self.total

    def _fold(self) -> None:
        for size, count in self._recent.items():
            self.counts[bisect_left(SIZE_BUCKETS, size)] += count
            self.total += size * count
        self._recent.clear()


@dataclass(slots=True)
class Counters:
    """Totals since the broker was made."""

    connections_opened: int = 0
    connections_closed: int = 0
    channels_opened: int = 0
    channels_closed: int = 0
    queues_declared: int = 0
    queues_created: int = 0
    queues_deleted: int = 0
    redeclares_kept: int = 0
    redeclares_adopted: int = 0
    messages_received: int = 0
    messages_received_confirm: int = 0
    messages_confirmed: int = 0
    messages_routed: int = 0
    messages_unroutable_dropped: int = 0
    messages_unroutable_returned: int = 0
    messages_deduplicated: int = 0
    """Duplicates that were not taken, once for each exchange and queue that dropped them."""
    messages_delivered_consume_manual_ack: int = 0
    messages_delivered_consume_auto_ack: int = 0
    messages_delivered_get_manual_ack: int = 0
    messages_delivered_get_auto_ack: int = 0
    messages_get_empty: int = 0
    messages_redelivered: int = 0
    messages_acknowledged: int = 0
    messages_dead_lettered: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By reason, and strategy as RabbitMQ's metrics name it."""
    messages_timed_out: int = 0
    messages_settled_late: int = 0
    auth_attempts: int = 0
    auth_attempts_failed: int = 0
    message_sizes: SizeHistogram = field(default_factory=SizeHistogram)

    def count_dead_letters(self, reason: str, count: int, rules: QueueRules) -> None:
        """Messages died in a queue with these rules."""
        strategy = "disabled"
        if rules.dead_letter_exchange is not None:
            strategy = rules.dead_letter_strategy.replace("-", "_")
        self.messages_dead_lettered[reason, strategy] += count

    @property
    def messages_delivered(self) -> int:
        """Deliveries of every kind."""
        return (
            self.messages_delivered_consume_manual_ack
            + self.messages_delivered_consume_auto_ack
            + self.messages_delivered_get_manual_ack
            + self.messages_delivered_get_auto_ack
        )

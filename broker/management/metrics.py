"""What Prometheus gets of one broker.

Theory of operation. A scrape first counts queues and channels in short slices, between which the
event loop serves clients; then it reads the rest at once and lets prometheus_client write the
text. What is told of each queue is written slice by slice, too.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from importlib.metadata import version
from itertools import accumulate, islice

from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from broker.core.broker import Broker
from broker.core.dead_letters import REASONS
from broker.core.queue import Queue
from broker.management.facts import NodeFacts
from broker.management.families import FAMILIES, PROTOCOL, QUEUE_TYPE, QUEUES, Family, Reading
from broker.management.totals import Totals, all_queues

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The text format that RabbitMQ answers with and every Prometheus reads."""
SIZE_LABELS = ("100.0", "1000.0", "10000.0", "100000.0", "1e+06", "1e+07", "5e+07", "1e+08", "+Inf")
"""The bounds in `counters.SIZE_BUCKETS` as the dashboard's queries spell them, and the last."""
QUEUES_SLICE = 10
"""Queues that are written at once: about 0.2 ms, nearly all of it prometheus_client's."""
_NO_LABELS: dict[str, str] = {}
_DEATHS = {
    "rejected": "Messages that consumers rejected for good",
    "expired": "Messages that expired",
    "maxlen": "Messages that were too many for their queue",
    "delivery_limit": "Messages that came back too often",
}


class Metrics(Collector):
    """The metrics of one broker. Several in one process share nothing, nor do they enter
    themselves in prometheus_client's global registry; a program may `register` one in its own."""

    def __init__(self, broker: Broker, facts: NodeFacts) -> None:
        self.broker = broker
        self.facts = facts
        self._client_version = version("prometheus-client")

    def collect(self) -> Iterator[Metric]:
        """The families of `/metrics`, for prometheus_client. Counts everything at once."""
        totals = Totals()
        for _ in totals.count(self.broker):
            pass
        return self._metrics(totals, (*QUEUES, *FAMILIES), "aggregated")

    async def aggregated(self) -> bytes:
        """The text of `/metrics`."""
        totals = await self._count()
        return _text(self._metrics(totals, (*QUEUES, *FAMILIES), "aggregated"))

    async def per_object(self) -> AsyncIterator[bytes]:
        """The text of `/metrics/per-object`, in pieces. A queue's numbers are of one moment."""
        totals = await self._count()
        yield _text(self._metrics(totals, FAMILIES, "per-object"))
        pieces: list[list[bytes]] = [[] for _ in QUEUES]
        queues = all_queues(self.broker)
        while part := list(islice(queues, QUEUES_SLICE)):
            for piece, lines in zip(pieces, self._queue_lines(part), strict=True):
                piece.append(lines)
            await asyncio.sleep(0)
        for family, piece in zip(QUEUES, pieces, strict=True):
            # As `_metric` does.
            name = family.name.removesuffix("_total")
            yield _text([Metric(name, family.help, family.type)])
            for start in range(0, len(piece), 64):
                yield b"".join(piece[start : start + 64])

    async def _count(self) -> Totals:
        totals = Totals()
        for _ in totals.count(self.broker):
            await asyncio.sleep(0)
        return totals

    def _metrics(
        self, totals: Totals, families: Iterable[Family], endpoint: str
    ) -> Iterator[Metric]:
        reading = Reading(self.broker, self.facts, totals)
        for family in families:
            value = family.read(reading)
            if value is not None:
                yield _metric(family.type, family.name, family.help, value, family.labels)
        yield self._message_sizes()
        yield from self._dead_letters()
        yield self._build_info()
        yield self._identity_info(endpoint)

    def _message_sizes(self) -> Metric:
        counts, total = self.broker.counters.message_sizes.read()
        name = "rabbitmq_message_size_bytes"
        metric = Metric(name, "Octets of body of messages from publishers", "histogram")
        at_most = list(accumulate(counts))
        for bound, count in zip(SIZE_LABELS, at_most, strict=True):
            metric.add_sample(f"{name}_bucket", {**PROTOCOL, "le": bound}, count)
        metric.add_sample(f"{name}_count", PROTOCOL, at_most[-1])
        metric.add_sample(f"{name}_sum", PROTOCOL, total)
        return metric

    def _dead_letters(self) -> Iterator[Metric]:
        counts = self.broker.counters.messages_dead_lettered
        for reason in REASONS:
            name = f"rabbitmq_global_messages_dead_lettered_{reason}"
            metric = Metric(name, _DEATHS[reason], "counter")
            for strategy in ("disabled", "at_most_once", "at_least_once"):
                labels = {**QUEUE_TYPE, "dead_letter_strategy": strategy}
                metric.add_sample(f"{name}_total", labels, counts[reason, strategy])
            yield metric

    def _build_info(self) -> Metric:
        identity = self.broker.identity
        labels = {
            "rabbitmq_version": identity.product_version,
            "prometheus_plugin_version": identity.leveret_version,
            "prometheus_client_version": self._client_version,
            # The dashboard has a column for it.
            "erlang_version": f"Python {platform.python_version()}",
        }
        text = "The version of RabbitMQ that this is compatible with, and Leveret's own"
        return _metric("unknown", "rabbitmq_build_info", text, 1, labels)

    def _identity_info(self, endpoint: str) -> Metric:
        labels = {
            "rabbitmq_node": self.facts.node_name,
            "rabbitmq_cluster": self.broker.identity.cluster_name,
            # Prometheus takes an empty label for none: nothing permanent is kept yet.
            "rabbitmq_cluster_permanent_id": "",
            "rabbitmq_endpoint": endpoint,
        }
        text = "The names of the node and its cluster, and the page"
        return _metric("unknown", "rabbitmq_identity_info", text, 1, labels)

    def _queue_lines(self, queues: list[Queue]) -> list[bytes]:
        """For each of QUEUES the samples of these queues."""
        lines: list[list[str]] = [[] for _ in QUEUES]
        for queue, labels in zip(queues, _label_texts(queues), strict=True):
            totals = Totals()
            totals.add_queues((queue,))
            reading = Reading(self.broker, self.facts, totals)
            for family, out in zip(QUEUES, lines, strict=True):
                out.append(f"{family.name}{labels} {family.read(reading)}\n")
        return ["".join(out).encode() for out in lines]


class _Listed(Collector):
    """Metrics that are there already."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _text(metrics: Iterable[Metric]) -> bytes:
    return generate_latest(_Listed(metrics))


def _metric(
    kind: str, name: str, text: str, value: float, labels: Mapping[str, str] = _NO_LABELS
) -> Metric:
    """A family with one sample. A counter's family goes without the `_total` of its sample."""
    metric = Metric(name.removesuffix("_total"), text, kind)
    metric.add_sample(name, dict(labels), value)
    return metric


def _label_texts(queues: list[Queue]) -> list[str]:
    """`{queue="…",vhost="…"}` of each queue. Names are hostile: prometheus_client escapes them,
    once for all families, since that is most of the work."""
    metric = Metric("x", "", "gauge")
    for queue in queues:
        metric.add_sample("x", {"queue": queue.name, "vhost": queue.vhost_name}, 0)
    lines = _text([metric]).decode().split("\n")
    return [line[1 : line.rindex(" ")] for line in lines if line.startswith("x{")]

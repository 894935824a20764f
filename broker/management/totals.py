"""Totals over all queues and channels, counted in short slices so that a scrape of a large broker
does not keep its clients waiting."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from broker.core.broker import Broker
from broker.core.queue import Queue
from broker.protocol.channel import Channel
from broker.protocol.connection import Connection

SLICE = 250
"""Queues or channels that are counted at once: about 0.1 ms."""


@dataclass(slots=True)
class Totals:
    """What `count` has counted so far."""

    connections: int = 0
    channels: int = 0
    queues: int = 0
    ready: int = 0
    unacked: int = 0
    consumers: int = 0
    timed_out: int = 0
    channel_consumers: int = 0
    channel_unacked: int = 0
    channel_unconfirmed: int = 0
    publishers: int = 0

    def count(self, broker: Broker) -> Iterator[None]:
        """Counts everything once, one slice for each value it yields. What comes and goes between
        two slices is counted or not; a queue's own numbers always belong together."""
        queues = all_queues(broker)
        while part := list(islice(queues, SLICE)):
            self.add_queues(part)
            yield
        channels = _all_channels(broker)
        while some := list(islice(channels, SLICE)):
            self._add_channels(some)
            yield
        # Queues that are gone had some, too.
        self.timed_out = broker.counters.messages_timed_out
        self.queues = sum(len(vhost.queues) for vhost in broker.vhosts.values())
        self.connections = len(broker.connections)

    def add_queues(self, queues: Iterable[Queue]) -> None:
        """Adds what is in these queues."""
        ready = unacked = consumers = timed_out = 0
        for queue in queues:
            ready += queue.messages_ready
            unacked += queue.unacked_count
            consumers += len(queue.consumers)
            timed_out += queue.consumers.timed_out
        self.ready += ready
        self.unacked += unacked
        self.consumers += consumers
        self.timed_out += timed_out

    def _add_channels(self, channels: list[Channel]) -> None:
        self.channels += len(channels)
        for channel in channels:
            self.channel_consumers += len(channel.consumers)
            self.channel_unacked += len(channel.unacked)
            self.channel_unconfirmed += channel.published - channel.confirmed
            self.publishers += channel.is_publisher


def all_queues(broker: Broker) -> Iterator[Queue]:
    """Every queue; the broker may change meanwhile."""
    for vhost in list(broker.vhosts.values()):
        yield from list(vhost.queues.values())


def _all_channels(broker: Broker) -> Iterator[Channel]:
    for connection in list(broker.connections):
        if isinstance(connection, Connection):
            yield from list(connection.channels.values())

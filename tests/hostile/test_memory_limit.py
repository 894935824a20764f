"""The memory limit of a running broker: without a disk publishers wait, consumers drain, publishers
go on; with one, what there is no room for goes there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Self

import pika
import pytest

from tests.conftest import BrokerProcess

from .client import publish
from .conftest import Dial
from .running import DEADLINE_S, MB, eventually, logged, push, resident

Start = Callable[..., BrokerProcess]
LIMIT = 20 * MB
OVERHEAD_MAX = 40 * MB
"""What the process may take beside the messages that count: buffers, fragments, their tuples."""


class Flood:
    """A pika client in a thread that publishes as fast as its socket takes it. It stops when it is
    told that the broker is short of memory, and goes on when it is told so."""

    def __init__(self, url: str, queue: str, body: bytes) -> None:
        self.blocked = threading.Event()
        self.unblocked = threading.Event()
        self.published = 0
        self._queue = queue
        self._body = body
        self._at_once = 100 if len(body) < 1000 else 5
        self._is_waiting = False
        self._channel: Any = None
        self._connection = pika.SelectConnection(
            pika.URLParameters(url), on_open_callback=self._opened
        )
        self._thread = threading.Thread(target=self._connection.ioloop.start)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.ioloop.add_callback_threadsafe(self._connection.close)
        self._thread.join()
        self._connection.ioloop.close()

    def _opened(self, connection: Any) -> None:
        connection.add_on_connection_blocked_callback(self._wait)
        connection.add_on_connection_unblocked_callback(self._go_on)
        connection.add_on_close_callback(lambda *_: connection.ioloop.stop())
        self._channel = connection.channel(on_open_callback=lambda _: self._publish())

    def _wait(self, *_: object) -> None:
        self._is_waiting = True
        self.blocked.set()

    def _go_on(self, *_: object) -> None:
        self._is_waiting = False
        self.unblocked.set()
        self._publish()

    def _publish(self) -> None:
        if self._is_waiting or not self._channel.is_open:
            return
        # What the socket has not taken would pile up in this process.
        if self._connection._get_write_buffer_size() < 100_000:
            for _ in range(self._at_once):
                self._channel.basic_publish("", self._queue, self._body)
            self.published += self._at_once
        self._connection.ioloop.call_later(0.0001, self._publish)


def drain(channel: Any, queue: str, until: Callable[[], bool]) -> None:
    """Gets messages until something holds."""
    deadline = time.monotonic() + DEADLINE_S
    while not until():
        assert time.monotonic() < deadline
        channel.basic_get(queue, auto_ack=True)


@pytest.mark.parametrize("size", [2000, 1_000_000])
def test_flooding_publisher_waits_while_memory_is_short_and_goes_on_when_it_is_free(
    start_broker: Start, size: int
) -> None:
    broker = start_broker("--memory", "20MB", "--transient")
    before = resident(broker)
    connection = pika.BlockingConnection(pika.URLParameters(broker.url))
    channel = connection.channel()
    channel.queue_declare("q")
    with Flood(broker.url, "q", b"x" * size) as flood:
        assert flood.blocked.wait(DEADLINE_S)
        logged(broker, "publishers are paused")
        held = channel.queue_declare("q", passive=True).method.message_count
        assert 0.5 * LIMIT < held * (size + 250) < 1.5 * LIMIT + 2 * size
        assert resident(broker) - before < LIMIT + OVERHEAD_MAX
        # Publishers wait; a client that only consumes does not.
        drain(channel, "q", flood.unblocked.is_set)
        logged(broker, "publishers go on")
        published = flood.published
        drain(channel, "q", lambda: flood.published > published)
        assert resident(broker) - before < LIMIT + OVERHEAD_MAX
        # A connection that waits is not read: its close comes when there is memory again.
        channel.queue_purge("q")
    connection.close()


def test_publishers_of_every_kind_together_stay_within_the_limit(
    start_broker: Start, dial: Dial
) -> None:
    broker = start_broker("--memory", "20MB", "--transient")
    before = resident(broker)
    admin = dial(broker).open().channel()
    for number in range(10):
        admin.declare_queue(f"q{number}")
        admin.bind(f"q{number}", "amq.fanout", "")
    for octets in (
        publish("q0", b"x" * 1000) * 100,
        publish("", b"x" * 1000, exchange="amq.fanout") * 100,
        publish("q0", b"x", {"headers": {"CC": ["q1", "q2"]}, "expiration": "1000"}) * 100,
    ):
        connection = dial(broker).open()
        connection.channel()
        push(connection, octets, 50 * MB)
    logged(broker, "publishers are paused")
    assert resident(broker) - before < LIMIT + 2 * OVERHEAD_MAX
    # What was published can be deleted while publishers wait, and then they go on.
    for number in range(10):
        admin.call("queue.delete", queue=f"q{number}")
    logged(broker, "publishers go on")
    eventually(lambda: resident(broker) - before < LIMIT + 2 * OVERHEAD_MAX, "memory grows")


@pytest.mark.parametrize("durable", [True, False])
def test_flood_that_nobody_consumes_goes_to_the_disk_and_comes_back_in_order(
    start_broker: Start, *, durable: bool
) -> None:
    broker = start_broker("--memory", "20MB")
    before = resident(broker)
    count = 6_000
    bodies = [b"%06d" % number + b"x" * 10_000 for number in range(count)]
    connection = pika.BlockingConnection(pika.URLParameters(broker.url))
    channel = connection.channel()
    channel.queue_declare("q", durable=durable)
    properties = pika.BasicProperties(delivery_mode=1 + durable)
    for body in bodies:
        channel.basic_publish("", "q", body, properties)
    assert channel.queue_declare("q", passive=True).method.message_count == count
    assert resident(broker) - before < LIMIT + OVERHEAD_MAX
    channel.basic_qos(prefetch_count=100)
    for wanted, (method, _, body) in zip(bodies, channel.consume("q"), strict=False):
        assert body == wanted
        channel.basic_ack(method.delivery_tag)
    assert resident(broker) - before < LIMIT + OVERHEAD_MAX
    channel.cancel()
    assert channel.queue_delete("q").method.message_count == 0
    connection.close()

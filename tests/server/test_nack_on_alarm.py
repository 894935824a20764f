"""A virtual host that refuses publishes during an alarm, as an unmodified client meets it."""

from collections.abc import Callable
from pathlib import Path

import pika
import pika.exceptions
import pytest

from tests.conftest import BrokerProcess


def connect(broker: BrokerProcess, reasons: list[str]) -> pika.BlockingConnection:
    connection = pika.BlockingConnection(pika.URLParameters(broker.url))
    connection.add_on_connection_blocked_callback(
        lambda _, frame: reasons.append(str(frame.method.reason))
    )
    return connection


def test_publisher_with_confirms_is_refused_and_not_paused(
    start_broker: Callable[..., BrokerProcess], tmp_path: Path
) -> None:
    broker = start_broker(
        *("--nack-on-alarm", "/", "--nack-on-alarm", "elsewhere"),
        *("--disk-free-min", "900TB", "--data-dir", str(tmp_path / "kept")),
    )
    reasons: list[str] = []
    connection = connect(broker, reasons)
    channel = connection.channel()
    channel.queue_declare("q", durable=True)
    channel.confirm_delivery()
    for size in (10, 0, 300_000):
        with pytest.raises(pika.exceptions.NackError):
            channel.basic_publish("", "q", b"x" * size, mandatory=True)
    # It is not paused: the next method is answered.
    assert channel.queue_declare("q", passive=True).method.message_count == 0
    assert reasons == []
    connection.close()

    connection = connect(broker, reasons)
    connection.channel().basic_publish("", "q", b"without confirms")
    while not reasons:
        connection.process_data_events(time_limit=1)
    assert reasons == ["low on disk"]
    assert broker.stop() == 0
    with pytest.raises(pika.exceptions.ConnectionClosedByBroker, match="320"):
        connection.process_data_events(time_limit=5)

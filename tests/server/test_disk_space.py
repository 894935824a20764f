"""Publishers wait while the disk is nearly full, and are told so."""

from collections.abc import Callable
from pathlib import Path

import pika
import pika.exceptions
import pytest

from tests.conftest import BrokerProcess


def connect(broker: BrokerProcess) -> pika.BlockingConnection:
    return pika.BlockingConnection(pika.URLParameters(broker.url))


def test_publisher_is_blocked_while_the_disk_is_short(
    start_broker: Callable[..., BrokerProcess], tmp_path: Path
) -> None:
    broker = start_broker("--disk-free-min", "900TB", "--data-dir", str(tmp_path / "kept"))
    connection = connect(broker)
    reasons: list[str] = []
    connection.add_on_connection_blocked_callback(
        lambda _, frame: reasons.append(frame.method.reason)
    )
    channel = connection.channel()
    channel.queue_declare("q", durable=True)
    channel.basic_publish("", "q", b"waits")
    while not reasons:
        connection.process_data_events(time_limit=1)
    assert [str(reason) for reason in reasons] == ["low on disk"]
    other = connect(broker)
    # Who does not publish goes on.
    assert other.channel().queue_declare("q", passive=True).method.message_count == 0
    other.close()
    # Its close waits behind the publish, as in RabbitMQ; the end of the broker does not.
    assert broker.stop() == 0
    with pytest.raises(pika.exceptions.ConnectionClosedByBroker, match="320"):
        connection.process_data_events(time_limit=5)
    assert "publishers are paused" in broker.log.read_text(encoding="utf-8")


@pytest.mark.parametrize("text", ["0", "1KB"])
def test_enough_space_pauses_nobody(
    start_broker: Callable[..., BrokerProcess], tmp_path: Path, text: str
) -> None:
    broker = start_broker("--disk-free-min", text, "--data-dir", str(tmp_path / "kept"))
    connection = connect(broker)
    channel = connection.channel()
    channel.confirm_delivery()
    channel.queue_declare("q", durable=True)
    channel.basic_publish("", "q", b"kept", pika.BasicProperties(delivery_mode=2))
    connection.close()

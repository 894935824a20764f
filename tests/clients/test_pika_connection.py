"""pika, blocking: logging in, negotiation, heartbeats, many channels, orderly and other ends."""

import signal
import time
from collections.abc import Callable
from typing import Any

import pika
import pytest
from pika.exceptions import (
    AMQPConnectionError,
    ConnectionClosedByBroker,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)

from tests.conftest import BrokerProcess, RunningBroker

from .inbox import DEADLINE_SECONDS, pump


def parameters(broker: RunningBroker, **fields: Any) -> Any:
    parameters = pika.URLParameters(broker.url)
    for field, value in fields.items():
        setattr(parameters, field, value)
    return parameters


def test_server_says_it_is_rabbitmq_and_what_it_can(connection: Any) -> None:
    properties = connection._impl.server_properties
    assert properties["product"] == "RabbitMQ"
    assert tuple(map(int, properties["version"].split("."))) >= (3, 10, 0)
    for capability in (
        "authentication_failure_close",
        "basic.nack",
        "connection.blocked",
        "consumer_cancel_notify",
        "consumer_priorities",
        "direct_reply_to",
        "exchange_exchange_bindings",
        "per_consumer_qos",
        "publisher_confirms",
    ):
        assert properties["capabilities"][capability] is True


def test_wrong_password_is_refused(broker: RunningBroker) -> None:
    wrong = parameters(broker, credentials=pika.PlainCredentials("guest", "wrong"))
    with pytest.raises(ProbableAuthenticationError) as error:
        pika.BlockingConnection(wrong)
    assert (
        "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. "
        "For details see the broker logfile."
    ) in repr(error.value)


def test_unknown_vhost_is_refused_with_530(broker: RunningBroker) -> None:
    with pytest.raises(ProbableAccessDeniedError) as error:
        pika.BlockingConnection(parameters(broker, virtual_host="nowhere"))
    assert "(530) 'NOT_ALLOWED - vhost nowhere not found'" in str(error.value)


def test_negotiation_takes_the_smaller_limits(broker: RunningBroker, name: str) -> None:
    small = parameters(broker, frame_max=8192, channel_max=3, heartbeat=0)
    with pika.BlockingConnection(small) as connection:
        assert connection._impl.params.frame_max == 8192
        assert connection._impl.params.channel_max == 3
        channels = [connection.channel() for _ in range(3)]
        channels[0].queue_declare(name, exclusive=True)
        channels[1].confirm_delivery()
        body = bytes(range(256)) * 400
        channels[1].basic_publish("", name, body)
        assert channels[2].basic_get(name)[2] == body


def test_hundreds_of_channels_work_side_by_side(connection: Any, name: str) -> None:
    channels = [connection.channel() for _ in range(300)]
    channels[0].queue_declare(name, exclusive=True)
    for number, channel in enumerate(channels):
        channel.basic_publish("", name, b"%d" % number)
    for channel in channels[::2]:
        channel.close()
    last = channels[299]
    pump(connection, lambda: last.queue_declare(name, passive=True).method.message_count == 300)


def test_heartbeats_keep_an_idle_connection_open(broker: RunningBroker, name: str) -> None:
    with pika.BlockingConnection(parameters(broker, heartbeat=1)) as connection:
        assert connection._impl.params.heartbeat == 1
        received = connection._impl.frames_received
        # Nothing is asked meanwhile: what arrives are heartbeats, one each half second.
        pump(connection, lambda: connection._impl.frames_received >= received + 4)
        connection.channel().queue_declare(name, exclusive=True)


def test_client_that_sends_no_heartbeats_is_dropped(broker: RunningBroker) -> None:
    connection = pika.BlockingConnection(parameters(broker, heartbeat=1))
    connection._impl._heartbeat_checker.stop()
    start = time.monotonic()
    try:
        with pytest.raises(AMQPConnectionError) as error:
            pump(connection, lambda: False)
    finally:
        if connection.is_open:
            connection.close()
    # Two to three intervals without a byte; no close frame.
    assert not isinstance(error.value, ConnectionClosedByBroker)
    assert 1 < time.monotonic() - start < DEADLINE_SECONDS


def test_callbacks_for_a_blocked_connection_do_no_harm(
    connection: Any, channel: Any, name: str
) -> None:
    calls: list[str] = []
    connection.add_on_connection_blocked_callback(lambda *_: calls.append("blocked"))
    connection.add_on_connection_unblocked_callback(lambda *_: calls.append("unblocked"))
    channel.queue_declare(name, exclusive=True)
    channel.confirm_delivery()
    channel.basic_publish("", name, b"body")
    assert channel.basic_get(name)[2] == b"body"
    assert calls == []


def test_update_secret_is_answered_and_the_connection_goes_on(connection: Any, name: str) -> None:
    connection.update_secret("guest", "the token was about to expire")
    connection.channel().queue_declare(name, exclusive=True)


def test_closed_channel_number_is_free_again(connection: Any) -> None:
    first = connection.channel(7)
    first.close()
    assert connection.channel(7).is_open


def test_broker_that_stops_closes_its_clients_with_320(
    start_broker: Callable[..., BrokerProcess],
) -> None:
    broker = start_broker()
    connection = pika.BlockingConnection(parameters(broker))
    broker.process.send_signal(signal.SIGTERM)
    with pytest.raises(ConnectionClosedByBroker) as error:
        pump(connection, lambda: False)
    assert error.value.reply_code == 320
    assert error.value.reply_text == (
        "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'"
    )
    assert broker.process.wait(DEADLINE_SECONDS) == 0


def test_connections_come_and_go(broker: RunningBroker, name: str) -> None:
    for _ in range(20):
        with pika.BlockingConnection(parameters(broker)) as connection:
            # The exclusive queue of the connection before is gone when its close was answered.
            channel = connection.channel()
            channel.queue_declare(name, exclusive=True)
            channel.basic_publish("", name, b"body")

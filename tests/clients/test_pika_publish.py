"""pika, blocking: publishing, with confirms, returns and transactions."""

import hashlib
import random
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pika
import pytest
from pika.exceptions import ChannelClosedByBroker, ConnectionClosedByBroker, UnroutableError

from .inbox import Inbox, pump


def test_confirmed_publish_is_in_the_queue(channel: Any, name: str) -> None:
    channel.queue_declare(name, exclusive=True)
    channel.confirm_delivery()
    for number in range(50):
        channel.basic_publish("", name, b"%d" % number, mandatory=True)
    assert channel.queue_declare(name, passive=True).method.message_count == 50


def test_unroutable_mandatory_message_is_returned_and_confirmed(channel: Any, name: str) -> None:
    channel.confirm_delivery()
    properties = pika.BasicProperties(message_id="m-1", headers={"a": 1})
    with pytest.raises(UnroutableError) as error:
        channel.basic_publish("amq.direct", name, b"body", properties, mandatory=True)
    [returned] = error.value.messages
    assert (returned.method.reply_code, returned.method.reply_text) == (312, "NO_ROUTE")
    assert (returned.method.exchange, returned.method.routing_key) == ("amq.direct", name)
    assert (returned.properties.message_id, returned.properties.headers) == ("m-1", {"a": 1})
    assert returned.body == b"body"
    # Without mandatory it is confirmed and dropped, and the channel goes on.
    channel.basic_publish("amq.direct", name, b"body")


def test_unroutable_message_without_confirms_reaches_the_return_callback(
    connection: Any, channel: Any, name: str
) -> None:
    returned: list[tuple[int, bytes]] = []
    channel.add_on_return_callback(
        lambda channel, method, properties, body: returned.append((method.reply_code, body))
    )
    channel.basic_publish("", name, b"first", mandatory=True)
    channel.basic_publish("", name, b"second", mandatory=True)
    pump(connection, lambda: len(returned) == 2)
    assert returned == [(312, b"first"), (312, b"second")]


def test_publish_to_unknown_exchange_closes_the_channel_with_404(
    connection: Any, channel: Any, name: str
) -> None:
    channel.confirm_delivery()
    with pytest.raises(ChannelClosedByBroker) as error:
        channel.basic_publish(name, "", b"body")
    assert error.value.reply_code == 404
    assert error.value.reply_text == f"NOT_FOUND - no exchange '{name}' in vhost '/'"
    assert connection.is_open


def test_every_property_and_header_type_arrives_as_sent(channel: Any, name: str) -> None:
    sent = pika.BasicProperties(
        content_type="application/json",
        content_encoding="utf-8",
        headers={
            "text": "grüße",
            "bytes": b"\x00\xff",
            "number": -7,
            "big": 2**40,
            "true": True,
            "none": None,
            "decimal": Decimal("3.14"),
            "time": datetime(2024, 2, 29, 12, 30, tzinfo=UTC),
            "list": [1, "two", {"three": 3}],
            "table": {"deep": {"deeper": [True, None]}},
        },
        delivery_mode=2,
        priority=7,
        correlation_id="c-1",
        reply_to="answers",
        expiration="60000",
        message_id="m-1",
        timestamp=1_700_000_000,
        type="greeting",
        user_id="guest",
        app_id="tests",
        cluster_id="cluster",
    )
    channel.queue_declare(name, exclusive=True)
    channel.confirm_delivery()
    channel.basic_publish("", name, b"body", sent)
    _, received, _ = channel.basic_get(name, auto_ack=True)
    assert vars(received) == vars(sent)


@pytest.mark.parametrize("size", [0, 1, 131_064, 131_065, 5_000_000])
def test_body_of_any_size_arrives_whole(channel: Any, name: str, size: int) -> None:
    body = random.Random(size).randbytes(size)
    channel.queue_declare(name, exclusive=True)
    channel.confirm_delivery()
    channel.basic_publish("", name, body)
    _, _, by_get = channel.basic_get(name, auto_ack=True)
    inbox = Inbox(channel, name, auto_ack=True)
    channel.basic_publish("", name, body)
    [delivery] = inbox.wait(1)
    digests = [hashlib.sha256(each).hexdigest() for each in (body, by_get, delivery.body)]
    assert digests == [digests[0]] * 3


def test_wrong_user_id_closes_the_channel_with_406(channel: Any, name: str) -> None:
    channel.confirm_delivery()
    with pytest.raises(ChannelClosedByBroker) as error:
        channel.basic_publish("", name, b"body", pika.BasicProperties(user_id="somebody"))
    assert error.value.reply_code == 406
    assert error.value.reply_text == (
        "PRECONDITION_FAILED - user_id property set to 'somebody' "
        "but authenticated user was 'guest'"
    )


def test_sender_selects_further_queues_by_cc_and_bcc(channel: Any, name: str) -> None:
    queues = [channel.queue_declare("", exclusive=True).method.queue for _ in range(3)]
    headers = {"CC": [queues[1]], "BCC": [queues[2]]}
    channel.confirm_delivery()
    channel.basic_publish("", queues[0], b"body", pika.BasicProperties(headers=headers))
    for queue in queues:
        method, properties, body = channel.basic_get(queue, auto_ack=True)
        assert (method.routing_key, body) == (queues[0], b"body")
        assert properties.headers == {"CC": [queues[1]]}


def test_immediate_is_refused_with_540(connection: Any, channel: Any, name: str) -> None:
    publish = pika.spec.Basic.Publish(exchange="", routing_key=name, immediate=True)
    channel._impl._send_method(publish, (pika.BasicProperties(), b"body"))
    with pytest.raises(ConnectionClosedByBroker) as error:
        pump(connection, lambda: False)
    assert error.value.reply_code == 540
    assert error.value.reply_text == "NOT_IMPLEMENTED - immediate=true"


def test_transaction_publishes_at_commit_and_not_before(
    connection: Any, channel: Any, name: str
) -> None:
    channel.queue_declare(name, exclusive=True)
    watcher = connection.channel()
    channel.tx_select()
    channel.basic_publish("", name, b"one")
    channel.basic_publish("", name, b"two")
    channel.queue_declare(name, passive=True)
    assert watcher.basic_get(name) == (None, None, None)
    channel.tx_commit()
    assert watcher.queue_declare(name, passive=True).method.message_count == 2
    channel.basic_publish("", name, b"three")
    channel.tx_rollback()
    channel.tx_commit()
    assert watcher.queue_declare(name, passive=True).method.message_count == 2


def test_transaction_covers_acknowledgements(connection: Any, channel: Any, name: str) -> None:
    channel.queue_declare(name, exclusive=True)
    channel.tx_select()
    channel.basic_publish("", name, b"body")
    channel.tx_commit()
    method, _, _ = channel.basic_get(name)
    channel.basic_ack(method.delivery_tag)
    channel.tx_rollback()
    # After the rollback it is unacknowledged again, so the same tag can be acknowledged.
    channel.basic_ack(method.delivery_tag)
    channel.tx_commit()
    channel.close()
    watcher = connection.channel()
    assert watcher.queue_declare(name, passive=True).method.message_count == 0


def test_unroutable_mandatory_message_of_a_transaction_is_returned_at_commit(
    connection: Any, channel: Any, name: str
) -> None:
    returned: list[bytes] = []
    channel.add_on_return_callback(lambda channel, method, properties, body: returned.append(body))
    channel.tx_select()
    channel.basic_publish("", name, b"body", mandatory=True)
    channel.tx_rollback()
    channel.basic_publish("", name, b"kept", mandatory=True)
    channel.tx_commit()
    pump(connection, lambda: bool(returned))
    assert returned == [b"kept"]


def test_confirms_and_transactions_exclude_each_other(connection: Any, channel: Any) -> None:
    channel.tx_select()
    with pytest.raises(ChannelClosedByBroker) as error:
        channel.confirm_delivery()
    assert error.value.reply_code == 406
    assert error.value.reply_text == ("PRECONDITION_FAILED - cannot switch from tx to confirm mode")
    channel = connection.channel()
    channel.confirm_delivery()
    with pytest.raises(ChannelClosedByBroker) as error:
        channel.tx_select()
    assert error.value.reply_text == ("PRECONDITION_FAILED - cannot switch from confirm to tx mode")
    channel = connection.channel()
    with pytest.raises(ChannelClosedByBroker) as error:
        channel.tx_commit()
    assert error.value.reply_text == "PRECONDITION_FAILED - channel is not transactional"

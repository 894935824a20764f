"""pika, blocking: exchanges, queues and bindings."""

import re
from typing import Any

import pika
import pytest
from pika.exceptions import ChannelClosedByBroker, ConnectionClosedByBroker

from tests.conftest import RunningBroker

from .inbox import Inbox


def test_declare_counts_messages_and_consumers(channel: Any, name: str) -> None:
    declared = channel.queue_declare(name, exclusive=True).method
    assert (declared.queue, declared.message_count, declared.consumer_count) == (name, 0, 0)
    channel.confirm_delivery()
    channel.basic_publish("", name, b"one")
    channel.basic_publish("", name, b"two")
    channel.basic_qos(prefetch_count=1)
    Inbox(channel, name).wait(1)
    declared = channel.queue_declare(name, passive=True).method
    assert (declared.message_count, declared.consumer_count) == (1, 1)


def test_broker_names_a_queue_without_a_name(channel: Any) -> None:
    first = channel.queue_declare("", exclusive=True).method.queue
    second = channel.queue_declare("", exclusive=True).method.queue
    assert re.fullmatch(r"amq\.gen-[A-Za-z0-9_-]{22}", first)
    assert first != second
    # The empty name means the queue declared last on this channel, for what uses a queue.
    channel.queue_bind("", "amq.direct")
    channel.basic_publish("amq.direct", second, b"body")
    method, _, body = channel.basic_get("", auto_ack=True)
    assert (method.routing_key, body) == (second, b"body")


def test_empty_queue_name_without_an_earlier_declare_closes_the_channel_with_404(
    channel: Any,
) -> None:
    with pytest.raises(ChannelClosedByBroker) as error:
        channel.basic_get("")
    assert error.value.reply_code == 404
    assert error.value.reply_text == "NOT_FOUND - no previously declared queue"


def test_passive_declare_of_missing_queue_closes_only_the_channel(
    connection: Any, channel: Any, name: str
) -> None:
    with pytest.raises(ChannelClosedByBroker) as error:
        channel.queue_declare(name, passive=True)
    assert error.value.reply_code == 404
    assert error.value.reply_text == f"NOT_FOUND - no queue '{name}' in vhost '/'"
    assert channel.is_closed
    again = connection.channel()
    assert again.channel_number == channel.channel_number
    again.queue_declare(name, exclusive=True)


def test_passive_declare_of_missing_exchange_closes_only_the_channel(
    connection: Any, channel: Any, name: str
) -> None:
    with pytest.raises(ChannelClosedByBroker) as error:
        channel.exchange_declare(name, passive=True)
    assert error.value.reply_code == 404
    assert error.value.reply_text == f"NOT_FOUND - no exchange '{name}' in vhost '/'"
    connection.channel().exchange_declare("amq.topic", exchange_type="topic", passive=True)


def test_redeclare_with_other_arguments_is_refused_with_406(
    connection: Any, channel: Any, name: str
) -> None:
    channel.queue_declare(name, exclusive=True, arguments={"x-message-ttl": 60_000})
    channel.queue_declare(name, exclusive=True, arguments={"x-message-ttl": 60_000})
    with pytest.raises(ChannelClosedByBroker) as error:
        channel.queue_declare(name, exclusive=True)
    assert error.value.reply_code == 406
    assert error.value.reply_text == (
        f"PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue '{name}' in vhost '/': "
        "received none but current is the value '60000' of type 'signedint'"
    )
    channel = connection.channel()
    with pytest.raises(ChannelClosedByBroker) as error:
        channel.exchange_declare("amq.direct", exchange_type="topic", durable=True)
    assert error.value.reply_code == 406
    assert error.value.reply_text == (
        "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'amq.direct' in vhost '/': "
        "received 'topic' but current is 'direct'"
    )


def test_exclusive_queue_is_locked_for_others_and_goes_with_its_connection(
    broker: RunningBroker, channel: Any, name: str
) -> None:
    parameters = pika.URLParameters(broker.url)
    with pika.BlockingConnection(parameters) as owner:
        owner.channel().queue_declare(name, exclusive=True)
        with pytest.raises(ChannelClosedByBroker) as error:
            channel.queue_declare(name, passive=True)
        assert error.value.reply_code == 405
        assert error.value.reply_text.startswith(
            f"RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{name}' "
            "in vhost '/'."
        )
    channel = channel.connection.channel()
    with pytest.raises(ChannelClosedByBroker) as error:
        channel.queue_declare(name, passive=True)
    assert error.value.reply_code == 404


def test_auto_delete_queue_goes_with_its_last_consumer(
    connection: Any, channel: Any, name: str
) -> None:
    channel.queue_declare(name, auto_delete=True)
    first, second = Inbox(channel, name), Inbox(channel, name)
    channel.basic_cancel(first.consumer_tag)
    assert channel.queue_declare(name, passive=True).method.consumer_count == 1
    channel.basic_cancel(second.consumer_tag)
    with pytest.raises(ChannelClosedByBroker) as error:
        channel.queue_declare(name, passive=True)
    assert error.value.reply_code == 404


def test_delete_if_unused_and_if_empty_are_conditions(
    connection: Any, channel: Any, name: str
) -> None:
    channel.queue_declare(name, auto_delete=False)
    try:
        channel.confirm_delivery()
        channel.basic_publish("", name, b"body")
        with pytest.raises(ChannelClosedByBroker) as error:
            channel.queue_delete(name, if_empty=True)
        assert error.value.reply_text == (
            f"PRECONDITION_FAILED - queue '{name}' in vhost '/' not empty"
        )
        channel = connection.channel()
        Inbox(channel, name).wait(1)
        with pytest.raises(ChannelClosedByBroker) as error:
            channel.queue_delete(name, if_unused=True)
        assert error.value.reply_text == f"PRECONDITION_FAILED - queue '{name}' in vhost '/' in use"
    finally:
        deleted = connection.channel().queue_delete(name)
    assert deleted.method.message_count == 1
    assert connection.channel().queue_delete(name).method.message_count == 0


def test_purge_drops_ready_messages_and_keeps_unacknowledged_ones(channel: Any, name: str) -> None:
    channel.queue_declare(name, exclusive=True)
    channel.confirm_delivery()
    for _ in range(3):
        channel.basic_publish("", name, b"body")
    method, _, _ = channel.basic_get(name)
    assert channel.queue_purge(name).method.message_count == 2
    channel.basic_nack(method.delivery_tag, requeue=True)
    method, _, body = channel.basic_get(name)
    assert (method.message_count, body) == (0, b"body")


def test_message_goes_once_to_a_queue_with_several_matching_bindings(
    channel: Any, name: str
) -> None:
    channel.exchange_declare(name, exchange_type="topic", auto_delete=True)
    channel.queue_declare(name, exclusive=True)
    for pattern in ("a.*", "#", "*.b"):
        channel.queue_bind(name, name, pattern)
    channel.confirm_delivery()
    channel.basic_publish(name, "a.b", b"body")
    Inbox(channel, name, auto_ack=True).wait(1)
    for pattern in ("a.*", "#"):
        channel.queue_unbind(name, name, pattern)
    channel.basic_publish(name, "a.c", b"unrouted")
    assert channel.queue_declare(name, passive=True).method.message_count == 0


def test_exchanges_are_bound_to_exchanges(channel: Any, name: str) -> None:
    source, middle = f"{name}-source", f"{name}-middle"
    channel.exchange_declare(source, exchange_type="topic", auto_delete=True)
    channel.exchange_declare(middle, exchange_type="fanout", auto_delete=True, internal=True)
    channel.exchange_bind(destination=middle, source=source, routing_key="logs.#")
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, middle)
    channel.confirm_delivery()
    inbox = Inbox(channel, queue, auto_ack=True)
    channel.basic_publish(source, "logs.info", b"through two exchanges")
    delivery = inbox.wait(1)[0]
    assert (delivery.method.exchange, delivery.method.routing_key) == (source, "logs.info")
    channel.exchange_unbind(destination=middle, source=source, routing_key="logs.#")
    # The source was an auto-delete exchange: its last binding is gone.
    with pytest.raises(ChannelClosedByBroker) as error:
        channel.exchange_declare(source, passive=True)
    assert error.value.reply_code == 404


def test_publish_to_internal_exchange_closes_the_channel_with_403(channel: Any, name: str) -> None:
    channel.exchange_declare(name, exchange_type="fanout", internal=True)
    channel.confirm_delivery()
    try:
        with pytest.raises(ChannelClosedByBroker) as error:
            channel.basic_publish(name, "", b"body")
    finally:
        channel.connection.channel().exchange_delete(name)
    assert error.value.reply_code == 403
    assert error.value.reply_text == (
        f"ACCESS_REFUSED - cannot publish to internal exchange '{name}' in vhost '/'"
    )


def test_alternate_exchange_takes_what_nothing_else_took(channel: Any, name: str) -> None:
    fallback = f"{name}-fallback"
    channel.exchange_declare(fallback, exchange_type="fanout", auto_delete=True)
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, fallback)
    channel.exchange_declare(name, "direct", arguments={"alternate-exchange": fallback})
    try:
        channel.confirm_delivery()
        # Mandatory, and not returned: the alternate exchange routed it.
        channel.basic_publish(name, "nobody", b"body", mandatory=True)
        method, _, body = channel.basic_get(queue, auto_ack=True)
        assert (method.exchange, method.routing_key, body) == (name, "nobody", b"body")
    finally:
        channel.exchange_delete(name)


def test_headers_exchange_matches_all_or_any(channel: Any, name: str) -> None:
    channel.exchange_declare(name, exchange_type="headers", auto_delete=True)
    queues = {}
    for match in ("all", "any"):
        queues[match] = channel.queue_declare("", exclusive=True).method.queue
        arguments = {"x-match": match, "format": "pdf", "pages": 3}
        channel.queue_bind(queues[match], name, arguments=arguments)
    channel.confirm_delivery()
    for headers in ({"format": "pdf", "pages": 3}, {"format": "pdf", "pages": 4}, {"pages": "3"}):
        channel.basic_publish(name, "", b"body", pika.BasicProperties(headers=headers))
    counts = {
        match: channel.queue_declare(queue, passive=True).method.message_count
        for match, queue in queues.items()
    }
    assert counts == {"all": 1, "any": 2}


def test_reserved_and_system_names_are_refused_with_403(connection: Any) -> None:
    refused = [
        (
            lambda channel: channel.queue_declare("amq.mine"),
            "queue name 'amq.mine' contains reserved prefix 'amq.*'",
        ),
        (
            lambda channel: channel.exchange_declare("amq.mine"),
            "exchange name 'amq.mine' contains reserved prefix 'amq.*'",
        ),
        (
            lambda channel: channel.exchange_delete("amq.topic"),
            "deletion of system exchange 'amq.topic' in vhost '/' not allowed",
        ),
        (
            lambda channel: channel.exchange_delete(""),
            "operation not permitted on the default exchange",
        ),
    ]
    for call, text in refused:
        with pytest.raises(ChannelClosedByBroker) as error:
            call(connection.channel())
        assert (error.value.reply_code, error.value.reply_text) == (403, f"ACCESS_REFUSED - {text}")


def test_unknown_exchange_type_is_refused_with_its_name(channel: Any, name: str) -> None:
    # The connection is closed with 503 up to RabbitMQ 3.13, the channel with 406 since 4.0.
    with pytest.raises((ChannelClosedByBroker, ConnectionClosedByBroker)) as error:
        channel.exchange_declare(name, exchange_type="x-nothing")
    assert error.value.reply_text.endswith("unknown exchange type 'x-nothing'")

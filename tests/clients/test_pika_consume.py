"""pika, blocking: getting and consuming, acknowledgements, prefetch, cancellation."""

import socket
from typing import Any

import pika
import pytest
from pika.exceptions import ChannelClosedByBroker, StreamLostError

from tests.conftest import RunningBroker

from .inbox import Inbox, pump


@pytest.fixture
def queue(channel: Any, name: str) -> str:
    """A queue with the messages 0, 1, 2, 3, 4."""
    channel.queue_declare(name, exclusive=True)
    channel.confirm_delivery()
    for number in range(5):
        channel.basic_publish("", name, b"%d" % number)
    return name


def test_get_takes_messages_in_order_until_the_queue_is_empty(channel: Any, queue: str) -> None:
    taken = [channel.basic_get(queue, auto_ack=True) for _ in range(6)]
    assert [body for _, _, body in taken] == [b"0", b"1", b"2", b"3", b"4", None]
    assert [method.message_count for method, _, _ in taken[:5]] == [4, 3, 2, 1, 0]
    assert [method.delivery_tag for method, _, _ in taken[:5]] == [1, 2, 3, 4, 5]
    assert not any(method.redelivered for method, _, _ in taken[:5])
    assert (taken[0][0].exchange, taken[0][0].routing_key) == ("", queue)


def test_consumer_gets_everything_in_order(channel: Any, queue: str) -> None:
    inbox = Inbox(channel, queue, auto_ack=True)
    deliveries = inbox.wait(5)
    assert inbox.bodies == [b"0", b"1", b"2", b"3", b"4"]
    assert [each.method.delivery_tag for each in deliveries] == [1, 2, 3, 4, 5]
    assert {each.method.consumer_tag for each in deliveries} == {inbox.consumer_tag}


def test_requeued_messages_come_back_in_place_and_redelivered(channel: Any, queue: str) -> None:
    taken = [channel.basic_get(queue) for _ in range(3)]
    channel.basic_ack(taken[1][0].delivery_tag)
    channel.basic_reject(taken[0][0].delivery_tag, requeue=True)
    channel.basic_nack(taken[2][0].delivery_tag, requeue=True)
    again = [channel.basic_get(queue, auto_ack=True) for _ in range(4)]
    assert [(body, method.redelivered) for method, _, body in again] == [
        (b"0", True),
        (b"2", True),
        (b"3", False),
        (b"4", False),
    ]


def test_rejected_message_without_requeue_is_gone(channel: Any, queue: str) -> None:
    for settle in (channel.basic_reject, channel.basic_nack):
        method, _, _ = channel.basic_get(queue)
        settle(method.delivery_tag, requeue=False)
    inbox = Inbox(channel, queue, auto_ack=True)
    inbox.wait(3)
    assert inbox.bodies == [b"2", b"3", b"4"]


def test_multiple_settles_everything_up_to_the_tag(
    connection: Any, channel: Any, queue: str
) -> None:
    tags = [channel.basic_get(queue)[0].delivery_tag for _ in range(5)]
    channel.basic_ack(tags[1], multiple=True)
    channel.basic_nack(tags[3], multiple=True, requeue=False)
    channel.close()
    method, _, body = connection.channel().basic_get(queue)
    assert (body, method.redelivered, method.message_count) == (b"4", True, 0)


def test_acknowledging_an_unknown_tag_closes_the_channel_with_406(
    connection: Any, channel: Any, queue: str
) -> None:
    method, _, _ = channel.basic_get(queue)
    channel.basic_ack(method.delivery_tag)
    channel.basic_ack(method.delivery_tag)
    with pytest.raises(ChannelClosedByBroker) as error:
        channel.basic_get(queue)
    assert error.value.reply_code == 406
    assert error.value.reply_text == "PRECONDITION_FAILED - unknown delivery tag 1"
    assert connection.channel().queue_declare(queue, passive=True).method.message_count == 4


def test_unacknowledged_messages_return_when_the_channel_closes(
    connection: Any, channel: Any, queue: str
) -> None:
    Inbox(channel, queue).wait(5)
    channel.close()
    deliveries = Inbox(connection.channel(), queue).wait(5)
    assert [(each.body, each.method.redelivered) for each in deliveries] == [
        (b"%d" % number, True) for number in range(5)
    ]


def test_unacknowledged_messages_return_when_the_connection_breaks(
    broker: RunningBroker, connection: Any, channel: Any, name: str
) -> None:
    channel.queue_declare(name, durable=True)
    try:
        channel.confirm_delivery()
        channel.basic_publish("", name, b"body")
        broken = pika.BlockingConnection(pika.URLParameters(broker.url))
        Inbox(broken.channel(), name).wait(1)
        inbox = Inbox(channel, name)
        broken._impl._transport._sock.shutdown(socket.SHUT_RDWR)
        with pytest.raises(StreamLostError):
            pump(broken, lambda: False)
        [delivery] = inbox.wait(1)
        assert delivery.method.redelivered
    finally:
        connection.channel().queue_delete(name)


def test_prefetch_bounds_what_is_unacknowledged(channel: Any, queue: str) -> None:
    channel.basic_qos(prefetch_count=2)
    inbox = Inbox(channel, queue)
    deliveries = inbox.wait(2)
    channel.basic_ack(deliveries[0].method.delivery_tag)
    inbox.wait(3)
    channel.basic_ack(deliveries[-1].method.delivery_tag, multiple=True)
    inbox.wait(5)


def test_prefetch_counts_for_each_consumer(channel: Any, queue: str) -> None:
    channel.basic_qos(prefetch_count=1)
    first = Inbox(channel, queue)
    channel.basic_qos(prefetch_count=2)
    second = Inbox(channel, queue)
    first.wait(1)
    second.wait(2)
    assert channel.queue_declare(queue, passive=True).method.message_count == 2


def test_channel_wide_prefetch_is_shared_and_changes_live(channel: Any, queue: str) -> None:
    channel.basic_qos(prefetch_count=2, global_qos=True)
    first, second = Inbox(channel, queue), Inbox(channel, queue)
    pump(channel.connection, lambda: len(first.deliveries + second.deliveries) >= 2)
    first.settle()
    assert len(first.deliveries + second.deliveries) == 2
    channel.basic_qos(prefetch_count=4, global_qos=True)
    pump(channel.connection, lambda: len(first.deliveries + second.deliveries) >= 4)
    first.settle()
    assert len(first.deliveries + second.deliveries) == 4
    channel.basic_qos(prefetch_count=0, global_qos=True)
    pump(channel.connection, lambda: len(first.deliveries + second.deliveries) == 5)


def test_consumers_take_turns(channel: Any, name: str) -> None:
    channel.queue_declare(name, exclusive=True)
    inboxes = [Inbox(channel, name, auto_ack=True) for _ in range(3)]
    channel.confirm_delivery()
    for number in range(9):
        channel.basic_publish("", name, b"%d" % number)
    for inbox in inboxes:
        inbox.wait(3)
    assert sorted(body for inbox in inboxes for body in inbox.bodies) == [
        b"%d" % number for number in range(9)
    ]


def test_consumer_with_higher_priority_is_served_first(channel: Any, name: str) -> None:
    channel.queue_declare(name, exclusive=True)
    channel.basic_qos(prefetch_count=2)
    low = Inbox(channel, name)
    high = Inbox(channel, name, arguments={"x-priority": 10})
    channel.confirm_delivery()
    for number in range(3):
        channel.basic_publish("", name, b"%d" % number)
    high.wait(2)
    low.wait(1)
    assert (high.bodies, low.bodies) == ([b"0", b"1"], [b"2"])


def test_exclusive_consumer_keeps_others_away(connection: Any, channel: Any, queue: str) -> None:
    inbox = Inbox(channel, queue, exclusive=True)
    other = connection.channel()
    with pytest.raises(ChannelClosedByBroker) as error:
        other.basic_consume(queue, on_message_callback=lambda *_: None)
    assert error.value.reply_code == 403
    assert error.value.reply_text == (
        f"ACCESS_REFUSED - queue '{queue}' in vhost '/' in exclusive use"
    )
    channel.basic_cancel(inbox.consumer_tag)
    Inbox(connection.channel(), queue, exclusive=True)


def test_cancelled_consumer_keeps_its_unacknowledged_messages(
    connection: Any, channel: Any, queue: str
) -> None:
    channel.basic_qos(prefetch_count=2)
    inbox = Inbox(channel, queue)
    [first, second] = inbox.wait(2)
    channel.basic_cancel(inbox.consumer_tag)
    channel.basic_ack(first.method.delivery_tag)
    channel.basic_nack(second.method.delivery_tag)
    method, _, body = channel.basic_get(queue)
    assert (body, method.redelivered) == (b"1", True)


def test_consumer_is_told_when_its_queue_is_deleted(
    connection: Any, channel: Any, queue: str
) -> None:
    cancelled: list[str] = []
    channel.add_on_cancel_callback(lambda frame: cancelled.append(frame.method.consumer_tag))
    inbox = Inbox(channel, queue)
    inbox.wait(5)
    connection.channel().queue_delete(queue)
    pump(connection, lambda: bool(cancelled))
    assert cancelled == [inbox.consumer_tag]
    # The channel goes on, and the deliveries of the queue that went can still be acknowledged.
    channel.basic_ack(0, multiple=True)
    channel.queue_declare(queue, exclusive=True)


def test_generator_ends_with_the_deletion_of_its_queue(channel: Any, queue: str) -> None:
    bodies = []
    for method, _, body in channel.consume(queue, auto_ack=True):
        bodies.append(body)
        if method.delivery_tag == 5:
            channel.queue_delete(queue)
    assert bodies == [b"0", b"1", b"2", b"3", b"4"]


def test_recover_delivers_again_what_is_unacknowledged(channel: Any, queue: str) -> None:
    inbox = Inbox(channel, queue)
    inbox.wait(5)
    channel.basic_ack(inbox.deliveries[0].method.delivery_tag)
    channel.basic_recover(requeue=True)
    inbox.wait(9)
    assert [(each.body, each.method.redelivered) for each in inbox.deliveries[5:]] == [
        (b"%d" % number, True) for number in range(1, 5)
    ]
    assert inbox.deliveries[-1].method.delivery_tag == 9


def test_direct_reply_to_carries_the_answer(connection: Any, channel: Any, name: str) -> None:
    channel.queue_declare(name, exclusive=True)
    answers: list[bytes] = []
    channel.basic_consume(
        "amq.rabbitmq.reply-to",
        on_message_callback=lambda channel, method, properties, body: answers.append(body),
        auto_ack=True,
    )
    properties = pika.BasicProperties(reply_to="amq.rabbitmq.reply-to")
    channel.basic_publish("", name, b"question", properties)
    server = connection.channel()
    _, request, _ = server.basic_get(name, auto_ack=True)
    assert request.reply_to.startswith("amq.rabbitmq.reply-to.")
    server.basic_publish("", request.reply_to, b"answer")
    pump(connection, lambda: bool(answers))
    assert answers == [b"answer"]

"""kombu: simple queues, producers and consumers, ConsumerMixin, the pidbox of Celery's workers."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from queue import Empty
from typing import Any

import pytest
from kombu.connection import Connection
from kombu.entity import Exchange, Queue
from kombu.messaging import Consumer, Producer
from kombu.mixins import ConsumerMixin, ConsumerProducerMixin
from kombu.pidbox import Mailbox

from tests.conftest import RunningBroker

DEADLINE_SECONDS = 10.0


@pytest.fixture
def kombu_connection(broker: RunningBroker) -> Iterator[Any]:
    """A kombu connection; pyamqp is its transport for amqp:// URLs."""
    with Connection(broker.url) as connection:
        yield connection


def drain(connection: Any, until: Callable[[], bool]) -> None:
    """Handle what arrives on `connection` until `until` is true; fail at the deadline."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not until():
        assert time.monotonic() < deadline, "nothing more arrived"
        with suppress(socket.timeout):
            connection.drain_events(timeout=0.1)


def test_simple_queue_puts_and_gets(kombu_connection: Any, name: str) -> None:
    queue_options = {"durable": False, "exclusive": True}
    exchange_options = {"type": "direct", "durable": False, "auto_delete": True}
    with kombu_connection.SimpleQueue(
        name, queue_opts=queue_options, exchange_opts=exchange_options
    ) as queue:
        queue.put({"n": 1})
        queue.put({"n": 2}, compression="zlib")
        queue.put("text")
        drain(kombu_connection, lambda: queue.qsize() == 3)
        queue.consumer.qos(prefetch_count=1)
        first = queue.get(timeout=DEADLINE_SECONDS)
        assert first.payload == {"n": 1}
        first.requeue()
        again = queue.get(timeout=DEADLINE_SECONDS)
        assert (again.payload, again.delivery_info["redelivered"]) == ({"n": 1}, True)
        again.ack()
        for payload in ({"n": 2}, "text"):
            message = queue.get(timeout=DEADLINE_SECONDS)
            assert message.payload == payload
            message.ack()
        with pytest.raises(Empty):
            queue.get(block=False)
        assert queue.clear() == 0


def test_producer_sends_headers_and_properties(kombu_connection: Any, name: str) -> None:
    exchange = Exchange(name, "topic", durable=False, auto_delete=True)
    queue = Queue(name, exchange, "a.#", exclusive=True, durable=False)
    received: list[Any] = []

    def receive(body: Any, message: Any) -> None:
        received.append((body, message))
        message.ack()

    with Consumer(kombu_connection, queue, callbacks=[receive], prefetch_count=10):
        producer = Producer(kombu_connection, exchange)
        producer.publish(
            {"täsk": [1, 2.5, None, True]},
            routing_key="a.b.c",
            headers={"lang": "py", "depth": {"x": [1, "y"]}, "float": 0.25, "none": None},
            priority=4,
            correlation_id="c-1",
            reply_to="answers",
            expiration=30,
            delivery_mode="persistent",
        )
        drain(kombu_connection, lambda: bool(received))
    [(body, message)] = received
    assert body == {"täsk": [1, 2.5, None, True]}
    assert message.headers == {
        "lang": "py",
        "depth": {"x": [1, "y"]},
        "float": 0.25,
        "none": None,
    }
    assert {
        key: message.properties[key]
        for key in ("priority", "correlation_id", "reply_to", "expiration", "delivery_mode")
    } == {
        "priority": 4,
        "correlation_id": "c-1",
        "reply_to": "answers",
        "expiration": "30000",
        "delivery_mode": 2,
    }
    assert message.delivery_info["routing_key"] == "a.b.c"
    assert message.delivery_info["exchange"] == name


def test_confirmed_publish_waits_for_the_broker(broker: RunningBroker, name: str) -> None:
    with Connection(broker.url, transport_options={"confirm_publish": True}) as connection:
        queue = Queue(name, exclusive=True, durable=False)
        producer = Producer(connection)
        for number in range(20):
            producer.publish({"n": number}, routing_key=name, declare=[queue], retry=True)
        bound = queue(connection.default_channel)
        assert bound.queue_declare(passive=True).message_count == 20


def test_unroutable_mandatory_message_reaches_on_return(kombu_connection: Any, name: str) -> None:
    returned: list[tuple[int, str, str]] = []

    def on_return(error: Any, exchange: str, routing_key: str, message: Any) -> None:
        returned.append((error.reply_code, exchange, routing_key))

    producer = Producer(kombu_connection, on_return=on_return)
    producer.publish("nobody", routing_key=name, mandatory=True)
    drain(kombu_connection, lambda: bool(returned))
    assert returned == [(312, "", name)]


def test_rejected_and_requeued_messages_come_again(kombu_connection: Any, name: str) -> None:
    queue = Queue(name, exclusive=True, durable=False)(kombu_connection.default_channel)
    queue.declare()
    producer = Producer(kombu_connection)
    for number in range(3):
        producer.publish(number, routing_key=name)
    seen: list[tuple[int, bool]] = []

    def receive(body: int, message: Any) -> None:
        redelivered = message.delivery_info["redelivered"]
        seen.append((body, redelivered))
        if body == 1 and not redelivered:
            message.requeue()
        elif body == 2:
            message.reject()
        else:
            message.ack()

    with Consumer(kombu_connection, queue, callbacks=[receive], prefetch_count=1):
        drain(kombu_connection, lambda: len(seen) == 4)
        assert queue.queue_declare(passive=True).message_count == 0
    assert seen == [(0, False), (1, False), (1, True), (2, False)]


def test_global_qos_changes_while_consuming(kombu_connection: Any, name: str) -> None:
    channel = kombu_connection.default_channel
    queue = Queue(name, exclusive=True, durable=False)(channel)
    queue.declare()
    producer = Producer(channel)
    for number in range(10):
        producer.publish(number, routing_key=name)
    drain(kombu_connection, lambda: queue.queue_declare(passive=True).message_count == 10)
    messages: list[Any] = []
    consumer = Consumer(channel, queue, on_message=messages.append)

    def arrived(count: int) -> bool:
        return len(messages) >= count

    consumer.qos(prefetch_count=2, apply_global=True)
    with consumer:
        for prefetch, expected in ((2, 2), (5, 5), (6, 6)):
            consumer.qos(prefetch_count=prefetch, apply_global=True)
            drain(kombu_connection, partial(arrived, expected))
            # The queue answers after its deliveries.
            assert queue.queue_declare(passive=True).message_count == 10 - expected
            assert len(messages) == expected
        # Less than what is unacknowledged: nothing more until it is below.
        consumer.qos(prefetch_count=1, apply_global=True)
        for message in messages[:5]:
            message.ack()
        queue.queue_declare(passive=True)
        assert len(messages) == 6
        messages[5].ack()
        drain(kombu_connection, lambda: len(messages) == 7)


def test_consumer_mixin_takes_from_two_queues(broker: RunningBroker, name: str) -> None:
    bodies: list[str] = []

    class Worker(ConsumerMixin):
        def __init__(self, connection: Any) -> None:
            self.connection = connection

        def get_consumers(self, consumer: Any, channel: Any) -> list[Any]:
            queues = [Queue(f"{name}-{n}", durable=False, auto_delete=True) for n in (1, 2)]
            return [consumer(queues, callbacks=[self.receive], prefetch_count=1)]

        def on_consume_ready(self, *arguments: Any, **options: Any) -> None:
            ready.set()

        def receive(self, body: str, message: Any) -> None:
            message.ack()
            bodies.append(body)
            if len(bodies) == 4:
                self.should_stop = True

    ready = threading.Event()
    with Connection(broker.url, heartbeat=4) as connection, Connection(broker.url) as sender:
        worker = Worker(connection)
        thread = threading.Thread(target=worker.run, daemon=True)
        thread.start()
        assert ready.wait(DEADLINE_SECONDS)
        producer = Producer(sender)
        for number in range(4):
            producer.publish(f"message {number}", routing_key=f"{name}-{number % 2 + 1}")
        thread.join(DEADLINE_SECONDS)
        assert not thread.is_alive()
    assert sorted(bodies) == [f"message {number}" for number in range(4)]


def test_consumer_producer_mixin_answers_requests(broker: RunningBroker, name: str) -> None:
    class Server(ConsumerProducerMixin):
        def __init__(self, connection: Any) -> None:
            self.connection = connection

        def get_consumers(self, consumer: Any, channel: Any) -> list[Any]:
            queue = Queue(name, durable=False, auto_delete=True)
            return [consumer(queue, on_message=self.serve, prefetch_count=1)]

        def on_consume_ready(self, *arguments: Any, **options: Any) -> None:
            ready.set()

        def serve(self, message: Any) -> None:
            self.producer.publish(
                {"double": message.payload * 2},
                routing_key=message.properties["reply_to"],
                correlation_id=message.properties["correlation_id"],
            )
            message.ack()

    ready = threading.Event()
    with Connection(broker.url) as connection, Connection(broker.url) as client:
        server = Server(connection)
        thread = threading.Thread(target=server.run, kwargs={"timeout": 0.1}, daemon=True)
        thread.start()
        assert ready.wait(DEADLINE_SECONDS)
        answers: list[tuple[str, Any]] = []
        replies = Queue(f"{name}-replies", exclusive=True, durable=False)
        with Consumer(
            client,
            replies,
            on_message=lambda message: answers.append(
                (message.properties["correlation_id"], message.payload)
            ),
            no_ack=True,
        ):
            Producer(client).publish(
                21, routing_key=name, reply_to=replies.name, correlation_id="c-7"
            )
            drain(client, lambda: bool(answers))
        server.should_stop = True
        thread.join(DEADLINE_SECONDS)
        assert not thread.is_alive()
        server.producer_connection.release()
    assert answers == [("c-7", {"double": 42})]


@pytest.mark.parametrize("exclusive", [True, False])
def test_pidbox_calls_every_node_and_collects_the_answers(
    broker: RunningBroker, kombu_connection: Any, name: str, exclusive: bool
) -> None:
    # Celery before 5.6 declares these queues transient and not exclusive, with TTL and expiry.
    options: dict[str, Any] = {"queue_exclusive": exclusive, "queue_ttl": 300, "queue_expires": 10}
    if not exclusive:
        options["reply_queue_ttl"] = 300
    mailbox = Mailbox(name, type="fanout", **options)
    bound = mailbox(kombu_connection)
    nodes: list[Any] = []
    consumers: list[Any] = []
    with Connection(broker.url) as server:
        for hostname in ("one", "two"):
            node = mailbox(server).Node(hostname, state={"hostname": hostname}, channel=server)
            node.handlers["ping"] = lambda state, **_: {"pong": state["hostname"]}
            nodes.append(node)
            consumers.append(node.listen(callback=node.handle_message))
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                with suppress(socket.timeout):
                    server.drain_events(timeout=0.05)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            answers = bound.multi_call("ping", timeout=DEADLINE_SECONDS, limit=2)
            assert sorted(answer[key]["pong"] for answer in answers for key in answer) == [
                "one",
                "two",
            ]
            [only] = bound.call(["two"], "ping", timeout=DEADLINE_SECONDS)
            assert only == {"two": {"pong": "two"}}
        finally:
            stop.set()
            thread.join(DEADLINE_SECONDS)
    channel = kombu_connection.channel()
    channel.exchange_delete(f"{name}.pidbox")
    channel.exchange_delete(f"reply.{name}.pidbox")


def test_passive_declare_of_missing_queue_raises_not_found(
    kombu_connection: Any, name: str
) -> None:
    errors = kombu_connection.channel_errors
    channel = kombu_connection.channel()
    with pytest.raises(errors, match=r"\(404\) NOT_FOUND - no queue"):
        Queue(name)(channel).queue_declare(passive=True)
    channel = kombu_connection.channel()
    Queue(name, exclusive=True, durable=False, max_length=5)(channel).declare()
    with pytest.raises(
        errors, match=r"\(406\) PRECONDITION_FAILED - inequivalent arg 'x-max-length'"
    ):
        Queue(name, exclusive=True, durable=False, max_length=6)(channel).declare()


def test_connection_is_established_again_for_a_retried_publish(
    broker: RunningBroker, name: str
) -> None:
    with Connection(broker.url) as keeper, Connection(broker.url) as connection:
        queue = Queue(name, exclusive=True, durable=False)(keeper.default_channel)
        queue.declare()
        producer = Producer(connection, auto_declare=False)
        producer.publish("first", routing_key=name, retry=True)
        connection.connection.transport.sock.shutdown(socket.SHUT_RDWR)
        producer.publish(
            "second",
            routing_key=name,
            retry=True,
            retry_policy={"interval_start": 0, "max_retries": 3},
        )
        payloads: list[str] = []
        with Consumer(
            keeper, queue, callbacks=[lambda body, _: payloads.append(body)], no_ack=True
        ):
            drain(keeper, lambda: len(payloads) == 2)
        assert payloads == ["first", "second"]

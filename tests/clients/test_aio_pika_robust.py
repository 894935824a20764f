"""aio-pika's robust connections: what was declared and consumed is there again after a break."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import aio_pika
import pytest
from aio_pika import ExchangeType, Message
from aio_pika.abc import AbstractIncomingMessage, AbstractRobustConnection

from tests.conftest import BrokerProcess, RunningBroker

from .proxy import Proxy

pytestmark = pytest.mark.anyio

DEADLINE_SECONDS = 15.0


@pytest.fixture
async def proxy(broker: RunningBroker) -> AsyncIterator[Proxy]:
    async with asyncio.timeout(DEADLINE_SECONDS), Proxy(broker.host, broker.port) as proxy:
        yield proxy


@pytest.fixture
async def connection(proxy: Proxy) -> AsyncIterator[AbstractRobustConnection]:
    async with await aio_pika.connect_robust(proxy.url, reconnect_interval=0.05) as connection:
        yield connection


def reconnection(connection: AbstractRobustConnection) -> asyncio.Future[None]:
    """A future that is done when `connection` has come back with all it had declared."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def done(*_: Any) -> None:
        if not future.done():
            future.set_result(None)

    connection.reconnect_callbacks.add(done)
    return future


async def test_topology_and_consumers_return_after_a_break(
    proxy: Proxy, connection: AbstractRobustConnection, name: str
) -> None:
    channel = await connection.channel()
    exchange = await channel.declare_exchange(name, ExchangeType.TOPIC, auto_delete=True)
    queue = await channel.declare_queue(exclusive=True)
    await queue.bind(exchange, "a.#")
    received: asyncio.Queue[bytes] = asyncio.Queue()

    async def receive(message: AbstractIncomingMessage) -> None:
        async with message.process():
            received.put_nowait(message.body)

    await queue.consume(receive)
    await exchange.publish(Message(b"before"), "a.b")
    assert await received.get() == b"before"
    for round_number in range(2):
        returned = reconnection(connection)
        proxy.cut()
        await returned
        body = b"after %d" % round_number
        await exchange.publish(Message(body), "a.b")
        assert await received.get() == body
    assert proxy.accepted >= 3


async def test_topology_and_consumers_return_on_a_restarted_broker(
    start_broker: Callable[..., BrokerProcess], name: str
) -> None:
    first = start_broker()
    async with (
        asyncio.timeout(DEADLINE_SECONDS),
        await aio_pika.connect_robust(first.url, reconnect_interval=0.05) as connection,
    ):
        channel = await connection.channel()
        exchange = await channel.declare_exchange(name, ExchangeType.DIRECT)
        queue = await channel.declare_queue(name, durable=True)
        await queue.bind(exchange, "key")
        received: asyncio.Queue[bytes] = asyncio.Queue()

        async def receive(message: AbstractIncomingMessage) -> None:
            async with message.process():
                received.put_nowait(message.body)

        await queue.consume(receive)
        returned = reconnection(connection)
        assert await asyncio.to_thread(first.stop) == 0
        await asyncio.to_thread(start_broker, "--port", str(first.port))
        await returned
        await exchange.publish(Message(b"body"), "key")
        assert await received.get() == b"body"


async def test_connection_returns_after_the_broker_closed_it(
    connection: AbstractRobustConnection, name: str
) -> None:
    channel = await connection.channel()
    queue = await channel.declare_queue(name, exclusive=True)
    returned = reconnection(connection)
    # The broker answers an immediate publish with a connection.close, 540.
    with pytest.raises(aio_pika.exceptions.AMQPError, match="immediate=true"):
        await channel.default_exchange.publish(Message(b"body"), name, immediate=True)
    await returned
    await channel.default_exchange.publish(Message(b"again"), name)
    assert (await queue.get(no_ack=True)).body == b"again"


async def test_unacknowledged_message_is_delivered_again_after_a_break(
    proxy: Proxy, connection: AbstractRobustConnection, broker: RunningBroker, name: str
) -> None:
    async with await aio_pika.connect(broker.url) as other:
        keeper = await other.channel()
        await keeper.declare_queue(name, durable=True)
        try:
            channel = await connection.channel()
            await channel.set_qos(prefetch_count=1)
            queue = await channel.declare_queue(name, durable=True)
            received: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
            await queue.consume(received.put)
            await keeper.default_exchange.publish(Message(b"one"), name)
            await keeper.default_exchange.publish(Message(b"two"), name)
            first = await received.get()
            assert (first.body, first.redelivered) == (b"one", False)
            returned = reconnection(connection)
            proxy.cut()
            await returned
            again = await received.get()
            assert (again.body, again.redelivered) == (b"one", True)
            await again.ack()
            second = await received.get()
            assert (second.body, second.redelivered) == (b"two", False)
            await second.ack()
        finally:
            await keeper.queue_delete(name)


async def test_iterator_goes_on_after_a_break(
    proxy: Proxy, connection: AbstractRobustConnection, name: str
) -> None:
    channel = await connection.channel()
    queue = await channel.declare_queue(name, auto_delete=False, exclusive=True)
    await channel.default_exchange.publish(Message(b"0"), name)
    bodies: list[bytes] = []
    async with queue.iterator(no_ack=True) as messages:
        async for message in messages:
            bodies.append(message.body)
            if len(bodies) == 3:
                break
            returned = reconnection(connection)
            proxy.cut()
            await returned
            await channel.default_exchange.publish(Message(b"%d" % len(bodies)), name)
    assert bodies == [b"0", b"1", b"2"]


async def test_channel_is_reopened_after_a_channel_error(
    connection: AbstractRobustConnection, name: str
) -> None:
    channel = await connection.channel()
    queue = await channel.declare_queue(name, exclusive=True)
    received: asyncio.Queue[bytes] = asyncio.Queue()

    async def receive(message: AbstractIncomingMessage) -> None:
        received.put_nowait(message.body)

    await queue.consume(receive, no_ack=True)
    reopened = asyncio.Event()
    channel.reopen_callbacks.add(lambda *_: reopened.set())
    with pytest.raises(aio_pika.exceptions.ChannelNotFoundEntity):
        await channel.declare_queue(f"{name}-missing", passive=True)
    await reopened.wait()
    await channel.default_exchange.publish(Message(b"body"), name)
    assert await received.get() == b"body"


async def test_consumer_is_restored_when_its_queue_was_deleted(
    connection: AbstractRobustConnection, broker: RunningBroker, name: str
) -> None:
    channel = await connection.channel()
    queue = await channel.declare_queue(name, durable=True)
    received: asyncio.Queue[bytes] = asyncio.Queue()

    async def receive(message: AbstractIncomingMessage) -> None:
        received.put_nowait(message.body)

    await queue.consume(receive, no_ack=True)
    async with await aio_pika.connect(broker.url) as other:
        keeper = await other.channel(on_return_raises=True)
        try:
            await keeper.queue_delete(name)
            # The broker cancels the consumer; the client declares and consumes anew.
            while True:
                try:
                    await keeper.default_exchange.publish(Message(b"body"), name)
                    break
                except aio_pika.exceptions.DeliveryError:
                    await asyncio.sleep(0.01)
            assert await received.get() == b"body"
        finally:
            await keeper.queue_delete(name)

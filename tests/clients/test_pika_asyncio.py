"""pika on asyncio: the callback style, with several things under way at once."""

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pika
import pytest
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.exceptions import ChannelClosedByBroker, ConnectionClosedByClient

from tests.conftest import RunningBroker

pytestmark = pytest.mark.anyio

DEADLINE_SECONDS = 10.0


async def answer(start: Callable[[Callable[..., None]], Any]) -> Any:
    """Start something that takes a callback; return the last argument the callback got."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def callback(*arguments: Any) -> None:
        if not future.done():
            future.set_result(arguments[-1])

    start(callback)
    async with asyncio.timeout(DEADLINE_SECONDS):
        return await future


@pytest.fixture
async def connection(broker: RunningBroker) -> AsyncIterator[Any]:
    opened: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    closed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    connection = AsyncioConnection(
        pika.URLParameters(broker.url),
        on_open_callback=opened.set_result,
        on_open_error_callback=lambda _, error: opened.set_exception(error),
        on_close_callback=lambda _, reason: closed.set_result(reason),
    )
    async with asyncio.timeout(DEADLINE_SECONDS):
        await opened
        yield connection
        connection.close()
        assert isinstance(await closed, ConnectionClosedByClient)


async def open_channel(connection: Any) -> Any:
    return await answer(lambda callback: connection.channel(on_open_callback=callback))


async def test_confirms_of_a_burst_cover_every_message(connection: Any, name: str) -> None:
    channel = await open_channel(connection)
    await answer(lambda callback: channel.queue_declare(name, exclusive=True, callback=callback))
    outstanding = set(range(1, 501))
    confirmed = asyncio.Event()

    def settle(frame: Any) -> None:
        assert isinstance(frame.method, pika.spec.Basic.Ack)
        tag = frame.method.delivery_tag
        assert tag in outstanding
        if frame.method.multiple:
            outstanding.difference_update(range(1, tag + 1))
        else:
            outstanding.discard(tag)
        if not outstanding:
            confirmed.set()

    await answer(lambda callback: channel.confirm_delivery(settle, callback=callback))
    for number in range(500):
        channel.basic_publish("", name, b"%d" % number)
    async with asyncio.timeout(DEADLINE_SECONDS):
        await confirmed.wait()
    declared = await answer(
        lambda callback: channel.queue_declare(name, passive=True, callback=callback)
    )
    assert declared.method.message_count == 500


async def test_return_comes_before_the_confirm_of_the_same_message(
    connection: Any, name: str
) -> None:
    channel = await open_channel(connection)
    events: list[tuple[str, Any]] = []
    done = asyncio.Event()

    def settle(frame: Any) -> None:
        events.append(("ack", frame.method.delivery_tag))
        done.set()

    channel.add_on_return_callback(
        lambda channel, method, properties, body: events.append(("return", body))
    )
    await answer(lambda callback: channel.confirm_delivery(settle, callback=callback))
    channel.basic_publish("", name, b"body", mandatory=True)
    async with asyncio.timeout(DEADLINE_SECONDS):
        await done.wait()
    assert events == [("return", b"body"), ("ack", 1)]


async def test_consumers_on_two_channels_share_the_queue(connection: Any, name: str) -> None:
    first, second = await open_channel(connection), await open_channel(connection)
    await answer(lambda callback: first.queue_declare(name, exclusive=True, callback=callback))
    received: dict[int, list[bytes]] = {1: [], 2: []}
    complete = asyncio.Event()

    def receive(channel: Any, method: Any, properties: Any, body: bytes) -> None:
        received[channel.channel_number].append(body)
        channel.basic_ack(method.delivery_tag)
        if sum(map(len, received.values())) == 100:
            complete.set()

    for channel in (first, second):
        await answer(partial(channel.basic_qos, 0, 5, False))
        await answer(partial(channel.basic_consume, name, receive, False, False, None, None))
    for number in range(100):
        first.basic_publish("", name, b"%d" % number)
    async with asyncio.timeout(DEADLINE_SECONDS):
        await complete.wait()
    bodies = received[1] + received[2]
    assert sorted(bodies, key=int) == [b"%d" % number for number in range(100)]
    assert received[1]
    assert received[2]
    for each in received.values():
        assert each == sorted(each, key=int)


async def test_closed_channel_leaves_its_siblings_alone(connection: Any, name: str) -> None:
    failing, working = await open_channel(connection), await open_channel(connection)
    closing = answer(failing.add_on_close_callback)
    failing.queue_declare(name, passive=True)
    reason = await closing
    assert isinstance(reason, ChannelClosedByBroker)
    assert reason.reply_code == 404
    assert working.is_open
    await answer(lambda callback: working.queue_declare(name, exclusive=True, callback=callback))


async def test_cancel_ends_deliveries(connection: Any, name: str) -> None:
    channel = await open_channel(connection)
    await answer(lambda callback: channel.queue_declare(name, exclusive=True, callback=callback))
    bodies: list[bytes] = []
    tag = channel.basic_consume(name, lambda *arguments: bodies.append(arguments[-1]), True)
    await answer(lambda callback: channel.basic_cancel(tag, callback=callback))
    channel.basic_publish("", name, b"late")
    assert await answer(lambda callback: channel.basic_get(name, callback)) == b"late"
    assert bodies == []

"""Delayed messages as programs for RabbitMQ's plugin use them."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import aio_pika
import pika
import pytest
from aio_pika import DeliveryMode, ExchangeType, Message

from tests.conftest import RunningBroker

from .inbox import Inbox

DEADLINE_SECONDS = 10.0


def test_pika_gets_delayed_messages_when_they_are_due(channel: Any, name: str) -> None:
    arguments = {"x-delayed-type": "topic"}
    channel.exchange_declare(name, "x-delayed-message", auto_delete=True, arguments=arguments)
    channel.queue_declare(name, exclusive=True)
    channel.queue_bind(name, name, "order.#")
    inbox = Inbox(channel, name)
    channel.confirm_delivery()
    began = time.monotonic()
    for delay in (600, 200, 0, 400):
        properties = pika.BasicProperties(headers={"x-delay": delay, "kind": "reminder"})
        channel.basic_publish(name, "order.late", b"%d" % delay, properties)
    found = inbox.wait(4)
    assert time.monotonic() - began >= 0.6
    assert [each.body for each in found] == [b"0", b"200", b"400", b"600"]
    assert [each.properties.headers for each in found] == [
        {"x-delay": -delay, "kind": "reminder"} for delay in (0, 200, 400, 600)
    ]


def test_pika_says_when_with_a_datetime(channel: Any, name: str) -> None:
    arguments = {"x-delayed-type": "direct"}
    channel.exchange_declare(name, "x-delayed-message", auto_delete=True, arguments=arguments)
    channel.queue_declare(name, exclusive=True)
    channel.queue_bind(name, name, "")
    inbox = Inbox(channel, name)
    when = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2)
    channel.basic_publish(name, "", b"m", pika.BasicProperties(headers={"x-deliver-at": when}))
    [found] = inbox.wait(1)
    assert datetime.now(UTC) >= when - timedelta(milliseconds=50)
    assert found.properties.headers == {"x-deliver-at": when}


@pytest.mark.anyio
async def test_aio_pika_declares_a_delayed_exchange(broker: RunningBroker, name: str) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS), await aio_pika.connect(broker.url) as connection:
        channel = await connection.channel()
        exchange = await channel.declare_exchange(
            name,
            ExchangeType.X_DELAYED_MESSAGE,
            auto_delete=True,
            arguments={"x-delayed-type": "direct"},
        )
        queue = await channel.declare_queue(name, exclusive=True)
        await queue.bind(exchange, "k")
        for delay in (300, 100, 200):
            message = Message(
                b"%d" % delay,
                headers={"x-delay": delay},
                delivery_mode=DeliveryMode.PERSISTENT,
            )
            # aio-pika asks for mandatory, which looks at what a message reaches now.
            await exchange.publish(message, "k", mandatory=False)
        bodies = []
        async with queue.iterator(no_ack=True) as messages:
            async for incoming in messages:
                bodies.append(incoming.body)
                if len(bodies) == 3:
                    break
        assert bodies == [b"100", b"200", b"300"]

"""Exactly-once publishing as programs ask for it."""

import asyncio
from typing import Any

import aio_pika
import pika
import pytest
from aio_pika import DeliveryMode, ExchangeType, Message

from tests.conftest import RunningBroker

from .inbox import Inbox

DEADLINE_SECONDS = 10.0


def test_pika_publishes_until_it_is_confirmed(channel: Any, name: str) -> None:
    arguments = {"x-cache-size": 100_000, "x-cache-ttl": 600_000}
    channel.exchange_declare(name, "x-message-deduplication", durable=True, arguments=arguments)
    channel.queue_declare(name, durable=True)
    channel.queue_bind(name, name)
    channel.confirm_delivery()
    for order in ("17", "17", "18", "17"):
        properties = pika.BasicProperties(
            delivery_mode=2, headers={"x-deduplication-header": f"order-{order}"}
        )
        # It raises NackError or UnroutableError for what is not taken.
        channel.basic_publish(name, "", order.encode(), properties, mandatory=True)
    assert [each.body for each in Inbox(channel, name).wait(2)] == [b"17", b"18"]
    assert channel.queue_declare(name, passive=True).method.message_count == 0
    channel.queue_delete(name)
    channel.exchange_delete(name)


@pytest.mark.anyio
async def test_aio_pika_publishes_by_message_id(broker: RunningBroker, name: str) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS), await aio_pika.connect(broker.url) as connection:
        channel = await connection.channel()
        exchange = await channel.declare_exchange(
            name,
            ExchangeType.TOPIC,
            auto_delete=True,
            arguments={"x-message-deduplication": True, "x-deduplication-header": "message-id"},
        )
        queue = await channel.declare_queue(name, exclusive=True)
        await queue.bind(exchange, "order.#")
        for number in (1, 1, 2):
            message = Message(
                b"%d" % number, message_id=f"{number}", delivery_mode=DeliveryMode.PERSISTENT
            )
            await exchange.publish(message, "order.paid")
        found = [await queue.get(no_ack=True) for _ in range(2)]
        assert [each.body for each in found] == [b"1", b"2"]
        assert await queue.get(no_ack=True, fail=False) is None


@pytest.mark.anyio
async def test_aio_pika_keeps_one_job_of_a_kind_in_a_queue(
    broker: RunningBroker, name: str
) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS), await aio_pika.connect(broker.url) as connection:
        channel = await connection.channel()
        arguments: Any = {"x-message-deduplication": True}
        queue = await channel.declare_queue(name, exclusive=True, arguments=arguments)
        job = Message(b"rebuild", headers={"x-deduplication-header": "rebuild"})
        for _ in range(3):
            await channel.default_exchange.publish(job, name)
        found = await queue.get()
        await channel.default_exchange.publish(job, name)
        assert await queue.get(fail=False) is None
        await found.ack()
        await channel.default_exchange.publish(job, name)
        assert (await queue.get(no_ack=True)).body == b"rebuild"

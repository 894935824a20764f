"""aio-pika: declaring, publishing, consuming, transactions and errors."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import aio_pika
import pytest
from aio_pika import ExchangeType, Message
from aio_pika.abc import AbstractConnection, AbstractIncomingMessage
from aio_pika.exceptions import (
    ChannelInvalidStateError,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    DeliveryError,
    ProbableAuthenticationError,
    QueueEmpty,
)
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from tests.conftest import RunningBroker

pytestmark = pytest.mark.anyio

DEADLINE_SECONDS = 10.0


@pytest.fixture
async def connection(broker: RunningBroker) -> AsyncIterator[AbstractConnection]:
    async with asyncio.timeout(DEADLINE_SECONDS), await aio_pika.connect(broker.url) as connection:
        yield connection


async def test_published_messages_are_confirmed_and_arrive_in_order(
    connection: AbstractConnection, name: str
) -> None:
    channel = await connection.channel()
    queue = await channel.declare_queue(name, exclusive=True)
    for number in range(20):
        confirmation = await channel.default_exchange.publish(Message(b"%d" % number), name)
        assert isinstance(confirmation, Basic.Ack)
    await asyncio.gather(
        *(
            channel.default_exchange.publish(Message(b"%d" % number), name)
            for number in range(20, 200)
        )
    )
    bodies = []
    async with queue.iterator(no_ack=True) as messages:
        async for message in messages:
            bodies.append(message.body)
            if len(bodies) == 200:
                break
    assert bodies == [b"%d" % number for number in range(200)]


async def test_publishing_without_confirms_works(connection: AbstractConnection, name: str) -> None:
    channel = await connection.channel(publisher_confirms=False)
    queue = await channel.declare_queue(name, exclusive=True)
    for number in range(100):
        assert await channel.default_exchange.publish(Message(b"%d" % number), name) is None
    bodies = [(await queue.get(no_ack=True)).body for _ in range(100)]
    assert bodies == [b"%d" % number for number in range(100)]


async def test_properties_arrive_as_sent(connection: AbstractConnection, name: str) -> None:
    channel = await connection.channel()
    queue = await channel.declare_queue(name, exclusive=True)
    sent = Message(
        b"body",
        headers={"n": 1, "f": 2.5, "s": "text", "l": [1, [2]], "t": {"a": None}, "b": True},
        content_type="text/plain",
        content_encoding="identity",
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        priority=3,
        correlation_id="c",
        reply_to="r",
        expiration=60,
        message_id="m",
        timestamp=datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC),
        type="kind",
        user_id="guest",
        app_id="tests",
    )
    await channel.default_exchange.publish(sent, name)
    received = await queue.get(no_ack=True)
    assert {**received.info(), **dict.fromkeys(DELIVERY_FIELDS)} == {
        **sent.info(),
        **dict.fromkeys(DELIVERY_FIELDS),
    }


DELIVERY_FIELDS = (
    "cluster_id",
    "consumer_tag",
    "delivery_tag",
    "exchange",
    "redelivered",
    "routing_key",
)


async def test_returned_message_raises_where_asked_and_is_the_result_elsewhere(
    connection: AbstractConnection, name: str
) -> None:
    raising = await connection.channel(on_return_raises=True)
    with pytest.raises(DeliveryError, match="NO_ROUTE"):
        await raising.default_exchange.publish(Message(b"body"), name)

    quiet = await connection.channel()
    returned: list[bytes] = []
    quiet.return_callbacks.add(lambda _, message: returned.append(message.body))
    result = await quiet.default_exchange.publish(Message(b"body"), name)
    assert isinstance(result, DeliveredMessage)
    assert isinstance(result.delivery, Basic.Return)
    assert result.delivery.reply_code == 312
    assert returned == [b"body"]
    unmarked = await quiet.default_exchange.publish(Message(b"body"), name, mandatory=False)
    assert isinstance(unmarked, Basic.Ack)


async def test_headers_exchange_routes_by_headers(
    connection: AbstractConnection, name: str
) -> None:
    channel = await connection.channel(on_return_raises=True)
    exchange = await channel.declare_exchange(name, ExchangeType.HEADERS, auto_delete=True)
    both = await channel.declare_queue(exclusive=True)
    either = await channel.declare_queue(exclusive=True)
    await both.bind(exchange, arguments={"x-match": "all", "a": 1, "b": "two"})
    await either.bind(exchange, arguments={"x-match": "any", "a": 1, "b": "two"})
    await exchange.publish(Message(b"one", headers={"a": 1, "c": 3}), "")
    await exchange.publish(Message(b"two", headers={"a": 1, "b": "two"}), "")
    with pytest.raises(DeliveryError):
        await exchange.publish(Message(b"none", headers={"a": "1"}), "")
    assert (await both.get(no_ack=True)).body == b"two"
    assert await both.get(no_ack=True, fail=False) is None
    assert [(await either.get(no_ack=True)).body for _ in range(2)] == [b"one", b"two"]


async def test_process_acknowledges_or_rejects(connection: AbstractConnection, name: str) -> None:
    channel = await connection.channel()
    queue = await channel.declare_queue(name, exclusive=True)
    for body in (b"good", b"bad", b"retry"):
        await channel.default_exchange.publish(Message(body), name)
    async with (await queue.get()).process():
        pass
    with pytest.raises(LookupError):
        async with (await queue.get()).process():
            raise LookupError
    with pytest.raises(LookupError):
        async with (await queue.get()).process(requeue=True):
            raise LookupError
    again = await queue.get()
    assert (again.body, again.redelivered) == (b"retry", True)
    await again.ack()
    with pytest.raises(QueueEmpty):
        await queue.get()


async def test_prefetch_limits_a_slow_consumer(connection: AbstractConnection, name: str) -> None:
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=3)
    queue = await channel.declare_queue(name, exclusive=True)
    received: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
    await queue.consume(received.put)
    for number in range(10):
        await channel.default_exchange.publish(Message(b"%d" % number), name)
    first = [await received.get() for _ in range(3)]
    assert (await queue.declare()).message_count == 7
    assert received.empty()
    await first[2].ack(multiple=True)
    second = [await received.get() for _ in range(3)]
    assert [message.body for message in second] == [b"3", b"4", b"5"]


async def test_iterator_leaves_what_it_did_not_take(
    connection: AbstractConnection, name: str
) -> None:
    channel = await connection.channel()
    queue = await channel.declare_queue(name, exclusive=True)
    for number in range(5):
        await channel.default_exchange.publish(Message(b"%d" % number), name)
    async with queue.iterator() as messages:
        async for message in messages:
            await message.ack()
            break
    left = [await queue.get() for _ in range(4)]
    assert [message.body for message in left] == [b"1", b"2", b"3", b"4"]


async def test_transaction_commits_or_rolls_back(connection: AbstractConnection, name: str) -> None:
    channel = await connection.channel(publisher_confirms=False)
    queue = await channel.declare_queue(name, exclusive=True)
    transaction = channel.transaction()
    await transaction.select()
    await channel.default_exchange.publish(Message(b"undone"), name)
    await transaction.rollback()
    async with channel.transaction():
        await channel.default_exchange.publish(Message(b"done"), name)
        assert await queue.get(fail=False) is None
    message = await queue.get(no_ack=True)
    assert (message.body, message.message_count) == (b"done", 0)


async def test_passive_declare_of_what_is_missing_raises_not_found(
    connection: AbstractConnection, name: str
) -> None:
    channel = await connection.channel()
    with pytest.raises(ChannelNotFoundEntity, match="no queue"):
        await channel.declare_queue(name, passive=True)
    assert channel.is_closed
    channel = await connection.channel()
    with pytest.raises(ChannelNotFoundEntity, match="no exchange"):
        await channel.get_exchange(name)
    channel = await connection.channel()
    assert (await channel.declare_queue(name, exclusive=True)).name == name
    assert (await channel.get_queue(name)).name == name


async def test_conflicting_declare_raises_precondition_failed(
    connection: AbstractConnection, name: str
) -> None:
    channel = await connection.channel()
    await channel.declare_queue(name, exclusive=True, arguments={"x-max-priority": 5})
    with pytest.raises(ChannelPreconditionFailed, match="inequivalent arg 'x-max-priority'"):
        await channel.declare_queue(name, exclusive=True, arguments={"x-max-priority": 6})


async def test_publish_to_missing_exchange_closes_the_channel(
    connection: AbstractConnection, name: str
) -> None:
    channel = await connection.channel()
    exchange = await channel.declare_exchange(name, auto_delete=True)
    await (await connection.channel()).exchange_delete(name)
    with pytest.raises(ChannelNotFoundEntity, match="no exchange"):
        await exchange.publish(Message(b"body"), "")
    with pytest.raises(ChannelInvalidStateError):
        await exchange.publish(Message(b"body"), "")
    assert not connection.is_closed


async def test_exchanges_are_bound_and_unbound(connection: AbstractConnection, name: str) -> None:
    channel = await connection.channel(on_return_raises=True)
    source = await channel.declare_exchange(name, ExchangeType.TOPIC, auto_delete=True)
    target = await channel.declare_exchange(f"{name}-2", ExchangeType.DIRECT, auto_delete=True)
    queue = await channel.declare_queue(exclusive=True)
    await queue.bind(target, "a.b")
    await target.bind(source, "a.#")
    await source.publish(Message(b"body"), "a.b")
    assert (await queue.get(no_ack=True)).routing_key == "a.b"
    await queue.bind(source, "keep")
    await target.unbind(source, "a.#")
    with pytest.raises(DeliveryError):
        await source.publish(Message(b"body"), "a.b")


async def test_direct_reply_to_answers_many_requests_at_once(
    broker: RunningBroker, connection: AbstractConnection, name: str
) -> None:
    serving = await connection.channel()
    requests = await serving.declare_queue(name, exclusive=True)

    async def serve(request: AbstractIncomingMessage) -> None:
        async with request.process():
            assert request.reply_to is not None
            answer = Message(request.body * 2, correlation_id=request.correlation_id)
            await serving.default_exchange.publish(answer, request.reply_to)

    await requests.consume(serve)
    async with await aio_pika.connect(broker.url) as client:
        channel = await client.channel()
        answers: dict[str | None, asyncio.Future[bytes]] = {}

        async def receive(answer: AbstractIncomingMessage) -> None:
            answers[answer.correlation_id].set_result(answer.body)

        replies = await channel.get_queue("amq.rabbitmq.reply-to", ensure=False)
        await replies.consume(receive, no_ack=True)
        for number in range(50):
            answers[str(number)] = asyncio.get_running_loop().create_future()
            request = Message(
                b"%d." % number, correlation_id=str(number), reply_to="amq.rabbitmq.reply-to"
            )
            await channel.default_exchange.publish(request, name)
        assert await asyncio.gather(*answers.values()) == [b"%d.%d." % (n, n) for n in range(50)]


async def test_wrong_password_is_refused(broker: RunningBroker) -> None:
    with pytest.raises(ProbableAuthenticationError):
        await aio_pika.connect(broker.url.replace("guest:guest", "guest:wrong"))


async def test_update_secret_is_answered(connection: AbstractConnection, name: str) -> None:
    await connection.update_secret("guest", reason="rotation")
    channel = await connection.channel()
    await channel.declare_queue(name, exclusive=True)


async def test_large_bodies_pass_side_by_side(connection: AbstractConnection, name: str) -> None:
    channels = [await connection.channel() for _ in range(4)]
    queue = await channels[0].declare_queue(name, exclusive=True)
    bodies = [bytes([number]) * 5_000_000 for number in range(4)]
    await asyncio.gather(
        *(
            channel.default_exchange.publish(Message(body), name)
            for channel, body in zip(channels, bodies, strict=True)
        )
    )
    received = [(await queue.get(no_ack=True)).body for _ in range(4)]
    assert sorted(received) == bodies

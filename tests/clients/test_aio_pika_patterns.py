"""aio-pika's patterns: RPC and Master."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import MessageProcessError
from aio_pika.patterns import RPC, JsonMaster, JsonRPC, NackMessage, RejectMessage

from tests.conftest import RunningBroker

pytestmark = pytest.mark.anyio

DEADLINE_SECONDS = 10.0


@pytest.fixture
async def connection(broker: RunningBroker) -> AsyncIterator[AbstractConnection]:
    async with asyncio.timeout(DEADLINE_SECONDS), await aio_pika.connect(broker.url) as connection:
        yield connection


async def test_rpc_calls_return_results_and_errors(
    broker: RunningBroker, connection: AbstractConnection, name: str
) -> None:
    async def divide(*, x: int, y: int) -> float:
        return x / y

    async with await aio_pika.connect(broker.url) as server:
        serving = await RPC.create(await server.channel())
        await serving.register(name, divide, auto_delete=True)
        rpc = await RPC.create(await connection.channel())
        assert await rpc.call(name, {"x": 6, "y": 4}) == 1.5
        with pytest.raises(ZeroDivisionError):
            await rpc.call(name, {"x": 6, "y": 0})
        results = await asyncio.gather(*(rpc.call(name, {"x": n, "y": 1}) for n in range(50)))
        assert results == list(range(50))
        await serving.unregister(divide)
        # The auto-delete queue went with its consumer: the call is returned.
        with pytest.raises(MessageProcessError, match="returned"):
            await rpc.call(name, {"x": 1, "y": 1})
        await rpc.close()
        await serving.close()


async def test_json_rpc_goes_through_an_exchange_of_its_own(
    connection: AbstractConnection, name: str
) -> None:
    async def greet(*, whom: str) -> str:
        return f"Hello {whom}!"

    serving = await JsonRPC.create(await connection.channel(), exchange=name)
    rpc = await JsonRPC.create(await connection.channel(), exchange=name)
    await serving.register("greet", greet, auto_delete=True)
    assert await rpc.call("greet", {"whom": "Wörld"}) == "Hello Wörld!"
    await rpc.close()
    await serving.close()


async def test_master_gives_each_job_to_one_worker_and_repeats_what_was_nacked(
    connection: AbstractConnection, name: str
) -> None:
    done: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
    refused_once: set[int] = set()

    async def work(*, worker: str, number: int) -> None:
        if number == 3 and number not in refused_once:
            refused_once.add(number)
            raise NackMessage(requeue=True)
        if number == 4:
            raise RejectMessage(requeue=False)
        done.put_nowait((worker, number))

    async def first(*, number: int) -> None:
        await work(worker="first", number=number)

    async def second(*, number: int) -> None:
        await work(worker="second", number=number)

    master = JsonMaster(await connection.channel())
    workers = []
    for function in (first, second):
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=1)
        side = JsonMaster(channel)
        workers.append(await side.create_worker(name, function, auto_delete=True))
    for number in range(10):
        await master.create_task(name, {"number": number})
    results = [await done.get() for _ in range(9)]
    assert sorted(number for _, number in results) == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert {worker for worker, _ in results} == {"first", "second"}
    for worker in workers:
        await worker.close()

"""Remote procedure call, the client: ask the server for Fibonacci numbers (aio-pika).

    python aio_rpc_client.py [URL] [N ...]

All requests are under way at once; the correlation id tells which answer belongs to which. The
answers come to an exclusive queue of this client's own, which goes with its connection.
"""

import asyncio
import os
import sys
import uuid
from collections.abc import Sequence

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

DEFAULT_URL = "amqp://guest:guest@127.0.0.1:5672/"


async def main(url: str, numbers: Sequence[int]) -> None:
    """Send each number to `rpc_queue` and print the answers in the order of the numbers."""
    waiting: dict[str, asyncio.Future[int]] = {}

    async def on_answer(message: AbstractIncomingMessage) -> None:
        waiting.pop(message.correlation_id or "").set_result(int(message.body))

    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("rpc_queue", durable=True)
        answers = await channel.declare_queue(exclusive=True)
        await answers.consume(on_answer, no_ack=True)

        async def call(n: int) -> int:
            correlation_id = str(uuid.uuid4())
            waiting[correlation_id] = asyncio.get_running_loop().create_future()
            answer = waiting[correlation_id]
            request = aio_pika.Message(
                str(n).encode(), correlation_id=correlation_id, reply_to=answers.name
            )
            await channel.default_exchange.publish(request, routing_key="rpc_queue")
            return await answer

        print(f" [x] Requesting fibonacci of {', '.join(map(str, numbers))}")
        async with asyncio.timeout(10):
            for result in await asyncio.gather(*map(call, numbers)):
                print(f" [.] Got {result}")


if __name__ == "__main__":
    words = sys.argv[1:]
    broker_url = os.environ.get("AMQP_URL", DEFAULT_URL)
    if words and "://" in words[0]:
        broker_url = words.pop(0)
    asyncio.run(main(broker_url, [int(word) for word in words] or [30]))

"""Work queue, the working side: take one job at a time, acknowledge it when done (aio-pika).

    python aio_worker.py [URL]

Start several: with a prefetch of 1 each job goes to a worker that is free. The connection is
a robust one: it comes back after a restart of the broker. Ctrl-C ends it.
"""

import asyncio
import contextlib
import os
import sys

import aio_pika

DEFAULT_URL = "amqp://guest:guest@127.0.0.1:5672/"


async def main(url: str) -> None:
    """Consume from `task_queue` until cancelled."""
    async with await aio_pika.connect_robust(url) as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=1)
        queue = await channel.declare_queue("task_queue", durable=True)
        print(" [*] Waiting for messages. To exit press CTRL+C")
        async with queue.iterator() as messages:
            async for message in messages:
                # Acknowledges at the end of the block, rejects if the block raises.
                async with message.process():
                    print(f" [x] Received {message.body.decode()!r}")
                    await asyncio.sleep(message.body.count(b".") / 10)
                    print(" [x] Done")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(
            main(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("AMQP_URL", DEFAULT_URL))
        )

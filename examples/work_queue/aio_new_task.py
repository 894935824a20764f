"""Work queue, the sending side: put one job on a durable queue (aio-pika).

    python aio_new_task.py [URL] [WORDS ...]

Each dot in the words stands for a tenth of a second of work, done by `worker.py` or
`aio_worker.py`.
"""

import asyncio
import os
import sys

import aio_pika

DEFAULT_URL = "amqp://guest:guest@127.0.0.1:5672/"


async def main(url: str, job: str) -> None:
    """Publish `job` as a persistent message to the queue `task_queue`."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue("task_queue", durable=True)
        message = aio_pika.Message(job.encode(), delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, routing_key=queue.name)
    print(f" [x] Sent {job!r}")


if __name__ == "__main__":
    words = sys.argv[1:]
    broker_url = os.environ.get("AMQP_URL", DEFAULT_URL)
    if words and "://" in words[0]:
        broker_url = words.pop(0)
    asyncio.run(main(broker_url, " ".join(words) or "Hello World!"))

"""Publish-subscribe, the listening side: print every line sent from now on (aio-pika).

    python aio_receive_logs.py [URL]

Each listener has a queue of its own, which the broker names and drops with the connection.
Ctrl-C ends it.
"""

import asyncio
import contextlib
import os
import sys

import aio_pika

DEFAULT_URL = "amqp://guest:guest@127.0.0.1:5672/"


async def main(url: str) -> None:
    """Listen to the fanout exchange `logs` until cancelled."""
    async with await aio_pika.connect_robust(url) as connection:
        channel = await connection.channel()
        logs = await channel.declare_exchange("logs", aio_pika.ExchangeType.FANOUT)
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(logs)
        print(" [*] Waiting for logs. To exit press CTRL+C")
        async with queue.iterator(no_ack=True) as messages:
            async for message in messages:
                print(f" [x] {message.body.decode()}")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(
            main(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("AMQP_URL", DEFAULT_URL))
        )

"""Publisher confirms: know that the broker has each message, and which reached no queue (aio-pika).

    python aio_publish_with_confirms.py [URL] [COUNT]

aio-pika turns confirms on by itself; `publish` returns when the broker has answered. A window of
messages under way at once hides the round trips.
"""

import asyncio
import os
import sys

import aio_pika
from aio_pika.exceptions import DeliveryError

DEFAULT_URL = "amqp://guest:guest@127.0.0.1:5672/"
WINDOW = 50


async def main(url: str, count: int) -> None:
    """Publish `count` messages to a queue of our own, then one that no queue takes."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel(on_return_raises=True)
        queue = await channel.declare_queue(exclusive=True)
        window = asyncio.Semaphore(WINDOW)

        async def publish(number: int) -> None:
            message = aio_pika.Message(
                str(number).encode(), delivery_mode=aio_pika.DeliveryMode.PERSISTENT
            )
            async with window:
                await channel.default_exchange.publish(message, routing_key=queue.name)

        results = await asyncio.gather(*map(publish, range(count)), return_exceptions=True)
        failed = [number for number, result in enumerate(results) if result is not None]
        print(f" [x] {count - len(failed)} of {count} messages confirmed")
        try:
            await channel.default_exchange.publish(aio_pika.Message(b"lost?"), "no-such-queue")
        except DeliveryError as error:
            print(f" [!] Returned: {error}")


if __name__ == "__main__":
    words = sys.argv[1:]
    broker_url = os.environ.get("AMQP_URL", DEFAULT_URL)
    if words and "://" in words[0]:
        broker_url = words.pop(0)
    asyncio.run(main(broker_url, int(words[0]) if words else 100))

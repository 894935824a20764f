"""Routing, the listening side: print the lines of the severities asked for (aio-pika).

    python aio_receive_logs_direct.py [URL] SEVERITY [SEVERITY ...]

For example `python aio_receive_logs_direct.py warning error`. Ctrl-C ends it.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import Sequence

import aio_pika

DEFAULT_URL = "amqp://guest:guest@127.0.0.1:5672/"


async def main(url: str, severities: Sequence[str]) -> None:
    """Listen to the direct exchange `direct_logs`, one binding for each severity."""
    async with await aio_pika.connect_robust(url) as connection:
        channel = await connection.channel()
        logs = await channel.declare_exchange("direct_logs", aio_pika.ExchangeType.DIRECT)
        queue = await channel.declare_queue(exclusive=True)
        for severity in severities:
            await queue.bind(logs, routing_key=severity)
        print(" [*] Waiting for logs. To exit press CTRL+C")
        async with queue.iterator(no_ack=True) as messages:
            async for message in messages:
                print(f" [x] {message.routing_key}:{message.body.decode()!r}")


if __name__ == "__main__":
    words = sys.argv[1:]
    broker_url = os.environ.get("AMQP_URL", DEFAULT_URL)
    if words and "://" in words[0]:
        broker_url = words.pop(0)
    if not words:
        sys.exit("usage: aio_receive_logs_direct.py [URL] SEVERITY [SEVERITY ...]")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(broker_url, words))

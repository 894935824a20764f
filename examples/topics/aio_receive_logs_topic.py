"""Topics, the listening side: print the lines whose key matches a pattern (aio-pika).

    python aio_receive_logs_topic.py [URL] PATTERN [PATTERN ...]

In a pattern `*` stands for one word and `#` for any number of them, so `kern.*` and `#.critical`.
Quote them for the shell: `python aio_receive_logs_topic.py "kern.*" "#.critical"`. Ctrl-C ends it.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import Sequence

import aio_pika

DEFAULT_URL = "amqp://guest:guest@127.0.0.1:5672/"


async def main(url: str, patterns: Sequence[str]) -> None:
    """Listen to the topic exchange `topic_logs`, one binding for each pattern."""
    async with await aio_pika.connect_robust(url) as connection:
        channel = await connection.channel()
        logs = await channel.declare_exchange("topic_logs", aio_pika.ExchangeType.TOPIC)
        queue = await channel.declare_queue(exclusive=True)
        for pattern in patterns:
            await queue.bind(logs, routing_key=pattern)
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
        sys.exit("usage: aio_receive_logs_topic.py [URL] PATTERN [PATTERN ...]")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(broker_url, words))

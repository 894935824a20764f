"""Publish-subscribe, the sending side: one line to everybody who listens now (aio-pika).

    python aio_emit_log.py [URL] [WORDS ...]

Without a listener (`receive_logs.py`, `aio_receive_logs.py`) the line is dropped.
"""

import asyncio
import os
import sys

import aio_pika

DEFAULT_URL = "amqp://guest:guest@127.0.0.1:5672/"


async def main(url: str, line: str) -> None:
    """Publish `line` to the fanout exchange `logs`."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        logs = await channel.declare_exchange("logs", aio_pika.ExchangeType.FANOUT)
        # aio-pika sets the mandatory flag by default: the broker would return a line nobody hears.
        await logs.publish(aio_pika.Message(line.encode()), routing_key="", mandatory=False)
    print(f" [x] Sent {line!r}")


if __name__ == "__main__":
    words = sys.argv[1:]
    broker_url = os.environ.get("AMQP_URL", DEFAULT_URL)
    if words and "://" in words[0]:
        broker_url = words.pop(0)
    asyncio.run(main(broker_url, " ".join(words) or "info: Hello World!"))

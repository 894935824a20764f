"""Topics, the sending side: a line with a routing key of dotted words (aio-pika).

    python aio_emit_log_topic.py [URL] [KEY] [WORDS ...]

For example `python aio_emit_log_topic.py kern.critical "A critical kernel error"`. The
listeners (`receive_logs_topic.py`, `aio_receive_logs_topic.py`) get it if their pattern matches.
"""

import asyncio
import os
import sys

import aio_pika

DEFAULT_URL = "amqp://guest:guest@127.0.0.1:5672/"


async def main(url: str, key: str, line: str) -> None:
    """Publish `line` to the topic exchange `topic_logs` with the key `key`."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        logs = await channel.declare_exchange("topic_logs", aio_pika.ExchangeType.TOPIC)
        message = aio_pika.Message(line.encode())
        await logs.publish(message, routing_key=key, mandatory=False)
    print(f" [x] Sent {key}:{line!r}")


if __name__ == "__main__":
    words = sys.argv[1:]
    broker_url = os.environ.get("AMQP_URL", DEFAULT_URL)
    if words and "://" in words[0]:
        broker_url = words.pop(0)
    key = words[0] if words else "anonymous.info"
    asyncio.run(main(broker_url, key, " ".join(words[1:]) or "Hello World!"))

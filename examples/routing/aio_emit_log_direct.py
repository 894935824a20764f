"""Routing, the sending side: a line with its severity as the routing key (aio-pika).

    python aio_emit_log_direct.py [URL] [SEVERITY] [WORDS ...]

It reaches the listeners (`receive_logs_direct.py`, `aio_receive_logs_direct.py`) that asked for it.
"""

import asyncio
import os
import sys

import aio_pika

DEFAULT_URL = "amqp://guest:guest@127.0.0.1:5672/"


async def main(url: str, severity: str, line: str) -> None:
    """Publish `line` to the direct exchange `direct_logs` with the key `severity`."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        logs = await channel.declare_exchange("direct_logs", aio_pika.ExchangeType.DIRECT)
        message = aio_pika.Message(line.encode())
        await logs.publish(message, routing_key=severity, mandatory=False)
    print(f" [x] Sent {severity}:{line!r}")


if __name__ == "__main__":
    words = sys.argv[1:]
    broker_url = os.environ.get("AMQP_URL", DEFAULT_URL)
    if words and "://" in words[0]:
        broker_url = words.pop(0)
    severity = words[0] if words else "info"
    asyncio.run(main(broker_url, severity, " ".join(words[1:]) or "Hello World!"))

"""Remote procedure call, the server: compute Fibonacci numbers for whoever asks (aio-pika).

    python aio_rpc_server.py [URL]

Answers `rpc_client.py` and `aio_rpc_client.py`. Start several to share the load. Ctrl-C ends it.
"""

import asyncio
import contextlib
import os
import sys

import aio_pika

DEFAULT_URL = "amqp://guest:guest@127.0.0.1:5672/"


def fibonacci(n: int) -> int:
    """Return the Fibonacci number with index `n`; 0 and 1 are the first two."""
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a


async def main(url: str) -> None:
    """Serve the requests in `rpc_queue` until cancelled."""
    async with await aio_pika.connect_robust(url) as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=1)
        queue = await channel.declare_queue("rpc_queue", durable=True)
        print(" [*] Awaiting RPC requests. To exit press CTRL+C")
        async with queue.iterator() as requests:
            async for request in requests:
                async with request.process():
                    n = int(request.body)
                    print(f" [.] fibonacci({n})")
                    answer = aio_pika.Message(
                        str(fibonacci(n)).encode(), correlation_id=request.correlation_id
                    )
                    reply_to = request.reply_to or ""
                    # Not mandatory: a client that has gone away does not miss the answer.
                    await channel.default_exchange.publish(answer, reply_to, mandatory=False)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(
            main(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("AMQP_URL", DEFAULT_URL))
        )

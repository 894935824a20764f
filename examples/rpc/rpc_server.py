"""Remote procedure call, the server: compute Fibonacci numbers for whoever asks (pika).

    python rpc_server.py [URL]

Answers `rpc_client.py` and `aio_rpc_client.py`. Start several to share the load. Ctrl-C ends it.
"""

import os
import signal
import sys
from functools import partial

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.spec import Basic, BasicProperties

DEFAULT_URL = "amqp://guest:guest@127.0.0.1:5672/"


def fibonacci(n: int) -> int:
    """Return the Fibonacci number with index `n`; 0 and 1 are the first two."""
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a


def answer(
    channel: BlockingChannel, method: Basic.Deliver, properties: BasicProperties, body: bytes
) -> None:
    """Send the result to the queue named in reply_to, then acknowledge the request."""
    n = int(body)
    print(f" [.] fibonacci({n})")
    channel.basic_publish(
        exchange="",
        routing_key=properties.reply_to,
        body=str(fibonacci(n)).encode(),
        properties=pika.BasicProperties(correlation_id=properties.correlation_id),
    )
    channel.basic_ack(method.delivery_tag)


def main(url: str) -> None:
    """Serve the requests in `rpc_queue` until Ctrl-C."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.queue_declare("rpc_queue", durable=True)
        channel.basic_qos(prefetch_count=1)
        channel.basic_consume("rpc_queue", on_message_callback=answer)
        print(" [*] Awaiting RPC requests. To exit press CTRL+C")
        # KeyboardInterrupt could cut a frame in two: let Ctrl-C stop between two messages instead.
        stop = partial(connection.add_callback_threadsafe, channel.stop_consuming)
        signal.signal(signal.SIGINT, lambda *_: stop())
        channel.start_consuming()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("AMQP_URL", DEFAULT_URL))

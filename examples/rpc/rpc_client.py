"""Remote procedure call, the client: ask `rpc_server.py` for a Fibonacci number (pika).

    python rpc_client.py [URL] [N]

The answer comes by direct reply-to, RabbitMQ's pseudo-queue for answers: nothing to declare,
nothing left behind. https://www.rabbitmq.com/docs/direct-reply-to
"""

import os
import sys

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.spec import Basic, BasicProperties

DEFAULT_URL = "amqp://guest:guest@127.0.0.1:5672/"
TIMEOUT_SECONDS = 10


def main(url: str, n: int) -> None:
    """Send `n` to `rpc_queue`, wait for the answer and print it."""

    def on_answer(
        channel: BlockingChannel, method: Basic.Deliver, properties: BasicProperties, body: bytes
    ) -> None:
        print(f" [.] Got {int(body)}")
        channel.stop_consuming()

    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.queue_declare("rpc_queue", durable=True)
        # The consumer must exist, on this very channel, before the request is published.
        channel.basic_consume("amq.rabbitmq.reply-to", on_message_callback=on_answer, auto_ack=True)
        print(f" [x] Requesting fibonacci({n})")
        channel.basic_publish(
            exchange="",
            routing_key="rpc_queue",
            body=str(n).encode(),
            properties=pika.BasicProperties(reply_to="amq.rabbitmq.reply-to"),
        )
        connection.call_later(TIMEOUT_SECONDS, channel.stop_consuming)
        channel.start_consuming()


if __name__ == "__main__":
    words = sys.argv[1:]
    broker_url = os.environ.get("AMQP_URL", DEFAULT_URL)
    if words and "://" in words[0]:
        broker_url = words.pop(0)
    main(broker_url, int(words[0]) if words else 30)

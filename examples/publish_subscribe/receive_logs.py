"""Publish-subscribe, the listening side: print every line sent from now on (pika).

    python receive_logs.py [URL]

Each listener has a queue of its own, which the broker names and drops with the connection.
Ctrl-C ends it.
"""

import os
import signal
import sys
from functools import partial

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.spec import Basic, BasicProperties

DEFAULT_URL = "amqp://guest:guest@127.0.0.1:5672/"


def show(
    channel: BlockingChannel, method: Basic.Deliver, properties: BasicProperties, body: bytes
) -> None:
    """Print one line."""
    print(f" [x] {body.decode()}")


def main(url: str) -> None:
    """Listen to the fanout exchange `logs` until Ctrl-C."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.exchange_declare("logs", exchange_type="fanout")
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, exchange="logs")
        channel.basic_consume(queue, on_message_callback=show, auto_ack=True)
        print(" [*] Waiting for logs. To exit press CTRL+C")
        # KeyboardInterrupt could cut a frame in two: let Ctrl-C stop between two messages instead.
        stop = partial(connection.add_callback_threadsafe, channel.stop_consuming)
        signal.signal(signal.SIGINT, lambda *_: stop())
        channel.start_consuming()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("AMQP_URL", DEFAULT_URL))

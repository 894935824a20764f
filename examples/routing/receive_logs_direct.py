"""Routing, the listening side: print the lines of the severities asked for (pika).

    python receive_logs_direct.py [URL] SEVERITY [SEVERITY ...]

For example `python receive_logs_direct.py warning error`. Ctrl-C ends it.
"""

import os
import signal
import sys
from collections.abc import Sequence
from functools import partial

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.spec import Basic, BasicProperties

DEFAULT_URL = "amqp://guest:guest@127.0.0.1:5672/"


def show(
    channel: BlockingChannel, method: Basic.Deliver, properties: BasicProperties, body: bytes
) -> None:
    """Print one line and the key it came with."""
    print(f" [x] {method.routing_key}:{body.decode()!r}")


def main(url: str, severities: Sequence[str]) -> None:
    """Listen to the direct exchange `direct_logs`, one binding for each severity."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.exchange_declare("direct_logs", exchange_type="direct")
        queue = channel.queue_declare("", exclusive=True).method.queue
        for severity in severities:
            channel.queue_bind(queue, exchange="direct_logs", routing_key=severity)
        channel.basic_consume(queue, on_message_callback=show, auto_ack=True)
        print(" [*] Waiting for logs. To exit press CTRL+C")
        # KeyboardInterrupt could cut a frame in two: let Ctrl-C stop between two messages instead.
        stop = partial(connection.add_callback_threadsafe, channel.stop_consuming)
        signal.signal(signal.SIGINT, lambda *_: stop())
        channel.start_consuming()


if __name__ == "__main__":
    words = sys.argv[1:]
    broker_url = os.environ.get("AMQP_URL", DEFAULT_URL)
    if words and "://" in words[0]:
        broker_url = words.pop(0)
    if not words:
        sys.exit("usage: receive_logs_direct.py [URL] SEVERITY [SEVERITY ...]")
    main(broker_url, words)

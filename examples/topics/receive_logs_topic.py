"""Topics, the listening side: print the lines whose key matches a pattern (pika).

    python receive_logs_topic.py [URL] PATTERN [PATTERN ...]

In a pattern `*` stands for one word and `#` for any number of them, so `kern.*` and `#.critical`.
Quote them for the shell: `python receive_logs_topic.py "kern.*" "#.critical"`. Ctrl-C ends it.
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


def main(url: str, patterns: Sequence[str]) -> None:
    """Listen to the topic exchange `topic_logs`, one binding for each pattern."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.exchange_declare("topic_logs", exchange_type="topic")
        queue = channel.queue_declare("", exclusive=True).method.queue
        for pattern in patterns:
            channel.queue_bind(queue, exchange="topic_logs", routing_key=pattern)
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
        sys.exit("usage: receive_logs_topic.py [URL] PATTERN [PATTERN ...]")
    main(broker_url, words)

"""Work queue, the working side: take one job at a time, acknowledge it when done (pika).

    python worker.py [URL]

Start several: with a prefetch of 1 each job goes to a worker that is free. Kill one while it works:
what it had not acknowledged goes to another. Ctrl-C ends it.
"""

import os
import signal
import sys
import time
from functools import partial

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.spec import Basic, BasicProperties

DEFAULT_URL = "amqp://guest:guest@127.0.0.1:5672/"


def work(
    channel: BlockingChannel, method: Basic.Deliver, properties: BasicProperties, body: bytes
) -> None:
    """Do one job, a tenth of a second for each dot, then acknowledge it."""
    print(f" [x] Received {body.decode()!r}")
    time.sleep(body.count(b".") / 10)
    print(" [x] Done")
    channel.basic_ack(method.delivery_tag)


def main(url: str) -> None:
    """Consume from `task_queue` until Ctrl-C."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.queue_declare("task_queue", durable=True)
        channel.basic_qos(prefetch_count=1)
        channel.basic_consume("task_queue", on_message_callback=work)
        print(" [*] Waiting for messages. To exit press CTRL+C")
        # KeyboardInterrupt could cut a frame in two: let Ctrl-C stop between two messages instead.
        stop = partial(connection.add_callback_threadsafe, channel.stop_consuming)
        signal.signal(signal.SIGINT, lambda *_: stop())
        channel.start_consuming()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("AMQP_URL", DEFAULT_URL))

"""Work queue, the sending side: put one job on a durable queue (pika).

    python new_task.py [URL] [WORDS ...]

Each dot in the words stands for a tenth of a second of work, done by `worker.py` or
`aio_worker.py`.
"""

import os
import sys

import pika

DEFAULT_URL = "amqp://guest:guest@127.0.0.1:5672/"


def main(url: str, job: str) -> None:
    """Publish `job` as a persistent message to the queue `task_queue`."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.queue_declare("task_queue", durable=True)
        channel.confirm_delivery()
        channel.basic_publish(
            exchange="",
            routing_key="task_queue",
            body=job.encode(),
            properties=pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent.value),
            mandatory=True,
        )
    print(f" [x] Sent {job!r}")


if __name__ == "__main__":
    words = sys.argv[1:]
    broker_url = os.environ.get("AMQP_URL", DEFAULT_URL)
    if words and "://" in words[0]:
        broker_url = words.pop(0)
    main(broker_url, " ".join(words) or "Hello World!")

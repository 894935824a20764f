"""Poison message: a job that always fails is tried three times with growing waits, then set aside.

    python poison_message.py [URL] [FIRST_WAIT_MS]

The waits are the queue's (`x-delayed-retry-…`), so the worker only says that a job failed. Others
pass the failing one. In the end it is in the dead-letter queue, and says what happened to it.
"""

import os
import sys
import time

import pika
from pika.adapters.blocking_connection import BlockingChannel

DEFAULT_URL = "amqp://guest:guest@127.0.0.1:5672/"
JOBS, FAILED = "poison.jobs", "poison.failed"


def declare(channel: BlockingChannel, first_wait_ms: int) -> None:
    """Declare the queue of jobs, and where those go that fail for good."""
    channel.queue_declare(FAILED, durable=True)
    arguments = {
        "x-delivery-limit": 2,
        "x-delayed-retry-type": "failed",
        "x-delayed-retry-min": first_wait_ms,
        "x-delayed-retry-multiplier": 2,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": FAILED,
    }
    channel.queue_declare(JOBS, durable=True, arguments=arguments)


def work(channel: BlockingChannel) -> None:
    """Take jobs until nothing comes for a while; give back those that fail."""
    started = time.monotonic()
    for method, properties, body in channel.consume(JOBS, inactivity_timeout=3):
        if method is None:
            break
        attempt = 1 + (properties.headers or {}).get("x-delivery-count", 0)
        after = time.monotonic() - started
        if body == b"poison":
            print(f" [!] {body.decode()} failed, attempt {attempt}, after {after:.1f} s")
            channel.basic_nack(method.delivery_tag, requeue=True)
            if attempt == 3:
                break
        else:
            print(f" [x] {body.decode()} done")
            channel.basic_ack(method.delivery_tag)
    channel.cancel()


def main(url: str, first_wait_ms: int) -> None:
    """Publish three jobs, one of them poison; work; show what was set aside, and why."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        declare(channel, first_wait_ms)
        persistent = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
        for job in ("first", "poison", "second"):
            channel.basic_publish("", JOBS, job.encode(), persistent)
        work(channel)
        for _, properties, body in channel.consume(FAILED, inactivity_timeout=3):
            if properties is None:
                break
            for death in properties.headers["x-death"]:
                print(
                    f" [-] {body.decode()} was set aside by {death['queue']}: {death['reason']},"
                    f" {death['count']} time"
                )
            break
        channel.cancel()
        for queue in (JOBS, FAILED):
            channel.queue_delete(queue)


if __name__ == "__main__":
    words = sys.argv[1:]
    broker_url = os.environ.get("AMQP_URL", DEFAULT_URL)
    if words and "://" in words[0]:
        broker_url = words.pop(0)
    main(broker_url, int(words[0]) if words else 1000)

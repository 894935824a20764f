"""Competing tenants: the backlog of a large one does not make the small ones wait.

    python competing_tenants.py [URL] [JOBS_OF_THE_LARGE_ONE]

The queue is told which header names the tenant (`x-fair-by`). The next job is always one of the
tenant that has the fewest in work.
"""

import os
import sys

import pika
from pika.adapters.blocking_connection import BlockingChannel

DEFAULT_URL = "amqp://guest:guest@127.0.0.1:5672/"
QUEUE = "tenants.jobs"
TAKEN = 6


def publish(channel: BlockingChannel, tenant: str, count: int) -> None:
    """Jobs of one tenant."""
    properties = pika.BasicProperties(headers={"tenant": tenant})
    for number in range(1, count + 1):
        channel.basic_publish("", QUEUE, f"{tenant} {number}".encode(), properties)


def work(channel: BlockingChannel) -> None:
    """Take some jobs, one after the other."""
    channel.basic_qos(prefetch_count=1)
    for taken, (method, _, body) in enumerate(channel.consume(QUEUE), start=1):
        print(f" [x] {body.decode()}")
        channel.basic_ack(method.delivery_tag)
        if taken == TAKEN:
            break
    channel.cancel()


def main(url: str, jobs: int) -> None:
    """A large tenant publishes its jobs, then two small ones do; see who is served when."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.queue_delete(QUEUE)
        channel.queue_declare(QUEUE, arguments={"x-fair-by": "tenant"})
        publish(channel, "large", jobs)
        publish(channel, "small", 1)
        publish(channel, "tiny", 1)
        work(channel)
        count = channel.queue_declare(QUEUE, passive=True).method.message_count
        print(f" [*] {count} jobs of the large one are left")
        channel.queue_delete(QUEUE)


if __name__ == "__main__":
    words = sys.argv[1:]
    broker_url = os.environ.get("AMQP_URL", DEFAULT_URL)
    if words and "://" in words[0]:
        broker_url = words.pop(0)
    main(broker_url, int(words[0]) if words else 1000)

"""Payment: one event for two services, each with a queue of its own. Only what failed is retried.

    python payment.py [URL] [FIRST_WAIT_MS]

The receipt is sent once, although the booking fails twice: the two queues know nothing of each
other, and the failed delivery goes back to its own queue and waits there.
"""

import os
import sys

import pika
from pika.adapters.blocking_connection import BlockingChannel

DEFAULT_URL = "amqp://guest:guest@127.0.0.1:5672/"
PAID, BOOKING, RECEIPT = "payment.paid", "payment.booking", "payment.receipt"


def declare(channel: BlockingChannel, first_wait_ms: int) -> None:
    """Declare the exchange of the event, and a queue for each service."""
    channel.exchange_declare(PAID, "fanout", durable=True)
    for queue in (BOOKING, RECEIPT):
        arguments = {
            "x-delayed-retry-type": "failed",
            "x-delayed-retry-min": first_wait_ms,
            "x-delivery-limit": 10,
        }
        channel.queue_declare(queue, durable=True, arguments=arguments)
        channel.queue_bind(queue, PAID)


def main(url: str, first_wait_ms: int) -> None:
    """Publish one payment; work as both services until each has done its part."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        declare(channel, first_wait_ms)
        left = {BOOKING, RECEIPT}
        failures = 2

        def done(queue: str, tag: int) -> None:
            channel.basic_ack(tag)
            print(f" [x] {queue} is done")
            left.discard(queue)

        def book(tag: int) -> None:
            nonlocal failures
            if failures:
                failures -= 1
                print(f" [!] {BOOKING} failed: the ledger is closed")
                channel.basic_nack(tag, requeue=True)
            else:
                done(BOOKING, tag)

        channel.basic_consume(BOOKING, lambda _, method, *rest: book(method.delivery_tag))
        channel.basic_consume(RECEIPT, lambda _, method, *rest: done(RECEIPT, method.delivery_tag))
        persistent = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
        channel.basic_publish(PAID, "", b"payment 17", persistent)
        while left:
            connection.process_data_events(time_limit=1)
        for queue in (BOOKING, RECEIPT):
            channel.queue_delete(queue)
        channel.exchange_delete(PAID)


if __name__ == "__main__":
    words = sys.argv[1:]
    broker_url = os.environ.get("AMQP_URL", DEFAULT_URL)
    if words and "://" in words[0]:
        broker_url = words.pop(0)
    main(broker_url, int(words[0]) if words else 1000)

"""Publisher confirms: know that the broker has each message, and which reached no queue (pika).

    python publish_with_confirms.py [URL] [COUNT]

With confirms on, pika's `basic_publish` waits for the broker's answer: simple, and one round trip a
message. `aio_publish_with_confirms.py` has many under way at once.
"""

import os
import sys

import pika
from pika.exceptions import NackError, UnroutableError

DEFAULT_URL = "amqp://guest:guest@127.0.0.1:5672/"


def main(url: str, count: int) -> None:
    """Publish `count` messages to a queue of our own, then one that no queue takes."""
    persistent = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent.value)
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.confirm_delivery()
        confirmed = 0
        for number in range(count):
            try:
                channel.basic_publish("", queue, str(number).encode(), persistent, mandatory=True)
                confirmed += 1
            except NackError:
                print(f" [!] The broker did not take message {number}: publish it again")
        print(f" [x] {confirmed} of {count} messages confirmed")
        try:
            channel.basic_publish("", "no-such-queue", b"lost?", persistent, mandatory=True)
        except UnroutableError as error:
            returned = error.messages[0].method
            print(f" [!] Returned: {returned.reply_code} {returned.reply_text}")


if __name__ == "__main__":
    words = sys.argv[1:]
    broker_url = os.environ.get("AMQP_URL", DEFAULT_URL)
    if words and "://" in words[0]:
        broker_url = words.pop(0)
    main(broker_url, int(words[0]) if words else 100)

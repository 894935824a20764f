"""Publish-subscribe, the sending side: one line to everybody who listens now (pika).

    python emit_log.py [URL] [WORDS ...]

Without a listener (`receive_logs.py`, `aio_receive_logs.py`) the line is dropped.
"""

import os
import sys

import pika

DEFAULT_URL = "amqp://guest:guest@127.0.0.1:5672/"


def main(url: str, line: str) -> None:
    """Publish `line` to the fanout exchange `logs`."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.exchange_declare("logs", exchange_type="fanout")
        channel.basic_publish(exchange="logs", routing_key="", body=line.encode())
    print(f" [x] Sent {line!r}")


if __name__ == "__main__":
    words = sys.argv[1:]
    broker_url = os.environ.get("AMQP_URL", DEFAULT_URL)
    if words and "://" in words[0]:
        broker_url = words.pop(0)
    main(broker_url, " ".join(words) or "info: Hello World!")

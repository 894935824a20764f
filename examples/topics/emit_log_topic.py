"""Topics, the sending side: a line with a routing key of dotted words (pika).

    python emit_log_topic.py [URL] [KEY] [WORDS ...]

For example `python emit_log_topic.py kern.critical "A critical kernel error"`. The
listeners (`receive_logs_topic.py`, `aio_receive_logs_topic.py`) get it if their pattern matches.
"""

import os
import sys

import pika

DEFAULT_URL = "amqp://guest:guest@127.0.0.1:5672/"


def main(url: str, key: str, line: str) -> None:
    """Publish `line` to the topic exchange `topic_logs` with the key `key`."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.exchange_declare("topic_logs", exchange_type="topic")
        channel.basic_publish(exchange="topic_logs", routing_key=key, body=line.encode())
    print(f" [x] Sent {key}:{line!r}")


if __name__ == "__main__":
    words = sys.argv[1:]
    broker_url = os.environ.get("AMQP_URL", DEFAULT_URL)
    if words and "://" in words[0]:
        broker_url = words.pop(0)
    main(broker_url, words[0] if words else "anonymous.info", " ".join(words[1:]) or "Hello World!")

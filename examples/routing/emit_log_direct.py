"""Routing, the sending side: a line with its severity as the routing key (pika).

    python emit_log_direct.py [URL] [SEVERITY] [WORDS ...]

It reaches the listeners (`receive_logs_direct.py`, `aio_receive_logs_direct.py`) that asked for it.
"""

import os
import sys

import pika

DEFAULT_URL = "amqp://guest:guest@127.0.0.1:5672/"


def main(url: str, severity: str, line: str) -> None:
    """Publish `line` to the direct exchange `direct_logs` with the key `severity`."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.exchange_declare("direct_logs", exchange_type="direct")
        channel.basic_publish(exchange="direct_logs", routing_key=severity, body=line.encode())
    print(f" [x] Sent {severity}:{line!r}")


if __name__ == "__main__":
    words = sys.argv[1:]
    broker_url = os.environ.get("AMQP_URL", DEFAULT_URL)
    if words and "://" in words[0]:
        broker_url = words.pop(0)
    main(broker_url, words[0] if words else "info", " ".join(words[1:]) or "Hello World!")

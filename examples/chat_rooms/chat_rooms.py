"""Chat rooms: the messages of each room are handled in order, rooms are worked on side by side.

    python chat_rooms.py [URL] [SECONDS_PER_MESSAGE]

The queue is told which header names the room (`x-group-by`). Any number of workers share it, and no
two of them ever hold messages of one room.
"""

import os
import sys
import threading
import time

import pika

DEFAULT_URL = "amqp://guest:guest@127.0.0.1:5672/"
QUEUE = "chat.messages"
ROOMS = ("kitchen", "garden", "attic")
MESSAGES_PER_ROOM = 4
WORKERS = 3


def post(url: str) -> None:
    """Say something in each room, all that one room says first."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_delete(QUEUE)
        channel.queue_declare(QUEUE, durable=True, arguments={"x-group-by": "room"})
        for room in ROOMS:
            properties = pika.BasicProperties(headers={"room": room}, delivery_mode=2)
            for number in range(1, MESSAGES_PER_ROOM + 1):
                channel.basic_publish("", QUEUE, str(number).encode(), properties)


def work(
    url: str, seconds: float, all_are_here: threading.Barrier, handled: list[tuple[str, int]]
) -> None:
    """Handle messages until nothing comes for a while."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.basic_qos(prefetch_count=1)
        all_are_here.wait()
        for method, properties, body in channel.consume(QUEUE, inactivity_timeout=1):
            if method is None:
                break
            time.sleep(seconds)
            handled.append((properties.headers["room"], int(body)))
            channel.basic_ack(method.delivery_tag)


def main(url: str, seconds: float) -> None:
    """Post, let workers handle it, and show what came in which order."""
    post(url)
    handled: list[tuple[str, int]] = []
    arguments = url, seconds, threading.Barrier(WORKERS), handled
    workers = [threading.Thread(target=work, args=arguments) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(" [*] in turn:", " ".join(f"{room}:{number}" for room, number in handled))
    for room in ROOMS:
        numbers = [str(number) for where, number in handled if where == room]
        print(f" [x] {room}: {' '.join(numbers)}")
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        connection.channel().queue_delete(QUEUE)


if __name__ == "__main__":
    words = sys.argv[1:]
    broker_url = os.environ.get("AMQP_URL", DEFAULT_URL)
    if words and "://" in words[0]:
        broker_url = words.pop(0)
    main(broker_url, float(words[0]) if words else 0.2)

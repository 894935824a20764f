"""Order timeout: an order that is not paid in time is cancelled, by a message that comes later.

    python order_timeout.py [URL] [SECONDS]

Each order puts a reminder to an exchange of the type `x-delayed-message`, for as many milliseconds
as its header `x-delay` says. When the reminder comes, the order is looked at: paid or not.
"""

import os
import sys

import pika

DEFAULT_URL = "amqp://guest:guest@127.0.0.1:5672/"
LATER, REMINDERS = "orders.later", "orders.reminders"


def main(url: str, seconds: float) -> None:
    """Take three orders, one of which is paid; cancel the others when their time is over."""
    paid: dict[str, bool] = {}
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.exchange_declare(
            LATER, "x-delayed-message", durable=True, arguments={"x-delayed-type": "direct"}
        )
        channel.queue_declare(REMINDERS, durable=True)
        channel.queue_bind(REMINDERS, LATER, routing_key="order")
        for place, order in enumerate(("order-1", "order-2", "order-3")):
            paid[order] = False
            # The later ones are due first: each is looked at when its own time is over.
            delay_ms = int(seconds * 1000 * (3 - place) / 3)
            properties = pika.BasicProperties(
                delivery_mode=pika.DeliveryMode.Persistent, headers={"x-delay": delay_ms}
            )
            channel.basic_publish(LATER, "order", order.encode(), properties)
            print(f" [ ] {order} waits {delay_ms} ms for its payment")
        paid["order-2"] = True
        left = len(paid)
        for method, _, body in channel.consume(REMINDERS, inactivity_timeout=seconds + 10):
            if method is None:
                raise SystemExit("no reminder came")
            order = body.decode()
            print(f" [x] {order} is paid" if paid[order] else f" [!] {order} is cancelled")
            channel.basic_ack(method.delivery_tag)
            left -= 1
            if not left:
                break
        channel.cancel()
        channel.queue_delete(REMINDERS)
        channel.exchange_delete(LATER)


if __name__ == "__main__":
    words = sys.argv[1:]
    broker_url = os.environ.get("AMQP_URL", DEFAULT_URL)
    if words and "://" in words[0]:
        broker_url = words.pop(0)
    main(broker_url, float(words[0]) if words else 3.0)

"""What timed out, on both pages."""

from pamqp import commands

from tests.management.client import Client, make_broker
from tests.management.exposition import value
from tests.management.test_metrics import long_page, page

NAME = "rabbitmq_queue_messages_timed_out_total"


def test_deliveries_that_timed_out_are_counted_for_each_queue_and_for_ever() -> None:
    broker = make_broker()
    client = Client(broker)
    for name in ("late", "later", "never"):
        timeout = 0 if name == "never" else 1000
        client.send(
            1, commands.Queue.Declare(queue=name, arguments={"x-consumer-timeout": timeout})
        )
        for _ in range(2 if name == "later" else 1):
            client.publish(name, b"x")
            client.send(1, commands.Basic.Get(queue=name))
    broker.timers.advance(broker.timers.now + 2000)
    split = long_page(broker)
    counts = [value(split, NAME, {"vhost": "/", "queue": q}) for q in ("late", "later", "never")]
    assert counts == [1, 2, 0]
    assert value(page(broker), NAME) == 3
    client.send(1, commands.Queue.Delete(queue="later"))
    assert value(page(broker), NAME) == 3


def test_late_settlements_are_counted() -> None:
    broker = make_broker()
    client = Client(broker)
    client.send(1, commands.Queue.Declare(queue="q", arguments={"x-consumer-timeout": 1000}))
    client.publish("q", b"x")
    client.send(1, commands.Basic.Get(queue="q"))
    broker.timers.advance(broker.timers.now + 2000)
    client.send(1, commands.Basic.Ack(delivery_tag=1))
    labels = {"protocol": "amqp091", "queue_type": "rabbit_classic_queue"}
    assert value(page(broker), "rabbitmq_global_messages_settled_late_total", labels) == 1

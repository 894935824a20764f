"""The queues, exchanges and messages of Celery and kombu, as they declare and use them."""

import time
from typing import Any

from conformance.channel import Channel
from conformance.dead_letters import how_it_died
from conformance.failure import check, check_equal
from conformance.registry import scenario
from conformance.session import Session
from conformance.texts import no_queue

LEVELS = 28


def is_gone(channel: Channel, queue: str) -> None:
    """Passive declare answers 404; the channel is open again afterwards."""
    channel.send("queue.declare", queue=queue, passive=True)
    channel.expect_close(404, no_queue(queue), "queue.declare")
    channel.reopen()


@scenario("celery.task-queue", covers=["celery:task-queue"])
def worker_and_client_declare_the_same_task_queue(s: Session) -> None:
    worker, client = s.channel(), s.channel()
    name = s.name("celery")
    arguments = {"x-max-priority": 10}
    for channel in (worker, client, worker):
        channel.declare_exchange(name, "direct", durable=True)
        channel.declare_queue(name, durable=True, arguments=arguments)
        channel.bind(name, name, name)
    worker.call("basic.qos", prefetch_count=4)
    worker.consume(name, "None4")
    properties: dict[str, Any] = {
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "headers": {
            "lang": "py",
            "task": "add",
            "retries": 0,
            "eta": None,
            "timelimit": [None] * 2,
        },
        "delivery_mode": 2,
        "priority": 0,
        "correlation_id": "8b4a5d4e",
        "reply_to": "1f0e",
    }
    client.publish(b"[[2, 2], {}, {}]", name, name, properties=properties)
    delivery = worker.expect_delivery(b"[[2, 2], {}, {}]", exchange=name, routing_key=name)
    check_equal(delivery.message.properties, properties, "properties")
    worker.send("basic.ack", delivery_tag=delivery["delivery_tag"])
    worker.call("basic.cancel", consumer_tag="None4")
    check_equal(client.message_count(name), 0, "messages")


@scenario("celery.pidbox", covers=["celery:pidbox"])
def remote_control_broadcasts_and_collects_replies(s: Session) -> None:
    pidbox, reply = s.name("celery.pidbox"), s.name("reply.celery.pidbox")
    arguments = {"x-message-ttl": 300_000, "x-expires": 10_000}
    for exclusive in (False, True):
        workers = [s.channel() for _ in range(2)]
        client = s.channel()
        mailboxes = [s.name(f"worker{number}.celery.pidbox") for number in range(2)]
        flags = {"exclusive": exclusive, "auto_delete": True}
        for worker, mailbox in zip(workers, mailboxes, strict=True):
            for _ in range(2):
                worker.declare_exchange(pidbox, "fanout")
                worker.declare_queue(mailbox, arguments=arguments, **flags)
                worker.bind(mailbox, pidbox)
            worker.consume(mailbox, "1", no_ack=True)
        answers = s.name("oid.reply.celery.pidbox")
        client.declare_exchange(reply, "direct")
        client.declare_queue(answers, arguments=arguments, **flags)
        client.bind(answers, reply, "oid")
        client.consume(answers, "1", no_ack=True)
        client.publish(b"ping", pidbox, properties={"reply_to": "oid"})
        for worker in workers:
            worker.expect_delivery(b"ping")
            worker.publish(b"pong", reply, "oid")
        client.expect_delivery(b"pong", routing_key="oid")
        client.expect_delivery(b"pong", routing_key="oid")
        for worker, mailbox in zip(workers, mailboxes, strict=True):
            worker.call("basic.cancel", consumer_tag="1")
            is_gone(worker, mailbox)


@scenario("celery.celeryev", covers=["celery:celeryev"])
def events_reach_those_who_listen(s: Session) -> None:
    sender = s.channel()
    exchange = s.name("celeryev")
    sender.declare_exchange(exchange, "topic", durable=True)
    sender.publish(b"nobody listens", exchange, "worker.online")
    arguments = {"x-message-ttl": 5_000, "x-expires": 60_000}
    listeners = []
    for key in ("#", "worker.#", "task.*"):
        listener = s.channel()
        listener.declare_exchange(exchange, "topic", durable=True)
        queue = s.queue(listener, "celeryev", auto_delete=True, arguments=arguments)
        listener.bind(queue, exchange, key)
        listener.consume(queue, no_ack=True)
        listeners.append((listener, queue))
    keys = ("worker.heartbeat", "task.multi", "worker.offline")
    for key in keys:
        sender.publish(b"{}", exchange, key, properties={"delivery_mode": 1})
    for (listener, queue), wanted in zip(
        listeners, (keys, (keys[0], keys[2]), (keys[1],)), strict=True
    ):
        for key in wanted:
            listener.expect_delivery(b"{}", routing_key=key)
        sender.settle(queue)
        listener.expect_silence(queue)


@scenario("celery.rpc-results", covers=["celery:rpc-results"])
def results_come_back_to_a_queue_of_the_client(s: Session) -> None:
    client, worker = s.channel(), s.channel()
    arguments = {"x-expires": 86_400_000}
    queue = s.queue(client, "oid", auto_delete=True, arguments=arguments)
    client.declare_queue(queue, auto_delete=True, arguments=arguments)
    client.consume(queue, "1", no_ack=True)
    for number in range(3):
        properties = {"correlation_id": str(number), "delivery_mode": 1}
        worker.publish(b"%d" % number, "", queue, properties=properties)
    for number in range(3):
        delivery = client.expect_delivery(b"%d" % number, exchange="", routing_key=queue)
        found = delivery.message.properties["correlation_id"]
        check_equal(found, str(number), "correlation id")
    client.call("basic.cancel", consumer_tag="1")
    is_gone(client, queue)
    worker.publish(b"late", "", queue)
    worker.expect_silence()


@scenario("celery.qos-live", covers=["celery:qos-live", "rule:qos-global-live"])
def prefetch_of_the_channel_grows_and_shrinks_while_consuming(s: Session) -> None:
    worker, client = s.channel(), s.channel()
    queue = s.queue(worker)
    worker.call("basic.qos", prefetch_count=2, global_=True)
    worker.consume(queue)
    for number in range(10):
        client.publish(b"%d" % number, "", queue)
    client.settle(queue)
    tags = [delivery["delivery_tag"] for delivery in worker.deliveries(2)]
    worker.expect_silence(queue)
    # A task with an ETA: the worker takes one more while it waits.
    worker.send("basic.qos", prefetch_count=3, global_=True)
    worker.expect("basic.qos-ok")
    tags += [delivery["delivery_tag"] for delivery in worker.deliveries(1)]
    worker.expect_silence(queue)
    worker.call("basic.qos", prefetch_count=1, global_=True)
    for tag in tags[:2]:
        worker.send("basic.ack", delivery_tag=tag)
        worker.expect_silence(queue)
    worker.send("basic.ack", delivery_tag=tags[2])
    worker.expect_delivery(b"3")
    worker.expect_silence(queue)


def _declare_levels(s: Session, channel: Channel) -> tuple[list[str], str]:
    """What kombu declares for delayed delivery: (exchange and queue of each level, last exchange).

    A routing key has one binary digit for each level, from the highest to level 0.
    """
    names = [s.name(f"celery_delayed_{level}") for level in range(LEVELS)]
    last = s.name("celery_delayed_delivery")
    key = "1.#"
    for level in reversed(range(LEVELS)):
        channel.declare_exchange(names[level], "topic", durable=True)
        arguments = {
            "x-queue-type": "classic",
            "x-overflow": "reject-publish",
            "x-message-ttl": 2**level * 1000,
            "x-dead-letter-exchange": names[level - 1] if level else last,
        }
        for _ in range(2):
            channel.declare_queue(names[level], durable=True, arguments=arguments)
        channel.bind(names[level], names[level], key)
        key = f"*.{key}"
    channel.declare_exchange(last, "topic", durable=True)
    key = "0.#"
    for level in reversed(range(LEVELS)):
        target = names[level - 1] if level else last
        channel.call("exchange.bind", source=names[level], destination=target, routing_key=key)
        key = f"*.{key}"
    return names, last


@scenario("celery.native-delay", covers=["celery:native-delay"])
def delayed_messages_enter_the_level_of_their_highest_digit(s: Session) -> None:
    channel = s.channel()
    names, last = _declare_levels(s, channel)
    target = s.queue(channel, "tasks", durable=True)
    channel.bind(target, last, f"#.{target}")
    # Seconds whose highest digit is in a level that keeps a message for longer than this test.
    for delay, level in ((0, None), (2**27, 27), (2**28 - 1, 27), (2**20 + 5, 20), (2**10, 10)):
        digits = ".".join(f"{delay:0{LEVELS}b}")
        channel.publish(b"%d" % delay, names[-1], f"{digits}.{target}")
        queue = target if level is None else names[level]
        check_equal(channel.get_all(queue), [b"%d" % delay], f"messages with a delay of {delay} s")
    check_equal(sum(channel.message_count(queue) for queue in names), 0, "messages elsewhere")


@scenario("celery.native-delay.arrives", covers=["celery:native-delay", "dead:chain"], slow=True)
def delayed_messages_go_down_the_levels_of_their_digits(s: Session) -> None:
    channel = s.channel()
    names, last = _declare_levels(s, channel)
    target = s.queue(channel, "tasks", durable=True)
    channel.bind(target, last, f"#.{target}")
    channel.consume(target, no_ack=True)
    began = time.monotonic()
    for delay in (3, 1, 0, 2):
        digits = ".".join(f"{delay:0{LEVELS}b}")
        properties = {"delivery_mode": 2, "headers": {"eta": delay}}
        channel.publish(b"%d" % delay, names[-1], f"{digits}.{target}", properties=properties)
    for delay, levels in ((0, ()), (1, (0,)), (2, (1,)), (3, (0, 1))):
        task = channel.expect_delivery(b"%d" % delay)
        check(time.monotonic() - began >= delay, "not before its time")
        expected = [(names[level], "expired", 1) for level in levels]
        check_equal(how_it_died(task), expected, "x-death")
        check_equal(task.message.headers["eta"], delay, "header")


@scenario(
    "celery.native-delay-quorum", covers=["celery:native-delay", "rule:quorum-queue-accepted"]
)
def delayed_delivery_can_use_quorum_queues(s: Session) -> None:
    channel = s.channel()
    arguments = {
        "x-queue-type": "quorum",
        "x-overflow": "reject-publish",
        "x-message-ttl": 2**27 * 1000,
        "x-dead-letter-exchange": s.name("celery_delayed_26"),
        "x-dead-letter-strategy": "at-least-once",
    }
    queue = s.queue(channel, "celery_delayed_27", durable=True, arguments=arguments)
    channel.declare_queue(queue, durable=True, arguments=dict(reversed(arguments.items())))
    channel.settle(queue)

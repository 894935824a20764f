"""queue.declare, queue.delete, queue.purge."""

import time

from conformance.channel import Channel
from conformance.failure import check_equal
from conformance.registry import scenario
from conformance.session import Session
from conformance.texts import NO_DECLARED_QUEUE, in_use, inequivalent, locked, no_queue


def is_missing(channel: Channel, queue: str) -> None:
    """Passive declare answers 404; the channel is open again afterwards."""
    channel.send("queue.declare", queue=queue, passive=True)
    channel.expect_close(404, no_queue(queue), "queue.declare")
    channel.reopen()


def fill(channel: Channel, queue: str, count: int) -> None:
    """Publishes numbered messages to a queue and waits until they are there."""
    for number in range(count):
        channel.publish(b"%d" % number, "", queue)
    channel.settle(queue)


@scenario("queue.declare", covers=["method:queue.declare", "method:queue.declare-ok"])
def declare_answers_with_the_name_and_counts(s: Session) -> None:
    channel = s.channel()
    for flags in ({}, {"durable": True}, {"auto_delete": True}, {"exclusive": True}):
        queue = s.name("q")
        for _ in range(2):
            reply = channel.call("queue.declare", queue=queue, **flags)
            expected = {"queue": queue, "message_count": 0, "consumer_count": 0}
            check_equal(reply.fields, expected, "declare-ok")


@scenario("queue.declare.counts", covers=["rule:message-count-ready-only"])
def counts_are_of_ready_messages_and_consumers(s: Session) -> None:
    connection = s.connect()
    channel, consumer = connection.channel(), connection.channel()
    queue = s.queue(channel)
    fill(channel, queue, 5)
    consumer.call("basic.qos", prefetch_count=2)
    consumer.consume(queue)
    consumer.deliveries(2)
    for fields in ({"passive": True}, {}):
        reply = channel.call("queue.declare", queue=queue, **fields)
        check_equal(reply["message_count"], 3, "ready messages while two are unacked")
        check_equal(reply["consumer_count"], 1, "consumers")
    consumer.call("channel.close")
    check_equal(channel.message_count(queue), 5, "ready messages after the channel was closed")
    check_equal(channel.consumer_count(queue), 0, "consumers after the channel was closed")


@scenario(
    "queue.declare.passive-missing",
    covers=["method:queue.declare", "error:missing-queue-passive", "method:channel.close.server"],
)
def passive_declare_of_a_missing_queue(s: Session) -> None:
    channel = s.channel()
    is_missing(channel, s.name("missing"))
    is_missing(channel, "amq.missing")


@scenario("queue.declare.passive-empty-name", covers=["error:missing-queue-passive"])
def passive_declare_of_the_empty_name_is_no_shorthand(s: Session) -> None:
    channel = s.channel()
    s.queue(channel)
    is_missing(channel, "")


@scenario("queue.declare.passive", covers=["rule:passive-ignores-fields"])
def passive_declare_ignores_every_other_field(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    reply = channel.call(
        "queue.declare",
        queue=queue,
        passive=True,
        durable=True,
        auto_delete=True,
        exclusive=True,
        arguments={"x-max-length": -1, "x-dead-letter-exchange": 5},
    )
    check_equal(reply["queue"], queue, "name")


@scenario("queue.declare.nowait", covers=["nowait:queue.declare"])
def declare_with_nowait_is_not_answered(s: Session) -> None:
    channel = s.channel()
    queue = s.name("q")
    for _ in range(2):
        channel.send("queue.declare", queue=queue, nowait=True)
    channel.send("queue.declare", queue=queue, passive=True, nowait=True)
    channel.expect_silence()
    check_equal(channel.message_count(queue), 0, "messages of the queue declared with nowait")


@scenario("queue.declare.nowait-error", covers=["rule:nowait-errors-close"])
def error_of_a_nowait_declare_closes_the_channel(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    channel.send("queue.declare", queue=queue, durable=True, nowait=True)
    text = inequivalent("durable", f"queue '{queue}'", "'true'", "'false'")
    channel.expect_close(406, text, "queue.declare")
    missing = s.name("q")
    channel.reopen().send("queue.declare", queue=missing, passive=True, nowait=True)
    channel.expect_close(404, no_queue(missing), "queue.declare")


@scenario(
    "queue.declare.inequivalent",
    covers=["error:inequivalent-queue-durable", "error:inequivalent-queue-auto-delete"],
)
def redeclare_with_other_fields_names_the_first_that_differs(s: Session) -> None:
    channel = s.channel()
    for current in (False, True):
        queue = s.queue(channel, durable=current, auto_delete=current)
        old, new = str(current).lower(), str(not current).lower()
        for fields, named in (
            ({"durable": not current, "auto_delete": not current}, "durable"),
            ({"durable": current, "auto_delete": not current}, "auto_delete"),
        ):
            channel.send("queue.declare", queue=queue, arguments={"x-max-length": 1}, **fields)
            text = inequivalent(named, f"queue '{queue}'", f"'{new}'", f"'{old}'")
            channel.expect_close(406, text, "queue.declare")
            channel.reopen()
        channel.declare_queue(queue, durable=current, auto_delete=current)


@scenario("queue.declare.exclusive-not-durable", covers=["rule:exclusive-not-durable"])
def durable_of_an_exclusive_queue_is_not_kept(s: Session) -> None:
    channel = s.channel()
    for first, second in ((True, False), (False, True)):
        queue = s.queue(channel, exclusive=True, durable=first)
        channel.declare_queue(queue, exclusive=True, durable=second)


@scenario("queue.exclusive.connection-close", covers=["rule:exclusive-before-close-ok"])
def exclusive_queues_are_gone_when_close_ok_comes(s: Session) -> None:
    observer = s.channel()
    for _ in range(5):
        owner = s.channel()
        queues = [s.queue(owner, exclusive=True, durable=durable) for durable in (True, False)]
        owner.connection.close()
        for queue in queues:
            is_missing(observer, queue)


@scenario("queue.exclusive.socket-end", covers=["rule:exclusive-gone-with-socket"])
def exclusive_queues_go_when_the_socket_just_ends(s: Session) -> None:
    owner, observer = s.channel(), s.channel()
    queue = s.queue(owner, exclusive=True)
    owner.connection.drop()
    # The moment is the broker's; until then the queue is locked. Each round trip looks again.
    deadline = time.monotonic() + 10
    code = 405
    while code == 405 and time.monotonic() < deadline:
        observer.send("queue.declare", queue=queue, passive=True)
        closed = observer.expect("channel.close")
        code = closed["reply_code"]
        check_equal(closed["reply_text"] in (locked(queue), no_queue(queue)), True, "known text")
        observer.send("channel.close-ok")
        observer.reopen()
    check_equal(code, 404, "code of a passive declare once the owner's socket has ended")


@scenario("queue.exclusive.other-channel", covers=["method:queue.declare"])
def exclusive_queue_belongs_to_the_connection_not_the_channel(s: Session) -> None:
    connection = s.connect()
    first, second = connection.channel(), connection.channel()
    queue = s.queue(first, exclusive=True)
    first.call("channel.close")
    second.declare_queue(queue, exclusive=True)
    fill(second, queue, 1)
    check_equal(second.get_all(queue), [b"0"], "messages")


@scenario("queue.auto-delete.cancel", covers=["rule:auto-delete-last-consumer"])
def auto_delete_queue_goes_with_its_last_consumer(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel, auto_delete=True)
    first, second = channel.consume(queue, "one"), channel.consume(queue, "two")
    fill(s.channel(), queue, 1)
    channel.expect_delivery(b"0", consumer_tag="one")
    channel.call("basic.cancel", consumer_tag=first)
    check_equal(channel.consumer_count(queue), 1, "consumers")
    channel.call("basic.cancel", consumer_tag=second)
    is_missing(channel, queue)


@scenario("queue.auto-delete.channel-close", covers=["rule:auto-delete-last-consumer"])
def auto_delete_queue_goes_with_the_channel_of_its_last_consumer(s: Session) -> None:
    connection = s.connect()
    channel, observer = connection.channel(), connection.channel()
    queue = s.queue(channel, auto_delete=True)
    channel.consume(queue)
    channel.call("channel.close")
    is_missing(observer, queue)


@scenario("queue.auto-delete.never-consumed", covers=["rule:auto-delete-never-consumed"])
def auto_delete_queue_without_a_consumer_stays(s: Session) -> None:
    observer = s.channel()
    owner = s.channel()
    queue = s.queue(owner, auto_delete=True)
    fill(owner, queue, 2)
    check_equal(owner.get(queue) is not None, True, "a message was got")
    owner.connection.close()
    check_equal(observer.get_all(queue), [b"1"], "messages of the queue that stayed")


@scenario("queue.purge", covers=["method:queue.purge", "method:queue.purge-ok"])
def purge_removes_ready_messages_and_counts_them(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    check_equal(channel.call("queue.purge", queue=queue)["message_count"], 0, "purged")
    fill(channel, queue, 4)
    unacked = channel.get(queue, no_ack=False)
    check_equal(channel.call("queue.purge", queue=queue)["message_count"], 3, "purged")
    channel.send("basic.reject", delivery_tag=unacked and unacked["delivery_tag"], requeue=True)
    check_equal(channel.get_all(queue), [b"0"], "messages that were unacked while purging")


@scenario("queue.purge.missing", covers=["error:missing-queue-purge"])
def purge_of_a_missing_queue(s: Session) -> None:
    channel = s.channel()
    for nowait in (False, True):
        missing = s.name("missing")
        channel.send("queue.purge", queue=missing, nowait=nowait)
        channel.expect_close(404, no_queue(missing), "queue.purge")
        channel.reopen()


@scenario("queue.purge.nowait", covers=["nowait:queue.purge"])
def purge_with_nowait_is_not_answered(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    fill(channel, queue, 3)
    channel.send("queue.purge", queue=queue, nowait=True)
    channel.expect_silence(queue)
    check_equal(channel.message_count(queue), 0, "messages after the purge")


@scenario("queue.delete", covers=["method:queue.delete", "method:queue.delete-ok"])
def delete_counts_the_ready_messages(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    fill(channel, queue, 4)
    channel.get(queue, no_ack=False)
    check_equal(channel.call("queue.delete", queue=queue)["message_count"], 3, "message_count")
    is_missing(channel, queue)
    channel.declare_queue(queue)
    check_equal(channel.get_all(queue), [], "messages of the new queue of that name")


@scenario(
    "queue.delete.missing",
    covers=["method:queue.delete", "method:queue.delete-ok", "error:delete-missing-queue"],
)
def deleting_a_missing_queue_succeeds(s: Session) -> None:
    channel = s.channel()
    for flags in ({}, {"if_unused": True, "if_empty": True}):
        reply = channel.call("queue.delete", queue=s.name("missing"), **flags)
        check_equal(reply["message_count"], 0, "message_count")
    check_equal(channel.call("queue.delete", queue="amq.missing")["message_count"], 0, "count")


@scenario("queue.delete.if-unused", covers=["error:queue-in-use"])
def queue_with_a_consumer_is_in_use(s: Session) -> None:
    connection = s.connect()
    channel, consumer = connection.channel(), connection.channel()
    queue = s.queue(channel)
    consumer.consume(queue, "tag")
    fill(channel, queue, 1)
    for flags in ({"if_unused": True}, {"if_unused": True, "nowait": True}):
        channel.send("queue.delete", queue=queue, **flags)
        channel.expect_close(406, in_use(f"queue '{queue}'"), "queue.delete")
        channel.reopen()
    consumer.expect_delivery(b"0")
    consumer.call("basic.cancel", consumer_tag="tag")
    channel.call("queue.delete", queue=queue, if_unused=True)
    is_missing(channel, queue)


@scenario("queue.delete.if-empty", covers=["error:queue-not-empty"])
def queue_with_ready_messages_is_not_empty(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    fill(channel, queue, 1)
    text = f"PRECONDITION_FAILED - queue '{queue}' in vhost '/' not empty"
    for flags in ({"if_empty": True}, {"if_empty": True, "if_unused": True}):
        channel.send("queue.delete", queue=queue, **flags)
        channel.expect_close(406, text, "queue.delete")
        channel.reopen()
    channel.get(queue, no_ack=False)
    reply = channel.call("queue.delete", queue=queue, if_empty=True)
    check_equal(reply["message_count"], 0, "message_count with one message unacked")


@scenario("queue.delete.if-empty-first", covers=["error:queue-in-use", "error:queue-not-empty"])
def messages_are_noticed_before_consumers(s: Session) -> None:
    connection = s.connect()
    channel, consumer = connection.channel(), connection.channel()
    queue = s.queue(channel)
    consumer.call("basic.qos", prefetch_count=1)
    consumer.consume(queue)
    fill(channel, queue, 3)
    channel.send("queue.delete", queue=queue, if_empty=True, if_unused=True)
    text = f"PRECONDITION_FAILED - queue '{queue}' in vhost '/' not empty"
    channel.expect_close(406, text, "queue.delete")


@scenario("queue.delete.nowait", covers=["nowait:queue.delete"])
def delete_with_nowait_is_not_answered(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    for _ in range(2):
        channel.send("queue.delete", queue=queue, nowait=True)
    channel.expect_silence()
    is_missing(channel, queue)


@scenario("queue.last-declared", covers=["rule:last-queue-remembered"])
def empty_name_means_the_queue_declared_last_on_the_channel(s: Session) -> None:
    connection = s.connect()
    channel, other = connection.channel(), connection.channel()
    first, second = s.queue(channel), s.queue(channel)
    s.queue(other)
    fill(channel, second, 3)
    check_equal(channel.get("") is not None, True, "got from the last declared queue")
    check_equal(channel.call("queue.purge", queue="")["message_count"], 2, "purged")
    channel.settle(first)
    fill(channel, first, 1)
    check_equal(channel.get("") is not None, True, "got from the queue declared passively")
    channel.send("queue.declare", queue=second, nowait=True)
    fill(channel, second, 2)
    channel.send("basic.consume", queue="", consumer_tag="tag", no_ack=True, nowait=True)
    channel.deliveries(2)
    channel.call("basic.cancel", consumer_tag="tag")
    channel.call("queue.delete", queue="")
    is_missing(channel, second)
    check_equal(channel.message_count(first), 0, "messages of the other queue")


@scenario("queue.last-declared.server-named", covers=["rule:last-queue-remembered"])
def empty_name_after_a_server_named_declare(s: Session) -> None:
    channel = s.channel()
    queue = channel.declare_queue("", exclusive=True)
    fill(channel, queue, 1)
    found = channel.get("")
    check_equal(found and found.body, b"0", "message got by the empty name")


@scenario("queue.last-declared.deleted", covers=["rule:last-queue-remembered"])
def deleted_queue_is_still_the_one_declared_last(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    channel.call("queue.delete", queue="")
    channel.send("queue.purge", queue="")
    channel.expect_close(404, no_queue(queue), "queue.purge")
    channel.reopen().send("queue.purge", queue="")
    channel.expect_close(404, NO_DECLARED_QUEUE, "queue.purge")


@scenario("queue.last-declared.none", covers=["error:no-previously-declared-queue"])
def empty_name_where_none_was_declared(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel)
    for method, fields in (
        ("queue.bind", {"exchange": exchange, "routing_key": "key"}),
        ("queue.unbind", {"exchange": exchange, "routing_key": "key"}),
        ("queue.purge", {}),
        ("queue.delete", {}),
        ("basic.get", {}),
        ("basic.consume", {}),
    ):
        channel.send(method, queue="", **fields)
        channel.expect_close(404, NO_DECLARED_QUEUE, method)
        channel.reopen()

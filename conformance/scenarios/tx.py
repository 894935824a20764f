"""Transactions: tx.select, commit, rollback."""

from __future__ import annotations

from conformance.channel import Channel
from conformance.failure import check_equal
from conformance.registry import scenario
from conformance.session import Session


def _transaction(s: Session) -> Channel:
    channel = s.channel()
    channel.call("tx.select")
    return channel


@scenario(
    "tx.select",
    covers=["method:tx.select", "method:tx.select-ok", "rule:tx-always-answers"],
)
def select_is_answered_again_and_again(s: Session) -> None:
    channel = s.channel()
    for _ in range(2):
        channel.call("tx.select")


@scenario(
    "tx.publish.commit",
    covers=["method:tx.commit", "method:tx.commit-ok", "rule:tx-publish", "rule:tx-next"],
)
def publishes_arrive_at_commit(s: Session) -> None:
    channel = _transaction(s)
    queue = s.queue(channel)
    for n in range(3):
        channel.publish(b"%d" % n, routing_key=queue)
    check_equal(channel.message_count(queue), 0, "messages before commit")
    channel.call("tx.commit")
    check_equal(channel.message_count(queue), 3, "messages after commit")
    channel.publish(b"3", routing_key=queue)
    check_equal(channel.message_count(queue), 3, "messages in the next transaction")
    channel.call("tx.commit")
    check_equal(s.channel().get_all(queue), [b"0", b"1", b"2", b"3"], "bodies")


@scenario(
    "tx.publish.rollback",
    covers=["method:tx.rollback", "method:tx.rollback-ok", "rule:tx-rollback-publish"],
)
def publishes_do_not_arrive_after_rollback(s: Session) -> None:
    channel = _transaction(s)
    queue = s.queue(channel)
    channel.publish(b"lost", routing_key=queue)
    channel.call("tx.rollback")
    channel.publish(b"kept", routing_key=queue)
    channel.call("tx.commit")
    check_equal(s.channel().get_all(queue), [b"kept"], "bodies")


@scenario("tx.publish.channel-closed", covers=["rule:tx-rollback-publish"])
def a_closed_channel_rolls_back(s: Session) -> None:
    channel = _transaction(s)
    queue = s.queue(channel)
    channel.publish(b"lost", routing_key=queue)
    channel.call("channel.close")
    other = s.channel()
    check_equal(other.message_count(queue), 0, "messages")


@scenario("tx.empty", covers=["rule:tx-always-answers", "rule:tx-next"])
def empty_transactions_are_answered(s: Session) -> None:
    channel = _transaction(s)
    for name in ("tx.commit", "tx.rollback", "tx.commit", "tx.rollback"):
        channel.call(name)


@scenario("tx.ack.commit", covers=["rule:tx-ack"])
def acks_count_at_commit(s: Session) -> None:
    channel = _transaction(s)
    queue = s.queue(channel)
    publisher = s.channel()
    for body in (b"1", b"2"):
        publisher.publish(body, routing_key=queue)
    publisher.settle(queue)
    channel.consume(queue)
    for body in (b"1", b"2"):
        channel.expect_delivery(body)
    channel.send("basic.ack", delivery_tag=1)
    channel.call("tx.commit")
    channel.send("basic.ack", delivery_tag=2)
    channel.call("channel.close")
    check_equal(publisher.get_all(queue), [b"2"], "what was not committed")


@scenario("tx.ack.rollback", covers=["rule:tx-ack"])
def rollback_keeps_messages_unacked(s: Session) -> None:
    channel = _transaction(s)
    queue = s.queue(channel)
    publisher = s.channel()
    publisher.publish(b"1", routing_key=queue)
    publisher.settle(queue)
    channel.consume(queue)
    channel.expect_delivery(b"1")
    channel.send("basic.ack", delivery_tag=1)
    channel.call("tx.rollback")
    channel.expect_silence(queue)
    channel.send("basic.ack", delivery_tag=1)
    channel.call("tx.commit")
    channel.call("channel.close")
    check_equal(publisher.message_count(queue), 0, "messages")


@scenario("tx.reject.commit", covers=["rule:tx-ack"])
def rejects_count_at_commit(s: Session) -> None:
    channel = _transaction(s)
    queue = s.queue(channel)
    publisher = s.channel()
    for body in (b"1", b"2", b"3"):
        publisher.publish(body, routing_key=queue)
    publisher.settle(queue)
    for tag in (1, 2, 3):
        channel.send("basic.get", queue=queue)
        channel.expect("basic.get-ok", delivery_tag=tag)
    channel.send("basic.reject", delivery_tag=1, requeue=False)
    channel.send("basic.nack", delivery_tag=3, multiple=True, requeue=True)
    check_equal(channel.message_count(queue), 0, "ready before commit")
    channel.call("tx.commit")
    check_equal(channel.message_count(queue), 2, "ready after commit")
    check_equal(publisher.get_all(queue), [b"2", b"3"], "bodies")


@scenario("tx.ack.twice", covers=["rule:tx-ack", "error:double-ack"])
def a_tag_acked_in_the_same_transaction_is_unknown(s: Session) -> None:
    channel = _transaction(s)
    queue = s.queue(channel)
    publisher = s.channel()
    publisher.publish(b"1", routing_key=queue)
    publisher.settle(queue)
    channel.send("basic.get", queue=queue)
    channel.expect("basic.get-ok", delivery_tag=1)
    channel.send("basic.ack", delivery_tag=1)
    channel.send("basic.ack", delivery_tag=1)
    channel.expect_close(406, "PRECONDITION_FAILED - unknown delivery tag 1", "basic.ack")


@scenario("tx.return", covers=["rule:tx-return"])
def returns_come_at_commit_before_commit_ok(s: Session) -> None:
    channel = _transaction(s)
    nowhere = s.name("nowhere")
    channel.publish(b"back", routing_key=nowhere, mandatory=True)
    channel.expect_silence()
    channel.send("tx.commit")
    returned = channel.expect("basic.return", reply_code=312, routing_key=nowhere)
    check_equal(returned.body, b"back", "returned body")
    channel.expect("tx.commit-ok")


@scenario("tx.publish.missing-exchange", covers=["error:missing-exchange-publish"])
def a_missing_exchange_is_noticed_at_publish(s: Session) -> None:
    channel = _transaction(s)
    exchange = s.name("missing")
    channel.publish(b"x", exchange)
    text = f"NOT_FOUND - no exchange '{exchange}' in vhost '/'"
    channel.expect_close(404, text, "basic.publish")


@scenario("tx.commit.without-select", covers=["error:commit-without-select"])
def commit_needs_a_transaction(s: Session) -> None:
    channel = s.channel()
    channel.send("tx.commit")
    channel.expect_close(406, "PRECONDITION_FAILED - channel is not transactional", "tx.commit")


@scenario("tx.rollback.without-select", covers=["error:rollback-without-select"])
def rollback_needs_a_transaction(s: Session) -> None:
    channel = s.channel()
    channel.send("tx.rollback")
    text = "PRECONDITION_FAILED - channel is not transactional"
    channel.expect_close(406, text, "tx.rollback")


@scenario("tx.select.confirming", covers=["error:tx-on-confirm-channel"])
def a_confirming_channel_cannot_become_transactional(s: Session) -> None:
    channel = s.channel()
    channel.call("confirm.select")
    channel.send("tx.select")
    text = "PRECONDITION_FAILED - cannot switch from confirm to tx mode"
    channel.expect_close(406, text, "tx.select")


@scenario("tx.deliveries-go-on", covers=["rule:tx-publish"])
def deliveries_on_a_transactional_channel_do_not_wait(s: Session) -> None:
    channel = _transaction(s)
    queue = s.queue(channel)
    channel.consume(queue, no_ack=True)
    s.channel().publish(b"now", routing_key=queue)
    channel.expect_delivery(b"now")
    channel.publish(b"later", routing_key=queue)
    channel.expect_silence(queue)
    channel.send("tx.commit")
    names = {channel.next_method().name for _ in range(2)}
    check_equal(names, {"tx.commit-ok", "basic.deliver"}, "what came after commit")

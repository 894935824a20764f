"""Transactions: publishes and settlements wait for the commit."""

import pytest

from broker.wire.methods import Method
from tests.protocol.client import (
    Basic,
    Channel,
    Client,
    Confirm,
    Queue,
    Site,
    Tx,
    is_close,
    publish_octets,
)


@pytest.fixture
def client(site: Site) -> Client:
    client = site.connect(channels=2)
    client.queue()
    client.ask(Tx.Select)
    return client


def counts(client: Client, name: str = "q") -> tuple[int, int]:
    queue = client.site.vhost.queues[name]
    return queue.messages_ready, queue.unacked_count


def test_publishes_wait_for_the_commit_and_keep_their_order(client: Client) -> None:
    client.queue("r")
    for body, key in ((b"1", "q"), (b"2", "r"), (b"3", "q")):
        client.publish(body, key=key)
    assert counts(client) == counts(client, "r") == (0, 0)
    client.consume(channel=2, no_ack=True)
    assert isinstance(client.ask(Tx.Commit), Tx.CommitOk)
    assert client.bodies() == [b"1", b"3"]
    assert counts(client, "r") == (1, 0)


def test_rolled_back_publishes_are_gone(client: Client) -> None:
    client.feed(publish_octets(b"x") * 10)
    assert client.site.broker.memory_used > 0
    assert isinstance(client.ask(Tx.Rollback), Tx.RollbackOk)
    assert client.site.broker.memory_used == 0
    client.ask(Tx.Commit)
    assert counts(client) == (0, 0)


def test_commit_begins_anew(client: Client) -> None:
    client.publish(b"1")
    client.ask(Tx.Commit)
    client.publish(b"2")
    assert counts(client) == (1, 0)
    client.ask(Tx.Commit)
    assert counts(client) == (2, 0)
    client.ask(Tx.Commit)
    assert counts(client) == (2, 0)


def test_returns_wait_for_the_commit(client: Client) -> None:
    client.publish(b"x", key="nope", mandatory=True)
    assert client.read() == []
    client.tell(Tx.Commit)
    assert [item.kind for item in client.read()] == [Basic.Return, Tx.CommitOk]


def test_route_is_that_of_the_publish(client: Client) -> None:
    client.publish(b"x", key="later")
    client.queue("later")
    client.ask(Tx.Commit)
    assert counts(client, "later") == (0, 0)


def test_queue_deleted_before_the_commit_is_left_out(client: Client) -> None:
    client.publish(b"x")
    client.ask(Queue.Delete, queue="q")
    client.queue()
    client.ask(Tx.Commit)
    assert counts(client) == (0, 0)
    assert client.site.broker.memory_used == 0


def test_wrong_publish_is_refused_at_once(client: Client) -> None:
    client.publish(b"lost")
    client.publish(exchange="nope")
    (item,) = client.read()
    assert is_close(item.method, 404, "no exchange 'nope' in vhost '/'", Basic.Publish)
    assert counts(client) == (0, 0)
    assert client.site.broker.memory_used == 0


# Settlements


def three_got(client: Client) -> None:
    client.feed(b"".join(publish_octets(b"%d" % n, channel=2) for n in range(3)))
    for _ in range(3):
        client.tell(Basic.Get, queue="q")
    client.read()


@pytest.mark.parametrize("kind", [Basic.Ack, Basic.Nack, Basic.Reject])
def test_settlements_wait_for_the_commit(client: Client, kind: type[Method]) -> None:
    three_got(client)
    client.tell(kind, delivery_tag=2)
    assert counts(client) == (0, 3)
    client.ask(Tx.Commit)
    assert counts(client) == (0, 2)


@pytest.mark.parametrize("kind", [Basic.Ack, Basic.Nack, Basic.Reject])
def test_rolled_back_settlements_may_be_made_again(client: Client, kind: type[Method]) -> None:
    three_got(client)
    client.tell(kind, delivery_tag=2)
    client.ask(Tx.Rollback)
    assert counts(client) == (0, 3)
    client.tell(kind, delivery_tag=2)
    client.ask(Tx.Commit)
    assert counts(client) == (0, 2)


@pytest.mark.parametrize("kind", [Basic.Ack, Basic.Nack, Basic.Reject])
def test_settling_twice_in_a_transaction_closes_the_channel(
    client: Client, kind: type[Method]
) -> None:
    three_got(client)
    client.tell(Basic.Ack, delivery_tag=2)
    answer = client.ask(kind, delivery_tag=2)
    assert is_close(answer, 406, "unknown delivery tag 2", kind)
    # Nothing of the transaction happened.
    assert counts(client) == (3, 0)


def test_multiple_takes_what_is_left(client: Client) -> None:
    three_got(client)
    client.tell(Basic.Ack, delivery_tag=1)
    client.tell(Basic.Nack, delivery_tag=2, multiple=True, requeue=True)
    client.tell(Basic.Ack, delivery_tag=0, multiple=True)
    client.tell(Basic.Ack, delivery_tag=0, multiple=True)
    assert client.read() == []
    client.ask(Tx.Commit)
    assert counts(client) == (1, 0)
    assert client.ask(Basic.Get, queue="q").redelivered


def test_requeued_messages_come_back_at_the_commit(client: Client) -> None:
    three_got(client)
    client.tell(Basic.Reject, delivery_tag=2, requeue=True)
    assert counts(client) == (0, 3)
    client.ask(Tx.Commit)
    assert counts(client) == (1, 2)


def test_recover_leaves_what_is_settled_in_the_transaction(client: Client) -> None:
    three_got(client)
    client.tell(Basic.Ack, delivery_tag=2)
    client.ask(Basic.Recover, requeue=True)
    assert counts(client) == (2, 1)
    client.ask(Tx.Commit)
    assert counts(client) == (2, 0)


def test_prefetch_counts_until_the_commit(client: Client) -> None:
    client.ask(Basic.Qos, prefetch_count=1)
    client.feed(publish_octets(b"1", channel=2) + publish_octets(b"2", channel=2))
    client.consume()
    assert client.bodies() == [b"1"]
    client.tell(Basic.Ack, delivery_tag=1)
    assert client.bodies() == []
    client.tell(Tx.Commit)
    assert client.bodies() == [b"2"]


# Modes


def test_select_twice_is_fine_and_forgets_nothing(client: Client) -> None:
    client.publish(b"x")
    assert isinstance(client.ask(Tx.Select), Tx.SelectOk)
    client.ask(Tx.Commit)
    assert counts(client) == (1, 0)


@pytest.mark.parametrize("kind", [Tx.Commit, Tx.Rollback])
def test_channel_without_transactions_cannot_end_one(client: Client, kind: type[Method]) -> None:
    answer = client.ask(kind, 2)
    assert is_close(answer, 406, "channel is not transactional", kind)


def test_confirms_and_transactions_exclude_each_other(client: Client) -> None:
    answer = client.ask(Confirm.Select)
    assert is_close(answer, 406, "cannot switch from tx to confirm mode", Confirm.Select)
    client.ask(Confirm.Select, 2)
    answer = client.ask(Tx.Select, 2)
    assert is_close(answer, 406, "cannot switch from confirm to tx mode", Tx.Select)


@pytest.mark.parametrize("way", ["close", "error", "eof"])
def test_end_of_the_channel_is_a_rollback(client: Client, way: str) -> None:
    three_got(client)
    client.publish(b"lost")
    client.tell(Basic.Ack, delivery_tag=1)
    if way == "close":
        client.ask(Channel.Close)
    elif way == "error":
        client.tell(Queue.Declare, passive=True, queue="nope")
    else:
        client.connection.receive_eof()
        client.site.collect()
    assert counts(client) == (3, 0)
    queue = client.site.vhost.queues["q"]
    assert client.site.broker.memory_used == queue.ready_bytes

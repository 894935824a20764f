"""Consuming, getting and settling: what is delivered to whom, and what becomes of it."""

from typing import Any

import pytest

from broker.protocol.states import ConnectionState
from broker.wire.methods import Method
from broker.wire.table import Field
from tests.protocol.client import (
    Basic,
    Channel,
    Client,
    Queue,
    Site,
    is_close,
    octets_of,
    publish_octets,
    text,
)


def fill(client: Client, count: int, key: str = "q") -> None:
    for number in range(count):
        client.publish(b"%d" % number, key=key)


def delivered(client: Client, channel: int | None = None) -> list[tuple[int, bytes, bool]]:
    """(delivery tag, body, redelivered) of each delivery."""
    return [
        (item.method.delivery_tag, item.body, item.method.redelivered)
        for item in client.read(channel)
        if item.kind in (Basic.Deliver, Basic.GetOk)
    ]


def counts(site: Site, name: str = "q") -> tuple[int, int]:
    queue = site.vhost.queues[name]
    return queue.messages_ready, queue.unacked_count


@pytest.fixture
def client(site: Site) -> Client:
    client = site.connect(channels=2)
    client.queue()
    return client


# Consuming


def test_consume_ok_comes_before_the_first_delivery(client: Client) -> None:
    fill(client, 2)
    client.tell(Basic.Consume, queue="q", consumer_tag="ct")
    assert [item.kind for item in client.read()] == [Basic.ConsumeOk, Basic.Deliver, Basic.Deliver]


def test_delivery_says_where_it_comes_from(client: Client) -> None:
    client.consume(consumer_tag="ct")
    client.ask(Queue.Bind, queue="q", exchange="amq.topic", routing_key="a.*")
    client.publish(b"hi", exchange="amq.topic", key="a.b")
    (item,) = client.read()
    method = item.method
    assert (method.consumer_tag, method.delivery_tag, method.redelivered) == ("ct", 1, False)
    assert (method.exchange, method.routing_key, item.body) == ("amq.topic", "a.b", b"hi")


def test_tag_is_made_where_none_is_given(client: Client) -> None:
    one, two = client.consume(), client.consume()
    assert one != two
    assert one.startswith("amq.ctag-")
    client.tell(Basic.Consume, queue="q", nowait=True)
    assert len(client.connection.channels[1].consumers) == 3


def test_tag_may_be_used_once_a_channel(client: Client) -> None:
    client.consume(consumer_tag="ct")
    client.consume(channel=2, consumer_tag="ct")
    answer = client.ask(Basic.Consume, queue="q", consumer_tag="ct")
    assert is_close(answer, 530, "attempt to reuse consumer tag 'ct'", Basic.Consume)
    assert client.connection.state is ConnectionState.CLOSING


def test_tag_of_the_longest_length_is_delivered_with(client: Client) -> None:
    tag = "t" * 255
    assert client.consume(consumer_tag=tag) == tag
    client.publish(b"x", key="q")
    (item,) = client.read()
    assert item.method.consumer_tag == tag


@pytest.mark.parametrize("first_exclusive", [True, False])
def test_exclusive_consumer_is_alone(site: Site, client: Client, *, first_exclusive: bool) -> None:
    client.consume(consumer_tag="ct", exclusive=first_exclusive)
    other = site.connect()
    answer = other.ask(Basic.Consume, queue="q", exclusive=not first_exclusive)
    assert is_close(answer, 403, "queue 'q' in vhost '/' in exclusive use", Basic.Consume)
    client.ask(Basic.Cancel, consumer_tag="ct")
    other.ask(Channel.Open, 2)
    other.consume(channel=2, exclusive=True)


def test_consumers_of_a_channel_may_be_limited() -> None:
    site = Site(consumers_per_channel=2)
    client = site.connect(channels=2)
    client.queue()
    for _ in range(2):
        client.consume()
    client.consume(channel=2)
    answer = client.ask(Basic.Consume, queue="q")
    assert is_close(answer, 530, "reached maximum (2) of consumers per channel", Basic.Consume)


def test_wrong_arguments_of_a_consumer(client: Client) -> None:
    answer = client.ask(Basic.Consume, queue="q", arguments={"x-priority": text("1")})
    title = "queue 'q' in vhost '/'"
    wanted = f"invalid arg 'x-priority' for {title}: \"expected integer, got longstr\""
    assert is_close(answer, 406, wanted, Basic.Consume)
    answer = client.ask(Basic.Consume, 2, queue="q", arguments={"x-stream-offset": text("first")})
    wanted = f"invalid arg 'x-stream-offset' for {title} of queue type rabbit_classic_queue"
    assert is_close(answer, 406, wanted, Basic.Consume)
    assert len(client.site.vhost.queues["q"].consumers) == 0


def test_consumers_take_turns_and_priority_goes_first(site: Site, client: Client) -> None:
    a, b = (site.connect() for _ in range(2))
    a.consume()
    b.consume()
    fill(client, 4)
    assert a.bodies() == [b"0", b"2"]
    assert b.bodies() == [b"1", b"3"]
    client.consume(no_ack=True, arguments={"x-priority": Field("byte", 1)})
    fill(client, 2)
    assert client.bodies() == [b"0", b"1"]


def test_cancel_ok_comes_after_the_last_delivery(client: Client) -> None:
    client.consume(consumer_tag="ct")
    client.feed(publish_octets(b"1") + octets_of(Basic.Cancel, consumer_tag="ct"))
    client.publish(b"2")
    assert [item.kind for item in client.read()] == [Basic.Deliver, Basic.CancelOk]
    assert counts(client.site) == (1, 1)
    # What was delivered may still be settled.
    client.tell(Basic.Ack, delivery_tag=1)
    assert client.read() == []
    assert counts(client.site) == (1, 0)


def test_cancel_of_an_unknown_tag_is_fine(client: Client) -> None:
    assert client.ask(Basic.Cancel, consumer_tag="nope").consumer_tag == "nope"


def test_last_consumer_takes_an_auto_delete_queue_along(site: Site, client: Client) -> None:
    client.queue("auto", auto_delete=True)
    client.consume("auto", consumer_tag="a")
    client.consume("auto", channel=2, consumer_tag="b")
    client.ask(Basic.Cancel, consumer_tag="a")
    assert "auto" in site.vhost.queues
    client.ask(Channel.Close, 2)
    assert "auto" not in site.vhost.queues


@pytest.mark.parametrize("understands", [True, False])
def test_consumers_of_a_deleted_queue_are_told_if_they_understand(
    site: Site, client: Client, *, understands: bool
) -> None:
    capabilities = ("consumer_cancel_notify",) if understands else ()
    other = site.connect(capabilities=capabilities)
    other.consume(consumer_tag="ct")
    fill(client, 1)
    other.read()
    client.ask(Queue.Delete, queue="q")
    told = other.read()
    if understands:
        (item,) = told
        assert (item.kind, item.method.consumer_tag, item.method.nowait) == (
            Basic.Cancel,
            "ct",
            True,
        )
    else:
        assert told == []
    assert other.connection.channels[1].consumers == {}
    # An answer nobody waits for is not taken for an error, and settling is to no effect.
    other.tell(Basic.Ack, delivery_tag=1)
    client.queue()
    other.consume(consumer_tag="ct")
    assert other.read() == []


# Getting


def test_get_answers_with_what_is_left(client: Client) -> None:
    fill(client, 2)
    first = client.ask(Basic.Get, queue="q")
    assert (first.delivery_tag, first.message_count, first.redelivered) == (1, 1, False)
    client.ask(Basic.Get, queue="q", no_ack=True)
    assert isinstance(client.ask(Basic.Get, queue="q"), Basic.GetEmpty)
    assert counts(client.site) == (0, 1)
    counters = client.site.broker.counters
    assert counters.messages_delivered_get_manual_ack == 1
    assert counters.messages_delivered_get_auto_ack == 1
    assert counters.messages_get_empty == 1


def test_gets_and_deliveries_share_their_tags(client: Client) -> None:
    client.queue("other")
    fill(client, 2, "other")
    client.tell(Basic.Get, queue="other")
    client.consume()
    client.publish(b"x")
    client.tell(Basic.Get, queue="other", no_ack=True)
    client.publish(b"y")
    assert [tag for tag, _, _ in delivered(client)] == [1, 2, 3, 4]


def test_what_was_got_and_not_settled_comes_back_with_its_channel(client: Client) -> None:
    fill(client, 3)
    for _ in range(2):
        client.tell(Basic.Get, 2, queue="q")
    client.ask(Channel.Close, 2)
    client.read()
    client.consume()
    assert delivered(client) == [(1, b"0", True), (2, b"1", True), (3, b"2", False)]


# Settling


def got(client: Client, count: int) -> None:
    fill(client, count)
    client.consume()
    client.read()


@pytest.mark.parametrize(
    ("kind", "arguments", "left"),
    [
        (Basic.Ack, {"delivery_tag": 2}, [1, 3, 4, 5]),
        (Basic.Ack, {"delivery_tag": 3, "multiple": True}, [4, 5]),
        (Basic.Ack, {"delivery_tag": 0, "multiple": True}, []),
        (Basic.Nack, {"delivery_tag": 2}, [1, 3, 4, 5]),
        (Basic.Nack, {"delivery_tag": 3, "multiple": True}, [4, 5]),
        (Basic.Nack, {"delivery_tag": 0, "multiple": True}, []),
        (Basic.Reject, {"delivery_tag": 4}, [1, 2, 3, 5]),
    ],
)
def test_settled_deliveries_are_gone(
    client: Client, kind: type[Method], arguments: Any, left: list[int]
) -> None:
    got(client, 5)
    client.tell(kind, **arguments)
    assert client.read() == []
    assert client.connection.channels[1].unacked.tags(0, multiple=True) == left
    assert counts(client.site) == (0, len(left))


@pytest.mark.parametrize(
    ("kind", "arguments", "back"),
    [
        (Basic.Nack, {"delivery_tag": 2}, [b"1"]),
        (Basic.Nack, {"delivery_tag": 3, "multiple": True}, [b"0", b"1", b"2"]),
        (Basic.Nack, {"delivery_tag": 0, "multiple": True}, [b"0", b"1", b"2", b"3", b"4"]),
        (Basic.Reject, {"delivery_tag": 5}, [b"4"]),
    ],
)
def test_requeued_deliveries_come_again_in_order_and_marked(
    client: Client, kind: type[Method], arguments: Any, back: list[bytes]
) -> None:
    got(client, 5)
    client.tell(kind, requeue=True, **arguments)
    assert [(body, again) for _, body, again in delivered(client)] == [(b, True) for b in back]


@pytest.mark.parametrize("kind", [Basic.Ack, Basic.Nack, Basic.Reject])
@pytest.mark.parametrize("tag", [0, 3, 2**63, 2**64 - 1])
def test_unknown_tag_closes_the_channel(client: Client, kind: type[Method], tag: int) -> None:
    got(client, 2)
    answer = client.ask(kind, delivery_tag=tag)
    assert is_close(answer, 406, f"unknown delivery tag {tag}", kind)
    assert counts(client.site) == (2, 0)


@pytest.mark.parametrize("kind", [Basic.Ack, Basic.Nack])
@pytest.mark.parametrize("tag", [2, 3])
def test_unknown_tag_settles_nothing_even_if_multiple(
    client: Client, kind: type[Method], tag: int
) -> None:
    got(client, 2)
    client.tell(Basic.Ack, delivery_tag=2)
    answer = client.ask(kind, delivery_tag=tag, multiple=True)
    assert is_close(answer, 406, f"unknown delivery tag {tag}", kind)
    assert counts(client.site) == (1, 0)


@pytest.mark.parametrize("kind", [Basic.Ack, Basic.Nack, Basic.Reject])
def test_settling_twice_closes_the_channel(client: Client, kind: type[Method]) -> None:
    got(client, 1)
    client.tell(kind, delivery_tag=1)
    answer = client.ask(kind, delivery_tag=1)
    assert is_close(answer, 406, "unknown delivery tag 1", kind)


def test_everything_may_be_acknowledged_where_there_is_nothing(client: Client) -> None:
    client.tell(Basic.Ack, delivery_tag=0, multiple=True)
    client.tell(Basic.Nack, delivery_tag=0, multiple=True)
    assert client.read() == []


@pytest.mark.parametrize("kind", [Basic.Ack, Basic.Nack])
def test_everything_is_all_that_was_due_before_in_the_chunk(
    client: Client, kind: type[Method]
) -> None:
    client.consume()
    client.feed(publish_octets(b"1") + octets_of(kind, delivery_tag=0, multiple=True))
    assert client.bodies() == [b"1"]
    assert counts(client.site) == (0, 0)


def test_tags_belong_to_their_channel(client: Client) -> None:
    got(client, 1)
    answer = client.ask(Basic.Ack, 2, delivery_tag=1)
    assert is_close(answer, 406, "unknown delivery tag 1", Basic.Ack)
    assert counts(client.site) == (0, 1)


def test_runs_of_acks_in_a_chunk_settle_all_of_them(client: Client) -> None:
    got(client, 100)
    order = [*range(1, 51), 99, 98, *range(51, 98), 100]
    client.feed(b"".join(octets_of(Basic.Ack, delivery_tag=tag) for tag in order))
    assert client.read() == []
    assert counts(client.site) == (0, 0)
    assert client.site.broker.counters.messages_acknowledged == 100
    assert client.site.broker.memory_used == 0


def test_acks_before_a_wrong_one_count(client: Client) -> None:
    got(client, 5)
    acks = [octets_of(Basic.Ack, delivery_tag=tag) for tag in (1, 2, 2, 3)]
    client.feed(b"".join(acks))
    (item,) = client.read()
    assert is_close(item.method, 406, "unknown delivery tag 2", Basic.Ack)
    assert counts(client.site) == (3, 0)


@pytest.mark.parametrize("kind", [Basic.Recover, Basic.RecoverAsync])
def test_recover_brings_everything_back(client: Client, kind: type[Method]) -> None:
    got(client, 3)
    client.tell(Basic.Ack, delivery_tag=2)
    client.tell(kind, requeue=True)
    received = client.read()
    kinds = [item.kind for item in received if item.kind is not Basic.Deliver]
    assert kinds == ([Basic.RecoverOk] if kind is Basic.Recover else [])
    assert [item.body for item in received if item.body] == [b"0", b"2"]


@pytest.mark.parametrize("kind", [Basic.Recover, Basic.RecoverAsync])
def test_recover_to_the_same_consumer_is_not_implemented(
    client: Client, kind: type[Method]
) -> None:
    answer = client.ask(kind, requeue=False)
    assert is_close(answer, 540, "requeue=false", kind)


# Missing names

NAMING: dict[type[Method], Any] = {
    Basic.Consume: {},
    Basic.Get: {},
    Queue.Purge: {},
    Queue.Delete: {},
    Queue.Bind: {"exchange": "amq.direct"},
    Queue.Unbind: {"exchange": "amq.direct"},
}


@pytest.mark.parametrize("kind", NAMING)
def test_empty_name_stands_for_the_queue_declared_last(client: Client, kind: type[Method]) -> None:
    answer = client.ask(kind, 2, **NAMING[kind])
    assert is_close(answer, 404, "no previously declared queue", kind)
    answer = client.ask(kind, 1, **NAMING[kind])
    assert not isinstance(answer, Channel.Close)


@pytest.mark.parametrize("kind", [Basic.Consume, Basic.Get, Queue.Purge, Queue.Bind])
def test_missing_queue_is_not_found(client: Client, kind: type[Method]) -> None:
    answer = client.ask(kind, queue="nope", **NAMING[kind])
    assert is_close(answer, 404, "no queue 'nope' in vhost '/'", kind)

"""Consumer timeout: what is not settled in time goes back, and who was late is told of."""

from __future__ import annotations

import pytest

from broker.wire.methods import Method
from tests.protocol.client import (
    Basic,
    Client,
    Queue,
    Site,
    Tx,
    is_close,
)
from tests.protocol.timing import SPAN, TIMEOUT, counts, deliveries, fill, timeout, timeouts_noted


@pytest.fixture
def client(site: Site) -> Client:
    client = site.connect(channels=2)
    client.queue(arguments=timeout())
    return client


def test_without_a_timeout_deliveries_stay_for_ever(site: Site) -> None:
    client = site.connect()
    client.queue()
    client.consume()
    client.publish()
    site.advance(10**10)
    assert counts(client) == (0, 1)
    assert site.broker.timers.next is None


def test_late_delivery_goes_back_and_on_to_another_consumer(site: Site, client: Client) -> None:
    client.consume(consumer_tag="stuck")
    client.publish(b"job")
    client.consume(channel=2, consumer_tag="other")
    assert deliveries(client) == [(1, b"job", False)]
    site.advance(TIMEOUT - 1)
    assert client.read() == []
    site.advance(1 + SPAN)
    assert deliveries(client, 1) == []
    assert deliveries(client, 2) == [(1, b"job", True)]
    assert counts(client) == (0, 1)
    assert site.vhost.queues["q"].unacked_count == 1


def test_only_consumer_of_a_queue_gets_it_again(site: Site, client: Client) -> None:
    client.ask(Basic.Qos, prefetch_count=1)
    client.consume()
    fill(client, 2)
    site.advance(TIMEOUT + SPAN)
    assert deliveries(client) == [(1, b"0", False), (2, b"0", True)]
    client.tell(Basic.Ack, delivery_tag=2)
    assert deliveries(client) == [(3, b"1", False)]


def test_log_tells_who_was_late_and_how_long(site: Site, client: Client) -> None:
    client.consume(consumer_tag="stuck")
    fill(client, 3)
    site.advance(TIMEOUT + SPAN)
    (details,) = timeouts_noted(site)
    age = details.pop("age")
    assert isinstance(age, int)
    assert TIMEOUT <= age <= TIMEOUT + SPAN
    assert details == {
        "connection": client.connection.name,
        "channel": 1,
        "consumer": "stuck",
        "queue": "q",
        "vhost": "/",
        "count": 3,
        "timeout": TIMEOUT,
        "action": "requeue",
    }
    assert site.broker.counters.messages_timed_out == 3


@pytest.mark.parametrize("kind", [Basic.Ack, Basic.Nack, Basic.Reject])
def test_late_settlement_is_ignored_and_counted(
    site: Site, client: Client, kind: type[Method]
) -> None:
    client.consume()
    client.publish(b"job")
    client.consume(channel=2)
    site.advance(TIMEOUT + SPAN)
    client.read()
    client.tell(kind, delivery_tag=1)
    assert client.read() == []
    assert counts(client) == (0, 1)
    assert site.broker.counters.messages_settled_late == 1
    assert site.broker.counters.messages_acknowledged == 0
    client.tell(Basic.Ack, 2, delivery_tag=1)
    assert counts(client) == (0, 0)
    # Whoever settles it twice errs, as always.
    client.tell(kind, delivery_tag=1)
    (item,) = client.read()
    assert is_close(item.method, 406, "unknown delivery tag 1", kind)


def test_other_deliveries_of_the_channel_live_on(site: Site, client: Client) -> None:
    client.consume()
    client.publish(b"late")
    site.advance(TIMEOUT // 2)
    client.publish(b"in time")
    client.queue("free")
    client.consume("free")
    client.publish(b"free", key="free")
    client.read()
    site.advance(TIMEOUT // 2 + SPAN)
    assert deliveries(client) == [(4, b"late", True)]
    for tag in (2, 3, 4):
        client.tell(Basic.Ack, delivery_tag=tag)
    assert (counts(client), counts(client, "free")) == ((0, 0), (0, 0))
    assert client.read() == []


@pytest.mark.parametrize("tag", [0, 2, 3])
def test_settling_many_passes_over_what_was_late(site: Site, client: Client, tag: int) -> None:
    client.queue("free")
    client.consume("free")
    client.publish(b"1", key="free")
    client.consume()
    client.publish(b"2")
    client.publish(b"3", key="free")
    client.consume(channel=2)
    site.advance(TIMEOUT + SPAN)
    client.read()
    client.tell(Basic.Ack, delivery_tag=tag, multiple=True)
    assert client.read() == []
    assert counts(client) == (0, 1)
    assert counts(client, "free") == (0, 1 if tag == 2 else 0)
    assert site.broker.counters.messages_settled_late == 1


def test_argument_of_the_consumer_comes_first(site: Site) -> None:
    client = site.connect(channels=3)
    client.queue(arguments=timeout(60_000))
    client.ask(Basic.Qos, prefetch_count=1)
    client.consume(consumer_tag="short", arguments=timeout(1000))
    client.tell(Basic.Qos, 2, prefetch_count=1)
    client.consume(channel=2, consumer_tag="never", arguments=timeout(0))
    client.tell(Basic.Qos, 3, prefetch_count=1)
    client.consume(channel=3, consumer_tag="queue")
    fill(client, 3)
    client.read()
    site.advance(1100)
    assert [details["consumer"] for details in timeouts_noted(site)] == ["short"]
    site.advance(70_000)
    assert [details["consumer"] for details in timeouts_noted(site)][1:] == ["queue"]
    assert counts(client) == (2, 1)


def test_who_is_late_gets_nothing_more_until_it_answers_if_there_are_others(
    site: Site, client: Client
) -> None:
    for channel in (1, 2):
        client.tell(Basic.Qos, channel, prefetch_count=2)
        client.consume(channel=channel, arguments=timeout(1000 if channel == 1 else 0))
    fill(client, 6)
    assert [body for _, body, _ in deliveries(client, 1)] == [b"0", b"2"]
    client.read()
    site.advance(1100)
    assert counts(client) == (4, 2)
    client.tell(Basic.Ack, 2, delivery_tag=1)
    assert deliveries(client, 2) == [(3, b"0", True)]
    assert deliveries(client, 1) == []
    client.tell(Basic.Ack, delivery_tag=1)
    assert deliveries(client, 1) == [(3, b"2", True)]
    client.tell(Basic.Nack, delivery_tag=2)
    assert deliveries(client, 1) == [(4, b"4", False)]


def test_place_on_a_limited_channel_is_kept_as_well(site: Site, client: Client) -> None:
    client.ask(Basic.Qos, prefetch_count=1, global_=True)
    client.consume()
    client.publish(b"1")
    client.tell(Basic.Qos, 2, prefetch_count=1, global_=True)
    client.consume(channel=2)
    site.advance(TIMEOUT + SPAN)
    client.publish(b"2")
    assert [body for _, body, _ in deliveries(client, 1)] == [b"1"]
    client.tell(Basic.Ack, delivery_tag=1)
    assert [body for _, body, _ in deliveries(client, 1)] == [b"2"]


def test_message_that_was_got_goes_back_by_the_queues_timeout(site: Site, client: Client) -> None:
    client.publish(b"1")
    client.tell(Basic.Get, queue="q")
    site.advance(TIMEOUT + SPAN)
    assert counts(client) == (1, 0)
    assert timeouts_noted(site)[0]["consumer"] == ""
    client.tell(Basic.Ack, delivery_tag=1)
    client.tell(Basic.Get, queue="q")
    assert deliveries(client) == [(1, b"1", False), (2, b"1", True)]
    client.tell(Basic.Ack, delivery_tag=2)
    assert counts(client) == (0, 0)


def test_deliveries_outlive_their_consumer_and_are_late_all_the_same(
    site: Site, client: Client
) -> None:
    client.consume(consumer_tag="c")
    client.publish(b"1")
    client.ask(Basic.Cancel, consumer_tag="c")
    site.advance(TIMEOUT + SPAN)
    assert counts(client) == (1, 0)


def test_deliveries_of_a_deleted_queue_are_nobodys(site: Site, client: Client) -> None:
    client.consume()
    client.publish(b"1")
    client.ask(Queue.Delete, queue="q")
    site.advance(TIMEOUT + SPAN)
    assert timeouts_noted(site) == []
    assert site.broker.timers.next is None


def test_no_ack_has_no_timeout(site: Site, client: Client) -> None:
    client.consume(no_ack=True)
    client.publish(b"1")
    client.tell(Basic.Get, queue="q", no_ack=True)
    assert site.broker.timers.next is None


def test_tags_that_wait_for_a_commit_are_not_late(site: Site, client: Client) -> None:
    client.ask(Tx.Select)
    client.consume()
    fill(client, 2, channel=2)
    client.tell(Basic.Ack, delivery_tag=1)
    client.tell(Basic.Cancel, consumer_tag="none", nowait=True)
    site.advance(TIMEOUT + SPAN)
    assert [details["count"] for details in timeouts_noted(site)] == [1]
    client.read()
    client.ask(Tx.Commit)
    assert site.broker.counters.messages_acknowledged == 1
    assert counts(client) == (0, 1)


def test_rolled_back_settlements_are_late_a_timeout_later_at_most(
    site: Site, client: Client
) -> None:
    client.ask(Tx.Select)
    client.tell(Basic.Qos, prefetch_count=1)
    client.consume()
    client.publish(b"1", channel=2)
    client.tell(Basic.Ack, delivery_tag=1)
    site.advance(TIMEOUT + SPAN)
    client.ask(Tx.Rollback)
    site.advance(TIMEOUT + SPAN)
    assert len(timeouts_noted(site)) == 1


@pytest.mark.parametrize("multiple", [False, True])
def test_late_settlement_in_a_transaction_waits_for_its_end(
    site: Site, client: Client, *, multiple: bool
) -> None:
    client.ask(Tx.Select)
    client.consume()
    client.publish(b"1", channel=2)
    client.consume(channel=2)
    site.advance(TIMEOUT + SPAN)
    client.read()
    for end in (Tx.Rollback, Tx.Commit):
        client.tell(Basic.Ack, delivery_tag=1, multiple=multiple)
        client.ask(end)
    assert site.broker.counters.messages_settled_late == 1
    assert counts(client) == (0, 1)
    client.tell(Basic.Ack, delivery_tag=1)
    (item,) = client.read()
    assert is_close(item.method, 406, "unknown delivery tag 1", Basic.Ack)


def test_settling_many_in_a_transaction_passes_over_what_is_late(
    site: Site, client: Client
) -> None:
    client.ask(Tx.Select)
    client.queue("free")
    client.consume("free")
    client.publish(b"1", key="free", channel=2)
    client.consume()
    client.publish(b"2", channel=2)
    client.consume(channel=2)
    site.advance(TIMEOUT + SPAN)
    client.read()
    client.tell(Basic.Ack, delivery_tag=2, multiple=True)
    client.ask(Tx.Commit)
    assert counts(client, "free") == (0, 0)
    assert site.broker.counters.messages_settled_late == 1


def test_settling_all_in_a_transaction_is_about_what_came_before(
    site: Site, client: Client
) -> None:
    client.ask(Tx.Select)
    client.consume()
    client.consume(channel=2)
    client.tell(Basic.Ack, delivery_tag=0, multiple=True)
    client.publish(b"1", channel=2)
    site.advance(TIMEOUT + SPAN)
    client.ask(Tx.Commit)
    assert site.broker.counters.messages_settled_late == 0
    client.tell(Basic.Ack, delivery_tag=1)
    assert [item.kind for item in client.read(1)] == [Basic.Deliver]

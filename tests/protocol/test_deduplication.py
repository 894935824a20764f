"""Exchanges and queues that take what is published once."""

from __future__ import annotations

import pytest

from broker.core.broker import Limits
from broker.core.deduplication import duplicates
from broker.wire.properties import HEADERS
from broker.wire.table import Field, encode_table
from tests.protocol.client import (
    Basic,
    Client,
    Confirm,
    Exchange,
    Queue,
    Site,
    Tx,
    publish_octets,
    text,
)
from tests.protocol.deduplicating import ON, called, drain, exchange, marked, number


@pytest.fixture
def site() -> Site:
    site = Site()
    site.wait_until(1_000_000)
    return site


@pytest.fixture
def client(site: Site) -> Client:
    return site.connect(channels=2)


# Exchanges


def test_second_message_with_the_same_header_is_not_routed(client: Client) -> None:
    exchange(client, x_cache_size=number(10))
    for key, body in (("1", b"a"), ("1", b"b"), ("2", b"c"), ("1", b"d")):
        client.publish(body, exchange="x", key="anything", **marked(key))
    assert drain(client) == [b"a", b"c"]
    counters = client.site.broker.counters
    assert counters.messages_deduplicated == 2
    assert counters.messages_received == 4
    assert counters.messages_unroutable_dropped == 0


def test_message_without_the_header_is_always_routed(client: Client) -> None:
    exchange(client, x_cache_size=number(10))
    for table in ({}, {"x-deduplication-header": Field("void", None)}, {"other": text("1")}):
        for _ in range(2):
            client.publish(b"a", exchange="x", flags=HEADERS, properties=encode_table(table))
    client.publish(b"a", exchange="x")
    assert len(drain(client)) == 7


def test_one_chunk_is_judged_as_one_by_one(client: Client) -> None:
    exchange(client, x_cache_size=number(2))
    keys = "AABACADABBA"
    octets = [
        publish_octets(b"%d" % place, exchange="x", **marked(key)) for place, key in enumerate(keys)
    ]
    client.feed(b"".join(octets))
    together = drain(client)
    client.site.vhost.exchanges["x"].duplicates.clear()  # type: ignore[union-attr]
    for each in octets:
        client.feed(each)
    assert drain(client) == together == [b"%d" % place for place in (0, 2, 4, 5, 6, 8, 10)]


def test_oldest_is_forgotten_when_there_are_too_many(client: Client) -> None:
    exchange(client, x_cache_size=number(2))
    for key in "abcbac":
        client.publish(key.encode(), exchange="x", **marked(key))
    assert drain(client) == [b"a", b"b", b"c", b"a"]


def test_duplicate_counts_for_as_long_as_it_is_asked_for(site: Site, client: Client) -> None:
    exchange(client, x_cache_size=number(10), x_cache_ttl=number(1000))
    client.publish(b"a", exchange="x", **marked("1"))
    site.advance(999)
    client.publish(b"b", exchange="x", **marked("1"))
    site.advance(1)
    client.publish(b"c", exchange="x", **marked("1"))
    assert drain(client) == [b"a", b"c"]


def test_message_says_for_how_long_it_is_remembered(site: Site, client: Client) -> None:
    exchange(client, x_cache_size=number(10), x_cache_ttl=number(1000))
    client.publish(b"short", exchange="x", **marked("1", x_cache_ttl=number(10)))
    client.publish(b"long", exchange="x", **marked("2", x_cache_ttl=Field("long", 5000)))
    client.publish(b"none", exchange="x", **marked("3", x_cache_ttl=number(0)))
    client.publish(b"wrong", exchange="x", **marked("4", x_cache_ttl=text("10")))
    client.publish(b"less", exchange="x", **marked("5", x_cache_ttl=number(-1)))
    drain(client)
    client.publish(b"none", exchange="x", **marked("3"))
    site.advance(500)
    for key in "1245":
        client.publish(key.encode(), exchange="x", **marked(key))
    site.advance(3000)
    for key in "245":
        client.publish(key.encode(), exchange="x", **marked(key))
    assert drain(client) == [b"none", b"1", b"4", b"5"]


def test_expired_ids_take_no_memory_for_long(
    site: Site, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "EXPIRED_IN_TURN", 2)
    exchange(client, x_cache_size=number(10_000), x_cache_ttl=number(1000))
    for key in range(100):
        client.publish(b"", exchange="x", **marked(key))
    drain(client)
    assert site.broker.memory_used == site.broker.window_bytes > 100 * 250
    site.advance(5000)
    assert site.broker.memory_used == site.broker.window_bytes == 0


def test_any_exchange_may_be_asked_for_it(client: Client) -> None:
    on = ON["x-message-deduplication"]
    exchange(client, kind="direct", x_message_deduplication=on, x_deduplication_header=text("key"))
    table = encode_table({"key": text("1")})
    for key, body in (("other", b"a"), ("k", b"b"), ("k", b"c")):
        client.publish(body, exchange="x", key=key, flags=HEADERS, properties=table)
    # What nobody got may come again.
    assert drain(client) == [b"b"]


@pytest.mark.parametrize("name", ["message-id", "message_id"])
def test_message_id_is_taken_where_asked(client: Client, name: str) -> None:
    exchange(client, x_cache_size=number(10), x_deduplication_header=text(name))
    for key in ("1", "1", "2", "", ""):
        client.publish(key.encode(), exchange="x", **called(key))
    client.publish(b"header", exchange="x", **marked("1"))
    assert drain(client) == [b"1", b"2", b"", b"", b"header"]


def test_numbers_and_texts_are_told_apart(client: Client) -> None:
    exchange(client, x_cache_size=number(10))
    for key in (number(1), Field("long", 1), text("1"), Field("bool", value=True), number(1)):
        client.publish(b"", exchange="x", **marked(key))
    assert len(drain(client)) == 3


def test_unroutable_message_leaves_nothing(client: Client) -> None:
    exchange(client, x_cache_size=number(10))
    client.ask(Queue.Unbind, queue="q", exchange="x", routing_key="k")
    client.publish(b"a", exchange="x", mandatory=True, **marked("1"))
    client.publish(b"a", exchange="x", mandatory=True, **marked("1"))
    assert [item.kind for item in client.read()] == [Basic.Return] * 2
    client.ask(Queue.Bind, queue="q", exchange="x", routing_key="k")
    for _ in range(2):
        client.publish(b"b", exchange="x", mandatory=True, **marked("1"))
    assert client.read() == []
    assert drain(client) == [b"b"]


def test_duplicate_is_confirmed_and_never_returned(client: Client) -> None:
    exchange(client, x_cache_size=number(10))
    client.ask(Confirm.Select)
    client.publish(b"a", exchange="x", **marked("1"))
    client.ask(Queue.Unbind, queue="q", exchange="x", routing_key="k")
    client.publish(b"b", exchange="x", mandatory=True, **marked("1"))
    acks = [(item.kind, item.method.delivery_tag) for item in client.read()]
    assert acks == [(Basic.Ack, 1), (Basic.Ack, 2)]


def test_refused_original_leaves_nothing(client: Client) -> None:
    full = {"x-max-length": number(1), "x-overflow": text("reject-publish")}
    client.queue("full", arguments=full)
    exchange(client, x_cache_size=number(10))
    client.ask(Queue.Bind, queue="full", exchange="x", routing_key="k")
    client.ask(Queue.Unbind, queue="q", exchange="x", routing_key="k")
    client.ask(Confirm.Select)
    client.publish(b"fills", exchange="x")
    client.publish(b"a", exchange="x", **marked("1"))
    assert [item.kind for item in client.read()] == [Basic.Ack, Basic.Nack]
    drain(client, "full")
    for _ in range(2):
        client.publish(b"b", exchange="x", **marked("1"))
    assert [item.kind for item in client.read(1)] == [Basic.Ack, Basic.Ack]
    assert drain(client, "full") == [b"b"]


def test_queue_that_took_what_another_refused_knows_it(client: Client) -> None:
    """Only queues can say of themselves what they have: an exchange is asked for all of them."""
    full = {"x-max-length": number(1), "x-overflow": text("reject-publish")}
    client.queue("full", arguments=full)
    client.queue("q", arguments={**ON, "x-cache-size": number(10)})
    for queue in ("full", "q"):
        client.ask(Queue.Bind, queue=queue, exchange="amq.fanout")
    client.ask(Confirm.Select)
    client.publish(b"fills", exchange="amq.fanout")
    client.publish(b"a", exchange="amq.fanout", **marked("1"))
    client.publish(b"a", exchange="amq.fanout", **marked("1"))
    assert [item.kind for item in client.read()] == [Basic.Ack, Basic.Nack, Basic.Nack]
    drain(client, "full")
    client.publish(b"a", exchange="amq.fanout", **marked("1"))
    assert [item.kind for item in client.read(1)] == [Basic.Ack]
    assert drain(client, "full") == [b"a"]
    assert drain(client) == [b"fills", b"a"]


def test_exchange_behind_another_judges_what_comes_to_it(client: Client) -> None:
    exchange(client, x_cache_size=number(10))
    client.queue("other")
    client.ask(Exchange.Bind, destination="x", source="amq.fanout", routing_key="")
    client.ask(Queue.Bind, queue="other", exchange="amq.fanout")
    for body in (b"a", b"b"):
        client.publish(body, exchange="amq.fanout", **marked("1"))
    client.publish(b"c", exchange="x", **marked("1"))
    assert drain(client) == [b"a"]
    assert drain(client, "other") == [b"a", b"b"]
    client.ask(Queue.Delete, queue="other")
    client.publish(b"d", exchange="amq.fanout", mandatory=True, **marked("1"))
    assert client.read() == []


def test_dead_letters_are_not_judged(client: Client) -> None:
    arguments = {**ON, "x-cache-size": number(10), "x-dead-letter-exchange": text("x")}
    client.ask(Exchange.Declare, exchange="x", exchange_type="fanout", arguments=ON)
    client.queue("q", arguments=arguments)
    client.ask(Queue.Bind, queue="q", exchange="x")
    client.publish(b"a", exchange="x", **marked("1"))
    client.consume("q", 2)
    for tag in (1, 2):
        client.tell(Basic.Reject, 2, delivery_tag=tag, requeue=False)
    assert client.bodies(2) == [b"a", b"a", b"a"]


# Queues


def test_queue_takes_a_message_once_however_it_comes(client: Client) -> None:
    client.queue("q", arguments={**ON, "x-cache-size": number(2)})
    client.ask(Queue.Bind, queue="q", exchange="amq.fanout")
    client.publish(b"a", **marked("1"))
    client.publish(b"b", exchange="amq.fanout", **marked("1"))
    client.publish(b"c", **marked("2"))
    assert drain(client) == [b"a", b"c"]
    client.publish(b"d", **marked("1"))
    assert drain(client) == []
    for key in "34":
        client.publish(key.encode(), **marked(key))
    client.publish(b"e", **marked("1"))
    assert drain(client) == [b"3", b"4", b"e"]
    assert client.site.broker.counters.messages_unroutable_dropped == 0


def test_purged_queue_takes_it_again(client: Client) -> None:
    client.queue("q", arguments={**ON, "x-cache-size": number(2)})
    client.publish(b"a", **marked("1"))
    assert client.ask(Queue.Purge, queue="q").message_count == 1
    client.publish(b"b", **marked("1"))
    assert drain(client) == [b"b"]


def test_queue_with_priorities_knows_duplicates(client: Client) -> None:
    arguments = {**ON, "x-cache-ttl": number(1000), "x-max-priority": number(3)}
    client.queue("q", arguments=arguments)
    for body in (b"a", b"b"):
        client.publish(body, **marked("1"))
    assert drain(client) == [b"a"]
    client.ask(Queue.Purge, queue="q")
    client.publish(b"c", **marked("1"))
    assert drain(client) == [b"c"]


# Transactions


def test_commit_to_an_exchange_that_is_deleted_takes_no_memory(site: Site, client: Client) -> None:
    exchange(client, x_cache_size=number(10))
    before = site.broker.memory_used
    client.ask(Tx.Select)
    client.publish(exchange="x", **marked("1"))
    client.ask(Exchange.Delete, 2, exchange="x")
    client.ask(Tx.Commit)
    assert drain(client) == [b""]
    assert site.broker.memory_used == before
    assert site.broker.window_bytes == 0


def test_message_of_a_transaction_counts_from_the_commit_on(client: Client) -> None:
    exchange(client, x_cache_size=number(10))
    client.ask(Tx.Select)
    client.publish(b"a", exchange="x", **marked("1"))
    client.publish(b"b", exchange="x", **marked("1"))
    client.publish(b"other", exchange="x", channel=2, **marked("2"))
    client.publish(b"c", exchange="x", **marked("2"))
    assert drain(client) == [b"other"]
    client.ask(Tx.Commit)
    assert drain(client) == [b"a"]
    client.publish(b"d", exchange="x", **marked("1"))
    client.ask(Tx.Commit)
    assert drain(client) == []


def test_rolled_back_message_leaves_nothing(client: Client) -> None:
    exchange(client, x_cache_size=number(10))
    client.ask(Tx.Select)
    client.publish(b"a", exchange="x", **marked("1"))
    client.ask(Tx.Rollback)
    client.publish(b"b", exchange="x", **marked("1"))
    client.ask(Tx.Commit)
    assert drain(client) == [b"b"]


@pytest.mark.parametrize("in_transaction", [False, True])
def test_blind_copies_are_judged_with_their_message(client: Client, in_transaction: bool) -> None:
    client.ask(Exchange.Declare, exchange="x", exchange_type="direct", arguments=ON)
    for queue in ("q", "copy"):
        client.queue(queue)
        client.ask(Queue.Bind, queue=queue, exchange="x", routing_key=queue)
    if in_transaction:
        client.ask(Tx.Select)
    copies = Field("array", [text("copy")])
    for body in (b"a", b"b"):
        client.publish(body, exchange="x", key="q", **marked("1", BCC=copies))
    if in_transaction:
        client.ask(Tx.Commit)
    assert [drain(client), drain(client, "copy")] == [[b"a"], [b"a"]]


# Bounds


def test_all_windows_together_take_a_part_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "SHRINK_AT_ONCE", 10)
    site = Site(memory=400_000)
    client = site.connect(channels=2)
    exchange(client, "x", x_cache_size=number(10_000))
    exchange(client, "y", x_cache_size=number(10_000))
    for key in range(50):
        client.publish(b"", exchange="y", **marked(key))
    for key in range(1000):
        client.publish(b"", exchange="x", **marked(key))
        drain(client) if key % 100 == 0 else None
        assert site.broker.window_bytes <= 100_000
    windows = {each.owner.name: len(each.window) for each in site.broker.windows}
    # The smaller one was left alone.
    assert windows["y"] == 50
    assert windows["x"] > 150
    told = [details for event, details in site.notes if event == "deduplication_short"]
    assert [(each["kind"], each["name"]) for each in told] == [("exchange", "x")]


def test_small_window_that_is_too_large_keeps_half(client: Client) -> None:
    client.site.broker.limits = Limits(memory=40_000)
    exchange(client, x_cache_size=number(100))
    for key in range(31):
        client.publish(exchange="x", **marked(key))
    found = client.site.vhost.exchanges["x"].duplicates
    assert found is not None
    assert len(found.window) == 16


def test_nothing_is_left_of_what_is_deleted(site: Site, client: Client) -> None:
    exchange(client, x_cache_size=number(10), x_cache_ttl=number(10_000))
    client.queue("w", arguments={**ON, "x-cache-size": number(10)})
    client.publish(b"a", exchange="x", **marked("1"))
    client.publish(b"a", key="w", **marked("1"))
    client.ask(Exchange.Delete, exchange="x")
    client.ask(Queue.Delete, queue="q")
    client.ask(Queue.Delete, queue="w")
    assert site.broker.memory_used == site.broker.window_bytes == 0
    assert not site.broker.windows
    assert site.vhost.policies.deduplicating_count == 0
    assert site.broker.timers.next is None or site.broker.timers.next > 0
    exchange(client, x_cache_size=number(10))
    client.publish(b"b", exchange="x", **marked("1"))
    assert drain(client) == [b"b"]

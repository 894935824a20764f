"""What dies in a queue, where it goes, and what it says of that."""

from __future__ import annotations

from typing import Any

import pytest

from broker.wire.frames import HEADER, frame
from broker.wire.methods import shortstr
from broker.wire.properties import (
    DELIVERY_MODE,
    EXPIRATION,
    HEADERS,
    MESSAGE_ID,
    PRIORITY,
    flags_of,
    headers_table,
)
from broker.wire.table import Field, Table, encode_table, plain
from tests.protocol.client import (
    Basic,
    Client,
    Exchange,
    Queue,
    Received,
    Site,
    Tx,
    publish_octets,
    text,
)
from tests.protocol.test_expiry import count, expiring, left, number


@pytest.fixture
def site() -> Site:
    site = Site()
    site.wait_until(5_000_000)
    return site


@pytest.fixture
def client(site: Site) -> Client:
    return site.connect(channels=2)


def declare(client: Client, name: str = "q", to: str = "d", **arguments: Field) -> None:
    """A queue whose dead letters go to another one."""
    names = {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
    dead = {"x-dead-letter-exchange": text(""), "x-dead-letter-routing-key": text(to)}
    if to == "d":
        client.queue(to)
    client.queue(name, arguments=names | dead)


def fetch(client: Client, name: str = "d") -> Received:
    """The next message of a queue."""
    client.tell(Basic.Get, queue=name, no_ack=True)
    (item,) = client.read()
    assert item.kind is Basic.GetOk
    return item


def header_of(item: Received) -> bytes:
    """The header frame of a message."""
    return frame(HEADER, item.channel, item.header)


def headers(item: Received) -> dict[str, Any]:
    """The headers of a message, without wire types."""
    return {name: plain(field) for name, field in headers_table(header_of(item)).items()}


def reject(client: Client, name: str = "q") -> None:
    """Takes the next message of a queue and rejects it."""
    client.tell(Basic.Get, queue=name)
    (item,) = client.read()
    client.tell(Basic.Reject, delivery_tag=item.method.delivery_tag, requeue=False)


def with_headers(table: Table, flags: int = 0, others: bytes = b"") -> dict[str, Any]:
    """The properties of a message."""
    return {"flags": HEADERS | flags, "properties": encode_table(table) + others}


def test_a_rejected_message_says_where_and_why_it_died(client: Client) -> None:
    declare(client)
    client.publish(b"body")
    reject(client)
    item = fetch(client)
    assert (item.body, item.method.exchange, item.method.routing_key) == (b"body", "", "d")
    assert not item.method.redelivered
    table = headers_table(header_of(item))
    events = table["x-death"].value
    assert isinstance(events, list)
    assert table["x-death"].type == "array"
    assert [event.type for event in events] == ["table"]
    assert events[0].value == {
        "count": Field("long", 1),
        "reason": text("rejected"),
        "queue": text("q"),
        "time": Field("timestamp", 5_000),
        "exchange": text(""),
        "routing-keys": Field("array", [text("q")]),
    }
    for order in ("first", "last"):
        assert [table[f"x-{order}-death-{name}"] for name in ("reason", "queue", "exchange")] == [
            text("rejected"),
            text("q"),
            text(""),
        ]


def test_body_and_other_properties_stay_as_they_were(client: Client) -> None:
    declare(client)
    odd = {
        "nan": Field("double", float("nan")),
        "big": Field("long", 2**40),
        "": Field("void", None),
    }
    client.publish(
        b"\x00\xce" * 50,
        **with_headers(odd, DELIVERY_MODE | PRIORITY | MESSAGE_ID, b"\x02\x07" + shortstr("id")),
    )
    reject(client)
    item = fetch(client)
    assert item.body == b"\x00\xce" * 50
    octets = encode_table(odd)[4:]
    assert octets in item.header
    assert item.header.endswith(b"\x02\x07\x02id")
    assert flags_of(header_of(item)) == HEADERS | DELIVERY_MODE | PRIORITY | MESSAGE_ID


def test_an_expiration_is_kept_in_the_history_alone(site: Site, client: Client) -> None:
    declare(client)
    client.publish(**expiring(100))
    site.wait_until(5_000_100)
    item = fetch(client)
    assert not flags_of(header_of(item)) & EXPIRATION
    (event,) = headers(item)["x-death"]
    assert (event["reason"], event["original-expiration"]) == (b"expired", b"100")


def test_the_same_death_again_is_counted_and_comes_first(site: Site, client: Client) -> None:
    declare(client, "q", "wait")
    declare(client, "wait", "q", message_ttl=number(1000))
    client.publish(b"job")
    for lap in range(3):
        reject(client)
        site.wait_until(5_001_000 + 1000 * lap)
    table = headers(fetch(client, "q"))
    events = [(event["queue"], event["reason"], event["count"]) for event in table["x-death"]]
    assert events == [(b"wait", b"expired", 3), (b"q", b"rejected", 3)]
    # The first time of each is kept.
    assert [event["time"] for event in table["x-death"]] == [5001, 5000]
    assert (table["x-first-death-queue"], table["x-last-death-queue"]) == (b"q", b"wait")
    assert (table["x-first-death-reason"], table["x-last-death-reason"]) == (
        b"rejected",
        b"expired",
    )


def test_without_a_key_of_the_queue_its_own_keys_lead_on(client: Client) -> None:
    client.ask(Exchange.Declare, exchange="dlx", exchange_type="topic")
    for name, key in (("one", "a.*"), ("two", "b.#"), ("three", "c")):
        client.queue(name)
        client.ask(Queue.Bind, queue=name, exchange="dlx", routing_key=key)
    client.queue("q", arguments={"x-dead-letter-exchange": text("dlx")})
    client.ask(Queue.Bind, queue="q", exchange="amq.topic", routing_key="a.1")
    copies = Field("array", [text("b.2"), text("b.3")])
    client.publish(b"x", exchange="amq.topic", key="a.1", **with_headers({"CC": copies}))
    reject(client)
    first, second = fetch(client, "one"), fetch(client, "two")
    assert (first.method.exchange, first.method.routing_key) == ("dlx", "a.1")
    assert first.header == second.header
    (event,) = headers(first)["x-death"]
    assert (event["exchange"], event["routing-keys"]) == (b"amq.topic", [b"a.1", b"b.2", b"b.3"])
    assert headers(first)["CC"] == [b"b.2", b"b.3"]
    assert left(client, "three") == []


def test_a_key_of_the_queue_takes_copies_out(client: Client) -> None:
    declare(client)
    client.publish(b"x", **with_headers({"CC": Field("array", [text("other")])}))
    reject(client)
    table = headers(fetch(client))
    assert "CC" not in table
    assert table["x-death"][0]["routing-keys"] == [b"q", b"other"]


def test_without_dead_letter_exchange_they_are_gone(site: Site, client: Client) -> None:
    client.queue("q", arguments={"x-dead-letter-exchange": text("nowhere")})
    client.queue("plain")
    for name in ("q", "plain"):
        client.publish(key=name)
        reject(client, name)
    assert site.broker.memory_used == 0
    counts = site.broker.counters.messages_dead_lettered
    assert counts == {("rejected", "at_most_once"): 1, ("rejected", "disabled"): 1}


def test_an_exchange_that_is_declared_later_counts(client: Client) -> None:
    client.queue("q", arguments={"x-dead-letter-exchange": text("later")})
    client.queue("d")
    client.publish()
    client.ask(Exchange.Declare, exchange="later", exchange_type="fanout")
    client.ask(Queue.Bind, queue="d", exchange="later", routing_key="")
    reject(client)
    assert count(client, "d") == 1


def test_what_would_go_round_for_ever_is_dropped(site: Site, client: Client) -> None:
    declare(client, "q", "q2", message_ttl=number(10))
    declare(client, "q2", "q", message_ttl=number(10))
    client.publish()
    site.wait_until(5_000_100)
    assert (count(client, "q"), count(client, "q2")) == (0, 0)
    assert ("dead_letter_cycle", {"queue": "q2", "targets": {"q": 1}}) in site.notes
    assert site.broker.memory_used == 0


def test_a_queue_is_its_own_dead_letter_queue_for_what_is_rejected(client: Client) -> None:
    declare(client, "q", "q")
    client.publish(b"again")
    for _ in range(3):
        reject(client)
    table = headers(fetch(client, "q"))
    assert [event["count"] for event in table["x-death"]] == [3]


def test_many_that_are_rejected_at_once_keep_their_order(client: Client) -> None:
    declare(client)
    client.consume()
    bodies = [b"%d" % place for place in range(50)]
    client.feed(b"".join(publish_octets(body) for body in bodies))
    client.read()
    client.tell(Basic.Nack, delivery_tag=0, multiple=True, requeue=False)
    assert left(client, "d") == bodies


def test_a_rejection_in_a_transaction_waits_for_the_commit(client: Client) -> None:
    declare(client)
    client.publish()
    client.ask(Tx.Select)
    reject(client)
    assert count(client, "d") == 0
    client.ask(Tx.Commit)
    assert count(client, "d") == 1


def test_purge_and_deletion_bury_nobody(client: Client) -> None:
    declare(client)
    client.publish()
    client.ask(Queue.Purge, queue="q")
    client.publish()
    client.ask(Queue.Delete, queue="q")
    assert count(client, "d") == 0


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_one_that_comes_back_too_often_dies(client: Client, limit: int) -> None:
    declare(client, delivery_limit=number(limit))
    client.publish(b"poison")
    client.publish(b"fine")
    for _ in range(limit + 1):
        client.tell(Basic.Get, queue="q")
        (item,) = client.read()
        assert item.body == b"poison"
        client.tell(Basic.Nack, delivery_tag=item.method.delivery_tag, requeue=True)
    assert left(client) == [b"fine"]
    (event,) = headers(fetch(client))["x-death"]
    assert (event["reason"], event["count"]) == (b"delivery_limit", 1)


def test_a_channel_that_closes_gives_messages_back_as_well(client: Client) -> None:
    declare(client, delivery_limit=number(0))
    client.publish(key="q")
    client.consume(channel=2)
    client.read()
    client.connection.receive_eof()
    other = client.site.connect()
    assert count(other, "d") == 1


def test_a_negative_delivery_limit_is_none(client: Client) -> None:
    declare(client, delivery_limit=number(-1))
    client.publish()
    for tag in range(1, 30):
        client.tell(Basic.Get, queue="q")
        client.tell(Basic.Nack, delivery_tag=tag, requeue=True)
    assert count(client) == 1


def test_what_a_client_says_of_deaths_is_taken_for_what_it_is(client: Client) -> None:
    declare(client)
    events = Field(
        "array",
        [
            text("no table"),
            Field("table", {"queue": text("q"), "reason": text("rejected"), "count": text("x")}),
            Field("table", {}),
        ],
    )
    client.publish(**with_headers({"x-death": events, "x-first-death-queue": Field("long", 1)}))
    reject(client)
    table = headers(fetch(client))
    assert [event.get("queue") for event in table["x-death"]] == [b"q", None]
    assert table["x-first-death-queue"] == 1


@pytest.mark.parametrize("kind", ["limit", "quorum", "classic"])
def test_redeliveries_are_counted_where_that_matters(client: Client, kind: str) -> None:
    arguments = {
        "limit": {"x-delivery-limit": number(5)},
        "quorum": {"x-queue-type": text("quorum")},
        "classic": {},
    }[kind]
    client.queue("d")
    client.queue("q", durable=True, arguments=arguments)
    client.publish(b"job", **with_headers({"x": Field("long", 1)}))
    counts = []
    for tag in range(1, 4):
        if tag < 3:
            client.tell(Basic.Get, queue="q")
        else:
            client.consume()
        (item,) = client.read()
        assert item.body == b"job"
        counts.append(headers(item).get("x-delivery-count"))
        if tag < 3:
            client.tell(Basic.Nack, delivery_tag=tag, requeue=True)
    assert counts == ([None, None, None] if kind == "classic" else [None, 1, 2])
    assert headers(item)["x"] == 1


def test_a_commit_of_which_a_queue_refuses_a_part_says_so(client: Client) -> None:
    client.queue(arguments={"x-max-length": number(1), "x-overflow": text("reject-publish")})
    client.ask(Tx.Select, 2)
    client.feed(publish_octets(b"1", channel=2) + publish_octets(b"2", channel=2))
    client.tell(Tx.Commit, 2)
    (item,) = client.read()
    assert item.method.reply_text == "PRECONDITION_FAILED - partial tx completion"
    assert (item.method.class_id, item.method.method_id) == (90, 20)
    assert left(client) == [b"1"]

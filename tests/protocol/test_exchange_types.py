"""Exchanges that choose one queue: by the hash of what a message says, or by chance."""

from collections import Counter
from typing import Any

import pytest

from broker.wire.methods import shortstr
from broker.wire.properties import CORRELATION_ID, HEADERS, MESSAGE_ID, TIMESTAMP
from broker.wire.table import Field, Table, encode_table
from tests.protocol.client import (
    Basic,
    Client,
    Confirm,
    Exchange,
    Queue,
    Site,
    Tx,
    is_close,
    publish_octets,
    text,
)

HASH = "x-consistent-hash"
NUMBERS = range(200)


def declare(client: Client, kind: str, name: str = "x", arguments: Table | None = None) -> None:
    answer = client.ask(
        Exchange.Declare, exchange=name, exchange_type=kind, arguments=arguments or {}
    )
    assert type(answer) is Exchange.DeclareOk


def bind(client: Client, *queues: str, key: str = "1", exchange: str = "x") -> None:
    for queue in queues:
        client.queue(queue)
        answer = client.ask(Queue.Bind, queue=queue, exchange=exchange, routing_key=key)
        assert type(answer) is Queue.BindOk


def with_headers(**headers: Field) -> dict[str, Any]:
    return {"flags": HEADERS, "properties": encode_table(headers)}


def taken(client: Client, *queues: str) -> dict[str, list[str]]:
    """The bodies in each of these queues, which are taken."""
    found = {}
    for queue in queues:
        tag = client.consume(queue, no_ack=True)
        found[queue] = [body.decode() for body in client.bodies()]
        client.ask(Basic.Cancel, consumer_tag=tag)
    return found


def test_messages_of_one_routing_key_stay_together_and_in_order(client: Client) -> None:
    declare(client, HASH)
    bind(client, "a", "b", "c")
    for number in NUMBERS:
        client.publish(f"{number % 20}:{number:03}".encode(), exchange="x", key=f"k{number % 20}")
    found = taken(client, "a", "b", "c")
    owners = {body.partition(":")[0]: queue for queue in found for body in found[queue]}
    assert sum(map(len, found.values())) == len(NUMBERS)
    assert set(owners.values()) == {"a", "b", "c"}
    for queue, bodies in found.items():
        assert bodies == [f"{n % 20}:{n:03}" for n in NUMBERS if owners[str(n % 20)] == queue]


@pytest.mark.parametrize(
    ("argument", "name", "make"),
    [
        ("hash-header", "room", lambda n: with_headers(room=text(f"room {n}"))),
        ("hash-header", "room", lambda n: with_headers(room=Field("signedint", n))),
        (
            "hash-property",
            "message_id",
            lambda n: {"flags": MESSAGE_ID, "properties": shortstr(f"id {n}")},
        ),
        (
            "hash-property",
            "correlation_id",
            lambda n: {"flags": CORRELATION_ID, "properties": shortstr(f"id {n}")},
        ),
        (
            "hash-property",
            "timestamp",
            lambda n: {"flags": TIMESTAMP, "properties": n.to_bytes(8, "big")},
        ),
    ],
)
def test_what_the_argument_names_decides(
    client: Client, argument: str, name: str, make: Any
) -> None:
    declare(client, HASH, arguments={argument: text(name)})
    bind(client, "a", "b")
    # Each value twice, with another routing key.
    for key in ("one", "two"):
        for number in range(40):
            client.publish(str(number).encode(), exchange="x", key=key, **make(number))
    found = taken(client, "a", "b")
    assert set(found["a"]).isdisjoint(found["b"])
    for bodies in found.values():
        assert len(bodies) > 10
        assert set(Counter(bodies).values()) == {2}


def test_integers_are_hashed_by_value_whatever_their_width(client: Client) -> None:
    declare(client, HASH, arguments={"hash-header": text("n")})
    bind(client, *"abcdef")
    for kind in ("byte", "short", "signedint", "long"):
        for number in range(20):
            headers: Table = {"n": Field(kind, number)}
            client.publish(str(number).encode(), exchange="x", **with_headers(**headers))
    found = taken(client, *"abcdef")
    assert all(set(Counter(bodies).values()) == {4} for bodies in found.values() if bodies)


@pytest.mark.parametrize(
    "arguments",
    [{"hash-header": text("h")}, {"hash-property": text("message_id")}],
)
def test_messages_without_what_is_hashed_stay_together(client: Client, arguments: Table) -> None:
    declare(client, HASH, arguments=arguments)
    bind(client, "a", "b", "c")
    for number in range(30):
        client.publish(b"x", exchange="x", key=f"k{number}")
        client.publish(b"x", exchange="x", **with_headers(other=text(f"{number}")))
        client.publish(b"x", exchange="x", **with_headers(h=Field("void", None)))
    counts = [len(bodies) for bodies in taken(client, "a", "b", "c").values()]
    assert sorted(counts) == [0, 0, 90]


def test_message_with_several_routing_keys_goes_where_the_first_leads(client: Client) -> None:
    declare(client, HASH)
    bind(client, "a", "b")
    more = Field("array", [text(f"cc{number}") for number in range(20)])
    for number in range(20):
        client.publish(f"{number}".encode(), exchange="x", key=f"{number}")
        client.publish(f"{number}".encode(), exchange="x", key=f"{number}", **with_headers(CC=more))
    found = taken(client, "a", "b")
    assert all(set(Counter(bodies).values()) == {2} for bodies in found.values())


@pytest.mark.parametrize(
    ("arguments", "explanation"),
    [
        ({"hash-property": text("app_id")}, "Unsupported property: app_id"),
        (
            {"hash-property": text("message_id"), "hash-header": text("h")},
            "hash-header and hash-property are mutually exclusive",
        ),
        (
            {"hash-header": Field("array", [])},
            "Invalid hash-header field type array (value []); expected longstr",
        ),
        (
            {"hash-property": Field("void", None)},
            "Invalid hash-property field type void (value undefined); expected longstr",
        ),
    ],
)
def test_wrong_argument_is_refused(client: Client, arguments: Table, explanation: str) -> None:
    answer = client.ask(
        Exchange.Declare, exchange="x", exchange_type=HASH, durable=True, arguments=arguments
    )
    assert is_close(answer, 406, explanation, Exchange.Declare)
    assert "x" not in client.site.vhost.exchanges


def test_argument_is_not_looked_at_when_the_exchange_is_there(client: Client) -> None:
    declare(client, HASH, arguments={"hash-header": text("h")})
    declare(client, HASH, arguments={"hash-property": text("nonsense")})
    bind(client, "a")
    assert client.site.vhost.exchanges["x"].router.key_source.name == "h"


def test_weight_that_is_no_number_is_refused(client: Client) -> None:
    declare(client, HASH)
    client.queue("a")
    answer = client.ask(Queue.Bind, queue="a", exchange="x", routing_key="k")
    assert is_close(answer, 406, 'The binding key must be an integer: <<"k">>', Queue.Bind)


def test_weight_of_an_exchange_that_is_no_number_is_refused(client: Client) -> None:
    declare(client, HASH)
    answer = client.ask(Exchange.Bind, destination="amq.fanout", source="x", routing_key="0")
    assert is_close(answer, 406, "The binding key must be greater than 0", Exchange.Bind)


@pytest.mark.parametrize(
    ("kind", "key"), [("x-random", "any"), ("x-local-random", ""), ("x-modulus-hash", "any")]
)
def test_each_message_goes_to_one_queue(client: Client, kind: str, key: str) -> None:
    declare(client, kind)
    bind(client, "a", "b", "c", key=key)
    for number in NUMBERS:
        client.publish(f"{number:03}".encode(), exchange="x", key=f"k{number}")
    found = taken(client, "a", "b", "c")
    assert sorted(body for bodies in found.values() for body in bodies) == [
        f"{number:03}" for number in NUMBERS
    ]
    assert all(len(bodies) > 40 for bodies in found.values())


def test_chance_is_cast_for_each_message_of_a_run(client: Client) -> None:
    declare(client, "x-random")
    bind(client, "a", "b")
    client.feed(b"".join(publish_octets(b"x", exchange="x", key="k") for _ in range(100)))
    found = taken(client, "a", "b")
    assert all(30 < len(bodies) < 70 for bodies in found.values())


def test_local_random_exchange_takes_queues_without_keys_only(client: Client) -> None:
    declare(client, "x-local-random")
    client.queue("a")
    answer = client.ask(Queue.Bind, queue="a", exchange="x", routing_key="k")
    assert is_close(answer, 406, "Non empty binding 'k' key not permitted", Queue.Bind)


def test_exchange_cannot_be_bound_to_a_local_random_one(client: Client) -> None:
    declare(client, "x-local-random")
    answer = client.ask(Exchange.Bind, destination="amq.fanout", source="x")
    assert is_close(answer, 406, "Destination not found", Exchange.Bind)


def test_exchanges_behind_a_hash_share_its_messages(client: Client) -> None:
    declare(client, HASH)
    for exchange in ("left", "right"):
        declare(client, "fanout", exchange)
        client.ask(Exchange.Bind, destination=exchange, source="x", routing_key="1")
        bind(client, f"{exchange} 1", f"{exchange} 2", exchange=exchange)
    for number in NUMBERS:
        client.publish(f"{number}".encode(), exchange="x", key=f"{number}")
    found = taken(client, "left 1", "left 2", "right 1", "right 2")
    assert found["left 1"] == found["left 2"]
    assert found["right 1"] == found["right 2"]
    assert len(found["left 1"]) + len(found["right 1"]) == len(NUMBERS)
    assert min(map(len, found.values())) > 50


def test_hash_of_a_header_behind_a_fanout_is_looked_at_for_each_message(client: Client) -> None:
    declare(client, HASH, arguments={"hash-header": text("h")})
    client.ask(Exchange.Bind, destination="x", source="amq.fanout")
    bind(client, "a", "b")
    for number in NUMBERS:
        client.publish(b"x", exchange="amq.fanout", **with_headers(h=text(f"{number}")))
    assert all(len(bodies) > 50 for bodies in taken(client, "a", "b").values())


@pytest.mark.parametrize("kind", [HASH, "x-modulus-hash", "x-random", "x-local-random"])
def test_exchange_without_bindings_gives_way_to_its_alternate(client: Client, kind: str) -> None:
    declare(client, kind, arguments={"alternate-exchange": text("amq.fanout")})
    client.publish(b"back", exchange="x", mandatory=True)
    assert [item.kind for item in client.read()] == [Basic.Return]
    bind(client, "rest", exchange="amq.fanout")
    client.publish(b"kept", exchange="x", mandatory=True)
    assert client.read() == []
    assert taken(client, "rest")["rest"] == ["kept"]


@pytest.mark.parametrize("kind", [HASH, "x-random"])
def test_transaction_and_confirms_know_these_exchanges(site: Site, kind: str) -> None:
    client, other = site.connect(), site.connect()
    declare(client, kind, arguments={"hash-header": text("h")} if kind == HASH else {})
    bind(client, "a", "b")
    client.ask(Tx.Select)
    for number in range(50):
        client.publish(b"x", exchange="x", **with_headers(h=text(f"{number}")))
    assert [len(bodies) for bodies in taken(other, "a", "b").values()] == [0, 0]
    client.ask(Tx.Commit)
    assert sum(len(bodies) for bodies in taken(other, "a", "b").values()) == 50
    other.ask(Confirm.Select)
    other.publish(b"x", exchange="x")
    (item,) = other.read()
    assert (item.kind, item.method.delivery_tag) == (Basic.Ack, 1)


def test_route_follows_what_is_bound_and_unbound(client: Client) -> None:
    declare(client, HASH)
    bind(client, "a")
    client.publish(b"1", exchange="x", key="k")
    bind(client, "b", key="1000")
    client.ask(Queue.Unbind, queue="a", exchange="x", routing_key="1")
    client.publish(b"2", exchange="x", key="k")
    client.ask(Queue.Delete, queue="b")
    client.publish(b"3", exchange="x", key="k", mandatory=True)
    assert [item.kind for item in client.read()] == [Basic.Return]
    assert taken(client, "a")["a"] == ["1"]


@pytest.mark.parametrize(
    "arguments", [{"hash-header": text("h")}, {"hash-property": text("message_id")}, {}]
)
def test_dead_letters_are_hashed_like_other_messages(client: Client, arguments: Table) -> None:
    declare(client, HASH, arguments=arguments)
    bind(client, "a", "b", "c")
    client.queue("dying", arguments={"x-dead-letter-exchange": text("x")})
    client.ask(Queue.Bind, queue="dying", exchange="amq.fanout")
    for number in range(60):
        properties = encode_table({"h": text(f"{number}")}) + shortstr(f"{number}")
        for exchange in ("x", "amq.fanout"):
            client.publish(
                f"{number}".encode(),
                exchange=exchange,
                key=f"{number}",
                flags=HEADERS | MESSAGE_ID,
                properties=properties,
            )
    for _ in range(60):
        answer = client.ask(Basic.Get, queue="dying")
        client.tell(Basic.Reject, delivery_tag=answer.delivery_tag)
    found = taken(client, "a", "b", "c")
    assert sum(map(len, found.values())) == 120
    assert all(set(Counter(bodies).values()) == {2} for bodies in found.values())

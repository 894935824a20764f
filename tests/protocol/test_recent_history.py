"""Exchanges of type x-recent-history: what is bound later gets the last messages."""

from typing import Any

import pytest

from broker.core import history
from broker.core.message import MESSAGE_OVERHEAD
from broker.wire.methods import shortstr
from broker.wire.properties import EXPIRATION, HEADERS
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
    text,
)

NO_STORE = "x-recent-history-no-store"


def declare(client: Client, name: str = "x", kind: str = "x-recent-history", **fields: Any) -> None:
    answer = client.ask(Exchange.Declare, exchange=name, exchange_type=kind, **fields)
    assert type(answer) is Exchange.DeclareOk


def keeping(length: int) -> Table:
    return {"x-recent-history-length": Field("signedint", length)}


def bind(client: Client, queue: str, key: str = "", exchange: str = "x") -> None:
    client.queue(queue)
    answer = client.ask(Queue.Bind, queue=queue, exchange=exchange, routing_key=key)
    assert type(answer) is Queue.BindOk


def publish(client: Client, *bodies: str, exchange: str = "x", **options: Any) -> None:
    for body in bodies:
        client.publish(body.encode(), exchange=exchange, key=f"key {body}", **options)


def taken(client: Client, queue: str) -> list[str]:
    """The bodies in a queue, which are taken."""
    tag = client.consume(queue, no_ack=True)
    bodies = [body.decode() for body in client.bodies()]
    client.ask(Basic.Cancel, consumer_tag=tag)
    return bodies


def with_header(field: Field) -> dict[str, Any]:
    return {"flags": HEADERS, "properties": encode_table({NO_STORE: field})}


def test_what_is_bound_gets_the_last_messages_in_order(client: Client) -> None:
    declare(client, arguments=keeping(3))
    publish(client, *"abcde")
    bind(client, "q")
    assert taken(client, "q") == ["c", "d", "e"]
    publish(client, "f")
    assert taken(client, "q") == ["f"]
    bind(client, "late")
    assert taken(client, "late") == ["d", "e", "f"]


def test_twenty_messages_are_kept_if_nothing_else_is_said(client: Client) -> None:
    declare(client)
    publish(client, *(f"{number}" for number in range(25)))
    bind(client, "q")
    assert taken(client, "q") == [f"{number}" for number in range(5, 25)]


def test_kept_message_comes_as_it_was_published_first(client: Client) -> None:
    declare(client)
    headers = encode_table({"a": text("b")})
    client.publish(b"body", exchange="x", key="key", flags=HEADERS, properties=headers)
    bind(client, "q")
    client.consume("q", no_ack=True)
    (item,) = client.read()
    method = item.method
    assert (method.exchange, method.routing_key, method.redelivered) == ("x", "key", False)
    assert item.header[12:] == b"\x20\x00" + headers
    assert item.body == b"body"


def test_binding_that_is_there_gives_nothing_again_and_a_second_one_does(client: Client) -> None:
    declare(client)
    publish(client, "a")
    bind(client, "q")
    bind(client, "q")
    assert taken(client, "q") == ["a"]
    bind(client, "q", key="other")
    assert taken(client, "q") == ["a"]
    publish(client, "b")
    assert taken(client, "q") == ["b"]


@pytest.mark.parametrize(
    ("field", "is_kept"),
    [
        (Field("bool", value=True), False),
        (Field("bool", value=False), True),
        (text("true"), True),
        (Field("signedint", 1), True),
        (Field("void", None), True),
    ],
)
def test_message_may_say_that_it_is_not_to_be_kept(
    client: Client, field: Field, is_kept: bool
) -> None:
    declare(client)
    bind(client, "early")
    publish(client, "a", **with_header(field))
    assert taken(client, "early") == ["a"]
    bind(client, "q")
    assert taken(client, "q") == (["a"] if is_kept else [])


def test_message_without_a_queue_is_kept_and_still_counts_as_not_routed(client: Client) -> None:
    declare(client)
    publish(client, "dropped")
    publish(client, "back", mandatory=True)
    assert [item.kind for item in client.read()] == [Basic.Return]
    counters = client.site.broker.counters
    assert counters.messages_unroutable_dropped == counters.messages_unroutable_returned == 1
    assert counters.messages_routed == 0
    bind(client, "q")
    assert counters.messages_routed == 2
    publish(client, "c", mandatory=True)
    assert counters.messages_routed == 3
    assert client.read() == []
    assert taken(client, "q") == ["dropped", "back", "c"]


def test_alternate_exchange_gets_what_is_only_kept(client: Client) -> None:
    declare(client, arguments={"alternate-exchange": text("amq.fanout")})
    bind(client, "rest", exchange="amq.fanout")
    publish(client, "a", mandatory=True)
    assert client.read() == []
    assert taken(client, "rest") == ["a"]
    bind(client, "q")
    assert taken(client, "q") == ["a"]


def test_messages_that_come_through_other_exchanges_are_kept(client: Client) -> None:
    declare(client)
    client.ask(Exchange.Bind, destination="x", source="amq.fanout")
    publish(client, "a", "b", exchange="amq.fanout")
    bind(client, "q")
    assert taken(client, "q") == ["a", "b"]


def test_exchange_that_is_bound_routes_what_is_kept(client: Client) -> None:
    declare(client)
    publish(client, *"abc")
    bind(client, "q", key="key b", exchange="amq.direct")
    client.ask(Exchange.Bind, destination="amq.direct", source="x")
    assert taken(client, "q") == ["b"]
    publish(client, "b", "c")
    assert taken(client, "q") == ["b"]


def test_carbon_copies_are_routed_behind_an_exchange_that_is_bound(client: Client) -> None:
    declare(client)
    copies = encode_table({"CC": Field("array", [text("copy")])})
    client.publish(b"a", exchange="x", key="key", flags=HEADERS, properties=copies)
    bind(client, "q", key="copy", exchange="amq.direct")
    client.ask(Exchange.Bind, destination="amq.direct", source="x")
    assert taken(client, "q") == ["a"]


def test_exchanges_in_a_circle_keep_each_message_once(client: Client) -> None:
    declare(client)
    declare(client, "y")
    publish(client, "a")
    client.ask(Exchange.Bind, destination="y", source="x")
    client.ask(Exchange.Bind, destination="x", source="y")
    publish(client, "b")
    for exchange in "xy":
        bind(client, f"of {exchange}", exchange=exchange)
        found = taken(client, f"of {exchange}")
        assert [body for body in found if body == "b"] == ["b"]
        assert found[0] == "a"


def test_transaction_is_kept_at_its_commit(site: Site) -> None:
    client, other = site.connect(), site.connect()
    declare(client)
    client.ask(Tx.Select)
    publish(client, "a")
    bind(other, "early")
    assert taken(other, "early") == []
    client.ask(Tx.Commit)
    bind(other, "late")
    assert taken(other, "early") == taken(other, "late") == ["a"]


def test_dead_letters_are_kept(client: Client) -> None:
    declare(client)
    client.queue("dying", arguments={"x-dead-letter-exchange": text("x")})
    client.publish(b"a", key="dying")
    answer = client.ask(Basic.Get, queue="dying")
    client.tell(Basic.Reject, delivery_tag=answer.delivery_tag)
    client.read()
    bind(client, "q")
    assert taken(client, "q") == ["a"]


def test_full_queue_that_refuses_gets_only_what_it_may_hold(client: Client) -> None:
    declare(client)
    publish(client, *"abc")
    limits = {"x-max-length": Field("signedint", 2), "x-overflow": text("reject-publish")}
    client.queue("q", arguments=limits)
    client.ask(Queue.Bind, queue="q", exchange="x")
    assert taken(client, "q") == ["a", "b"]


def test_expiration_counts_from_when_a_message_comes_to_a_queue(client: Client) -> None:
    declare(client)
    publish(client, "a", flags=EXPIRATION, properties=shortstr("1000"))
    timers = client.site.broker.timers
    timers.advance(timers.now + 5000)
    bind(client, "q")
    assert taken(client, "q") == ["a"]
    bind(client, "late")
    timers.advance(timers.now + 999)
    assert client.site.vhost.queues["late"].messages_ready == 1
    timers.advance(timers.now + 2)
    client.site.broker.run_deliveries()
    assert client.site.vhost.queues["late"].messages_ready == 0


def test_what_is_kept_counts_as_memory_until_the_exchange_goes(client: Client) -> None:
    broker = client.site.broker
    declare(client, arguments=keeping(2))
    publish(client, *"abcd")
    content = 7 + 14 + 1 + 8 + 1
    assert broker.memory_used == 2 * (content + MESSAGE_OVERHEAD)
    client.ask(Exchange.Delete, exchange="x")
    assert broker.memory_used == 0
    declare(client)
    bind(client, "q")
    assert taken(client, "q") == []


def test_octets_that_are_kept_are_bounded(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "BODIES_MAX", 10)
    declare(client, arguments=keeping(1000))
    publish(client, "aaaa", "bbbb", "cccc", "dd")
    bind(client, "q")
    assert taken(client, "q") == ["bbbb", "cccc", "dd"]
    publish(client, "e" * 11)
    bind(client, "late")
    assert taken(client, "late") == []


def test_messages_that_are_kept_are_bounded(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "LENGTH_MAX", 5)
    declare(client, arguments={"x-recent-history-length": Field("long", 2**40)})
    publish(client, *"abcdefgh")
    bind(client, "q")
    assert taken(client, "q") == [*"defgh"]


def test_bindings_cannot_copy_without_end() -> None:
    limit = 20_000
    site = Site(memory=limit)
    client = site.connect()
    declare(client)
    for number in range(20):
        client.publish(b"x" * 400, exchange="x", key=f"{number}")
    client.queue("q")
    for number in range(100):
        answer = client.ask(Queue.Bind, queue="q", exchange="x", routing_key=f"{number}")
        if type(answer) is not Queue.BindOk:
            break
    kept = site.vhost.exchanges["x"].history
    assert kept is not None
    used = site.broker.memory_used - kept.ready_bytes
    wanted = (
        f"there is no memory for what exchange 'x' in vhost '/' keeps: {used} octets are used "
        f"beside it, far above the limit ({limit})"
    )
    assert is_close(answer, 506, wanted, Queue.Bind)
    assert 2 * limit < used < 3.5 * limit
    site.connect().ask(Queue.Purge, queue="q")
    bind(site.connect(), "late")


def test_confirms_come_for_what_is_only_kept(client: Client) -> None:
    declare(client)
    client.ask(Confirm.Select)
    publish(client, "a")
    (item,) = client.read()
    assert (item.kind, item.method.delivery_tag) == (Basic.Ack, 1)


def test_nobody_can_reach_what_is_kept_by_a_name(client: Client) -> None:
    declare(client)
    publish(client, "a")
    assert not client.site.vhost.queues
    name = "history of exchange x"
    client.publish(b"back", key=name, mandatory=True)
    assert [item.kind for item in client.read()] == [Basic.Return]

"""Queues and exchanges over the wire: names, answers, and the errors of each method."""

import re
from typing import Any

import pytest

from broker.core.users import Permission
from broker.protocol.states import ConnectionState
from broker.wire.methods import AccessRequest, Method, commands
from broker.wire.table import Field
from tests.protocol.client import (
    Basic,
    Channel,
    Client,
    Exchange,
    Queue,
    Site,
    is_close,
    octets_of,
    publish_octets,
    text,
)

LOCKED = (
    "cannot obtain exclusive access to locked queue 'mine' in vhost '/'. It could be originally "
    "declared on another connection or the exclusive property value does not match that of the "
    "original declaration."
)


# Queues


def test_declare_ok_tells_how_many_wait_and_who_consumes(client: Client) -> None:
    client.queue()
    client.feed(publish_octets(b"x") * 3 + octets_of(Queue.Declare, queue="q"))
    (item,) = client.read()
    answer = item.method
    assert (answer.queue, answer.message_count, answer.consumer_count) == ("q", 3, 0)
    client.consume()
    answer = client.ask(Queue.Declare, queue="q", passive=True)
    # Unacknowledged messages do not wait.
    assert (answer.message_count, answer.consumer_count) == (0, 1)


def test_server_makes_a_name(client: Client) -> None:
    names = {client.ask(Queue.Declare).queue for _ in range(3)}
    assert len(names) == 3
    assert all(re.fullmatch(r"amq\.gen-[\w-]{22}", name) for name in names)
    assert client.ask(Queue.Purge).message_count == 0


@pytest.mark.parametrize("kind", [Queue.Declare, Queue.Delete])
def test_line_ends_are_stripped_from_names(client: Client, kind: type[Method]) -> None:
    client.queue("a\r\nb")
    assert list(client.site.vhost.queues) == ["ab"]
    answer = client.ask(kind, queue="\nab\r")
    assert not isinstance(answer, Channel.Close)
    assert list(client.site.vhost.queues) == (["ab"] if kind is Queue.Declare else [])


@pytest.mark.parametrize("name", ["é", "a b", "*", "x" * 255, "漢" * 85])
def test_any_text_is_a_name(client: Client, name: str) -> None:
    assert client.ask(Queue.Declare, queue=name).queue == name
    client.publish(b"x", key=name)
    assert client.ask(Queue.Declare, queue=name).message_count == 1


@pytest.mark.parametrize("name", ["amq.mine", "amq.", "amq.gen-x"])
def test_reserved_names_are_refused(client: Client, name: str) -> None:
    answer = client.ask(Queue.Declare, queue=name)
    wanted = f"queue name '{name}' contains reserved prefix 'amq.*'"
    assert is_close(answer, 403, wanted, Queue.Declare)


def test_passive_declare_looks_and_makes_nothing(client: Client) -> None:
    client.queue(durable=True, auto_delete=True)
    answer = client.ask(Queue.Declare, queue="q", passive=True, exclusive=True)
    assert answer.queue == "q"
    answer = client.ask(Queue.Declare, queue="nope", passive=True)
    assert is_close(answer, 404, "no queue 'nope' in vhost '/'", Queue.Declare)
    assert list(client.site.vhost.queues) == ["q"]


USES: list[tuple[type[Method], dict[str, Any]]] = [
    (Queue.Declare, {}),
    (Queue.Declare, {"passive": True}),
    (Queue.Declare, {"exclusive": True}),
    (Queue.Bind, {"exchange": "amq.direct"}),
    (Queue.Purge, {}),
    (Queue.Delete, {}),
    (Basic.Consume, {}),
    (Basic.Get, {}),
]


@pytest.mark.parametrize(("kind", "arguments"), USES)
def test_exclusive_queue_is_locked_for_others(
    site: Site, client: Client, kind: type[Method], arguments: dict[str, Any]
) -> None:
    client.queue("mine", exclusive=True)
    other = site.connect()
    answer = other.ask(kind, queue="mine", **arguments)
    assert is_close(answer, 405, LOCKED, kind)
    # Another channel of the same connection may use it.
    client.ask(Channel.Open, 2)
    own = {"exclusive": True} if kind is Queue.Declare else {}
    answer = client.ask(kind, 2, queue="mine", **arguments | own)
    assert not isinstance(answer, Channel.Close)


def test_exclusive_queue_goes_with_its_connection_before_close_ok(site: Site) -> None:
    client = site.connect()
    client.queue("mine", exclusive=True)
    client.tell(commands.Connection.Close, 0)
    assert "mine" not in site.vhost.queues
    client = site.connect()
    client.queue("mine", exclusive=True)
    client.connection.receive_eof()
    assert "mine" not in site.vhost.queues
    assert site.broker.counters.queues_deleted == 2


def test_deleted_exclusive_queue_is_forgotten_by_its_connection(client: Client) -> None:
    client.queue("mine", exclusive=True)
    client.ask(Queue.Delete, queue="mine")
    assert client.connection.exclusive_queues == {}
    client.queue("mine")
    client.connection.receive_eof()
    assert "mine" in client.site.vhost.queues


def test_delete_tells_how_many_messages_went(client: Client) -> None:
    client.queue()
    client.feed(publish_octets(b"x") * 3 + octets_of(Queue.Delete, queue="q"))
    (item,) = client.read()
    assert item.method.message_count == 3
    assert client.ask(Queue.Delete, queue="q").message_count == 0


def test_queue_that_must_stay_is_not_deleted(client: Client) -> None:
    client.queue()
    client.publish(b"x")
    answer = client.ask(Queue.Delete, queue="q", if_empty=True)
    assert is_close(answer, 406, "queue 'q' in vhost '/' not empty", Queue.Delete)
    client.ask(Channel.Open, 2)
    client.consume(channel=2)
    answer = client.ask(Queue.Delete, 2, queue="q", if_unused=True)
    assert is_close(answer, 406, "queue 'q' in vhost '/' in use", Queue.Delete)


def test_purge_tells_how_many_messages_went(client: Client) -> None:
    client.queue()
    client.feed(publish_octets(b"x") * 3)
    client.tell(Basic.Get, queue="q")
    client.read()
    assert client.ask(Queue.Purge, queue="q").message_count == 2
    assert client.site.vhost.queues["q"].messages == 1


@pytest.mark.parametrize("key", ["", "k"])
def test_binding_without_names_is_by_the_queues_name(client: Client, key: str) -> None:
    client.queue()
    client.ask(Queue.Bind, exchange="amq.direct", routing_key=key)
    client.publish(b"x", exchange="amq.direct", key=key or "q")
    assert client.site.vhost.queues["q"].messages == 1
    client.ask(Queue.Unbind, exchange="amq.direct", routing_key=key)
    client.publish(b"x", exchange="amq.direct", key=key or "q")
    assert client.site.vhost.queues["q"].messages == 1


def test_named_queue_with_an_empty_key_is_bound_with_that(client: Client) -> None:
    client.queue()
    client.ask(Queue.Bind, queue="q", exchange="amq.direct", routing_key="")
    client.publish(b"x", exchange="amq.direct", key="")
    client.publish(b"x", exchange="amq.direct", key="q")
    assert client.site.vhost.queues["q"].messages == 1


@pytest.mark.parametrize("exchange", ["nope", "amq.direct"])
@pytest.mark.parametrize("queue", ["nope", "q"])
def test_what_is_not_bound_may_be_unbound(client: Client, exchange: str, queue: str) -> None:
    client.queue()
    answer = client.ask(Queue.Unbind, queue=queue, exchange=exchange, routing_key="k")
    assert isinstance(answer, Queue.UnbindOk)


def test_missing_exchange_cannot_be_bound(client: Client) -> None:
    client.queue()
    answer = client.ask(Queue.Bind, queue="q", exchange="nope")
    assert is_close(answer, 404, "no exchange 'nope' in vhost '/'", Queue.Bind)


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (
            {"x-dead-letter-exchange": Field("signedint", 1)},
            "invalid type 'signedint' for arg 'x-dead-letter-exchange' in queue 'q' in vhost '/'",
        ),
        (
            {"x-overflow": text("nope")},
            "invalid arg 'x-overflow' for queue 'q' in vhost '/': invalid_overflow",
        ),
    ],
)
def test_wrong_arguments_of_a_queue(client: Client, arguments: Any, wanted: str) -> None:
    answer = client.ask(Queue.Declare, queue="q", arguments=arguments)
    assert is_close(answer, 406, wanted, Queue.Declare)
    assert client.site.vhost.queues == {}


def test_difference_names_the_wire_type(client: Client) -> None:
    client.queue(arguments={"x-max-length": Field("long", 5)})
    client.queue(arguments={"x-max-length": Field("byte", 5), "other": text("x")})
    answer = client.ask(Queue.Declare, queue="q")
    wanted = (
        "inequivalent arg 'x-max-length' for queue 'q' in vhost '/': "
        "received none but current is the value '5' of type 'long'"
    )
    assert is_close(answer, 406, wanted, Queue.Declare)


# Exchanges


@pytest.mark.parametrize("kind", ["direct", "fanout", "topic", "headers"])
def test_exchange_of_each_type_is_declared_and_deleted(client: Client, kind: str) -> None:
    for _ in range(2):
        answer = client.ask(Exchange.Declare, exchange="x", exchange_type=kind)
        assert isinstance(answer, Exchange.DeclareOk)
    client.ask(Exchange.Declare, exchange="x", passive=True, exchange_type="whatever")
    for _ in range(2):
        assert isinstance(client.ask(Exchange.Delete, exchange="x"), Exchange.DeleteOk)


def test_predeclared_exchange_may_be_declared_again(client: Client) -> None:
    answer = client.ask(Exchange.Declare, exchange="amq.topic", exchange_type="topic", durable=True)
    assert isinstance(answer, Exchange.DeclareOk)


@pytest.mark.parametrize(
    ("arguments", "code", "wanted"),
    [
        ({"exchange": "x", "exchange_type": "nope"}, 503, "unknown exchange type 'nope'"),
        (
            {"exchange": "amq.x", "exchange_type": "direct"},
            403,
            "exchange name 'amq.x' contains reserved prefix 'amq.*'",
        ),
        (
            {"exchange": "", "exchange_type": "direct"},
            403,
            "operation not permitted on the default exchange",
        ),
        ({"exchange": "nope", "passive": True}, 404, "no exchange 'nope' in vhost '/'"),
    ],
    ids=["type", "reserved", "default", "passive"],
)
def test_exchange_that_cannot_be_declared(
    client: Client, arguments: dict[str, Any], code: int, wanted: str
) -> None:
    answer = client.ask(Exchange.Declare, **arguments)
    assert is_close(answer, code, wanted, Exchange.Declare)
    hard = client.connection.state is ConnectionState.CLOSING
    assert hard == (code == 503)


def test_alternate_exchange_is_named_by_a_string(client: Client) -> None:
    answer = client.ask(
        Exchange.Declare,
        exchange="x",
        exchange_type="direct",
        arguments={"alternate-exchange": Field("bool", value=True)},
    )
    wanted = "invalid type 'bool' for arg 'alternate-exchange' in exchange 'x' in vhost '/'"
    assert is_close(answer, 406, wanted, Exchange.Declare)


def test_system_exchange_is_not_deleted(client: Client) -> None:
    answer = client.ask(Exchange.Delete, exchange="amq.direct")
    wanted = "deletion of system exchange 'amq.direct' in vhost '/' not allowed"
    assert is_close(answer, 403, wanted, Exchange.Delete)


def test_exchange_in_use_is_not_deleted_if_it_must_be_unused(client: Client) -> None:
    client.ask(Exchange.Declare, exchange="x", exchange_type="fanout")
    client.queue()
    client.ask(Queue.Bind, queue="q", exchange="x")
    answer = client.ask(Exchange.Delete, exchange="x", if_unused=True)
    assert is_close(answer, 406, "exchange 'x' in vhost '/' in use", Exchange.Delete)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (Exchange.Delete, {"exchange": ""}),
        (Exchange.Bind, {"source": "", "destination": "amq.topic"}),
        (Exchange.Bind, {"source": "amq.topic", "destination": ""}),
        (Exchange.Unbind, {"source": "", "destination": "amq.topic"}),
        (Exchange.Unbind, {"source": "amq.topic", "destination": ""}),
        (Queue.Bind, {"queue": "q", "exchange": ""}),
        (Queue.Unbind, {"queue": "q", "exchange": ""}),
    ],
)
def test_default_exchange_is_left_alone(
    client: Client, kind: type[Method], arguments: dict[str, Any]
) -> None:
    client.queue()
    answer = client.ask(kind, **arguments)
    assert is_close(answer, 403, "operation not permitted on the default exchange", kind)


def test_exchanges_are_bound_to_each_other(client: Client) -> None:
    client.queue()
    client.ask(Queue.Bind, queue="q", exchange="amq.fanout")
    route = {"destination": "amq.fanout", "source": "amq.topic", "routing_key": "a.#"}
    for body, kind in ((b"no", Exchange.Bind), (b"yes", Exchange.Unbind), (b"no", Exchange.Bind)):
        client.publish(body, exchange="amq.topic", key="a.b.c")
        client.ask(kind, 1, **route)
    client.consume(no_ack=True)
    assert client.bodies() == [b"yes"]


@pytest.mark.parametrize("missing", ["source", "destination"])
def test_exchanges_to_bind_have_to_be_there(client: Client, missing: str) -> None:
    route = {"destination": "amq.fanout", "source": "amq.topic"} | {missing: "nope"}
    assert isinstance(client.ask(Exchange.Unbind, 1, **route), Exchange.UnbindOk)
    answer = client.ask(Exchange.Bind, 1, **route)
    assert is_close(answer, 404, "no exchange 'nope' in vhost '/'", Exchange.Bind)


def test_wrong_match_of_a_headers_binding(client: Client) -> None:
    client.queue()
    answer = client.ask(
        Queue.Bind, queue="q", exchange="amq.headers", arguments={"x-match": text("some")}
    )
    wanted = 'Invalid x-match field value <<"some">>; expected all, any, all-with-x, or any-with-x'
    assert is_close(answer, 406, wanted, Queue.Bind)


def test_old_clients_get_their_ticket(client: Client) -> None:
    assert client.ask(AccessRequest, realm="/data", flags=31).ticket == 1


def test_changed_permissions_hold_for_routes_that_were_used(site: Site) -> None:
    client = site.connect()
    client.queue()
    client.publish(b"1")
    user = client.connection.user
    user.permissions["/"] = Permission(write="^$")
    site.broker.permission_epoch += 1
    client.publish(b"2")
    (item,) = client.read()
    wanted = "write access to exchange 'amq.default' in vhost '/' refused for user 'guest'"
    assert is_close(item.method, 403, wanted, Basic.Publish)

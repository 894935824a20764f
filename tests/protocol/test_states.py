"""Every method in every state of a connection and of a channel: only the legal ones act."""

from typing import Any

import pytest

from broker.errors import AMQPError, ReplyCode
from broker.protocol.channel import ChannelState
from broker.protocol.states import LEGAL, ConnectionState
from broker.wire.methods import AccessRequest, AccessRequestOk, Method, commands
from tests.protocol.client import (
    Basic,
    Channel,
    Client,
    Confirm,
    Exchange,
    Queue,
    Site,
    Tx,
    is_close,
    octets_of,
)
from tests.protocol.login import start, tuned
from tests.protocol.snapshot import broker_values
from tests.wire.strategies import METHOD_CLASSES

Connection = commands.Connection
State = ConnectionState

every_method = pytest.mark.parametrize("kind", METHOD_CLASSES, ids=lambda kind: str(kind.name))

# What a client may send in each state on channel 0, with arguments that make sense.
ACTING: dict[State, dict[type[Method], dict[str, Any]]] = {
    State.STARTING: {
        Connection.StartOk: {"mechanism": "PLAIN", "response": b"\0guest\0guest"},
    },
    State.TUNING: {
        Connection.TuneOk: {"frame_max": 4096, "channel_max": 9},
    },
    State.OPENING: {
        Connection.Open: {"virtual_host": "/"},
    },
    State.RUNNING: {Connection.Close: {}, Connection.UpdateSecret: {}},
    State.CLOSING: {Connection.Close: {}, Connection.CloseOk: {}},
    State.CLOSED: {},
}
ANSWERS: dict[tuple[State, type[Method]], tuple[list[type[Method]], State]] = {
    (State.STARTING, Connection.StartOk): ([Connection.Tune], State.TUNING),
    (State.TUNING, Connection.TuneOk): ([], State.OPENING),
    (State.OPENING, Connection.Open): ([Connection.OpenOk], State.RUNNING),
    (State.RUNNING, Connection.Close): ([Connection.CloseOk], State.CLOSED),
    (State.RUNNING, Connection.UpdateSecret): ([Connection.UpdateSecretOk], State.RUNNING),
    (State.CLOSING, Connection.Close): ([Connection.CloseOk], State.CLOSED),
    (State.CLOSING, Connection.CloseOk): ([], State.CLOSED),
}


def client_in(state: State) -> Client:
    """A client whose connection is in this state, everything read."""
    site = Site()
    if state is State.STARTING:
        client, _ = start(site)
    elif state is State.TUNING:
        client, _ = start(site)
        client.tell(
            Connection.StartOk, 0, mechanism="PLAIN", response=b"\0guest\0guest", locale="en_US"
        )
    elif state is State.OPENING:
        client = tuned(site)
    else:
        client = site.connect()
        if state is State.CLOSING:
            client.connection.close(ReplyCode.CONNECTION_FORCED, "CONNECTION_FORCED - test")
        elif state is State.CLOSED:
            client.tell(Connection.Close, 0)
    site.collect()
    client.read()
    assert client.connection.state is state
    return client


def test_table_of_legal_methods_is_the_one_tested_here() -> None:
    assert {state: set(kinds) for state, kinds in LEGAL.items()} == {
        State.AWAITING_HEADER: set(),
        **{state: set(kinds) for state, kinds in ACTING.items()},
    }


@pytest.mark.parametrize("state", ACTING)
@every_method
def test_method_on_channel_0(state: State, kind: type[Method]) -> None:
    client = client_in(state)
    arguments = ACTING[state].get(kind)
    client.feed(octets_of(kind, 0, **(arguments or {})))
    received = client.read()
    connection = client.connection
    if arguments is not None:
        kinds, after = ANSWERS[state, kind]
        assert [item.kind for item in received] == kinds
        assert connection.state is after
    elif state is State.RUNNING:
        (item,) = received
        wanted = "unexpected method in connection state running"
        assert is_close(item.method, 504, wanted, kind)
        assert connection.state is State.CLOSING
    elif state in (State.CLOSING, State.CLOSED):
        assert received == []
        assert connection.state is state
    else:
        # Who is not logged in gets no word of what was wrong.
        assert received == []
        assert connection.state is State.CLOSED
        assert connection.close_in_s


@pytest.mark.parametrize("state", [State.STARTING, State.TUNING, State.OPENING])
@every_method
def test_method_on_a_channel_before_the_connection_is_open(
    state: State, kind: type[Method]
) -> None:
    client = client_in(state)
    client.feed(octets_of(kind, 1))
    received = client.read()
    assert client.connection.channels == {}
    if state is State.STARTING:
        assert received == []
        assert client.connection.state is State.CLOSED
    else:
        (item,) = received
        method = item.method
        assert (item.kind, method.reply_code) == (Connection.Close, 505)
        assert (method.class_id, method.method_id) == (0, 0)
        assert method.reply_text.startswith("UNEXPECTED_FRAME - type 1, ")
        assert client.connection.state is State.CLOSING


@pytest.mark.parametrize("state", [State.CLOSING, State.CLOSED])
@every_method
def test_method_on_a_channel_of_a_closing_connection_is_dropped(
    state: State, kind: type[Method]
) -> None:
    client = client_in(state)
    before = broker_values(client.site.broker)
    client.feed(octets_of(kind, 1))
    assert client.read() == []
    assert client.connection.state is state
    assert broker_values(client.site.broker) == before


@every_method
def test_method_on_a_channel_that_is_not_open(kind: type[Method]) -> None:
    client = client_in(State.RUNNING)
    client.feed(octets_of(kind, 7))
    (item,) = client.read()
    if kind is Channel.Open:
        assert (item.channel, item.kind) == (7, Channel.OpenOk)
    else:
        assert item.channel == 0
        assert is_close(item.method, 504, "expected 'channel.open'", kind)


@every_method
def test_method_on_a_channel_that_was_closed_by_an_error(kind: type[Method]) -> None:
    client = client_in(State.RUNNING)
    client.tell(Queue.Declare, passive=True, queue="nope")
    client.read()
    channel = client.connection.channels[1]
    assert channel.state is ChannelState.CLOSING
    client.feed(octets_of(kind, 1))
    received = [item.kind for item in client.read()]
    # A channel.close that crossed ours is answered; it does not stand for the answer to ours.
    assert received == ([Channel.CloseOk] if kind is Channel.Close else [])
    assert (1 in client.connection.channels) == (kind is not Channel.CloseOk)
    assert client.connection.state is State.RUNNING


# What each method does on an open channel, with arguments that make it act. A queue `q` with one
# message is there, and one delivery (tag 1) is unsettled.
Outcome = tuple[dict[str, Any], Any]
SOFT, HARD = Channel.Close, Connection.Close
ON_OPEN_CHANNEL: dict[type[Method], Outcome] = {
    AccessRequest: ({"realm": "/data"}, AccessRequestOk),
    Channel.Open: ({}, (HARD, 504, "second 'channel.open' seen")),
    Channel.Close: ({}, Channel.CloseOk),
    Channel.Flow: ({"active": True}, Channel.FlowOk),
    Exchange.Declare: ({"exchange": "x", "exchange_type": "direct"}, Exchange.DeclareOk),
    Exchange.Delete: ({"exchange": "x"}, Exchange.DeleteOk),
    Exchange.Bind: ({"destination": "amq.topic", "source": "amq.direct"}, Exchange.BindOk),
    Exchange.Unbind: ({"destination": "amq.topic", "source": "amq.direct"}, Exchange.UnbindOk),
    Queue.Declare: ({"queue": "q"}, Queue.DeclareOk),
    Queue.Bind: ({"queue": "q", "exchange": "amq.direct"}, Queue.BindOk),
    Queue.Unbind: ({"queue": "q", "exchange": "amq.direct"}, Queue.UnbindOk),
    Queue.Purge: ({"queue": "q"}, Queue.PurgeOk),
    Queue.Delete: ({"queue": "q"}, Queue.DeleteOk),
    Basic.Qos: ({"prefetch_count": 1}, Basic.QosOk),
    Basic.Consume: ({"queue": "other"}, Basic.ConsumeOk),
    Basic.Cancel: ({"consumer_tag": "ct"}, Basic.CancelOk),
    Basic.Get: ({"queue": "other"}, Basic.GetEmpty),
    Basic.Ack: ({"delivery_tag": 1}, None),
    Basic.Nack: ({"delivery_tag": 1}, None),
    Basic.Reject: ({"delivery_tag": 1}, None),
    Basic.Recover: ({"requeue": True}, Basic.RecoverOk),
    Basic.RecoverAsync: ({"requeue": True}, None),
    Basic.Publish: ({}, None),
    Confirm.Select: ({}, Confirm.SelectOk),
    Tx.Select: ({}, Tx.SelectOk),
    Tx.Commit: ({}, (SOFT, 406, "channel is not transactional")),
    Tx.Rollback: ({}, (SOFT, 406, "channel is not transactional")),
}


@every_method
def test_method_on_an_open_channel(kind: type[Method]) -> None:
    client = client_in(State.RUNNING)
    client.queue("q")
    client.queue("other")
    client.publish(b"1")
    client.publish(b"2")
    client.tell(Basic.Get, queue="q")
    client.read()
    default: Outcome = ({}, (HARD, 503, "unimplemented method"))
    arguments, wanted = ON_OPEN_CHANNEL.get(kind, default)
    client.feed(octets_of(kind, 1, **arguments))
    received = client.read()
    if wanted is None:
        assert received == []
    elif isinstance(wanted, tuple):
        closed, code, text = wanted
        (item,) = received
        assert (item.kind, item.channel) == (closed, 0 if closed is HARD else 1)
        assert is_close(item.method, code, text, kind)
    else:
        (item,) = received
        assert (item.kind, item.channel) == (wanted, 1)


@every_method
def test_method_amid_a_content_is_an_unexpected_frame(kind: type[Method]) -> None:
    client = client_in(State.RUNNING)
    client.tell(Basic.Publish, routing_key="q")
    client.feed(octets_of(kind, 1))
    (item,) = client.read()
    wanted = "expected content header for class 60, got non content header frame instead"
    assert is_close(item.method, 505, wanted, Basic.Publish)


NOWAIT: list[tuple[type[Method], dict[str, Any]]] = [
    (Exchange.Declare, {"exchange": "x", "exchange_type": "direct"}),
    (Exchange.Bind, {"destination": "amq.topic", "source": "amq.direct"}),
    (Exchange.Unbind, {"destination": "amq.topic", "source": "amq.direct"}),
    (Exchange.Delete, {"exchange": "x"}),
    (Queue.Declare, {"queue": "q"}),
    (Queue.Declare, {"queue": "q", "passive": True}),
    (Queue.Bind, {"queue": "q", "exchange": "amq.direct"}),
    (Queue.Purge, {"queue": "q"}),
    (Basic.Consume, {"queue": "q", "consumer_tag": "ct"}),
    (Basic.Consume, {"queue": "amq.rabbitmq.reply-to", "consumer_tag": "r", "no_ack": True}),
    (Basic.Cancel, {"consumer_tag": "ct"}),
    (Confirm.Select, {}),
    (Queue.Delete, {"queue": "q"}),
]


def test_nothing_is_answered_where_nobody_waits() -> None:
    client = client_in(State.RUNNING)
    waiting = client_in(State.RUNNING)
    for kind, arguments in NOWAIT:
        client.tell(kind, nowait=True, **arguments)
        assert client.read() == []
        waiting.tell(kind, nowait=False, **arguments)
        assert len(waiting.read()) == 1
    assert (
        broker_values(client.site.broker)["vhosts"]
        == (broker_values(waiting.site.broker)["vhosts"])
    )
    assert client.connection.channels[1].is_confirming


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (Queue.Declare, {"queue": "nope", "passive": True}),
        (Exchange.Declare, {"exchange": "nope", "passive": True}),
        (Queue.Bind, {"queue": "nope", "exchange": "amq.direct"}),
        (Queue.Purge, {"queue": "nope"}),
        (Basic.Consume, {"queue": "nope"}),
    ],
)
def test_errors_are_told_even_where_nobody_waits(
    kind: type[Method], arguments: dict[str, Any]
) -> None:
    client = client_in(State.RUNNING)
    client.tell(kind, nowait=True, **arguments)
    (item,) = client.read()
    assert (item.kind, item.method.reply_code) == (Channel.Close, 404)


def test_errors_become_closes_in_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every channel.close and connection.close the broker sends comes from `Connection`."""
    from broker.protocol import connection as module

    client = client_in(State.RUNNING)
    caught: list[AMQPError] = []
    fail = module.Connection.fail

    def watched(self: module.Connection, error: AMQPError, number: int) -> None:
        caught.append(error)
        fail(self, error, number)

    monkeypatch.setattr(module.Connection, "fail", watched)
    closes = 0
    for kind in METHOD_CLASSES:
        for channel in (0, 1, 9):
            client.feed(octets_of(kind, channel))
            closes += sum(item.kind in (Channel.Close, HARD) for item in client.read())
            if client.connection.state is not State.RUNNING:
                client = client_in(State.RUNNING)
    assert closes > 100
    assert closes == len(caught)

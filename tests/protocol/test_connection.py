"""An open connection, and its end."""

import pytest

from broker.core.queue import Queue as CoreQueue
from broker.errors import ReplyCode
from broker.protocol.methods import CHANNEL_METHODS
from broker.protocol.states import ConnectionState
from broker.wire.methods import commands
from tests.protocol.client import Channel, Client, Queue, Site, is_close, octets_of
from tests.protocol.login import log_in, start

Connection = commands.Connection
CLOSES = (Connection.Close, Channel.Close)


def test_secret_may_be_updated(site: Site) -> None:
    client = site.connect()
    answer = client.ask(Connection.UpdateSecret, 0, new_secret=b"new", reason="expired")
    assert isinstance(answer, Connection.UpdateSecretOk)


def test_close_is_answered_and_ends_everything(site: Site) -> None:
    client = site.connect(channels=2)
    client.queue("mine", exclusive=True)
    client.tell(Connection.Close, 0, reply_code=200, reply_text="bye")
    (received,) = client.read()
    assert isinstance(received.method, Connection.CloseOk)
    assert client.connection.close_in_s == 0
    assert client.connection.close_reason == "closed by the client"
    assert site.vhost.queues == {}
    assert site.broker.connections == {}
    client.feed(octets_of(Channel.Open))
    assert client.read() == []
    counters = site.broker.counters
    assert (counters.channels_opened, counters.channels_closed) == (2, 2)


def test_close_from_this_side_waits_for_the_answer(site: Site) -> None:
    client = site.connect(heartbeat=5)
    client.queue()
    client.connection.close(ReplyCode.CONNECTION_FORCED, "CONNECTION_FORCED - shutdown")
    site.collect()
    (received,) = client.read()
    assert is_close(received.method, 320, "shutdown", None)
    assert client.connection.close_in_s == 5
    # All but close and close-ok is dropped.
    client.tell(Queue.Declare, queue="late")
    client.publish(b"late")
    client.connection.close(ReplyCode.CONNECTION_FORCED, "again")
    site.collect()
    assert client.read() == []
    assert "late" not in site.vhost.queues
    assert site.vhost.queues["q"].messages == 0
    client.tell(Connection.CloseOk, 0)
    assert client.connection.state is ConnectionState.CLOSED


def test_both_sides_may_close_at_once(site: Site) -> None:
    client = site.connect()
    client.tell(Channel.Open, 1)
    client.read()
    client.tell(Connection.Close, 0)
    assert [received.kind for received in client.read()] == [Connection.CloseOk]
    assert client.connection.state is ConnectionState.CLOSED


# What is noted


def noted(site: Site) -> list[tuple[str, dict[str, object]]]:
    """The notes since the connections were opened."""
    return [note for note in site.notes if note[0] != "connection_opened"]


def test_errors_are_noted_with_what_the_client_was_told(site: Site, client: Client) -> None:
    name = client.connection.name
    assert name == "127.0.0.1:40000 -> 127.0.0.1:5672"
    client.tell(Queue.Declare, passive=True, queue="nope")
    client.tell(Channel.Open, 2)
    client.tell(Channel.Open, 2)
    soft, hard = [item.method.reply_text for item in client.read() if item.kind in CLOSES]
    assert noted(site) == [
        ("channel_error", {"connection": name, "channel": 1, "text": soft}),
        ("connection_error", {"connection": name, "text": hard}),
    ]
    assert client.connection.close_reason == hard


def test_failed_handshake_is_noted(site: Site) -> None:
    client, _ = start(site)
    log_in(client, mechanism="NOPE")
    ((event, details),) = noted(site)
    assert event == "handshake_error"
    assert details["text"] == "COMMAND_INVALID - unknown authentication mechanism 'NOPE'"


# Bugs of ours


@pytest.fixture
def broken(site: Site, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, object]]]:
    """A broker whose queue.purge fails, and whose queue `bad` cannot deliver; its notes."""
    deliver = CoreQueue.deliver

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    def fail_at_bad(queue: CoreQueue) -> None:
        if queue.name == "bad" and queue.messages_ready:
            raise ZeroDivisionError
        deliver(queue)

    monkeypatch.setitem(CHANNEL_METHODS, Queue.Purge, fail)
    monkeypatch.setattr(CoreQueue, "deliver", fail_at_bad)
    notes: list[tuple[str, dict[str, object]]] = []
    site.broker.note = lambda event, details: notes.append((event, details))
    return notes


@pytest.mark.parametrize("where", ["method", "delivery"])
def test_bug_of_ours_ends_one_connection_alone(
    site: Site, broken: list[tuple[str, dict[str, object]]], where: str
) -> None:
    client, other = site.connect(), site.connect()
    other.queue("q")
    other.consume("q")
    client.queue("bad")
    broken.clear()
    if where == "method":
        client.tell(Queue.Purge, queue="q")
    else:
        client.publish(b"x", key="bad")
    (item,) = client.read()
    assert is_close(item.method, 541, "see the broker's log", None)
    assert client.connection.state is ConnectionState.CLOSING
    event, details = broken[0]
    assert event == "internal_error"
    assert isinstance(details["error"], ZeroDivisionError)
    other.publish(b"x", key="q")
    assert other.bodies() == [b"x"]

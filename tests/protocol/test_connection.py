"""An open connection, and its end."""

from broker.errors import ReplyCode
from broker.protocol.states import ConnectionState
from broker.wire.methods import commands
from tests.protocol.client import Channel, Site, is_close, octets_of

Connection = commands.Connection


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
    client.tell(commands.Queue.Declare, queue="late")
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

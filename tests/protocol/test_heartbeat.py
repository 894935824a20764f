"""Heartbeats, in a time that is given."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.protocol.heartbeat import PATIENCE, Beat, Heartbeat
from broker.protocol.states import ConnectionState
from tests.protocol.client import Client, Site
from tests.wire.profiles import examples


def test_without_an_interval_nothing_is_ever_due() -> None:
    heartbeat = Heartbeat(0, 0.0)
    assert heartbeat.next_deadline() is None
    assert heartbeat.check(1e9) is Beat.NOTHING


def test_beat_is_sent_after_half_an_interval_of_silence_from_us() -> None:
    heartbeat = Heartbeat(10, 100.0)
    assert heartbeat.next_deadline() == 105.0
    assert heartbeat.check(104.9) is Beat.NOTHING
    assert heartbeat.check(105.0) is Beat.SEND
    heartbeat.last_sent = 104.0
    assert heartbeat.check(105.0) is Beat.NOTHING


def test_silent_peer_is_given_up_after_more_than_two_intervals() -> None:
    assert 2 <= PATIENCE <= 3
    heartbeat = Heartbeat(10, 0.0)
    heartbeat.last_sent = 24.0
    assert heartbeat.check(24.9) is Beat.NOTHING
    assert heartbeat.next_deadline() == 25.0
    assert heartbeat.check(25.0) is Beat.GIVE_UP
    heartbeat.last_received = 20.0
    assert heartbeat.check(25.0) is Beat.NOTHING


def test_silence_of_a_peer_we_do_not_read_does_not_count() -> None:
    heartbeat = Heartbeat(10, 0.0)
    heartbeat.is_paused = True
    assert heartbeat.next_deadline() == 5.0
    assert heartbeat.check(1000.0) is Beat.SEND


@examples(60)
@given(st.integers(1, 600), st.lists(st.sampled_from(["sent", "received", "wait"]), max_size=20))
def test_something_is_due_at_the_deadline_and_not_before(interval: int, events: list[str]) -> None:
    heartbeat = Heartbeat(interval, 0.0)
    now = 0.0
    for event in events:
        now += interval / 3
        if event == "sent":
            heartbeat.last_sent = now
        elif event == "received":
            heartbeat.last_received = now
        deadline = heartbeat.next_deadline()
        assert deadline is not None
        assert heartbeat.check(deadline) is not Beat.NOTHING
        assert heartbeat.check(deadline - 0.001) is Beat.NOTHING


# On a connection


@pytest.fixture
def client() -> Client:
    return Site().connect(heartbeat=10)


def tick(client: Client, now: float) -> None:
    client.connection.tick(now)
    client.site.collect()


def test_idle_connection_beats(client: Client) -> None:
    assert client.connection.next_deadline() == 5.0
    for now in (5.0, 10.0, 15.0, 20.0):
        tick(client, now)
    assert client.reader.heartbeats == 4


def test_beat_from_the_client_keeps_the_connection(client: Client) -> None:
    for now in range(5, 200, 5):
        client.now = float(now)
        client.feed(b"\x08\x00\x00\x00\x00\x00\x00\xce")
        tick(client, float(now))
    assert client.connection.state is ConnectionState.RUNNING
    assert client.read() == []


def test_any_octet_counts_as_a_sign_of_life(client: Client) -> None:
    client.now = 24.0
    client.feed(b"\x01")
    tick(client, 26.0)
    assert client.connection.state is ConnectionState.RUNNING


def test_silent_client_is_dropped_without_a_word(client: Client) -> None:
    tick(client, 25.0)
    assert client.connection.state is ConnectionState.CLOSED
    assert client.connection.close_in_s == 0
    assert "missed heartbeats from client, timeout: 10s" in client.connection.close_reason
    assert client.read() == []
    assert client.site.broker.connections == {}
    assert client.connection.next_deadline() is None


def test_connection_without_heartbeats_is_never_dropped() -> None:
    client = Site().connect(heartbeat=0)
    assert client.connection.next_deadline() is None
    tick(client, 1e9)
    assert client.connection.state is ConnectionState.RUNNING
    assert client.reader.heartbeats == 0


def test_interval_is_what_the_client_answers_even_above_the_offer() -> None:
    client = Site(heartbeat_s=60).connect(heartbeat=600)
    assert client.connection.next_deadline() == 300.0


@pytest.mark.parametrize("channel", [1, 2, 65535])
def test_beat_on_another_channel_is_an_error(client: Client, channel: int) -> None:
    client.feed(b"\x08" + channel.to_bytes(2, "big") + b"\x00\x00\x00\x00\xce")
    (close,) = client.read()
    assert (close.method.reply_code, close.method.reply_text) == (
        505,
        "UNEXPECTED_FRAME - type 8, all octets = <<>>",
    )


def test_beat_with_a_payload_is_an_error(client: Client) -> None:
    client.feed(b"\x08\x00\x00\x00\x00\x00\x01x\xce")
    (close,) = client.read()
    assert close.method.reply_code == 501

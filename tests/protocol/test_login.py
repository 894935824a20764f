"""Who is let in, and what those get who are not."""

import pytest

from broker.core.users import Permission
from broker.protocol.states import ConnectionState
from broker.wire.methods import commands
from broker.wire.table import Field, Table, encode_table
from tests.protocol.client import Site, is_close, text
from tests.protocol.login import assert_dropped_silently, log_in, start

Connection = commands.Connection


@pytest.mark.parametrize(
    ("mechanism", "response"),
    [
        ("PLAIN", b"\0guest\0guest"),
        ("AMQPLAIN", encode_table({"LOGIN": text("guest"), "PASSWORD": text("guest")})[4:]),
        ("AMQPLAIN", encode_table({"PASSWORD": text("guest"), "LOGIN": text("guest")})[4:]),
    ],
)
def test_both_mechanisms_let_in(site: Site, mechanism: str, response: bytes) -> None:
    client, _ = start(site)
    log_in(client, response, mechanism)
    assert [received.kind for received in client.read()] == [Connection.Tune]


def test_password_may_be_any_octets(site: Site) -> None:
    password = bytes(range(1, 256))
    site.broker.add_user("u", password, permissions={"/": Permission()})
    plain, _ = start(site)
    log_in(plain, b"\0u\0" + password)
    amqplain, _ = start(site)
    secret = text(password.decode("utf-8", "surrogateescape"))
    log_in(amqplain, encode_table({"LOGIN": text("u"), "PASSWORD": secret})[4:], "AMQPLAIN")
    for client in (plain, amqplain):
        assert [received.kind for received in client.read()] == [Connection.Tune]


WRONG = (b"\0guest\0s3cret", b"\0nobody\0guest", b"\0guest\0", b"\0\0")


@pytest.mark.parametrize("response", WRONG)
def test_refused_login_is_told_to_who_asked_to_be_told(site: Site, response: bytes) -> None:
    client, _ = start(site)
    log_in(client, response)
    (received,) = client.read()
    assert is_close(
        received.method,
        403,
        "Login was refused using authentication mechanism PLAIN. "
        "For details see the broker logfile.",
        None,
    )
    assert received.method.reply_text.startswith("ACCESS_REFUSED")
    assert client.connection.close_in_s is not None
    assert client.connection.close_reason == "login refused"
    ((event, details),) = site.notes
    assert event == "login_refused"
    assert "s3cret" not in str(details)
    client.tell(Connection.CloseOk, 0)
    assert client.connection.state is ConnectionState.CLOSED


@pytest.mark.parametrize("response", WRONG)
def test_refused_login_is_met_with_silence_by_default(site: Site, response: bytes) -> None:
    client, _ = start(site)
    log_in(client, response, capabilities=())
    assert_dropped_silently(client)


def test_user_of_this_machine_is_refused_from_elsewhere(site: Site) -> None:
    site.broker.add_user("guest", b"guest", permissions={"/": Permission()}, loopback_only=True)
    for peer, kind in (
        ("::ffff:127.0.0.1", Connection.Tune),
        ("203.0.113.9", Connection.Close),
        ("::ffff:203.0.113.9", Connection.Close),
    ):
        client, _ = start(site, peer)
        log_in(client)
        assert [received.kind for received in client.read()] == [kind]


def test_unknown_mechanism_is_refused(site: Site) -> None:
    client, _ = start(site)
    log_in(client, mechanism="EXTERNAL")
    assert_dropped_silently(client)
    assert client.connection.close_reason == (
        "COMMAND_INVALID - unknown authentication mechanism 'EXTERNAL'"
    )


@pytest.mark.parametrize(
    ("mechanism", "response"),
    [
        ("PLAIN", b""),
        ("PLAIN", b"guest\0guest"),
        ("PLAIN", b"\0guest"),
        ("PLAIN", b"root\0guest\0guest"),
        ("PLAIN", b"\0guest\0guest\0"),
        ("AMQPLAIN", b""),
        ("AMQPLAIN", b"\0guest\0guest"),
        ("AMQPLAIN", encode_table({"LOGIN": text("guest")})[4:]),
        ("AMQPLAIN", encode_table({"LOGIN": text("guest"), "PASSWORD": Field("byte", 1)})[4:]),
        ("AMQPLAIN", encode_table({"LOGIN": Field("void", None), "PASSWORD": text("g")})[4:]),
    ],
)
def test_malformed_response_is_a_syntax_error_that_shows_nothing(
    site: Site, mechanism: str, response: bytes
) -> None:
    client, _ = start(site)
    log_in(client, response, mechanism)
    assert_dropped_silently(client)
    assert client.connection.close_reason.startswith("SYNTAX_ERROR")
    assert "guest" not in str(site.notes)


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"capabilities": text("all")},
        {"capabilities": Field("table", {"connection.blocked": text("true")})},
        {"capabilities": Field("table", {"connection.blocked": Field("bool", value=False)})},
        {"capabilities": Field("array", [Field("bool", value=True)])},
    ],
)
def test_capabilities_that_are_not_true_are_none(site: Site, properties: Table) -> None:
    client, _ = start(site)
    client.tell(
        Connection.StartOk,
        0,
        client_properties=properties,
        mechanism="PLAIN",
        response=b"\0guest\0guest",
    )
    assert client.connection.capabilities == frozenset()
    assert [received.kind for received in client.read()] == [Connection.Tune]


def test_client_may_give_itself_a_name(site: Site) -> None:
    client, _ = start(site)
    client.tell(
        Connection.StartOk,
        0,
        client_properties={"connection_name": text("worker 7")},
        mechanism="PLAIN",
        response=b"\0guest\0guest",
    )
    assert client.connection.client_name == "worker 7"

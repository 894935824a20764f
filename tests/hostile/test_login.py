"""Who may log in: from where, with which password, and what a refusal gives away."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from broker.core import users
from broker.core.users import Permission
from conformance.fields import encode_field, encode_shortstr
from conformance.fuzz.world import World, open_vhost, start_ok, tune_ok

from .client import WITHOUT_A_WORD, Client, greeted, world

REFUSED = "ACCESS_REFUSED - Login was refused using authentication mechanism {}. {}"
SEE_LOG = "For details see the broker logfile."


def refused(mechanism: str = "PLAIN") -> tuple[str, int, str]:
    return "connection.close", 403, REFUSED.format(mechanism, SEE_LOG)


def amqplain(user: Any, password: Any) -> bytes:
    """A field table without its length."""
    return b"".join(
        encode_shortstr(name) + encode_field(value)
        for name, value in (("LOGIN", user), ("PASSWORD", password))
    )


def plain(response: bytes) -> bytes:
    return start_ok(response=response)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"])
def test_guest_may_log_in_from_loopback(host: str) -> None:
    [answer] = greeted(world(), host).tell(start_ok())
    assert answer.name == "connection.tune"


@pytest.mark.parametrize(
    "host",
    [
        *("10.0.0.1", "192.168.1.7", "2001:db8::1", "::ffff:10.0.0.1", "fe80::1%lo", "0.0.0.0"),
        *("::", "unknown", "", "localhost", "127.0.0.1.example", "127.1", "0x7f000001"),
    ],
)
def test_guest_is_refused_from_every_other_peer_address(host: str) -> None:
    # Every client of a world comes in by the listener on 127.0.0.1: only the peer's address counts.
    assert greeted(world(), host).error(start_ok()) == refused()


def test_a_user_who_is_not_bound_to_loopback_may_come_from_anywhere() -> None:
    site = world()
    site.broker.add_user("alice", b"secret", permissions={"/": Permission()})
    [answer] = greeted(site, "10.0.0.1").tell(start_ok(b"alice", b"secret"))
    assert answer.name == "connection.tune"


@pytest.mark.parametrize(
    "login",
    [
        start_ok(b"blank", b""),
        start_ok(mechanism="AMQPLAIN", response=amqplain("blank", "")),
        start_ok(b"none", b""),
        start_ok(b"none", b"none"),
    ],
)
def test_blank_password_is_refused_even_where_it_is_the_right_one(login: bytes) -> None:
    site = world()
    site.broker.add_user("blank", b"", permissions={"/": Permission()})
    site.broker.add_user("none", b"x", permissions={"/": Permission()}).password_hash = None
    assert greeted(site).error(login)[:2] == ("connection.close", 403)


@pytest.mark.parametrize(
    "response",
    [
        *(b"", b"\0", b"guest", b"guest\0guest", b"guest\0guest\0guest", b"\0guest\0guest\0"),
        *(b"\0\0guest\0guest", b"\0guest", b"\xff\0guest\0guest"),
    ],
)
def test_plain_response_of_another_form_ends_the_connection_in_silence(response: bytes) -> None:
    assert greeted(world()).error(plain(response)) == (WITHOUT_A_WORD, 0, "")


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"\xff",
        amqplain(1, "guest"),
        amqplain("guest", None),
        amqplain(["guest"], "guest"),
        b"\x05LOGINS\x00\x00\x00\x05guest",
        b"\x05LOGINS\xff\xff\xff\xffguest",
    ],
)
def test_amqplain_response_of_another_form_ends_the_connection_in_silence(response: bytes) -> None:
    login = start_ok(mechanism="AMQPLAIN", response=response)
    assert greeted(world()).error(login) == (WITHOUT_A_WORD, 0, "")


@pytest.mark.parametrize("mechanism", ["ANONYMOUS", "EXTERNAL", "plain", "", "PLAIN\0", "x" * 255])
def test_mechanism_that_is_not_offered_is_refused(mechanism: str) -> None:
    client = greeted(world())
    assert client.error(start_ok(mechanism=mechanism)) == (WITHOUT_A_WORD, 0, "")
    assert not client.is_open


def attempt(site: World, login: bytes) -> tuple[Client, tuple[str, int, str]]:
    client = greeted(site)
    return client, client.error(login)


@pytest.mark.parametrize("mechanism", ["PLAIN", "AMQPLAIN"])
@pytest.mark.parametrize("announced", [True, False])
def test_unknown_user_and_wrong_password_are_answered_alike(
    mechanism: str, *, announced: bool
) -> None:
    site = world()
    answers = []
    for user, password in (("nobody", "x"), ("guest", "x"), ("guest", "guest ")):
        response = amqplain(user, password)
        if mechanism == "PLAIN":
            response = f"\0{user}\0{password}".encode()
        capabilities = {"capabilities": {"authentication_failure_close": announced}}
        login = start_ok(client_properties=capabilities, mechanism=mechanism, response=response)
        client, error = attempt(site, login)
        answers.append((error, client.connection.state, client.connection.close_in_s))
    assert len(set(answers)) == 1
    assert answers[0][0] == (refused(mechanism) if announced else (WITHOUT_A_WORD, 0, ""))
    assert site.broker.counters.auth_attempts_failed == 3


def test_unknown_users_cost_the_same_work_as_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            done.append(f"{name} {[len(a) for a in arguments if isinstance(a, bytes)]}")
            return function(*arguments)

        return call

    site = world()
    sha256 = counted("sha256", hashlib.sha256)
    monkeypatch.setitem(users.HASHES, "rabbit_password_hashing_sha256", sha256)
    compare = SimpleNamespace(compare_digest=counted("compare", hmac.compare_digest))
    monkeypatch.setattr(users, "hmac", compare)
    work = []
    for user in (b"guest", b"nobody", b"x" * 255):
        done.clear()
        attempt(site, start_ok(user, b"wrong"))
        work.append(tuple(done))
    assert len(set(work)) == 1
    assert [name.split()[0] for name in work[0]] == ["sha256", "compare"]


def test_refused_login_is_not_let_in_by_what_it_says_next() -> None:
    for capability in (True, False):
        site = world()
        properties = {"capabilities": {"authentication_failure_close": capability}}
        client = greeted(site)
        client.tell(
            start_ok(b"guest", b"wrong", client_properties=properties)
            + start_ok()
            + tune_ok()
            + open_vhost()
        )
        client.tell(start_ok(), tune_ok(), open_vhost())
        assert not client.is_open
        assert not site.broker.connections


def test_refused_login_leaves_nothing_of_what_the_client_said() -> None:
    client = greeted(world())
    client.tell(start_ok(b"guest", b"wrong", client_properties={"a": "x" * 7000}))
    connection = client.connection
    assert not connection.client_properties
    assert not connection._rest

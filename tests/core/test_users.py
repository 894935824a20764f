"""Who may log in from where, and what users may do."""

import base64
from typing import Any

import pytest

from broker.core.broker import Broker
from broker.core.users import (
    HASHES,
    Permission,
    User,
    authenticate,
    hash_password,
    is_loopback,
)
from broker.errors import AMQPError, ReplyCode
from tests.core.fakes import make_broker


@pytest.fixture
def broker() -> Broker:
    broker = make_broker()
    broker.add_vhost("/")
    broker.add_user("guest", b"guest", permissions={"/": Permission()}, loopback_only=True)
    broker.add_user("far", b"secret", permissions={"/": Permission()})
    return broker


def refusal(broker: Broker, name: str, password: bytes, host: str = "127.0.0.1") -> str:
    with pytest.raises(AMQPError) as caught:
        broker.log_in(name, password, host)
    assert caught.value.code is ReplyCode.ACCESS_REFUSED
    return caught.value.explanation


def test_right_password_lets_in(broker: Broker) -> None:
    assert broker.log_in("guest", b"guest", "127.0.0.1").name == "guest"
    assert broker.log_in("far", b"secret", "203.0.113.7").name == "far"
    assert (broker.counters.auth_attempts, broker.counters.auth_attempts_failed) == (2, 0)


@pytest.mark.parametrize("password", [b"", b"Guest", b"guest\x00", b"gues", b"guest" * 1000])
def test_wrong_password_is_refused(broker: Broker, password: bytes) -> None:
    assert refusal(broker, "guest", password) == "wrong password"
    assert (broker.counters.auth_attempts, broker.counters.auth_attempts_failed) == (1, 1)


def test_blank_password_is_refused_even_if_it_was_set(broker: Broker) -> None:
    broker.add_user("blank", b"")
    assert refusal(broker, "blank", b"") == "wrong password"


def test_user_without_a_password_is_refused_whatever_is_said() -> None:
    user = User("nobody", None)
    for password in (b"", b"none", b"guest"):
        assert authenticate(user, password, "127.0.0.1") == "wrong password"


@pytest.mark.parametrize("name", ["", "Guest", "guest ", "root", "\udcff"])
def test_unknown_user_is_refused(broker: Broker, name: str) -> None:
    assert refusal(broker, name, b"guest") == "unknown user"
    # What stands for the hash of nobody lets nobody in.
    assert refusal(broker, name, b"") == "unknown user"


def test_unknown_user_costs_as_many_hashes_as_a_known_one(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    algorithm = "rabbit_password_hashing_sha256"
    sha256 = HASHES[algorithm]

    def counted(octets: bytes) -> Any:
        calls.append(len(octets))
        return sha256(octets)

    monkeypatch.setitem(HASHES, algorithm, counted)
    refusal(broker, "far", b"wrong!")
    refusal(broker, "who?", b"wrong!")
    assert calls == [10, 10]


LOOPBACK = ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1", "::ffff:7f00:1", "::1%lo"]
ELSEWHERE = [
    "192.168.0.1", "0.0.0.0", "128.0.0.1", "::", "::2", "fe80::1%eth0", "::ffff:10.0.0.1",
    "::127.0.0.1", "64:ff9b::7f00:1", "localhost", "", "127.0.0.1.example", "unix",
]  # fmt: skip


@pytest.mark.parametrize("host", LOOPBACK)
def test_guest_may_come_from_this_machine(broker: Broker, host: str) -> None:
    assert is_loopback(host)
    assert broker.log_in("guest", b"guest", host).name == "guest"


@pytest.mark.parametrize("host", ELSEWHERE)
def test_guest_may_not_come_from_elsewhere(broker: Broker, host: str) -> None:
    assert not is_loopback(host)
    assert "loopback" in refusal(broker, "guest", b"guest", host)
    # A wrong password says nothing about where one may come from.
    assert refusal(broker, "guest", b"wrong", host) == "wrong password"
    assert broker.log_in("far", b"secret", host).name == "far"


def test_password_hash_is_rabbitmqs() -> None:
    salt = bytes.fromhex("908DC60A")
    hashed = hash_password(b"test12", salt)
    # The example of RabbitMQ's page on passwords.
    assert hashed.hex().upper() == (
        "908DC60AA5B924B3096B8897D65A3B5F80FA5DB62A94B83122CDF4F8FEAD10D515D8F391"
    )


def test_equal_passwords_have_different_hashes(broker: Broker) -> None:
    one, two = (broker.add_user(name, b"same").password_hash for name in "ab")
    assert one != two


# Permissions


def test_permission_is_searched_and_not_anchored() -> None:
    permission = Permission(configure="^$", write="log", read="^(a|b)\\.")
    assert [permission.allows("configure", name) for name in ("", "a", "x")] == [True, False, False]
    assert [permission.allows("write", name) for name in ("log", "my-logs", "lo")] == [
        True,
        True,
        False,
    ]
    assert [permission.allows("read", name) for name in ("a.x", "b.", "xa.x")] == [
        True,
        True,
        False,
    ]
    assert all(Permission().allows(o, "anything") for o in ("configure", "write", "read"))


def check(broker: Broker, user: User, operation: str, kind: str, name: str) -> str | None:
    try:
        broker.check_permission(user, operation, kind, name, "/")
    except AMQPError as error:
        assert error.code is ReplyCode.ACCESS_REFUSED  # noqa: PT017
        return error.explanation
    return None


def test_refusal_names_the_operation_the_resource_and_the_user(broker: Broker) -> None:
    user = broker.add_user("u", b"p", permissions={"/": Permission("^c$", "^w$", "^r$")})
    assert check(broker, user, "configure", "queue", "c") is None
    assert check(broker, user, "write", "exchange", "w") is None
    assert check(broker, user, "read", "queue", "r") is None
    assert check(broker, user, "read", "queue", "w") == (
        "read access to queue 'w' in vhost '/' refused for user 'u'"
    )
    assert check(broker, user, "write", "exchange", "") == (
        "write access to exchange 'amq.default' in vhost '/' refused for user 'u'"
    )


def test_default_exchange_is_matched_as_amq_default(broker: Broker) -> None:
    user = broker.add_user("u", b"p", permissions={"/": Permission(write="^amq\\.default$")})
    assert check(broker, user, "write", "exchange", "") is None
    nothing = broker.add_user("n", b"p", permissions={"/": Permission(write="^$")})
    assert check(broker, nothing, "write", "exchange", "") is not None


def test_user_without_permissions_may_nothing(broker: Broker) -> None:
    user = broker.add_user("u", b"p")
    for operation in ("configure", "write", "read"):
        assert check(broker, user, operation, "queue", "q") is not None
    with pytest.raises(AMQPError) as caught:
        broker.enter_vhost("/", user)
    assert caught.value.code is ReplyCode.NOT_ALLOWED
    assert caught.value.explanation == "access to vhost '/' refused for user 'u'"


def test_vhost_that_is_not_there_cannot_be_entered(broker: Broker) -> None:
    user = broker.log_in("guest", b"guest", "127.0.0.1")
    assert broker.enter_vhost("/", user).name == "/"
    with pytest.raises(AMQPError) as caught:
        broker.enter_vhost("nope", user)
    assert (caught.value.code, caught.value.explanation) == (
        ReplyCode.NOT_ALLOWED,
        "vhost nope not found",
    )


def test_changed_users_change_the_permission_epoch(broker: Broker) -> None:
    before = broker.permission_epoch
    broker.add_user("guest", b"guest")
    assert broker.permission_epoch != before


@pytest.mark.parametrize(
    ("algorithm", "size"),
    [
        ("rabbit_password_hashing_md5", 20),
        ("rabbit_password_hashing_sha256", 36),
        ("rabbit_password_hashing_sha512", 68),
    ],
)
def test_password_may_be_hashed_by_any_algorithm_of_rabbitmq(algorithm: str, size: int) -> None:
    hashed = hash_password(b"s3cret", b"salt", algorithm)
    assert len(hashed) == size
    user = User("alice", hashed)
    assert authenticate(user, b"s3cret", "192.0.2.1") is None
    assert authenticate(user, b"secret", "192.0.2.1") == "wrong password"


def test_hash_that_rabbitmq_exported_lets_its_user_in() -> None:
    exported = base64.b64decode("nG8uiNz1kv/aWRGi7oA8wrX5OCIEiMqHdo8wRH3oPDvD1PM9")
    assert authenticate(User("alice", exported), b"s3cret", "192.0.2.1") is None


def test_empty_pattern_allows_nothing_as_in_rabbitmq() -> None:
    permission = Permission("", "^$", "[[:digit:]]")
    assert [
        permission.allows(operation, name)
        for operation in ("configure", "write", "read")
        for name in ("a", "1")
    ] == [False, False, False, False, False, True]

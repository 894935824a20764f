"""Definitions over a restart: users, and what is deleted stays deleted, however it was named."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from broker.core import cleaner
from broker.core.definitions import user_definition
from broker.core.users import Permission
from broker.errors import AMQPError, ReplyCode
from tests.durable.site import DurableSite, publish_persistent
from tests.protocol.client import Queue, text

RULES = {
    "/": Permission("^c$", "^$", "ü|.*"),
    # Names may be longer than the keys of a table.
    "v" * 300: Permission(),
}


def with_users() -> DurableSite:
    site = DurableSite()
    tags = frozenset({"administrator", "policymaker"})
    site.broker.add_user("alice", b"s3cret", tags=tags, permissions=RULES)
    site.broker.add_user("near", b"\xff\x00", loopback_only=True)
    site.collect()
    site.settle_down()
    return site


@pytest.mark.parametrize("restart", [DurableSite.stop, DurableSite.crash])
def test_users_come_back_as_they_were(restart: Callable[[DurableSite], DurableSite]) -> None:
    before = with_users()
    after = restart(restart(before))
    assert after.broker.users.keys() == {"guest", "alice", "near"}
    alice, near = (after.broker.users[name] for name in ("alice", "near"))
    assert alice == before.broker.users["alice"]
    assert alice.permissions == RULES
    assert alice.tags == {"administrator", "policymaker"}
    assert near == before.broker.users["near"]
    assert (alice.loopback_only, near.loopback_only) == (False, True)


def test_user_that_came_back_logs_in_as_before() -> None:
    broker = with_users().crash().broker
    assert broker.log_in("alice", b"s3cret", "192.0.2.1").name == "alice"
    assert broker.log_in("near", b"\xff\x00", "127.0.0.1").name == "near"
    for name, password in (("alice", b"guest"), ("near", b"\xff\x00")):
        with pytest.raises(AMQPError) as caught:
            broker.log_in(name, password, "192.0.2.1")
        assert caught.value.code is ReplyCode.ACCESS_REFUSED
    alice = broker.users["alice"]
    broker.check_permission(alice, "configure", "queue", "c", "/")
    with pytest.raises(AMQPError):
        broker.check_permission(alice, "write", "queue", "c", "/")


def test_user_who_may_not_log_in_by_password_comes_back_so() -> None:
    site = DurableSite()
    user = site.broker.add_user("nobody", b"x")
    user.password_hash = None
    site.broker.undefine(user_definition(user))
    site.broker.define(user_definition(user))
    assert site.stop().broker.users["nobody"] == user


def test_password_is_nowhere_in_the_log() -> None:
    site = with_users()
    hashed = site.broker.users["alice"].password_hash
    assert hashed is not None
    written = b"".join(site.log.batches)
    assert hashed in written
    assert b"s3cret" not in written


def test_user_that_is_replaced_comes_back_once_as_it_was_at_last() -> None:
    site = with_users()
    live = site.journal.batches.live_bytes
    site.broker.add_user("alice", b"changed", tags=frozenset({"management"}))
    site.collect()
    site.settle_down()
    assert site.journal.batches.live_bytes < live
    site = site.crash()
    alice = site.broker.log_in("alice", b"changed", "192.0.2.1")
    assert alice.tags == {"management"}
    assert alice.permissions == {}
    with pytest.raises(AMQPError):
        site.broker.log_in("alice", b"s3cret", "192.0.2.1")


def test_user_is_written_anew_when_the_start_of_the_log_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cleaner, "SLACK", 400)
    monkeypatch.setattr(cleaner, "STEP", 300)
    site = with_users()
    users = dict(site.broker.users)
    client = site.connect()
    client.tell(Queue.Declare, queue="q", durable=True)
    site.settle_down()
    for _ in range(20):
        publish_persistent(client, b"x" * 300)
        client.tell(Queue.Purge, queue="q")
        site.settle_down()
    assert site.log.first > 5
    site = site.crash()
    assert {name: site.broker.users[name] for name in ("alice", "near")} == {
        name: users[name] for name in ("alice", "near")
    }


def test_binding_that_is_unbound_with_its_arguments_in_another_order_does_not_come_back() -> None:
    arguments = {"a": text("1"), "b": text("2")}
    site = DurableSite()
    client = site.connect()
    client.tell(Queue.Declare, queue="q", durable=True)
    client.tell(Queue.Bind, queue="q", exchange="amq.headers", arguments=arguments)
    site.settle_down()
    site = site.crash()
    assert len(site.vhost.exchanges["amq.headers"].router) == 1
    client = site.connect()
    other_order = dict(reversed(arguments.items()))
    client.tell(Queue.Unbind, queue="q", exchange="amq.headers", arguments=other_order)
    site.settle_down()
    assert [received.kind for received in client.read()] == [Queue.UnbindOk]
    site = site.crash()
    assert len(site.vhost.exchanges["amq.headers"].router) == 0

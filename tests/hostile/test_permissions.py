"""A user sees and touches only what the permissions say; names cannot be probed."""

from __future__ import annotations

from typing import Any

import pytest

from broker.core.users import Permission
from conformance.fuzz.world import World, method

from .client import Client, opened, publish, world

NOTHING = Permission("^$", "^$", "^$")


def site_with(**rules: Permission) -> World:
    """A broker with the queue and exchange `secret`, and these users."""
    site = world()
    owner = opened(site)
    owner.ask(1, "queue.declare", queue="secret")
    owner.ask(1, "exchange.declare", exchange="secret", type="fanout")
    owner.tell(publish("secret", b"content"))
    for name, permission in rules.items():
        site.broker.add_user(name, name.encode(), permissions={"/": permission})
    return site


def nobody(site: World) -> Client:
    return opened(site, user=b"nobody")


PROBES: dict[str, dict[str, Any]] = {
    "queue.declare": {"passive": True},
    "exchange.declare": {"passive": True, "type": "fanout"},
    "queue.bind": {"exchange": "amq.fanout"},
    "queue.unbind": {"exchange": "amq.fanout"},
    "queue.purge": {},
    "queue.delete": {},
    "basic.get": {},
    "basic.consume": {},
    "exchange.delete": {},
    "exchange.bind": {"source": "amq.fanout"},
    "exchange.unbind": {"source": "amq.fanout"},
    "basic.publish": {},
}


def probe(client: Client, name: str, target: str) -> tuple[str, int, str]:
    """The answer to a method about `target`, without the name in it."""
    resource = "queue" if "queue" in name or name in ("basic.get", "basic.consume") else "exchange"
    if name in ("exchange.bind", "exchange.unbind"):
        resource = "destination"
    octets = method(1, name, **PROBES[name], **{resource: target})
    if name == "basic.publish":
        octets = publish("k", exchange=target)
    error = client.error(octets)
    if error[0] == "channel.close":
        client.tell(method(1, "channel.close-ok") + method(1, "channel.open"))
    return error[0], error[1], error[2].replace(target, "*")


@pytest.mark.parametrize("name", PROBES)
def test_user_without_permission_cannot_tell_whether_a_name_exists(name: str) -> None:
    client = nobody(site_with(nobody=NOTHING))
    there = probe(client, name, "secret")
    assert there[:2] == ("channel.close", 403)
    assert probe(client, name, "missing") == there


@pytest.mark.parametrize("name", ["queue.declare", "exchange.declare"])
@pytest.mark.parametrize("permission", ["configure", "write", "read"])
def test_passive_declare_takes_any_one_permission(name: str, permission: str) -> None:
    rule = {"configure": "^$", "write": "^$", "read": "^$", permission: "^secret$"}
    client = nobody(site_with(nobody=Permission(**rule)))
    assert probe(client, name, "secret")[0] == "running"
    assert probe(client, name, "other")[:2] == ("channel.close", 403)


@pytest.mark.parametrize("name", ["queue.declare", "exchange.declare"])
def test_passive_declare_of_a_missing_name_with_permission_is_not_found(name: str) -> None:
    client = nobody(site_with(nobody=Permission("^$", "^$", ".*")))
    assert probe(client, name, "missing")[:2] == ("channel.close", 404)


def test_rules_are_searched_for_anywhere_in_a_name() -> None:
    client = nobody(site_with(nobody=Permission("ecre", "^$", "^$")))
    assert probe(client, "queue.declare", "secret")[0] == "running"
    assert probe(client, "queue.declare", "sacred")[1] == 403


@pytest.mark.parametrize(
    ("permission", "method_name", "fields"),
    [
        ("write", "queue.bind", {"queue": "secret", "exchange": "amq.fanout"}),
        ("read", "queue.bind", {"queue": "secret", "exchange": "amq.fanout"}),
        ("write", "exchange.bind", {"destination": "secret", "source": "amq.fanout"}),
        ("read", "exchange.bind", {"destination": "secret", "source": "amq.fanout"}),
    ],
)
def test_binding_takes_write_on_one_end_and_read_on_the_other(
    permission: str, method_name: str, fields: dict[str, str]
) -> None:
    rule = {"configure": ".*", "write": "^secret$", "read": "^amq.fanout$"}
    allowed = nobody(site_with(nobody=Permission(**rule)))
    assert allowed.error(method(1, method_name, **fields))[0] == "running"
    refused = nobody(site_with(nobody=Permission(**(rule | {permission: "^$"}))))
    assert refused.error(method(1, method_name, **fields))[:2] == ("channel.close", 403)


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        (Permission("^mine$", "^secret$", "^mine$"), 0),
        (Permission("^mine$", "^$", "^mine$"), 403),
        (Permission("^mine$", "^secret$", "^$"), 403),
        (Permission("^$", "^secret$", "^mine$"), 403),
    ],
)
@pytest.mark.parametrize(
    ("name", "argument"),
    [("queue", "x-dead-letter-exchange"), ("exchange", "alternate-exchange")],
)
def test_messages_cannot_be_led_to_an_exchange_one_may_not_write_to(
    name: str, argument: str, rule: Permission, code: int
) -> None:
    client = nobody(site_with(nobody=rule))
    fields: dict[str, Any] = {name: "mine", "arguments": {argument: "secret"}}
    if name == "exchange":
        fields["type"] = "direct"
    assert client.error(method(1, f"{name}.declare", **fields))[1] == code


def test_nobody_publishes_in_the_name_of_another_user() -> None:
    client = nobody(site_with(nobody=Permission()))
    error = client.error(publish("secret", b"", {"user_id": "guest"}))
    assert error[:2] == ("channel.close", 406)
    assert client.world.vhost.queues["secret"].messages_ready == 1


@pytest.mark.parametrize("name", ["queue.declare", "queue.bind", "basic.get", "basic.consume"])
def test_exclusive_queue_of_another_connection_cannot_be_used(name: str) -> None:
    site = site_with(nobody=Permission())
    opened(site).ask(1, "queue.declare", queue="private", exclusive=True)
    assert probe(nobody(site), name, "private")[:2] == ("channel.close", 405)


def test_permissions_that_are_taken_away_stop_publishing_at_once() -> None:
    site = site_with(nobody=Permission())
    client = nobody(site)
    assert client.error(publish("secret"))[0] == "running"
    site.broker.add_user("nobody", b"nobody", permissions={"/": NOTHING})
    client.connection.user = site.broker.users["nobody"]
    assert client.error(publish("secret"))[:2] == ("channel.close", 403)

"""`--definitions FILE`: what RabbitMQ exports is there at the start, and at every later one."""

from __future__ import annotations

import base64
import json
import signal
from collections.abc import Callable
from pathlib import Path

import pika
import pytest

from broker.core.broker import Broker
from broker.core.exchange import PREDECLARED
from broker.core.rules import QueueRules
from broker.core.users import Permission, User, hash_password
from broker.errors import AMQPError
from broker.wire.table import Field
from tests.conftest import BrokerProcess
from tests.server.starts import Starts, in_slash, with_slash

EXPORT = Path(__file__).parent / "rabbitmq-3.10.json"
AWAY = "192.0.2.1"
BUILT_IN = {"", *(name for name, *_ in PREDECLARED)}


@pytest.fixture
def start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Starts:
    return Starts(tmp_path, caplog, monkeypatch)


def text(value: str) -> Field:
    return Field("longstr", value)


# What RabbitMQ exports


def check_export(broker: Broker) -> None:
    """The broker has what the export of RabbitMQ 3.10 has."""
    assert broker.vhosts.keys() == {"/", "orders"}
    assert broker.users.keys() == {"alice", "guest"}
    assert broker.users["alice"].tags == {"administrator", "monitoring"}
    assert broker.users["alice"].permissions == {
        "/": Permission("^a", "b$", ".*"),
        "orders": Permission(),
    }
    assert broker.log_in("alice", b"s3cret", AWAY).name == "alice"
    assert broker.log_in("guest", b"guest", "127.0.0.1").name == "guest"
    with pytest.raises(AMQPError):
        broker.log_in("guest", b"guest", AWAY)
    vhost = broker.vhosts["/"]
    assert [(policy.name, policy.is_operator) for policy in vhost.policies.all()] == [
        ("ttl", False),
        ("ae", False),
        ("cap", True),
    ]
    assert vhost.exchanges.keys() - BUILT_IN == {"orders", "unrouted"}
    assert vhost.exchanges["orders"].alternate == "unrouted"
    assert vhost.exchanges["orders"].type == "topic"
    paid = vhost.queues["orders.paid"]
    assert paid.durable
    assert paid.arguments["x-message-ttl"] == Field("long", 60000)
    assert paid.rules == QueueRules(
        message_ttl=60000, expires=3_600_000, max_length=100_000, dead_letter_exchange="unrouted"
    )
    assert vhost.queues["orders.quorum"].rules.delivery_limit == 3
    queues, _ = vhost.route(vhost.exchanges["orders"], ["order.paid"], b"")
    assert [queue.name for queue in queues] == ["orders.paid"]


def test_export_of_rabbitmq_is_there_at_the_start_and_at_every_later_one(start: Starts) -> None:
    broker = start(EXPORT)
    check_export(broker)
    assert broker.vhosts["/"].queues.keys() == {
        "audited", "orders.paid", "orders.quorum", "transient",
    }  # fmt: skip
    assert not broker.vhosts["/"].queues["transient"].durable
    made, without_effect, left = start.log()
    assert made == (
        "new or changed: 2 vhosts, 2 users, 3 policies, 2 exchanges, 4 queues, 2 bindings"
    )
    assert without_effect == (
        "without effect: parameters (vhost-limits), topic_permissions, global_parameters, "
        "limits of vhosts"
    )
    # RabbitMQ does not export internal exchanges, but their bindings.
    assert left == (
        "not as in the file: stream 'events' in vhost '/'; binding of queue 'audited' to exchange "
        "'audit' in vhost '/': one of them is not there; binding of exchange 'audit' to exchange "
        "'orders' in vhost '/': one of them is not there"
    )
    check_export(start(EXPORT))
    # What does not last is new again.
    assert start.log() == ["new or changed: 1 queues", without_effect, left]
    check_export(start())


def test_operator_policies_of_their_own_and_pairs_and_lists_are_read_too(start: Starts) -> None:
    value = {"pattern": "", "definition": {"max-length": 7}, "apply-to": "all", "priority": 1}
    broker = start(
        with_slash(
            operator_policies=in_slash({"name": "a", **value}),
            parameters=in_slash(
                {
                    "component": "operator_policy",
                    "name": "b",
                    "value": [[key, value[key]] for key in value],
                }
            ),
            policies=in_slash({"name": "c", "pattern": "", "definition": [["max-length", 9]]}),
            users=[{"name": "old", "password_hash": "", "tags": "management,policymaker"}],
        )
    )
    policies = broker.vhosts["/"].policies.all()
    assert [(each.name, each.is_operator, dict(each.definition)) for each in policies] == [
        ("c", False, {"max-length": 9}),
        ("a", True, {"max-length": 7}),
        ("b", True, {"max-length": 7}),
    ]
    assert broker.users["old"] == User("old", None, frozenset({"management", "policymaker"}))
    with pytest.raises(AMQPError):
        broker.log_in("old", b"", AWAY)


def test_arguments_have_the_types_that_rabbitmq_gives_them(start: Starts) -> None:
    arguments = {
        "x-a": [1, "s", {"t": True}], "x-b": 1.5, "x-c": None, "x-d": {"n": 2**62},
    }  # fmt: skip
    broker = start(with_slash(queues=in_slash({"name": "q", "arguments": arguments})))
    assert broker.vhosts["/"].queues["q"].arguments == {
        "x-a": Field(
            "array", [Field("long", 1), text("s"), Field("table", {"t": Field("bool", True)})]
        ),
        "x-b": Field("double", 1.5),
        "x-c": Field("void", None),
        "x-d": Field("table", {"n": Field("long", 2**62)}),
    }


@pytest.mark.parametrize("algorithm", ["md5", "sha256", "sha512"])
def test_users_log_in_by_every_hash_of_rabbitmq(start: Starts, algorithm: str) -> None:
    name = f"rabbit_password_hashing_{algorithm}"
    hashed = base64.b64encode(hash_password(b"pass", b"salt", name)).decode()
    known: dict[str, object] = {"name": "known", "password_hash": hashed}
    users = [known | {"hashing_algorithm": name}, known | {"name": "guessed"}]
    broker = start({"users": users})
    for user in ("known", "guessed"):
        assert broker.log_in(user, b"pass", AWAY).name == user


def test_user_with_a_plain_password_is_the_same_at_the_next_start(start: Starts) -> None:
    definitions = {"users": [{"name": "alice", "password": "s3cret"}]}
    first = start(definitions).users["alice"]
    assert start(definitions).users["alice"] == first
    assert start.log() == ["nothing is new"]
    assert start(definitions).log_in("alice", b"s3cret", AWAY).name == "alice"
    assert (
        start({"users": [{"name": "alice", "password": "new"}]}).log_in("alice", b"new", AWAY).name
        == "alice"
    )


# What is there already


def test_users_permissions_and_policies_are_as_in_the_file_from_then_on(start: Starts) -> None:
    def definitions(read: str, length: int, tag: str) -> dict[str, object]:
        rule = {"vhost": "/", "user": "alice", "configure": "", "write": "", "read": read}
        policy = {"name": "p", "pattern": "", "definition": {"max-length": length}}
        return with_slash(
            users=[{"name": "alice", "password": "s3cret", "tags": [tag]}],
            permissions=[rule],
            policies=in_slash(policy),
            queues=in_slash({"name": "q"}),
        )

    start(definitions("^a", 5, "monitoring"))
    broker = start(definitions("^b", 3, "management"))
    assert start.log() == ["new or changed: 1 users, 1 policies"]
    assert broker.users["alice"].permissions == {"/": Permission("", "", "^b")}
    assert broker.users["alice"].tags == {"management"}
    assert broker.vhosts["/"].queues["q"].rules == QueueRules(max_length=3)
    # What a file does not have stays.
    broker = start({"permissions": []})
    assert start.log() == ["nothing is new"]
    assert broker.vhosts["/"].queues["q"].rules == QueueRules(max_length=3)


def test_permission_for_a_user_who_is_there_already_is_added(start: Starts) -> None:
    start()
    rule = {"vhost": "v", "user": "guest", "configure": "^$", "write": "w", "read": "r"}
    broker = start({"vhosts": [{"name": "v"}], "permissions": [rule]})
    assert broker.users["guest"].permissions == {
        "/": Permission(),
        "v": Permission("^$", "w", "r"),
    }
    assert broker.log_in("guest", b"guest", "127.0.0.1").loopback_only


def test_queue_and_exchange_with_other_properties_are_reported_and_left(start: Starts) -> None:
    start(
        with_slash(
            queues=in_slash({"name": "q", "arguments": {"x-max-length": 1}}),
            exchanges=in_slash({"name": "x", "type": "direct"}),
        )
    )
    broker = start(
        with_slash(
            queues=in_slash({"name": "q", "arguments": {"x-max-length": 2}}),
            exchanges=in_slash({"name": "x", "type": "topic"}),
        )
    )
    assert start.log() == [
        "nothing is new",
        (
            "not as in the file: inequivalent arg 'type' for exchange 'x' in vhost '/': received "
            "'topic' but current is 'direct'; inequivalent arg 'x-max-length' for queue 'q' in "
            "vhost '/': received '2' but current is '1'"
        ),
    ]
    assert broker.vhosts["/"].queues["q"].rules == QueueRules(max_length=1)
    assert broker.vhosts["/"].exchanges["x"].type == "direct"


def test_file_without_users_gets_the_default_one_and_a_file_with_users_does_not(
    start: Starts,
) -> None:
    assert start({"vhosts": [{"name": "v"}]}).users.keys() == {"guest"}


def test_file_with_users_makes_no_default_one(start: Starts) -> None:
    broker = start({"users": [{"name": "alice", "password": "x"}]})
    assert broker.users.keys() == {"alice"}


def test_many_things_that_are_left_out_are_counted(start: Starts) -> None:
    names = [f"x{number:02}" for number in range(13)]
    start(with_slash(exchanges=in_slash(*[{"name": name, "type": "x-nix"} for name in names])))
    _, left = start.log()
    assert "exchange 'x09' in vhost '/' of type x-nix; and 3 more" in left
    assert "x10" not in left


# As a process


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_what_a_file_defined_holds_after_a_restart_without_it(
    start_broker: Callable[..., BrokerProcess], tmp_path: Path, end: signal.Signals
) -> None:
    path = tmp_path / "definitions.json"
    rest = {"source": "rest", "destination": "unrouted", "destination_type": "queue"}
    everything = {"user": "alice", "configure": ".*", "write": ".*", "read": ".*"}
    definition = {"alternate-exchange": "rest"}
    definitions = with_slash(
        users=[{"name": "alice", "password": "s3cret"}],
        permissions=in_slash(everything),
        policies=in_slash({"name": "ae", "pattern": "^amq\\.", "definition": definition}),
        exchanges=in_slash({"name": "rest", "type": "fanout"}),
        queues=in_slash({"name": "unrouted"}),
        bindings=in_slash(rest),
    )
    path.write_text(json.dumps(definitions), encoding="utf-8")
    flags = ("--data-dir", str(tmp_path / "data"))
    broker = start_broker(*flags, "--definitions", str(path))
    for round_number in range(2):
        url = broker.url.replace("guest:guest", "alice:s3cret")
        with pika.BlockingConnection(pika.URLParameters(url)) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            body = b"round %d" % round_number
            channel.basic_publish("amq.direct", "nowhere", body, mandatory=True)
            _, _, found = channel.basic_get("unrouted", auto_ack=True)
            assert found == body
        broker.stop(end) if end is signal.SIGTERM else broker.kill()
        broker = start_broker(*flags)

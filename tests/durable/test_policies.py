"""Policies over a restart: what was set holds again, what was cleared stays away."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from broker.core import cleaner, records
from broker.core.definitions import key_of
from broker.core.policies import Policy
from broker.core.records import Kind
from broker.core.rules import NO_RULES, QueueRules
from broker.errors import AMQPError, ReplyCode
from broker.storage.log import LogDamagedError, LogState
from broker.wire.table import Field, encode_table
from tests.durable.site import DurableSite, publish_persistent
from tests.protocol.client import Exchange, Queue, text

TTL = Policy("ttl", "^[[:alpha:]]+$", {"message-ttl": 7, "expires": 10**15}, "queues", -3)
CAP = Policy("ttl", "", {"max-length": 9}, is_operator=True)
RESTARTS = [DurableSite.stop, DurableSite.crash]
Restart = Callable[[DurableSite], DurableSite]


def settle(site: DurableSite) -> None:
    site.collect()
    site.settle_down()


def with_policies(*policies: Policy) -> DurableSite:
    site = DurableSite()
    client = site.connect()
    client.tell(Queue.Declare, queue="q", durable=True)
    client.tell(Exchange.Declare, exchange="orders", exchange_type="direct", durable=True)
    for policy in policies:
        site.vhost.set_policy(policy)
    settle(site)
    return site


@pytest.mark.parametrize("restart", RESTARTS)
def test_policies_come_back_and_hold_for_queues_and_exchanges(restart: Restart) -> None:
    site = restart(restart(with_policies(TTL, CAP)))
    assert site.vhost.policies.all() == [TTL, CAP]
    queue = site.vhost.queues["q"]
    assert queue.rules == QueueRules(message_ttl=7, expires=315_360_000_000, max_length=9)
    assert site.vhost.policies.of(queue)[:2] == ("ttl", "ttl")


@pytest.mark.parametrize("restart", RESTARTS)
def test_alternate_exchange_by_policy_comes_back(restart: Restart) -> None:
    policy = Policy("é", "^(orders|amq\\.topic)$", {"alternate-exchange": "rest"}, "exchanges")
    site = restart(with_policies(policy))
    assert site.vhost.exchanges["orders"].alternate == "rest"
    assert site.vhost.exchanges["amq.topic"].alternate == "rest"
    assert site.vhost.exchanges["amq.direct"].alternate is None


@pytest.mark.parametrize("restart", RESTARTS)
def test_policy_that_was_changed_comes_back_once_as_it_was_at_last(restart: Restart) -> None:
    site = with_policies(TTL, CAP)
    live = site.journal.batches.live_bytes
    shorter = Policy("ttl", "", {"max-length": 3})
    site.vhost.set_policy(shorter)
    settle(site)
    assert site.journal.batches.live_bytes < live
    site = restart(site)
    assert site.vhost.policies.all() == [shorter, CAP]
    assert site.vhost.queues["q"].rules == QueueRules(max_length=3)


@pytest.mark.parametrize("restart", RESTARTS)
def test_policy_that_was_cleared_stays_away_and_the_other_kind_of_its_name_stays(
    restart: Restart,
) -> None:
    site = with_policies(TTL, CAP)
    site.vhost.clear_policy("ttl", is_operator=True)
    settle(site)
    site = restart(site)
    assert site.vhost.policies.all() == [TTL]
    site.vhost.clear_policy("ttl")
    settle(site)
    site = restart(site)
    assert site.vhost.policies.all() == []
    assert site.vhost.queues["q"].rules == NO_RULES


def test_policy_that_was_not_durable_yet_is_gone_after_a_crash() -> None:
    site = with_policies(TTL)
    site.vhost.set_policy(Policy("ttl", "", {"max-length": 3}))
    site.vhost.set_policy(CAP)
    site = site.crash()
    assert site.vhost.policies.all() == [TTL]


def test_policies_are_written_anew_when_the_start_of_the_log_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cleaner, "SLACK", 400)
    monkeypatch.setattr(cleaner, "STEP", 300)
    site = with_policies(TTL, CAP)
    client = site.connect()
    for _ in range(20):
        publish_persistent(client, b"x" * 300)
        client.tell(Queue.Purge, queue="q")
        site.settle_down()
    assert site.log.first > 5
    site = site.crash()
    assert site.vhost.policies.all() == [TTL, CAP]


def test_policies_of_virtual_hosts_are_kept_apart() -> None:
    site = with_policies(TTL)
    other = site.broker.add_vhost("other")
    other.set_policy(Policy("ttl", "", {"max-length": 1}))
    settle(site)
    site = site.crash()
    assert [policy.definition for policy in site.vhost.policies.all()] == [TTL.definition]
    assert [policy.definition for policy in site.broker.vhosts["other"].policies.all()] == [
        {"max-length": 1}
    ]


def test_policy_is_refused_and_changes_nothing_when_it_would_not_last() -> None:
    site = with_policies(TTL)
    site.log.become(LogState.FAILED)
    site.settle_down()
    for change in (
        lambda: site.vhost.set_policy(CAP),
        lambda: site.vhost.clear_policy("ttl"),
    ):
        with pytest.raises(AMQPError) as caught:
            change()
        assert caught.value.code is ReplyCode.INTERNAL_ERROR
    assert site.vhost.policies.all() == [TTL]


def test_policy_with_a_key_of_a_later_version_keeps_the_broker_from_starting() -> None:
    site = with_policies()
    table = {
        "vhost": text("/"),
        "name": text("later"),
        "is_operator": Field("bool", False),
        "value": text('{"pattern":"","definition":{"later-key":1}}'),
    }
    octets = encode_table(table)
    site.journal.define(key_of(Kind.POLICY, table), Kind.POLICY, octets)
    settle(site)
    assert records.definition(Kind.POLICY, octets) in b"".join(site.log.batches)
    with pytest.raises(LogDamagedError, match=r"later-key.* are not recognised policy settings"):
        site.crash()

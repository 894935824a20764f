"""What exchanges and queues remember of publishes, over restarts, kills and failing logs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from broker.core import cleaner
from broker.core.deduplication.remembered import read_record, record
from broker.core.policies import Policy
from broker.core.records import HEAD
from broker.core.redeclare import Redeclare
from broker.storage.log import LogState
from broker.wire.table import Table
from tests.durable.deduplicating import (
    ON,
    exchange,
    number,
    remembered,
    send,
    settle,
    taken,
)
from tests.durable.site import DurableSite
from tests.protocol.client import Basic, Channel, Confirm, Exchange, Queue, Tx, text

Restart = Callable[[DurableSite], DurableSite]
restarts = pytest.mark.parametrize("restart", [DurableSite.stop, DurableSite.crash])


@restarts
@pytest.mark.parametrize("is_taken", [False, True])
def test_exchange_knows_duplicates_after_a_restart(restart: Restart, is_taken: bool) -> None:
    site = DurableSite()
    client = exchange(site)
    send(client, "a", "b")
    site.settle_down()
    if is_taken:
        assert taken(site) == ["a0", "b1"]
    site = restart(site)
    send(site.connect(), "b", "c")
    site.settle_down()
    site = restart(restart(site))
    send(site.connect(), "a", "b", "c", "d")
    assert taken(site) == [*([] if is_taken else ["a0", "b1"]), "c1", "d3"]
    assert site.broker.counters.messages_deduplicated == 3


@restarts
def test_queue_knows_duplicates_after_a_restart(restart: Restart) -> None:
    site = DurableSite()
    client = site.connect()
    client.tell(Queue.Declare, queue="q", durable=True, arguments={**ON, "x-cache-size": number(2)})
    settle(site, client)
    send(client, "a", "b", "c", exchange="", key="q")
    site.settle_down()
    site = restart(site)
    send(site.connect(), "b", "c", "a", exchange="", key="q")
    site.settle_down()
    assert taken(site) == ["a0", "b1", "c2", "a2"]


@restarts
def test_expiry_goes_on_over_restarts(restart: Restart) -> None:
    site = DurableSite(now=1000)
    client = exchange(site, x_cache_ttl=number(500))
    send(client, "a")
    site.settle_down()
    site.wait_until(1499)
    site = restart(site)
    send(site.connect(), "a")
    site.wait_until(1500)
    send(site.connect(), "a")
    site.settle_down()
    assert taken(site) == ["a0", "a0"]
    site.wait_until(5000)
    site = restart(site)
    assert site.broker.memory_used == 0
    wanted = site.journal.batches.live_bytes
    assert restart(site).journal.batches.live_bytes == wanted


@restarts
def test_what_expired_takes_no_memory_after_a_restart(restart: Restart) -> None:
    site = DurableSite()
    client = exchange(site, x_cache_ttl=number(1000))
    send(client, "a", "b")
    site.settle_down()
    site = restart(site)
    assert site.broker.window_bytes > 0
    site.advance(3000)
    assert site.broker.window_bytes == 0


@restarts
def test_transient_messages_are_forgotten_as_they_are_lost(restart: Restart) -> None:
    site = DurableSite()
    client = exchange(site)
    send(client, "a", persistent=False)
    send(client, "a", "b")
    site.settle_down()
    site = restart(site)
    send(site.connect(), "a", "b")
    assert taken(site) == ["b1", "a0"]


@restarts
def test_what_is_kept_in_memory_alone_is_forgotten(restart: Restart) -> None:
    site = DurableSite()
    client = exchange(site, x_cache_persistence=text("memory"))
    send(client, "a", "a")
    site.settle_down()
    site = restart(site)
    send(site.connect(), "a")
    assert taken(site) == ["a0", "a0"]


@restarts
def test_exchange_that_was_deleted_leaves_nothing(restart: Restart) -> None:
    site = DurableSite()
    client = exchange(site)
    send(client, "a")
    client.tell(Exchange.Delete, exchange="x")
    settle(site, client)
    exchange(site)
    site = restart(site)
    send(site.connect(), "a", "a")
    site.settle_down()
    site = restart(site)
    send(site.connect(), "a")
    assert taken(site) == ["a0", "a0"]


@restarts
@pytest.mark.parametrize("is_used", [False, True])
def test_purged_queue_has_forgotten_after_a_restart_too(restart: Restart, is_used: bool) -> None:
    site = DurableSite()
    client = site.connect()
    client.tell(Queue.Declare, queue="q", durable=True, arguments={**ON, "x-cache-size": number(9)})
    settle(site, client)
    send(client, "a", exchange="", key="q")
    client.tell(Queue.Purge, queue="q")
    settle(site, client)
    if is_used:
        send(client, "b", exchange="", key="q")
        site.settle_down()
    site = restart(site)
    send(site.connect(), "a", "b", exchange="", key="q")
    assert sorted(taken(site)) == (["a0", "b0"] if is_used else ["a0", "b1"])


@restarts
def test_policy_on_an_exchange_that_is_there_from_the_beginning_lasts(restart: Restart) -> None:
    site = DurableSite()
    client = site.connect()
    site.vhost.set_policy(Policy("p", "^amq.fanout$", {"message-deduplication": True}))
    client.tell(Queue.Declare, queue="q", durable=True)
    client.tell(Queue.Bind, queue="q", exchange="amq.fanout")
    settle(site, client)
    send(client, "a", exchange="amq.fanout")
    site.settle_down()
    site = restart(site)
    send(site.connect(), "a", "b", exchange="amq.fanout")
    site.settle_down()
    assert taken(site) == ["a0", "b1"]
    # It is switched off and on again: what was before counts no more.
    site.vhost.clear_policy("p")
    site.collect()
    site.settle_down()
    site = restart(site)
    site.vhost.set_policy(Policy("p", "^amq.fanout$", {"message-deduplication": True}))
    send(site.connect(), "a", exchange="amq.fanout")
    site.settle_down()
    site = restart(site)
    send(site.connect(), "a", "b", exchange="amq.fanout")
    assert taken(site) == ["a0", "b1"]


# Confirms


def test_duplicate_is_confirmed_when_its_original_is_durable() -> None:
    site = DurableSite()
    exchange(site)
    first, second = site.connect(), site.connect()
    for client in (first, second):
        client.ask(Confirm.Select)
        send(client, "a")
        site.broker.write()
        # What the second one waits for is under way already.
        assert client.read() == []
    site.log.work(1)
    site.log.tell(1)
    site.collect()
    assert [item.kind for item in (*first.read(), *second.read())] == [Basic.Ack, Basic.Ack]
    send(second, "a")
    assert [item.kind for item in second.read()] == [Basic.Ack]
    assert taken(site) == ["a0"]


def test_commit_of_a_duplicate_is_answered_when_its_original_is_durable() -> None:
    site = DurableSite()
    exchange(site)
    first, second = site.connect(), site.connect()
    send(first, "a")
    second.ask(Tx.Select)
    send(second, "a")
    second.tell(Tx.Commit)
    assert second.read() == []
    site.settle_down()
    assert [item.kind for item in second.read()] == [Tx.CommitOk]
    assert taken(site) == ["a0"]


@pytest.mark.parametrize("keep", range(4))
def test_id_is_durable_with_its_message_or_neither_is(keep: int) -> None:
    site = DurableSite()
    client = exchange(site)
    # A flush is under way, another waits, and a third is pending.
    for key in "abcd":
        send(client, key)
        site.broker.write()
    site = site.crash(keep)
    send(site.connect(), *"abcd")
    site.settle_down()
    assert sorted(body[0] for body in taken(site)) == list("abcd")


@pytest.mark.parametrize("is_persistent", [False, True])
def test_ids_that_made_room_for_what_is_lost_are_known_again(is_persistent: bool) -> None:
    site = DurableSite()
    client = exchange(site, x_cache_size=number(2))
    send(client, "a", "b")
    site.settle_down()
    send(client, "c", "d", persistent=is_persistent)
    site = site.crash()
    send(site.connect(), "a", "b", "c")
    site.settle_down()
    assert taken(site) == ["a0", "b1", "c2"]


def test_original_that_was_not_written_is_no_original() -> None:
    site = DurableSite()
    client = exchange(site)
    send(client, "durable")
    site.settle_down()
    client.ask(Confirm.Select)
    send(client, "a")
    site.log.become(LogState.FAILED)
    site.settle_down()
    assert [item.kind for item in client.read()] == [Basic.Nack]
    send(client, "a")
    site.settle_down()
    assert [item.kind for item in client.read()] == [Basic.Nack]
    # This one was written before.
    send(client, "durable")
    site.settle_down()
    assert [item.kind for item in client.read()] == [Basic.Ack]
    # And what need not last goes on, once.
    send(client, "t", "t", persistent=False)
    site.settle_down()
    assert site.broker.counters.messages_deduplicated == 2


@restarts
def test_adopted_arguments_are_checked_before_they_are_written(restart: Restart) -> None:
    site = DurableSite()
    site.broker.redeclare = {"/": Redeclare.ADOPT}
    client = site.connect()
    kind: Table = {"x-delayed-type": text("x-message-deduplication")}
    answers = []
    for more in ({"x-cache-size": number(5)}, {}):
        client.tell(
            Exchange.Declare,
            exchange="d",
            exchange_type="x-delayed-message",
            durable=True,
            arguments={**kind, **more},
        )
        answers += settle(site, client)
    assert [item.kind for item in answers] == [Exchange.DeclareOk, Channel.Close]
    assert "x-cache-size" in restart(site).vhost.exchanges["d"].arguments


BEFORE_IT_WAS_KNOWN: list[Table] = [
    {"x-message-deduplication": text("true")},
    {**ON, "x-cache-size": text("ten")},
    {**ON, "x-cache-size": number(-1), "x-cache-ttl": number(-1)},
    {**ON, "x-deduplication-header": number(5), "x-cache-persistence": number(5)},
]


@pytest.mark.parametrize("arguments", BEFORE_IT_WAS_KNOWN)
def test_log_with_arguments_that_had_no_effect_is_read(
    arguments: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = DurableSite()
    client = site.connect()
    with monkeypatch.context() as before:
        before.setattr("broker.core.vhost.check_exchange", lambda *_: None)
        before.setattr("broker.core.arguments.QUEUE_ARGUMENTS", {})
        client.tell(
            Exchange.Declare,
            exchange="x",
            exchange_type="fanout",
            durable=True,
            arguments=arguments,
        )
        site.settle_down()
        client.tell(Queue.Declare, queue="q", durable=True, arguments=arguments)
        site.settle_down()
    site = site.crash()
    client = site.connect()
    client.tell(Queue.Bind, queue="q", exchange="x")
    send(client, "a", "b")
    assert taken(site) == ["a0", "b1"]


# The log


@pytest.fixture
def tidy(monkeypatch: pytest.MonkeyPatch) -> DurableSite:
    """A broker that cleans its log at once, little by little."""
    monkeypatch.setattr(cleaner, "SLACK", 0)
    monkeypatch.setattr(cleaner, "STEP_MIN", 100)
    return DurableSite()


@restarts
def test_log_that_is_cleaned_goes_on_having_what_is_remembered(
    tidy: DurableSite, restart: Restart
) -> None:
    site = tidy
    client = exchange(site, x_cache_size=number(20))
    send(client, "first")
    for round_ in range(60):
        send(client, *[f"{place}" for place in range(5)])
        client.publish(b"unmarked" * 50, exchange="x")
        if round_ % 5 == 0:
            send(client, f"r{round_}")
        site.settle_down()
        taken(site)
    assert site.journal.batches.first > 30
    before = remembered(site)
    site = restart(site)
    assert remembered(site) == before
    send(site.connect(), "first", "r55", "new")
    assert taken(site) == ["new2"]


def test_log_does_not_grow_with_what_is_forgotten(tidy: DurableSite) -> None:
    client = exchange(tidy, x_cache_size=number(50))
    sizes = []
    for start in range(0, 3000, 100):
        send(client, *[f"{key}" for key in range(start, start + 100)])
        tidy.settle_down()
        taken(tidy)
        sizes.append(tidy.journal.batches.total_bytes)
    assert max(sizes[10:]) < 1.5 * max(sizes[:10])
    wanted = tidy.journal.batches.live_bytes
    assert tidy.crash().journal.batches.live_bytes == wanted


@restarts
def test_nothing_is_wanted_of_what_is_gone(restart: Restart) -> None:
    site = DurableSite()
    client = exchange(site)
    empty = site.journal.batches.live_bytes
    send(client, *"abcdefghijklm")
    site.settle_down()
    taken(site)
    assert site.journal.batches.live_bytes > empty
    client.tell(Exchange.Delete, exchange="x")
    client.tell(Queue.Delete, queue="q")
    site.settle_down()
    vhost_alone = DurableSite()
    vhost_alone.settle_down()
    assert site.journal.batches.live_bytes == vhost_alone.journal.batches.live_bytes
    site = restart(site)
    assert site.journal.batches.live_bytes == vhost_alone.journal.batches.live_bytes
    assert site.journal.windows == {}


def test_record_says_what_was_written() -> None:
    rows = [(b"", None, 1), (b"a" * 65, 0, 2**63), (b"\0", 2**62, 7)]
    octets = record(2**40, 5, rows)
    assert read_record(b"xx" + octets, 2 + HEAD.size) == (2**40, 5, rows)
    assert read_record(record(1, 9, ()), HEAD.size) == (1, 9, [])

"""What exchanges of type x-recent-history keep, over restarts and while memory is short."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from broker.core import cleaner, paging, reading
from broker.wire.table import Field
from tests.durable.site import PERSISTENT, DurableSite, publish_persistent
from tests.protocol.client import Basic, Client, Exchange, Queue, is_close

Restart = Callable[[DurableSite], DurableSite]
restarts = pytest.mark.parametrize("restart", [DurableSite.stop, DurableSite.crash])


def settle(site: DurableSite, client: Client) -> None:
    site.settle_down()
    client.read()


def declare(site: DurableSite, length: int = 3, *, durable: bool = True) -> Client:
    client = site.connect()
    client.tell(
        Exchange.Declare,
        exchange="x",
        exchange_type="x-recent-history",
        durable=durable,
        arguments={"x-recent-history-length": Field("signedint", length)},
    )
    settle(site, client)
    return client


def bound(site: DurableSite, queue: str = "q", **options: Any) -> list[str]:
    """What a queue gets that is bound now."""
    client = site.connect()
    client.tell(Queue.Declare, queue=queue, **options)
    site.settle_down()
    client.tell(Queue.Bind, queue=queue, exchange="x")
    site.settle_down()
    assert [item.kind for item in client.read()] == [Queue.DeclareOk, Queue.BindOk]
    return taken(site, queue)


def taken(site: DurableSite, queue: str) -> list[str]:
    client = site.connect()
    client.consume(queue, no_ack=True)
    site.settle_down()
    return [body.decode() for body in client.bodies()]


@restarts
def test_persistent_messages_of_a_durable_exchange_are_kept_over_restarts(restart: Restart) -> None:
    site = DurableSite()
    publish_persistent(declare(site), b"a", b"b", b"c", b"d", exchange="x")
    site.settle_down()
    site = restart(site)
    assert bound(site) == ["b", "c", "d"]
    client = site.connect()
    publish_persistent(client, b"e", exchange="x")
    site.settle_down()
    site = restart(restart(site))
    assert bound(site) == ["c", "d", "e"]


@restarts
def test_transient_messages_are_not(restart: Restart) -> None:
    site = DurableSite()
    client = declare(site)
    client.publish(b"transient", exchange="x")
    publish_persistent(client, b"a", exchange="x")
    client.publish(b"transient", exchange="x")
    site.settle_down()
    assert bound(site) == ["transient", "a", "transient"]
    assert bound(restart(site)) == ["a"]


def test_exchange_that_is_transient_takes_what_it_keeps_along() -> None:
    site = DurableSite()
    publish_persistent(declare(site, durable=False), b"a", exchange="x")
    site.settle_down()
    assert site.journal.queues == {}
    site = site.stop()
    assert "x" not in site.vhost.exchanges


@restarts
def test_exchange_that_was_deleted_leaves_nothing(restart: Restart) -> None:
    site = DurableSite()
    client = declare(site)
    publish_persistent(client, b"a", exchange="x")
    client.tell(Exchange.Delete, exchange="x")
    site.settle_down()
    site = restart(site)
    assert (site.vhost.exchanges.get("x"), site.journal.queues) == (None, {})
    declare(site)
    assert bound(restart(site)) == []


@restarts
def test_copies_in_a_durable_queue_last_once_the_binding_is_answered(restart: Restart) -> None:
    site = DurableSite()
    client = declare(site)
    publish_persistent(client, b"a", b"b", exchange="x")
    site.settle_down()
    site = restart(site)
    client = site.connect()
    client.tell(Queue.Declare, queue="q", durable=True)
    settle(site, client)
    client.tell(Queue.Bind, queue="q", exchange="x")
    while not client.read():
        assert site.step()
    site = site.crash()
    assert taken(site, "q") == ["a", "b"]
    assert bound(site, "late") == ["a", "b"]


def test_bindings_that_come_back_give_nothing_again() -> None:
    site = DurableSite()
    publish_persistent(declare(site), b"a", exchange="x")
    assert bound(site, durable=True) == ["a"]
    site.settle_down()
    assert taken(site.stop(), "q") == []


def test_what_has_to_be_read_comes_before_what_is_published_meanwhile() -> None:
    site = DurableSite()
    publish_persistent(declare(site, 4), b"a", b"b", exchange="x")
    site.settle_down()
    site = site.crash()
    client, other = site.connect(), site.connect()
    client.queue("q")
    client.tell(Queue.Bind, queue="q", exchange="x")
    assert client.read() == []
    other.publish(b"c", exchange="x")
    other.queue("other")
    client.tell(Basic.Publish, exchange="x")
    site.settle_down()
    assert [item.kind for item in client.read()] == [Queue.BindOk]
    other.publish(b"d", exchange="x")
    assert taken(site, "q") == ["a", "b", "c", "d"]


def test_queue_that_goes_while_the_history_is_read_cannot_be_bound() -> None:
    site = DurableSite()
    publish_persistent(declare(site), b"a", exchange="x")
    site.settle_down()
    site = site.crash()
    client, other = site.connect(), site.connect()
    client.queue("q")
    client.tell(Queue.Bind, queue="q", exchange="x")
    other.ask(Queue.Delete, queue="q")
    site.settle_down()
    (item,) = client.read()
    assert is_close(item.method, 404, "no queue 'q' in vhost '/'", Queue.Bind)


def test_exchange_that_goes_while_it_is_read_cannot_be_bound() -> None:
    site = DurableSite()
    publish_persistent(declare(site), b"a", exchange="x")
    site.settle_down()
    site = site.crash()
    client, other = site.connect(), site.connect()
    client.queue("q")
    client.tell(Queue.Bind, queue="q", exchange="x")
    other.tell(Exchange.Delete, exchange="x")
    site.settle_down()
    (item,) = client.read()
    assert is_close(item.method, 404, "no exchange 'x' in vhost '/'", Queue.Bind)
    assert site.broker.memory_used == 0


def test_exchange_bound_to_what_has_to_be_read_waits_as_well() -> None:
    site = DurableSite()
    publish_persistent(declare(site), b"a", exchange="x")
    site.settle_down()
    site = site.crash()
    client = site.connect()
    client.queue("q")
    client.ask(Queue.Bind, queue="q", exchange="amq.fanout")
    client.tell(Exchange.Bind, destination="amq.fanout", source="x")
    site.settle_down()
    assert [item.kind for item in client.read()] == [Exchange.BindOk]
    assert taken(site, "q") == ["a"]


def test_what_cannot_be_read_closes_the_connection_that_binds() -> None:
    site = DurableSite()
    publish_persistent(declare(site), b"a", exchange="x")
    site.settle_down()
    site = site.crash()
    client = site.connect()
    client.queue("q")
    client.tell(Queue.Bind, queue="q", exchange="x")
    site.reads_fail()
    (item,) = client.read()
    assert item.method.reply_code == 541
    site.settle_down()
    assert bound(site) == ["a"]


def test_long_history_is_dropped_from_the_front_after_a_restart() -> None:
    site = DurableSite()
    client = declare(site, 500)
    bodies = [b"%d" % number for number in range(700)]
    publish_persistent(client, *bodies, exchange="x")
    site.settle_down()
    site = site.crash()
    more = [b"%d" % number for number in range(700, 900)]
    publish_persistent(site.connect(), *more, exchange="x")
    site.settle_down()
    assert bound(site) == [f"{number}" for number in range(400, 900)]
    assert bound(site.crash(), "late") == [f"{number}" for number in range(400, 900)]


@restarts
def test_log_that_is_cleaned_goes_on_having_what_is_kept(
    restart: Restart, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleaner, "SLACK", 0)
    site = DurableSite()
    client = declare(site, 5)
    for number in range(200):
        publish_persistent(client, b"%d" % number, exchange="x")
        site.settle_down()
    assert site.journal.batches.first > 50
    assert bound(restart(site)) == [f"{number}" for number in range(195, 200)]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> DurableSite:
    """A broker that pages out from 20,000 octets on."""
    monkeypatch.setattr(paging, "HEAD_BYTES", 1_000)
    monkeypatch.setattr(paging, "HEAD_BYTES_MIN", 100)
    monkeypatch.setattr(paging, "RECORD_BYTES", 2_000)
    monkeypatch.setattr(reading, "FETCH_BYTES", 2_000)
    return DurableSite(memory=40_000)


def fill(site: DurableSite, client: Client, count: int, **options: Any) -> list[str]:
    """Publishes messages, which the disk keeps up with."""
    bodies = [f"{number:04}" + 100 * "x" for number in range(count)]
    for body in bodies:
        client.publish(body.encode(), **options)
        site.settle_down()
    return bodies


def is_paged(site: DurableSite) -> bool:
    history = site.vhost.exchanges["x"].history
    return history is not None and history.paged is not None


@pytest.mark.parametrize("options", [{}, PERSISTENT])
def test_history_is_paged_out_and_read_again(small: DurableSite, options: dict[str, Any]) -> None:
    client = declare(small, 400)
    bodies = fill(small, client, 300, exchange="x", **options)
    assert is_paged(small)
    assert small.broker.memory_used < 25_000
    client.queue("other")
    small.settle_down()
    fill(small, client, 10, key="other")
    assert bound(small) == bodies
    bodies += fill(small, client, 200, exchange="x", **options)
    assert bound(small, "late") == bodies[-400:]
    client.tell(Exchange.Delete, exchange="x")
    client.tell(Queue.Purge, queue="other")
    client.tell(Queue.Purge, queue="q")
    small.settle_down()
    assert small.broker.memory_used == 0


def test_history_is_paged_out_for_the_sake_of_others(small: DurableSite) -> None:
    client = declare(small, 1000)
    bodies = fill(small, client, 40, exchange="x")
    assert not is_paged(small)
    client.queue("other")
    fill(small, client, 60, key="other")
    assert is_paged(small)
    assert bound(small) == bodies


def test_publishing_while_a_long_history_is_read_loses_nothing(small: DurableSite) -> None:
    client = declare(small, 1000)
    bodies = fill(small, client, 300, exchange="x")
    other = small.connect()
    client.queue("q")
    client.tell(Queue.Bind, queue="q", exchange="x")
    for number in range(300, 320):
        bodies.append(f"{number:04}")
        other.publish(bodies[-1].encode(), exchange="x")
        small.step()
    small.settle_down()
    assert [item.kind for item in client.read()] == [Queue.BindOk]
    assert taken(small, "q") == bodies

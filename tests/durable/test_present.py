"""What a queue holds, so that it takes no equal message, over restarts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from broker.core import cleaner
from tests.durable.deduplicating import (
    ON,
    marked,
    number,
    send,
    settle,
    taken,
)
from tests.durable.site import DurableSite
from tests.protocol.client import Basic, Confirm, Queue

Restart = Callable[[DurableSite], DurableSite]
restarts = pytest.mark.parametrize("restart", [DurableSite.stop, DurableSite.crash])


@pytest.fixture
def tidy(monkeypatch: pytest.MonkeyPatch) -> DurableSite:
    """A broker that cleans its log at once, little by little."""
    monkeypatch.setattr(cleaner, "SLACK", 0)
    monkeypatch.setattr(cleaner, "STEP_MIN", 100)
    return DurableSite()


@restarts
@pytest.mark.parametrize("highest", [0, 3])
def test_queue_knows_what_is_in_it_after_a_restart(
    tidy: DurableSite, restart: Restart, highest: int
) -> None:
    site = tidy
    client = site.connect()
    more = {"x-max-priority": number(highest)} if highest else {}
    client.tell(Queue.Declare, queue="q", durable=True, arguments={**ON, **more})
    settle(site, client)
    there = {"exchange": "", "key": "q"}
    send(client, "stays", **there)
    for round_ in range(30):
        for key in (f"{round_}", "again"):
            send(client, key, **there)
        client.publish(b"large" * 100, key="q", **marked("large"))
        site.settle_down()
        for _ in range(4):
            client.tell(Basic.Get, queue="q")
        got = [item for item in settle(site, client) if item.kind is Basic.GetOk]
        client.tell(Basic.Nack, delivery_tag=got[0].method.delivery_tag, requeue=True)
        for item in got[1:]:
            client.tell(Basic.Ack, delivery_tag=item.method.delivery_tag)
        site.settle_down()
    assert site.journal.batches.first > 10
    send(client, "transient", persistent=False, **there)
    send(client, "last", **there)
    site.settle_down()
    site = restart(site)
    client = site.connect()
    send(client, "stays", "again", "last", "29", "transient", **there)
    site.settle_down()
    assert taken(site) == ["stays0", "last0", "again1", "293", "transient4"]
    site.settle_down()
    assert site.broker.memory_used == 0
    site = restart(site)
    send(site.connect(), "stays", **there)
    assert taken(site) == ["stays0"]


def test_duplicate_in_a_queue_is_confirmed_when_its_original_is_durable() -> None:
    site = DurableSite()
    client = site.connect()
    client.tell(Queue.Declare, queue="q", durable=True, arguments=ON)
    settle(site, client)
    first, second = site.connect(), site.connect()
    for client in (first, second):
        client.ask(Confirm.Select)
        send(client, "a", exchange="", key="q")
        site.broker.write()
        assert client.read() == []
    site.log.work(1)
    site.log.tell(1)
    site.collect()
    assert [item.kind for item in (*first.read(), *second.read())] == [Basic.Ack, Basic.Ack]
    assert taken(site) == ["a0"]

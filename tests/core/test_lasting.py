"""How often messages came back is kept in memory, and counts as such until they are settled."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from broker.core.lasting import Lasting
from broker.core.noted import NOTE_BYTES
from broker.core.stored import RUN_BYTES
from tests.durable.site import DurableSite, publish_persistent
from tests.protocol.client import Basic, Client, Queue

COUNT = 20


@pytest.fixture
def site() -> DurableSite:
    """A broker with a durable queue "q" of which each message was given out and came back."""
    site = DurableSite()
    client = site.connect()
    client.tell(Queue.Declare, queue="q", durable=True)
    site.settle_down()
    publish_persistent(client, *[b"%d" % number for number in range(COUNT)])
    site.settle_down()
    get_all(client)
    client.tell(Basic.Nack, delivery_tag=0, multiple=True, requeue=True)
    site.settle_down()
    return site


def get_all(client: Client) -> None:
    assert isinstance(client.site, DurableSite)
    for _ in range(COUNT):
        client.tell(Basic.Get, queue="q")
        client.site.settle_down()
    client.read()


def lasting(site: DurableSite) -> Lasting:
    [found] = site.journal.queues.values()
    return found


def counted(site: DurableSite) -> int:
    """What of the index is for returns: the rest are runs, of which a queue keeps a few empty."""
    runs = sum(len(queue.stored._live) for queue in site.journal.queues.values())
    return site.journal.index_bytes - runs * RUN_BYTES


def ack_all(client: Client) -> None:
    get_all(client)
    client.tell(Basic.Ack, delivery_tag=0, multiple=True)


def take_all(client: Client) -> None:
    for _ in range(COUNT):
        client.tell(Basic.Get, queue="q", no_ack=True)


def purge(client: Client) -> None:
    client.tell(Queue.Purge, queue="q")


def delete(client: Client) -> None:
    client.tell(Queue.Delete, queue="q")


def test_messages_that_came_back_count_as_memory(site: DurableSite) -> None:
    assert len(lasting(site).returns) == COUNT
    assert counted(site) == COUNT * NOTE_BYTES
    client = site.connect()
    get_all(client)
    client.tell(Basic.Nack, delivery_tag=0, multiple=True, requeue=True)
    site.settle_down()
    # Once for each message, however often it comes back.
    assert set(lasting(site).returns.values()) == {2}
    assert counted(site) == COUNT * NOTE_BYTES


@pytest.mark.parametrize("settle", [ack_all, take_all, purge, delete])
def test_nothing_is_counted_once_they_are_settled(
    site: DurableSite, settle: Callable[[Client], None]
) -> None:
    settle(site.connect())
    site.settle_down()
    assert counted(site) == 0


@pytest.mark.parametrize("settle", [ack_all, take_all, purge, delete])
@pytest.mark.parametrize("restart", [DurableSite.crash, DurableSite.stop])
def test_what_a_log_says_again_counts_the_same(
    site: DurableSite,
    restart: Callable[[DurableSite], DurableSite],
    settle: Callable[[Client], None],
) -> None:
    client = site.connect()
    client.tell(Basic.Get, queue="q", no_ack=True)
    site.settle_down()
    site = restart(site)
    assert len(lasting(site).returns) == COUNT - 1
    settle(site.connect())
    site.settle_down()
    assert counted(site) == 0

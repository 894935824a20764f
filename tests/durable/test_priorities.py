"""Queues with priorities whose messages last, and backlogs of them beyond memory."""

from __future__ import annotations

from typing import Any

import pytest

from broker.core import cleaner, paging, reading
from broker.core.definitions import queue_definition
from broker.core.message import MESSAGE_OVERHEAD
from broker.core.priorities import PriorityQueue
from broker.wire.methods import shortstr
from broker.wire.properties import DELIVERY_MODE, EXPIRATION, PRIORITY
from broker.wire.table import Field
from tests.durable.site import DurableSite
from tests.protocol.client import Basic, Client, Queue, publish_octets

LIMIT = 40_000
MAXIMUM = {"x-max-priority": Field("byte", 9)}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "HEAD_BYTES", 1_000)
    monkeypatch.setattr(paging, "HEAD_BYTES_MIN", 100)
    monkeypatch.setattr(reading, "FETCH_BYTES", 2_000)
    monkeypatch.setattr(paging, "RECORD_BYTES", 2_000)


@pytest.fixture
def site() -> DurableSite:
    return DurableSite()


@pytest.fixture
def client(site: DurableSite) -> Client:
    return site.connect(channels=2)


def declare(client: Client, name: str = "q", *, durable: bool = True, **more: Field) -> None:
    arguments = MAXIMUM | {f"x-{key.replace('_', '-')}": value for key, value in more.items()}
    client.tell(Queue.Declare, queue=name, durable=durable, arguments=arguments)
    settle(client)
    assert [item.kind for item in client.read()] == [Queue.DeclareOk]


def settle(client: Client) -> None:
    assert isinstance(client.site, DurableSite)
    client.site.settle_down()


def of(priority: int, mode: int = 2) -> dict[str, Any]:
    return {"flags": DELIVERY_MODE | PRIORITY, "properties": bytes([mode, priority])}


def publish(client: Client, *messages: tuple[bytes, int], mode: int = 2, key: str = "q") -> None:
    """Publishes (body, priority) in one chunk, and lets the disk work."""
    octets = [publish_octets(body, key=key, **of(priority, mode)) for body, priority in messages]
    client.feed(b"".join(octets))
    settle(client)


def taken(client: Client, name: str = "q") -> list[tuple[bytes, bool]]:
    """What basic.get finds, and whether it was seen before."""
    found: list[tuple[bytes, bool]] = []
    while True:
        client.tell(Basic.Get, queue=name, no_ack=True)
        settle(client)
        (item,) = client.read()
        if item.kind is Basic.GetEmpty:
            return found
        found.append((item.body, item.method.redelivered))


def bodies(client: Client, name: str = "q") -> list[bytes]:
    return [body for body, _ in taken(client, name)]


def lanes_in(site: DurableSite) -> int:
    """Queues that the log knows."""
    return len(site.journal.queues)


@pytest.mark.parametrize("end", [DurableSite.stop, DurableSite.crash])
def test_priorities_hold_after_a_start(site: DurableSite, client: Client, end: Any) -> None:
    declare(client)
    publish(client, (b"1", 1), (b"2", 9), (b"3", 1), (b"4", 0), (b"5", 200))
    publish(client, (b"gone", 9), mode=1)
    site = end(site)
    client = site.connect(channels=2)
    publish(client, (b"6", 9), (b"7", 0), (b"8", 5))
    site = end(site)
    client = site.connect(channels=2)
    assert site.vhost.queues["q"].messages_ready == 8
    assert bodies(client) == [b"2", b"5", b"6", b"8", b"1", b"3", b"4", b"7"]
    assert site.broker.memory_used == 0
    assert bodies(end(site).connect(channels=2)) == []


def test_what_was_handed_out_and_came_back_is_marked_by_its_priority(
    site: DurableSite, client: Client
) -> None:
    declare(client)
    publish(client, (b"1", 0), (b"2", 9), (b"3", 0))
    client.tell(Basic.Get, 2, queue="q")
    settle(client)
    assert client.bodies(2) == [b"2"]
    client = site.crash().connect(channels=2)
    assert taken(client) == [(b"2", True), (b"1", False), (b"3", False)]


def test_no_batch_has_a_message_of_a_priority_that_it_does_not_know(
    site: DurableSite, client: Client
) -> None:
    """A crash at any batch finds all that is in it."""
    declare(client)
    made = [(b"%d" % number, number % 4) for number in range(12)]
    sent = 0
    for body, own in made:
        client.feed(publish_octets(body, key="q", **of(own)))
        sent += 1
        again = site.crash(site.log.undurable)
        durable = again.vhost.queues["q"].messages_ready
        wanted = [body for each in (3, 2, 1, 0) for body, own in made[:durable] if own == each]
        assert bodies(again.connect(channels=2)) == wanted
    settle(client)
    assert site.crash().vhost.queues["q"].messages_ready == sent


def test_a_deleted_queue_is_forgotten_with_all_its_lanes(site: DurableSite, client: Client) -> None:
    declare(client)
    publish(client, (b"1", 1), (b"2", 9), (b"3", 0))
    assert lanes_in(site) == 3
    client.tell(Queue.Delete, queue="q")
    settle(client)
    assert lanes_in(site) == 0
    assert site.journal.batches.live_bytes == site.crash().journal.batches.live_bytes
    site = site.crash()
    assert lanes_in(site) == 0
    client = site.connect(channels=2)
    declare(client)
    assert bodies(client) == []


def test_ids_are_not_used_again(site: DurableSite, client: Client) -> None:
    declare(client)
    publish(client, (b"1", 1), (b"2", 9))
    last = site.broker.next_queue_id
    assert site.crash().broker.next_queue_id == last


def test_cleaning_keeps_lanes_and_their_numbers(
    site: DurableSite, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleaner, "SLACK", 0)
    declare(client)
    publish(client, (b"kept 5", 5), (b"kept 0", 0))
    first = site.journal.batches.first
    for _ in range(30):
        publish(client, *[(b"x" * 100, 9)] * 5)
        client.tell(Basic.Consume, 2, queue="q", consumer_tag="c")
        client.tell(Basic.Qos, 2, prefetch_count=5)
        settle(client)
        client.tell(Basic.Cancel, 2, consumer_tag="c")
        tags = [item.method.delivery_tag for item in client.read() if item.body[:1] == b"x"]
        client.tell(Basic.Ack, 2, delivery_tag=max(tags, default=0), multiple=True)
        client.tell(Basic.Recover, 2, requeue=True)
        settle(client)
        client.read()
    assert site.journal.batches.first > first
    numbers = {lane.next_number for lane in site.vhost.queues["q"].lanes}
    again = site.crash()
    assert {lane.next_number for lane in again.vhost.queues["q"].lanes} == numbers
    found = bodies(again.connect(channels=2))
    assert found[-2:] == [b"kept 5", b"kept 0"]


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("mode", [1, 2])
def test_no_priority_hides_behind_another_in_a_backlog(durable: bool, mode: int) -> None:
    site = DurableSite(memory=LIMIT)
    client = site.connect(channels=2)
    declare(client, durable=durable)
    made = [(b"%04d" % number + b"x" * 100, number * 7 % 5) for number in range(600)]
    for start in range(0, len(made), 10):
        publish(client, *made[start : start + 10], mode=mode)
    assert site.broker.memory_used < LIMIT
    queue = site.vhost.queues["q"]
    assert queue.messages_ready == 600
    wanted = [body for own in (4, 3, 2, 1, 0) for body, priority in made if priority == own]
    client.tell(Basic.Consume, 2, queue="q", no_ack=True)
    settle(client)
    assert client.bodies(2) == wanted
    assert (queue.messages, site.broker.memory_used) == (0, 0)


def test_priorities_of_a_backlog_that_was_handed_out_come_back_in_order() -> None:
    """Memory is short: what is held is remembered without its content."""
    site = DurableSite(memory=LIMIT)
    client = site.connect(channels=2)
    declare(client)
    made = [(b"%04d" % number + b"x" * 100, number % 3) for number in range(300)]
    for start in range(0, len(made), 10):
        publish(client, *made[start : start + 10], mode=1 + start // 10 % 2)
    client.tell(Basic.Consume, 2, queue="q", consumer_tag="c")
    settle(client)
    wanted = [body for own in (2, 1, 0) for body, priority in made if priority == own]
    assert client.bodies(2) == wanted
    assert site.broker.memory_used < 300 * (MESSAGE_OVERHEAD + 50)
    client.tell(Basic.Cancel, 2, consumer_tag="c")
    client.tell(Basic.Nack, 2, delivery_tag=0, multiple=True, requeue=True)
    client.read()
    assert taken(client) == [(body, True) for body in wanted]
    assert site.broker.memory_used == 0


@pytest.mark.parametrize("method", [Queue.Purge, Queue.Delete])
def test_a_backlog_goes_at_once(method: Any) -> None:
    site = DurableSite(memory=LIMIT)
    client = site.connect(channels=2)
    declare(client)
    for start in range(0, 300, 10):
        publish(client, *[(b"x" * 100, number % 4) for number in range(start, start + 10)])
    client.tell(method, queue="q")
    settle(client)
    (item,) = client.read()
    assert item.method.message_count == 300
    assert site.broker.memory_used == 0
    again = site.crash()
    if method is Queue.Purge:
        assert bodies(again.connect(channels=2)) == []
    else:
        assert "q" not in again.vhost.queues


def test_the_lowest_of_a_backlog_are_dropped() -> None:
    site = DurableSite(memory=LIMIT)
    client = site.connect(channels=2)
    declare(client, max_length=Field("signedint", 200))
    made = [(b"%04d" % number + b"x" * 100, number % 3) for number in range(300)]
    for start in range(0, len(made), 10):
        publish(client, *made[start : start + 10])
    wanted = [body for own in (2, 1) for body, priority in made if priority == own]
    site = site.crash()
    assert bodies(site.connect(channels=2)) == wanted
    assert site.broker.memory_used == 0


def test_what_expired_meanwhile_is_gone_after_a_start(site: DurableSite, client: Client) -> None:
    site.wait_until(1_000)
    declare(client)
    flags = DELIVERY_MODE | PRIORITY | EXPIRATION
    for priority, ttl in ((9, 100), (5, 900), (0, 100)):
        octets = bytes([2, priority]) + shortstr(str(ttl))
        client.publish(b"%d" % priority, key="q", flags=flags, properties=octets)
    publish(client, (b"stays", 0))
    again = site.crash()
    again.wait_until(1_500)
    again.settle_down()
    client = again.connect(channels=2)
    assert bodies(client) == [b"5", b"stays"]


def test_the_same_message_is_stored_once_for_all_its_queues(
    site: DurableSite, client: Client
) -> None:
    declare(client)
    declare(client, "few")
    client.tell(Queue.Declare, queue="plain", durable=True)
    for name in ("q", "plain", "few"):
        client.tell(Queue.Bind, queue=name, exchange="amq.fanout")
    settle(client)
    client.read()
    made = [(b"%d" % number + b"x" * 1000, number % 3) for number in range(9)]
    before = site.journal.batches.live_bytes
    octets = [publish_octets(b, exchange="amq.fanout", **of(priority)) for b, priority in made]
    client.feed(b"".join(octets))
    settle(client)
    assert site.journal.batches.live_bytes - before < 12 * 1000
    client = site.crash().connect(channels=2)
    wanted = [body for own in (2, 1, 0) for body, priority in made if priority == own]
    assert bodies(client) == wanted
    assert bodies(client, "few") == wanted
    assert bodies(client, "plain") == [body for body, _ in made]


def test_a_log_that_was_written_before_there_were_priorities_has_one_lane(
    site: DurableSite, client: Client
) -> None:
    """Its messages were in one line, with the id of the queue."""
    client.tell(Queue.Declare, queue="q", durable=True)
    settle(client)
    publish(client, (b"1", 0), (b"2", 9))
    queue = site.vhost.queues["q"]
    queue.arguments = MAXIMUM
    assert queue.lasting is not None
    site.broker.redefine(queue_definition(queue))
    site.collect()
    settle(client)
    again = site.crash()
    assert isinstance(again.vhost.queues["q"], PriorityQueue)
    client = again.connect(channels=2)
    publish(client, (b"3", 9))
    assert bodies(client) == [b"3", b"1", b"2"]

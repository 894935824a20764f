"""What went wrong once where features meet: times to live with priorities, policies and a disk that
is late; limits with what is read again; retries with restarts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from broker.core import paging, reading
from broker.core.policies import Policy
from broker.wire.methods import shortstr
from broker.wire.properties import DELIVERY_MODE, EXPIRATION, HEADERS, PRIORITY
from broker.wire.table import Field, encode_table
from tests.durable.site import DurableSite, publish_persistent
from tests.protocol.client import Basic, Client, Exchange, Queue, Received, publish_octets, text

NOW = 10_000_000
LIMIT = 40_000


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "HEAD_BYTES", 1_000)
    monkeypatch.setattr(paging, "HEAD_BYTES_MIN", 100)
    monkeypatch.setattr(paging, "RECORD_BYTES", 2_000)
    monkeypatch.setattr(reading, "FETCH_BYTES", 2_000)


def number(value: int) -> Field:
    return Field("signedint", value)


def start(site: DurableSite, **arguments: Any) -> Client:
    """A client with two channels, and the durable queues q, with these arguments, and d, where its
    dead letters go."""
    client = site.connect(channels=2)
    table = {f"x-{name.replace('_', '-')}": value for name, value in arguments.items()}
    table |= {"x-dead-letter-exchange": text(""), "x-dead-letter-routing-key": text("d")}
    client.tell(Queue.Declare, queue="d", durable=True)
    client.tell(Queue.Declare, queue="q", durable=True, arguments=table)
    site.settle_down()
    client.read()
    return client


def message(body: bytes, priority: int = 0, ttl: int | None = None) -> bytes:
    flags, properties = DELIVERY_MODE | PRIORITY, bytes([2, priority])
    if ttl is not None:
        flags, properties = flags | EXPIRATION, properties + shortstr(str(ttl))
    return publish_octets(body, flags=flags, properties=properties)


def set_policy(site: DurableSite, definition: dict[str, object]) -> None:
    site.vhost.set_policy(Policy("p", "^q$", definition))
    site.broker.run_deliveries()
    site.settle_down()


def wait(site: DurableSite, milliseconds: int) -> None:
    """Time goes on, and the disk does what it has to."""
    until = site.broker.timers.now + milliseconds
    site.wait_until(until)
    site.settle_down()
    while site.broker.timers.next is not None and site.broker.timers.next <= until:
        site.wait_until(until)
        site.settle_down()


def counts(site: DurableSite, name: str = "q") -> tuple[int, int]:
    """Messages of a queue that are ready, and all of them."""
    queue = site.vhost.queues[name]
    return queue.messages_ready, queue.messages


def consumed(site: DurableSite, client: Client, queue: str = "q") -> list[bytes]:
    """What is delivered from it."""
    client.tell(Basic.Consume, 2, queue=queue, no_ack=True)
    site.settle_down()
    return client.bodies(2)


def deliveries(client: Client) -> list[Received]:
    return [received for received in client.read() if received.kind is Basic.Deliver]


def test_ttl_that_a_policy_sets_holds_for_all_alike_that_are_there() -> None:
    """Of what was delayed, it is known when it came; but messages under a TTL expire in order."""
    site = DurableSite(now=NOW)
    client = start(site)
    kind = {"x-delayed-type": text("direct")}
    client.tell(Exchange.Declare, exchange="x", exchange_type="x-delayed-message", arguments=kind)
    client.tell(Queue.Bind, queue="q", exchange="x", routing_key="q")
    publish_persistent(client, b"known to nobody")
    delay = encode_table({"x-delay": number(10)})
    client.publish(b"delayed", exchange="x", flags=HEADERS, properties=delay)
    wait(site, 1000)
    assert counts(site) == (2, 2)
    set_policy(site, {"message-ttl": 50})
    client.tell(Basic.Get, queue="q", no_ack=True)
    wait(site, 49)
    assert counts(site) == (1, 1)
    wait(site, 1)
    assert counts(site) == (0, 0)


def test_ttl_that_a_policy_changes_holds_for_every_priority() -> None:
    site = DurableSite(now=NOW)
    client = start(site, max_priority=number(3))
    set_policy(site, {"message-ttl": 3000})
    client.feed(message(b"old", 0))
    wait(site, 100)
    client.feed(message(b"new", 3))
    site.settle_down()
    set_policy(site, {"message-ttl": 50})
    wait(site, 1)
    assert counts(site) == (1, 1)
    assert counts(site, "d") == (1, 1)


def test_message_that_lives_no_time_is_delivered_though_the_disk_is_late() -> None:
    """What is ready for it has to be written first."""
    site = DurableSite(now=NOW)
    client = start(site, message_ttl=number(1000))
    client.tell(Basic.Consume, 2, queue="q")
    client.feed(message(b"at once", ttl=0))
    assert not deliveries(client)
    site.settle_down()
    assert [received.body for received in deliveries(client)] == [b"at once"]


def test_message_that_never_stood_in_line_expires_when_it_comes_back() -> None:
    """In a queue with priorities it is handed out as it comes."""
    site = DurableSite(now=NOW)
    client = start(site, max_priority=number(3))
    client.tell(Basic.Consume, 2, queue="q", consumer_tag="c")
    # The log knows of what follows it.
    client.feed(message(b"first", priority=2))
    site.settle_down()
    client.feed(message(b"brief", priority=2, ttl=100))
    site.settle_down()
    assert len(deliveries(client)) == 2
    wait(site, 200)
    client.tell(Basic.Nack, 2, delivery_tag=2, requeue=True)
    site.settle_down()
    assert not deliveries(client)
    assert counts(site, "d") == (1, 1)


def test_limit_is_judged_after_what_is_being_read_for_consumers() -> None:
    site = DurableSite(memory=LIMIT)
    client = start(site, max_priority=number(3))
    for _ in range(30):
        client.feed(message(b"x" * 400, 3))
        site.settle_down()
    client.feed(b"".join(message(b"x", 0) for _ in range(8)))
    site.settle_down()
    site.broker.pager.mark = 1
    site.broker.write()
    client.tell(Basic.Consume, 2, queue="q", no_ack=True)
    site.vhost.set_policy(Policy("p", "^q$", {"max-length": 5}))
    site.settle_down()
    assert len(deliveries(client)) == 38
    assert counts(site, "d") == (0, 0)


RETRIES = {"delayed_retry_type": text("all"), "delayed_retry_min": number(1000)}
Restart = Callable[[DurableSite], DurableSite]


def hold(site: DurableSite, client: Client, *octets: bytes) -> None:
    """Messages that are published now, fail and wait."""
    client.feed(b"".join(octets))
    site.settle_down()
    client.tell(Basic.Consume, 2, queue="q", consumer_tag="c")
    site.settle_down()
    client.tell(Basic.Nack, 2, multiple=True, requeue=True)
    client.tell(Basic.Cancel, 2, consumer_tag="c")
    site.settle_down()
    client.read()


@pytest.mark.parametrize("restart", [DurableSite.crash, DurableSite.stop])
def test_message_that_waits_for_a_retry_is_not_ready_after_a_restart(restart: Restart) -> None:
    site = DurableSite(now=NOW)
    client = start(site, **RETRIES)
    hold(site, client, message(b"1"), message(b"2"))
    publish_persistent(client, b"3")
    site.settle_down()
    assert counts(site) == (1, 3)
    site = restart(site)
    assert counts(site) == (1, 3)
    client = site.connect(channels=2)
    assert consumed(site, client) == [b"3"]
    wait(site, 1100)
    assert client.bodies() == [b"1", b"2"]
    assert site.broker.memory_used == 0


def test_message_that_waited_goes_behind_those_before_it_that_were_read_after_a_restart() -> None:
    site = DurableSite(now=NOW)
    client = start(site, **RETRIES)
    client.feed(b"".join(message(b"%d" % place) for place in range(4)))
    site.settle_down()
    client.tell(Basic.Consume, 2, queue="q")
    client.tell(Basic.Nack, 2, delivery_tag=3, requeue=True)
    site.settle_down()
    site = site.crash()
    client = site.connect(channels=2)
    client.tell(Basic.Qos, 2, prefetch_count=1)
    client.tell(Basic.Consume, 2, queue="q")
    site.settle_down()
    wait(site, 1100)
    bodies = client.bodies()
    for tag in range(1, 4):
        client.tell(Basic.Ack, 2, delivery_tag=tag)
        site.settle_down()
        bodies += client.bodies()
    assert bodies == [b"0", b"1", b"2", b"3"]


def test_message_whose_wait_ends_before_it_is_read_is_in_its_place() -> None:
    site = DurableSite(now=NOW)
    client = start(site, **RETRIES)
    hold(site, client, message(b"1"), message(b"2"))
    publish_persistent(client, b"3")
    site.settle_down()
    site = site.crash()
    assert site.broker.memory_used < 1000
    wait(site, 1100)
    assert counts(site) == (3, 3)
    assert consumed(site, site.connect(channels=2)) == [b"1", b"2", b"3"]


def test_purge_after_a_restart_drops_what_waits() -> None:
    site = DurableSite(now=NOW)
    client = start(site, **RETRIES)
    hold(site, client, message(b"1"), message(b"2"))
    publish_persistent(client, b"3")
    site.settle_down()
    site = site.crash()
    client = site.connect()
    client.tell(Queue.Purge, queue="q")
    site.settle_down()
    assert [received.method.message_count for received in client.read()] == [3]
    assert site.broker.memory_used == 0
    wait(site, 2000)
    assert counts(site) == (0, 0)
    assert counts(site.crash()) == (0, 0)


@pytest.mark.parametrize("is_restarted", [False, True])
def test_message_expires_in_time_while_it_waits_for_a_retry(*, is_restarted: bool) -> None:
    site = DurableSite(now=NOW)
    client = start(site, **RETRIES)
    hold(site, client, message(b"1", ttl=300))
    if is_restarted:
        site = site.crash()
    wait(site, 299)
    assert counts(site) == (0, 1)
    wait(site, 1)
    assert counts(site) == (0, 0)
    assert counts(site, "d") == (1, 1)
    assert counts(site.crash(), "d") == (1, 1)


def test_message_that_waits_takes_no_memory_while_memory_is_short() -> None:
    site = DurableSite(now=NOW, memory=LIMIT)
    client = start(site, **RETRIES)
    hold(site, client, *[message(b"%02d" % place + b"x" * 300) for place in range(55)])
    assert counts(site) == (0, 55)
    assert site.broker.memory_used < 55 * 300
    wait(site, 1100)
    client.read()
    bodies = consumed(site, client)
    assert [body[:2] for body in bodies] == [b"%02d" % place for place in range(55)]
    assert site.broker.memory_used == 0


def test_what_is_over_makes_room_before_anything_is_dropped() -> None:
    """In a queue with priorities, whatever the priority of each, and after a start."""
    site = DurableSite(now=NOW)
    client = start(site, max_priority=number(3))
    set_policy(site, {"message-ttl": 5000})
    client.feed(message(b"old", 3) + message(b"old", 2))
    wait(site, 1000)
    client.feed(message(b"new", 0))
    site.settle_down()
    site = site.crash()
    set_policy(site, {"message-ttl": 500, "max-length": 1})
    wait(site, 1)
    client = site.connect(channels=2)
    assert consumed(site, client) == [b"new"]

"""Messages that come back and wait before they are delivered again."""

from __future__ import annotations

import pytest

from broker.core.arguments import EXPIRY_MAX_MS
from broker.core.retries import delay_ms
from broker.core.rules import QueueRules
from broker.wire.table import Field
from tests.protocol.client import Basic, Client, Queue, Site, Tx, publish_octets, text
from tests.protocol.test_expiry import count, left, number


@pytest.fixture
def site() -> Site:
    site = Site()
    site.wait_until(1_000_000)
    return site


@pytest.fixture
def client(site: Site) -> Client:
    return site.connect(channels=2)


def declare(client: Client, kind: str = "all", **others: Field) -> None:
    """A queue q with these arguments."""
    names = {f"x-{name.replace('_', '-')}": value for name, value in others.items()}
    client.queue("q", arguments={"x-delayed-retry-type": text(kind)} | names)


def take(client: Client) -> int:
    """Takes the next message, and returns its tag."""
    client.tell(Basic.Get, queue="q")
    (item,) = client.read()
    assert item.kind is Basic.GetOk, item
    return int(item.method.delivery_tag)


def fail(client: Client) -> None:
    """Takes the next message and gives it back."""
    client.tell(Basic.Nack, delivery_tag=take(client), requeue=True)


@pytest.mark.parametrize(
    ("least", "most", "multiplier", "waits"),
    [
        (1000, None, None, [1000, 2000, 3000, 4000]),
        (1000, 2500, None, [1000, 2000, 2500, 2500]),
        (1000, None, 1, [1000, 1000, 1000, 1000]),
        (1000, 5000, 2, [1000, 2000, 4000, 5000]),
        (1000, None, 1.5, [1000, 1500, 2250, 3375]),
        (0, None, None, [0, 0, 0, 0]),
    ],
)
def test_waits_grow_as_the_rules_say(
    least: int, most: int | None, multiplier: float | None, waits: list[int]
) -> None:
    rules = QueueRules(
        delayed_retry_min=least, delayed_retry_max=most, delayed_retry_multiplier=multiplier
    )
    assert [delay_ms(rules, times) for times in range(1, 5)] == waits


def test_no_wait_is_longer_than_ten_years() -> None:
    rules = QueueRules(delayed_retry_multiplier=1e300)
    assert delay_ms(rules, 5000) == delay_ms(QueueRules(), 2**60) == EXPIRY_MAX_MS


def test_a_message_that_failed_waits_and_lets_others_pass(site: Site, client: Client) -> None:
    declare(client, delayed_retry_min=number(1000))
    client.publish(b"poison")
    client.publish(b"fine")
    fail(client)
    assert count(client) == 1
    assert site.vhost.queues["q"].messages == 2
    client.consume(channel=2)
    assert client.bodies() == [b"fine"]
    site.wait_until(1_000_999)
    assert client.bodies() == []
    site.wait_until(1_001_100)
    (again,) = client.read()
    assert (again.body, again.method.redelivered) == (b"poison", True)
    client.tell(Basic.Ack, 2, delivery_tag=0, multiple=True)
    assert site.broker.memory_used == 0


def test_it_goes_back_to_its_place(site: Site, client: Client) -> None:
    declare(client)
    for body in (b"1", b"2", b"3"):
        client.publish(body)
    fail(client)
    fail(client)
    site.wait_until(1_002_000)
    assert left(client) == [b"1", b"2", b"3"]


@pytest.mark.parametrize(
    ("kind", "failed_waits", "returned_waits"),
    [("all", 1, 1), ("failed", 1, 0), ("returned", 0, 1), ("disabled", 0, 0)],
)
def test_who_waits_is_told_by_the_type(
    site: Site, client: Client, kind: str, failed_waits: int, returned_waits: int
) -> None:
    declare(client, kind)
    client.publish()
    fail(client)
    assert count(client) == 1 - failed_waits
    site.wait_until(1_002_000)
    take(client)
    client.ask(Basic.Recover, requeue=True)
    assert count(client) == 1 - returned_waits


def test_one_that_fails_in_a_transaction_waits_from_the_commit_on(
    site: Site, client: Client
) -> None:
    declare(client, "failed")
    client.publish()
    client.ask(Tx.Select)
    fail(client)
    site.wait_until(1_005_000)
    client.ask(Tx.Commit)
    assert count(client) == 0
    site.wait_until(1_006_500)
    assert count(client) == 1


def test_after_the_last_try_it_dies(site: Site, client: Client) -> None:
    client.queue("d")
    declare(
        client,
        delivery_limit=number(2),
        delayed_retry_multiplier=number(2),
        dead_letter_exchange=text(""),
        dead_letter_routing_key=text("d"),
    )
    client.publish(b"poison")
    for wait in (1100, 2200):
        fail(client)
        assert count(client) == 0
        site.wait_until(site.broker.timers.now + wait)
    fail(client)
    assert (count(client), left(client, "d")) == (0, [b"poison"])


def test_a_purge_drops_what_waits(site: Site, client: Client) -> None:
    declare(client)
    client.publish()
    client.publish()
    fail(client)
    assert client.ask(Queue.Purge, queue="q").message_count == 2
    site.wait_until(1_005_000)
    assert count(client) == 0
    assert site.broker.memory_used == 0


def test_a_deleted_queue_takes_what_waits_with_it(site: Site, client: Client) -> None:
    declare(client)
    client.publish()
    fail(client)
    client.ask(Queue.Delete, queue="q")
    site.wait_until(1_005_000)
    assert site.broker.memory_used == 0


def test_what_expires_meanwhile_is_not_delivered(site: Site, client: Client) -> None:
    declare(client, message_ttl=number(500))
    client.publish()
    client.consume(channel=2)
    (item,) = client.read()
    client.tell(Basic.Nack, 2, delivery_tag=item.method.delivery_tag, requeue=True)
    site.wait_until(1_005_000)
    assert client.read() == []
    assert site.broker.memory_used == 0


def test_thousands_go_back_in_several_turns(site: Site, client: Client) -> None:
    declare(client)
    client.consume()
    client.feed(publish_octets(b"x") * 3000)
    client.read()
    client.tell(Basic.Nack, delivery_tag=0, multiple=True, requeue=True)
    assert count(client) == 0
    site.wait_until(1_002_000)
    assert len(client.bodies()) == 3000

"""Policies that change while queues have messages: what is there follows."""

from __future__ import annotations

from typing import Any

import pytest

from broker.core.policies import Policy
from broker.core.redeclare import Redeclare
from broker.wire.methods import shortstr
from broker.wire.properties import EXPIRATION
from broker.wire.table import Field
from tests.protocol.client import Basic, Client, Confirm, Exchange, Queue, Site


def number(value: int) -> Field:
    return Field("signedint", value)


def expiring(milliseconds: int) -> dict[str, Any]:
    return {"flags": EXPIRATION, "properties": shortstr(str(milliseconds))}


@pytest.fixture
def site() -> Site:
    site = Site()
    site.wait_until(1000)
    return site


@pytest.fixture
def client(site: Site) -> Client:
    return site.connect(channels=2)


def let(site: Site, **definition: object) -> None:
    """This is the policy of all queues and exchanges from now on, as an operator sets it."""
    named = {key.replace("_", "-"): value for key, value in definition.items()}
    if named:
        site.vhost.set_policy(Policy("p", "", named))
    else:
        site.vhost.clear_policy("p")
    site.broker.run_deliveries()
    site.collect()


def count(client: Client, name: str = "q") -> int:
    return int(client.ask(Queue.Declare, queue=name, passive=True).message_count)


def test_shorter_ttl_holds_for_what_is_in_the_queue(site: Site, client: Client) -> None:
    let(site, message_ttl=1000)
    client.queue()
    client.publish(b"1")
    site.advance(50)
    let(site, message_ttl=100)
    assert count(client) == 1
    site.advance(50)
    assert count(client) == 0


def test_ttl_that_is_past_already_takes_effect_at_once(site: Site, client: Client) -> None:
    let(site, message_ttl=1000)
    client.queue()
    client.publish(b"1")
    site.advance(500)
    let(site, message_ttl=100)
    site.advance(1)
    assert count(client) == 0


def test_longer_ttl_holds_for_what_is_in_the_queue(site: Site, client: Client) -> None:
    let(site, message_ttl=100)
    client.queue()
    client.publish(b"1")
    let(site, message_ttl=1000)
    site.advance(999)
    assert count(client) == 1
    site.advance(1)
    assert count(client) == 0


def test_messages_stay_when_their_ttl_goes(site: Site, client: Client) -> None:
    let(site, message_ttl=100)
    client.queue()
    client.publish(b"1")
    let(site)
    site.advance(10_000)
    assert count(client) == 1


def test_ttl_that_comes_later_holds_from_then_on_for_what_is_there(
    site: Site, client: Client
) -> None:
    client.queue()
    client.publish(b"1")
    site.advance(1000)
    let(site, message_ttl=100)
    site.advance(50)
    client.publish(b"2")
    let(site, message_ttl=101)
    site.advance(50)
    assert count(client) == 2
    site.advance(1)
    assert count(client) == 1
    site.advance(50)
    assert count(client) == 0
    let(site)
    client.publish(b"3")
    site.advance(1000)
    let(site, message_ttl=100)
    site.advance(99)
    assert count(client) == 1
    site.advance(1)
    assert count(client) == 0


def test_expiration_of_a_message_outlives_a_shorter_ttl_of_its_queue(
    site: Site, client: Client
) -> None:
    let(site, message_ttl=100)
    client.queue()
    client.publish(b"first")
    client.publish(b"second", **expiring(5000))
    let(site)
    site.advance(4999)
    assert count(client) == 2
    site.advance(1)
    assert count(client) == 1
    assert client.ask(Basic.Get, queue="q", no_ack=True)


def test_longer_ttl_leaves_the_expiration_of_a_message(site: Site, client: Client) -> None:
    let(site, message_ttl=100)
    client.queue()
    client.publish(b"first")
    client.publish(b"second", **expiring(500))
    let(site, message_ttl=10_000)
    site.advance(500)
    assert count(client) == 1


def test_lower_limit_drops_at_once_and_a_higher_one_lets_more_in(
    site: Site, client: Client
) -> None:
    client.queue()
    for body in (b"1", b"2", b"3"):
        client.publish(body)
    let(site, max_length=2)
    assert count(client) == 2
    let(site, max_length_bytes=1)
    assert count(client) == 1
    let(site, max_length=5)
    for body in (b"4", b"5"):
        client.publish(body)
    assert count(client) == 3
    let(site)
    assert site.vhost.queues["q"].messages_ready == 3


def test_overflow_by_policy_refuses_and_lets_in_again(site: Site, client: Client) -> None:
    client.queue()
    client.ask(Confirm.Select, 1)
    client.publish(b"1")
    let(site, max_length=1, overflow="reject-publish")
    client.publish(b"2")
    let(site, max_length=2, overflow="reject-publish")
    client.publish(b"3")
    let(site)
    client.publish(b"4")
    client.site.collect()
    kinds = [type(received.method) for received in client.read()]
    assert kinds == [Basic.Ack, Basic.Nack, Basic.Ack, Basic.Ack]
    assert count(client) == 3


def test_queue_expires_by_a_policy_that_came_later_and_not_after_it_went(
    site: Site, client: Client
) -> None:
    client.queue("a")
    client.queue("b")
    let(site, expires=100)
    site.advance(99)
    client.ask(Queue.Declare, queue="b")
    site.advance(1)
    assert list(site.vhost.queues) == ["b"]
    let(site)
    site.advance(10_000)
    assert list(site.vhost.queues) == ["b"]


def test_dead_letter_exchange_by_policy_is_asked_when_a_message_dies(
    site: Site, client: Client
) -> None:
    client.queue("dead")
    client.ask(Exchange.Declare, exchange="dlx", exchange_type="fanout")
    client.ask(Queue.Bind, queue="dead", exchange="dlx")
    client.queue()
    client.publish(b"1")
    client.publish(b"2")
    site.vhost.set_policy(Policy("d", "^q$", {"dead-letter-exchange": "dlx", "max-length": 1}))
    site.broker.run_deliveries()
    site.collect()
    assert (count(client), count(client, "dead")) == (1, 1)
    site.vhost.clear_policy("d")
    delivery = client.ask(Basic.Get, queue="q")
    client.tell(Basic.Reject, delivery_tag=delivery.delivery_tag, requeue=False)
    assert (count(client), count(client, "dead")) == (0, 1)


def test_delivery_limit_by_policy_counts_what_was_returned_before(
    site: Site, client: Client
) -> None:
    client.queue()
    client.publish(b"1")
    for limit in (None, None, 2):
        if limit is not None:
            let(site, delivery_limit=limit)
        delivery = client.ask(Basic.Get, queue="q")
        client.tell(Basic.Reject, delivery_tag=delivery.delivery_tag, requeue=True)
    assert count(client) == 0


def test_adopted_ttl_and_limit_hold_for_what_is_in_the_queue(site: Site, client: Client) -> None:
    site.broker.redeclare = {"/": Redeclare.ADOPT}
    client.queue(arguments={"x-message-ttl": number(1000)})
    for body in (b"1", b"2", b"3"):
        client.publish(body)
    arguments = {"x-message-ttl": number(100), "x-max-length": number(2)}
    client.ask(Queue.Declare, queue="q", arguments=arguments)
    assert count(client) == 2
    site.advance(100)
    assert count(client) == 0


def test_publishes_are_routed_by_the_policy_of_their_moment(site: Site, client: Client) -> None:
    client.queue("rest")
    client.ask(Exchange.Declare, exchange="x", exchange_type="direct")
    client.ask(Exchange.Declare, exchange="alternate", exchange_type="fanout")
    client.ask(Queue.Bind, queue="rest", exchange="alternate")
    for definition in ({}, {"alternate_exchange": "alternate"}, {}):
        if definition or site.vhost.policies.all():
            let(site, **definition)
        client.publish(b"x", exchange="x", key="nowhere")
    assert count(client, "rest") == 1

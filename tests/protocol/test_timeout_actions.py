"""Consumer timeout: what is asked for instead of requeueing alone, and changes by policies."""

from __future__ import annotations

import pytest

from broker.core.arguments import CANCEL_CONSUMER, CLOSE_CHANNEL
from broker.core.policies import Policy
from broker.wire.table import Field
from tests.protocol.client import (
    Basic,
    Channel,
    Client,
    Site,
    is_close,
    text,
)
from tests.protocol.timing import SPAN, TIMEOUT, counts, deliveries, fill, timeout, timeouts_noted

TEXT = (
    "delivery acknowledgement on channel 1 timed out. Timeout value used: 16000 ms. This timeout "
    "value can be configured, see consumers doc guide to learn more"
)


@pytest.mark.parametrize("where", ["setting", "queue", "consumer", "policy"])
def test_channel_is_closed_with_rabbitmqs_text_where_that_is_asked_for(
    site: Site, where: str
) -> None:
    client = site.connect(channels=2)
    client.queue(arguments=timeout(TIMEOUT, CLOSE_CHANNEL if where == "queue" else None))
    if where == "setting":
        site.broker.consumer_timeout_action = CLOSE_CHANNEL
    elif where == "policy":
        site.vhost.policies.set(Policy("p", ".*", {"consumer-timeout-action": CLOSE_CHANNEL}))
    client.consume(arguments=timeout(TIMEOUT, CLOSE_CHANNEL) if where == "consumer" else {})
    client.publish(b"1", channel=2)
    client.read()
    site.advance(TIMEOUT + SPAN)
    (item,) = client.read()
    assert item.kind is Channel.Close
    assert is_close(item.method, 406, TEXT, None)
    assert counts(client) == (1, 0)
    client.tell(Channel.CloseOk)
    client.tell(Basic.Get, 2, queue="q")
    assert deliveries(client) == [(1, b"1", True)]


def test_argument_of_the_consumer_says_what_happens_before_all_others(site: Site) -> None:
    site.broker.consumer_timeout_action = CLOSE_CHANNEL
    client = site.connect()
    client.queue(arguments=timeout(TIMEOUT, CANCEL_CONSUMER))
    client.consume(arguments={"x-consumer-timeout-action": text("requeue")})
    client.publish(b"1")
    site.advance(TIMEOUT + SPAN)
    assert deliveries(client) == [(1, b"1", False), (2, b"1", True)]


def test_consumer_is_cancelled_where_that_is_asked_for(site: Site) -> None:
    client = site.connect(channels=2)
    client.queue(arguments=timeout(TIMEOUT, CANCEL_CONSUMER))
    client.consume(consumer_tag="stuck")
    client.publish(b"late")
    site.advance(TIMEOUT // 2)
    client.publish(b"in time")
    client.read()
    site.advance(TIMEOUT // 2 + SPAN)
    (item,) = client.read()
    assert (item.kind, item.method.consumer_tag) == (Basic.Cancel, "stuck")
    assert counts(client) == (1, 1)
    client.tell(Basic.Ack, delivery_tag=1)
    client.tell(Basic.Ack, delivery_tag=2)
    assert counts(client) == (1, 0)
    assert client.consume(consumer_tag="stuck") == "stuck"
    assert deliveries(client) == [(3, b"late", True)]


def test_client_that_does_not_understand_a_cancel_loses_its_channel(site: Site) -> None:
    client = site.connect(capabilities=())
    client.queue(arguments=timeout(TIMEOUT, CANCEL_CONSUMER))
    client.consume()
    client.publish(b"1")
    client.read()
    site.advance(TIMEOUT + SPAN)
    (item,) = client.read()
    assert is_close(item.method, 406, TEXT, None)


def test_there_is_no_consumer_to_cancel_for_what_was_got(site: Site) -> None:
    client = site.connect()
    client.queue(arguments=timeout(TIMEOUT, CANCEL_CONSUMER))
    client.publish(b"1")
    client.tell(Basic.Get, queue="q")
    client.read()
    site.advance(TIMEOUT + SPAN)
    assert client.read() == []
    assert counts(client) == (1, 0)


def test_cancelled_consumer_takes_its_auto_delete_queue_with_it(site: Site) -> None:
    client = site.connect()
    client.queue(auto_delete=True, arguments=timeout(TIMEOUT, CANCEL_CONSUMER))
    client.consume()
    client.publish(b"1")
    site.advance(TIMEOUT + SPAN)
    assert site.vhost.queues == {}
    assert site.broker.memory_used == 0


# Live changes


@pytest.fixture
def client(site: Site) -> Client:
    client = site.connect(channels=2)
    client.queue(arguments=timeout())
    return client


def set_policy(site: Site, milliseconds: int) -> None:
    definition: dict[str, object] = {"consumer-timeout": milliseconds}
    site.vhost.policies.set(Policy("p", ".*", definition))


def test_policy_gives_what_is_held_all_of_the_time_from_then_on(site: Site) -> None:
    client = site.connect(channels=2)
    client.queue()
    client.consume()
    client.publish(b"1")
    client.tell(Basic.Get, 2, queue="q")
    site.advance(TIMEOUT)
    set_policy(site, TIMEOUT)
    site.advance(TIMEOUT - 1)
    assert timeouts_noted(site) == []
    site.advance(1 + SPAN)
    assert len(timeouts_noted(site)) == 1


def test_policy_that_goes_takes_the_timeout_with_it(site: Site) -> None:
    client = site.connect()
    client.queue()
    set_policy(site, TIMEOUT)
    client.consume()
    client.publish(b"1")
    site.vhost.policies.clear("p")
    site.advance(10 * TIMEOUT)
    assert timeouts_noted(site) == []
    assert counts(client) == (0, 1)


def test_lower_one_of_argument_and_policy_holds(site: Site, client: Client) -> None:
    client.consume()
    client.publish(b"1")
    set_policy(site, 1000)
    site.advance(1100)
    assert timeouts_noted(site)[0]["timeout"] == 1000


# With others


def test_message_that_is_late_too_often_dies(site: Site) -> None:
    client = site.connect()
    client.queue("dead")
    client.queue(
        arguments={
            **timeout(),
            "x-delivery-limit": Field("byte", 1),
            "x-dead-letter-exchange": text(""),
            "x-dead-letter-routing-key": text("dead"),
        }
    )
    client.consume()
    client.publish(b"poison")
    for _ in range(2):
        site.advance(TIMEOUT + SPAN)
    assert deliveries(client) == [(1, b"poison", False), (2, b"poison", True)]
    assert (counts(client), counts(client, "dead")) == ((0, 0), (1, 0))
    client.tell(Basic.Get, queue="dead")
    (item,) = client.read()
    assert b"delivery_limit" in item.header


def test_least_loaded_takes_who_is_late_for_as_busy_as_it_was(site: Site) -> None:
    client = site.connect(channels=2)
    client.queue(arguments={**timeout(), "x-dispatch": text("least-loaded")})
    client.consume(consumer_tag="stuck")
    fill(client, 2)
    client.consume(channel=2, consumer_tag="other", arguments=timeout(0))
    site.advance(TIMEOUT + SPAN)
    client.read(1)
    assert [body for _, body, _ in deliveries(client, 2)] == [b"0", b"1"]
    client.tell(Basic.Ack, 2, delivery_tag=1)
    client.publish(b"next")
    assert [body for _, body, _ in deliveries(client, 2)] == [b"next"]

"""What counts, and what is kept, when a broker starts again where some queues do not last."""

from __future__ import annotations

from typing import Any

import pytest

from broker.wire.table import Field
from tests.durable.site import DurableSite, publish_persistent
from tests.protocol.client import Basic, Client, Queue, text

NOW = 1_000_000


def declare(site: DurableSite, client: Client, name: str, **more: Any) -> None:
    client.tell(Queue.Declare, queue=name, **more)
    site.settle_down()
    assert client.read()[0].kind is Queue.DeclareOk


@pytest.mark.parametrize("count", [1, 40])
def test_a_persistent_letter_of_a_queue_that_does_not_last_is_kept(count: int) -> None:
    site = DurableSite(now=NOW)
    client = site.connect()
    declare(site, client, "d", durable=True)
    arguments = {
        "x-dead-letter-exchange": text(""),
        "x-dead-letter-routing-key": text("d"),
        "x-message-ttl": Field("signedint", 10),
    }
    declare(site, client, "q", arguments=arguments)
    client.publish(b"transient")
    publish_persistent(client, *[b"%d" % number for number in range(count)])
    site.settle_down()
    site.advance(20)
    site.settle_down()
    assert site.vhost.queues["d"].messages_ready == count + 1
    site = site.crash()
    client = site.connect()
    client.consume("d")
    site.settle_down()
    assert client.bodies() == [b"%d" % number for number in range(count)]


@pytest.mark.parametrize(("consumers", "prefetch"), [(1, 0), (1, 3), (2, 0)])
def test_what_was_handed_out_before_a_crash_counts_as_redelivered(
    consumers: int, prefetch: int
) -> None:
    site = DurableSite(now=NOW)
    client = site.connect()
    declare(site, client, "q", durable=True)
    publish_persistent(client, *[b"%d" % number for number in range(8)])
    site.settle_down()
    client.consume()
    site.settle_down()
    assert len(client.bodies()) == 8
    site = site.crash()
    client = site.connect(channels=consumers)
    for number in range(1, consumers + 1):
        if prefetch:
            client.tell(Basic.Qos, number, prefetch_count=prefetch)
        client.tell(Basic.Consume, number, queue="q")
    site.settle_down()
    again = [each for each in client.read() if each.kind is Basic.Deliver]
    assert len(again) == (prefetch or 8)
    assert all(each.method.redelivered for each in again)
    assert site.broker.counters.messages_redelivered == len(again)

"""Delayed messages that are due, a few in each turn."""

from __future__ import annotations

from broker.core.delayed import RELEASED_AT_ONCE
from broker.core.graves import HEADER_AS_ONE
from tests.durable.site import DurableSite
from tests.durable.test_delayed import declare, delay
from tests.durable.test_dying import NOW, left, wait
from tests.protocol.client import Exchange, text


def test_large_headers_go_out_a_few_at_a_time_and_in_order() -> None:
    """Each of them may be a look at thousands of headers."""
    site = DurableSite(now=NOW)
    client = site.connect()
    declare(site, client)
    bodies = [b"%d" % place for place in range(50)]
    for body in bodies:
        delay(client, body, 100, large=text("x" * 9 * HEADER_AS_ONE))
    delay(client, b"last", 101)
    site.settle_down()
    timers = site.broker.timers
    counts = []
    for step in range(6):
        timers.advance(NOW + 101 + step)
        site.broker.run_deliveries()
        counts.append(site.vhost.queues["q"].messages_ready)
    assert counts == [20, 40, 51, 51, 51, 51]
    site.settle_down()
    assert left(site, "q") == [*bodies, b"last"]
    assert site.broker.memory_used == 0


def test_what_has_its_turn_next_goes_with_its_exchange() -> None:
    site = DurableSite(now=NOW)
    client = site.connect()
    declare(site, client)
    for _ in range(50):
        delay(client, b"x", 100, large=text("x" * 9 * HEADER_AS_ONE))
    site.settle_down()
    site.broker.timers.advance(NOW + 100)
    client.tell(Exchange.Delete, exchange="x")
    site.settle_down()
    wait(site, NOW + 1000)
    assert site.vhost.queues["q"].messages_ready == RELEASED_AT_ONCE // 10

"""Consumer timeout: what it costs at most, and a model of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.protocol.consumer_timeout import LATE_AT_ONCE, LOOK_AGAIN_MS, MARKS, SWEEP_FROM
from broker.protocol.late import LATE_MAX
from broker.wire.methods import Method
from broker.wire.table import Field, Table
from tests.protocol.client import (
    Basic,
    Channel,
    Client,
    Queue,
    Site,
    is_close,
    octets_of,
    publish_octets,
    text,
)
from tests.protocol.timing import SPAN, TIMEOUT, counts, timeout, timeouts_noted
from tests.wire.profiles import examples

WRONG_ACTION = "invalid_consumer_timeout_action"


@pytest.fixture
def client(site: Site) -> Client:
    client = site.connect(channels=2)
    client.queue(arguments=timeout())
    return client


def test_nothing_is_late_while_the_connection_waits_for_memory(site: Site) -> None:
    site = Site(memory=5000)
    client = site.connect()
    client.queue(arguments=timeout())
    client.consume()
    client.publish(b"x" * 3000)
    client.queue("other")
    client.publish(b"x" * 3000, key="other")
    client.publish(b"waits", key="other")
    client.feed(octets_of(Basic.Ack, delivery_tag=1))
    assert client.connection.is_blocked
    site.advance(TIMEOUT + SPAN)
    assert timeouts_noted(site) == []
    site.vhost.queues["other"].purge()
    site.unblock()
    site.advance(LOOK_AGAIN_MS)
    assert timeouts_noted(site) == []
    assert counts(client) == (0, 0)


def test_marks_are_few_however_many_deliveries_there_are(site: Site, client: Client) -> None:
    client.consume()
    for _ in range(5000):
        client.publish(b"x")
        site.advance(3)
        client.read()
        (tag,) = (client.connection.channels[1].unacked.next_tag - 1,)
        if tag % 2:
            client.tell(Basic.Ack, delivery_tag=tag)
    timeouts = client.connection.channels[1].timeouts
    assert timeouts is not None
    (watch,) = timeouts.watches.values()
    assert len(watch._marks) <= MARKS + 2
    assert len(site.broker.timers._alarms) < 2000


def test_watches_are_few_however_often_messages_are_fetched(site: Site, client: Client) -> None:
    for tag in range(1, 3001):
        client.publish(b"x")
        if tag % 3:
            client.tell(Basic.Get, queue="q")
        else:
            client.consume(consumer_tag="c")
            client.ask(Basic.Cancel, consumer_tag="c")
        client.tell(Basic.Ack, delivery_tag=tag)
        client.read()
    timeouts = client.connection.channels[1].timeouts
    assert timeouts is not None
    assert len(timeouts.watches) <= SWEEP_FROM + 1
    assert len(site.broker.timers._alarms) < 2000


def test_many_late_deliveries_go_back_in_several_turns(site: Site, client: Client) -> None:
    client.consume()
    count = LATE_AT_ONCE + 100
    for _ in range(count // 100):
        client.feed(publish_octets(b"x") * 100)
    client.read()
    client.consume(channel=2, consumer_tag="other", arguments=timeout(0))
    site.advance(TIMEOUT + 2 * SPAN)
    noted = [details["count"] for details in timeouts_noted(site)]
    assert noted[0] == LATE_AT_ONCE
    assert sum(n for n in noted if isinstance(n, int)) >= count // 100 * 100
    # A tag that is not remembered any more is not taken for a mistake.
    client.tell(Basic.Ack, delivery_tag=1)
    assert not [item for item in client.read() if item.kind is Channel.Close]


def test_places_of_tags_that_are_not_remembered_are_free_again(site: Site, client: Client) -> None:
    for number in (1, 2):
        client.ask(Basic.Qos, number, prefetch_count=LATE_MAX + 10)
        client.consume(channel=number, arguments=timeout(TIMEOUT if number == 1 else 0))
    for _ in range(2 * LATE_MAX // 100 + 2):
        client.feed(publish_octets(b"x") * 100)
    assert client.connection.channels[1].consumed_unacked == LATE_MAX + 10
    site.advance(TIMEOUT + 2 * SPAN)
    channel = client.connection.channels[1]
    assert len(channel.unacked) > 0
    timeouts = channel.timeouts
    assert timeouts is not None
    assert channel.consumed_unacked == len(channel.unacked) + len(timeouts.late)


def test_end_of_the_channel_is_the_end_of_its_timers(site: Site, client: Client) -> None:
    client.consume()
    client.publish(b"1")
    assert site.broker.timers._set == 1
    client.ask(Channel.Close)
    assert site.broker.timers._set == 0
    site.advance(10 * TIMEOUT)
    assert timeouts_noted(site) == []


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (timeout(-1), "'x-consumer-timeout' for queue 'q' in vhost '/': {value_negative,-1}"),
        (
            {"x-consumer-timeout": text("1000")},
            "'x-consumer-timeout' for queue 'q' in vhost '/': \"expected integer, got longstr\"",
        ),
        (
            timeout(1, "die"),
            "'x-consumer-timeout-action' for queue 'q' in vhost '/': " + WRONG_ACTION,
        ),
    ],
)
def test_bad_argument_is_refused_for_queues_and_consumers(
    client: Client, arguments: Table, wanted: str
) -> None:
    client.ask(Queue.Delete, queue="q")
    answer = client.ask(Queue.Declare, queue="q", arguments=arguments)
    assert is_close(answer, 406, f"invalid arg {wanted}", Queue.Declare)
    client.tell(Channel.CloseOk)
    client.tell(Channel.Open)
    client.read()
    client.queue()
    client.tell(Basic.Consume, queue="q", arguments=arguments)
    (item,) = client.read()
    assert is_close(item.method, 406, f"invalid arg {wanted}", Basic.Consume)


def test_huge_timeout_is_as_good_as_ten_years(site: Site) -> None:
    client = site.connect()
    client.queue(arguments={"x-consumer-timeout": Field("long", 2**63 - 1)})
    client.consume()
    client.publish(b"1")
    assert site.broker.timers.next is not None
    assert site.broker.timers.next < 2**40


class Delivered:
    """A delivery that is not settled, and when it came."""

    def __init__(self, at: int, limit: int) -> None:
        self.at = at
        self.limit = limit


steps = st.lists(
    st.tuples(
        st.sampled_from(["publish", "wait", "ack", "multiple", "get", "nack"]),
        st.integers(0, 20),
    ),
    max_size=40,
)


@examples(60)
@given(steps)
def test_nothing_is_late_early_nor_much_later_than_its_time(plan: list[tuple[str, int]]) -> None:
    site = Site()
    client = site.connect(channels=2)
    client.queue(arguments=timeout(1600))
    limits = {"c0": 1600, "c1": 320, "": 1600}
    client.consume(consumer_tag="c0")
    client.consume(consumer_tag="c1", arguments=timeout(320))
    held: dict[int, Delivered] = {}
    now = 0
    late: set[int] = set()
    timed_out = 0

    def look() -> None:
        nonlocal timed_out
        counted = site.broker.counters.messages_timed_out
        for item in client.read():
            assert item.kind in (Basic.Deliver, Basic.GetOk, Basic.GetEmpty), item.kind
            if item.kind is not Basic.GetEmpty:
                tag = "" if item.kind is Basic.GetOk else item.method.consumer_tag
                held[item.method.delivery_tag] = Delivered(now, limits[tag])
        unsettled = set(client.connection.channels[1].unacked.tags(0, multiple=True))
        gone = held.keys() - unsettled
        assert counted - timed_out == len(gone)
        timed_out = counted
        for tag in gone:
            assert now - held[tag].at >= held[tag].limit
            late.add(tag)
            del held[tag]
        for each in held.values():
            assert now - each.at <= each.limit + max(each.limit // MARKS, 10)

    for what, choice in plan:
        if what == "publish":
            client.feed(publish_octets(b"x", channel=2) * (1 + choice % 3))
        elif what == "wait":
            for _ in range(choice):
                now += 17
                site.advance(17)
                look()
        elif what == "get":
            client.tell(Basic.Get, queue="q")
        elif held or late:
            tags = sorted([*held, *late])
            tag = tags[choice % len(tags)]
            multiple = what == "multiple"
            settled = {t for t in tags if t == tag or (multiple and t < tag)}
            kind = Basic.Nack if what == "nack" else Basic.Ack
            client.tell(kind, delivery_tag=tag, multiple=multiple, **_nack(kind))
            for each in settled:
                held.pop(each, None)
                late.discard(each)
        look()
    queue = site.vhost.queues["q"]
    assert queue.unacked_count == len(held)
    client.ask(Channel.Close)
    assert queue.unacked_count == 0


def _nack(kind: type[Method]) -> dict[str, Any]:
    return {"requeue": True} if kind is Basic.Nack else {}

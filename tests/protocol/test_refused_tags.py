"""Acks and nacks cover what they say, though refusals overtake confirms that wait for the disk."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from broker.storage.log import LogState
from broker.wire.methods import Method
from tests.durable.site import PERSISTENT, DurableSite, publish_persistent
from tests.protocol.client import Basic, Client, Confirm, Queue, publish_octets
from tests.wire.profiles import examples


def start() -> tuple[DurableSite, Client]:
    """A site with the durable queue q, and a client in confirm mode."""
    site = DurableSite()
    site.broker.nack_on_alarm = frozenset({"/"})
    client = site.connect()
    client.tell(Queue.Declare, queue="q", durable=True)
    site.settle_down()
    client.tell(Confirm.Select)
    client.read()
    return site, client


def answers(client: Client) -> list[tuple[type[Method], int, bool]]:
    return [(r.kind, r.method.delivery_tag, r.method.multiple) for r in client.read()]


def test_refusals_overtake_confirms_that_wait_for_the_disk() -> None:
    site, client = start()
    publish_persistent(client, b"1", b"2")
    site.broker.is_disk_short = True
    client.feed(publish_octets(b"3") * 2)
    # A multiple one would refuse 1 and 2.
    assert answers(client) == [(Basic.Nack, 3, False), (Basic.Nack, 4, False)]
    site.broker.is_disk_short = False
    publish_persistent(client, b"5", b"6")
    assert answers(client) == []
    site.settle_down()
    assert answers(client) == [(Basic.Ack, 2, True), (Basic.Ack, 6, True)]
    assert site.vhost.queues["q"].messages == 4
    site.broker.is_disk_short = True
    client.feed(publish_octets(b"7") * 2)
    assert answers(client) == [(Basic.Nack, 8, True)]


def test_full_disk_refuses_at_once_and_keeps_nothing_of_it() -> None:
    site, client = start()
    publish_persistent(client, b"1")
    site.log.become(LogState.FULL)
    while site.log.told:
        site.log.tell(1)
    for tag in range(2, 102):
        client.feed(publish_octets(b"x"))
        assert answers(client) == [(Basic.Nack, tag, False)]
    channel = client.connection.channels[1]
    assert channel.refused is not None
    assert channel.refused.runs == [(2, 101)]
    assert sum(map(len, site.journal._callbacks.values())) == 1
    site.log.become(LogState.OPEN)
    site.settle_down()
    assert answers(client) == [(Basic.Ack, 1, False)]
    assert client.connection.channels[1].refused is None
    assert channel.confirmed == 101


def test_disk_that_fails_refuses_what_waited_and_nothing_twice() -> None:
    site, client = start()
    publish_persistent(client, b"1", b"2")
    site.broker.is_disk_short = True
    client.feed(publish_octets(b"3"))
    site.broker.is_disk_short = False
    publish_persistent(client, b"4")
    assert answers(client) == [(Basic.Nack, 3, False)]
    site.log.become(LogState.FAILED)
    while site.log.told:
        site.log.tell(1)
    assert answers(client) == [(Basic.Nack, 2, True), (Basic.Nack, 4, False)]


class Publisher:
    """A client that believes each frame: it covers one open publish, or all up to its tag. Which
    of its publishes meet an alarm is said by `refused`."""

    def __init__(self, site: DurableSite, client: Client) -> None:
        self.site, self.client = site, client
        self.channel = client.connection.channels[1]
        self.count = 0
        self.refused: set[int] = set()
        self.open: set[int] = set()

    def has_alarm(self) -> bool:
        """Whether there is an alarm at the publish that is being read."""
        return self.channel.published + 1 in self.refused

    def publish(self, groups: list[Group]) -> None:
        """Publishes all of them in one chunk."""
        chunk = b""
        for count, is_refused, is_kept in groups:
            tags = range(self.count + 1, self.count + count + 1)
            self.count += count
            self.open |= set(tags)
            self.refused |= set(tags if is_refused else ())
            how: Any = PERSISTENT if is_kept else {}
            # What is refused looks different: no run of publishes has both kinds.
            chunk += publish_octets(b"x" * 9, mandatory=is_refused, **how) * count
        self.client.feed(chunk)

    def read(self) -> None:
        for kind, last, multiple in answers(self.client):
            assert last in self.open
            covered = {tag for tag in self.open if tag <= last} if multiple else {last}
            assert multiple == (len(covered) > 1)
            assert covered <= self.refused or not covered & self.refused
            assert kind is (Basic.Nack if last in self.refused else Basic.Ack)
            self.open -= covered


Group = tuple[int, bool, bool]
"""How many publishes, whether they are refused, whether they are persistent."""
groups = st.tuples(st.integers(1, 3), st.booleans(), st.booleans())
actions = st.one_of(
    st.lists(groups, min_size=1, max_size=5), st.sampled_from(["disk", "disk", "purge"])
)


@examples(300)
@given(st.lists(actions, max_size=20))
def test_each_publish_is_told_once_and_rightly(script: list[list[Group] | str]) -> None:
    site, client = start()
    publisher = Publisher(site, client)
    with patch.object(site.broker, "has_alarm", publisher.has_alarm):
        for action in script:
            if action == "disk":
                site.step()
            elif action == "purge":
                client.tell(Queue.Purge, queue="q", nowait=True)
            else:
                assert isinstance(action, list)
                publisher.publish(action)
            publisher.read()
            # What is refused is told at once.
            assert not publisher.open & publisher.refused
        site.settle_down()
    publisher.read()
    assert publisher.open == set()
    channel = publisher.channel
    assert channel.confirmed == channel.published == publisher.count
    assert channel.refused is None
    assert site.broker.counters.messages_confirmed == publisher.count - len(publisher.refused)


def test_one_batch_may_have_both_kinds() -> None:
    site, client = start()
    publisher = Publisher(site, client)
    with patch.object(site.broker, "has_alarm", publisher.has_alarm):
        publisher.publish([(2, True, False), (1, False, True), (2, True, False), (1, False, False)])
        assert answers(client) == [
            (Basic.Nack, 2, True),
            (Basic.Nack, 4, False),
            (Basic.Nack, 5, False),
        ]
        site.settle_down()
    assert answers(client) == [(Basic.Ack, 3, False), (Basic.Ack, 6, False)]

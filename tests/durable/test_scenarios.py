"""What was found once, or is rare, by name: confirms, marks and answers when the disk is late."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from broker.core import paging, reading
from broker.core.lasting import AHEAD
from broker.errors import ReplyCode
from broker.wire.methods import Method
from broker.wire.properties import DELIVERY_MODE, HEADERS
from broker.wire.table import Field, encode_table
from tests.durable.site import DurableSite, publish_persistent
from tests.protocol.client import Basic, Channel, Client, Confirm, Queue, text


def start(**limits: Any) -> tuple[DurableSite, Client]:
    """A site with the durable queue q, and a client with two channels, the first of which
    confirms."""
    site = DurableSite(**limits)
    client = site.connect(channels=2)
    client.tell(Queue.Declare, queue="q", durable=True)
    site.settle_down()
    client.tell(Confirm.Select)
    assert [r.kind for r in client.read()] == [Queue.DeclareOk, Confirm.SelectOk]
    return site, client


def kinds(client: Client) -> list[type[Method]]:
    return [received.kind for received in client.read()]


def disk_works_once(site: DurableSite) -> None:
    site.log.work(1)
    site.log.tell(1)


def ready(site: DurableSite, name: str = "q") -> int:
    return site.vhost.queues[name].messages_ready


@pytest.mark.parametrize("key", ["t", "nowhere"])
def test_copy_to_a_durable_queue_lasts_wherever_the_routing_key_leads(key: str) -> None:
    site, client = start()
    client.queue("t")
    table = encode_table({"CC": Field("array", [text("q")])})
    properties = {"flags": HEADERS | DELIVERY_MODE, "properties": table + b"\x02"}
    client.publish(b"copy", key=key, **properties)
    assert kinds(client) == []
    disk_works_once(site)
    assert kinds(client) == [Basic.Ack]
    assert ready(site.crash()) == 1


def test_persistent_direct_reply_is_delivered() -> None:
    site, client = start()
    asking = site.connect()
    asking.consume("amq.rabbitmq.reply-to", no_ack=True)
    [token] = site.broker.reply_sinks
    publish_persistent(client, b"answer", key=f"amq.rabbitmq.reply-to.{token}")
    assert asking.bodies() == [b"answer"]
    assert kinds(client) == [Basic.Ack]


def test_confirm_of_a_channel_that_is_closed_is_not_taken_for_that_of_the_next() -> None:
    site, client = start()
    publish_persistent(client, b"old")
    client.tell(Channel.Close)
    client.tell(Channel.Open)
    client.tell(Confirm.Select)
    assert kinds(client) == [Channel.CloseOk, Channel.OpenOk, Confirm.SelectOk]
    publish_persistent(client, b"new")
    disk_works_once(site)
    assert kinds(client) == []
    assert ready(site.crash()) == 1
    disk_works_once(site)
    [confirm] = client.read()
    assert (confirm.method.delivery_tag, confirm.method.multiple) == (1, False)


def test_nothing_is_sent_behind_connection_close() -> None:
    site, client = start()
    publish_persistent(client, b"late")
    client.connection.close(ReplyCode.CONNECTION_FORCED, "CONNECTION_FORCED - test")
    site.collect()
    site.settle_down()
    assert [kind.name for kind in kinds(client)] == ["Connection.Close"]


@pytest.mark.parametrize("no_ack", [False, True])
def test_none_that_somebody_has_seen_comes_back_unmarked(*, no_ack: bool) -> None:
    site, client = start()
    count = 3 * AHEAD
    for _ in range(count // 512):
        publish_persistent(client, *[b"x"] * 512)
        site.settle_down()
    client.read()
    # The mark becomes durable; then the disk stands still.
    client.tell(Basic.Consume, 2, queue="q", no_ack=no_ack)
    disk_works_once(site)
    delivered = [r for r in client.read() if r.kind is Basic.Deliver]
    assert AHEAD // 2 < len(delivered) < count
    site = site.crash()
    again = site.connect()
    again.tell(Basic.Consume, queue="q", no_ack=True)
    site.settle_down()
    marks = [r.method.redelivered for r in again.read() if r.kind is Basic.Deliver]
    assert len(marks) == count
    assert all(marks[: len(delivered)])
    assert not any(marks[len(delivered) + AHEAD :])


def test_error_found_after_waiting_names_the_method_that_waited() -> None:
    site, client = start()
    publish_persistent(client, b"a")
    site.settle_down()
    site = site.stop()
    client, other = site.connect(), site.connect()
    client.tell(Basic.Get, queue="q")
    for _ in range(3):
        disk_works_once(site)
    assert kinds(client) == []
    assert site.log.reads
    other.tell(Queue.Delete, queue="q")
    site.settle_down()
    [close] = client.read()
    assert close.kind is Channel.Close
    assert close.method.reply_text == "NOT_FOUND - no queue 'q' in vhost '/'"
    assert (close.method.class_id, close.method.method_id) == (60, 70)


def test_message_is_delivered_once_when_paging_begins_amid_the_queue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(paging, "HEAD_BYTES", 700)
    monkeypatch.setattr(reading, "FETCH_BYTES", 300)
    site, client = start(memory=20_000)
    bodies = [b"%03d" % number + b"x" * 100 for number in range(30)]
    for body in bodies:
        publish_persistent(client, body)
        site.settle_down()
    client.read()
    assert site.broker.memory_used < 20_000 // 2 + 1000
    client.tell(Basic.Consume, 2, queue="q")
    site.settle_down()
    assert client.bodies() == bodies


def test_what_waits_behind_an_answer_is_done_in_order() -> None:
    """Pipelined: nothing is read of a connection while an answer is due."""
    site, client = start()
    octets = site.log.next
    client.tell(Queue.Declare, queue="r", durable=True)
    publish_persistent(client, b"1", b"2", key="r")
    client.tell(Queue.Purge, 2, queue="r")
    publish_persistent(client, b"3", key="r")
    assert kinds(client) == []
    assert ready(site, "r") == 0
    site.settle_down()
    assert [r.method.message_count for r in client.read() if r.kind is Queue.PurgeOk] == [2]
    assert site.log.next > octets
    assert ready(site.crash(), "r") == 1


def test_stop_and_start_for_ever_makes_the_log_no_longer_than_needed() -> None:
    """A start writes nothing of what is there, and a stop no more than where each queue stands."""
    site, client = start()
    publish_persistent(client, b"stays")
    site.settle_down()
    sizes = []
    for _ in range(5):
        site = site.stop()
        sizes.append(site.log.size_bytes)
        assert ready(site) == 1
    growth = {later - size for size, later in pairwise(sizes)}
    assert len(growth) == 1
    assert max(growth) < 100

"""A full disk pauses publishers and loses nothing; one that has failed promises nothing more."""

from __future__ import annotations

from typing import Any

import pytest

from broker.core import cleaner
from broker.protocol.states import ConnectionState
from broker.storage.log import LogState
from broker.wire.methods import commands
from tests.durable.site import DurableSite, publish_persistent
from tests.protocol.client import Basic, Client, Confirm, Exchange, Queue, Tx, octets_of


def start() -> tuple[DurableSite, Client]:
    """A site with the durable queue q that has three messages, and a client that confirms."""
    site = DurableSite()
    client = site.connect(channels=2)
    client.tell(Queue.Declare, queue="q", durable=True)
    site.settle_down()
    client.tell(Confirm.Select)
    publish_persistent(client, b"1", b"2", b"3")
    site.settle_down()
    client.read()
    return site, client


def become(site: DurableSite, state: LogState) -> None:
    site.log.become(state)
    while site.log.told:
        site.log.tell(1)


def ready(site: DurableSite) -> int:
    return site.vhost.queues["q"].messages_ready


def test_full_disk_stops_publishers_and_lets_consumers_drain() -> None:
    site, client = start()
    consumer = site.connect()
    become(site, LogState.FULL)
    publish_persistent(client, b"4")
    assert [r.kind for r in client.read()] == [commands.Connection.Blocked]
    consumer.tell(Basic.Get, queue="q")
    site.settle_down()
    become(site, LogState.OPEN)
    site.settle_down()
    kinds = [r.kind for r in client.read()]
    assert sorted(kind.name for kind in kinds) == ["Basic.Ack", "Connection.Unblocked"]
    [got] = consumer.read()
    assert got.body == b"1"
    consumer.tell(Basic.Ack, delivery_tag=got.method.delivery_tag)
    site.settle_down()
    assert ready(site.crash()) == 3


def test_publish_under_way_when_the_disk_fills_is_confirmed_when_there_is_room() -> None:
    site, client = start()
    publish_persistent(client, b"4")
    become(site, LogState.FULL)
    site.settle_down()
    assert [r.kind for r in client.read()] == []
    assert ready(site.crash()) == 3
    become(site, LogState.OPEN)
    site.settle_down()
    assert [r.kind for r in client.read()] == [Basic.Ack]
    assert ready(site.crash()) == 4


def test_failed_disk_refuses_what_it_did_not_keep() -> None:
    site, client = start()
    publish_persistent(client, b"4", b"5")
    become(site, LogState.FAILED)
    [refusal] = client.read()
    assert refusal.kind is Basic.Nack
    assert (refusal.method.delivery_tag, refusal.method.multiple) == (5, True)
    # From now on at once; transient messages go on.
    publish_persistent(client, b"6")
    assert [r.kind for r in client.read()] == [Basic.Nack]
    client.tell(Confirm.Select, 2)
    client.publish(b"7", channel=2)
    assert [r.kind for r in client.read()] == [Confirm.SelectOk, Basic.Ack]
    assert ready(site.crash()) == 3


def test_who_waits_for_a_disk_that_fails_is_told() -> None:
    site, client = start()
    waiting = site.connect()
    waiting.tell(Queue.Declare, queue="late", durable=True)
    assert waiting.read() == []
    become(site, LogState.FAILED)
    [close] = waiting.read()
    assert close.kind is commands.Connection.Close
    assert close.method.reply_code == 541
    assert "storage has failed: the test said failed" in close.method.reply_text
    assert client.connection.state is ConnectionState.RUNNING
    assert "late" not in site.crash().vhost.queues


def test_failed_disk_still_serves_what_is_in_memory() -> None:
    site, client = start()
    become(site, LogState.FAILED)
    bodies = []
    for _ in range(3):
        client.tell(Basic.Get, 2, queue="q", no_ack=True)
        [got] = client.read()
        bodies.append(got.body)
    assert bodies == [b"1", b"2", b"3"]
    # Nobody can write down that they are gone.
    site.broker.close_journal()
    assert ready(site.crash()) == 3


@pytest.mark.parametrize("method", [Queue.Purge, Tx.Commit])
def test_what_a_failed_disk_cannot_forget_is_not_answered_as_done(method: Any) -> None:
    """A purge, or a commit of acknowledgements alone, was answered though all of it came back."""
    site, client = start()
    client.tell(Tx.Select, 2)
    client.tell(Basic.Get, 2, queue="q")
    site.settle_down()
    client.tell(Basic.Ack, 2, delivery_tag=1)
    client.read()
    become(site, LogState.FAILED)
    client.tell(method, 2, **({"queue": "q"} if method is Queue.Purge else {}))
    [close] = client.read()
    assert close.kind is commands.Connection.Close
    assert close.method.reply_code == 541
    assert ready(site.crash()) == 3


def test_what_need_not_last_is_committed_and_purged_after_a_failure() -> None:
    site, client = start()
    client.tell(Queue.Declare, 2, queue="t")
    client.tell(Tx.Select, 2)
    become(site, LogState.FAILED)
    client.publish(b"1", key="t", channel=2)
    client.tell(Tx.Commit, 2)
    client.tell(Queue.Purge, 2, queue="t")
    answers = [r.kind for r in client.read()]
    assert answers == [Queue.DeclareOk, Tx.SelectOk, Tx.CommitOk, Queue.PurgeOk]


def test_queue_that_was_being_declared_at_a_failure_delivers_what_need_not_last() -> None:
    """It handed out nothing, and basic.get was never answered."""
    site, client = start()
    client.tell(Queue.Declare, queue="late", durable=True)
    become(site, LogState.FAILED)
    [close] = client.read()
    assert close.kind is commands.Connection.Close
    again = site.connect()
    again.publish(b"1", key="late")
    again.tell(Basic.Get, queue="late", no_ack=True)
    assert again.bodies() == [b"1"]


DURABLE: dict[str, Any] = {"durable": True}
ENDS: dict[str, Any] = {"queue": "q", "exchange": "amq.fanout"}
BOUND: dict[str, Any] = {"queue": "q", "exchange": "x"}


def start_with_bindings() -> tuple[DurableSite, Client]:
    """The same, with exchange x bound to q, and transient t and tx."""
    site, client = start()
    client.tell(Exchange.Declare, exchange="x", durable=True, exchange_type="fanout")
    site.settle_down()
    client.tell(Queue.Bind, **BOUND)
    site.settle_down()
    client.tell(Queue.Declare, queue="t")
    client.tell(Exchange.Declare, exchange="tx", exchange_type="fanout")
    site.settle_down()
    assert len(client.read()) == 4
    become(site, LogState.FAILED)
    return site, client


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        (Queue.Declare, {"queue": "late", **DURABLE}),
        (Queue.Declare, {"queue": "late", **DURABLE, "nowait": True}),
        (Queue.Delete, {"queue": "q"}),
        (Queue.Bind, ENDS),
        (Queue.Unbind, BOUND),
        (Exchange.Declare, {"exchange": "late", "exchange_type": "fanout", **DURABLE}),
        (Exchange.Delete, {"exchange": "x"}),
        (Exchange.Bind, {"destination": "x", "source": "amq.fanout"}),
    ],
)
def test_failed_disk_refuses_what_would_change_what_lasts_and_changes_nothing(
    method: Any, arguments: dict[str, Any]
) -> None:
    site, client = start_with_bindings()
    vhost = site.vhost
    known = sorted(vhost.queues), sorted(vhost.exchanges)
    bindings = [list(each.router.bindings()) for each in vhost.exchanges.values()]
    # Asked again, it is refused again.
    for each in (client, site.connect()):
        each.tell(method, **arguments)
        [close] = each.read()
        assert close.kind is commands.Connection.Close
        assert close.method.reply_code == 541
        assert "storage has failed: the test said failed" in close.method.reply_text
        assert (close.method.class_id, close.method.method_id) == (
            method.index >> 16,
            method.index & 0xFFFF,
        )
    assert (sorted(vhost.queues), sorted(vhost.exchanges)) == known
    assert [list(each.router.bindings()) for each in vhost.exchanges.values()] == bindings


def test_failed_disk_answers_what_need_not_last_and_what_lasts_already() -> None:
    site, client = start_with_bindings()
    refused = site.connect()
    refused.tell(Queue.Declare, queue="late", durable=True)
    assert refused.read()[-1].kind is commands.Connection.Close
    wanted: list[tuple[Any, dict[str, Any]]] = [
        (Queue.Declare, {"queue": "q", **DURABLE}),
        (Queue.Declare, {"queue": "q", "passive": True}),
        (Queue.Declare, {"queue": "new"}),
        (Queue.Declare, {"queue": "mine", "exclusive": True, **DURABLE}),
        (Queue.Bind, BOUND),
        (Queue.Bind, {"queue": "new", "exchange": "x"}),
        (Queue.Unbind, {"queue": "new", "exchange": "x"}),
        (Queue.Unbind, ENDS),
        (Queue.Purge, {"queue": "new"}),
        (Queue.Delete, {"queue": "new"}),
        (Queue.Delete, {"queue": "unknown"}),
        (Exchange.Declare, {"exchange": "x", "exchange_type": "fanout", **DURABLE}),
        (Exchange.Declare, {"exchange": "amq.direct", "exchange_type": "direct", **DURABLE}),
        (Exchange.Declare, {"exchange": "new", "exchange_type": "fanout"}),
        (Exchange.Bind, {"destination": "new", "source": "x"}),
        (Exchange.Unbind, {"destination": "new", "source": "x"}),
        (Exchange.Delete, {"exchange": "new"}),
        (Exchange.Delete, {"exchange": "unknown"}),
    ]
    for method, arguments in wanted:
        client.tell(method, 2, **arguments)
        [answer] = client.read()
        assert answer.kind.__name__ == f"{method.__name__}Ok", (method, arguments)


def test_what_was_under_way_to_a_disk_that_fails_is_in_doubt() -> None:
    site, client = start_with_bindings_under_way()
    wanted: list[tuple[Any, dict[str, Any]]] = [
        (Queue.Declare, {"queue": "late", **DURABLE}),
        (Queue.Delete, {"queue": "gone"}),
        (Exchange.Delete, {"exchange": "unknown"}),
        (Queue.Unbind, ENDS),
    ]
    for method, arguments in wanted:
        client = site.connect()
        client.tell(method, **arguments)
        [close] = client.read()
        assert close.method.reply_code == 541, method
    client = site.connect()
    client.tell(Queue.Declare, queue="q", durable=True)
    assert client.read()[-1].kind is Queue.DeclareOk


def start_with_bindings_under_way() -> tuple[DurableSite, Client]:
    """A queue is being declared and another one deleted when the disk fails."""
    site, client = start()
    client.tell(Queue.Declare, queue="gone", durable=True)
    site.settle_down()
    other = site.connect()
    client.tell(Queue.Delete, queue="gone")
    other.tell(Queue.Declare, queue="late", durable=True)
    become(site, LogState.FAILED)
    assert [each.read()[-1].kind for each in (client, other)] == [commands.Connection.Close] * 2
    return site, client


def test_settlements_of_others_do_not_refuse_a_purge_after_a_failure() -> None:
    site, client = start()
    client.tell(Queue.Declare, 2, queue="t")
    client.tell(Basic.Get, 2, queue="q")
    site.settle_down()
    assert len(client.read()) == 2
    become(site, LogState.FAILED)
    client.feed(octets_of(Basic.Ack, 2, delivery_tag=1) + octets_of(Queue.Purge, 2, queue="t"))
    assert [r.kind for r in client.read()] == [Queue.PurgeOk]


def test_get_of_what_was_being_stored_anew_when_the_disk_failed_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The index has its new place, which nobody will ever read; nothing was said."""
    site, client = start()
    client.tell(Basic.Get, 2, queue="q")
    publish_persistent(client, b"x" * 3000)
    client.tell(Basic.Consume, 2, queue="q", no_ack=True)
    site.settle_down()
    site = site.crash()
    monkeypatch.setattr(cleaner, "SLACK", 100)
    client = site.connect()
    assert site.log.reads
    site.log.answer(1)
    become(site, LogState.FAILED)
    client.tell(Basic.Get, queue="q")
    [close] = client.read()
    assert close.method.reply_code == 541
    assert ready(site.crash()) == 1


def test_what_came_back_without_its_content_and_cannot_be_read_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The queue asked for it again and again, and for nothing else."""
    site = DurableSite(memory=20_000)
    client, holder = site.connect(channels=2), site.connect()
    for name in ("q", "other"):
        client.tell(Queue.Declare, queue=name, durable=True)
        site.settle_down()
    publish_persistent(client, *[b"x" * 500] * 20)
    publish_persistent(client, b"x" * 20_000, key="other")
    holder.tell(Basic.Consume, queue="q")
    site.settle_down()
    assert len(holder.bodies()) == 20
    monkeypatch.setattr(cleaner, "SLACK", 100)
    client.tell(Queue.Purge, queue="other")
    client.tell(Queue.Declare, queue="third", durable=True)
    while not site.log.reads:
        assert site.log.undurable
        site.log.work(1)
        site.log.tell(1)
    site.log.answer(1)
    become(site, LogState.FAILED)
    holder.connection.receive_eof()
    client = site.connect(channels=2)
    client.tell(Basic.Consume, 2, queue="q")
    client.tell(Basic.Get, queue="q")
    assert client.read()[-1].method.reply_code == 541
    assert ready(site.crash()) == 20


def test_get_of_what_cannot_be_read_is_told_why() -> None:
    site, _ = start()
    site = site.crash()
    client = site.connect()
    client.tell(Basic.Get, queue="q")
    assert client.read() == []
    site.reads_fail()
    [close] = client.read()
    assert close.kind is commands.Connection.Close
    assert (close.method.reply_code, close.method.reply_text) == (
        541,
        "INTERNAL_ERROR - message cannot be read again: the test said so",
    )
    assert (close.method.class_id, close.method.method_id) == (60, 70)


@pytest.mark.parametrize("chunk", [1, 5])
def test_what_is_before_a_place_that_cannot_be_read_is_delivered(chunk: int) -> None:
    site = DurableSite()
    client = site.connect()
    client.tell(Queue.Declare, queue="q", durable=True)
    site.settle_down()
    made = [b"%d" % number for number in range(100)]
    for start in range(0, 100, chunk):
        # Many records in one batch.
        publish_persistent(client, *made[start : start + chunk])
    site.settle_down()
    site = site.crash()
    site.log.bad = b"60"
    consumer = site.connect()
    consumer.tell(Basic.Consume, queue="q")
    site.settle_down()
    assert consumer.bodies() == made[:60]
    site.log.bad = b""
    site.try_again()
    site.settle_down()
    assert consumer.bodies() == made[60:]


def test_what_came_back_before_a_place_that_cannot_be_read_is_delivered() -> None:
    site = DurableSite(memory=20_000)
    client, holder = site.connect(), site.connect()
    client.tell(Queue.Declare, queue="q", durable=True)
    site.settle_down()
    made = [b"%d" % number + b"x" * 500 for number in range(100, 160)]
    for body in made:
        publish_persistent(client, body)
    site.settle_down()
    holder.tell(Basic.Consume, queue="q")
    site.settle_down()
    assert holder.bodies() == made
    site.log.bad = b"110x"
    holder.connection.receive_eof()
    client.tell(Basic.Consume, queue="q")
    site.settle_down()
    assert client.bodies() == made[:10]
    site.log.bad = b""
    site.try_again()
    site.settle_down()
    assert client.bodies() == made[10:]

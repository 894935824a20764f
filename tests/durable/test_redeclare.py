"""Arguments that a queue or exchange took over last as those it was made with."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from broker.core.redeclare import Redeclare
from broker.core.rules import QueueRules
from broker.wire.table import Field
from tests.durable.site import DurableSite, publish_persistent
from tests.protocol.client import Basic, Channel, Exchange, Queue, text

TWO = {"x-max-length": Field("signedint", 2), "x-queue-mode": text("lazy")}


def adopting() -> DurableSite:
    site = DurableSite()
    site.broker.redeclare = {"/": Redeclare.ADOPT}
    return site


@pytest.mark.parametrize("restart", [DurableSite.stop, DurableSite.crash])
def test_adopted_arguments_come_back_with_the_messages_of_the_queue(
    restart: Callable[[DurableSite], DurableSite],
) -> None:
    site = adopting()
    client = site.connect()
    client.tell(Queue.Declare, queue="q", durable=True)
    publish_persistent(client, b"1")
    publish_persistent(client, b"2")
    client.tell(Queue.Declare, queue="q", durable=True, arguments=TWO)
    client.tell(Exchange.Declare, exchange="x", exchange_type="direct", durable=True)
    arguments = {"alternate-exchange": text("a")}
    client.tell(
        Exchange.Declare, exchange="x", exchange_type="direct", durable=True, arguments=arguments
    )
    site.settle_down()
    site = restart(site)
    queue = site.vhost.queues["q"]
    assert queue.arguments == TWO
    assert queue.rules == QueueRules(max_length=2)
    assert queue.messages_ready == 2
    assert site.vhost.exchanges["x"].alternate == "a"
    assert len(site.vhost.queues) == 1
    site.broker.redeclare = {"/": Redeclare.ADOPT}
    client = site.connect()
    client.tell(Queue.Declare, queue="q", durable=True)
    site.settle_down()
    assert restart(site).vhost.queues["q"].arguments == {}


def test_declare_ok_waits_until_the_arguments_are_durable() -> None:
    site = adopting()
    client = site.connect()
    client.tell(Queue.Declare, queue="q", durable=True)
    site.settle_down()
    client.read()
    client.tell(Queue.Declare, queue="q", durable=True, arguments=TWO)
    assert client.read() == []
    undurable = site.log.undurable
    assert undurable
    site.settle_down()
    assert [received.kind for received in client.read()] == [Queue.DeclareOk]


def test_arguments_that_were_not_durable_are_not_there_after_a_crash() -> None:
    site = adopting()
    client = site.connect()
    client.tell(Queue.Declare, queue="q", durable=True)
    site.settle_down()
    client.tell(Queue.Declare, queue="q", durable=True, arguments=TWO)
    assert site.crash().vhost.queues["q"].arguments == {}


def test_permission_for_the_dead_letter_exchange_is_needed_to_adopt_it() -> None:
    site = adopting()
    user = site.broker.users["guest"]
    client = site.connect()
    client.tell(Queue.Declare, queue="q")
    site.settle_down()
    client.read()
    permission = user.permissions["/"]
    user.permissions["/"] = type(permission)(".*", "^q$", ".*")
    site.broker.permission_epoch += 1
    arguments = {"x-dead-letter-exchange": text("amq.fanout")}
    client.tell(Queue.Declare, queue="q", arguments=arguments)
    [received] = client.read()
    assert received.kind is Channel.Close
    assert received.method.reply_text == (
        "ACCESS_REFUSED - write access to exchange 'amq.fanout' in vhost '/' refused for user "
        "'guest'"
    )
    assert site.vhost.queues["q"].arguments == {}


def test_limit_that_was_adopted_holds_before_the_next_answer() -> None:
    site = adopting()
    client = site.connect()
    client.tell(Queue.Declare, queue="q")
    for body in (b"1", b"2", b"3"):
        publish_persistent(client, body)
    client.read()
    client.tell(Queue.Declare, queue="q", arguments=TWO)
    client.tell(Basic.Get, queue="q")
    site.settle_down()
    answer, got = client.read()
    assert (answer.kind, got.method.message_count) == (Queue.DeclareOk, 1)

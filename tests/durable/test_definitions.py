"""Definitions over a restart: what is deleted stays deleted, however it was named."""

from __future__ import annotations

from tests.durable.site import DurableSite
from tests.protocol.client import Queue, text


def test_binding_that_is_unbound_with_its_arguments_in_another_order_does_not_come_back() -> None:
    arguments = {"a": text("1"), "b": text("2")}
    site = DurableSite()
    client = site.connect()
    client.tell(Queue.Declare, queue="q", durable=True)
    client.tell(Queue.Bind, queue="q", exchange="amq.headers", arguments=arguments)
    site.settle_down()
    site = site.crash()
    assert len(site.vhost.exchanges["amq.headers"].router) == 1
    client = site.connect()
    other_order = dict(reversed(arguments.items()))
    client.tell(Queue.Unbind, queue="q", exchange="amq.headers", arguments=other_order)
    site.settle_down()
    assert [received.kind for received in client.read()] == [Queue.UnbindOk]
    site = site.crash()
    assert len(site.vhost.exchanges["amq.headers"].router) == 0

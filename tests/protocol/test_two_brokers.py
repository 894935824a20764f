"""Two brokers in one process share nothing."""

import gc

from broker.core.users import Permission
from broker.wire.methods import Method
from tests.protocol.client import Basic, Confirm, Exchange, Queue, Site, Tx
from tests.protocol.snapshot import broker_values


def live_one(site: Site) -> None:
    """Something of everything."""
    client = site.connect(channels=2)
    client.queue("q", exclusive=False)
    client.queue("auto", auto_delete=True)
    client.ask(Exchange.Declare, exchange="x", exchange_type="topic")
    client.ask(Queue.Bind, queue="q", exchange="x", routing_key="#")
    client.ask(Basic.Qos, prefetch_count=1)
    client.consume("q")
    client.consume("amq.rabbitmq.reply-to", no_ack=True)
    client.ask(Confirm.Select)
    client.tell(Tx.Select, 2)
    for number in range(10):
        client.publish(b"%d" % number, exchange="x", key="a")
        client.publish(b"tx", channel=2, key="q")
    client.tell(Basic.Get, queue="q")
    client.publish(b"", key="nope")


def test_what_happens_in_one_is_not_seen_in_the_other() -> None:
    quiet, busy = Site(memory=1), Site()
    before = broker_values(quiet.broker)
    live_one(busy)
    busy.broker.add_user("new", b"p", permissions={"/": Permission()})
    busy.broker.add_vhost("other")
    assert broker_values(quiet.broker) == before
    assert (list(quiet.broker.users), list(quiet.broker.vhosts)) == (["guest"], ["/"])
    assert (quiet.outbox, quiet.notes) == ([], [])


def test_the_same_life_leads_to_the_same_state() -> None:
    one, two = Site(), Site()
    live_one(one)
    assert broker_values(two.broker) != broker_values(one.broker)
    live_one(two)
    assert broker_values(two.broker) == broker_values(one.broker)


def test_short_memory_of_one_does_not_stop_the_other() -> None:
    short, free = Site(memory=1), Site()
    for site in (short, free):
        client = site.connect()
        client.queue()
        client.publish(b"1")
        client.publish(b"2")
    assert short.vhost.queues["q"].messages == 1
    assert free.vhost.queues["q"].messages == 2


def test_nothing_of_a_broker_outlives_it() -> None:
    """No module keeps a connection, a queue or a message."""
    from broker.core.queue import Queue as CoreQueue
    from broker.protocol.connection import Connection

    def alive() -> int:
        gc.collect()
        return sum(isinstance(thing, CoreQueue | Connection) for thing in gc.get_objects())

    before = alive()
    site = Site()
    live_one(site)
    assert alive() > before
    del site
    assert alive() == before


def test_methods_are_not_changed_by_being_handled() -> None:
    """What one client sends cannot leak to another through shared method classes."""
    declared: list[type[Method]] = [Queue.Declare, Basic.Consume, Basic.Publish]
    before = [dict(vars(kind)) for kind in declared]
    live_one(Site())
    assert [dict(vars(kind)) for kind in declared] == before

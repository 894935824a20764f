"""A site with an alarm, where a virtual host refuses publishes instead of pausing connections."""

from __future__ import annotations

from broker.core.users import Permission
from broker.wire.methods import Method
from tests.protocol.client import Basic, Client, Confirm, Received, Site

LIMIT = 100_000


def make_site(*, memory: int = LIMIT) -> Site:
    """A site where `/` refuses and `other` does not."""
    site = Site(memory=memory)
    site.broker.nack_on_alarm = frozenset({"/", "later"})
    site.broker.add_vhost("other")
    everything = {"/": Permission(), "other": Permission()}
    site.broker.add_user("guest", b"guest", permissions=everything)
    return site


def connect(site: Site) -> Client:
    """One with the queue q; channels 1 and 2 are in confirm mode, 3 is not."""
    client = site.connect(channels=3)
    client.queue()
    client.ask(Confirm.Select)
    client.ask(Confirm.Select, 2)
    return client


def hold(site: Site) -> Client:
    """One that holds so much that there is an alarm, in ten deliveries."""
    holder = site.connect()
    holder.queue("full")
    holder.consume("full")
    for _ in range(10):
        holder.publish(b"x" * 10_000, key="full")
    assert site.broker.has_alarm()
    return holder


def free(holder: Client) -> None:
    holder.tell(Basic.Ack, delivery_tag=0, multiple=True)
    assert not holder.site.broker.has_alarm()


def answers(received: list[Received]) -> list[tuple[type[Method], int, bool]]:
    """Acks and nacks, and nothing else."""
    return [(r.kind, r.method.delivery_tag, r.method.multiple) for r in received]


def outcomes(received: list[Received]) -> dict[int, dict[int, type[Method]]]:
    """What became of each publish, by channel and tag; each is told once."""
    told: dict[int, dict[int, type[Method]]] = {}
    for item in received:
        if item.kind in (Basic.Ack, Basic.Nack):
            known = told.setdefault(item.channel, {})
            last = item.method.delivery_tag
            first = max(known, default=0) + 1 if item.method.multiple else last
            for tag in range(first, last + 1):
                assert tag not in known
                known[tag] = item.kind
    return told


def messages(site: Site) -> int:
    return site.vhost.queues["q"].messages

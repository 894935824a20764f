"""Addresses of direct reply-to: nobody guesses them, nobody binds, reads or keeps them."""

from __future__ import annotations

from base64 import urlsafe_b64decode

import pytest

from broker.core.broker import Broker
from broker.core.users import Permission
from broker.protocol.output import STALLED_FROM
from conformance.fuzz.world import World, method

from .client import Client, opened, parse, publish, world

NAME = "amq.rabbitmq.reply-to"
REPLIES = {"queue": NAME, "no_ack": True}


def asking(site: World) -> tuple[Client, str]:
    """A client that waits for replies, and its address as a server sees it."""
    client = opened(site)
    assert client.ask(1, "basic.consume", **REPLIES).name == "basic.consume-ok"
    server = opened(site)
    server.ask(1, "queue.declare", queue="requests")
    client.tell(publish("requests", b"?", {"reply_to": NAME}))
    request = server.ask(1, "basic.get", queue="requests", no_ack=True)
    address = request.method.message.properties["reply_to"]
    assert address.startswith(f"{NAME}.")
    return client, address


def test_address_holds_128_random_bits() -> None:
    asked: list[int] = []

    def random_bytes(size: int) -> bytes:
        asked.append(size)
        return bytes([len(asked)]) * size

    broker = Broker(random_bytes)
    first, second = (broker.add_reply_sink(None) for _ in range(2))  # type: ignore[arg-type]
    assert asked == [16, 16]
    assert [urlsafe_b64decode(token + "==") for token in (first, second)] == [
        b"\x01" * 16,
        b"\x02" * 16,
    ]


def test_each_channel_has_an_address_of_its_own() -> None:
    site = world()
    assert len({asking(site)[1] for _ in range(5)}) == 5


@pytest.mark.parametrize("queue", [NAME, "its address"])
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("queue.bind", {"exchange": "amq.topic", "routing_key": "#"}),
        ("queue.unbind", {"exchange": "amq.topic", "routing_key": "#"}),
        ("basic.get", {}),
        ("queue.purge", {}),
        ("basic.consume", {"consumer_tag": "t"}),
    ],
)
def test_address_cannot_be_bound_read_or_purged(
    name: str, fields: dict[str, str], queue: str
) -> None:
    site = world()
    client, address = asking(site)
    other = opened(site)
    other.error(method(1, name, queue=address if queue != NAME else NAME, **fields))
    assert not site.errors
    assert not len(site.vhost.exchanges["amq.topic"].router)
    assert opened_reply(site, client, address) == [b"!"]


def opened_reply(site: World, client: Client, address: str) -> list[bytes]:
    """What the client gets of one reply."""
    client.take()
    opened(site).tell(publish(address, b"!"))
    answers = parse(client.take())
    return [answer.method.body for answer in answers if answer.name == "basic.deliver"]


def test_address_cannot_be_deleted_by_somebody_else() -> None:
    site = world()
    client, address = asking(site)
    for queue in (NAME, address):
        opened(site).error(method(1, "queue.delete", queue=queue))
    assert opened_reply(site, client, address) == [b"!"]


@pytest.mark.parametrize(
    "guess",
    [
        *(NAME, f"{NAME}.", f"{NAME}.*", f"{NAME}.#", f"{NAME}.AAAAAAAAAAAAAAAAAAAAAA"),
        *("short", "lower", "longer", "twice"),
    ],
)
def test_reply_to_a_guessed_address_goes_nowhere(guess: str) -> None:
    site = world()
    client, address = asking(site)
    wrong = {
        "short": address[:-1],
        "lower": address.lower(),
        "longer": f"{address}A",
        "twice": f"{NAME}.{address}",
    }.get(guess, guess)
    client.take()
    [returned] = opened(site).tell(publish(wrong, b"!", mandatory=True))
    assert returned.name == "basic.return"
    assert client.take() == b""
    name, code, _ = opened(site).error(method(1, "queue.declare", queue=wrong, passive=True))
    assert (name, code) == (("running", 0) if guess == NAME else ("channel.close", 404))


@pytest.mark.parametrize("end", ["channel", "socket", "consumer"])
def test_address_ends_with_who_asked(end: str) -> None:
    site = world()
    client, address = asking(site)
    if end == "socket":
        client.leave()
    elif end == "channel":
        client.ask(1, "channel.close")
    else:
        [tag] = [channel.reply_consumer for channel in client.connection.channels.values()]
        client.ask(1, "basic.cancel", consumer_tag=tag)
    assert not site.broker.reply_sinks
    [returned] = opened(site).tell(publish(address, b"!", mandatory=True))
    assert returned.name == "basic.return"


def test_reply_needs_the_permission_to_write_to_the_default_exchange() -> None:
    site = world()
    client, address = asking(site)
    rules = {"/": Permission(configure=".*", write="^x$", read=".*")}
    site.broker.add_user("low", b"low", permissions=rules)
    other = opened(site, user=b"low")
    assert other.error(publish(address, b"!"))[:2] == ("channel.close", 403)
    assert client.take() == b""


def test_replies_to_who_does_not_read_are_dropped_above_a_bound() -> None:
    site = world()
    client, address = asking(site)
    server = opened(site)
    client.stop_reading()
    reply = publish(address, b"x" * 100_000) * 20
    waiting = []
    for _ in range(40):
        server.feed(reply)
        waiting.append(sum(map(len, client.sent)))
    assert waiting[-1] == waiting[len(waiting) // 2] <= STALLED_FROM + len(reply)
    received = client.take().count(b"x" * 100_000)
    assert 0 < received < 40 * 20
    client.go_on_reading()
    assert opened_reply(site, client, address) == [b"!"]


def test_replies_are_no_way_to_make_a_queue_or_a_message_that_stays() -> None:
    site = world()
    _, address = asking(site)
    before = (len(site.vhost.queues), site.broker.memory_used)
    other = opened(site)
    other.tell(publish(address, b"!" * 1000) * 50, publish(f"{address}x", b"!" * 1000) * 50)
    assert (len(site.vhost.queues), site.broker.memory_used) == before

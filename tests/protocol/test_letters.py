"""Dead letters that come to full queues, that must not be lost, and that are very many."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core import dead_letters, graves
from broker.wire.methods import shortstr
from broker.wire.properties import EXPIRATION, HEADERS, REPLY_TO, USER_ID
from broker.wire.table import Field, encode_table
from tests.protocol.client import Basic, Client, Exchange, Queue, Site, publish_octets, text
from tests.protocol.test_dead_letters import fetch, headers, reject
from tests.protocol.test_expiry import count, left, number
from tests.wire.contents import flags_and_octets, raw_properties
from tests.wire.profiles import examples


@pytest.fixture
def site() -> Site:
    site = Site()
    site.wait_until(5_000_000)
    return site


@pytest.fixture
def client(site: Site) -> Client:
    return site.connect(channels=2)


def letters_to(name: str) -> dict[str, Field]:
    """The arguments of a queue whose dead letters go there."""
    return {"x-dead-letter-exchange": text(""), "x-dead-letter-routing-key": text(name)}


@pytest.mark.parametrize("overflow", ["reject-publish", "reject-publish-dlx"])
def test_a_full_queue_refuses_dead_letters_too(client: Client, overflow: str) -> None:
    full = {"x-max-length": number(1), "x-overflow": text(overflow)}
    client.queue("e")
    client.queue(
        "d",
        arguments=full
        | {"x-dead-letter-exchange": text(""), "x-dead-letter-routing-key": text("e")},
    )
    client.queue(
        "q", arguments={"x-dead-letter-exchange": text(""), "x-dead-letter-routing-key": text("d")}
    )
    for body in (b"1", b"2", b"3"):
        client.publish(body)
    for _ in range(3):
        reject(client)
    assert left(client, "d") == [b"1"]
    if overflow == "reject-publish":
        assert left(client, "e") == []
        return
    table = headers(fetch(client, "e"))
    events = [(event["queue"], event["reason"]) for event in table["x-death"]]
    assert events == [(b"d", b"maxlen"), (b"q", b"rejected")]
    assert left(client, "e") == [b"3"]


def at_least_once(client: Client, **others: Field) -> None:
    """A queue that loses nothing."""
    names = {"x-dead-letter-strategy": text("at-least-once"), "x-overflow": text("reject-publish")}
    dead = {"x-dead-letter-exchange": text("dlx"), "x-dead-letter-routing-key": text("d")}
    client.queue("q", arguments=names | dead | others)


def test_what_must_not_be_lost_waits_for_a_way(site: Site, client: Client) -> None:
    at_least_once(client)
    for body in (b"1", b"2"):
        client.publish(body)
        reject(client)
    site.wait_until(5_003_000)
    assert count(client) == 0
    client.ask(Exchange.Declare, exchange="dlx", exchange_type="direct")
    site.wait_until(5_006_000)
    client.queue("d")
    client.ask(Queue.Bind, queue="d", exchange="dlx", routing_key="d")
    site.wait_until(5_008_000)
    assert left(client, "d") == [b"1", b"2"]
    assert site.broker.memory_used == 0


def test_what_must_not_be_lost_waits_for_room(site: Site, client: Client) -> None:
    at_least_once(client)
    client.ask(Exchange.Declare, exchange="dlx", exchange_type="fanout")
    client.queue("d", arguments={"x-max-length": number(1), "x-overflow": text("reject-publish")})
    client.ask(Queue.Bind, queue="d", exchange="dlx", routing_key="")
    for body in (b"1", b"2", b"3"):
        client.publish(body)
        reject(client)
    found: list[bytes] = []
    for seconds in range(1, 5):
        found += left(client, "d")
        site.wait_until(5_000_000 + seconds * 2000)
    assert found == [b"1", b"2", b"3"]


def test_what_waits_goes_with_its_queue(site: Site, client: Client) -> None:
    at_least_once(client)
    client.publish()
    reject(client)
    client.ask(Queue.Delete, queue="q")
    site.wait_until(5_010_000)
    assert site.broker.memory_used == 0


def test_deaths_without_end_keep_nobody_waiting(site: Site, client: Client) -> None:
    """Each message dies in every queue in every order: a few thousand deaths for one publish."""
    client.ask(Exchange.Declare, exchange="all", exchange_type="fanout")
    for place in range(6):
        name = f"q{place}"
        arguments = {"x-max-length": number(0), "x-dead-letter-exchange": text("all")}
        client.queue(name, arguments=arguments)
        client.ask(Queue.Bind, queue=name, exchange="all", routing_key="")
    client.publish(exchange="all", key="")
    deaths = site.broker.counters.messages_dead_lettered
    first = sum(deaths.values())
    assert 100 < first < 500
    turns = 0
    while site.broker.graves.is_busy:
        site.wait_until(site.broker.timers.now + 1)
        turns += 1
        assert sum(deaths.values()) - first <= 500
        first = sum(deaths.values())
    assert first == 1956
    assert turns > 4
    assert site.broker.memory_used == 0


def gone_at_once(site: Site, client: Client, table: bytes, body: bytes) -> int:
    """How many of 60 messages with these headers and this body go to `d` when they expire, before
    others have their turn. All go there in the end."""
    client.queue("d")
    client.queue("q", arguments=letters_to("d") | {"x-message-ttl": number(5000)})
    for _ in range(60):
        client.feed(publish_octets(body, flags=HEADERS, properties=table))
    site.wait_until(5_005_000)
    at_once = sum(site.broker.counters.messages_dead_lettered.values())
    while site.broker.graves.is_busy:
        site.wait_until(site.broker.timers.now + 1)
    assert count(client, "d") == 60
    assert site.broker.graves.lines == {}
    return at_once


def test_letters_with_large_headers_go_a_few_at_a_time(site: Site, client: Client) -> None:
    fields = {f"h{place}": Field("bool", value=True) for place in range(8000)}
    assert gone_at_once(site, client, encode_table(fields), b"") <= 8


def test_letters_with_large_bodies_go_a_few_at_a_time(
    site: Site, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graves, "CONTENT_AS_ONE", 1000)
    assert gone_at_once(site, client, encode_table({}), bytes(40_000)) <= 10


def test_small_letters_go_at_once(site: Site, client: Client) -> None:
    assert gone_at_once(site, client, encode_table({}), b"small") == 60


def said(octets: list[tuple[int, bytes]]) -> list[bytes]:
    """The header payloads of letters of messages with these properties, which expire together."""
    site = Site()
    site.wait_until(5_000_000)
    client = site.connect()
    client.queue("d")
    client.queue("q", arguments=letters_to("d") | {"x-message-ttl": number(5000)})
    for number_of, (flags, listed) in enumerate(octets):
        body = b"%d" % (number_of % 2)
        client.feed(publish_octets(body, flags=flags, properties=listed))
        site.wait_until(5_000_000 + number_of)
    site.wait_until(5_010_000)
    client.tell(Basic.Consume, queue="d", consumer_tag="c", no_ack=True)
    return [item.header for item in client.read() if item.kind is Basic.Deliver]


@examples(60)
@given(
    st.lists(
        st.tuples(raw_properties, st.sampled_from([None, 1000, 2000, 17, 4999])),
        min_size=1,
        max_size=6,
    )
)
def test_letters_of_a_first_death_say_what_all_others_do(
    chosen: list[tuple[dict[int, bytes], int | None]],
) -> None:
    messages = []
    for properties, expiration in chosen:
        others = {flag: octets for flag, octets in properties.items() if b"CC" not in octets}
        for flag in (USER_ID, REPLY_TO, EXPIRATION):
            others.pop(flag, None)
        if expiration is not None:
            others[EXPIRATION] = shortstr(str(expiration))
        in_order = dict(sorted(others.items(), reverse=True))
        # Some look alike, which are made only once.
        messages += [flags_and_octets(in_order)] * 2
    found = said(messages)
    with pytest.MonkeyPatch.context() as patch:
        # In every header: all are made as if they had further routing keys.
        patch.setattr(dead_letters, "_COPIES", (b"",))
        assert found == said(messages)
    assert len(found) == len(messages)


def named(*names: str) -> st.SearchStrategy[Field]:
    return st.sampled_from([text(name) for name in names])


deaths = st.fixed_dictionaries(
    {},
    optional={
        "count": st.sampled_from([Field("long", 3), Field("signedint", 1), text("x")]),
        "reason": named("expired", "rejected", "maxlen"),
        "queue": named("q", "d", "e", "elsewhere") | st.just(Field("binary", b"d")),
        "exchange": named("", "x"),
        "original-expiration": named("5"),
        "in": st.just(Field("table", {"queue": text("d")})),
    },
)
"""What a client may say that an event of x-death was."""
items = st.builds(Field, st.just("table"), deaths) | st.just(text("no event"))
pasts = st.fixed_dictionaries(
    {},
    optional={
        "a": named("x-death", "queue"),
        "x-death": st.builds(Field, st.just("array"), st.lists(items, max_size=4)) | named("none"),
        "x-first-death-queue": named("q", "elsewhere"),
        "x-first-death-reason": named("expired"),
        "x-last-death-exchange": named("x"),
        "z": st.just(Field("double", 1.5)),
    },
)


@examples(100)
@given(st.lists(st.tuples(pasts, st.sampled_from([None, "17", "4999"])), min_size=1, max_size=6))
def test_letters_of_a_later_death_say_what_all_others_do(
    chosen: list[tuple[dict[str, Field], str | None]],
) -> None:
    messages = []
    for past, expiration in chosen:
        properties = {HEADERS: encode_table(past)}
        if expiration is not None:
            properties[EXPIRATION] = shortstr(expiration)
        messages += [flags_and_octets(properties)] * 2
    found = said(messages)
    with pytest.MonkeyPatch.context() as patch:
        # In every header: all are decoded as if they had further routing keys.
        patch.setattr(dead_letters, "_COPIES", (b"",))
        assert found == said(messages)


def test_a_later_death_leaves_the_events_before_as_they_were(client: Client) -> None:
    """Also integers whose type RabbitMQ writes with another octet, and true that is not 1."""
    event = b"\x05queueS\0\0\0\x01x\x05countL" + bytes(8) + b"\x04donet\x07"
    items = b"F" + len(event).to_bytes(4, "big") + event
    listed = b"\x07x-deathA" + len(items).to_bytes(4, "big") + items
    client.queue("d")
    client.queue("q", arguments=letters_to("d"))
    table = len(listed).to_bytes(4, "big") + listed
    client.feed(publish_octets(b"", flags=HEADERS, properties=table))
    reject(client)
    assert fetch(client, "d").header.count(items) == 1

"""What exchanges and queues are asked to do about duplicates, by arguments and policies."""

from __future__ import annotations

import pytest

from broker.core.policies import Policy
from broker.wire.table import Field, Table
from tests.protocol.client import (
    Client,
    Exchange,
    Queue,
    Site,
    is_close,
    text,
)
from tests.protocol.deduplicating import KIND, ON, called, drain, exchange, marked, number


@pytest.fixture
def site() -> Site:
    site = Site()
    site.wait_until(1_000_000)
    return site


@pytest.fixture
def client(site: Site) -> Client:
    return site.connect(channels=2)


PLUGIN_TEXT = "Missing or invalid argument, 'x-cache-size' must be an integer greater than 0"
WRONG: dict[str, tuple[str, Table]] = {
    PLUGIN_TEXT: (KIND, {}),
    PLUGIN_TEXT + " ": (KIND, {"x-cache-size": number(0)}),
    PLUGIN_TEXT + "  ": (KIND, {"x-cache-size": text("ten")}),
    PLUGIN_TEXT + "    ": (KIND, {"x-cache-size": text("0" * 5000 + "1")}),
    PLUGIN_TEXT + "   ": ("direct", {**ON, "x-cache-size": number(-1)}),
    "Invalid argument, 'x-cache-ttl' must be an integer greater than 0": (
        KIND,
        {"x-cache-size": number(1), "x-cache-ttl": number(0)},
    ),
    "Invalid argument, 'x-cache-persistence' must be either 'disk' or 'memory'": (
        KIND,
        {"x-cache-size": number(1), "x-cache-persistence": text("ssd")},
    ),
    "Invalid argument, 'x-message-deduplication' must be a boolean": (
        "topic",
        {KIND: text("true")},
    ),
    "Invalid argument, 'x-deduplication-header' must be the name of a header": (
        "topic",
        {**ON, "x-deduplication-header": text("")},
    ),
}


@pytest.mark.parametrize("explanation", WRONG)
def test_bad_argument_of_an_exchange_is_refused(client: Client, explanation: str) -> None:
    kind, arguments = WRONG[explanation]
    answer = client.ask(Exchange.Declare, exchange="x", exchange_type=kind, arguments=arguments)
    assert is_close(answer, 406, explanation.strip(), Exchange.Declare)
    assert "x" not in client.site.vhost.exchanges


@pytest.mark.parametrize(
    ("key", "field", "wrong"),
    [
        (KIND, text("true"), "{unacceptable_type,longstr}"),
        ("x-cache-size", number(0), "{value_zero,0}"),
        ("x-cache-size", number(-1), "{value_negative,-1}"),
        ("x-cache-ttl", Field("bool", value=True), '"expected integer, got bool"'),
        ("x-cache-ttl", text("soon"), '"expected an integer greater than 0"'),
        ("x-deduplication-header", number(1), "{unacceptable_type,signedint}"),
        ("x-deduplication-header", text(""), '"a header is called by 1 to 255 octets"'),
        ("x-cache-persistence", text("ssd"), "invalid_cache_persistence"),
    ],
)
def test_bad_argument_of_a_queue_is_refused(
    client: Client, key: str, field: Field, wrong: str
) -> None:
    answer = client.ask(Queue.Declare, queue="q", arguments={**ON, key: field})
    explanation = f"invalid arg '{key}' for queue 'q' in vhost '/': {wrong}"
    assert is_close(answer, 406, explanation, Queue.Declare)


def test_size_may_be_a_text_as_in_the_plugin(client: Client) -> None:
    exchange(client, x_cache_size=text("1"), x_cache_ttl=text("500"))
    window = client.site.vhost.exchanges["x"].duplicates.window  # type: ignore[union-attr]
    assert (window.size, window.ttl) == (1, 500)


@pytest.mark.parametrize("key", ["x-cache-size", "x-cache-ttl", "x-deduplication-header"])
def test_redeclaration_with_another_argument_is_refused(client: Client, key: str) -> None:
    base: Table = {"x-cache-size": number(5)}
    other = {**base, key: text("7")}
    for declare, name in ((Exchange.Declare, "exchange"), (Queue.Declare, "queue")):
        more: dict[str, object] = {"exchange_type": KIND} if name == "exchange" else {}
        client.ask(declare, 1, **{name: "n"}, arguments=base, **more)
        client.ask(declare, 1, **{name: "n"}, arguments=base, **more)
        answer = client.ask(declare, 2, **{name: "n"}, arguments=other, **more)
        assert answer.reply_code == 406
        assert f"inequivalent arg '{key}' for {name} 'n'" in answer.reply_text
        client = client.site.connect(channels=2)


def policy(definition: dict[str, object], apply_to: str = "all") -> Policy:
    return Policy("p", ".", definition, apply_to)


@pytest.mark.parametrize("prefix", ["", "x-"])
def test_policy_switches_it_on_and_off(site: Site, client: Client, prefix: str) -> None:
    client.queue("q")
    definition: dict[str, object] = {
        f"{prefix}message-deduplication": True,
        f"{prefix}cache-size": 10,
        f"{prefix}deduplication-header": "message-id",
    }
    client.publish(b"a", **called("1"))
    site.vhost.set_policy(policy(definition))
    for body in (b"b", b"c"):
        client.publish(body, **called("1"))
    site.vhost.clear_policy("p")
    client.publish(b"d", **called("1"))
    assert drain(client) == [b"a", b"b", b"d"]
    assert site.vhost.policies.deduplicating_count == 0
    assert site.broker.memory_used == 0


def test_policy_changes_what_is_not_said_by_an_argument(site: Site, client: Client) -> None:
    exchange(client, x_cache_size=number(10))
    site.vhost.set_policy(policy({"cache-size": 1, "cache-ttl": 100}))
    found = site.vhost.exchanges["x"].duplicates
    assert found is not None
    assert (found.window.size, found.window.ttl) == (10, 100)
    client.publish(b"a", exchange="x", **marked("1"))
    site.advance(100)
    client.publish(b"b", exchange="x", **marked("1"))
    site.vhost.clear_policy("p")
    site.advance(1000)
    client.publish(b"c", exchange="x", **marked("1"))
    client.publish(b"d", exchange="x", **marked("2"))
    site.advance(100_000)
    client.publish(b"e", exchange="x", **marked("2"))
    assert drain(client) == [b"a", b"b", b"c", b"d"]

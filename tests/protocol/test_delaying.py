"""What delays: exchanges behind others, policies; and how what waits is looked after."""

from __future__ import annotations

import pytest

from broker.core.delayed import RELEASED_AT_ONCE, Waiting
from broker.core.policies import Policy
from broker.errors import AMQPError, ReplyCode
from broker.wire.properties import headers_table
from broker.wire.table import Field, Table
from tests.protocol.client import Basic, Client, Exchange, Site, Tx, is_close, text
from tests.protocol.test_dead_letters import fetch, header_of
from tests.protocol.test_delayed import NOW, bind, declare, delay, headed, listed, waiting, wired
from tests.protocol.test_expiry import count, left, number


@pytest.fixture
def site() -> Site:
    site = Site()
    site.wait_until(NOW)
    return site


@pytest.fixture
def client(site: Site) -> Client:
    return site.connect(channels=2)


def test_a_message_that_comes_through_another_exchange_is_delayed(
    site: Site, client: Client
) -> None:
    wired(client)
    client.queue("now")
    bind(client, "now", exchange="amq.fanout")
    client.ask(Exchange.Bind, source="amq.fanout", destination="x", routing_key="", arguments={})
    copies = Field("array", [text("blind")])
    client.publish(b"1", exchange="amq.fanout", key="k", **headed(x_delay=number(10), BCC=copies))
    item = fetch(client, "now")
    assert headers_table(header_of(item)) == {"x-delay": number(10)}
    assert count(client) == 0
    site.wait_until(NOW + 10)
    item = fetch(client, "q")
    assert (item.method.exchange, item.method.routing_key) == ("amq.fanout", "k")
    assert headers_table(header_of(item)) == {"x-delay": number(-10)}


def test_it_waits_once_on_its_way(site: Site, client: Client) -> None:
    declare(client)
    declare(client, "fanout", "second")
    client.queue()
    bind(client, exchange="second")
    client.ask(Exchange.Bind, source="x", destination="second", routing_key="k", arguments={})
    delay(client, b"1", 10)
    client.publish(b"2", exchange="x", key="k", **headed(x_deliver_at=Field("long", NOW + 1000)))
    assert waiting(site).send_now(2)
    assert count(client) == 1
    site.wait_until(NOW + 10)
    assert count(client) == 2


def test_an_alternate_exchange_can_delay(site: Site, client: Client) -> None:
    wired(client)
    client.ask(
        Exchange.Declare,
        exchange="plain",
        exchange_type="direct",
        arguments={"alternate-exchange": text("x")},
    )
    delay(client, b"1", 10, exchange="plain")
    assert count(client) == 0
    site.wait_until(NOW + 10)
    assert left(client) == [b"1"]


def test_a_dead_letter_can_be_delayed(site: Site, client: Client) -> None:
    wired(client)
    names = {"x-dead-letter-exchange": text("x"), "x-dead-letter-routing-key": text("k")}
    client.queue("dying", arguments=names)
    delay(client, b"1", 10, exchange="", key="dying")
    client.tell(Basic.Get, queue="dying")
    (item,) = client.read()
    client.tell(Basic.Reject, delivery_tag=item.method.delivery_tag, requeue=False)
    assert count(client) == 0
    site.wait_until(NOW + 10)
    headers = headers_table(header_of(fetch(client, "q")))
    assert headers["x-delay"] == number(-10)
    assert headers["x-first-death-queue"] == text("dying")


def test_an_exchange_delays_by_policy(site: Site, client: Client) -> None:
    client.queue()
    bind(client, exchange="amq.direct")
    policy = Policy("later", "^amq[.]direct$", {"delayed-message": True}, apply_to="exchanges")
    delay(client, b"0", 10, exchange="amq.direct")
    site.vhost.set_policy(policy)
    delay(client, b"1", 10, exchange="amq.direct")
    assert left(client) == [b"0"]
    site.vhost.clear_policy("later")
    delay(client, b"2", 10, exchange="amq.direct")
    assert left(client) == [b"2"]
    site.wait_until(NOW + 10)
    assert left(client) == [b"1"]
    assert [event for event, _ in site.notes if event == "policy_set"]


def test_an_exchange_that_does_not_delay_looks_at_no_header(site: Site, client: Client) -> None:
    wired(client)
    exchanges = site.vhost.exchanges
    assert not site.vhost.route(exchanges["x"], ["k"])[1]
    assert site.vhost.route(exchanges["amq.direct"], ["k"])[1]
    assert not site.vhost.has_delayed


def test_what_waits_goes_with_its_exchange(site: Site, client: Client) -> None:
    wired(client)
    delay(client, b"1", 10)
    client.ask(Exchange.Delete, exchange="x")
    assert site.broker.memory_used == 0
    wired(client)
    site.wait_until(NOW + 1000)
    assert count(client) == 0
    assert site.vhost.exchanges["x"].delayed is None


def test_many_that_are_due_go_out_by_and_by(site: Site, client: Client) -> None:
    wired(client)
    total = 2 * RELEASED_AT_ONCE + 1
    for place in range(total):
        delay(client, b"%d" % place, 10)
    timers = site.broker.timers
    sizes = []
    for step in range(3):
        timers.advance(NOW + 10 + step)
        site.broker.run_deliveries()
        sizes.append(waiting(site).messages_ready)
    assert sizes == [RELEASED_AT_ONCE + 1, 1, 0]
    site.collect()
    assert left(client) == [b"%d" % place for place in range(total)]


def test_what_waits_is_listed_by_id(site: Site, client: Client) -> None:
    wired(client)
    for place, milliseconds in enumerate((300, 100, 200)):
        delay(client, b"x" * place, milliseconds)
    expected = [
        Waiting(1, NOW + 300, ["k"], 0),
        Waiting(2, NOW + 100, ["k"], 1),
        Waiting(3, NOW + 200, ["k"], 2),
    ]
    assert listed(site) == expected
    assert listed(site, start=2, most=1) == expected[1:2]
    site.wait_until(NOW + 100)
    assert listed(site) == [expected[0], expected[2]]


def test_what_waits_can_be_cancelled(site: Site, client: Client) -> None:
    wired(client)
    delay(client, b"1", 10)
    delay(client, b"2", 10)
    store = waiting(site)
    assert store.cancel(1)
    assert not store.cancel(1)
    assert not store.cancel(3)
    site.wait_until(NOW + 10)
    assert left(client) == [b"2"]
    assert not store.cancel(2)
    assert site.broker.memory_used == 0


def test_what_waits_can_be_sent_now(site: Site, client: Client) -> None:
    wired(client)
    client.consume(no_ack=True)
    delay(client, b"1", 10)
    delay(client, b"2", 10)
    store = waiting(site)
    assert store.send_now(2)
    assert not store.send_now(2)
    site.broker.run_deliveries()
    site.collect()
    assert client.bodies() == [b"2"]
    site.wait_until(NOW + 10)
    assert client.bodies() == [b"1"]
    assert not store.send_now(1)


def test_a_queue_that_refuses_takes_what_was_delayed(site: Site, client: Client) -> None:
    """There is nobody left to refuse it to."""
    declare(client)
    client.queue(arguments={"x-max-length": number(1), "x-overflow": text("reject-publish")})
    bind(client)
    delay(client, b"1", 10)
    client.publish(b"2", exchange="x", key="k")
    site.wait_until(NOW + 10)
    assert left(client) == [b"2", b"1"]


def test_a_bad_policy_value_is_refused(site: Site) -> None:
    with pytest.raises(ValueError, match="delayed-message"):
        site.vhost.set_policy(Policy("p", ".*", {"delayed-message": "yes"}))


def test_a_delayed_exchange_is_declared_again_with_any_type_behind_it(client: Client) -> None:
    """RabbitMQ's plugin compares the alternate exchange alone."""
    declare(client)
    declare(client, "fanout")
    with pytest.raises(AMQPError) as refused:
        client.site.vhost.declare_exchange("x", "direct")
    assert refused.value.code is ReplyCode.PRECONDITION_FAILED


@pytest.mark.parametrize(
    ("arguments", "explanation"),
    [
        ({}, "Invalid argument, 'x-delayed-type' must be an existing exchange type"),
        (
            {"x-delayed-type": number(1)},
            "Invalid argument, 'x-delayed-type' must be an existing exchange type",
        ),
        (
            {"x-delayed-type": text("x-delayed-message")},
            "Invalid argument, 'x-delayed-message' can't be used for 'x-delayed-type'",
        ),
    ],
)
def test_a_bad_delayed_type_is_refused(client: Client, arguments: Table, explanation: str) -> None:
    answer = client.ask(
        Exchange.Declare, exchange="x", exchange_type="x-delayed-message", arguments=arguments
    )
    assert is_close(answer, 406, explanation, Exchange.Declare)


def test_an_unknown_delayed_type_closes_the_connection(client: Client) -> None:
    answer = client.ask(
        Exchange.Declare,
        exchange="x",
        exchange_type="x-delayed-message",
        arguments={"x-delayed-type": text("x-none")},
    )
    assert is_close(answer, 503, "unknown exchange type 'x-none'", Exchange.Declare)


def test_the_arguments_of_the_type_behind_it_are_checked(client: Client) -> None:
    answer = client.ask(
        Exchange.Declare,
        exchange="x",
        exchange_type="x-delayed-message",
        arguments={
            "x-delayed-type": text("x-consistent-hash"),
            "hash-header": text("a"),
            "hash-property": text("message_id"),
        },
    )
    assert answer.reply_code == 406


def test_only_queues_can_be_bound_where_the_type_behind_it_says_so(client: Client) -> None:
    declare(client, "x-local-random")
    answer = client.ask(
        Exchange.Bind, source="x", destination="amq.fanout", routing_key="", arguments={}
    )
    assert is_close(answer, 406, "Destination not found", Exchange.Bind)


def test_a_delay_in_a_transaction_counts_from_its_commit(site: Site, client: Client) -> None:
    wired(client)
    client.ask(Tx.Select)
    delay(client, b"1", 10)
    copies = Field("array", [text("other")])
    client.publish(b"2", exchange="x", key="k", **headed(x_delay=number(10), CC=copies))
    site.wait_until(NOW + 100)
    client.ask(Tx.Commit)
    site.wait_until(NOW + 109)
    assert count(client) == 0
    site.wait_until(NOW + 110)
    assert left(client) == [b"1", b"2"]
    assert site.broker.memory_used == 0

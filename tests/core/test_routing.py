"""The way of a message through a virtual host: exchanges behind exchanges, alternates, headers."""

import pytest

from broker.core.vhost import VHost
from broker.wire.table import Field, Table
from tests.core.fakes import header_with, make_vhost


@pytest.fixture
def vhost() -> VHost:
    return make_vhost()


def text(value: str) -> Field:
    return Field("longstr", value)


def routed(vhost: VHost, exchange: str, key: str = "", headers: Table | None = None) -> list[str]:
    queues, _ = vhost.route(vhost.get_exchange(exchange), [key], header_with(headers or {}))
    return [queue.name for queue in queues]


def test_default_exchange_leads_to_the_queue_of_that_name(vhost: VHost) -> None:
    vhost.declare_queue("q")
    assert routed(vhost, "", "q") == ["q"]
    assert routed(vhost, "", "nope") == []


def test_queue_gets_one_copy_however_many_ways_lead_to_it(vhost: VHost) -> None:
    queue = vhost.declare_queue("q")
    fanout, topic = vhost.get_exchange("amq.fanout"), vhost.get_exchange("amq.topic")
    for key in ("a", "#", "*"):
        vhost.bind(topic, queue, key, {})
    vhost.bind(topic, fanout, "a", {})
    vhost.bind(fanout, queue, "", {})
    assert routed(vhost, "amq.topic", "a") == ["q"]
    queues, _ = vhost.route(topic, ["a", "b", "a"])
    assert queues == [queue]


def test_cycle_of_exchanges_ends(vhost: VHost) -> None:
    a, b = (vhost.declare_exchange(name, "fanout") for name in "ab")
    vhost.bind(a, b, "", {})
    vhost.bind(b, a, "", {})
    vhost.bind(a, a, "", {})
    vhost.bind(b, vhost.declare_queue("q"), "", {})
    assert routed(vhost, "a") == routed(vhost, "b") == ["q"]


def test_alternate_exchange_gets_what_nobody_wanted(vhost: VHost) -> None:
    arguments = {"alternate-exchange": text("alt")}
    vhost.declare_exchange("x", "direct", arguments=arguments)
    vhost.bind(vhost.get_exchange("x"), vhost.declare_queue("q"), "k", {})
    assert routed(vhost, "x", "other") == []
    vhost.declare_exchange("alt", "fanout")
    vhost.bind(vhost.get_exchange("alt"), vhost.declare_queue("rest"), "", {})
    assert routed(vhost, "x", "k") == ["q"]
    assert routed(vhost, "x", "other") == ["rest"]


def test_alternate_exchanges_in_a_ring_end(vhost: VHost) -> None:
    for name, other in (("a", "b"), ("b", "a"), ("self", "self")):
        vhost.declare_exchange(name, "direct", arguments={"alternate-exchange": text(other)})
    assert routed(vhost, "a", "k") == routed(vhost, "self", "k") == []
    vhost.bind(vhost.get_exchange("b"), vhost.declare_queue("q"), "k", {})
    assert routed(vhost, "a", "k") == ["q"]


def test_alternate_of_an_exchange_behind_another_is_asked(vhost: VHost) -> None:
    vhost.declare_exchange("inner", "direct", arguments={"alternate-exchange": text("alt")})
    vhost.declare_exchange("alt", "fanout")
    vhost.bind(vhost.get_exchange("amq.fanout"), vhost.get_exchange("inner"), "", {})
    vhost.bind(vhost.get_exchange("alt"), vhost.declare_queue("rest"), "", {})
    assert routed(vhost, "amq.fanout", "k") == ["rest"]


def test_route_that_depends_on_headers_is_not_fixed(vhost: VHost) -> None:
    headers, fanout = vhost.get_exchange("amq.headers"), vhost.get_exchange("amq.fanout")
    assert vhost.route(fanout, ["k"])[1]
    assert not vhost.route(headers, ["k"])[1]
    vhost.bind(fanout, headers, "", {})
    assert not vhost.route(fanout, ["k"])[1]


def test_headers_are_compared_by_value(vhost: VHost) -> None:
    exchange = vhost.get_exchange("amq.headers")
    for name, field in (("n", Field("byte", 5)), ("t", Field("timestamp", 5)), ("s", text("é"))):
        vhost.bind(exchange, vhost.declare_queue(name), "", {name: field})
    vhost.bind(exchange, vhost.declare_queue("any"), "", {"n": Field("void", None)})
    assert routed(vhost, "amq.headers", headers={"n": Field("long", 5)}) == ["n", "any"]
    assert routed(vhost, "amq.headers", headers={"n": text("5")}) == ["any"]
    assert routed(vhost, "amq.headers", headers={"n": Field("bool", value=True)}) == ["any"]
    assert routed(vhost, "amq.headers", headers={"t": Field("long", 5)}) == ["t"]
    assert routed(vhost, "amq.headers", headers={"s": Field("binary", "é".encode())}) == ["s"]
    assert routed(vhost, "amq.headers") == []

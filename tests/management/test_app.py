"""The pages, without a socket."""

import asyncio
from email.utils import parsedate_to_datetime

import httpx
import pytest
from pamqp import commands

from broker.core.broker import Broker, Limits
from broker.management import metrics
from broker.management.app import HEADERS, make_app
from broker.management.facts import NodeFacts
from tests.management.client import Client, make_broker
from tests.management.exposition import value


def request(
    path: str, method: str = "GET", *, broker: Broker | None = None, is_stopping: bool = False
) -> httpx.Response:
    """The response of the application of a broker."""
    facts = NodeFacts("leveret@host", lambda: 0, is_stopping=lambda: is_stopping)
    transport = httpx.ASGITransport(make_app(broker or make_broker(), facts))

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://broker") as client:
            return await client.request(method, path)

    return asyncio.run(ask())


@pytest.mark.parametrize("path", ["/metrics", "/metrics/", "/metrics?a=b"])
def test_metrics_are_plain_text(path: str) -> None:
    broker = make_broker()
    Client(broker).send(1, commands.Queue.Declare(queue="q"))
    response = request(path, broker=broker)
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert value(response.text, "rabbitmq_queues") == 1


def test_per_object_metrics_name_the_queues() -> None:
    broker = make_broker()
    Client(broker).send(1, commands.Queue.Declare(queue="q"))
    response = request("/metrics/per-object", broker=broker)
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    labels = {"vhost": "/", "queue": "q"}
    assert value(response.text, "rabbitmq_queue_messages_ready", labels) == 0


@pytest.mark.parametrize("path", ["/metrics/nothing", "/metrics/per-object/", "/metrics/a/b"])
def test_unknown_page_of_metrics_is_answered_as_rabbitmq_does(path: str) -> None:
    response = request(path)
    assert (response.status_code, response.text) == (404, "Unknown Registry")
    assert response.headers["content-type"].startswith("text/plain")


def test_healthy_broker_answers_200() -> None:
    response = request("/health")
    assert response.status_code == 200
    assert response.json() == {"status": "ok", "alarms": []}


def test_memory_alarm_is_shown_but_the_broker_stays_healthy() -> None:
    broker = make_broker(Limits(memory=1000))
    client = Client(broker)
    client.send(1, commands.Queue.Declare(queue="q"))
    client.publish("q", b"x" * 1000)
    response = request("/health", broker=broker)
    assert response.status_code == 200
    assert response.json() == {"status": "ok", "alarms": ["memory"]}


def test_stopping_broker_answers_503_with_the_reason() -> None:
    response = request("/health", is_stopping=True)
    assert (response.status_code, response.json()) == (503, {"status": "stopping"})


@pytest.mark.parametrize("path", ["/", "/health/", "/api/overview", "/index.html", "/metrics%00"])
def test_there_are_no_other_pages_and_no_redirects(path: str) -> None:
    response = request(path)
    assert response.status_code == 404
    assert "location" not in response.headers


@pytest.mark.parametrize("path", ["/metrics", "/metrics/per-object", "/metrics/x", "/health"])
def test_only_get_and_head_are_allowed(path: str) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "X"):
        response = request(path, method)
        assert response.status_code == 405, method
        assert set(response.headers["allow"].split(", ")) == {"GET", "HEAD"}
    assert request(path, "HEAD").status_code == request(path).status_code


@pytest.mark.parametrize(
    ("path", "method"),
    [("/metrics", "GET"), ("/metrics/per-object", "GET"), ("/metrics/x", "GET"),
     ("/health", "GET"), ("/", "GET"), ("/health", "POST")],
)  # fmt: skip
def test_every_response_has_the_security_headers(path: str, method: str) -> None:
    headers = request(path, method).headers
    assert {name: headers[name] for name in HEADERS} == HEADERS
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert parsedate_to_datetime(headers["date"]) is not None


def test_scrapes_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = make_broker()
    app = make_app(broker, NodeFacts("leveret@host", lambda: 0))
    running: list[str] = []
    count = metrics.Metrics._count

    async def counted(self: metrics.Metrics) -> object:
        running.append("begins")
        await asyncio.sleep(0)
        totals = await count(self)
        running.append("ends")
        return totals

    monkeypatch.setattr(metrics.Metrics, "_count", counted)

    async def ask(path: str) -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://broker") as client:
            await asyncio.gather(*[client.get(path) for _ in range(3)])

    for path in ("/metrics", "/metrics/per-object"):
        running.clear()
        asyncio.run(ask(path))
        assert running == ["begins", "ends"] * 3

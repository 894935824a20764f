"""The pages of the HTTP port."""

from __future__ import annotations

import asyncio
from email.utils import formatdate

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broker.core.broker import Broker
from broker.management.facts import NodeFacts
from broker.management.metrics import CONTENT_TYPE, Metrics

HEADERS = {
    # What a client named its queue is no page of ours: nothing here is to be run or framed.
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
"""Headers of every response."""


def make_app(broker: Broker, facts: NodeFacts) -> ASGIApp:
    """The ASGI application of one broker: `/metrics`, `/metrics/per-object` and `/health`."""
    metrics = Metrics(broker, facts)
    # Scrapes of a kind take turns, so that many at once cost clients no more than one. The long
    # page has its own line: who reads it slowly does not hold up the short one.
    turn, long_turn = asyncio.Lock(), asyncio.Lock()

    async def aggregated(_: Request) -> Response:
        async with turn:
            return Response(await metrics.aggregated(), headers={"content-type": CONTENT_TYPE})

    async def per_object(_: Request) -> Response:
        return _PerObject(metrics, long_turn)

    async def unknown_registry(_: Request) -> Response:
        return PlainTextResponse("Unknown Registry", 404)

    async def health(_: Request) -> Response:
        if facts.is_stopping():
            return JSONResponse({"status": "stopping"}, 503)
        return JSONResponse({"status": "ok", "alarms": broker.alarms()})

    routes = [
        Route("/health", health),
        Route("/metrics", aggregated),
        Route("/metrics/", aggregated),
        Route("/metrics/per-object", per_object),
        Route("/metrics/{registry:path}", unknown_registry),
    ]
    app = Starlette(routes=routes)
    # A redirect would send clients to whatever host they named.
    app.router.redirect_slashes = False
    return _WithHeaders(app)


class _PerObject(StreamingResponse):
    """The long page, written as fast as it is read; others wait for their turn until its end."""

    def __init__(self, metrics: Metrics, turn: asyncio.Lock) -> None:
        super().__init__(metrics.per_object(), headers={"content-type": CONTENT_TYPE})
        self._turn = turn

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._turn:
            await super().__call__(scope, receive, send)


class _WithHeaders:
    """Adds HEADERS and the date to every response of `app`, its errors included."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers["date"] = formatdate(usegmt=True)
            await send(message)

        await self.app(scope, receive, send_with_headers)

"""The HTTP port, in the event loop of the broker.

Theory of operation. uvicorn's `Server` wants the process: it takes the signals, wakes up ten times
a second, and exits when a port is taken. What is needed of it is one object for each connection,
its h11 protocol, and asyncio listens. Nobody logs in here, so each connection gets little: a few
seconds for each request, small headers, and when there are too many, the oldest has to go.

This module imports nothing heavy: AMQP clients are served while a thread imports the rest.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from broker.core.broker import Broker
from broker.management.facts import NodeFacts

if TYPE_CHECKING:
    from types import ModuleType

    from broker.management.http_connection import HttpState

STOP_S = 1.0
"""Seconds that responses under way get when the server stops."""
_BACKLOG = 64


async def start_http(broker: Broker, host: str, port: int, facts: NodeFacts) -> HttpServer:
    """Serves the pages of `broker.management.app` on this address; port 0 takes a free one.

    Raises OSError, with one line that says what could not be done and why.
    """
    try:
        await asyncio.to_thread(_import_connections)
    except (OSError, ImportError) as error:
        raise OSError(f"cannot load the HTTP server: {error}") from None
    from broker.management.http_connection import HttpState, connections  # noqa: PLC0415  # heavy

    state = HttpState()
    try:
        listener = await asyncio.get_running_loop().create_server(
            connections(broker, facts, state), host, port, backlog=_BACKLOG
        )
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OSError(f"cannot listen for HTTP on {host} port {port}: {reason}") from None
    return HttpServer(listener, state)


def _import_connections() -> ModuleType:
    """Imports starlette, uvicorn and prometheus_client: a fifth of a second."""
    from broker.management import http_connection  # noqa: PLC0415  # heavy

    return http_connection


class HttpServer:
    """A listening HTTP port."""

    def __init__(self, listener: asyncio.Server, state: HttpState) -> None:
        self._listener = listener
        self._state = state
        self.port: int = listener.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stops listening, lets responses under way end within STOP_S, and closes the rest."""
        self._listener.close()
        for connection in list(self._state.order):
            connection.shutdown()
        await self._end_of_tasks()
        # Who still reads, or sends its request, is cut off; its task notices.
        if self._state.order:
            self._state.all_lost.clear()
            for connection in list(self._state.order):
                connection.transport.abort()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._state.all_lost.wait(), STOP_S)
        await self._end_of_tasks()
        tasks = list(self._state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._listener.wait_closed()

    async def _end_of_tasks(self) -> None:
        if self._state.tasks:
            await asyncio.wait(self._state.tasks, timeout=STOP_S)

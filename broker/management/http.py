"""The HTTP port, in the event loop of the broker.

Theory of operation. uvicorn's `Server` wants the process: it takes the signals, wakes up ten times
a second, and exits when a port is taken. What is needed of it is one object for each connection,
its h11 protocol, and asyncio listens. Nobody logs in here, so each connection gets little: a few
seconds for each request, small headers, and when there are too many, the oldest has to go.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

from broker.core.broker import Broker
from broker.management.app import make_app
from broker.management.facts import NodeFacts

CONNECTIONS_MAX = 32
"""HTTP connections at a time. The server keeps 64 file descriptors free of AMQP clients."""
REQUEST_S = 30.0
"""Seconds from a connection's start, or its last response, to the end of the next response.
Prometheus gives up after 10."""
IDLE_S = 5
"""Seconds an open connection may be silent after a response."""
HEADER_SIZE_MAX = 16_384
"""Octets of a request's line and headers."""
STOP_S = 1.0
"""Seconds that responses under way get when the server stops."""
_BACKLOG = 64


async def start_http(broker: Broker, host: str, port: int, facts: NodeFacts) -> HttpServer:
    """Serves the pages of `broker.management.app` on this address; port 0 takes a free one.

    Raises OSError, with one line that says what could not be listened on and why.
    """
    loop = asyncio.get_running_loop()
    config = Config(
        make_app(broker, facts),
        interface="asgi3",
        ws="none",
        lifespan="off",
        log_config=None,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=IDLE_S,
        h11_max_incomplete_event_size=HEADER_SIZE_MAX,
    )
    config.load()
    state = _State()
    try:
        listener = await loop.create_server(
            lambda: _Connection(config, state, {}, loop), host, port, backlog=_BACKLOG
        )
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OSError(f"cannot listen for HTTP on {host} port {port}: {reason}") from None
    return HttpServer(listener, state)


class HttpServer:
    """A listening HTTP port."""

    def __init__(self, listener: asyncio.Server, state: _State) -> None:
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


class _State(ServerState):
    """What the connections of one server share."""

    def __init__(self) -> None:
        super().__init__()
        # Open connections, the oldest first.
        self.order: dict[_Connection, None] = {}
        self.all_lost = asyncio.Event()


class _Connection(H11Protocol):
    """One HTTP connection, with the limits of this module."""

    server_state: _State

    def __init__(
        self,
        config: Config,
        server_state: _State,
        app_state: dict[str, Any],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(config, server_state, app_state, loop)
        # uvicorn's setting for it would change logging for the whole process.
        self.access_log = False
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected; asyncio calls it."""
        super().connection_made(transport)
        order = self.server_state.order
        if len(order) >= CONNECTIONS_MAX:
            # Whoever comes next may be Prometheus; whoever has been here for long is not.
            oldest = next((each for each in order if each.is_idle), next(iter(order)))
            del order[oldest]
            oldest.transport.abort()
        order[self] = None
        self._start_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone; asyncio calls it."""
        self.end_deadline()
        state = self.server_state
        state.order.pop(self, None)
        if not state.order:
            state.all_lost.set()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """A response has ended; uvicorn calls it."""
        self._start_deadline()
        super().on_response_complete()

    @property
    def is_idle(self) -> bool:
        """Whether no response is under way."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete

    def _start_deadline(self) -> None:
        self.end_deadline()
        self._deadline = self.loop.call_later(REQUEST_S, self.transport.abort)

    def end_deadline(self) -> None:
        """The connection may take its time, or is gone."""
        if self._deadline is not None:
            self._deadline.cancel()

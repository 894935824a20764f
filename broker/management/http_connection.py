"""The connections of the HTTP port: uvicorn's, with limits on what each may cost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
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


class HttpState(ServerState):
    """What the connections of one server share."""

    def __init__(self) -> None:
        super().__init__()
        # Open connections, the oldest first.
        self.order: dict[HttpConnection, None] = {}
        self.all_lost = asyncio.Event()


class HttpConnection(H11Protocol):
    """One HTTP connection, with the limits of this module."""

    server_state: HttpState

    def __init__(
        self,
        config: Config,
        server_state: HttpState,
        app_state: dict[str, Any],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(config, server_state, app_state, loop)
        # uvicorn's setting for it would change logging for the whole process.
        self.access_log = False
        self._deadline: asyncio.TimerHandle | None = None

    # asyncio declares a transport of any kind; uvicorn's class, and so this one, wants a stream's.
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


def connections(
    broker: Broker, facts: NodeFacts, state: HttpState
) -> Callable[[], asyncio.Protocol]:
    """What makes the connections that serve the pages of this broker, for `create_server`."""
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
    return lambda: HttpConnection(config, state, {}, loop)

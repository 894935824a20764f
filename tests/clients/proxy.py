"""A TCP proxy in front of the broker, to break connections on demand."""

import asyncio
from types import TracebackType
from typing import Self


class Proxy:
    """Passes bytes both ways between a port of its own and the broker until it is told to cut."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._pumps: set[asyncio.Task[None]] = set()
        self._transports: set[asyncio.WriteTransport] = set()
        self.accepted = 0
        """Connections accepted so far."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.close()
        self.cut()
        await asyncio.gather(*self._pumps)
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        """The broker's URL through the proxy."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def cut(self) -> None:
        """Break every connection, towards the client and towards the broker, as a crash does."""
        for transport in self._transports:
            transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        broker_reader, broker_writer = await asyncio.open_connection(*self._target)
        for source, sink in ((reader, broker_writer), (broker_reader, writer)):
            self._transports.add(sink.transport)
            pump = asyncio.create_task(self._pump(source, sink))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while chunk := await source.read(65536):
                sink.write(chunk)
                await sink.drain()
        except ConnectionError:
            pass  # One side is gone: closing the other below is all there is to do.
        finally:
            self._transports.discard(sink.transport)
            sink.close()

"""The HTTP port: real sockets, in the event loop of the test."""

import asyncio
import logging
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import uvloop

from broker.core.broker import Broker
from broker.management import http, http_connection
from broker.management.facts import NodeFacts
from broker.management.http import HttpServer, start_http
from broker.management.http_connection import CONNECTIONS_MAX, HEADER_SIZE_MAX
from tests.management.client import make_broker
from tests.management.exposition import value

FACTS = NodeFacts("leveret@host", lambda: 0)
GET = b"GET %s HTTP/1.1\r\nHost: broker\r\n\r\n"
GET_ONCE = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
Loop = Callable[[], asyncio.AbstractEventLoop]
LOOPS: list[Loop] = [asyncio.new_event_loop, uvloop.new_event_loop]


def run(main: Coroutine[Any, Any, None], loop: Loop = asyncio.new_event_loop) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main)


@asynccontextmanager
async def serving(broker: Broker | None = None, port: int = 0) -> AsyncIterator[HttpServer]:
    """A server that has stopped at the end, however that comes."""
    server = await start_http(broker or make_broker(), "127.0.0.1", port, FACTS)
    try:
        yield server
    finally:
        await server.stop()


async def serve_clients(turns: list[None]) -> None:
    """A loop that always has something else to do."""
    while True:
        turns.append(None)
        await asyncio.sleep(0)


class Peer:
    """One HTTP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connected(cls, server: HttpServer) -> "Peer":
        return cls(*await asyncio.open_connection("127.0.0.1", server.port))

    async def ask(self, path: bytes) -> tuple[int, bytes]:
        """Status and body of a response that has a length."""
        self.writer.write(GET % path)
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
        body = await self.reader.readexactly(int(fields["content-length"]))
        return int(head.split()[1]), body

    async def rest(self) -> bytes:
        """Everything until the server closes or resets the connection."""
        received = b""
        try:
            while chunk := await self.reader.read(65536):
                received += chunk
        except ConnectionError:
            pass
        self.writer.close()
        return received


@pytest.mark.parametrize("loop", LOOPS)
def test_pages_are_served_beside_a_busy_loop(loop: Loop) -> None:
    async def main() -> None:
        turns: list[None] = []
        clients = asyncio.create_task(serve_clients(turns))
        async with serving() as server:
            peer = await Peer.connected(server)
            assert await peer.ask(b"/health") == (200, b'{"status":"ok","alarms":[]}')
            status, body = await peer.ask(b"/metrics")
            assert status == 200
            assert value(body.decode(), "rabbitmq_connections") == 0
        assert await peer.rest() == b""
        assert len(turns) >= 5
        clients.cancel()

    run(main(), loop)


def test_long_page_comes_whole() -> None:
    async def main() -> None:
        broker = make_broker()
        for number in range(3000):
            broker.vhosts["/"].declare_queue(f"queue-{number}")
        async with serving(broker) as server:
            peer = await Peer.connected(server)
            peer.writer.write(GET_ONCE % b"/metrics/per-object")
            received = await peer.rest()
        assert received.startswith(b"HTTP/1.1 200")
        assert received.endswith(b"0\r\n\r\n")
        assert received.count(b'rabbitmq_queue_messages{queue="queue-') == 3000

    run(main())


def test_head_has_no_body() -> None:
    async def main() -> None:
        async with serving() as server:
            peer = await Peer.connected(server)
            peer.writer.write((GET % b"/health").replace(b"GET", b"HEAD"))
            head = await peer.reader.readuntil(b"\r\n\r\n")
            assert b"content-length: 27\r\n" in head
            # What comes next is the next response.
            assert (await peer.ask(b"/health"))[0] == 200
        assert await peer.rest() == b""

    run(main())


@pytest.mark.parametrize("loop", LOOPS)
def test_taken_port_is_an_oserror_of_one_line(loop: Loop) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(OSError, match="cannot listen for HTTP on ") as raised:
                await start_http(make_broker(), "127.0.0.1", port, FACTS)
        text = str(raised.value)
        assert f"127.0.0.1 port {port}: " in text
        assert "in use" in text
        assert "\n" not in text

    run(main(), loop)


@pytest.mark.parametrize(("host", "port"), [("no-such-host.invalid", 0), ("127.0.0.1", 70000)])
def test_address_that_is_none_is_an_oserror_of_one_line(host: str, port: int) -> None:
    async def main() -> None:
        with pytest.raises(OSError, match=f"^cannot listen for HTTP on {host} port {port}: .+"):
            await start_http(make_broker(), host, port, FACTS)

    run(main())


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), ImportError("no module")])
def test_http_that_cannot_be_loaded_is_an_oserror_of_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(http, "_import_connections", fail)

    async def main() -> None:
        with pytest.raises(OSError, match=f"^cannot load the HTTP server: .*{error.args[-1]}$"):
            await start_http(make_broker(), "127.0.0.1", 0, FACTS)

    run(main())


@pytest.mark.parametrize("loop", LOOPS)
def test_port_is_free_again_after_stop(loop: Loop) -> None:
    async def main() -> None:
        async with serving() as first:
            peer = await Peer.connected(first)
            await peer.ask(b"/health")
        async with serving(port=first.port) as second:
            assert second.port == first.port
        assert await peer.rest() == b""

    run(main(), loop)


def test_signals_and_logging_stay_as_they_were(caplog: pytest.LogCaptureFixture) -> None:
    def state() -> object:
        names = ["", "uvicorn", "uvicorn.error", "uvicorn.access"]
        loggers = [logging.getLogger(name) for name in names]
        return (
            [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
            [(each.level, each.propagate, list(each.handlers)) for each in loggers],
        )

    async def main() -> None:
        before = state()
        async with serving() as server:
            peer = await Peer.connected(server)
            assert (await peer.ask(b"/metrics"))[0] == 200
            assert state() == before
        assert await peer.rest() == b""
        assert state() == before

    with caplog.at_level(logging.DEBUG):
        run(main())
    assert [record for record in caplog.records if record.name.startswith("uvicorn")] == []


def test_two_servers_in_one_loop_serve_their_own_brokers() -> None:
    async def main() -> None:
        one, other = make_broker(), make_broker()
        other.vhosts["/"].declare_queue("q")
        async with serving(one) as first, serving(other) as second:
            for server, queues in ((first, 0), (second, 1)):
                peer = await Peer.connected(server)
                _, body = await peer.ask(b"/metrics")
                assert value(body.decode(), "rabbitmq_queues") == queues
                peer.writer.close()

    run(main())


@pytest.mark.parametrize("loop", LOOPS)
def test_flood_of_silent_connections_does_not_keep_others_out(loop: Loop) -> None:
    async def main() -> None:
        async with serving() as server:
            silent = [await Peer.connected(server) for _ in range(CONNECTIONS_MAX + 5)]
            peer = await Peer.connected(server)
            assert (await peer.ask(b"/health"))[0] == 200
            # The oldest had to go.
            for each in silent[:6]:
                assert await each.rest() == b""
            assert len(server._state.order) == CONNECTIONS_MAX
        for each in (peer, *silent[6:]):
            assert await each.rest() == b""
        assert server._state.order == {}

    run(main(), loop)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("sent", [b"", b"GET /metrics HTTP/1.1\r\nHost:"], ids=["silent", "slow"])
def test_connection_without_a_whole_request_is_closed_in_time(
    sent: bytes, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_connection, "REQUEST_S", 0.05)

    async def main() -> None:
        async with serving() as server:
            peer = await Peer.connected(server)
            peer.writer.write(sent)
            assert await peer.rest() == b""

    run(main(), loop)


def calling(*functions: Callable[[], None]) -> Callable[[], None]:
    """One function that calls all."""

    def call() -> None:
        for function in functions:
            function()

    return call


@pytest.mark.parametrize("loop", LOOPS)
def test_client_that_does_not_read_the_long_page_is_cut_off(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_connection, "REQUEST_S", 0.3)

    async def main() -> None:
        broker = make_broker()
        for number in range(1000):
            broker.vhosts["/"].declare_queue(f"{number}".rjust(255, "q"))
        async with serving(broker) as server:
            deaf, patient = await Peer.connected(server), await Peer.connected(server)
            # What they have asked for shows that both are there.
            for each in (deaf, patient):
                assert (await each.ask(b"/health"))[0] == 200
            first, second = server._state.order
            # The system's buffers are to hold only a part of the page, and nobody reads it.
            sender = first.transport.get_extra_info("socket")
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            transport = cast(asyncio.Transport, deaf.writer.transport)
            transport.pause_reading()
            paused = asyncio.Event()
            monkeypatch.setattr(first, "pause_writing", calling(first.pause_writing, paused.set))
            deaf.writer.write(GET % b"/metrics/per-object")
            await paused.wait()
            # It is the other's turn when the first is gone.
            second.end_deadline()
            patient.writer.write(GET_ONCE % b"/metrics/per-object")
            assert (await patient.rest()).endswith(b"0\r\n\r\n")
            assert first not in server._state.order
            transport.resume_reading()
            assert not (await deaf.rest()).endswith(b"0\r\n\r\n")

    run(main(), loop)


@pytest.mark.parametrize(
    "octets",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * HEADER_SIZE_MAX,
        b"GET /" + b"x" * (HEADER_SIZE_MAX + 1),
        b"AMQP\x00\x00\x09\x01" + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\n\r\n",
    ],
    ids=["long header", "long line", "AMQP", "TLS", "no host"],
)
def test_what_is_no_request_is_answered_with_400(octets: bytes) -> None:
    async def main() -> None:
        async with serving() as server:
            peer = await Peer.connected(server)
            peer.writer.write(octets)
            assert (await peer.rest()).startswith(b"HTTP/1.1 400 ")
            peer = await Peer.connected(server)
            assert (await peer.ask(b"/health"))[0] == 200
        assert await peer.rest() == b""

    run(main())


def test_upgrade_to_a_websocket_is_not_done() -> None:
    async def main() -> None:
        async with serving() as server:
            peer = await Peer.connected(server)
            upgrade = b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
            peer.writer.write((GET % b"/metrics").replace(b"\r\n\r\n", upgrade))
            assert (await peer.reader.readline()).startswith(b"HTTP/1.1 200 ")
        await peer.rest()

    run(main())


@pytest.mark.parametrize("ends", [True, False])
def test_stop_waits_a_while_for_a_response_under_way(
    ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "STOP_S", 20.0 if ends else 0.05)

    async def main() -> None:
        begun, end = asyncio.Event(), asyncio.Event()

        async def aggregated(_: object) -> bytes:
            begun.set()
            await end.wait()
            return b"done"

        monkeypatch.setattr("broker.management.app.Metrics.aggregated", aggregated)
        async with serving() as server:
            peer = await Peer.connected(server)
            peer.writer.write(GET % b"/metrics")
            await begun.wait()
            if ends:
                asyncio.get_running_loop().call_soon(end.set)
        received = await peer.rest()
        assert received.endswith(b"\r\n\r\ndone") if ends else received == b""
        assert server._state.tasks == set()

    run(main())


def test_clients_are_served_while_the_imports_are_made() -> None:
    program = """
import asyncio, os, sys
sys.setswitchinterval(1e-4)
from broker.core.broker import Broker
from broker.management.facts import NodeFacts
from broker.management.http import start_http

assert not {"starlette", "uvicorn", "prometheus_client"} & set(sys.modules)

async def serve_clients(turns):
    while "uvicorn.protocols.http.h11_impl" not in sys.modules:
        turns.append(None)
        await asyncio.sleep(0)

async def main():
    turns = []
    clients = asyncio.create_task(serve_clients(turns))
    facts = NodeFacts("leveret@host", lambda: 0)
    server = await start_http(Broker(os.urandom), "127.0.0.1", 0, facts)
    await clients
    await server.stop()
    assert len(turns) > 20, len(turns)

asyncio.run(main())
"""
    command = [sys.executable, "-W", "error", "-c", program]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert (finished.returncode, finished.stderr) == (0, "")

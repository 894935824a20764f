"""`leveret serve`: one broker as a process. What belongs to the process is set here alone, since
brokers are also embedded in other programs: signals, logging, the collector, the switch interval,
the limit of open files."""

from __future__ import annotations

import gc
import logging
import signal
import sys
from typing import TYPE_CHECKING

import anyio

from broker.server.log import configure_logging
from broker.server.server import Server, StartError, shown
from broker.server.settings import Settings, size_bytes

if TYPE_CHECKING:
    from broker.management.http import HttpServer

LOG = logging.getLogger("leveret.server")

SWITCH_INTERVAL_S = 1e-4
"""How long a thread waits for the interpreter before it asks for it. With the default of 5 ms a
writer thread beside a busy loop starves for seconds."""
COLLECTOR_THRESHOLDS = (50_000, 20, 100)
"""Young objects between collections: a broker makes millions of messages and no cycles."""
MALLOC_OPTIONS = {-1: 64 << 20, -2: 16 << 20, -3: 32 << 20}
"""Trim threshold, top pad and mmap threshold of the C library's allocator, in octets. By default it
hands back and asks again for the memory of each large chunk and body, and every page of it is a
fault: with bodies of 1 MiB that is a third of the broker's time."""
USAGE_STATUS = 2


def run(settings: Settings) -> int:
    """Serves until SIGTERM or SIGINT and returns the exit status: 0, or 2 with one line on stderr
    if it cannot start."""
    configure_logging(settings.log_level, settings.log_format)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    tune_allocator()
    files_max = raise_files_limit()
    try:
        anyio.run(_serve, settings, files_max, backend_options={"use_uvloop": _has_uvloop()})
    except StartError as error:
        sys.stderr.write(f"leveret: {error}\n")
        return USAGE_STATUS
    finally:
        logging.shutdown()
    return 0


def _has_uvloop() -> bool:
    try:
        import uvloop  # noqa: F401, PLC0415  # not made for Windows
    except ImportError:
        return False
    return True


def tune_allocator() -> None:
    """Lets the C library keep freed memory for the next chunk. Only glibc has this call."""
    if sys.platform != "linux":
        return
    import ctypes  # noqa: PLC0415  # takes 10 ms, and elsewhere nobody needs it

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in MALLOC_OPTIONS.items():
            mallopt(option, value)


def raise_files_limit() -> int | None:
    """Lets the process open as many files as it may, and returns how many; None if unknown."""
    try:
        import resource  # noqa: PLC0415  # not on Windows
    except ImportError:
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            return soft
    return hard


async def _serve(settings: Settings, files_max: int | None) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        server = Server(settings, files_max=files_max)
        await server.listen()
        if settings.transient:
            LOG.warning("nothing is kept on disk: queues and messages end with this process")
        else:
            LOG.info("what must last is kept in %s", settings.data_dir)
        LOG.info("accepts connections on %s", shown(server.addresses))
        http = await _start_http(server, files_max)
        _tune_collector()
        async for number in signals:
            LOG.info("%s: closing connections", signal.Signals(number).name)
            break
        # Health checks hear of it while clients leave.
        server.is_stopping = True
        await server.close()
        if http is not None:
            await http.stop()


async def _start_http(server: Server, files_max: int | None) -> HttpServer | None:
    """Starts HTTP after AMQP listens, since its imports take as long as all the rest."""
    settings = server.settings
    if not settings.http_port:
        return None
    from broker.management.facts import NodeFacts  # noqa: PLC0415  # only with HTTP
    from broker.management.http import start_http  # noqa: PLC0415  # the same

    facts = NodeFacts(
        node_name=server.broker.identity.cluster_name,
        open_sockets=server.open_sockets,
        files_max=files_max,
        sockets_max=server.sockets_max,
        data_dir=settings.data_dir,
        disk_free_min=0 if settings.transient else size_bytes(settings.disk_free_min),
        is_stopping=lambda: server.is_stopping,
    )
    try:
        http = await start_http(server.broker, settings.http_host, settings.http_port, facts)
    except OSError as error:
        await server.close()
        raise StartError(str(error)) from None
    LOG.info("metrics and health on http://%s", shown([(settings.http_host, http.port)]))
    return http


def _tune_collector() -> None:
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTOR_THRESHOLDS)

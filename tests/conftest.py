"""The running broker that client tests talk to.

LEVERET_TEST_URL=amqp://… lets them talk to a broker that runs already, of any make.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 20.0
READY = "accepts connections"
# HTTP comes up after AMQP.
HTTP_READY = "metrics and health on"
# What a start that lost its port to another process is worth trying again.
START_ATTEMPTS = 5
USAGE_STATUS = 2


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in the background so, and programs would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


class RunningBroker:
    """A broker that listens: where, and the process and log if they are ours."""

    def __init__(self, url: str, http_port: int, log: Path) -> None:
        parts = urlsplit(url)
        self.url = url
        self.host = parts.hostname or "127.0.0.1"
        self.port = parts.port or 5672
        self.http_port = http_port
        self.log = log
        self.pid: int | None = None

    @property
    def http_url(self) -> str:
        """Where the HTTP port answers."""
        return f"http://{self.host}:{self.http_port}"


class BrokerProcess(RunningBroker):
    """`leveret serve` in a process of its own, on loopback. Its log is collected in `log`."""

    def __init__(self, folder: Path, *flags: str) -> None:
        port, http_port = free_ports(2)
        url = f"amqp://guest:guest@127.0.0.1:{port}/"
        super().__init__(url, http_port, folder / "broker.log")
        command = [sys.executable, "-W", "error", "-m", "broker", "serve"]
        own = [
            "--port",
            str(port),
            "--http-port",
            str(http_port),
            "--data-dir",
            str(folder / "data"),
        ]
        self.process = subprocess.Popen(
            [*command, *own, *flags],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment(),
            text=True,
            encoding="utf-8",
        )
        self.pid = self.process.pid
        self._settled = threading.Event()
        self._http_settled = threading.Event()
        self._reader = threading.Thread(target=self._collect_log)
        self._reader.start()

    def _collect_log(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines, self.log.open("w", encoding="utf-8") as log:
            for line in lines:
                log.write(line)
                log.flush()
                if READY in line:
                    self._settled.set()
                if HTTP_READY in line:
                    self._http_settled.set()
        self._settled.set()
        self._http_settled.set()

    @property
    def http_url(self) -> str:
        """Where the HTTP port answers; waits until it does."""
        assert self._http_settled.wait(START_TIMEOUT_S), self.log.read_text(encoding="utf-8")
        return super().http_url

    def wait_until_ready(self) -> bool:
        """Whether it accepts connections; False if it ended instead."""
        if not self._settled.wait(START_TIMEOUT_S):
            self.kill()
            raise AssertionError(f"not ready after {START_TIMEOUT_S} s:\n{self.log.read_text()}")
        if READY in self.log.read_text(encoding="utf-8"):
            return True
        self.kill()
        return False

    def stop(self, signal_number: int = signal.SIGTERM) -> int:
        """Ends it in good order and returns its exit status."""
        self.process.send_signal(signal_number)
        try:
            status = self.process.wait(STOP_TIMEOUT_S)
        finally:
            self.kill()
        return status

    def kill(self) -> None:
        """Ends it at once, if it is still there."""
        self.process.kill()
        self.process.wait()
        self._reader.join()


def free_ports(count: int) -> list[int]:
    """Ports of loopback on which nobody listens, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def environment() -> dict[str, str]:
    """The environment of this process without settings of the broker."""
    return {name: value for name, value in os.environ.items() if not name.startswith("LEVERET_")}


def started_broker(folder: Path, *flags: str) -> BrokerProcess:
    """A broker that accepts connections; AssertionError with its log if it does not start."""
    for _ in range(START_ATTEMPTS):
        process = BrokerProcess(folder, *flags)
        if process.wait_until_ready():
            return process
        log = process.log.read_text(encoding="utf-8")
        if process.process.returncode != USAGE_STATUS or "in use" not in log:
            break
    raise AssertionError(f"ended with status {process.process.returncode}:\n{log}")


def ended_broker(process: BrokerProcess) -> None:
    """Ends a broker and checks that it ends well, without an exception in its log."""
    status = process.stop()
    log = process.log.read_text(encoding="utf-8")
    assert status == 0, log
    assert "Traceback" not in log, log


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    """One broker with default settings for all tests of a module."""
    url = os.environ.get("LEVERET_TEST_URL")
    folder = tmp_path_factory.mktemp("broker")
    if url is not None:
        http_port = int(os.environ.get("LEVERET_TEST_HTTP_PORT", "0"))
        yield RunningBroker(url, http_port, folder / "broker.log")
        return
    process = started_broker(folder)
    yield process
    ended_broker(process)


@pytest.fixture
def start_broker(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., BrokerProcess]]:
    """Starts brokers of the test's own: `start_broker("--frame-max", "4096")`."""
    processes: list[BrokerProcess] = []

    def start(*flags: str) -> BrokerProcess:
        processes.append(started_broker(tmp_path_factory.mktemp("broker"), *flags))
        return processes[-1]

    yield start
    running = [process for process in processes if process.process.poll() is None]
    try:
        for process in running:
            ended_broker(process)
    finally:
        for process in running:
            process.kill()

"""What tests ask of a broker in a process of its own: memory, log lines, a client that goes on."""

from __future__ import annotations

import select
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Self

from conformance.channel import Channel
from conformance.client import Connection
from tests.conftest import BrokerProcess

DEADLINE_S = 20.0
PATIENCE_S = 0.3
"""Seconds without an octet taken after which a broker has stopped reading."""
MB = 1_000_000


def resident(broker: BrokerProcess) -> int:
    """Octets of memory that the broker's process holds."""
    shown = subprocess.run(
        ["ps", "-o", "rss=", "-p", str(broker.pid)], capture_output=True, text=True, check=True
    )
    return int(shown.stdout) * 1024


def eventually(holds: Callable[[], bool], what: str) -> None:
    """Waits until something holds; AssertionError with `what` if it does not in time."""
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def logged(broker: BrokerProcess, text: str, times: int = 1) -> None:
    """Waits until a text is in the log."""
    eventually(
        lambda: broker.log.read_text(encoding="utf-8").count(text) >= times,
        f"{text!r} is not in the log:\n{broker.log.read_text(encoding='utf-8')}",
    )


def push(connection: Connection, octets: bytes, most: int) -> int:
    """Sends the octets again and again, never reading, until the broker takes no more for a while
    or `most` were taken; returns how many were."""
    tcp = connection.socket
    tcp.setblocking(False)
    sent = 0
    view = memoryview(octets)
    at = 0
    while sent < most:
        if not select.select([], [tcp], [], PATIENCE_S)[1]:
            break
        try:
            count = tcp.send(view[at:])
        except BlockingIOError:
            continue
        except ConnectionError:
            break
        sent += count
        at = (at + count) % len(octets)
    tcp.settimeout(DEADLINE_S)
    return sent


class Steady:
    """A well-behaved client beside hostile ones: publishes, gets and acknowledges, in a thread of
    its own. Each of its waits has the connection's deadline."""

    def __init__(self, connection: Connection) -> None:
        self.trips = 0
        self.error: BaseException | None = None
        self._channel = connection.open().channel()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._channel.declare_queue("steady", exclusive=True)
        self._channel.call("confirm.select")
        self._thread.start()
        self.goes_on()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()
        assert self.error is None

    def _run(self) -> None:
        try:
            while not self._ending.is_set():
                round_trip(self._channel)
                self.trips += 1
        except BaseException as error:  # noqa: BLE001  # told in the test's own thread
            self.error = error

    def goes_on(self, trips: int = 5) -> None:
        """Waits for more round trips."""
        wanted = self.trips + trips
        eventually(lambda: self.trips >= wanted or self.error is not None, "no round trips")
        assert self.error is None


def round_trip(channel: Channel) -> None:
    """One message there and back."""
    channel.publish(b"steady", routing_key="steady", mandatory=True)
    channel.expect("basic.ack")
    channel.send("basic.get", queue="steady", no_ack=True)
    assert channel.expect("basic.get-ok").body == b"steady"

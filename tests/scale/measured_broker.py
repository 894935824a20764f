"""A broker in a process of its own that is to be measured: when it answers, how it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from conformance.client import Address, Connection
from tests.conftest import environment, free_ports
from tests.scale.callback_times import Window, read_windows

HOST = "127.0.0.1"
POLL_S = 0.002
"""Seconds between looks whether it listens."""
START_S = 1800.0
"""Seconds a start may take: it may have a large log to read."""
STOP_S = 60.0
WAIT_S = 600.0
"""Seconds the broker may keep a client waiting, blocked publishers too."""


class MeasuredBroker:
    """`leveret serve` on loopback with its data in `folder`/data, HTTP off. As a context manager it
    ends with its block at the latest. `timed` puts a clock around its callbacks."""

    def __init__(self, folder: Path, *flags: str, timed: bool = False) -> None:
        self.data_dir = folder / "data"
        self.log = folder / "broker.log"
        self._times = folder / "callbacks.jsonl"
        [self.port] = free_ports(1)
        own = ["--port", str(self.port), "--http-port", "0", "--data-dir", str(self.data_dir)]
        module = ["tests.scale.timed_broker", str(self._times)] if timed else ["broker"]
        command = [sys.executable, "-m", *module, "serve", "--log-level", "warning", *own, *flags]
        self.began = time.monotonic()
        with self.log.open("wb") as log:
            # In a session of its own: Ctrl-C is for the one who measures, who ends it then.
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stderr=log,
                env=environment(),
                start_new_session=True,
            )
        self.pid = self.process.pid
        self.answered_s = 0.0
        """Seconds from the start of the process to the first AMQP answer, once there is one."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()

    def first_connection(self) -> Connection:
        """An open connection as soon as there can be one. Raises RuntimeError with the log if the
        broker ends instead."""
        while True:
            try:
                connection = Connection(Address(HOST, self.port), timeout_s=WAIT_S)
            except ConnectionRefusedError:
                if self.process.poll() is not None or self.age() > START_S:
                    log = self.log.read_text(encoding="utf-8")
                    raise RuntimeError(f"the broker did not start:\n{log}") from None
                time.sleep(POLL_S)
                continue
            break
        connection.start()
        self.answered_s = self.age()
        connection.start_ok()
        connection.tune_ok()
        connection.channel0.send("connection.open", virtual_host="/")
        connection.channel0.expect("connection.open-ok")
        return connection

    def connection(self) -> Connection:
        """One more open connection."""
        return Connection(Address(HOST, self.port), timeout_s=WAIT_S).open()

    def age(self) -> float:
        """Seconds since the process was started."""
        return time.monotonic() - self.began

    def stop(self) -> list[Window]:
        """Ends it in good order, and returns how long its callbacks took if they were timed.
        Raises RuntimeError with the log if it does not end well."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(STOP_S)
        log = self.log.read_text(encoding="utf-8")
        if status or "Traceback" in log:
            raise RuntimeError(f"the broker ended with status {status}:\n{log}")
        return read_windows(self._times) if self._times.exists() else []

    def kill(self) -> None:
        """Ends it at once, as a crash would, if it is still there."""
        self.process.kill()
        self.process.wait()

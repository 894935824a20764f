"""Brokers that a run starts for itself: Debian's RabbitMQ, or any command."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from conformance.client import PROTOCOL_HEADER, Address

RABBITMQ_PLUGINS = (
    "rabbitmq_consistent_hash_exchange",
    "rabbitmq_random_exchange",
    "rabbitmq_recent_history_exchange",
    "rabbitmq_sharding",
)
"""Those that come with RabbitMQ and add exchange types."""
RABBITMQ_SERVER = "/usr/lib/rabbitmq/bin/rabbitmq-server"


class PrivateBroker:
    """A broker process with a folder and ports of its own, gone when the block ends."""

    def __init__(self, command: str | None = None) -> None:
        """`command` may hold {port}, {http} and {folder}; None is Debian's RabbitMQ.

        Raises FileNotFoundError on entering if the program is not installed.
        """
        self._command = command
        self._folder = Path(tempfile.mkdtemp(prefix="conformance-"))
        self.address = Address("127.0.0.1", _free_port())

    def __enter__(self) -> Self:
        other = _free_port()
        environment = dict(os.environ)
        if self._command is None:
            environment |= self._rabbitmq_environment(other)
            words: Sequence[str] = [RABBITMQ_SERVER]
        else:
            named = self._command.format(
                port=self.address.port, http=other, folder=self._folder / "broker"
            )
            words = shlex.split(named)
        try:
            self._spawn(words, environment)
            self._wait_until_ready()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _spawn(self, words: Sequence[str], environment: dict[str, str]) -> None:
        """Starts the process, in a session of its own, with its output in a file."""
        with (self._folder / "output.log").open("wb") as output:
            self.process = subprocess.Popen(
                words,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if hasattr(self, "process"):
            self.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def terminate(self) -> None:
        """Asks the broker to stop and returns at once."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)

    def _rabbitmq_environment(self, distribution_port: int) -> dict[str, str]:
        # Debian's script drops root's rights, so that another user must be able to write here.
        self._folder.chmod(0o777)
        (self._folder / "plugins").write_text(f"[{','.join(RABBITMQ_PLUGINS)}].\n")
        (self._folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.address.port}\n"
        )
        return {
            "RABBITMQ_NODENAME": f"conformance{self.address.port}@localhost",
            "RABBITMQ_DIST_PORT": str(distribution_port),
            "RABBITMQ_MNESIA_BASE": str(self._folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self._folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(self._folder / "rabbitmq"),
            "HOME": str(self._folder),
        }

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                with socket.create_connection((self.address.host, self.address.port), 1) as probe:
                    probe.sendall(PROTOCOL_HEADER)
                    if probe.recv(1):
                        return
            except OSError:
                time.sleep(0.05)
        output = (self._folder / "output.log").read_text(errors="replace")
        raise RuntimeError(f"broker did not come up:\n{output[-2000:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

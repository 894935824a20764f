"""A broker process that is killed and started again on the same directory."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from conformance.client import Address
from conformance.private_broker import RABBITMQ_SERVER, PrivateBroker, _free_port

GONE_S = 30.0
"""How long processes may take to be gone after SIGKILL, or to stop after SIGTERM."""


class KillableBroker(PrivateBroker):
    """A broker on a data directory that outlives it.

    `folder` is for what is not the broker's data, `data` is the data directory.
    """

    def __init__(
        self,
        command: str | None,
        folder: Path,
        data: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._command = command
        self._folder = folder
        self._data = data
        self._extra = dict(environment or {})
        self._node = f"crash{os.getpid()}x{folder.name}@localhost"
        self.address = Address("127.0.0.1", _free_port())
        self.start_s = 0.0

    @property
    def is_rabbitmq(self) -> bool:
        """Whether it is Debian's RabbitMQ."""
        return self._command is None

    def launch(self) -> None:
        """Starts a process and does not wait for it."""
        other = _free_port()
        self.address = Address("127.0.0.1", _free_port())
        environment = {**os.environ, **self._extra}
        if self._command is None:
            words = [RABBITMQ_SERVER]
            environment |= self._rabbitmq_environment(other)
            environment["RABBITMQ_NODENAME"] = self._node
            environment["RABBITMQ_MNESIA_BASE"] = str(self._data)
        else:
            words = shlex.split(
                self._command.format(port=self.address.port, http=other, folder=self._data)
            )
        self._spawn(words, environment)

    def start(self) -> float:
        """Starts a process and returns the seconds until it serves; RuntimeError if it does not."""
        began = time.monotonic()
        self.launch()
        self._wait_until_ready()
        self.start_s = time.monotonic() - began
        return self.start_s

    def kill(self, ending: threading.Event | None = None) -> float:
        """SIGKILL for the process and its children; returns the moment before (monotonic).

        `ending` is set right before, so that clients have no time to come to rest.
        """
        family = [self.process.pid, *descendants(self.process.pid)]
        ended_at = time.monotonic()
        if ending is not None:
            ending.set()
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(GONE_S)
        _wait_until_gone(family)
        return ended_at

    def stop(self) -> int:
        """SIGTERM; returns the exit status. Raises subprocess.TimeoutExpired."""
        family = descendants(self.process.pid)
        self.terminate()
        status = self.process.wait(GONE_S)
        _wait_until_gone(family)
        return status

    @property
    def output(self) -> str:
        """What the last process wrote to its standard streams."""
        return (self._folder / "output.log").read_text(errors="replace")

    @property
    def running(self) -> bool:
        """Whether there is a process to kill."""
        return hasattr(self, "process") and self.process.poll() is None


def descendants(pid: int) -> list[int]:
    """The children of a process and theirs, as /proc tells."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                after_name = (entry / "stat").read_text().rpartition(")")[2].split()
                parents.setdefault(int(after_name[1]), []).append(int(entry.name))
    found = []
    pending = [pid]
    while pending:
        children = parents.get(pending.pop(), [])
        found += children
        pending += children
    return found


def _wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + GONE_S
    while any(_is_alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            raise RuntimeError(f"processes {pids} do not end")
        time.sleep(0.002)


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return False
    # A process is a zombie as soon as its first thread is; the others may still hold its files.
    return state not in ("Z", "X") or len(tasks) > 1

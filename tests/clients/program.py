"""A program under test: a subprocess whose lines are awaited with a deadline."""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

DEADLINE_SECONDS = 20.0


class Program:
    """A Python program in a process of its own; standard output and error are one stream of lines.

    Leaving the context ends the process, by SIGKILL if it is still there.
    """

    def __init__(
        self, *arguments: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None
    ) -> None:
        self.lines: list[str] = []
        self._unread: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.process = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._unread.put(line.rstrip("\n"))
        self._unread.put(None)

    def expect(self, wanted: str | Callable[[list[str]], bool]) -> None:
        """Wait until a line contains `wanted`, or until `wanted` is true of all lines so far.

        Lines already seen count. Raises AssertionError with the output when the program ends or
        the deadline passes before.
        """

        def arrived() -> bool:
            if isinstance(wanted, str):
                return any(wanted in line for line in self.lines)
            return wanted(self.lines)

        deadline = time.monotonic() + DEADLINE_SECONDS
        while not arrived():
            try:
                line = self._unread.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                line = None
            assert line is not None, "\n".join(["missing in the output:", *self.lines])
            self.lines.append(line)

    def finish(self) -> list[str]:
        """Wait for the program to end by itself with status 0; return all its lines."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            try:
                line = self._unread.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError("\n".join(["did not end:", *self.lines])) from None
            if line is None:
                break
            self.lines.append(line)
        status = self.process.wait()
        assert status == 0, "\n".join([f"ended with status {status}:", *self.lines])
        return self.lines

    def interrupt(self, signal_number: int = signal.SIGINT) -> list[str]:
        """End the program by a signal that it takes as a request to stop, status 0."""
        self.process.send_signal(signal_number)
        return self.finish()

    def kill(self) -> None:
        """End the program at once, whatever it is doing."""
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()

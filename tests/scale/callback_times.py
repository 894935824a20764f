"""How long the callbacks of an event loop take: kept in the broker's process, read by another one.

Each tenth of a second becomes one line of a file: what took most time of the loop's thread in it,
and what took longest by the clock.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

WINDOW_NS = 100_000_000
LONG_NS = 20_000_000
"""More than a turn of the loop should take."""


@dataclass(frozen=True, slots=True)
class CallbackTime:
    """One callback. `ended_ns` is of the monotonic clock, which all processes share."""

    name: str
    ended_ns: int
    cpu_ns: int
    wall_ns: int
    collecting_ns: int
    """CPU time of the garbage collections in it."""
    generation: int
    """The oldest generation that was collected in it; -1 for none."""

    def __str__(self) -> str:
        text = f"{self.cpu_ns / 1e6:.1f} ms CPU, {self.wall_ns / 1e6:.1f} ms wall, {self.name}"
        if self.collecting_ns:
            text += f", of which {self.collecting_ns / 1e6:.1f} ms CPU collecting garbage,"
            text += f" generation {self.generation}"
        return text


@dataclass(frozen=True, slots=True)
class Window:
    """The longest callbacks of a tenth of a second."""

    by_cpu: CallbackTime
    by_wall: CallbackTime
    long_names: list[str]
    """Those with more than 20 ms of CPU time."""


class CallbackClock:
    """Times what runs in the event loop of this thread, callbacks within callbacks not apart."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", buffering=1)
        self._is_running = False
        self._collecting_ns = 0
        self._generation = -1
        self._collection_began_ns = 0
        self._thread = threading.get_ident()
        self._window_ends_ns = 0
        self._by_cpu: CallbackTime | None = None
        self._by_wall: CallbackTime | None = None
        self._long_names: list[str] = []
        gc.callbacks.append(self._collection)

    def run(self, callback: Callable[..., Any], *args: Any) -> Any:
        """Calls it and returns what it does."""
        if self._is_running:
            return callback(*args)
        self._is_running = True
        self._collecting_ns = 0
        self._generation = -1
        wall = time.monotonic_ns()
        cpu = time.thread_time_ns()
        try:
            return callback(*args)
        finally:
            cpu = time.thread_time_ns() - cpu
            ended = time.monotonic_ns()
            self._is_running = False
            self._note(callback, ended, cpu, ended - wall)

    def _note(self, callback: object, ended: int, cpu: int, wall: int) -> None:
        if ended >= self._window_ends_ns:
            self.flush()
            self._window_ends_ns = ended + WINDOW_NS
        by_cpu, by_wall = self._by_cpu, self._by_wall
        most_cpu = by_cpu is None or cpu > by_cpu.cpu_ns
        most_wall = by_wall is None or wall > by_wall.wall_ns
        if most_cpu or most_wall:
            collected = (self._collecting_ns, self._generation)
            time_taken = CallbackTime(name_of(callback), ended, cpu, wall, *collected)
            if most_cpu:
                self._by_cpu = time_taken
            if most_wall:
                self._by_wall = time_taken
        if cpu > LONG_NS:
            self._long_names.append(name_of(callback))

    def flush(self) -> None:
        """Writes the line of the window that is open."""
        if self._by_cpu is not None and self._by_wall is not None:
            window = Window(self._by_cpu, self._by_wall, self._long_names)
            self._file.write(json.dumps(asdict(window)) + "\n")
        self._by_cpu = self._by_wall = None
        self._long_names = []

    def _collection(self, phase: str, facts: dict[str, int]) -> None:
        if threading.get_ident() != self._thread:
            return
        if phase == "start":
            self._collection_began_ns = time.thread_time_ns()
        else:
            self._collecting_ns += time.thread_time_ns() - self._collection_began_ns
            self._generation = max(self._generation, facts["generation"])


def name_of(callback: object) -> str:
    """What a reader knows a callback by."""
    while isinstance(callback, functools.partial):
        callback = callback.func
    # A step of a task is a method of the C task.
    task = getattr(callback, "__self__", None)
    if isinstance(task, asyncio.Task):
        return f"step of {getattr(task.get_coro(), '__qualname__', task.get_name())}"
    return getattr(callback, "__qualname__", None) or type(callback).__qualname__


def read_windows(path: Path) -> list[Window]:
    """What a CallbackClock has written."""
    windows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        fields = json.loads(line)
        windows.append(
            Window(
                CallbackTime(**fields["by_cpu"]),
                CallbackTime(**fields["by_wall"]),
                fields["long_names"],
            )
        )
    return windows

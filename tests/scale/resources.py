"""What a process takes: memory, CPU, disk. Linux only: it reads /proc."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

BLOCK = 512
"""Octets of a block that stat counts in, whatever the file system."""


def resident_kb(pid: int) -> int:
    """Kilobytes of memory that a process holds."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1])


def settled_kb(pid: int) -> int:
    """The same once it has not changed for a second."""
    last, since = resident_kb(pid), time.monotonic()
    while time.monotonic() < since + 1:
        time.sleep(0.1)
        now = resident_kb(pid)
        if now != last:
            last, since = now, time.monotonic()
    return last


def cpu_ns(pid: int) -> int:
    """Nanoseconds that the threads of a process have run so far."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def disk_octets(folder: Path) -> int:
    """Octets that are allocated to the files in a folder, which may come and go meanwhile."""
    octets = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                octets += Path(place, name).stat().st_blocks * BLOCK
    return octets

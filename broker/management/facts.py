"""What the metrics and the health check need to know of the process around the broker."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

_PROC = Path("/proc/self")


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What the shell around a broker knows of it. Everything that is None or cannot be read is
    left out of the metrics."""

    node_name: str
    """As RabbitMQ names nodes: `leveret@host`."""
    open_sockets: Callable[[], int]
    """Sockets of AMQP clients that are open now, those in the handshake included."""
    started_at: float = field(default_factory=time.monotonic)
    """When the broker started, by `time.monotonic`."""
    started_at_unix: float = field(default_factory=time.time)
    """The same, in seconds since 1970."""
    files_max: int | None = None
    """File descriptors the process may have."""
    sockets_max: int | None = None
    """Sockets of AMQP clients the server accepts."""
    data_dir: Path | None = None
    """The folder whose file system is asked for its free space; it need not exist yet."""
    disk_free_min: int = 0
    """Free octets there below which publishers are paused; 0 if they never are."""
    is_stopping: Callable[[], bool] = _never
    """Whether the broker is closing its clients, so that it should get no new ones."""
    proc: Path = _PROC
    """Where Linux tells about this process."""

    def open_files(self) -> int | None:
        """File descriptors in use."""
        try:
            # One of them is this listing's own.
            return len(os.listdir(self.proc / "fd")) - 1  # noqa: PTH208  # no Path for each
        except OSError:
            return None

    def resident_bytes(self) -> int | None:
        """Octets of memory the process has in RAM."""
        try:
            pages = (self.proc / "statm").read_text(encoding="ascii").split()[1]
            return int(pages) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError, IndexError):
            return None

    def disk_free_bytes(self) -> int | None:
        """Octets that may still be written to the file system of `data_dir`."""
        if self.data_dir is None:
            return None
        folder = self.data_dir.absolute()
        for existing in (folder, *folder.parents):
            try:
                return shutil.disk_usage(existing).free
            except FileNotFoundError:
                continue
            except OSError:
                return None
        return None

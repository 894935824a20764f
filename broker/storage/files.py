"""The calls of the operating system that the segment log makes, in one place.

Tests put a disk that fails, fills or forgets in the place of `Files`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE})
"""The errors that pass when room is made: on the disk, or among the files that may be open."""

# Everything in a directory is for its owner: it holds messages and what passwords hash to.
FILE_MODE = 0o600
DIRECTORY_MODE = 0o700

# What posix_fallocate says where a file system has nothing of the kind.
_NOT_SUPPORTED = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})
_ZEROS = bytes(1 << 20)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """An OSError that names no file names this one: calls on descriptors do not know theirs."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


class FlushError(OSError):
    """A flush failed, whatever its error: what it was to make durable may never be, though a second
    flush may work."""


@contextlib.contextmanager
def flushing() -> Iterator[None]:
    """An OSError in here is a FlushError."""
    try:
        yield
    except OSError as error:
        raise FlushError(error.errno, error.strerror, error.filename) from error


class Files:
    """The real ones. Everything raises OSError; nothing is tried again, except interrupted calls.

    With `durable=False` nothing is waited for: what was written survives the end of the process,
    not the end of the machine's power.
    """

    def __init__(self, *, durable: bool = True) -> None:
        self.durable = durable

    def open(self, path: Path, flags: int) -> int:
        """A descriptor, not inherited."""
        return os.open(path, flags | getattr(os, "O_BINARY", 0), FILE_MODE)

    def close(self, descriptor: int) -> None:
        """Lets a descriptor go."""
        os.close(descriptor)

    def size(self, descriptor: int) -> int:
        """Octets of the file."""
        return os.fstat(descriptor).st_size

    def read(self, descriptor: int, count: int, offset: int) -> bytes:
        """Up to `count` octets; fewer only at the end of the file."""
        octets = self._read_some(descriptor, count, offset)
        if len(octets) in {0, count}:
            return octets
        pieces = [octets]
        have = len(octets)
        while have < count:
            octets = self._read_some(descriptor, count - have, offset + have)
            if not octets:
                break
            pieces.append(octets)
            have += len(octets)
        return b"".join(pieces)

    def written_from(self, descriptor: int, offset: int) -> int | None:
        """Where octets follow that may not be zero; None if there are none.

        Spares reading what was allocated and never written.
        """
        if offset >= self.size(descriptor):
            return None
        if sys.platform != "linux":
            return offset
        try:
            return os.lseek(descriptor, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return None
            if error.errno in _NOT_SUPPORTED:
                return offset
            raise

    def write(self, descriptor: int, pieces: Sequence[bytes], offset: int) -> None:
        """Writes all the pieces one after the other, by one call unless the system stops short."""
        total = sum(map(len, pieces))
        written = self._write_some(descriptor, pieces, offset)
        if written == total:
            return
        rest = memoryview(b"".join(pieces))
        while written < total:
            written += self._write_some(descriptor, [rest[written:]], offset + written)

    def sync(self, descriptor: int) -> None:
        """Returns once everything written to the file is on the disk."""
        if not self.durable:
            return
        if sys.platform == "darwin":
            import fcntl  # noqa: PLC0415 - exists only there and on other Unixes

            # There fsync reaches the drive's cache only.
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
        elif sys.platform == "win32":
            os.fsync(descriptor)
        else:
            os.fdatasync(descriptor)

    def sync_directory(self, path: Path) -> None:
        """Returns once the names in the directory are on the disk."""
        if not self.durable or sys.platform == "win32":
            return
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def allocate(self, descriptor: int, size: int) -> None:
        """Gives the file this size, with room on the disk for all of it."""
        if sys.platform == "linux":
            try:
                os.posix_fallocate(descriptor, 0, size)
            except OSError as error:
                if error.errno not in _NOT_SUPPORTED:
                    raise
            else:
                return
        for offset in range(self.size(descriptor), size, len(_ZEROS)):
            self.write(descriptor, [_ZEROS[: size - offset]], offset)

    def rename(self, old: Path, new: Path) -> None:
        """Gives a file a new name, in the place of whatever had it."""
        old.replace(new)

    def unlink(self, path: Path) -> None:
        """Removes a file; none there is as good."""
        with contextlib.suppress(FileNotFoundError):
            path.unlink()

    @staticmethod
    def _read_some(descriptor: int, count: int, offset: int) -> bytes:
        if sys.platform == "win32":
            os.lseek(descriptor, offset, os.SEEK_SET)
            return os.read(descriptor, count)
        return os.pread(descriptor, count, offset)

    @staticmethod
    def _write_some(descriptor: int, pieces: Sequence[bytes | memoryview], offset: int) -> int:
        if sys.platform == "win32":
            os.lseek(descriptor, offset, os.SEEK_SET)
            return os.write(descriptor, b"".join(pieces))
        if len(pieces) == 1:
            return os.pwrite(descriptor, pieces[0], offset)
        if hasattr(os, "pwritev"):
            return os.pwritev(descriptor, pieces, offset)
        return os.pwrite(descriptor, b"".join(pieces), offset)

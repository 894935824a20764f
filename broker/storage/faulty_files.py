"""A disk that fails, fills, waits or forgets, under the real segment log. For tests.

It works on real files and remembers how to undo what was not made durable. A power cut undoes
that, or some of it: what is left is an ordinary directory, which can be opened again.
"""

from __future__ import annotations

import errno
import itertools
import os
import random
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from broker.storage.files import Files

# What a disk writes whole or not at all.
_SECTOR_OCTETS = 512
_FORGOTTEN = ".forgotten-"


class _Change(NamedTuple):
    """Octets of a file before they were written over. The file had `size` octets."""

    descriptor: int
    offset: int
    before: bytes
    size: int

    def is_within(self, start: int, end: int) -> bool:
        """Whether all of it is written over by this."""
        return start <= self.offset and self.offset + len(self.before) <= end


class FaultyFiles(Files):
    """Counts calls by their name in `calls`, and fails those it is told to.

    `space` is how many octets can still be allocated. `syncing` is set while a flush waits for
    `release_syncs`.
    """

    def __init__(self) -> None:
        super().__init__(durable=False)
        self.calls: Counter[str] = Counter()
        self._space: int | None = None
        self.crashed = False
        self.syncing = threading.Event()
        self._faults: dict[tuple[str, int], int] = {}
        self._forever: dict[str, tuple[int, int]] = {}
        self._released = threading.Event()
        self._released.set()
        self._lock = threading.RLock()
        self._changes: dict[int, list[_Change]] = {}
        self._doubtful: dict[int, list[_Change]] = {}
        self._undo_names: list[Callable[[], object]] = []
        self._numbers = itertools.count()
        self._kept: Path | None = None

    def fail(self, name: str, error: int, *, after: int = 0, forever: bool = False) -> None:
        """Lets a call of this name fail, after so many more that work; or all from then on."""
        with self._lock:
            call = self.calls[name] + after + 1
            if forever:
                self._forever[name] = (call, error)
            else:
                self._faults[name, call] = error

    def heal(self) -> None:
        """Nothing fails from now on."""
        with self._lock:
            self._faults.clear()
            self._forever.clear()

    def hold_syncs(self) -> None:
        """Lets every flush of a file wait until `release_syncs`."""
        self.syncing.clear()
        self._released.clear()

    def release_syncs(self) -> None:
        """Lets flushes go on."""
        self._released.set()

    def crash(self, chance: random.Random | None = None) -> None:
        """The power goes: what was not durable is lost, or with `chance` each part of it may be.

        Every call fails from now on.
        """
        with self._lock:
            self.crashed = True
            files = self._changes.keys() | self._doubtful.keys()
            for file in sorted(files):
                changes = self._doubtful.pop(file, []) + self._changes.pop(file, [])
                for change in reversed(changes):
                    _undo(change, chance)
                for change in changes:
                    os.close(change.descriptor)
            # File systems keep changes of names in their order: some of the last are lost.
            lost = len(self._undo_names)
            if chance is not None:
                lost = chance.randint(0, lost)
            for undo in reversed(self._undo_names[len(self._undo_names) - lost :]):
                undo()
            self._undo_names.clear()
        self._released.set()

    def open(self, path: Path, flags: int) -> int:
        """Opens; a file that is new is forgotten until its directory is durable."""
        with self._lock:
            self._count("open", path)
            is_new = not path.exists()
            descriptor = super().open(path, flags)
            if is_new:
                self._undo_names.append(lambda: path.unlink(missing_ok=True))
            if flags & os.O_TRUNC:
                self._changes.pop(os.fstat(descriptor).st_ino, None)
            return descriptor

    def read(self, descriptor: int, count: int, offset: int) -> bytes:
        """Reads."""
        with self._lock:
            self._count("read")
            return super().read(descriptor, count, offset)

    def write(self, descriptor: int, pieces: Sequence[bytes], offset: int) -> None:
        """Writes what is forgotten until `sync`."""
        with self._lock:
            self._note(descriptor, offset, sum(map(len, pieces)))
            try:
                self._count("write")
            except OSError:
                # A write that fails may have written something.
                octets = b"".join(pieces)
                super().write(descriptor, [octets[: len(octets) // 2]], offset)
                raise
            super().write(descriptor, pieces, offset)

    def sync(self, descriptor: int) -> None:
        """Waits while flushes are held. One that fails makes nothing durable."""
        if not self._released.is_set():
            self.syncing.set()
            self._released.wait()
        with self._lock:
            file = os.fstat(descriptor).st_ino
            try:
                self._count("sync")
            except OSError:
                # As Linux does: the octets stay readable, count as written, and are not.
                self._doubtful.setdefault(file, []).extend(self._changes.pop(file, []))
                raise
            for change in self._changes.pop(file, []):
                os.close(change.descriptor)

    def sync_directory(self, path: Path) -> None:
        """Makes names durable."""
        with self._lock:
            self._count("sync_directory", path)
            self._undo_names.clear()

    @property
    def space(self) -> int | None:
        """Octets that can still be allocated; None for any number."""
        return self._space

    @space.setter
    def space(self, octets: int | None) -> None:
        # Another thread may be counting.
        with self._lock:
            self._space = octets

    def allocate(self, descriptor: int, size: int) -> None:
        """Takes room of `space`."""
        with self._lock:
            self._count("allocate")
            octets = size - self.size(descriptor)
            if self._space is not None:
                if octets > self._space:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                self._space -= octets
            self._note(descriptor, size, 0)
            super().allocate(descriptor, size)

    def rename(self, old: Path, new: Path) -> None:
        """Renames; forgotten until the directory is durable."""
        with self._lock:
            self._count("rename", old)
            kept = self._keep(new)
            super().rename(old, new)

            def undo() -> None:
                new.rename(old)
                if kept is not None:
                    kept.rename(new)

            self._undo_names.append(undo)

    def unlink(self, path: Path) -> None:
        """Removes, and gives room back; forgotten until the directory is durable."""
        with self._lock:
            self._count("unlink", path)
            if not path.exists():
                return
            if self._space is not None:
                self._space += path.stat().st_size
            kept = self._keep(path)
            assert kept is not None
            super().unlink(path)
            self._undo_names.append(lambda: kept.rename(path))

    def _count(self, name: str, path: Path | None = None) -> None:
        if self.crashed:
            raise OSError(errno.EIO, "the power is off")
        self.calls[name] += 1
        call = self.calls[name]
        error = self._faults.pop((name, call), 0)
        first, lasting = self._forever.get(name, (call + 1, 0))
        if call >= first:
            error = lasting
        if error:
            raise OSError(error, os.strerror(error), None if path is None else str(path))

    def _note(self, descriptor: int, offset: int, count: int) -> None:
        """Remembers what is about to be written over."""
        size = os.fstat(descriptor).st_size
        change = _Change(os.dup(descriptor), offset, os.pread(descriptor, count, offset), size)
        file = os.fstat(descriptor).st_ino
        doubtful = self._doubtful.pop(file, [])
        # What is written once more counts as any other write.
        again = [each for each in doubtful if each.is_within(offset, offset + count)]
        self._changes.setdefault(file, []).extend([*again, change])
        if rest := [each for each in doubtful if each not in again]:
            self._doubtful[file] = rest

    def _keep(self, path: Path) -> Path | None:
        """Another name for a file that is about to lose its own."""
        if not path.exists():
            return None
        if self._kept is None:
            self._kept = Path(tempfile.mkdtemp(prefix=_FORGOTTEN, dir=path.parent))
        kept = self._kept / str(next(self._numbers))
        kept.hardlink_to(path)
        return kept


def _undo(change: _Change, chance: random.Random | None) -> None:
    """Writes the old octets again; with `chance` some sectors keep the new ones."""
    for start in range(0, len(change.before), _SECTOR_OCTETS):
        if chance is None or chance.random() < 0.5:
            sector = change.before[start : start + _SECTOR_OCTETS]
            os.pwrite(change.descriptor, sector, change.offset + start)
    if chance is None or chance.random() < 0.5:
        os.ftruncate(change.descriptor, change.size)

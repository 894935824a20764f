"""The directory of a segment log: who owns it, its format, its segments and the one in reserve.

    FORMAT           the version of the format, in words
    LOCK             locked while a broker owns the log; holds the epoch of the last owner
    SEAL             exists after a clean close: where the last segment ends
    0000000001.log   the segments, consecutive numbers
    reserve          a segment that is to be
    making           a reserve that is not allocated yet

A segment gets its name only when its header is on the disk, and a name is on the disk before
anything is written under it.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import sys
import zlib
from pathlib import Path
from typing import Any, NamedTuple

from broker.storage.files import DIRECTORY_MODE, Files, flushing, naming
from broker.storage.log import LogDamagedError, LogError, LogLockedError, Position
from broker.storage.segment import (
    FORMAT_VERSION,
    HEADER_OCTETS,
    SALT_OCTETS,
    SUFFIX,
    Header,
    Segment,
    decode_header,
    name_of,
    new_segment,
)

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

FORMAT = "FORMAT"
LOCK = "LOCK"
SEAL = "SEAL"
RESERVE = "reserve"
MAKING = "making"

_FORMAT_LINE = re.compile(rb"leveret log format (\d{1,9})\n")
_LOCK_LINE = re.compile(rb"epoch (\d{1,19}) process (\d{1,10})\n")
_SEGMENT_NAME = re.compile(r"\d{10,20}" + re.escape(SUFFIX))
_SMALL_FILE_OCTETS = 4096


class Seal(NamedTuple):
    """Where a log that was closed ends. Its epoch is the last owner's."""

    number: int
    end: int
    next: Position
    epoch: int

    def encode(self) -> bytes:
        """One line of JSON and its checksum."""
        line = json.dumps(self._asdict()).encode()
        return b"%s\n%08x\n" % (line, zlib.crc32(line))


def decode_seal(octets: bytes, path: Path) -> Seal:
    """Raises LogDamagedError."""
    line, _, checksum = octets.partition(b"\n")
    if checksum != b"%08x\n" % zlib.crc32(line):
        raise LogDamagedError(f"{path}: damaged: its checksum is wrong")
    fields: dict[str, Any] = json.loads(line)
    return Seal(**fields)


class Directory:
    """The files of one log. Every method may raise OSError."""

    def __init__(self, path: Path, files: Files, segment_octets: int) -> None:
        self.path = path
        self.files = files
        self.segment_octets = segment_octets
        self.has_reserve = False
        self._reserve_recycled = False
        self._lock = -1
        # What the lock's file says while nobody else has taken the log over.
        self._owner = b""

    # Owning it.

    def lock(self) -> int:
        """Shuts out other owners, and returns the epoch of the last one: 0 if there was none.

        Raises LogLockedError.
        """
        self.path.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        descriptor = self.files.open(self.path / LOCK, os.O_RDWR | os.O_CREAT)
        found = _LOCK_LINE.match(os.read(descriptor, _SMALL_FILE_OCTETS))
        if not lock_descriptor(descriptor):
            self.files.close(descriptor)
            owner = f" (process {int(found[2])})" if found else ""
            raise LogLockedError(f"{self.path}: in use by another broker{owner}")
        self._lock = descriptor
        return int(found[1]) if found else 0

    def note_epoch(self, epoch: int) -> None:
        """Makes the epoch of this owner durable, so that the next one's is higher."""
        # Epoch and process may be the next owner's too, where the file was removed.
        token = secrets.token_hex(8).encode()
        self._owner = b"epoch %019d process %010d\n%s\n" % (epoch, os.getpid(), token)
        self.files.write(self._lock, [self._owner], 0)
        self.files.sync(self._lock)

    def check_owner(self) -> None:
        """Raises LogLockedError if another broker has taken the log over, or could: a lock is lost
        when its file is removed, and by some network file systems."""
        try:
            # Opened anew: the name may have become another file's.
            found = (self.path / LOCK).read_bytes()
        except FileNotFoundError:
            raise LogLockedError(f"{self.path / LOCK}: removed while it was in use") from None
        if found != self._owner:
            other = _LOCK_LINE.match(found)
            process = f" (process {int(other[2])})" if other else ""
            raise LogLockedError(f"{self.path}: taken over by another broker{process}")

    def unlock(self) -> None:
        """Lets others own it."""
        if self._lock >= 0:
            self.files.close(self._lock)
            self._lock = -1

    # Small files.

    def check_format(self) -> None:
        """Writes the format of a new directory down, or sees that it is one that we read.

        Raises LogDamagedError, and LogError for a newer format.
        """
        path = self.path / FORMAT
        if path.exists():
            read_format(path)
            return
        if self.names():
            raise LogDamagedError(f"{path}: missing, though the log has segments")
        self.write_format()

    def write_format(self) -> None:
        """Names the format that is written."""
        self._write_small(self.path / FORMAT, b"leveret log format %d\n" % FORMAT_VERSION)

    def seal(self) -> Seal | None:
        """What the last close left. Raises LogDamagedError."""
        path = self.path / SEAL
        return decode_seal(path.read_bytes(), path) if path.exists() else None

    def write_seal(self, seal: Seal) -> None:
        """Says that nothing is written after this."""
        self._write_small(self.path / SEAL, seal.encode())

    def break_seal(self) -> None:
        """Before anything is written again."""
        if (self.path / SEAL).exists():
            self.files.unlink(self.path / SEAL)
            self.files.sync_directory(self.path)

    def _write_small(self, path: Path, octets: bytes) -> None:
        making = path.with_name(MAKING)
        descriptor = self.files.open(making, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            self.files.write(descriptor, [octets], 0)
            self.files.sync(descriptor)
        finally:
            self.files.close(descriptor)
        self.files.rename(making, path)
        self.files.sync_directory(self.path)

    # Segments.

    def names(self) -> list[str]:
        """The names of the segments' files, oldest first."""
        return segment_names(self.path)

    def segments(self) -> list[Segment]:
        """The segments, oldest first, as far as their headers tell. Raises LogDamagedError."""
        found: list[Segment] = []
        for name in self.names():
            path = self.path / name
            segment = new_segment(path, self._header(path))
            number = found[-1].header.number + 1 if found else segment.header.number
            if name != name_of(number):
                raise LogDamagedError(f"{self.path / name_of(number)}: missing")
            found.append(segment)
        return found

    def _header(self, path: Path) -> Header:
        descriptor = self.files.open(path, os.O_RDONLY)
        try:
            with naming(path):
                header = decode_header(self.files.read(descriptor, HEADER_OCTETS, 0), path)
        finally:
            self.files.close(descriptor)
        if path.name != name_of(header.number):
            raise LogDamagedError(f"{path}: damaged: it says that it is segment {header.number}")
        return header

    def make_segment(self, number: int, epoch: int, first: Position, octets: int) -> Segment:
        """A segment of at least that many octets, of the reserve if that is large enough.

        On the disk when this returns. An OSError for want of space leaves things as they were,
        unless it is a FlushError.
        """
        if octets <= self.segment_octets:
            if not self.has_reserve:
                self.make_reserve()
            origin, recycled, octets = RESERVE, self._reserve_recycled, self.segment_octets
        else:
            self._allocate(octets)
            origin, recycled = MAKING, False
        salt = secrets.token_bytes(SALT_OCTETS)
        header = Header(octets, salt, number, epoch, first, recycled)
        descriptor = self.files.open(self.path / origin, os.O_RDWR)
        try:
            self.files.write(descriptor, [header.encode()], 0)
            with flushing():
                self.files.sync(descriptor)
        finally:
            self.files.close(descriptor)
        path = self.path / name_of(number)
        self.files.rename(self.path / origin, path)
        if origin == RESERVE:
            self.has_reserve = False
        with flushing():
            self.files.sync_directory(self.path)
        segment = new_segment(path, header)
        segment.indexed = True
        return segment

    def drop_segment(self, segment: Segment, *, recycle: bool) -> None:
        """Removes the oldest segment, or the last one if it is empty; or makes it the reserve."""
        if recycle and not self.has_reserve and segment.header.capacity == self.segment_octets:
            self.files.rename(segment.path, self.path / RESERVE)
            self.has_reserve = True
            self._reserve_recycled = True
        else:
            self.files.unlink(segment.path)
        # Before the next one goes: after a power cut none but the oldest may be missing.
        self.files.sync_directory(self.path)

    def make_reserve(self) -> None:
        """Allocates a segment. An OSError for want of space leaves things as they were."""
        self._allocate(self.segment_octets)
        self.files.rename(self.path / MAKING, self.path / RESERVE)
        self.has_reserve = True
        self._reserve_recycled = False

    def drop_reserve(self) -> None:
        """Gives its room back."""
        self.files.unlink(self.path / RESERVE)
        self.has_reserve = False

    def find_reserve(self) -> None:
        """Takes over the reserve of the last owner, whatever was in it."""
        self.files.unlink(self.path / MAKING)
        path = self.path / RESERVE
        if path.exists() and path.stat().st_size == self.segment_octets:
            self.has_reserve = True
            self._reserve_recycled = True
        else:
            self.files.unlink(path)

    def _allocate(self, octets: int) -> None:
        path = self.path / MAKING
        self.files.unlink(path)
        descriptor = self.files.open(path, os.O_RDWR | os.O_CREAT)
        try:
            try:
                self.files.allocate(descriptor, octets)
                self.files.sync(descriptor)
            finally:
                self.files.close(descriptor)
        except OSError:
            # What was allocated by then is worth more to others.
            self.files.unlink(path)
            raise


def segment_names(path: Path) -> list[str]:
    """The names of the segments' files in a directory, oldest first."""
    return sorted(each.name for each in path.iterdir() if _SEGMENT_NAME.fullmatch(each.name))


def read_format(path: Path) -> int:
    """The version that the file names. Raises LogDamagedError, LogError for a newer one."""
    found = _FORMAT_LINE.fullmatch(path.read_bytes())
    if found is None:
        raise LogDamagedError(f"{path}: damaged: it does not name a format")
    version = int(found[1])
    if version > FORMAT_VERSION:
        raise LogError(
            f"{path}: the log has format {version}, written by a newer version of Leveret;"
            f" this version reads formats up to {FORMAT_VERSION}"
        )
    return version


def noted_epoch(path: Path) -> int:
    """The epoch of the last owner of the log in a directory; 0 if there was none."""
    try:
        found = _LOCK_LINE.match((path / LOCK).read_bytes())
    except FileNotFoundError:
        return 0
    return int(found[1]) if found else 0


def lock_descriptor(descriptor: int) -> bool:
    """Locks an open file for this process alone; whether nobody else has it locked."""
    try:
        if sys.platform == "win32":
            # Locked octets cannot be read there: far behind the ones that are.
            os.lseek(descriptor, _SMALL_FILE_OCTETS, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def remove_log(path: Path) -> None:
    """Removes the files of a log that nobody owns, and its directory if that is empty then. No log
    is no error, and a symbolic link is left alone. Raises OSError."""
    if path.is_symlink() or not (path / FORMAT).exists():
        return
    for name in (*segment_names(path), RESERVE, MAKING, SEAL, LOCK, FORMAT):
        (path / name).unlink(missing_ok=True)
    path.rmdir()

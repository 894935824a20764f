"""A copy of a log's directory, of one in use too: what was durable when it began is in it."""

from __future__ import annotations

import os
from pathlib import Path

from broker.storage.directory import FORMAT, Directory, segment_names
from broker.storage.files import DIRECTORY_MODE, Files
from broker.storage.log import LogError

_PIECE_OCTETS = 4 << 20


def backup_directory(path: Path, target: Path) -> int:
    """Copies the log in `path` into the directory `target`, which is new or empty.

    The copy opens as after a crash at some moment since the call began. Returns the octets of
    its segments. Raises LogError.
    """
    try:
        if target.exists() and any(target.iterdir()):
            raise LogError(f"{target}: not empty")
        if not (path / FORMAT).exists():
            raise LogError(f"{path}: no log in it")
        return _backup(path, target)
    except OSError as error:
        raise LogError(f"{error.filename or path}: {error.strerror}") from error


def _backup(path: Path, target: Path) -> int:
    files = Files()
    target.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    # Newest first. All but the newest are complete, and it may end anywhere. The oldest ones
    # may be dropped meanwhile: then all older ones are, and what is left is whole.
    octets = 0
    for name in reversed(segment_names(path)):
        copied = _copy(files, path / name, target / name)
        if not copied:
            break
        octets += copied
    if not octets:
        raise LogError(f"{path}: no segment could be copied while the log was in use")
    copy = Directory(target, files, 0)
    copy.write_format()
    return octets


def _copy(files: Files, source: Path, target: Path) -> int:
    """Copies a segment and returns its octets; none if it was dropped before the end."""
    try:
        descriptor = files.open(source, os.O_RDONLY)
    except FileNotFoundError:
        return 0
    try:
        identity = os.fstat(descriptor).st_ino
        copy = files.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            offset = 0
            while piece := files.read(descriptor, _PIECE_OCTETS, offset):
                files.write(copy, [piece], offset)
                offset += len(piece)
            files.sync(copy)
        finally:
            files.close(copy)
    finally:
        files.close(descriptor)
    # A dropped segment may have been written over while it was read.
    if not source.exists() or source.stat().st_ino != identity:
        files.unlink(target)
        return 0
    return offset

"""What `leveret check-data` says about a directory: it reads and changes nothing."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from broker.storage.directory import LOCK, lock_descriptor
from broker.storage.files import Files
from broker.storage.log import LogError, Position
from broker.storage.salvage import reached, read_contents


@dataclass(frozen=True)
class CheckReport:
    """The state of a log."""

    path: Path
    in_use: bool
    """Whether a broker owns it: then its end may move while it is read."""
    sealed: bool
    """Whether it was closed in good order."""
    segments: int
    batches: int
    first: Position
    next: Position
    octets: int
    """Of the segments' files."""
    epoch: int
    unfinished: int
    """Octets at the end that a crash left, or that are being written: they are discarded."""
    damage: tuple[str, ...]
    """One line for each damaged place."""

    @property
    def ok(self) -> bool:
        """Whether a broker starts with it."""
        return not self.damage

    def lines(self) -> list[str]:
        """The report for a reader."""
        how = "in use" if self.in_use else "closed" if self.sealed else "not closed in good order"
        summary = (
            f"{self.path}: {how}; batches {self.first} to {self.next - 1} ({self.batches}) in"
            f" {self.segments} segments, {self.octets} octets, epoch {self.epoch}"
        )
        lines = [summary]
        if self.unfinished:
            what = "being written" if self.in_use else "unfinished and will be discarded"
            lines.append(f"{self.unfinished} octets at the end are {what}")
        lines += self.damage
        lines.append("no damage found" if self.ok else f"{len(self.damage)} damaged places")
        return lines


def check_directory(path: Path) -> CheckReport:
    """Reads every batch of the log in a directory, in use or not, and every checksum.

    Raises LogError if there is no log, a newer version wrote it, or it cannot be read.
    """
    try:
        return _check(path)
    except OSError as error:
        raise LogError(f"{error.filename or path}: {error.strerror}") from error


def _check(path: Path) -> CheckReport:
    if not path.is_dir():
        raise LogError(f"{path}: no directory of a log")
    in_use = is_in_use(path)
    contents = read_contents(Files(), path)
    segments = contents.segments
    groups = [group for each in segments for group in each.groups]
    epochs = [group.epoch for group in groups]
    epochs += [each.header.epoch for each in segments if each.header is not None]
    damage = [line for each in segments for line in each.damage]
    first = next((each.start for each in segments if each.start is not None), 1)
    return CheckReport(
        path=path,
        in_use=in_use,
        sealed=contents.seal is not None,
        segments=len(segments),
        batches=sum(group.batches for group in groups),
        first=first,
        next=max((reached(each) or 0 for each in segments), default=0) or first,
        octets=sum(each.path.stat().st_size for each in segments if each.path.exists()),
        epoch=max(epochs, default=0),
        unfinished=segments[-1].unfinished if segments and contents.seal is None else 0,
        damage=(*contents.damage, *damage),
    )


def is_in_use(path: Path) -> bool:
    """Whether a broker owns the log. Not changed by asking."""
    if sys.platform == "win32" or not (path / LOCK).exists():
        return False
    descriptor = os.open(path / LOCK, os.O_RDONLY)
    try:
        return not lock_descriptor(descriptor)
    finally:
        os.close(descriptor)

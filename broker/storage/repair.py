"""What `leveret repair-data` does: a damaged log becomes one that opens, without what is lost.

Everything whole is kept, in its place: a batch that cannot be read becomes one without records.
Segments are written anew only where they are damaged, and the damaged files are kept aside.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from broker.storage.check import is_in_use
from broker.storage.directory import MAKING, Directory
from broker.storage.files import Files
from broker.storage.log import LogError, LogLockedError, Position
from broker.storage.salvage import Contents, Salvaged, Whole, reached, read_contents
from broker.storage.segment import (
    GROUP_OCTETS,
    HEADER_OCTETS,
    LENGTH_OCTETS,
    MARK_OCTETS,
    SALT_OCTETS,
    Header,
    decode_batches,
    encode_group,
    name_of,
)

ASIDE_SUFFIX = ".damaged"
# Empty batches of one group.
_EMPTY_MAX = 100_000


class Lost(NamedTuple):
    """Batches that cannot be read, and in which segment they were."""

    first: Position
    last: Position
    segment: str


@dataclass
class RepairReport:
    """What would be lost, or was."""

    path: Path
    applied: bool
    damage: list[str] = field(default_factory=list)
    """What is wrong, one line for each place."""
    lost: list[Lost] = field(default_factory=list)
    rewritten: list[str] = field(default_factory=list)
    """Segments that are written anew. Their old files stay, with another suffix."""
    kept: int = 0
    """Batches that are kept."""

    @property
    def needed(self) -> bool:
        """Whether there is anything to repair."""
        return bool(self.damage)

    def lines(self) -> list[str]:
        """The report for a reader."""
        if not self.needed:
            return [f"{self.path}: nothing to repair, {self.kept} batches"]
        was = "was" if self.applied else "would be"
        lines = list(self.damage)
        lines += [
            f"lost {was}: batches {each.first} to {each.last} of {each.segment}"
            for each in self.lost
        ]
        lines += [f"written anew {was}: {name}" for name in self.rewritten]
        lines.append(f"kept {was}: {self.kept} batches")
        return lines


class _Plan(NamedTuple):
    """A segment as it is to be: its batches go from `first` to before `next`."""

    segment: Salvaged
    first: Position
    next: Position
    is_last: bool


def repair_directory(path: Path, *, apply: bool) -> RepairReport:
    """Says what a repair of the log in a directory would lose, and with `apply` does it.

    What is lost can be a message, or that one was settled: then it is delivered once more.
    Raises LogLockedError if a broker owns the log, and LogError as `check_directory` does.
    """
    if not path.is_dir():
        raise LogError(f"{path}: no directory of a log")
    if not apply and is_in_use(path):
        raise LogLockedError(f"{path}: in use by a broker")
    files = Files()
    directory = Directory(path, files, 0)
    try:
        epoch = directory.lock() if apply else 0
        contents = read_contents(files, path)
        return _repair(directory, contents, epoch, apply=apply)
    except OSError as error:
        raise LogError(f"{error.filename or path}: {error.strerror}") from error
    finally:
        directory.unlock()


def _repair(directory: Directory, contents: Contents, epoch: int, *, apply: bool) -> RepairReport:
    segments = contents.segments
    damage = [*contents.damage, *(line for each in segments for line in each.damage)]
    groups = [group for each in segments for group in each.groups]
    kept = sum(group.batches for group in groups)
    report = RepairReport(directory.path, apply, damage, kept=kept)
    if not damage:
        return report
    plans = list(_plans(segments))
    for plan in plans:
        report.lost += _lost(plan)
        if _is_to_be_written(plan):
            report.rewritten.append(plan.segment.path.name)
    end = plans[-1].next if plans else 1
    if contents.seal is not None and end < contents.seal.next:
        report.lost.append(Lost(end, contents.seal.next - 1, name_of(contents.seal.number)))
    if apply:
        # The seal goes first: what follows can be repeated.
        directory.break_seal()
        # The highest, so that the mark's is not lower than that of any group before it.
        epoch = max([epoch, *(group.epoch for group in groups)])
        for plan in plans:
            if _is_to_be_written(plan):
                _write(directory, plan, epoch)
        directory.write_format()
    return report


def _plans(segments: Sequence[Salvaged]) -> Iterator[_Plan]:
    """Where each segment starts and ends so that the next one goes on there."""
    start = next((each.start for each in segments if each.start is not None), 1)
    for place, each in enumerate(segments):
        end = max(start, reached(each) or 0)
        is_last = place == len(segments) - 1
        following = None if is_last else segments[place + 1].start
        if following is not None:
            if following < end:
                raise LogError(f"{each.path}: batches are there twice: no way to repair")
            end = following
        yield _Plan(each, start, end, is_last)
        start = end


def _lost(plan: _Plan) -> Iterator[Lost]:
    """The batches of a segment that are not whole."""
    position = plan.first
    for group in plan.segment.groups:
        if group.position > position:
            yield Lost(position, group.position - 1, plan.segment.path.name)
        position = group.next
    if position < plan.next:
        yield Lost(position, plan.next - 1, plan.segment.path.name)


def _is_to_be_written(plan: _Plan) -> bool:
    segment = plan.segment
    return (
        segment.header is None
        or bool(segment.damage)
        or segment.marked == plan.is_last
        or any(True for _ in _lost(plan))
    )


def _write(directory: Directory, plan: _Plan, epoch: int) -> None:
    """Writes a segment anew, and keeps the old file aside."""
    files, segment = directory.files, plan.segment
    batches = plan.next - plan.first
    whole = sum(group.end - group.offset for group in segment.groups)
    gaps = 2 + len(segment.groups) + batches // _EMPTY_MAX
    capacity = HEADER_OCTETS + whole + gaps * GROUP_OCTETS + batches * LENGTH_OCTETS + MARK_OCTETS
    salt = secrets.token_bytes(SALT_OCTETS)
    header = Header(capacity, salt, segment.number, 0, plan.first, recycled=False)
    making = directory.path / MAKING
    files.unlink(making)
    descriptor = files.open(making, os.O_RDWR | os.O_CREAT)
    try:
        files.allocate(descriptor, capacity)
        files.write(descriptor, [header.encode()], 0)
        offset = HEADER_OCTETS
        for group_epoch, position, records in _groups(files, plan, epoch):
            pieces, _ = encode_group(header, group_epoch, position, records)
            files.write(descriptor, pieces, offset)
            offset += sum(map(len, pieces))
        files.sync(descriptor)
    finally:
        files.close(descriptor)
    if segment.path.exists():
        files.rename(segment.path, segment.path.with_name(segment.path.name + ASIDE_SUFFIX))
    files.rename(making, segment.path)
    files.sync_directory(directory.path)


def _groups(
    files: Files, plan: _Plan, epoch: int
) -> Iterator[tuple[int, Position, list[Sequence[bytes]]]]:
    """Epoch, position and batches of each group that a segment is to have, the mark included."""
    position, last_epoch = plan.first, 0
    for group, batches in _kept(files, plan.segment):
        yield from _empty(last_epoch, position, group.position)
        yield group.epoch, group.position, [[batch] for batch in batches]
        position, last_epoch = group.next, group.epoch
    yield from _empty(last_epoch, position, plan.next)
    if not plan.is_last:
        yield epoch, plan.next, []


def _empty(
    epoch: int, position: Position, end: Position
) -> Iterator[tuple[int, Position, list[Sequence[bytes]]]]:
    for first in range(position, end, _EMPTY_MAX):
        yield epoch, first, [[]] * min(_EMPTY_MAX, end - first)


def _kept(files: Files, segment: Salvaged) -> Iterator[tuple[Whole, list[bytes]]]:
    if not segment.groups:
        return
    descriptor = files.open(segment.path, os.O_RDONLY)
    try:
        for group in segment.groups:
            octets = files.read(descriptor, group.end - group.offset, group.offset)
            yield group, decode_batches(octets)
    finally:
        files.close(descriptor)

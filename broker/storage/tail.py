"""Opening a segment log: where it ends, what a crash left there, and reading it all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from broker.storage.directory import Directory, Seal
from broker.storage.files import Files, naming
from broker.storage.log import LogDamagedError, Position
from broker.storage.segment import Header, Scan, Segment, damaged, index
from broker.storage.writer import write_mark


class Discarded(NamedTuple):
    """What a crash left unfinished: nobody was told that it is durable."""

    path: str
    offset: int
    octets: int
    position: Position
    """Of the first batch that was being written."""


def read_tail(directory: Directory, last_epoch: int) -> tuple[list[Segment], int, Discarded | None]:
    """The segments of the log, the epoch of its new owner, and what was discarded.

    Makes the first segment of a new log, and the end of an old one ready to be written.
    Raises LogDamagedError, OSError.
    """
    segments = directory.segments()
    seal = directory.seal()
    if not segments:
        if seal is not None or last_epoch:
            raise LogDamagedError(f"{directory.path}: damaged: its segments are missing")
        first = directory.make_segment(1, 0, 1, 0)
        directory.note_epoch(1)
        return [first], 1, None
    tail = segments[-1]
    files = directory.files
    descriptor = files.open(tail.path, os.O_RDWR)
    try:
        with naming(tail.path):
            scan = Scan(files, descriptor, tail.header)
            for _ in index(tail, scan.groups()):
                pass
            discarded = check_end(tail, scan, seal)
        directory.find_reserve()
        epoch = max(last_epoch, scan.epoch) + 1
        if seal is None:
            _write_again(files, descriptor, tail.header, scan)
            if len(segments) > 1 and not len(tail.starts):
                _mark_previous(files, segments[-2], tail, epoch)
            # The flush of its name may have failed too.
            files.sync_directory(directory.path)
    finally:
        files.close(descriptor)
    directory.note_epoch(epoch)
    directory.break_seal()
    return segments, epoch, discarded


def check_end(tail: Segment, scan: Scan, seal: Seal | None) -> Discarded | None:
    """What is discarded behind the last group of the last segment, which was scanned to its end.

    Raises LogDamagedError if that is more than a crash can leave.
    """
    if scan.marked:
        raise damaged(tail.path, scan.end, "the next segment is missing")
    if seal is not None:
        if (tail.header.number, scan.end, scan.position) != (seal.number, seal.end, seal.next):
            raise damaged(
                tail.path,
                scan.end,
                f"the log was closed with {seal.next - 1} as its last batch, in segment"
                f" {seal.number} up to offset {seal.end}; {scan.position - 1} is what is left",
            )
        return None
    for group in scan.groups_after(scan.end):
        raise damaged(
            tail.path,
            scan.end,
            f"batch {scan.position} should be here; batches from {group.position} on follow"
            f" at offset {group.offset}",
        )
    octets = scan.written_after(scan.end)
    if octets:
        return Discarded(str(tail.path), scan.end, octets, scan.position)
    return None


def _write_again(files: Files, descriptor: int, header: Header, scan: Scan) -> None:
    """Makes the last group durable, and the file whole.

    What was read may be in the memory of the system alone, if its flush had failed. The octets
    are the same, so a crash in the middle leaves them as they are.
    """
    if scan.last is not None:
        group = scan.last
        octets = files.read(descriptor, group.end - group.offset, group.offset)
        files.write(descriptor, [octets], group.offset)
    if files.size(descriptor) < header.capacity:
        files.allocate(descriptor, header.capacity)
    files.sync(descriptor)


def _mark_previous(files: Files, previous: Segment, tail: Segment, epoch: int) -> None:
    """Ends the segment before an empty one: a crash may have come before that, or before it was
    durable."""
    descriptor = files.open(previous.path, os.O_RDWR)
    try:
        scan = Scan(files, descriptor, previous.header)
        for _ in index(previous, scan.groups()):
            pass
        if scan.marked:
            _write_again(files, descriptor, previous.header, scan)
        elif scan.position == tail.first:
            write_mark(files, descriptor, previous, epoch)
    finally:
        files.close(descriptor)


def replay_segments(files: Files, segments: list[Segment]) -> Iterator[tuple[Position, bytes]]:
    """Every batch with its position, oldest first. Raises LogDamagedError."""
    for place, segment in enumerate(segments):
        following = segments[place + 1] if place + 1 < len(segments) else None
        try:
            yield from _replay(files, segment, following)
        except OSError as error:
            raise LogDamagedError(f"{segment.path}: {error.strerror}") from error


def _replay(
    files: Files, segment: Segment, following: Segment | None
) -> Iterator[tuple[Position, bytes]]:
    descriptor = files.open(segment.path, os.O_RDONLY)
    try:
        scan = Scan(files, descriptor, segment.header)
        groups = scan.groups()
        for group in groups if segment.indexed else index(segment, groups):
            yield from group.batches()
        if following is not None:
            check_transition(segment, scan, following)
        elif scan.position != segment.next:
            raise damaged(segment.path, scan.end, f"batch {scan.position} cannot be read again")
    finally:
        files.close(descriptor)


def check_transition(segment: Segment, scan: Scan, following: Segment) -> None:
    """Raises LogDamagedError unless the next segment goes on where this one ends."""
    if scan.marked and scan.position == following.first:
        return
    unmarked = "" if scan.marked else ", without a mark"
    raise damaged(
        segment.path,
        scan.end,
        f"the segment ends before batch {scan.position}{unmarked};"
        f" {following.path.name} goes on with batch {following.first}",
    )

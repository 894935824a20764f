"""Reading the files of a log that may be damaged: every group that is whole, and what is not."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from broker.storage.directory import (
    FORMAT,
    SEAL,
    Seal,
    decode_seal,
    noted_epoch,
    read_format,
    segment_names,
)
from broker.storage.files import Files
from broker.storage.log import LogDamagedError, LogError, Position
from broker.storage.segment import (
    GROUP_OCTETS,
    HEADER_OCTETS,
    SALT_OCTETS,
    SUFFIX,
    Group,
    Header,
    Scan,
    examine_header,
    group_salt,
    name_of,
)


class Whole(NamedTuple):
    """Where a whole group is in its segment, and the batches that it holds."""

    offset: int
    end: int
    epoch: int
    position: Position
    batches: int

    @property
    def next(self) -> Position:
        """The position behind its last batch."""
        return self.position + self.batches


class Salvaged(NamedTuple):
    """What is left of one segment."""

    number: int
    path: Path
    header: Header | None
    """None if it is damaged: then groups are found by the salt that it seems to have."""
    groups: list[Whole]
    marked: bool
    """Whether it ends with the mark that another one follows."""
    damage: list[str]
    """One line for each place; nothing for an unfinished end."""
    unfinished: int
    """Octets behind the last group that look written."""

    @property
    def start(self) -> Position | None:
        """The position of its first batch, if anything tells."""
        if self.header is not None:
            return self.header.first
        return self.groups[0].position if self.groups else None

    @property
    def end(self) -> int:
        """The first octet behind the last whole group."""
        return self.groups[-1].end if self.groups else HEADER_OCTETS


def salvage(files: Files, path: Path) -> Salvaged:
    """Reads one segment. Raises OSError, and LogError if a newer version wrote it."""
    number = int(path.name.removesuffix(SUFFIX))
    descriptor = files.open(path, os.O_RDONLY)
    try:
        octets = files.read(descriptor, HEADER_OCTETS + GROUP_OCTETS, 0)
        header, wrong = examine_header(octets)
        damage = [f"{path}: damaged at offset 0: {wrong}"] if wrong else []
        if header is not None and not wrong and header.number != number:
            damage.append(f"{path}: damaged: it says that it is segment {header.number}")
        if damage:
            found = _salvage_by_salt(files, descriptor, header, octets)
        else:
            assert header is not None
            scan = Scan(files, descriptor, header)
            found = [_whole(group) for group in scan.groups()]
            if not scan.marked:
                found += _in_order(scan, path, damage)
        groups = [each for each in found if each.batches]
        marked = bool(found) and not found[-1].batches
        unfinished = 0
        if header is not None and not marked and not damage:
            end = groups[-1].end if groups else HEADER_OCTETS
            unfinished = Scan(files, descriptor, header).written_after(end)
    finally:
        files.close(descriptor)
    if header is not None and (wrong or header.number != number):
        header = None
    return Salvaged(number, path, header, groups, marked, damage, unfinished)


def _whole(group: Group) -> Whole:
    return Whole(group.offset, group.end, group.epoch, group.position, len(group.sizes))


def _in_order(scan: Scan, path: Path, damage: list[str]) -> Iterator[Whole]:
    """The groups behind a place where none could be read, and what is missing between them."""
    position, end = scan.position, scan.end
    for group in map(_whole, scan.groups_after(scan.end)):
        if group.position < position:
            damage.append(f"{path}: damaged at offset {group.offset}: a batch out of order")
            continue
        if group.position > position:
            lost = f"batches {position} to {group.position - 1} cannot be read"
            damage.append(f"{path}: damaged at offset {end}: {lost}")
        elif group.offset > end:
            damage.append(f"{path}: damaged at offset {end}: what follows here cannot be read")
        yield group
        position, end = group.next, group.end


def _salvage_by_salt(
    files: Files, descriptor: int, header: Header | None, octets: bytes
) -> list[Whole]:
    """The groups of a segment whose header is damaged: by the salt there, or the first group's."""
    if header is None:
        return []
    capacity = files.size(descriptor)
    for salt in (header.salt, group_salt(octets[HEADER_OCTETS:])):
        if len(salt) == SALT_OCTETS and salt.strip(b"\0"):
            guess = header._replace(capacity=capacity, salt=salt, first=0, epoch=0)
            scan = Scan(files, descriptor, guess)
            found: list[Whole] = []
            for group in map(_whole, scan.groups_after(HEADER_OCTETS)):
                if not found or group.position >= found[-1].next:
                    found.append(group)
            if found:
                return found
    return []


class Contents(NamedTuple):
    """What is left of a whole log."""

    segments: list[Salvaged]
    """Oldest first; one without a file stands for each that is missing."""
    seal: Seal | None
    damage: list[str]
    """Of the small files, and where segments are missing or do not meet."""


def read_contents(files: Files, path: Path) -> Contents:
    """Reads all of a log, changing nothing.

    Raises OSError, and LogError if there is no log or a newer version wrote it.
    """
    if not segment_names(path) and not any((path / name).exists() for name in (FORMAT, SEAL)):
        raise LogError(f"{path}: no log in it")
    damage: list[str] = []
    seal = None
    try:
        if not (path / FORMAT).exists():
            raise LogDamagedError(f"{path / FORMAT}: missing")
        read_format(path / FORMAT)
    except LogDamagedError as error:
        damage.append(str(error))
    try:
        if (path / SEAL).exists():
            seal = decode_seal((path / SEAL).read_bytes(), path / SEAL)
    except LogDamagedError as error:
        damage.append(str(error))
    segments = _read_segments(files, path)
    for before, after in itertools.pairwise(segments):
        damage += _between(before, after, is_last=after is segments[-1])
    if segments:
        damage += _at_the_end(segments[-1], seal)
    elif seal is not None or noted_epoch(path):
        damage.append(f"{path}: damaged: its segments are missing")
    return Contents(segments, seal, damage)


def _read_segments(files: Files, path: Path) -> list[Salvaged]:
    names = segment_names(path)
    segments: list[Salvaged] = []
    number = int(names[0].removesuffix(SUFFIX)) if names else 0
    last = int(names[-1].removesuffix(SUFFIX)) if names else -1
    while number <= last or (path / name_of(number)).exists():
        file = path / name_of(number)
        try:
            segments.append(salvage(files, file))
        except FileNotFoundError:
            # A broker that runs drops the oldest ones.
            if segments:
                segments.append(
                    Salvaged(
                        number,
                        file,
                        None,
                        [],
                        marked=False,
                        damage=[f"{file}: missing"],
                        unfinished=0,
                    )
                )
        number += 1
    return segments


def reached(segment: Salvaged) -> Position | None:
    """The position behind its last batch, if anything tells."""
    return segment.groups[-1].next if segment.groups else segment.start


def _between(before: Salvaged, after: Salvaged, *, is_last: bool) -> Iterator[str]:
    """What is wrong where two segments meet, unless it is said elsewhere."""
    if before.header is None or after.header is None:
        return
    ends, starts = reached(before), after.header.first
    if ends != starts:
        yield (
            f"{before.path}: damaged at offset {before.end}: it ends before batch {ends},"
            f" {after.path.name} goes on with batch {starts}"
        )
    elif not before.marked and (after.groups or not is_last):
        yield f"{before.path}: damaged at offset {before.end}: the end mark cannot be read"


def _at_the_end(last: Salvaged, seal: Seal | None) -> Iterator[str]:
    if last.marked:
        yield f"{last.path}: damaged at offset {last.end}: the next segment is missing"
    elif (
        seal is not None
        and last.header is not None
        and (last.number, last.end, reached(last)) != (seal.number, seal.end, seal.next)
    ):
        yield (
            f"{last.path}: damaged at offset {last.end}: the log was closed behind batch"
            f" {seal.next - 1}, {(reached(last) or 1) - 1} is what is left"
        )

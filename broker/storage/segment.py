"""One file of the segment log: its header, its groups of batches, and reading them in order.

A segment is a preallocated file. Its header has a random salt, which every group in it repeats:
so octets left from the file's earlier life, or hidden in a message by somebody clever, are never
taken for a group, and a group behind a damaged place is found by searching for the salt.

    header  magic, checksum, flags, version, octets of the file, salt, number, epoch, first position
    group   checksum, batches, octets that follow, salt, epoch, first position,
            the length of each batch, the batches

A group is what was written and made durable by one call. It is whole or it is not there: the
checksum is over everything behind it, up to the end of the last batch. A group without batches
is the end mark, which says that the next segment exists. Numbers are little-endian.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from broker.storage.files import Files
from broker.storage.log import LogDamagedError, LogError, Position

FORMAT_VERSION = 1
SUFFIX = ".log"

_MAGIC = b"LEVERETS"
_HEADER = struct.Struct("<8sIHHQ8sQQQ8x")
_HEADER_CHECKED = 12
HEADER_OCTETS = _HEADER.size
SALT_OCTETS = 8

_GROUP = struct.Struct("<IIQ8sQQ")
_GROUP_CHECKED = 4
_GROUP_SALT = 16
GROUP_OCTETS = _GROUP.size
LENGTH_OCTETS = 8
MARK_OCTETS = GROUP_OCTETS

_FLAG_RECYCLED = 1
# What is read at once: large enough that the interpreter does little per octet.
_PIECE_OCTETS = 4 << 20
_ZEROS = bytes(_PIECE_OCTETS)


class Header(NamedTuple):
    """What is fixed for the life of a segment."""

    capacity: int
    """Octets of the file, all allocated."""
    salt: bytes
    number: int
    epoch: int
    """Of the owner that made it."""
    first: Position
    """The position of its first batch, or the next one if it has none yet."""
    recycled: bool
    """Whether the file had an earlier life, so that octets behind the last group mean nothing."""

    def encode(self) -> bytes:
        """The first octets of the file."""
        flags = _FLAG_RECYCLED if self.recycled else 0
        fields = (self.capacity, self.salt, self.number, self.epoch, self.first)
        octets = _HEADER.pack(_MAGIC, 0, flags, FORMAT_VERSION, *fields)
        return _HEADER.pack(_MAGIC, _header_checksum(octets), flags, FORMAT_VERSION, *fields)


def decode_header(octets: bytes, path: Path) -> Header:
    """The header of the segment at `path`.

    Raises LogDamagedError, and LogError if a newer version wrote it.
    """
    header, damage = examine_header(octets)
    if damage:
        raise damaged(path, 0, damage)
    assert header is not None
    return header


def examine_header(octets: bytes) -> tuple[Header | None, str]:
    """What the header says, if anything can be read, and what is wrong with it ('' for nothing).

    Raises LogError if a newer version wrote it.
    """
    if len(octets) < HEADER_OCTETS:
        return None, "the segment's header is cut off"
    octets = octets[:HEADER_OCTETS]
    magic, checksum, flags, version, capacity, salt, number, epoch, first = _HEADER.unpack(octets)
    header = Header(capacity, salt, number, epoch, first, bool(flags & _FLAG_RECYCLED))
    if magic != _MAGIC or checksum != _header_checksum(octets):
        return header, "the segment's header is damaged"
    if version != FORMAT_VERSION:
        raise LogError(
            f"a segment has format {version}; this version of Leveret reads {FORMAT_VERSION}"
        )
    return header, ""


def _header_checksum(octets: bytes) -> int:
    return zlib.crc32(octets[_HEADER_CHECKED:], zlib.crc32(octets[: len(_MAGIC)]))


def name_of(number: int) -> str:
    """The name of a segment's file; names sort like numbers."""
    return f"{number:010d}{SUFFIX}"


def damaged(path: Path, offset: int, reason: str) -> LogDamagedError:
    """The error that says where: one line."""
    return LogDamagedError(f"{path}: damaged at offset {offset}: {reason}")


def encode_group(
    header: Header, epoch: int, position: Position, batches: Sequence[Sequence[bytes]]
) -> tuple[list[bytes], array[int]]:
    """The pieces to be written for these batches, the first of which has this position.

    Returns them and the length of each batch. The work per record is C's.
    """
    sizes = array("Q", [sum(map(len, records)) for records in batches])
    if len(batches) == 1:
        body = b"".join([encode_sizes(sizes), *batches[0]])
    else:
        body = b"".join([encode_sizes(sizes), *(each for records in batches for each in records)])
    fields = (len(batches), len(body), header.salt, epoch, position)
    unchecked = _GROUP.pack(0, *fields)
    checksum = zlib.crc32(body, zlib.crc32(unchecked[_GROUP_CHECKED:]))
    return [_GROUP.pack(checksum, *fields), body], sizes


def encode_sizes(sizes: array[int]) -> bytes:
    """The lengths of batches as they are written."""
    return struct.pack(f"<{len(sizes)}Q", *sizes)


def group_salt(octets: bytes) -> bytes:
    """The salt of the group that starts here, whole or not."""
    return octets[_GROUP_SALT : _GROUP_SALT + SALT_OCTETS]


def decode_batches(octets: bytes) -> list[bytes]:
    """The batches of a group that is known to be whole."""
    count = _GROUP.unpack_from(octets)[1]
    start = GROUP_OCTETS + count * LENGTH_OCTETS
    batches = []
    for size in struct.unpack_from(f"<{count}Q", octets, GROUP_OCTETS):
        batches.append(octets[start : start + size])
        start += size
    return batches


class Group(NamedTuple):
    """A whole group. Offsets are in the segment."""

    offset: int
    end: int
    epoch: int
    position: Position
    sizes: tuple[int, ...]
    body: memoryview
    """The batches one after the other."""

    @property
    def is_mark(self) -> bool:
        """Whether it says that the segment ends here and another one follows."""
        return not self.sizes

    def batches(self) -> Iterator[tuple[Position, bytes]]:
        """Each batch with its position."""
        start = 0
        for position, size in enumerate(self.sizes, self.position):
            yield position, bytes(self.body[start : start + size])
            start += size


class Scan:
    """Reads a segment's groups from its first one on, as long as they are whole and in order.

    Afterwards `end` is where reading stopped, `position` the one that comes next, `epoch` the
    highest seen, and `marked` tells whether it stopped at the end mark.
    """

    def __init__(self, files: Files, descriptor: int, header: Header) -> None:
        self.end = HEADER_OCTETS
        self.position = header.first
        self.epoch = header.epoch
        self.marked = False
        self.last: Group | None = None
        self._files = files
        self._descriptor = descriptor
        self._header = header
        self._piece = memoryview(b"")
        self._base = HEADER_OCTETS

    def groups(self) -> Iterator[Group]:
        """The groups; ends at the first place where none is."""
        while not self.marked:
            group = self._group_at(self.end)
            if group is None or group.position != self.position or group.epoch < self.epoch:
                return
            self.end = group.end
            self.position += len(group.sizes)
            self.epoch = group.epoch
            self.marked = group.is_mark
            self.last = group
            yield group

    def groups_after(self, offset: int) -> Iterator[Group]:
        """Every whole group of this segment behind a place where none could be read."""
        at = offset
        while True:
            at = self._salt_from(at + _GROUP_SALT) - _GROUP_SALT
            if at < offset:
                return
            group = self._group_at(at)
            if group is None:
                at += 1
            else:
                yield group
                at = group.end

    def written_after(self, offset: int) -> int:
        """Octets of a torn group at this place, as far as can be told; 0 for none."""
        octets = self._octets(offset, GROUP_OCTETS)
        if len(octets) == GROUP_OCTETS:
            _, _, length, salt, _, _ = _GROUP.unpack(octets)
            if salt == self._header.salt:
                rest = self._files.size(self._descriptor) - offset
                return int(min(GROUP_OCTETS + length, rest))
        if self._header.recycled:
            return 0
        # The file was all zeros: whatever is not was being written.
        written = 0
        for at, piece in self._pieces_from(offset, 0):
            # Comparing is many times faster than stripping.
            if piece != _ZEROS[: len(piece)]:
                written = at + len(piece.rstrip(b"\0")) - offset
        return written

    def _group_at(self, offset: int) -> Group | None:
        octets = self._octets(offset, GROUP_OCTETS)
        if len(octets) < GROUP_OCTETS:
            return None
        checksum, count, length, salt, epoch, position = _GROUP.unpack(octets)
        if salt != self._header.salt or length < count * LENGTH_OCTETS:
            return None
        if offset + GROUP_OCTETS + length > self._header.capacity:
            return None
        octets = self._octets(offset, GROUP_OCTETS + length)
        if len(octets) < GROUP_OCTETS + length:
            return None
        if zlib.crc32(octets[_GROUP_CHECKED:]) != checksum:
            return None
        body = octets[GROUP_OCTETS:]
        lengths_end = count * LENGTH_OCTETS
        sizes = struct.unpack(f"<{count}Q", body[:lengths_end])
        if lengths_end + sum(sizes) != length:
            return None
        end = offset + GROUP_OCTETS + length
        return Group(offset, end, epoch, position, sizes, body[lengths_end:])

    def _octets(self, offset: int, count: int) -> memoryview:
        """These octets of the file, from the piece that was read last or from a new one."""
        start = offset - self._base
        if start < 0 or start + count > len(self._piece):
            size = max(count, _PIECE_OCTETS)
            self._piece = memoryview(self._files.read(self._descriptor, size, offset))
            self._base = offset
            start = 0
        return self._piece[start : start + count]

    def _salt_from(self, offset: int) -> int:
        """Where the salt is found next, or -1."""
        for at, piece in self._pieces_from(offset, SALT_OCTETS - 1):
            found = piece.find(self._header.salt)
            if found >= 0:
                return at + found
        return -1

    def _pieces_from(self, offset: int, overlap: int) -> Iterator[tuple[int, bytes]]:
        """What was written to the file from there on. Each piece repeats the end of the last."""
        while True:
            written = self._files.written_from(self._descriptor, offset)
            if written is None:
                return
            # A hole is told in blocks of the file system; what is looked for may begin before.
            offset = max(offset, written - overlap)
            piece = self._files.read(self._descriptor, _PIECE_OCTETS, offset)
            if not piece:
                return
            yield offset, piece
            offset += len(piece) - (overlap if len(piece) > overlap else 0)
            if len(piece) < _PIECE_OCTETS:
                return


@dataclass(slots=True)
class Segment:
    """A segment of an open log: what is known of it."""

    path: Path
    header: Header
    end: int
    """The first octet behind the last durable group."""
    starts: array[int]
    """Where each batch starts, and in `ends` where it ends, once the segment was read."""
    ends: array[int]
    indexed: bool = False

    @property
    def first(self) -> Position:
        """The position of its first batch."""
        return self.header.first

    @property
    def next(self) -> Position:
        """The position behind its last batch. Only if it is indexed."""
        return self.header.first + len(self.starts)

    @property
    def room(self) -> int:
        """Octets that a group may still take."""
        return self.header.capacity - MARK_OCTETS - self.end

    def add(self, body: int, sizes: Sequence[int], end: int) -> None:
        """Notes a group whose batches start at `body` and which ends at `end`."""
        for size in sizes:
            # The ends come first: whoever finds a start in another thread finds its end.
            self.ends.append(body + size)
            self.starts.append(body)
            body += size
        self.end = end


def new_segment(path: Path, header: Header) -> Segment:
    """A segment of which nothing is known but its header."""
    return Segment(path, header, HEADER_OCTETS, array("Q"), array("Q"))


def index(segment: Segment, groups: Iterator[Group]) -> Iterator[Group]:
    """Passes groups on; the segment is indexed by them when they end."""
    starts, ends = array("Q"), array("Q")
    end = HEADER_OCTETS
    for group in groups:
        at = group.end - len(group.body)
        for size in group.sizes:
            starts.append(at)
            at += size
            ends.append(at)
        end = group.end
        yield group
    segment.ends = ends
    segment.starts = starts
    segment.end = end
    segment.indexed = True

"""Torn and damaged files: no wrong batch is ever accepted, and nothing is lost in silence.

A log of about 10 KB is recorded once. It is cut at every octet, and every bit is flipped: the
files are held in memory for that, and opened by the code that opens real ones.
"""

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from broker.storage.check import check_directory
from broker.storage.directory import SEAL, Directory, Seal, decode_seal
from broker.storage.files import Files
from broker.storage.log import LogDamagedError, LogError, LogLockedError
from broker.storage.repair import repair_directory
from broker.storage.segment import (
    GROUP_OCTETS,
    HEADER_OCTETS,
    LENGTH_OCTETS,
    Scan,
    decode_header,
    index,
    new_segment,
)
from broker.storage.tail import check_end, replay_segments
from tests.storage.owner import Owner, open_log, replayed

SEGMENT = 5120
SIZES = [900, 0, 1300, 30, 700, 1500, 1, 1200, 800, 1000, 400, 300, 1100, 600]


class Recording(NamedTuple):
    """A closed log: its files, and what was appended."""

    path: Path
    segments: dict[str, bytes]
    seal: Seal
    batches: list[tuple[int, bytes]]


class Octets(Files):
    """Reads files that are octets in memory. A descriptor is a place in the list."""

    def __init__(self) -> None:
        super().__init__(durable=False)
        self.contents: list[bytes] = []
        self.names: list[str] = []

    def open(self, path: Path, flags: int) -> int:
        assert flags == os.O_RDONLY
        return self.names.index(path.name)

    def close(self, descriptor: int) -> None:
        assert descriptor < len(self.names)

    def size(self, descriptor: int) -> int:
        return len(self.contents[descriptor])

    def read(self, descriptor: int, count: int, offset: int) -> bytes:
        return self.contents[descriptor][offset : offset + count]

    def written_from(self, descriptor: int, offset: int) -> int | None:
        return offset if offset < self.size(descriptor) else None


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    path = tmp_path_factory.mktemp("recorded")
    owner = Owner()
    log = open_log(path, owner, segment_bytes=SEGMENT)
    chance = random.Random(1)
    batches = []
    for size in SIZES:
        batch = chance.randbytes(size)
        batches.append((owner.append(log, batch), batch))
    log.close()
    names = Directory(path, Files(), SEGMENT).names()
    assert len(names) == 3
    segments = {name: (path / name).read_bytes() for name in names}
    seal = decode_seal((path / SEAL).read_bytes(), path / SEAL)
    return Recording(path, segments, seal, batches)


def opened(contents: dict[str, bytes], seal: Seal | None) -> tuple[list[tuple[int, bytes]], int]:
    """What is replayed of these files, and the octets discarded. Raises LogDamagedError."""
    files = Octets()
    files.names, files.contents = list(contents), list(contents.values())
    segments = [
        new_segment(Path(name), decode_header(octets[:HEADER_OCTETS], Path(name)))
        for name, octets in contents.items()
    ]
    tail = segments[-1]
    scan = Scan(files, len(segments) - 1, tail.header)
    for _ in index(tail, scan.groups()):
        pass
    discarded = check_end(tail, scan, seal)
    return list(replay_segments(files, segments)), discarded.octets if discarded else 0


def used(recording: Recording, name: str) -> int:
    """Octets of a segment that were written, marks included."""
    return len(recording.segments[name].rstrip(b"\0"))


def flips(octets: bytes, count: int) -> Iterator[tuple[int, bytes]]:
    for offset in range(count):
        for bit in range(8):
            flipped = bytearray(octets)
            flipped[offset] ^= 1 << bit
            yield offset, bytes(flipped)


def is_refused(contents: dict[str, bytes], seal: Seal | None, name: str) -> bool:
    """Whether it is, by a sentence of one line that names the file."""
    try:
        opened(contents, seal)
    except LogDamagedError as error:
        text = str(error)
        assert name in text
        assert "offset" in text
        assert "\n" not in text
        return True
    return False


def test_recording_is_whole(recording: Recording) -> None:
    assert opened(recording.segments, recording.seal) == (recording.batches, 0)
    assert opened(recording.segments, None) == (recording.batches, 0)
    assert sum(used(recording, name) for name in recording.segments) > 9_000


@pytest.mark.parametrize("place", [0, 1])
def test_every_flipped_bit_before_the_last_segment_is_refused(
    recording: Recording, place: int
) -> None:
    """What comes after it does not matter but for its header, nor whether the log was closed."""
    name, following = list(recording.segments)[place : place + 2]
    for offset, flipped in flips(recording.segments[name], used(recording, name)):
        contents = {name: flipped, following: recording.segments[following][:HEADER_OCTETS]}
        assert is_refused(contents, None, name), offset


def test_every_flipped_bit_of_a_sealed_end_is_refused(recording: Recording) -> None:
    *_, name = recording.segments
    for offset, flipped in flips(recording.segments[name], recording.seal.end):
        assert is_refused({name: flipped}, recording.seal, name), offset


def test_flipped_bit_of_an_unsealed_end_is_refused_or_ends_it(recording: Recording) -> None:
    """Only the last group of all can be taken for one that was being written."""
    *_, name = recording.segments
    octets = recording.segments[name]
    first = decode_header(octets, Path(name)).first
    _, last = recording.batches[-1]
    torn_from = recording.seal.end - len(last) - GROUP_OCTETS - LENGTH_OCTETS
    for offset, flipped in flips(octets, recording.seal.end):
        if offset < torn_from:
            assert is_refused({name: flipped}, None, name), offset
        else:
            assert opened({name: flipped}, None)[0] == recording.batches[first - 1 : -1], offset


def test_end_cut_at_every_octet_keeps_every_batch_before_it(recording: Recording) -> None:
    *_, name = recording.segments
    octets = recording.segments[name]
    first = decode_header(octets, Path(name)).first
    ends, at = [], HEADER_OCTETS
    for _, batch in recording.batches[first - 1 :]:
        at += GROUP_OCTETS + LENGTH_OCTETS + len(batch)
        ends.append(at)
    assert ends[-1] == recording.seal.end
    for cut in range(HEADER_OCTETS, recording.seal.end):
        whole = sum(end <= cut for end in ends)
        expected = recording.batches[: first - 1 + whole]
        start = ends[whole - 1] if whole else HEADER_OCTETS
        short = {**recording.segments, name: octets[:cut]}
        torn = {**recording.segments, name: octets[:cut].ljust(len(octets), b"\0")}
        batches, discarded = opened(short, None)
        assert batches == expected
        assert discarded == len(octets[start:cut].rstrip(b"\0")) or discarded == cut - start
        # An octet that was zero is not missed.
        whole = sum(not octets[cut:end].strip(b"\0") for end in ends)
        assert opened(torn, None)[0] == recording.batches[: first - 1 + whole]
        # A log that was closed in good order has no torn end.
        assert is_refused(short, recording.seal, name)
        assert is_refused(torn, recording.seal, name)


def test_cut_within_a_header_or_before_the_last_segment_is_refused(recording: Recording) -> None:
    names = list(recording.segments)
    for place, name in enumerate(names):
        stop = HEADER_OCTETS if place == 2 else used(recording, name)
        for cut in range(stop):
            contents = {**recording.segments, name: recording.segments[name][:cut]}
            assert is_refused(contents, None, name), cut


@pytest.fixture
def copied(recording: Recording, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recording.path, tmp_path / "copy"))


def unseal(path: Path) -> None:
    (path / SEAL).unlink()


def overwrite(path: Path, offset: int, octets: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(octets)


def test_torn_end_is_discarded_and_reported(recording: Recording, copied: Path) -> None:
    unseal(copied)
    *_, name = recording.segments
    with (copied / name).open("r+b") as file:
        file.truncate(recording.seal.end - 1)
    log = open_log(copied, Owner(), segment_bytes=SEGMENT)
    assert log.discarded is not None
    _, last = recording.batches[-1]
    assert (log.discarded.octets, log.discarded.position) == (47 + len(last), len(SIZES))
    assert log.discarded.path == str(copied / name)
    assert list(log.replay()) == recording.batches[:-1]
    owner = Owner()
    assert log.append([b"again"], owner.done) == len(SIZES)
    log.close()
    assert replayed(copied, segment_bytes=SEGMENT)[-1] == (len(SIZES), b"again")


def test_octets_of_a_recycled_segment_are_never_read_as_batches(tmp_path: Path) -> None:
    """All batches have the same length, so that old groups lie exactly where new ones will."""
    owner = Owner()
    log = open_log(tmp_path, owner)
    number = 0
    tail = log.segments[-1]
    while not tail.header.recycled or not 1000 < tail.end < 2048:
        number += 1
        owner.append(log, b"%50d" % number)
        # In the second half of a segment one that is dropped is kept in reserve.
        if tail.end > 3000:
            log.truncate(number)
        tail = log.segments[-1]
    log.close()
    unseal(tmp_path)
    behind = tail.path.read_bytes()[tail.end :]
    assert behind.strip(b"\0")
    kept = replayed(tmp_path)
    assert kept == [(each, b"%50d" % each) for each in range(kept[0][0], number + 1)]


@pytest.mark.parametrize("place", [1, 2])
@pytest.mark.parametrize("sealed", [True, False])
def test_lost_segment_is_missed(
    recording: Recording, copied: Path, place: int, sealed: bool
) -> None:
    if not sealed:
        unseal(copied)
    name = list(recording.segments)[place]
    (copied / name).unlink()
    with pytest.raises(LogDamagedError, match=r"missing|closed"):
        replayed(copied, segment_bytes=SEGMENT)
    assert not check_directory(copied).ok


def test_log_that_lost_all_segments_is_refused(recording: Recording, copied: Path) -> None:
    unseal(copied)
    for name in recording.segments:
        (copied / name).unlink()
    with pytest.raises(LogDamagedError, match="segments are missing"):
        open_log(copied, Owner())
    assert check_directory(copied).damage == (f"{copied}: damaged: its segments are missing",)


def test_every_cut_or_flipped_seal_is_refused(recording: Recording) -> None:
    octets = (recording.path / SEAL).read_bytes()
    for cut in range(len(octets)):
        with pytest.raises(LogDamagedError, match="SEAL"):
            decode_seal(octets[:cut], Path("SEAL"))
    for _, flipped in flips(octets, len(octets)):
        with pytest.raises(LogDamagedError, match="SEAL"):
            decode_seal(flipped, Path("SEAL"))


def test_check_finds_nothing_wrong_with_a_whole_log(recording: Recording, copied: Path) -> None:
    before = {each.name: each.read_bytes() for each in copied.iterdir()}
    report = check_directory(copied)
    assert report.ok
    assert report.sealed
    assert not report.in_use
    assert (report.first, report.next, report.batches) == (1, len(SIZES) + 1, len(SIZES))
    assert (report.segments, report.octets, report.epoch) == (3, 3 * SEGMENT, 1)
    assert report.lines()[-1] == "no damage found"
    assert {each.name: each.read_bytes() for each in copied.iterdir()} == before


def test_check_of_a_log_in_use_says_so(tmp_path: Path) -> None:
    owner = Owner()
    log = open_log(tmp_path, owner)
    for _ in range(100):
        owner.append(log, b"x" * 100)
    report = check_directory(tmp_path)
    assert report.ok
    assert report.in_use
    assert not report.sealed
    assert report.batches == 100
    with pytest.raises(LogLockedError):
        repair_directory(tmp_path, apply=False)
    with pytest.raises(LogLockedError):
        repair_directory(tmp_path, apply=True)
    log.close()


@pytest.mark.parametrize(
    "check", [check_directory, lambda path: repair_directory(path, apply=False)]
)
def test_what_is_no_log_is_not_checked(tmp_path: Path, check: Callable[[Path], object]) -> None:
    with pytest.raises(LogError):
        check(tmp_path)
    with pytest.raises(LogError):
        check(tmp_path / "nothing")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_repaired_in_a_whole_log(recording: Recording, copied: Path) -> None:
    before = {each.name: each.read_bytes() for each in copied.iterdir()}
    report = repair_directory(copied, apply=True)
    assert not report.needed
    assert report.kept == len(SIZES)
    assert {each.name: each.read_bytes() for each in copied.iterdir()} == before


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("offset", [0, 20, 64, 90, 1200, 3000, -1])
def test_repair_loses_what_it_says_and_nothing_else(
    recording: Recording, copied: Path, place: int, offset: int
) -> None:
    name = list(recording.segments)[place]
    written = recording.seal.end if place == 2 else used(recording, name)
    offset = written - 1 if offset < 0 else min(offset, written - 2)
    octets = recording.segments[name]
    overwrite(copied / name, offset, bytes([octets[offset] ^ 0x10]))
    before = {each.name: each.read_bytes() for each in copied.iterdir()}
    with pytest.raises(LogDamagedError):
        replayed(copied, segment_bytes=SEGMENT)
    restore(copied, before)
    planned = repair_directory(copied, apply=False)
    assert {each.name: each.read_bytes() for each in copied.iterdir()} == before
    report = repair_directory(copied, apply=True)
    assert (report.damage, report.lost) == (planned.damage, planned.lost)
    assert report.rewritten == planned.rewritten
    lost = {number for each in report.lost for number in range(each.first, each.last + 1)}
    assert len(lost) <= 1
    assert report.kept == len(SIZES) - len(lost)
    assert check_directory(copied).ok
    kept = dict(replayed(copied, segment_bytes=SEGMENT))
    for number, batch in recording.batches:
        assert kept.get(number, b"") == (b"" if number in lost else batch)
    assert all((copied / f"{each}.damaged").exists() for each in report.rewritten)


def restore(path: Path, contents: dict[str, bytes]) -> None:
    for name, octets in contents.items():
        (path / name).write_bytes(octets)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_repair_of_a_lost_segment_keeps_the_others(
    recording: Recording, copied: Path, place: int
) -> None:
    name = list(recording.segments)[place]
    (copied / name).unlink()
    starts = [decode_header(each, Path()).first for each in recording.segments.values()]
    bounds = [*starts, len(SIZES) + 1]
    report = repair_directory(copied, apply=True)
    lost = set(range(bounds[place], bounds[place + 1])) if place else set()
    if place:
        assert {n for each in report.lost for n in range(each.first, each.last + 1)} == lost
    kept = dict(replayed(copied, segment_bytes=SEGMENT))
    for number, batch in recording.batches[0 if place else bounds[1] - 1 :]:
        assert kept.get(number, b"") == (b"" if number in lost else batch)

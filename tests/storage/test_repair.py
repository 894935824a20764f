"""What check and repair say about a log, and what a repair keeps."""

from collections.abc import Callable
from pathlib import Path

import pytest

from broker.storage.check import check_directory
from broker.storage.log import LogDamagedError, LogError, LogLockedError
from broker.storage.repair import repair_directory
from broker.storage.segment import decode_header
from tests.storage.owner import Owner, open_log, replayed
from tests.storage.recording import SEGMENT, SIZES, Recording, overwrite, used


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

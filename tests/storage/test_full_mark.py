"""A segment is full, the next one is made, and the mark between them finds no room."""

import errno
import random
from pathlib import Path

import pytest

from broker.storage.check import check_directory
from broker.storage.faulty_files import FaultyFiles
from broker.storage.log import LogState
from broker.storage.segment_log import SegmentLog
from tests.storage.owner import Owner, open_log, replayed

BATCH = b"x" * 900
ERRORS = [errno.ENOSPC, errno.EDQUOT]


class CountedFiles(FaultyFiles):
    """Loses its power at the call of this number; 0 for never."""

    def __init__(self, crash_at: int = 0, chance: random.Random | None = None) -> None:
        super().__init__()
        self.crash_at = crash_at
        self.chance = chance

    def _count(self, name: str, path: Path | None = None) -> None:
        if self.crash_at and self.calls.total() + 1 >= self.crash_at and not self.crashed:
            self.crash(self.chance)
        super()._count(name, path)


def almost_full(path: Path, owner: Owner, files: FaultyFiles) -> SegmentLog:
    """A log whose next batch of this size begins the second segment, of a reserve that is there."""
    log = open_log(path, owner, files=files, retry_s=0.005)
    while log.segments[-1].room > len(BATCH) + 48:
        owner.append(log, BATCH)
    # The batch after it waits until all is done that came before.
    owner.append(log, b"")
    assert (path / "reserve").exists()
    return log


@pytest.mark.parametrize("error", ERRORS)
def test_mark_without_room_is_written_when_there_is_room(tmp_path: Path, error: int) -> None:
    owner, files = Owner(), FaultyFiles()
    log = almost_full(tmp_path, owner, files)
    files.fail("write", error, after=1)
    files.fail("write", error, after=2)
    made = files.calls["rename"]
    log.append([BATCH], owner.done)
    owner.until_told(log)
    owner.until(lambda: log.state is LogState.OPEN)
    assert [state for state, _ in owner.states] == [LogState.FULL, LogState.OPEN]
    assert len(log.segments) == 2
    # The new segment got its name once; the other one is the next reserve.
    owner.append(log, BATCH)
    assert files.calls["rename"] <= made + 2
    log.close()
    assert [position for position, _ in replayed(tmp_path)] == owner.durable


@pytest.mark.parametrize("error", ERRORS)
def test_made_segment_waits_for_its_mark_and_is_made_once(tmp_path: Path, error: int) -> None:
    owner, files = Owner(), FaultyFiles()
    log = almost_full(tmp_path, owner, files)
    files.fail("allocate", error, forever=True)
    files.fail("write", error, forever=True)
    log.append([BATCH], owner.done)
    owner.until(lambda: log.state is LogState.FULL)
    # The header of the next one cannot be written either.
    assert not (tmp_path / "0000000002.log").exists()
    files.heal()
    files.fail("allocate", error, forever=True)
    files.fail("write", error, after=1, forever=True)
    writes = files.calls["write"]
    while files.calls["write"] < writes + 8:
        owner.read(log, [])
    assert (tmp_path / "0000000002.log").exists()
    assert not (tmp_path / "0000000003.log").exists()
    made = (tmp_path / "0000000002.log").stat().st_ino
    files.heal()
    owner.until_told(log)
    assert log.segments[-1].path.stat().st_ino == made
    log.close()
    assert [position for position, _ in replayed(tmp_path)] == owner.durable


def test_log_is_closed_cleanly_while_the_mark_has_no_room(tmp_path: Path) -> None:
    owner, files = Owner(), FaultyFiles()
    log = almost_full(tmp_path, owner, files)
    files.fail("write", errno.ENOSPC, after=1, forever=True)
    log.append([BATCH], owner.done)
    owner.until(lambda: log.state is LogState.FULL)
    files.heal()
    files.space = 0
    files.fail("write", errno.ENOSPC)
    log.close()
    owner.run_all()
    durable = list(owner.durable)
    assert check_directory(tmp_path).ok
    log = open_log(tmp_path, owner)
    assert log.discarded is None
    assert [position for position, _ in log.replay()] == durable
    owner.append(log, BATCH)
    log.close()


@pytest.mark.parametrize("name", ["sync", "sync_directory"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_flush_that_fails_between_two_segments_is_final(
    tmp_path: Path, name: str, error: int
) -> None:
    """Whichever flush it is: of the header, of the name, of the mark."""
    for after in range(4):
        path = tmp_path / str(after)
        owner, files = Owner(), FaultyFiles()
        log = almost_full(path, owner, files)
        files.fail(name, error, after=after)
        log.append([BATCH], owner.done)
        owner.until_told_or_failed(log)
        if log.state is not LogState.FAILED:
            assert after >= (3 if name == "sync" else 1)
            log.close()
            continue
        log.close()
        durable = owner.durable[-1]
        # The next process sees what is in memory; what it is told must last nevertheless.
        owner = Owner()
        log = open_log(path, owner, files=files)
        assert log.next > durable
        for _ in range(3):
            durable = owner.append(log, BATCH)
        files.crash()
        log.close()
        kept = [position for position, _ in replayed(path)]
        assert kept == list(range(1, durable + 1)), (name, after)


@pytest.mark.parametrize("seed", [None, 1])
def test_power_cut_at_any_call_around_a_mark_without_room_loses_nothing(
    tmp_path: Path, seed: int | None
) -> None:
    def run(path: Path, crash_at: int) -> tuple[Owner, int]:
        """All that is told until the power goes; and the calls that this took."""
        owner, files = Owner(), CountedFiles()
        log = almost_full(path, owner, files)
        files.chance = None if seed is None else random.Random(seed + crash_at)
        files.crash_at = crash_at and files.calls.total() + crash_at
        before = files.calls.total()
        for after in (1, 2, 3):
            files.fail("write", errno.ENOSPC, after=after)
        log.append([BATCH], owner.done)
        for _ in range(3):
            owner.until_told_or_failed(log)
            log.append([BATCH], owner.done)
        owner.until_told_or_failed(log)
        calls = files.calls.total() - before
        files.crash_at = 0
        if not files.crashed:
            files.crash(files.chance)
        log.close()
        owner.run_all()
        return owner, calls

    _, calls = run(tmp_path / "all", 0)
    assert calls > 12
    for crash_at in range(1, calls + 1):
        path = tmp_path / str(crash_at)
        owner, _ = run(path, crash_at)
        assert check_directory(path).ok, crash_at
        kept = [position for position, _ in replayed(path)]
        assert kept == list(range(1, len(kept) + 1))
        assert kept[-1] >= owner.durable[-1], crash_at

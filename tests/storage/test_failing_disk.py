"""Disks that fail, fill or forget: nothing is told to be durable that is not."""

import errno
import random
from pathlib import Path

import pytest

from broker.storage.faulty_files import FaultyFiles
from broker.storage.log import LogError, LogState
from broker.storage.segment_log import SegmentLog
from tests.storage.owner import Owner, open_log, replayed
from tests.storage.test_segment_log import fill

SEGMENT = 4096


@pytest.fixture
def owner() -> Owner:
    return Owner()


@pytest.fixture
def files() -> FaultyFiles:
    return FaultyFiles()


@pytest.mark.parametrize(("call", "error"), [("write", errno.EIO), ("sync", errno.EIO)])
def test_nothing_is_told_after_an_error_and_nothing_tried_again(
    tmp_path: Path, owner: Owner, files: FaultyFiles, call: str, error: int
) -> None:
    log = open_log(tmp_path, owner, files=files)
    fill(log, owner, 5)
    files.fail(call, error)
    log.append([b"lost"], owner.done)
    owner.until(lambda: log.state is LogState.FAILED)
    assert owner.states == [(LogState.FAILED, f"{tmp_path}: Input/output error")]
    calls = files.calls[call]
    for _ in range(5):
        log.append([b"lost too"], owner.done)
    log.truncate(3)
    log.close()
    owner.run_all()
    assert owner.durable == [1, 2, 3, 4, 5]
    assert files.calls[call] == calls
    assert [position for position, _ in replayed(tmp_path)][:5] == [1, 2, 3, 4, 5]


def test_space_error_of_a_flush_is_final(tmp_path: Path, owner: Owner, files: FaultyFiles) -> None:
    log = open_log(tmp_path, owner, files=files)
    files.fail("sync", errno.ENOSPC)
    log.append([b"lost"], owner.done)
    owner.until(lambda: log.state is LogState.FAILED)
    log.close()
    owner.run_all()
    assert owner.durable == []


@pytest.mark.parametrize("call", ["write", "sync", "allocate", "rename", "sync_directory", "open"])
def test_error_in_any_call_loses_nothing_that_was_told(
    tmp_path: Path, files: FaultyFiles, call: str
) -> None:
    """Each call of a run fails once, with EIO; what was told until then is there afterwards."""
    for after in range(40):
        path = tmp_path / str(after)
        owner, files = Owner(), FaultyFiles()
        log = open_log(path, owner, files=files)
        files.fail(call, errno.EIO, after=after)
        for _ in range(45):
            log.append([b"x" * 250], owner.done)
            log.truncate(max(owner.durable, default=1) - 20)
            owner.until_told_or_failed(log)
        log.close()
        owner.run_all()
        kept = [position for position, _ in replayed(path)]
        assert kept[-1:] >= owner.durable[-1:]
        assert kept == [kept[0] + place for place in range(len(kept))]


def test_batch_is_not_written_before_the_one_before_is_durable(
    tmp_path: Path, owner: Owner, files: FaultyFiles
) -> None:
    log = open_log(tmp_path, owner, files=files)
    writes = files.calls["write"]
    files.hold_syncs()
    log.append([b"first"], owner.done)
    assert files.syncing.wait(10)
    for _ in range(10):
        log.append([b"meanwhile"], owner.done)
    assert files.calls["write"] == writes + 1
    owner.run_all()
    assert owner.durable == []
    files.release_syncs()
    owner.until(lambda: len(owner.durable) == 11)
    # What waited went together.
    assert files.calls["write"] == writes + 2
    log.close()


def test_truncate_waits_until_what_was_appended_is_durable(
    tmp_path: Path, owner: Owner, files: FaultyFiles
) -> None:
    log = open_log(tmp_path, owner, files=files)
    fill(log, owner, 100)
    files.hold_syncs()
    position = log.append([b"copied forward"], owner.done)
    log.truncate(position)
    assert files.syncing.wait(10)
    owner.read(log, [])
    assert log.first == 1
    files.release_syncs()
    owner.settle(log)
    assert log.first > 60
    log.close()


def test_truncate_after_a_failure_drops_nothing(
    tmp_path: Path, owner: Owner, files: FaultyFiles
) -> None:
    log = open_log(tmp_path, owner, files=files)
    fill(log, owner, 100)
    files.fail("sync", errno.EIO, forever=True)
    log.append([b"copied forward"], owner.done)
    log.truncate(101)
    log.close()
    assert log.first == 1
    assert [position for position, _ in replayed(tmp_path)][:100] == list(range(1, 101))


def filled(path: Path, owner: Owner, files: FaultyFiles, *, segments: int) -> SegmentLog:
    """A log on a disk with room for so many segments, full by half of the last one."""
    log = open_log(path, owner, files=files, retry_s=0.01)
    files.space = (segments - 1) * SEGMENT
    while not owner.states:
        fill(log, owner, 1)
        owner.run_all()
    return log


def test_full_disk_is_told_while_there_is_room_left(
    tmp_path: Path, owner: Owner, files: FaultyFiles
) -> None:
    log = filled(tmp_path, owner, files, segments=3)
    assert owner.states == [(LogState.FULL, f"{tmp_path}: No space left on device")]
    # A third of a segment still goes to the disk.
    fill(log, owner, 10)
    assert len(owner.states) == 1
    log.close()


def test_what_does_not_fit_is_held_and_written_when_there_is_room(
    tmp_path: Path, owner: Owner, files: FaultyFiles
) -> None:
    log = filled(tmp_path, owner, files, segments=3)
    told = len(owner.durable)
    for _ in range(40):
        log.append([b"x" * 150], owner.done)
    # A later retry is later than what fitted.
    allocations = files.calls["allocate"]
    while files.calls["allocate"] < allocations + 3:
        owner.read(log, [])
    owner.run_all()
    assert told < len(owner.durable) < log.next - 1
    assert log.state is LogState.FULL
    files.space = None
    owner.until(lambda: owner.durable[-1] == log.next - 1 and log.state is LogState.OPEN)
    assert [state for state, _ in owner.states] == [LogState.FULL, LogState.OPEN]
    log.close()
    assert len(replayed(tmp_path)) == len(owner.durable)


def test_full_disk_is_drained_by_what_frees_room(
    tmp_path: Path, owner: Owner, files: FaultyFiles
) -> None:
    log = filled(tmp_path, owner, files, segments=4)
    for _ in range(200):
        log.append([b"settled" * 10], owner.done)
        log.truncate(log.next - 20)
    owner.until(lambda: owner.durable[-1] == log.next - 1)
    owner.until(lambda: log.state is LogState.OPEN)
    log.close()
    assert replayed(tmp_path)[-1][0] == len(owner.durable)


def test_truncate_drops_nothing_while_what_came_before_it_is_held(
    tmp_path: Path, owner: Owner, files: FaultyFiles
) -> None:
    log = filled(tmp_path, owner, files, segments=3)
    # More than fits: what is to be copied forward is not on the disk.
    copied = log.append([b"x" * SEGMENT], owner.done)
    log.truncate(copied)
    allocations = files.calls["allocate"]
    while files.calls["allocate"] < allocations + 3:
        owner.read(log, [])
    assert log.first == 1
    files.space = None
    owner.settle(log)
    assert log.first == copied
    log.close()


def test_close_of_a_full_log_keeps_what_was_told_and_drops_the_rest(
    tmp_path: Path, owner: Owner, files: FaultyFiles
) -> None:
    log = filled(tmp_path, owner, files, segments=2)
    for _ in range(100):
        log.append([b"x" * 150], owner.done)
    log.close()
    owner.run_all()
    assert len(owner.durable) < log.next - 1
    assert [position for position, _ in replayed(tmp_path)] == owner.durable


def test_write_without_space_is_held_and_repeated(
    tmp_path: Path, owner: Owner, files: FaultyFiles
) -> None:
    log = open_log(tmp_path, owner, files=files, retry_s=0.01)
    fill(log, owner, 3)
    files.fail("write", errno.ENOSPC, forever=True)
    log.append([b"held"], owner.done)
    owner.until(lambda: log.state is LogState.FULL)
    assert owner.durable == [1, 2, 3]
    files.heal()
    owner.until(lambda: log.state is LogState.OPEN)
    assert owner.durable == [1, 2, 3, 4]
    log.close()
    assert replayed(tmp_path)[-1] == (4, b"held")


def test_log_that_cannot_be_made_on_a_full_disk_says_so(
    tmp_path: Path, owner: Owner, files: FaultyFiles
) -> None:
    files.space = 100
    with pytest.raises(LogError, match="No space left"):
        open_log(tmp_path, owner, files=files)
    open_log(tmp_path, owner).close()


def test_what_cannot_be_read_is_told_until_it_can(
    tmp_path: Path, owner: Owner, files: FaultyFiles
) -> None:
    log = open_log(tmp_path, owner, files=files)
    fill(log, owner, 3)
    told: list[list[str]] = []
    log.on_unreadable = lambda: told.append(log.unreadable)
    files.fail("read", errno.EIO, forever=True)
    assert owner.read(log, [(2, 0, 5)]) is None
    assert owner.read(log, [(2, 0, 5)]) is None
    [reason] = log.unreadable
    assert reason.startswith(f"{tmp_path / '0000000001.log'} from offset ")
    assert reason.endswith(": Input/output error")
    files.heal()
    # Another place says nothing about this one.
    assert owner.read(log, [(3, 0, 5)]) is not None
    assert log.unreadable == [reason]
    assert owner.read(log, [(2, 0, 5)]) is not None
    assert told == [[reason], []]
    log.close()


def test_segment_that_is_dropped_is_unreadable_no_more(
    tmp_path: Path, owner: Owner, files: FaultyFiles
) -> None:
    log = open_log(tmp_path, owner, files=files)
    fill(log, owner, 100)
    files.fail("read", errno.EIO)
    assert owner.read(log, [(1, 0, 5)]) is None
    assert len(log.unreadable) == 1
    log.truncate(log.next - 1)
    owner.settle(log)
    assert log.unreadable == []
    log.close()


def test_start_that_cannot_read_names_the_file(
    tmp_path: Path, owner: Owner, files: FaultyFiles
) -> None:
    log = open_log(tmp_path, owner)
    fill(log, owner, 3)
    log.close()
    files.fail("read", errno.EIO, forever=True)
    with pytest.raises(LogError, match=r"0000000001\.log: Input/output error$"):
        open_log(tmp_path, owner, files=files)
    files.heal()
    assert len(replayed(tmp_path)) == 3


@pytest.mark.parametrize("seed", range(40))
def test_power_cut_keeps_every_batch_that_was_told(tmp_path: Path, seed: int) -> None:
    """Several cuts in a row at any moment, with parts of what was not flushed on the disk."""
    chance = random.Random(seed)
    told: dict[int, bytes] = {}
    truncated = 1
    for _ in range(4):
        owner, files = Owner(), FaultyFiles()
        log = open_log(tmp_path, owner, files=files)
        kept = dict(log.replay())
        assert log.next == max(kept, default=0) + 1
        for position, batch in told.items():
            if position >= truncated:
                assert kept[position] == batch
        told.update(kept)
        attempted: dict[int, bytes] = {}
        for _ in range(chance.randint(0, 80)):
            batch = chance.randbytes(chance.randint(0, 700))
            attempted[log.append([batch], owner.done)] = batch
            if chance.random() < 0.3:
                owner.until_told(log)
            if chance.random() < 0.1 and owner.durable:
                truncated = max(truncated, owner.durable[-1] - 10)
                log.truncate(truncated)
        if chance.random() < 0.3:
            log.close()
        files.crash(chance if chance.random() < 0.8 else None)
        log.close()
        owner.run_all()
        told.update((position, attempted[position]) for position in owner.durable)
    assert max(dict(replayed(tmp_path)), default=0) >= max(told, default=0)


def test_broken_seal_does_not_come_back(tmp_path: Path, owner: Owner, files: FaultyFiles) -> None:
    open_log(tmp_path, owner).close()
    log = open_log(tmp_path, owner, files=files)
    owner.append(log, b"after the seal")
    files.crash()
    log.close()
    assert replayed(tmp_path) == [(1, b"after the seal")]


def test_what_a_failed_flush_left_in_memory_is_made_durable_before_it_is_replayed(
    tmp_path: Path, owner: Owner, files: FaultyFiles
) -> None:
    """The system reads back what never reached the disk, and flushes it no more."""
    log = open_log(tmp_path, owner, files=files)
    fill(log, owner, 3)
    files.fail("sync", errno.EIO)
    log.append([b"in memory only"], owner.done)
    log.close()
    log = open_log(tmp_path, owner, files=files)
    seen = list(log.replay())
    assert seen[-1] == (4, b"in memory only")
    files.crash()
    log.close()
    assert replayed(tmp_path) == seen


def test_what_a_failed_flush_left_in_memory_is_lost_with_the_power(
    tmp_path: Path, owner: Owner, files: FaultyFiles
) -> None:
    """The control of the test before."""
    log = open_log(tmp_path, owner, files=files)
    fill(log, owner, 3)
    files.fail("sync", errno.EIO)
    log.append([b"in memory only"], owner.done)
    log.close()
    files.crash()
    assert len(replayed(tmp_path)) == 3


def test_power_cut_without_flushes_loses_what_was_told(
    tmp_path: Path, owner: Owner, files: FaultyFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The simulated cut does lose: the control."""
    log = open_log(tmp_path, owner, files=files)
    monkeypatch.setattr(files, "sync", lambda _descriptor: None)
    fill(log, owner, 10)
    files.crash()
    log.close()
    assert replayed(tmp_path) == []

"""Room on the disk: how much is taken, what is kept in reserve, and a real disk that is full."""

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker.storage.faulty_files import FaultyFiles
from broker.storage.log import LogState
from broker.storage.segment_log import SegmentLog
from tests.storage.owner import Owner, open_log, replayed

SEGMENT = 4096
SMALL_DISK_OCTETS = 1 << 20
SMALL_SEGMENT = 128 << 10


@pytest.fixture
def owner() -> Owner:
    return Owner()


def taken(path: Path) -> int:
    """Octets of the files that hold batches or will."""
    large = [each for each in path.iterdir() if each.name not in {"FORMAT", "LOCK", "SEAL"}]
    return sum(each.stat().st_size for each in large if each.is_file())


def test_files_take_no_more_than_the_log_and_two_segments(tmp_path: Path, owner: Owner) -> None:
    log = open_log(tmp_path, owner)
    for number in range(1, 600):
        owner.append(log, b"x" * (number % 300))
        if number % 50 == 0:
            log.truncate(number - number % 120)
            owner.settle(log)
        assert taken(tmp_path) <= log.size_bytes + 2 * SEGMENT
    log.close()


def test_reserve_is_there_before_half_of_a_segment_is_written(tmp_path: Path, owner: Owner) -> None:
    octets = 64 << 10
    log = open_log(tmp_path, owner, segment_bytes=octets)
    seen = set()
    for _ in range(200):
        owner.append(log, b"x" * 1000)
        # The batch after it waits until all is done that came before.
        end = log.segments[-1].end
        owner.append(log)
        if log.segments[-1].end > end:
            seen.add((end > octets // 3, (tmp_path / "reserve").exists()))
    log.close()
    assert (True, True) in seen
    assert (True, False) not in seen


def test_hardly_used_log_has_no_reserve(tmp_path: Path, owner: Owner) -> None:
    log = open_log(tmp_path, owner, segment_bytes=64 << 10)
    owner.append(log, b"little")
    owner.append(log)
    assert not (tmp_path / "reserve").exists()
    log.close()


def test_full_disk_is_found_while_most_of_a_segment_is_free(tmp_path: Path, owner: Owner) -> None:
    """What is under way when publishers are paused, and what consumers settle, has room there."""
    files = FaultyFiles()
    log = open_log(tmp_path, owner, files=files, retry_s=60.0)
    files.space = SEGMENT
    while log.state is LogState.OPEN:
        owner.append(log, b"x" * 100)
        owner.run_all()
    assert len(log.segments) == 2
    assert log.segments[-1].room > SEGMENT // 2
    log.close()


def test_all_that_may_be_under_way_has_room_when_the_disk_is_found_to_be_full(
    tmp_path: Path, owner: Owner
) -> None:
    """An owner lets half of a segment wait before it stops, as the journal does, and goes on as
    soon as it is told; what it settles later must have room behind that."""
    octets = 64 << 10
    files = FaultyFiles()
    log = open_log(tmp_path, owner, files=files, segment_bytes=octets, retry_s=60.0)
    files.space = octets
    while len(log.segments) < 2 or log.segments[-1].end < octets // 4 - 1500:
        owner.append(log, b"x" * 1000)
    assert log.state is LogState.OPEN
    waiting = 0

    def told(_position: int) -> None:
        nonlocal waiting
        waiting -= 1000
        publish()

    def publish() -> None:
        nonlocal waiting
        while waiting < octets // 2 and log.state is LogState.OPEN:
            waiting += 1000
            log.append([b"x" * 1000], told)

    files.hold_syncs()
    publish()
    assert files.syncing.wait(10)
    files.release_syncs()
    owner.until(lambda: log.state is LogState.FULL and not waiting)
    assert log.segments[-1].room > octets // 8
    owner.append(log, b"settled")
    log.close()


def test_disk_that_is_full_when_a_log_is_opened_is_told_before_anything_is_appended(
    tmp_path: Path, owner: Owner
) -> None:
    files = FaultyFiles()
    log = open_log(tmp_path, owner, files=files, segment_bytes=64 << 10)
    while log.segments[-1].end < 32 << 10:
        owner.append(log, b"x" * 1000)
    owner.append(log)
    files.crash()
    log.close()
    (tmp_path / "reserve").unlink(missing_ok=True)
    owner, files = Owner(), FaultyFiles()
    files.space = 0
    log = open_log(tmp_path, owner, files=files, segment_bytes=64 << 10, retry_s=60.0)
    owner.run_one()
    assert log.state is LogState.FULL
    owner.append(log, b"settled")
    log.close()


def test_dropped_segment_becomes_the_reserve_of_a_full_disk(tmp_path: Path, owner: Owner) -> None:
    files = FaultyFiles()
    log = open_log(tmp_path, owner, files=files, retry_s=60.0)
    files.space = SEGMENT
    while log.state is LogState.OPEN:
        owner.append(log, b"x" * 100)
        owner.run_all()
    allocations = files.calls["allocate"]
    log.truncate(log.next)
    # At once: not when the disk would be asked again.
    owner.until(lambda: log.state is LogState.OPEN)
    assert files.calls["allocate"] == allocations
    assert (tmp_path / "reserve").exists()
    log.close()


def test_owner_takes_over_the_reserve_of_the_last_one(tmp_path: Path, owner: Owner) -> None:
    log = open_log(tmp_path, owner)
    while not (tmp_path / "reserve").exists():
        owner.append(log, b"x" * 100)
    log.close()
    reserve = (tmp_path / "reserve").stat().st_ino
    (tmp_path / "making").write_bytes(b"half of one")
    log = open_log(tmp_path, owner)
    assert not (tmp_path / "making").exists()
    while len(log.segments) == 1:
        owner.append(log, b"x" * 100)
    assert log.segments[1].path.stat().st_ino == reserve
    log.close()
    kept = replayed(tmp_path)
    assert [position for position, _ in kept] == list(range(1, len(kept) + 1))


def test_files_are_for_their_owner_alone(tmp_path: Path, owner: Owner) -> None:
    path = tmp_path / "log"
    log = open_log(path, owner)
    owner.append(log, b"a secret")
    log.close()
    assert path.stat().st_mode & 0o077 == 0
    assert [each.name for each in path.iterdir() if each.stat().st_mode & 0o077] == []


def test_group_is_one_write_one_flush_and_one_call(tmp_path: Path, owner: Owner) -> None:
    """So a busy loop beside the writer costs it a wait for the interpreter per group, not more."""
    files = FaultyFiles()
    log = open_log(tmp_path, owner, files=files, segment_bytes=16 << 20)
    files.hold_syncs()
    log.append([b"first"], owner.done)
    assert files.syncing.wait(10)
    for _ in range(100):
        log.append([b"x" * 10] * 100, owner.done)
    before = files.calls.copy()
    files.release_syncs()
    owner.until(lambda: len(owner.durable) == 101)
    assert files.calls - before == {"write": 1, "sync": 2}
    assert owner.calls.empty()
    log.close()


class SmallDisk:
    """A disk of a megabyte, a real one where this process may mount one. `kind` tells."""

    def __init__(self, path: Path, files: FaultyFiles | None) -> None:
        self.path = path
        self.files = files
        self.kind = "tmpfs" if files is None else "simulated"

    def fill(self) -> None:
        """Takes all the room that is left."""
        if self.files is not None:
            self.files.space = 0
            return
        with contextlib.suppress(OSError), (self.path / "ballast").open("wb", 0) as file:
            while file.write(b"x" * 4096):
                pass

    def make_room(self) -> None:
        if self.files is not None:
            self.files.space = None
        else:
            (self.path / "ballast").unlink()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_OCTETS}", "leveret-test", str(path)]
    mounted = False
    if os.name == "posix" and os.geteuid() == 0:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield SmallDisk(path, None if mounted else FaultyFiles())
    finally:
        if mounted:
            subprocess.run(["umount", str(path)], check=True)


def test_nothing_told_is_lost_on_a_disk_that_fills(
    small_disk: SmallDisk, owner: Owner, record_property: Callable[[str, object], None]
) -> None:
    record_property("disk", small_disk.kind)
    path = small_disk.path / "log"
    options = {"segment_bytes": SMALL_SEGMENT, "retry_s": 0.01, "files": small_disk.files}
    log: SegmentLog = open_log(path, owner, **options)
    for _ in range(20):
        owner.append(log, b"x" * 1000)
    small_disk.fill()
    for _ in range(400):
        log.append([b"y" * 1000], owner.done)
    owner.until(lambda: log.state is LogState.FULL)
    assert "No space left on device" in log.reason
    while len(owner.durable) < 60:
        owner.run_one()
    assert len(owner.durable) < 420
    small_disk.make_room()
    owner.until(lambda: owner.durable[-1] == 420 and log.state is LogState.OPEN)
    log.close()
    assert [position for position, _ in replayed(path, segment_bytes=SMALL_SEGMENT)] == list(
        range(1, 421)
    )


def test_log_on_a_full_disk_opens_and_is_drained(small_disk: SmallDisk, owner: Owner) -> None:
    path = small_disk.path / "log"
    options = {"segment_bytes": SMALL_SEGMENT, "retry_s": 0.01, "files": small_disk.files}
    log: SegmentLog = open_log(path, owner, **options)
    while len(log.segments) < 3 or log.segments[-1].room > SMALL_SEGMENT // 3:
        owner.append(log, b"x" * 1000)
    log.close()
    (path / "reserve").unlink()
    small_disk.fill()
    log = open_log(path, owner, **options)
    appended = 0
    owner.append(log, b"settled")
    owner.until(lambda: log.state is LogState.FULL)
    while log.state is LogState.FULL:
        owner.append(log, b"settled" * 10)
        appended += 1
        log.truncate(log.next - 10)
        owner.run_all()
    assert appended < 100
    log.close()
    assert replayed(path, segment_bytes=SMALL_SEGMENT)[-1][1] == b"settled" * 10

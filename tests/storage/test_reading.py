"""Reading a log again where that fails: nothing else is withheld, and everything is said."""

import errno
import threading
from pathlib import Path
from typing import Any

import pytest

from broker.storage.faulty_files import FaultyFiles
from broker.storage.log import Location
from broker.storage.segment_log import SegmentLog
from tests.storage.owner import Owner, open_log
from tests.storage.test_segment_log import fill


class BadSector(FaultyFiles):
    """Reads that touch an octet from `low` to `high - 1` fail; or all, by an error of our own."""

    low = high = 0
    bug: Exception | None = None

    def read(self, descriptor: int, count: int, offset: int) -> bytes:
        if self.bug is not None:
            raise self.bug
        if offset < self.high and offset + count > self.low:
            raise OSError(errno.EIO, "Input/output error")
        return super().read(descriptor, count, offset)


@pytest.fixture
def owner() -> Owner:
    return Owner()


@pytest.fixture
def files() -> BadSector:
    return BadSector()


def read_some(owner: Owner, log: SegmentLog, locations: list[Location]) -> list[bytes] | None:
    answers: list[list[bytes] | None] = []
    log.read(locations, answers.append, some=True)
    owner.until(lambda: bool(answers))
    return answers[0]


def locations_of(log: SegmentLog) -> list[Location]:
    """Each batch that `fill` appended, as a whole."""
    [segment] = log.segments
    sizes = [end - start for start, end in zip(segment.starts, segment.ends, strict=True)]
    return [(position, 0, size) for position, size in enumerate(sizes, 1)]


def test_what_is_before_a_bad_place_is_read(tmp_path: Path, owner: Owner, files: BadSector) -> None:
    log = open_log(tmp_path, owner, files=files)
    fill(log, owner, 12)
    locations = locations_of(log)
    whole = read_some(owner, log, locations)
    assert whole is not None
    segment = log.segments[0]
    for bad in range(12):
        files.low, files.high = segment.starts[bad], segment.starts[bad] + 1
        assert read_some(owner, log, locations) == (whole[:bad] or None)
        [reason] = log.unreadable
        path = segment.path
        assert reason == f"{path} from offset {segment.starts[bad]} on: Input/output error"
        # Who wants all or nothing gets nothing.
        assert owner.read(log, locations) is None
        # What is behind can be read.
        assert owner.read(log, locations[bad + 1 :]) == whole[bad + 1 :]
        files.low = files.high = 0
        assert owner.read(log, locations[bad:]) == whole[bad:]
        assert log.unreadable == []
    log.close()


def test_bad_place_is_told_as_good_when_what_could_not_be_read_was_read_in_parts(
    tmp_path: Path, owner: Owner, files: BadSector
) -> None:
    log = open_log(tmp_path, owner, files=files)
    batch = b"x" * 1000
    owner.append(log, batch)
    start = log.segments[0].starts[0]
    files.low, files.high = start + 510, start + 511
    assert owner.read(log, [(1, 0, 1000)]) is None
    [reason] = log.unreadable
    # As who reads a record alone after it could not be read with others.
    assert owner.read(log, [(1, 0, 500)]) == [batch[:500]]
    assert owner.read(log, [(1, 900, 100)]) == [batch[:100]]
    assert owner.read(log, [(1, 500, 100)]) is None
    assert log.unreadable == [reason]
    files.low = files.high = 0
    assert owner.read(log, [(1, 600, 400)]) is not None
    assert log.unreadable == [reason]
    assert owner.read(log, [(1, 500, 60)]) is not None
    assert log.unreadable == [reason]
    assert owner.read(log, [(1, 560, 40)]) is not None
    assert log.unreadable == []
    log.close()


def test_read_that_fails_once_is_made_good_piece_by_piece(
    tmp_path: Path, owner: Owner, files: BadSector
) -> None:
    log = open_log(tmp_path, owner, files=files)
    fill(log, owner, 3)
    opened = files.calls["open"]
    files.fail("read", errno.EIO)
    assert owner.read(log, locations_of(log)) is not None
    assert log.unreadable == []
    # By another descriptor.
    assert files.calls["open"] == opened + 2
    log.close()


def test_error_of_our_own_is_said_and_does_not_end_reading(
    tmp_path: Path, owner: Owner, files: BadSector, monkeypatch: pytest.MonkeyPatch
) -> None:
    traces: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", traces.append)
    log = open_log(tmp_path, owner, files=files)
    fill(log, owner, 3)
    [first, second, _] = locations_of(log)
    files.bug = TypeError("a bug")
    assert owner.read(log, [first]) is None
    assert owner.read(log, [first]) is None
    assert log.unreadable == [f"{tmp_path}: batch 1: TypeError: a bug"]
    assert [(each.exc_type, each.exc_traceback is None) for each in traces] == [(TypeError, False)]
    files.bug = None
    assert owner.read(log, [second]) is not None
    assert len(log.unreadable) == 1
    assert owner.read(log, [first]) is not None
    assert log.unreadable == []
    log.close()


def test_what_is_not_there_is_said(tmp_path: Path, owner: Owner) -> None:
    log = open_log(tmp_path, owner)
    fill(log, owner, 3)
    assert owner.read(log, [(7, 0, 1)]) is None
    assert log.unreadable == [f"{tmp_path}: batch 7: LookupError: batch 7 is not there"]
    log.close()


def test_close_that_fails_does_not_end_reading(
    tmp_path: Path, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = FaultyFiles()
    log = open_log(tmp_path, owner, files=files)
    fill(log, owner, 100)
    for position in (1, 50, 99):
        assert owner.read(log, [(position, 0, 5)]) is not None
    close = files.close

    def fail(descriptor: int) -> None:
        close(descriptor)
        if threading.current_thread().name == "log reader":
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files, "close", fail)
    log.truncate(90)
    owner.settle(log)
    assert log.first > 50
    assert owner.read(log, [(99, 0, 5)]) is not None
    log.close()

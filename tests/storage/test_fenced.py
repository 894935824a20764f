"""A log whose lock was lost: when another broker has taken it over, the first writes no more."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from broker.storage import directory, writer
from broker.storage.directory import LOCK, SEAL
from broker.storage.log import LogState
from broker.storage.segment_log import SegmentLog
from tests.storage.owner import Owner


@pytest.fixture
def owner() -> Owner:
    return Owner()


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_OWNER_S", 0.0)


def names(path: Path) -> list[str]:
    return sorted(each.name for each in path.iterdir())


def taken_over(path: Path, owner: Owner, how: str, monkeypatch: pytest.MonkeyPatch) -> SegmentLog:
    """A second owner of a log whose first one is still there."""
    if how == "removed":
        (path / LOCK).unlink()
    else:
        # As on a file system that forgets locks.
        monkeypatch.setattr(directory, "lock_descriptor", lambda descriptor: True)
    return SegmentLog.open(path, owner.call, segment_bytes=4096)


@pytest.mark.parametrize("how", ["removed", "forgotten"])
@pytest.mark.parametrize("size", [100, 5_000])
def test_first_owner_stops_and_touches_nothing(
    tmp_path: Path, owner: Owner, how: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = SegmentLog.open(tmp_path, owner.call, segment_bytes=4096)
    first.append([b"one"], owner.done)
    owner.until_told(first)
    second = taken_over(tmp_path, owner, how, monkeypatch)
    before = names(tmp_path)
    told: list[int] = []
    first.append([b"x" * size], told.append)
    owner.until(lambda: first.state is not LogState.OPEN)
    assert first.state is LogState.FENCED
    assert str(os.getpid()) in first.reason
    first.close()
    owner.run_all()
    assert not told
    assert names(tmp_path) == before
    assert SEAL not in before
    second.append([b"two"], owner.done)
    second.close()
    third = SegmentLog.open(tmp_path, owner.call)
    assert [batch for _, batch in third.replay()] == [b"one", b"two"]
    third.close()

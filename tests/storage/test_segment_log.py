"""The segment log as its owner sees it: what was appended is there again."""

from pathlib import Path

import pytest

from broker.storage.log import LogDamagedError, LogError, LogLockedError, LogState
from broker.storage.segment_log import SegmentLog
from tests.storage.owner import Owner, open_log, replayed


@pytest.fixture
def owner() -> Owner:
    return Owner()


def batches(count: int, size: int = 100, first: int = 1) -> list[bytes]:
    return [
        b"%d:" % number + bytes([number % 251]) * size for number in range(first, first + count)
    ]


def fill(log: SegmentLog, owner: Owner, count: int, size: int = 100) -> list[bytes]:
    """Appends batches, each one durable before the next, so that each is a group."""
    made = batches(count, size, log.next)
    for batch in made:
        owner.append(log, batch)
    return made


def test_new_log_is_empty_and_open(tmp_path: Path, owner: Owner) -> None:
    log = open_log(tmp_path / "new" / "log", owner)
    assert (log.first, log.next, log.epoch, log.state) == (1, 1, 1, LogState.OPEN)
    assert list(log.replay()) == []
    log.close()


def test_positions_are_consecutive_and_told_in_order(tmp_path: Path, owner: Owner) -> None:
    log = open_log(tmp_path, owner)
    assert [log.append([b"x"], owner.done) for _ in range(50)] == list(range(1, 51))
    owner.until(lambda: len(owner.durable) == 50)
    assert owner.durable == list(range(1, 51))
    assert log.next == 51
    log.close()


def test_nothing_is_called_inside_append(tmp_path: Path, owner: Owner) -> None:
    log = open_log(tmp_path, owner)
    log.append([b"x"], owner.done)
    log.close()
    assert owner.durable == []
    owner.run_all()
    assert owner.durable == [1]


def test_records_are_joined_to_one_batch(tmp_path: Path, owner: Owner) -> None:
    log = open_log(tmp_path, owner)
    owner.append(log, b"one", b"", b"two")
    owner.append(log)
    log.close()
    assert replayed(tmp_path) == [(1, b"onetwo"), (2, b"")]


@pytest.mark.parametrize("count", [1, 10, 100])
def test_everything_is_replayed_after_a_close(tmp_path: Path, owner: Owner, count: int) -> None:
    log = open_log(tmp_path, owner)
    made = fill(log, owner, count)
    log.close()
    assert replayed(tmp_path) == list(enumerate(made, 1))


def test_batch_larger_than_a_segment_is_kept(tmp_path: Path, owner: Owner) -> None:
    log = open_log(tmp_path, owner)
    made = [b"before", b"x" * 50_000, b"after"]
    for batch in made:
        owner.append(log, batch)
    assert owner.read(log, [(2, 0, 50_000), (3, 0, 5)]) == [made[1], b"after"]
    log.close()
    assert [batch for _, batch in replayed(tmp_path)] == made


def test_epoch_grows_at_each_open(tmp_path: Path, owner: Owner) -> None:
    epochs = []
    for _ in range(4):
        log = open_log(tmp_path, owner)
        epochs.append(log.epoch)
        log.close()
    assert epochs == [1, 2, 3, 4]


def test_log_goes_on_where_it_was_closed(tmp_path: Path, owner: Owner) -> None:
    made = []
    for _ in range(12):
        log = open_log(tmp_path, owner)
        made += fill(log, owner, 7)
        log.close()
    assert replayed(tmp_path) == list(enumerate(made, 1))


def test_replay_after_an_append_is_refused(tmp_path: Path, owner: Owner) -> None:
    log = open_log(tmp_path, owner)
    owner.append(log, b"x")
    with pytest.raises(RuntimeError):
        log.replay()
    log.close()


def test_second_owner_is_kept_out(tmp_path: Path, owner: Owner) -> None:
    log = open_log(tmp_path, owner)
    with pytest.raises(LogLockedError, match=r"in use by another broker \(process \d+\)"):
        open_log(tmp_path, Owner())
    log.close()
    open_log(tmp_path, owner).close()


def test_owner_that_failed_to_open_holds_no_lock(tmp_path: Path, owner: Owner) -> None:
    (tmp_path / "FORMAT").write_bytes(b"nonsense")
    for _ in range(2):
        with pytest.raises(LogDamagedError, match="FORMAT"):
            open_log(tmp_path, owner)


def test_newer_format_is_refused_and_named(tmp_path: Path, owner: Owner) -> None:
    open_log(tmp_path, owner).close()
    (tmp_path / "FORMAT").write_bytes(b"leveret log format 2\n")
    with pytest.raises(LogError, match="format 2, written by a newer version") as caught:
        open_log(tmp_path, owner)
    assert not isinstance(caught.value, LogDamagedError)
    assert "\n" not in str(caught.value)


def test_directory_that_cannot_be_made_is_a_log_error(tmp_path: Path, owner: Owner) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LogError, match="file"):
        open_log(tmp_path / "file" / "log", owner)


def test_reads_are_answered_in_the_order_asked(tmp_path: Path, owner: Owner) -> None:
    log = open_log(tmp_path, owner)
    made = fill(log, owner, 100)
    wanted = [(position, 1, 50) for position in (99, 1, 50, 50, 2, 100, 51)]
    assert owner.read(log, wanted) == [made[position - 1][1:51] for position, _, _ in wanted]
    assert owner.read(log, []) == []
    log.close()


def test_read_works_in_a_reopened_log_that_was_not_replayed(tmp_path: Path, owner: Owner) -> None:
    log = open_log(tmp_path, owner)
    made = fill(log, owner, 100)
    log.close()
    log = open_log(tmp_path, owner)
    assert owner.read(log, [(1, 0, 10), (77, 2, 3)]) == [made[0][:10], made[76][2:5]]
    log.close()


@pytest.mark.parametrize(
    "location", [(0, 0, 1), (4, 0, 1), (2, 0, 200), (2, -1, 3), (2, 5, -1), (3, 103, 1)]
)
def test_read_outside_of_a_batch_is_answered_by_none(
    tmp_path: Path, owner: Owner, location: tuple[int, int, int]
) -> None:
    log = open_log(tmp_path, owner)
    fill(log, owner, 3)
    assert owner.read(log, [(1, 0, 1), location]) is None
    assert owner.read(log, [(1, 0, 1)]) == [b"1"]
    log.close()


def test_truncate_drops_whole_segments_from_the_front(tmp_path: Path, owner: Owner) -> None:
    log = open_log(tmp_path, owner)
    made = fill(log, owner, 200)
    log.truncate(150)
    owner.settle(log)
    assert 100 < log.first <= 150
    first = log.first
    assert owner.read(log, [(150, 0, 5)]) == [made[149][:5]]
    assert owner.read(log, [(149, 0, 5)]) is None
    log.close()
    kept = replayed(tmp_path)
    assert kept[0] == (first, made[first - 1])
    assert (200, made[199]) in kept


def test_reads_asked_for_before_a_truncate_succeed(tmp_path: Path, owner: Owner) -> None:
    log = open_log(tmp_path, owner)
    made = fill(log, owner, 400)
    answers: list[list[bytes] | None] = []
    for position in range(1, 400):
        log.read([(position, 0, 20)], answers.append)
    log.truncate(400)
    owner.settle(log)
    assert log.first > 380
    assert answers == [[batch[:20]] for batch in made[:399]]
    log.close()


def test_truncate_of_everything_and_more_keeps_the_log_going(tmp_path: Path, owner: Owner) -> None:
    log = open_log(tmp_path, owner)
    fill(log, owner, 100)
    log.truncate(10**9)
    fill(log, owner, 100)
    assert log.first > 100
    log.close()
    assert replayed(tmp_path)[-1][0] == 200


def test_size_is_what_the_segments_take(tmp_path: Path, owner: Owner) -> None:
    log = open_log(tmp_path, owner)
    sizes = [log.size_bytes]
    for _ in range(10):
        fill(log, owner, 10)
        sizes.append(log.size_bytes)
    assert sizes == sorted(sizes)
    assert sizes[0] < 100
    assert 100 * 100 < sizes[-1] < 100 * 200
    log.truncate(log.next)
    owner.settle(log)
    assert log.size_bytes < 2 * 4096
    log.close()


def test_log_without_sync_keeps_what_was_closed(tmp_path: Path, owner: Owner) -> None:
    log = open_log(tmp_path, owner, sync=False)
    made = fill(log, owner, 50)
    log.close()
    assert replayed(tmp_path) == list(enumerate(made, 1))


def test_close_twice_is_as_good_as_once(tmp_path: Path, owner: Owner) -> None:
    log = open_log(tmp_path, owner)
    log.close()
    log.close()

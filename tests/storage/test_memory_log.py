"""The memory log as its owner sees it."""

import pytest

from broker.storage.memory_log import MemoryLog
from tests.storage.owner import Owner


def test_batches_are_kept_read_and_replayed_after_a_reopening() -> None:
    owner = Owner()
    log = MemoryLog(owner.call)
    for number in range(5):
        owner.append(log, b"batch", b"%d" % number)
    assert owner.durable == [1, 2, 3, 4, 5]
    assert owner.read(log, [(5, 4, 2), (1, 0, 6)]) == [b"h4", b"batch0"]
    assert owner.read(log, [(6, 0, 1)]) is None
    assert owner.read(log, [(5, 4, 3)]) is None
    with pytest.raises(RuntimeError):
        log.replay()
    log.close()
    log.reopen()
    assert [batch for _, batch in log.replay()] == [b"batch%d" % each for each in range(5)]
    assert log.epoch == 2


def test_truncate_lets_go_exactly_what_is_before() -> None:
    owner = Owner()
    log = MemoryLog(owner.call)
    for _ in range(5):
        owner.append(log, b"12345")
    log.truncate(4)
    assert (log.first, log.next, log.size_bytes) == (4, 6, 10)
    assert owner.read(log, [(3, 0, 1)]) is None
    log.truncate(100)
    assert (log.first, log.next, log.size_bytes) == (6, 6, 0)


def test_log_that_keeps_nothing_takes_no_memory() -> None:
    owner = Owner()
    log = MemoryLog(owner.call, keep=False)
    for _ in range(5):
        owner.append(log, b"12345")
    assert (log.first, log.next, log.size_bytes) == (6, 6, 0)
    assert owner.durable == [1, 2, 3, 4, 5]
    assert owner.read(log, [(5, 0, 1)]) is None


def test_nothing_is_called_inside_append_or_read() -> None:
    owner = Owner()
    log = MemoryLog(owner.call)
    log.append([b"x"], owner.done)
    answers: list[list[bytes] | None] = []
    log.read([(1, 0, 1)], answers.append)
    assert (owner.durable, answers) == ([], [])
    owner.run_all()
    assert (owner.durable, answers) == ([1], [[b"x"]])

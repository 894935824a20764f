"""The log whose durability a test decides."""

from broker.storage.faulty_log import FaultyLog
from broker.storage.log import LogState
from tests.storage.owner import Owner


def test_held_batches_become_durable_by_flush_in_their_order() -> None:
    owner = Owner()
    log = FaultyLog(owner.call, holding=True)
    assert [log.append([b"%d" % each], owner.done) for each in range(3)] == [1, 2, 3]
    owner.run_all()
    assert (owner.durable, log.pending, log.next) == ([], 3, 4)
    assert owner.read(log, [(1, 0, 1)]) is None
    assert log.flush(2) == 2
    owner.run_all()
    assert (owner.durable, log.pending) == ([1, 2], 1)
    assert owner.read(log, [(2, 0, 1)]) == [b"1"]


def test_crash_keeps_what_was_durable_and_as_much_more_as_told() -> None:
    owner = Owner()
    log = FaultyLog(owner.call, holding=True)
    for each in range(5):
        log.append([b"%d" % each], owner.done)
    log.flush(2)
    log.crash(keep=1)
    assert [batch for _, batch in log.replay()] == [b"0", b"1", b"2"]
    assert (log.next, log.epoch) == (4, 2)
    owner.run_all()
    assert owner.durable == [1, 2]


def test_truncate_waits_for_what_was_appended_before_it() -> None:
    owner = Owner()
    log = FaultyLog(owner.call, holding=True)
    for _ in range(3):
        log.append([b"x"], owner.done)
    log.flush(2)
    log.truncate(3)
    assert log.first == 1
    log.flush()
    assert log.first == 3


def test_full_log_goes_on_and_failed_one_does_not() -> None:
    owner = Owner()
    log = FaultyLog(owner.call)
    owner.watch(log)
    log.fill()
    log.append([b"held"], owner.done)
    owner.run_all()
    assert owner.durable == []
    log.make_room()
    owner.run_all()
    assert owner.durable == [1]
    log.fail()
    log.append([b"lost"], owner.done)
    log.make_room()
    log.close()
    owner.run_all()
    assert owner.durable == [1]
    assert [state for state, _ in owner.states] == [
        LogState.FULL,
        LogState.OPEN,
        LogState.FAILED,
    ]

"""Copies of a log, of one that is being written too."""

import threading
from pathlib import Path

import pytest

from broker.storage.backup import backup_directory
from broker.storage.check import check_directory
from broker.storage.log import LogError
from tests.storage.owner import Owner, open_log, replayed


def test_copy_of_a_closed_log_is_the_log(tmp_path: Path) -> None:
    owner = Owner()
    log = open_log(tmp_path / "log", owner)
    for number in range(200):
        owner.append(log, b"%d" % number * 20)
    log.close()
    octets = backup_directory(tmp_path / "log", tmp_path / "deep" / "copy")
    assert octets == check_directory(tmp_path / "log").octets
    assert check_directory(tmp_path / "deep" / "copy").ok
    assert replayed(tmp_path / "deep" / "copy") == replayed(tmp_path / "log")


def test_copy_of_a_log_in_use_has_all_that_was_durable(tmp_path: Path) -> None:
    """Copies are made while a thread appends and truncates as fast as it can."""
    stop, truncated = threading.Event(), [1]
    owner = Owner()
    log = open_log(tmp_path / "log", owner)

    def write() -> None:
        while not stop.is_set():
            owner.append(log, b"%d," % log.next * 20)
            if log.next % 30 == 0:
                truncated[0] = log.next - 100
                log.truncate(truncated[0])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(20):
            target = tmp_path / str(number)
            while not owner.durable:
                stop.wait(0.001)
            durable = owner.durable[-1]
            backup_directory(tmp_path / "log", target)
            kept = replayed(target)
            assert kept[-1][0] >= durable
            assert kept[0][0] <= max(truncated[0], 1)
            for position, batch in kept:
                assert batch == b"%d," % position * 20
    finally:
        stop.set()
        writer.join()
        log.close()


def test_copy_overwrites_nothing(tmp_path: Path) -> None:
    open_log(tmp_path / "log", Owner()).close()
    backup_directory(tmp_path / "log", tmp_path / "copy")
    with pytest.raises(LogError, match="not empty"):
        backup_directory(tmp_path / "log", tmp_path / "copy")


def test_copy_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="no log in it"):
        backup_directory(tmp_path / "log", tmp_path / "copy")

"""The same operations on a memory, a segment and a SQLite log, and on a segment log with crashes:
the same answers."""

import random
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from broker.storage.faulty_files import FaultyFiles
from broker.storage.log import Log, Position
from broker.storage.memory_log import MemoryLog
from broker.storage.segment_log import SegmentLog
from tests.storage.owner import Owner
from tests.storage.sqlite_log import SQLiteLog

SEGMENT = 2048
RECORDS = st.lists(st.binary(max_size=300), max_size=6)


class LogMachine(RuleBasedStateMachine):
    """Four logs side by side. Each has an owner, whose calls run when the machine says so."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name)
        self.opens = 0
        self.model: dict[Position, bytes] = {}
        self.truncated = 1
        self.appended = False
        self.next = 1
        self.owners = [Owner() for _ in range(4)]
        self.memory = MemoryLog(self.owners[0].call)
        self.files = FaultyFiles()

    def opened(self) -> list[Log]:
        owners = self.owners
        self.files = FaultyFiles()
        return [
            self.memory,
            SQLiteLog(self.path / "sqlite", owners[1].call),
            SegmentLog.open(
                self.path / "segments", owners[2].call, segment_bytes=SEGMENT, sync=False
            ),
            SegmentLog.open(
                self.path / "faulty", owners[3].call, segment_bytes=SEGMENT, files=self.files
            ),
        ]

    @initialize()
    def start(self) -> None:
        self.logs = self.opened()

    @rule(batches=st.lists(RECORDS, min_size=1, max_size=8))
    def append(self, batches: list[list[bytes]]) -> None:
        for records in batches:
            for log, owner in zip(self.logs, self.owners, strict=True):
                assert log.append(records, owner.done) == self.next
            self.model[self.next] = b"".join(records)
            self.next += 1
        self.appended = True

    @rule()
    def wait(self) -> None:
        for log, owner in zip(self.logs, self.owners, strict=True):
            if self.appended:
                owner.until_told(log)
            assert owner.durable == sorted(owner.durable)

    @rule(data=st.data())
    def read(self, data: Any) -> None:
        self.wait()
        kept = [position for position in self.model if position >= self.truncated]
        locations = []
        for position in data.draw(st.lists(st.sampled_from(kept), max_size=20)) if kept else []:
            size = len(self.model[position])
            offset = data.draw(st.integers(0, size))
            locations.append((position, offset, data.draw(st.integers(0, size - offset))))
        if data.draw(st.integers(0, 9)) == 0:
            locations.append(data.draw(st.sampled_from([(self.next, 0, 1), (0, 0, 0)])))
        answers = [
            owner.read(log, locations) for log, owner in zip(self.logs, self.owners, strict=True)
        ]
        if all(0 < position < self.next for position, _, _ in locations):
            expected = [self.model[at][start : start + size] for at, start, size in locations]
            assert answers == [expected] * len(self.logs)
        else:
            assert answers == [None] * len(self.logs)

    @rule(share=st.integers(0, 100))
    def truncate(self, share: int) -> None:
        before = self.truncated + (self.next - self.truncated) * share // 100
        self.truncated = before
        for log in self.logs:
            log.truncate(before)

    @rule()
    def reopen(self) -> None:
        for log, owner in zip(self.logs, self.owners, strict=True):
            log.close()
            owner.run_all()
            if self.appended:
                assert owner.durable[-1] == self.next - 1
        self.start_again()

    @rule(seed=st.integers(0, 2**32))
    @precondition(lambda self: self.appended)
    def cut_power(self, seed: int) -> None:
        """The last one loses what was not durable, and is brought up to the others again."""
        self.files.crash(random.Random(seed) if seed % 3 else None)
        self.logs[3].close()
        owner = self.owners[3]
        owner.run_all()
        told = owner.durable[-1] if owner.durable else 0
        log = SegmentLog.open(
            self.path / "faulty", owner.call, segment_bytes=SEGMENT, files=FaultyFiles()
        )
        assert told < log.next <= self.next
        kept = dict(log.replay())
        for position, batch in kept.items():
            assert batch == self.model[position]
        # What was cut off may have been a new segment, or everything kept was truncated.
        assert list(kept) == list(range(log.first, log.next))
        assert log.first <= max(self.truncated, told)
        for position in range(log.next, self.next):
            owner.append(log, self.model[position])
        log.close()
        self.reopen_others()

    def reopen_others(self) -> None:
        for log, owner in zip(self.logs[:3], self.owners, strict=False):
            log.close()
            owner.run_all()
        self.start_again()

    def start_again(self) -> None:
        epochs = [log.epoch for log in self.logs]
        for owner in self.owners:
            owner.durable.clear()
        self.memory.reopen()
        self.logs = self.opened()
        assert all(log.epoch > old for log, old in zip(self.logs, epochs, strict=True))
        self.appended = False
        expected = [(at, batch) for at, batch in self.model.items() if at >= self.truncated]
        for log in self.logs:
            assert log.next == self.next
            batches = list(log.replay())
            # Whole segments are dropped: some of what was truncated may still be there.
            assert [each for each in batches if each[0] >= self.truncated] == expected
            assert all(self.model[at] == batch for at, batch in batches)

    @invariant()
    def disk_use_is_bounded(self) -> None:
        if not hasattr(self, "logs"):
            return
        for log in self.logs[2:]:
            assert isinstance(log, SegmentLog)
            assert log.next == self.next
            assert log.first <= max(self.truncated, 1)

    def teardown(self) -> None:
        if hasattr(self, "logs"):
            for log in self.logs:
                log.close()
        self.folder.cleanup()


def test_all_logs_give_the_same_answers() -> None:
    run_state_machine_as_test(
        LogMachine,
        settings=settings(
            max_examples=30,
            stateful_step_count=25,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )

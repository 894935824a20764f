"""The owner of a log in a test: a thread that is called back, and what it was told."""

from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from broker.storage.log import Location, Log, LogState, Position
from broker.storage.segment_log import SegmentLog

# How long a test waits for what must come; nothing waits this long unless it fails.
PATIENCE_S = 5.0


class Owner:
    """`owner.call` is the Caller. What was called runs when the test waits for something."""

    def __init__(self) -> None:
        self.calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.durable: list[Position] = []
        self.states: list[tuple[LogState, str]] = []

    def call(self, what: Callable[[], None]) -> None:
        self.calls.put(what)

    def done(self, position: Position) -> None:
        self.durable.append(position)

    def watch(self, log: Log) -> None:
        """Notes every change of state."""
        log.on_state = lambda: self.states.append((log.state, log.reason))

    def run_one(self) -> None:
        """Waits for one call and runs it."""
        try:
            what = self.calls.get(timeout=PATIENCE_S)
        except Empty:
            raise AssertionError("nothing was called") from None
        what()

    def run_all(self) -> None:
        """Runs what was called until now."""
        while True:
            try:
                what = self.calls.get_nowait()
            except Empty:
                return
            what()

    def until(self, true: Callable[[], bool]) -> None:
        """Runs what is called until it is true."""
        while not true():
            self.run_one()

    def until_told(self, log: Log) -> None:
        """Waits until everything appended is durable."""
        self.until(lambda: self.durable[-1:] == [log.next - 1])

    def until_told_or_failed(self, log: Log) -> None:
        """Waits until everything appended is durable, or never will be."""
        self.until(lambda: self.durable[-1:] == [log.next - 1] or log.state is LogState.FAILED)

    def append(self, log: Log, *records: bytes) -> Position:
        """Appends one batch and waits until it is durable."""
        position = log.append(records, self.done)
        self.until(lambda: position in self.durable)
        return position

    def read(self, log: Log, locations: Sequence[Location]) -> list[bytes] | None:
        """Reads and waits for it."""
        answers: list[list[bytes] | None] = []
        log.read(locations, answers.append)
        self.until(lambda: bool(answers))
        return answers[0]

    def settle(self, log: Log) -> None:
        """Waits until a segment log has read what was asked for and dropped what may go."""
        self.read(log, [])
        first = 0
        while first != log.first:
            first = log.first
            # The first one is told before a segment is dropped, the second one after it.
            self.append(log, b"settled")
            self.append(log, b"settled")


def open_log(path: Path, owner: Owner, **options: Any) -> SegmentLog:
    options.setdefault("segment_bytes", 4096)
    log = SegmentLog.open(path, owner.call, **options)
    owner.watch(log)
    return log


def replayed(path: Path, **options: Any) -> list[tuple[Position, bytes]]:
    """What is in the log of a directory. Opens and closes it."""
    log = open_log(path, Owner(), **options)
    try:
        return list(log.replay())
    finally:
        log.close()

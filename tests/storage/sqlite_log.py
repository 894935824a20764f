"""A log in SQLite: what the segment log is compared with. Its owner's thread does all the work."""

import sqlite3
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from broker.storage.log import Appended, Caller, Location, LogState, Oldest, Position, Read


class SQLiteLog:
    """Keeps each batch in a row."""

    def __init__(self, path: Path, call: Caller) -> None:
        self._base = sqlite3.connect(path, isolation_level=None)
        self._base.executescript(
            "PRAGMA synchronous = OFF; PRAGMA journal_mode = MEMORY;"
            "CREATE TABLE IF NOT EXISTS log (position INTEGER PRIMARY KEY, batch BLOB NOT NULL);"
            "CREATE TABLE IF NOT EXISTS lease (epoch INTEGER NOT NULL, next INTEGER NOT NULL);"
            "INSERT INTO lease SELECT 0, 1 WHERE NOT EXISTS (SELECT * FROM lease);"
            "UPDATE lease SET epoch = epoch + 1;"
        )
        self._call = call
        self._replayable = True
        self.epoch: int = self._value("SELECT epoch FROM lease")
        self.state = LogState.OPEN
        self.reason = ""
        self.unreadable: list[str] = []
        self.on_state = lambda: None

    @property
    def first(self) -> Position:
        return self._value("SELECT coalesce(min(position), (SELECT next FROM lease)) FROM log")

    @property
    def next(self) -> Position:
        return self._value("SELECT next FROM lease")

    @property
    def size_bytes(self) -> int:
        return self._value("SELECT coalesce(sum(length(batch)), 0) FROM log")

    @property
    def room_bytes(self) -> int:
        return sys.maxsize

    @property
    def oldest(self) -> Oldest:
        return Oldest(self.first, 0)

    def replay(self) -> Iterator[tuple[Position, bytes]]:
        if not self._replayable:
            raise RuntimeError("a log is replayed before anything is appended")
        yield from self._base.execute("SELECT position, batch FROM log ORDER BY position")

    def append(self, records: Sequence[bytes], done: Appended) -> Position:
        self._replayable = False
        position = self.next
        self._base.execute("BEGIN")
        self._base.execute("INSERT INTO log VALUES (?, ?)", (position, b"".join(records)))
        self._base.execute("UPDATE lease SET next = next + 1")
        self._base.execute("COMMIT")
        self._call(partial(done, position))
        return position

    def read(self, locations: Sequence[Location], done: Read, *, some: bool = False) -> None:
        found: list[bytes] = []
        for position, offset, length in locations:
            row = self._base.execute(
                "SELECT batch FROM log WHERE position = ?", (position,)
            ).fetchone()
            if row is None or min(offset, length) < 0 or offset + length > len(row[0]):
                self._call(partial(done, found if some and found else None))
                return
            found.append(row[0][offset : offset + length])
        self._call(partial(done, found))

    def truncate(self, before: Position) -> None:
        self._base.execute("DELETE FROM log WHERE position < ?", (before,))

    def close(self) -> None:
        self._base.close()

    def _value(self, query: str) -> int:
        value: int = self._base.execute(query).fetchone()[0]
        return value

"""The one storage interface: a fenced, totally ordered log of opaque batches.

What must last becomes records above this line; one group commit of them is one batch. A log
appends batches, replays them, reads parts of them again and drops its oldest ones. Nothing else
is asked of it, so that an engine that replicates can stand in for a directory of files, and
everything that means something (cleaning, snapshots, definitions) lives once, above.

A log is owned by one broker at a time: opening it takes a lease, whose epoch is in every batch,
and shuts out every older owner.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol, TypeAlias

Position: TypeAlias = int
"""The place of a batch: consecutive numbers, the first one is 1."""

Location: TypeAlias = tuple[Position, int, int]
"""(position, offset, length): octets within the batch at this position."""

Caller: TypeAlias = Callable[[Callable[[], None]], object]
"""Runs something in the thread of the owner, later: `loop.call_soon_threadsafe`."""

Appended: TypeAlias = Callable[[Position], None]
"""Told the last position that is durable now; everything up to it is."""

Read: TypeAlias = "Callable[[list[bytes] | None], None]"
"""Told the octets of the locations asked for, in order, or None if they cannot be read."""


class LogState(enum.Enum):
    """What a log can still do."""

    OPEN = "open"
    FULL = "full"
    """No room for more than what is kept in reserve. What was appended is kept and written as
    soon as it can be; the owner should append only what frees room."""
    FAILED = "failed"
    """A write or a flush failed. Nothing that was not reported as durable by now ever will be:
    what a failed flush left on the disk is not known. Opening anew tells."""
    FENCED = "fenced"
    """Somebody else owns the log now."""


class LogError(Exception):
    """What keeps a log from being opened. Its text is one line for the user, and says where."""


class LogDamagedError(LogError):
    """What is stored is not what was written."""


class LogLockedError(LogError):
    """Another broker owns the log."""


class Oldest(NamedTuple):
    """What a log lets go at once: when all batches before `stop` are truncated, `octets` come back
    where they are stored, and nothing before that; 0 if there is nothing to come back."""

    stop: Position
    octets: int


class Log(Protocol):
    """An open log. Every method is called from the thread of the owner, which `Caller` leads back
    to: the callbacks below run there, never inside the call that was given them.

    `on_state` is called whenever `state` has changed; `reason` then says why, in one line.
    `unreadable` is what cannot be read again now, in lines that say where and why; an answer to a
    read is not ahead of it.
    """

    epoch: int
    state: LogState
    reason: str
    unreadable: list[str]
    on_state: Callable[[], None]

    @property
    def first(self) -> Position:
        """The oldest batch that is still kept."""

    @property
    def next(self) -> Position:
        """The position of the next batch."""

    @property
    def size_bytes(self) -> int:
        """Octets that the log takes where it is stored, room kept in reserve not counted."""

    @property
    def room_bytes(self) -> int:
        """Octets that can be appended to a full log before any room is made, those that wait
        included; about."""

    @property
    def oldest(self) -> Oldest:
        """What has to go for any room to come back."""

    def replay(self) -> Iterator[tuple[Position, bytes]]:
        """Every batch that is kept, oldest first. Only before the first `append`. Blocks.

        Raises LogDamagedError.
        """

    def append(self, records: Sequence[bytes], done: Appended) -> Position:
        """Adds one batch, which is `records` joined, and returns its position at once.

        `done` is called when it is durable, in the order of positions; not at all if it never is
        (`state` tells). Batches that wait may be made durable together.
        """

    def read(self, locations: Sequence[Location], done: Read, *, some: bool = False) -> None:
        """Reads parts of batches again that are durable and not truncated. With `some`, it tells of
        fewer if that is what can be read: of those before the first one that cannot."""

    def truncate(self, before: Position) -> None:
        """Lets batches before this one go, once all that was appended so far is durable."""

    def close(self) -> None:
        """Makes everything durable that can be, tells so, and lets the log go. Blocks."""

"""Publishes that are refused while memory or disk space is short, instead of pausing who sent
them: what is left of their contents, and of their delivery tags (`Broker.nack_on_alarm`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from broker.protocol.assembly import Assembly
from broker.protocol.remainder import Piece
from broker.wire.frames import BODY, FRAME_END, FRAME_HEADER, FRAME_OVERHEAD

if TYPE_CHECKING:
    from broker.core.broker import Broker
    from broker.protocol.channel import Channel
    from broker.protocol.route import Route

_PREFIX_MAX = 1024
"""Octets of method and header frame that a channel remembers."""


class RefusedContent(Assembly):
    """A content that is read to its end, with all checks, and of which only the header is kept.
    `method` is its method frame, if that is worth remembering."""

    __slots__ = ("method",)

    def __init__(self, broker: Broker, route: Route, method: bytes = b"") -> None:
        super().__init__(broker, route)
        self.method = method

    @classmethod
    def instead_of(cls, assembly: Assembly, broker: Broker) -> RefusedContent:
        """Goes on where this one is, and lets go of what it holds."""
        refused = cls(broker, assembly.route)
        refused.header = assembly.header
        refused.flags = assembly.flags
        refused.body_size = assembly.body_size
        refused.received = assembly.received
        assembly.drop()
        return refused

    @property
    def held(self) -> int:
        """None."""
        return 0

    def add_frame(self, channel: Channel, size: int, pieces: Sequence[Piece]) -> None:
        """Counts a body frame."""
        self.received += size

    def add_small(self, channel: Channel, body: bytes) -> None:
        """Counts a tiny body frame."""
        self.received += len(body)

    def drop(self) -> None:
        """There is nothing to let go of."""

    def look(self, channel: Channel) -> RefusedLook | None:
        """What others look like that differ in a body in one frame only; None if that frame would
        be too large, or the others too much to remember."""
        prefix = self.method + (self.header or b"")
        is_large = self.body_size > channel.connection.frame_max - FRAME_OVERHEAD
        if not self.method or is_large or len(prefix) > _PREFIX_MAX:
            return None
        if self.body_size:
            prefix += FRAME_HEADER.pack(BODY, channel.number, self.body_size)
        return RefusedLook(self.route, prefix, self.body_size)


class RefusedLook(NamedTuple):
    """How a refused publish looked that passed its checks: others that begin with `prefix` (all
    octets before the body) pass them too, as long as the way to the exchange is the same."""

    route: Route
    prefix: bytes
    body_size: int

    def run_from(self, chunk: bytes, at: int) -> tuple[int, int]:
        """(how many publishes from `at` on look like this, where the frame after them begins)."""
        prefix = self.prefix
        unit = len(prefix) + (self.body_size + 1 if self.body_size else 0)
        begin, stop, size = at, at + unit, len(chunk)
        startswith = chunk.startswith
        while stop <= size and startswith(prefix, at) and chunk[stop - 1] == FRAME_END:
            at = stop
            stop += unit
        return (at - begin) // unit, at


class RefusedTags:
    """Which publishes of a channel were refused, of those that are not all decided: `runs` of
    (first tag, last tag) in order, never adjacent. Those up to `told_to` the client knows.

    Between two runs is a publish that waits for the disk, so what may wait there bounds them.
    """

    __slots__ = ("runs", "told_to")

    def __init__(self) -> None:
        self.runs: list[tuple[int, int]] = []
        self.told_to = 0

    def add(self, first: int, last: int) -> None:
        """These, the highest so far, are refused."""
        runs = self.runs
        if runs and runs[-1][1] == first - 1:
            runs[-1] = runs[-1][0], last
        else:
            runs.append((first, last))

    def take(self, first: int, last: int) -> list[tuple[int, int, bool]]:
        """Takes the publishes from `first` to `last` apart: (first, last, whether they are refused)
        in order, without those that the client knows of. Forgets the refused ones among them."""
        parts = []
        taken = 0
        for run_first, run_last in self.runs:
            if run_first > last:
                break
            taken += 1
            if first < run_first:
                parts.append((first, run_first - 1, False))
            untold = max(run_first, self.told_to + 1)
            if untold <= run_last:
                parts.append((untold, run_last, True))
            first = run_last + 1
        del self.runs[:taken]
        if first <= last:
            parts.append((first, last, False))
        return parts

    def take_told(self, last: int) -> int:
        """The last publish that is decided if all are up to `last`: those that follow and that the
        client knows of are forgotten."""
        if self.runs and self.runs[0][0] == last + 1 and self.runs[0][1] <= self.told_to:
            last = self.runs.pop(0)[1]
        return last

    def tell(self) -> list[int]:
        """The tags that the client does not know of, and knows from now on."""
        told_to = self.told_to
        if self.runs:
            self.told_to = self.runs[-1][1]
        return [
            tag
            for first, last in self.runs
            if last > told_to
            for tag in range(max(first, told_to + 1), last + 1)
        ]

    def last_other(self, last: int) -> int:
        """The last tag up to `last` that is not refused."""
        return self.runs[-1][0] - 1 if self.runs and self.runs[-1][1] == last else last

"""What a connection has to send, between two writes."""

from __future__ import annotations

from collections.abc import Callable

OUTPUT_MAX = 1 << 20
"""Octets one connection collects in a batch before its consumers, and its own input, have to wait.
A bound on memory, and on how long one connection keeps the others waiting."""
STALLED_FROM = 16 << 20
"""Octets in front of the socket from which a client counts as one that does not read."""
LARGE = 65_536
"""Octets from which a piece is better written as it is than copied into one with the others."""


class Output:
    """Octets in order. `on_first` is called when there is something to send again."""

    __slots__ = (
        "_on_first",
        "_pieces",
        "has_large",
        "is_congested",
        "is_starved",
        "size",
        "unread",
    )

    def __init__(self, on_first: Callable[[], None]) -> None:
        self._on_first = on_first
        self._pieces: list[bytes] = []
        self.size = 0
        # Some pieces are so large that they should not be copied into one with the others.
        self.has_large = False
        # Octets that were taken here and that the socket did not take yet.
        self.unread: Callable[[], int] = lambda: 0
        # The socket takes no more for now.
        self.is_congested = False
        # Consumers were left waiting because there was no room.
        self.is_starved = False

    def reserve(self, size: int) -> list[bytes]:
        """The list that collects octets, of which `size` are about to be added."""
        if not self._pieces:
            self._on_first()
        self.size += size
        return self._pieces

    def room(self) -> int:
        """Octets that may still be collected before the next write."""
        return OUTPUT_MAX - self.size

    def is_full(self) -> bool:
        """Whether more has to wait for the next write."""
        return self.size >= OUTPUT_MAX

    def is_stalled(self) -> bool:
        """Whether the client does not read at all, as far as can be told."""
        return self.unread() + self.size > STALLED_FROM

    def can_take(self) -> bool:
        """Whether consumers may add to it; if not, they are woken when they may."""
        if self.is_congested or self.size >= OUTPUT_MAX:
            self.is_starved = True
            return False
        return True

    def take(self) -> list[bytes]:
        """Takes what is to be sent, in few pieces."""
        pieces, self._pieces = self._pieces, []
        self.size = 0
        if not self.has_large:
            return [b"".join(pieces)] if pieces else []
        self.has_large = False
        joined: list[bytes] = []
        start = 0
        for place, piece in enumerate(pieces):
            if len(piece) >= LARGE:
                if start < place:
                    joined.append(b"".join(pieces[start:place]))
                joined.append(piece)
                start = place + 1
        if start < len(pieces):
            joined.append(b"".join(pieces[start:]))
        return joined

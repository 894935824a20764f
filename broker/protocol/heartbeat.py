"""Heartbeats of one connection, in transport time (AMQP 0-9-1, section 4.2.7)."""

from __future__ import annotations

import enum

PATIENCE = 2.5
"""Intervals without an octet after which the peer counts as gone: the spec says two, RabbitMQ
checks every half, so that it takes between two and three."""


class Beat(enum.Enum):
    """What is to be done when a deadline has come."""

    NOTHING = enum.auto()
    SEND = enum.auto()
    GIVE_UP = enum.auto()


class Heartbeat:
    """`interval_s` as negotiated, 0 for none in either direction. While `is_paused` the peer's
    silence does not count: we are the ones who do not read."""

    __slots__ = ("interval_s", "is_paused", "last_received", "last_sent")

    def __init__(self, interval_s: int, now: float) -> None:
        self.interval_s = interval_s
        self.last_received = now
        self.last_sent = now
        self.is_paused = False

    def resume(self, now: float) -> None:
        """What the peer sends is read again: its silence counts from now on."""
        if self.is_paused:
            self.is_paused = False
            self.last_received = now

    def next_deadline(self) -> float | None:
        """When `check` wants to be called next."""
        if not self.interval_s:
            return None
        send_at = self.last_sent + self.interval_s / 2
        if self.is_paused:
            return send_at
        return min(send_at, self.last_received + self.interval_s * PATIENCE)

    def check(self, now: float) -> Beat:
        """What to do at this time."""
        if not self.interval_s:
            return Beat.NOTHING
        if not self.is_paused and now >= self.last_received + self.interval_s * PATIENCE:
            return Beat.GIVE_UP
        if now >= self.last_sent + self.interval_s / 2:
            return Beat.SEND
        return Beat.NOTHING

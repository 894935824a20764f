"""Message time, and what is to happen at some time.

Message time is in milliseconds since 1970 when the broker starts, and only goes on from there: a
jump of the wall clock fires nothing. So it can be written down as it is, and holds for the next
start. Nothing here reads a clock.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Protocol

_STALE_MIN = 1024
"""Alarms that were moved and are kept until their old time."""


class Timed(Protocol):
    """Something that happens at a time. `due` is when, None for never; only `Timers` sets it."""

    due: int | None

    def on_time(self, now: int) -> None:
        """It is due. It is not set any more, and may be set again."""


def _raise(error: Exception) -> None:
    raise error


class Timers:
    """What is due when. `now` is message time as of the last `advance`."""

    def __init__(self) -> None:
        self.now = 0
        # Told of an error of ours in something that was due.
        self.on_error: Callable[[Exception], None] = _raise
        self._alarms: list[tuple[int, int, Timed]] = []
        self._order = count()
        self._set = 0

    @property
    def next(self) -> int | None:
        """When the first one is due, or a little before that; None if there is none."""
        return self._alarms[0][0] if self._alarms else None

    def set(self, timed: Timed, due: int | None) -> None:
        """It is due then, and not when it was before; None for never."""
        before = timed.due
        if before == due:
            return
        self._set += (due is not None) - (before is not None)
        timed.due = due
        # One that is due later is moved when its old time comes.
        if due is not None and (before is None or due < before):
            self._push(timed, due)

    def _push(self, timed: Timed, due: int) -> None:
        heappush(self._alarms, (due, next(self._order), timed))
        if len(self._alarms) > _STALE_MIN + 2 * self._set:
            self._alarms = [
                (each.due, place, each)
                for each, place in {each: place for _, place, each in self._alarms}.items()
                if each.due is not None
            ]
            heapify(self._alarms)

    def advance(self, now: int, most: int = 1024) -> bool:
        """It is `now`: what is due happens, at most so many. Whether more is due."""
        self.now = now = max(now, self.now)
        if not self._alarms or self._alarms[0][0] > now:
            return False
        for _ in range(most):
            if self.next is None or self.next > now:
                return False
            _, _, timed = heappop(self._alarms)
            if timed.due is None:
                continue
            if timed.due > now:
                # It was moved.
                self._push(timed, timed.due)
                continue
            self._set -= 1
            timed.due = None
            try:
                timed.on_time(now)
            except Exception as error:  # noqa: BLE001  # a bug of ours ends nobody else's turn
                self.on_error(error)
        return self.next is not None and self.next <= now

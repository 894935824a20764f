"""What cannot be read from the disk: it is said once, and tried again until it can be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from broker.core.broker import Broker
from broker.storage.segment_log import SegmentLog

AGAIN_S = 1.0
"""Seconds after which what could not be read is tried again."""


class ReadErrors:
    """Watches the logs of one broker. `went_on` is called when queues may have asked for
    something."""

    def __init__(
        self, broker: Broker, loop: asyncio.AbstractEventLoop, went_on: Callable[[], None]
    ) -> None:
        self._broker = broker
        self._loop = loop
        self._went_on = went_on
        self._timer: asyncio.TimerHandle | None = None
        # What was told of each log that is followed.
        self._told: dict[SegmentLog, list[str]] = {}

    def follow(self, log: SegmentLog) -> None:
        """Watches this log."""
        self._told[log] = []
        log.on_unreadable = partial(self._has_changed, log)

    def stop(self) -> None:
        """Tries nothing again."""
        self._told.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _has_changed(self, log: SegmentLog) -> None:
        before = self._told.get(log)
        if before is None:
            return
        self._told[log] = log.unreadable
        for reason in log.unreadable:
            if reason not in before:
                self._broker.note("unreadable", {"reason": reason})
        if not log.unreadable:
            self._broker.note("readable", {})
        self._try_later()

    def _try_later(self) -> None:
        if self._timer is None and any(self._told.values()):
            self._timer = self._loop.call_later(AGAIN_S, self._try)

    def _try(self) -> None:
        """Queues ask again for what they need next."""
        self._timer = None
        for vhost in self._broker.vhosts.values():
            for queue in vhost.queues.values():
                for lane in queue.lanes:
                    if lane.paged is not None or lane.returned or lane.keyed is not None:
                        lane.touch()
        self._went_on()
        self._try_later()

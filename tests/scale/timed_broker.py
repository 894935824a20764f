"""`python -m tests.scale.timed_broker FILE serve …`: `leveret serve …` with a clock around every
callback of its event loop. uvloop only."""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Callable
from contextvars import Context
from pathlib import Path
from typing import Any, TypeVarTuple, Unpack

import uvloop

from broker import cli
from broker.server.client_socket import ClientSocket
from tests.scale.callback_times import CallbackClock

Ts = TypeVarTuple("Ts")
PROTOCOL_METHODS = (
    "connection_made",
    "data_received",
    "eof_received",
    "connection_lost",
    "pause_writing",
    "resume_writing",
)
"""What the loop calls without asking for it first."""


def timed_loop(clock: CallbackClock) -> type[uvloop.Loop]:
    """uvloop's loop with this clock around its callbacks; its call_at calls call_later."""

    def timed(callback: Callable[..., Any]) -> Callable[..., Any]:
        return functools.partial(clock.run, callback)

    class TimedLoop(uvloop.Loop):
        def call_soon(
            self,
            callback: Callable[[Unpack[Ts]], object],
            *args: *Ts,
            context: Context | None = None,
        ) -> asyncio.Handle:
            return super().call_soon(timed(callback), *args, context=context)

        def call_soon_threadsafe(
            self,
            callback: Callable[[Unpack[Ts]], object],
            *args: *Ts,
            context: Context | None = None,
        ) -> asyncio.Handle:
            return super().call_soon_threadsafe(timed(callback), *args, context=context)

        def call_later(
            self,
            delay: float,
            callback: Callable[[Unpack[Ts]], object],
            *args: *Ts,
            context: Context | None = None,
        ) -> asyncio.TimerHandle:
            return super().call_later(delay, timed(callback), *args, context=context)

    return TimedLoop


def time_protocol(clock: CallbackClock) -> None:
    """Puts the clock around what sockets tell the broker."""
    for name in PROTOCOL_METHODS:
        plain = getattr(ClientSocket, name)

        def timed(*args: Any, plain: Callable[..., Any] = plain) -> Any:
            return clock.run(plain, *args)

        setattr(ClientSocket, name, timed)


def main() -> int:
    """The broker's exit status."""
    clock = CallbackClock(Path(sys.argv[1]))
    uvloop.new_event_loop = timed_loop(clock)
    time_protocol(clock)
    try:
        return cli.main(sys.argv[2:])
    finally:
        clock.flush()


if __name__ == "__main__":
    sys.exit(main())

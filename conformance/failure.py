"""What a scenario raises when the broker does not do what was expected."""

from __future__ import annotations

import time
from collections.abc import Callable


class ConformanceError(AssertionError):
    """The broker under test did something else; the text says what was expected and what came."""


def check(condition: bool, text: str) -> None:
    """Raises ConformanceError with this text unless the condition holds."""
    if not condition:
        raise ConformanceError(text)


def check_equal(found: object, expected: object, what: str) -> None:
    """Raises ConformanceError naming both values unless they are equal."""
    if found != expected:
        raise ConformanceError(f"{what}: expected {expected!r}, got {found!r}")


def eventually(condition: Callable[[], bool], text: str, within_s: float = 5.0) -> None:
    """Asks again and again (each time a round trip); raises ConformanceError when time is up.

    For what a broker notices in its own time, such as the end of a socket.
    """
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise ConformanceError(f"{text}: not within {within_s:g} s")

"""What a scenario raises when the broker does not do what was expected."""

from __future__ import annotations


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

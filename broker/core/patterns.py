"""Regular expressions of policies and permissions: RabbitMQ's are PCRE, without Unicode."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

_POSIX_CLASSES = {
    "alpha": "a-zA-Z",
    "digit": "0-9",
    "alnum": "a-zA-Z0-9",
    "upper": "A-Z",
    "lower": "a-z",
    "space": r"\s",
    "blank": r" \t",
    "punct": r"!-/:-@\[-`{-~",
    "xdigit": "0-9A-Fa-f",
    "word": r"\w",
}
_PIECES = re.compile(r"\\.|\[:\^?\w+:\]|.", re.DOTALL)


@lru_cache(maxsize=1024)
def compile_pattern(pattern: str) -> re.Pattern[str]:
    """The pattern as RabbitMQ reads it, with its POSIX classes. Raises re.error."""
    return re.compile("".join(_python_pattern(pattern)), re.ASCII)


def _python_pattern(pattern: str) -> Iterator[str]:
    """The pattern in Python's words. What may be an operator inside of brackets one day, and is
    warned of today, is escaped."""
    # What the brackets hold so far; None outside of them.
    held: list[str] | None = None
    for piece in _PIECES.findall(pattern):
        after = piece
        if held is None:
            held = [] if piece == "[" else None
        elif piece == "]" and held not in ([], ["^"]):
            held = None
        else:
            after = _in_brackets(piece, held)
            held.append(after)
        yield after


def _in_brackets(piece: str, held: list[str]) -> str:
    if piece.startswith("[:"):
        if piece[2:-2] not in _POSIX_CLASSES:
            raise re.error("unknown POSIX class name")
        return _POSIX_CLASSES[piece[2:-2]]
    is_operator = piece in ("[", "&", "~", "|") or (
        piece == "-" and (held in ([], ["^"]) or held[-1] == "-")
    )
    return f"\\{piece}" if is_operator else piece

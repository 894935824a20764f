"""What the exchanges are compared with: the same promises, kept in the plainest way."""

import gc
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from exchanges import Exchange, Headers


def topic_matches(pattern: str, key: str) -> bool:
    def match(words: list[str], rest: list[str]) -> bool:
        if not words:
            return not rest
        if words[0] == "#":
            return match(words[1:], rest) or (bool(rest) and match(words, rest[1:]))
        return bool(rest) and words[0] in ("*", rest[0]) and match(words[1:], rest[1:])

    return match(pattern.split(".") if pattern else [], key.split(".") if key else [])


def headers_match(arguments: Headers, headers: Headers) -> bool:
    mode = str(arguments.get("x-match", "all"))
    found = [
        name in headers and (value is None or headers[name] == value)
        for name, value in arguments.items()
        if name != "x-match" and (mode.endswith("-with-x") or not name.startswith("x-"))
    ]
    return all(found) if mode.startswith("all") else any(found)


def always(_binding_key: str, _arguments: Headers, _key: str, _headers: Headers) -> bool:
    return True


MATCHES: dict[str, Callable[[str, Headers, str, Headers], bool]] = {
    "direct": lambda binding_key, _arguments, key, _headers: binding_key == key,
    "fanout": lambda _binding_key, _arguments, _key, _headers: True,
    "x-recent-history": lambda _binding_key, _arguments, _key, _headers: True,
    "topic": lambda binding_key, _arguments, key, _headers: topic_matches(binding_key, key),
    "headers": lambda _binding_key, arguments, _key, headers: headers_match(arguments, headers),
    **dict.fromkeys(("x-consistent-hash", "x-modulus-hash", "x-random", "x-local-random"), always),
}
"""By exchange type: does a binding (key, arguments) match a message (key, headers)? Where a message
goes to one destination only: may it be this one?"""


def binding_key(kind: str, text: str) -> str:
    """A binding key that the exchange type takes, another one for another text if it takes more
    than one."""
    if kind == "x-consistent-hash":
        return str(1 + int.from_bytes(text.encode()) % 997)
    return "" if kind == "x-local-random" else text


def footprint(exchange: Exchange[Any]) -> int:
    """How many entries and objects an exchange holds, in whatever structures."""
    seen: set[int] = set()
    waiting: list[object] = [vars(exchange)]
    size = 0
    while waiting:
        found = waiting.pop()
        ours = type(found).__module__.startswith("exchanges")
        if id(found) in seen or not (ours or isinstance(found, dict | list | tuple | frozenset)):
            continue
        seen.add(id(found))
        size += 1 + (len(found) if isinstance(found, Mapping | list) else 0)
        waiting.extend(gc.get_referents(found))
    return size


class Steps:
    """Lines of our code executed within `counted_steps`."""

    count = 0


@contextmanager
def counted_steps() -> Iterator[Steps]:
    """Counts executed lines of the package `exchanges`: the same on every machine."""
    steps = Steps()

    def trace(frame: FrameType, event: str, _arg: object) -> Any:
        if not frame.f_globals.get("__name__", "").startswith("exchanges"):
            return None
        steps.count += event == "line"
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        yield steps
    finally:
        sys.settrace(previous)

"""A window of publishes: which ids were published lately, so that a publish that is tried again is
not taken twice.

Theory of operation. The window holds the last ids, at most `size` of them, each for at most `ttl`
milliseconds of message time; a duplicate does not renew its original. Ids leave from the front, the
oldest first: when the window is full, and when they have expired. With one ttl for all, that is
the order in which they expire. An id with a shorter one of its own counts no more from then on,
though it may take its place until those before it are gone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from hashlib import blake2b
from typing import NamedTuple

from broker.wire.table import INTEGER_TYPES, Field, encode_table

ENTRY_BYTES = 262
"""Octets of memory of one entry beside its id; measured on CPython 3.11."""
ID_MAX = 64
"""Octets of an id that is kept as it is; of a longer one there is a hash of 32 octets."""
EXPIRED_AT_ONCE = 2
"""Expired entries that one new entry makes go, so that none has to sweep many."""


class Original(NamedTuple):
    """The publish that an id is of. `expires` is message time, None for never; `position` is
    whatever its owner wants to know of it: the batch of the log that it is in."""

    expires: int | None
    position: int


class Window:
    """The ids that were published lately. Each operation costs the same, however many there are.

    It can be written down and read again: in the order of iteration, `add` with what was there.
    """

    __slots__ = ("_entries", "_id_bytes", "size", "ttl")

    def __init__(self, size: int, ttl: int | None = None) -> None:
        assert size > 0
        self.size = size
        self.ttl = ttl
        self._entries: OrderedDict[bytes, Original] = OrderedDict()
        self._id_bytes = 0

    def __len__(self) -> int:
        """How many there are, those included that have expired and not gone yet."""
        return len(self._entries)

    def __iter__(self) -> Iterator[tuple[bytes, Original]]:
        """(id, original), the oldest first."""
        return iter(self._entries.items())

    @property
    def memory(self) -> int:
        """Octets of memory that it takes."""
        return self._id_bytes + len(self._entries) * ENTRY_BYTES

    @property
    def next(self) -> int | None:
        """When `expire` has something to do; None for never, as far as is known now."""
        if not self._entries:
            return None
        return self._entries[next(iter(self._entries))][0]

    def original(self, key: bytes, now: int) -> Original | None:
        """What this id is a duplicate of; None if it is new, or as good as new."""
        original = self._entries.get(key)
        if original is None or (original[0] is not None and original[0] <= now):
            return None
        return original

    def add(self, key: bytes, now: int, *, ttl: int | None = None, position: int = 0) -> None:
        """This id, which is new, was published now. `ttl` is its own, if that is shorter than the
        window's."""
        if ttl is None or (self.ttl is not None and self.ttl < ttl):
            ttl = self.ttl
        self.forget(key)
        if ttl is None:
            self.restore(key, Original(None, position))
        elif ttl > 0:
            self.restore(key, Original(now + ttl, position))
        self.expire(now, EXPIRED_AT_ONCE)

    def restore(self, key: bytes, original: Original) -> None:
        """This id, which is not there, was published after all others."""
        while len(self._entries) >= self.size:
            self._drop_first()
        self._entries[key] = original
        self._id_bytes += len(key)

    def forget(self, key: bytes) -> None:
        """Its publish came to nothing: the next one is no duplicate. An unknown id is no error."""
        if self._entries.pop(key, None) is not None:
            self._id_bytes -= len(key)

    def expire(self, now: int, most: int) -> None:
        """Lets go of what has expired, at most so many."""
        for _ in range(most):
            expires = self.next
            if expires is None or expires > now:
                return
            self._drop_first()

    def change(self, size: int, ttl: int | None) -> None:
        """Other bounds from now on. What is there keeps its time."""
        assert size > 0
        self.size = size
        self.ttl = ttl
        while len(self._entries) > size:
            self._drop_first()

    def clear(self) -> None:
        """Forgets all."""
        self._entries.clear()
        self._id_bytes = 0

    def _drop_first(self) -> None:
        key, _ = self._entries.popitem(last=False)
        self._id_bytes -= len(key)


def id_of(field: Field | None) -> bytes | None:
    """What a header says that a message is; None if it says nothing. Numbers are equal whatever
    their width, and texts whether they are of octets or characters; a number is no text."""
    if field is None or field.type == "void":
        return None
    value = field.value
    if isinstance(value, bytes):
        kind = b"s" + value
    elif isinstance(value, str):
        kind = b"s" + value.encode("utf-8", "surrogateescape")
    elif field.type in INTEGER_TYPES:
        assert isinstance(value, int)
        kind = b"i%d" % value
    else:
        kind = b"x" + encode_table({"": field})
    if len(kind) <= ID_MAX:
        return kind
    return b"h" + blake2b(kind, digest_size=32).digest()

"""A window of publishes: which ids were published lately, so that a publish that is tried again is
not taken twice.

Theory of operation. The window holds the last ids, at most `size` of them, each for `ttl`
milliseconds of message time; a duplicate does not renew its original. Ids leave from the front, the
oldest first: when the window is full, and when they have expired. With one ttl for all, that is
the order in which they expire. An id with a ttl of its own counts no more when that is over, though
it may take its place until those before it are gone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import Final, TypeAlias

from broker.wire.table import INTEGER_TYPES, Field, encode_table

ENTRY_BYTES = 330
"""Octets of memory of one entry beside its id; measured on CPython 3.11."""
ID_MAX = 64
"""Octets of an id that is kept as it is; of a longer one there is a hash of 32 octets."""
EXPIRED_AT_ONCE = 2
"""Expired entries that one new entry makes go, so that none has to sweep many."""

Original: TypeAlias = "tuple[int | None, int, int]"
"""The publish that an id is of: (expires, position, number). `expires` is message time, None for
never; `position` is the batch of the log that says so, 0 if none does; the number is its owner's
matter. An exact tuple, which Python's collector stops tracking."""

EXPIRES: Final = 0
POSITION: Final = 1
NUMBER: Final = 2


class Window:
    """The ids that were published lately. Each operation costs the same, however many there are.
    `let_go` is told of each that leaves.

    It can be written down and read again: in the order of iteration, `restore` with what was there.
    """

    __slots__ = ("_entries", "_expires", "_id_bytes", "_let_go", "size", "ttl")

    def __init__(
        self,
        size: int,
        ttl: int | None = None,
        let_go: Callable[[bytes, Original], None] | None = None,
    ) -> None:
        assert size > 0
        self.size = size
        self.ttl = ttl
        self._let_go = let_go
        self._entries: OrderedDict[bytes, Original] = OrderedDict()
        self._id_bytes = 0
        # Whether there was ever one that expires.
        self._expires = False

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
    def oldest(self) -> Original | None:
        """The first that will leave, if any is there."""
        return next(iter(self._entries.values()), None)

    def get(self, key: bytes) -> Original | None:
        """What there is of this id, expired or not."""
        return self._entries.get(key)

    def original(self, key: bytes, now: int) -> Original | None:
        """What this id is a duplicate of; None if it is new, or as good as new."""
        original = self._entries.get(key)
        if original is None or (original[0] is not None and original[0] <= now):
            return None
        return original

    def expiry(self, now: int, ttl: int | None) -> int | None:
        """When an id goes that is published now, with a ttl of its own or None; None for never. At
        once, if that is `now`."""
        if ttl is None:
            ttl = self.ttl
        return None if ttl is None else now + ttl

    def add(self, key: bytes, now: int, original: Original) -> None:
        """This id, which is new, was published now."""
        entries = self._entries
        if key in entries:
            self.forget(key)
        if len(entries) >= self.size:
            self.drop_oldest()
        entries[key] = original
        self._id_bytes += len(key)
        if original[0] is not None:
            self._expires = True
        if self._expires:
            self.expire(now, EXPIRED_AT_ONCE)

    def restore(self, key: bytes, original: Original) -> None:
        """This id, which is not there, was published after all others."""
        while len(self._entries) >= self.size:
            self.drop_oldest()
        self._entries[key] = original
        self._id_bytes += len(key)
        self._expires |= original[0] is not None

    def replace(self, key: bytes, original: Original) -> None:
        """The same id, at its place, with other facts."""
        assert key in self._entries
        self._entries[key] = original

    def forget(self, key: bytes) -> None:
        """Its publish came to nothing: the next one is no duplicate. An unknown id is no error."""
        original = self._entries.pop(key, None)
        if original is not None:
            self._gone(key, original)

    def expire(self, now: int, most: int) -> None:
        """Lets go of what has expired, at most so many."""
        for _ in range(most):
            oldest = self.oldest
            if oldest is None or oldest[0] is None or oldest[0] > now:
                return
            self.drop_oldest()

    def change(self, size: int, ttl: int | None) -> None:
        """Other bounds from now on. What is there keeps its time."""
        assert size > 0
        self.size = size
        self.ttl = ttl
        while len(self._entries) > size:
            self.drop_oldest()

    def clear(self) -> None:
        """Forgets all, and tells nobody of each."""
        self._entries.clear()
        self._id_bytes = 0

    def drop_oldest(self) -> None:
        """Makes the first one leave."""
        key, original = self._entries.popitem(last=False)
        self._id_bytes -= len(key)
        if self._let_go is not None:
            self._let_go(key, original)

    def _gone(self, key: bytes, original: Original) -> None:
        self._id_bytes -= len(key)
        if self._let_go is not None:
            self._let_go(key, original)


def id_of(field: Field | None) -> bytes | None:
    """What a header says that a message is; None if it says nothing. Numbers are equal whatever
    their width, and texts whether they are of octets or characters; a number is no text."""
    if field is None or field.type == "void":
        return None
    value = field.value
    if isinstance(value, bytes):
        return id_of_text(value)
    if isinstance(value, str):
        return id_of_text(value.encode("utf-8", "surrogateescape"))
    if field.type in INTEGER_TYPES:
        assert isinstance(value, int)
        kind = b"i%d" % value
    else:
        kind = b"x" + encode_table({"": field})
    return _short(kind)


def id_of_text(octets: bytes) -> bytes:
    """The same for a text."""
    return _short(b"s" + octets)


def _short(kind: bytes) -> bytes:
    if len(kind) <= ID_MAX:
        return kind
    return b"h" + blake2b(kind, digest_size=32).digest()

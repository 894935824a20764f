"""What the log holds: records, one behind the other in each batch.

A record is its kind (one octet), the octets that follow (four), and these. Numbers are little
endian, so that whole columns of them are written and read at once.

    put        messages of one publish run, once for all the queues they went to
    settled    numbers that left a queue for good
    delivered  the highest number each queue has handed out: what comes back up to it was seen
    returned   how often messages came back; held: until when these wait
    remembered ids that were published lately (broker.core.deduplication.remembered)
    counters   next number and highest delivered one of queues, in a snapshot
    others     definitions, as field tables
"""

from __future__ import annotations

import enum
import struct
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import repeat
from typing import NamedTuple, TypeAlias

from broker.core.message import (
    MESSAGE_OVERHEAD,
    ORIGIN,
    PUBLISHED,
    TTL,
    Message,
    Origin,
    content_of,
    header_size_of,
    make_origin,
    with_time,
)
from broker.wire.table import Table, decode_table

HEAD = struct.Struct("<BI")
_TARGETS = struct.Struct("<H")
_TARGET = struct.Struct("<QQ")
_ORIGIN = struct.Struct("<H")
_ONE_TARGET = struct.Struct("<HQQH")
"""The first three of a put record that went to one queue."""
_RUN = struct.Struct("<QI")
_SETTLED = struct.Struct("<QI")
_COUNT = struct.Struct("<I")
_TRANSIENT = 1 << 63
"""Beside the framing: these messages do not last, as those that are only paged out."""
_TIMED = 1 << 62
"""And these say when they were published, in milliseconds since 1970, behind the header sizes."""
_EXPIRING = 1 << 61
"""And these came with an expiration, in milliseconds, behind that."""
_EACH = 1 << 60
"""And the expirations differ: there is one for each message."""
_FRAMING = (1 << 60) - 1
_TIME = struct.Struct("<Q")
TARGETS_MAX = 2**16 - 1
"""Queues of one put record."""
_RANGE_MAX = 2**32 - 1
"""Messages of one range of a settled record."""
_ROWS_MAX = 1 << 26
"""Ranges or numbers of one record; more go to several records, as the octets of one are few enough
to be counted in four."""

Expiring: TypeAlias = "tuple[int, Sequence[int]] | None"
"""When messages were published, and after how long they expire, one for all or one for each, as far
as they say that."""


class Kind(enum.IntEnum):
    """What a record says. The values are part of the format."""

    PUT = 1
    SETTLED = 2
    DELIVERED = 3
    RETURNED = 4
    COUNTERS = 5
    HELD = 6
    REMEMBERED = 7
    VHOST = 16
    EXCHANGE = 18
    EXCHANGE_DELETED = 19
    QUEUE = 20
    QUEUE_DELETED = 21
    BINDING = 22
    BINDING_DELETED = 23
    USER = 24
    USER_DELETED = 25
    POLICY = 26
    POLICY_DELETED = 27


class RecordError(ValueError):
    """Octets that are no record. A log that checks what it stores gives none back."""


class Put(NamedTuple):
    """Messages as they were stored. `targets` are (queue id, number of the first message)."""

    targets: list[tuple[int, int]]
    origin: Origin
    """That of the first message."""
    ttls: Sequence[int]
    """If they are not of one origin: how long each of them lives."""
    framing: int
    sizes: array[int]
    header_sizes: array[int]
    contents_at: int
    """Where the first content begins in the batch."""

    def messages(self, batch: bytes) -> list[Message]:
        """The messages; `batch` is what the record was read from."""
        contents = _cutter(self.sizes.tobytes()).unpack_from(batch, self.contents_at)
        origins: Iterable[Origin] = repeat(self.origin)
        if self.ttls:
            origins = [with_time(self.origin, self.origin[PUBLISHED], ttl) for ttl in self.ttls]
        columns = contents, self.header_sizes, origins, repeat(self.framing)
        return list(zip(*columns))  # noqa: B905  # two of them never end

    @property
    def memory(self) -> int:
        """Octets of memory that the messages count for (`message.size_of`)."""
        return _cutter(self.sizes.tobytes()).size + MESSAGE_OVERHEAD * len(self.sizes)


@lru_cache(maxsize=64)
def _cutter(sizes: bytes) -> struct.Struct:
    """Cuts octets into pieces of these sizes, a column of them: in half the time of a slice for
    each, where many records look alike."""
    column_of_sizes = array("I", sizes)
    return struct.Struct("".join([f"{size}s" for size in column_of_sizes]))


def put(targets: Sequence[tuple[int, int]], messages: Sequence[Message]) -> list[bytes]:
    """A put record, in pieces: its head, then the contents as they are. All messages are of one
    framing and one origin, but for how long they live (`can_join`). At most TARGETS_MAX targets."""
    _, _, origin, framing = messages[0]
    contents = list(map(content_of, messages))
    sizes = column("I", map(len, contents))
    headers = column("I", map(header_size_of, messages))
    names = origin[2][1:-1]
    flags, times = _times(messages)
    body = b"".join(
        [
            _TARGETS.pack(len(targets)),
            *[_TARGET.pack(queue_id, first) for queue_id, first in targets],
            _ORIGIN.pack(len(names)),
            names,
            _RUN.pack(framing | flags, len(messages)),
            sizes,
            headers,
            times,
        ]
    )
    return [HEAD.pack(Kind.PUT, len(body) + sum(map(len, contents))) + body, *contents]


def _times(messages: Sequence[Message]) -> tuple[int, bytes]:
    """What stands beside the framing, and when these messages were published and expire."""
    *_, is_persistent, published, ttl = origin = messages[0][ORIGIN]
    flags, octets = 0 if is_persistent else _TRANSIENT, b""
    if published is not None:
        flags |= _TIMED
        octets += _TIME.pack(published)
    if ttl is not None:
        flags |= _EXPIRING
        if any(message[ORIGIN] is not origin for message in messages):
            flags |= _EACH
            octets += column("Q", [message[ORIGIN][TTL] or 0 for message in messages])
        else:
            octets += _TIME.pack(ttl)
    return flags, octets


def read_put(batch: bytes, at: int) -> Put:
    """The put record whose payload begins at `at`."""
    (count,) = _TARGETS.unpack_from(batch, at)
    at += _TARGETS.size
    targets = [_TARGET.unpack_from(batch, at + place * _TARGET.size) for place in range(count)]
    at += count * _TARGET.size
    (size,) = _ORIGIN.unpack_from(batch, at)
    at += _ORIGIN.size
    names = batch[at : at + size]
    at += size
    framing, count = _RUN.unpack_from(batch, at)
    at += _RUN.size
    sizes = read_column("I", batch, at, count)
    at += 4 * count
    headers = read_column("I", batch, at, count)
    at += 4 * count
    published = ttl = None
    if framing & _TIMED:
        (published,) = _TIME.unpack_from(batch, at)
        at += _TIME.size
    ttls: Sequence[int] = ()
    if framing & _EACH:
        ttls = read_column("Q", batch, at, count)
        ttl = ttls[0]
        at += _TIME.size * count
    elif framing & _EXPIRING:
        (ttl,) = _TIME.unpack_from(batch, at)
        at += _TIME.size
    is_persistent = not framing & _TRANSIENT
    origin = _origin(names, is_persistent, published, ttl)
    return Put(targets, origin, ttls, framing & _FRAMING, sizes, headers, at)


def read_put_targets(batch: bytes, at: int) -> tuple[list[tuple[int, int]], int, Expiring]:
    """The targets of a put record, how many messages it has, and when these were published and
    after how long they expire; a tenth of the work of reading all of it."""
    count, queue_id, first, size = _ONE_TARGET.unpack_from(batch, at)
    if count == 1:
        # As nearly all have.
        at += _ONE_TARGET.size + size
        framing, messages = _RUN.unpack_from(batch, at)
        return [(queue_id, first)], messages, _read_expiring(batch, at, framing, messages)
    at += _TARGETS.size
    targets = [_TARGET.unpack_from(batch, at + place * _TARGET.size) for place in range(count)]
    at += count * _TARGET.size
    (size,) = _ORIGIN.unpack_from(batch, at)
    at += _ORIGIN.size + size
    framing, messages = _RUN.unpack_from(batch, at)
    return targets, messages, _read_expiring(batch, at, framing, messages)


def _read_expiring(batch: bytes, at: int, framing: int, count: int) -> Expiring:
    if not framing & _EXPIRING or not framing & _TIMED:
        return None
    at += _RUN.size + 8 * count
    (published,) = _TIME.unpack_from(batch, at)
    return published, read_column("Q", batch, at + _TIME.size, count if framing & _EACH else 1)


def _origin(names: bytes, persistent: bool, published: int | None, ttl: int | None) -> Origin:
    size = names[0]
    exchange, key = names[1 : 1 + size], names[2 + size :]
    return make_origin(
        exchange.decode("utf-8", "surrogateescape"),
        key.decode("utf-8", "surrogateescape"),
        persistent=persistent,
        published=published,
        ttl=ttl,
    )


def settled(queue_id: int, firsts: list[int], counts: list[int]) -> bytes:
    """A settled record, of ranges of numbers; several where one cannot hold them."""
    if max(counts, default=0) > _RANGE_MAX:
        firsts, counts = _short_ranges(firsts, counts)
    octets = []
    for part in _parts(len(firsts)):
        starts, lengths = firsts[part], counts[part]
        payload = _SETTLED.pack(queue_id, len(starts)) + column("Q", starts) + column("I", lengths)
        octets += [HEAD.pack(Kind.SETTLED, len(payload)), payload]
    return b"".join(octets)


def _short_ranges(firsts: list[int], counts: list[int]) -> tuple[list[int], list[int]]:
    """The same ranges, none of them longer than _RANGE_MAX."""
    short = [
        (start, min(_RANGE_MAX, first + count - start))
        for first, count in zip(firsts, counts, strict=True)
        for start in range(first, first + count, _RANGE_MAX)
    ]
    return [start for start, _ in short], [count for _, count in short]


def _parts(rows: int) -> Iterator[slice]:
    """What goes into each record; one record if there are no rows."""
    for start in range(0, rows or 1, _ROWS_MAX):
        yield slice(start, start + _ROWS_MAX)


def read_settled(batch: bytes, at: int) -> tuple[int, list[tuple[int, int]]]:
    """(queue id, [(first number, how many)]) of a settled record."""
    queue_id, count = _SETTLED.unpack_from(batch, at)
    at += _SETTLED.size
    firsts = read_column("Q", batch, at, count)
    counts = read_column("I", batch, at + 8 * count, count)
    return queue_id, list(zip(firsts, counts, strict=True))


def ranges(numbers: Sequence[int]) -> tuple[list[int], list[int]]:
    """Sorted numbers as ranges: where each begins, and how many it has."""
    if not numbers:
        return [], []
    first, count = numbers[0], len(numbers)
    if numbers[-1] - first == count - 1:
        return [first], [count]
    firsts, counts = [first], []
    start = 0
    for place in range(1, count):
        if numbers[place] != numbers[place - 1] + 1:
            counts.append(place - start)
            firsts.append(numbers[place])
            start = place
    counts.append(count - start)
    return firsts, counts


def delivered(marks: dict[int, int]) -> bytes:
    """A delivered record: highest number handed out, by queue id."""
    return _columns(Kind.DELIVERED, list(marks), list(marks.values()))


def read_delivered(batch: bytes, at: int) -> Iterator[tuple[int, int]]:
    """(queue id, highest number) of a delivered record."""
    ids, numbers = _read_columns(batch, at, 2)
    return zip(ids, numbers, strict=True)


def returned(queue_id: int, returns: dict[int, int]) -> bytes:
    """A returned record: how often messages of a queue came back, by number."""
    ids = [queue_id] * len(returns)
    return _columns(Kind.RETURNED, ids, list(returns), list(returns.values()))


def read_returned(batch: bytes, at: int) -> Iterator[tuple[int, int, int]]:
    """(queue id, number, times) of a returned record."""
    return zip(*_read_columns(batch, at, 3), strict=True)


def held(queue_id: int, untils: dict[int, int]) -> bytes:
    """A held record: until when messages of a queue wait, by number."""
    ids = [queue_id] * len(untils)
    return _columns(Kind.HELD, ids, list(untils), list(untils.values()))


def read_held(batch: bytes, at: int) -> Iterator[tuple[int, int, int]]:
    """(queue id, number, message time) of a held record."""
    return zip(*_read_columns(batch, at, 3), strict=True)


def counters(states: Sequence[tuple[int, int, int]]) -> bytes:
    """A counters record of (queue id, next number, highest delivered number)."""
    return _columns(Kind.COUNTERS, *[list(values) for values in zip(*states, strict=True)])


def read_counters(batch: bytes, at: int) -> Iterator[tuple[int, int, int]]:
    """(queue id, next number, highest delivered number) of a counters record."""
    return zip(*_read_columns(batch, at, 3), strict=True)


def definition(kind: Kind, table: bytes) -> bytes:
    """A record of a definition, which is a field table, length in front."""
    return HEAD.pack(kind, len(table)) + table


def read_definition(batch: bytes, at: int, end: int) -> Table:
    """The table of a definition."""
    return decode_table(batch[at + 4 : end])


def each(batch: bytes) -> Iterator[tuple[int, int, int]]:
    """(kind, begin of the payload, end) of every record. Raises RecordError."""
    at = 0
    unpack = HEAD.unpack_from
    while at < len(batch):
        if len(batch) - at < HEAD.size:
            raise RecordError(f"a record ends at octet {len(batch)}, within its head")
        kind, size = unpack(batch, at)
        at += HEAD.size
        if size > len(batch) - at:
            raise RecordError(f"the record at octet {at - HEAD.size} is longer than its batch")
        yield kind, at, at + size
        at += size


def _columns(kind: Kind, *values: list[int]) -> bytes:
    octets = []
    for part in _parts(len(values[0])):
        columns = [column("Q", numbers[part]) for numbers in values]
        payload = _COUNT.pack(len(values[0][part])) + b"".join(columns)
        octets += [HEAD.pack(kind, len(payload)), payload]
    return b"".join(octets)


def _read_columns(batch: bytes, at: int, count: int) -> list[array[int]]:
    (size,) = _COUNT.unpack_from(batch, at)
    at += _COUNT.size
    return [read_column("Q", batch, at + 8 * size * place, size) for place in range(count)]


def column(type_code: str, numbers: Iterable[int]) -> bytes:
    """Numbers of 4 ("I") or 8 ("Q") octets each, little endian."""
    values = array(type_code, numbers)
    if sys.byteorder == "big":
        values.byteswap()
    return values.tobytes()


def read_column(type_code: str, octets: bytes, at: int, count: int) -> array[int]:
    """The numbers that `column` wrote."""
    values = array(type_code)
    values.frombytes(octets[at : at + count * values.itemsize])
    if sys.byteorder == "big":
        values.byteswap()
    return values

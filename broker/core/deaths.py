"""What the headers of a message say of its deaths (RabbitMQ, "Dead Letter Exchanges"): `x-death`,
and the reason, queue and exchange of the first one and of the last one.

A message may die many times on its way, with many headers of its own; so a death in a queue that it
did not die in before is added without decoding any of them.
"""

from __future__ import annotations

from typing import Final, NamedTuple, cast

from broker.wire.table import Field, Table, decode_table, take_fields

REJECTED: Final = "rejected"

Deaths = list[Table]
"""The events of an x-death header, the newest first."""

_WHERE: Final = ("reason", "queue", "exchange")
_FIRST: Final = tuple(f"x-first-death-{name}" for name in _WHERE)
_LAST: Final = tuple(f"x-last-death-{name}" for name in _WHERE)
_DEATH: Final = "x-death"
_NAMES: Final = {name.encode(): False for name in _FIRST} | {
    name.encode(): True for name in (*_LAST, _DEATH)
}
"""What is looked for in a table, and whether it is written anew."""
_TABLE, _ARRAY = b"FA"


class Event(NamedTuple):
    """A death. `seconds` are since 1970."""

    queue: str
    reason: str
    exchange: str
    routing_keys: list[str]
    seconds: int

    def headers(self, before: Table, history: Deaths) -> Table:
        """What changes in the headers of a message that dies so."""
        died = Field("array", [Field("table", event) for event in history])
        missing = tuple(name for name in _FIRST if name not in before)
        return {**self.marks(missing), _DEATH: died}

    def marks(self, missing: tuple[str, ...]) -> Table:
        """What is said beside x-death: of the last death, and of the first what is missing."""
        changed: Table = {}
        values = self.reason, self.queue, self.exchange
        for first, last, value in zip(_FIRST, _LAST, values, strict=True):
            if first in missing:
                changed[first] = Field("longstr", value)
            changed[last] = Field("longstr", value)
        return changed


def history(headers: Table, died: Event, expiration: str | None) -> Deaths:
    """The deaths with this one, which comes first; one of the same queue and reason is counted."""
    before = _deaths_of(headers)
    for place, event in enumerate(before):
        if _text(event, "queue") == died.queue and _text(event, "reason") == died.reason:
            count = event.get("count")
            times = count.value if count is not None and isinstance(count.value, int) else 1
            again = {**event, "count": Field("long", min(times + 1, 2**63 - 1))}
            return [again, *before[:place], *before[place + 1 :]]
    event = {
        "count": Field("long", 1),
        "reason": Field("longstr", died.reason),
        "queue": Field("longstr", died.queue),
        "time": Field("timestamp", died.seconds),
        "exchange": Field("longstr", died.exchange),
        "routing-keys": Field("array", [Field("longstr", key) for key in died.routing_keys]),
    }
    if expiration is not None:
        event["original-expiration"] = Field("longstr", expiration)
    return [event, *before]


def _deaths_of(headers: Table) -> Deaths:
    """What an x-death header says; whatever is no event in it is left out."""
    field = headers.get(_DEATH)
    if field is None or field.type != "array":
        return []
    items = cast("list[Field]", field.value)
    return [cast(Table, item.value) for item in items if item.type == "table"]


def _text(event: Table, name: str) -> object:
    field = event.get(name)
    return field.value if field is not None else None


def is_cycle(history: Deaths, queue: str) -> bool:
    """Whether a message that died so would come to a queue again in which it died before, and
    nobody rejected it on the way."""
    for event in history:
        if _text(event, "reason") == REJECTED:
            return False
        if _text(event, "queue") == queue:
            return True
    return False


class Past(NamedTuple):
    """The headers of a message that died, as octets: those that stay, the events of x-death, and
    which words about the first death are missing."""

    others: bytes
    events: bytes
    missing: tuple[str, ...]

    def names(self, queue: str) -> bool:
        """Whether it may have died in this queue. If not, it has not."""
        octets = queue.encode("utf-8", "surrogateescape")
        return b"\x05queueS" + len(octets).to_bytes(4, "big") + octets in self.events

    def is_cycle(self, queue: str) -> bool:
        """As `is_cycle`."""
        return self.names(queue) and is_cycle(_deaths_of(decode_table(_death(self.events))), queue)

    def with_event(self, event: bytes) -> Past:
        """After one more death: its event, an encoded table."""
        return self._replace(events=bytes([_TABLE]) + event + self.events)

    def headers(self, marks: bytes) -> bytes:
        """The octets of the headers, with these words about the last death and the first."""
        return self.others + marks + _death(self.events)


def past_of(table: bytes) -> Past | None:
    """What the octets of headers say, which are sound. None if x-death has other things in it than
    events, which a next death takes out."""
    others, found = take_fields(table, _NAMES)
    value = found.get(_DEATH.encode(), b"")
    events = value[5:] if value[:1] == bytes([_ARRAY]) else b""
    at = 0
    while at < len(events):
        if events[at] != _TABLE:
            return None
        at += 5 + int.from_bytes(events[at + 1 : at + 5], "big")
    missing = tuple(name for name in _FIRST if name.encode() not in found)
    return Past(others, events, missing)


def _death(events: bytes) -> bytes:
    """The encoded field x-death with these events."""
    name = _DEATH.encode()
    return bytes([len(name)]) + name + bytes([_ARRAY]) + len(events).to_bytes(4, "big") + events

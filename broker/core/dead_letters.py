"""Dead letters: what leaves a queue other than by an acknowledgement goes to its dead-letter
exchange, with the history of its deaths in its headers (RabbitMQ, "Dead Letter Exchanges").

Only the header frame is written anew, and of that only what is about deaths and expiry; the body
and all other octets stay as they came.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from broker.core.exchange import Exchange
from broker.core.lines import forget_bodies
from broker.core.message import (
    MESSAGE,
    NUMBER,
    PERSISTENT,
    RETURNS,
    Entry,
    Message,
    make_origin,
)
from broker.core.reading import is_bare, read_contents
from broker.wire import properties
from broker.wire.table import Field, Table

if TYPE_CHECKING:
    from broker.core.queue import Queue
    from broker.core.vhost import VHost

REJECTED: Final = "rejected"
EXPIRED: Final = "expired"
MAXLEN: Final = "maxlen"
DELIVERY_LIMIT: Final = "delivery_limit"
REASONS: Final = (REJECTED, EXPIRED, MAXLEN, DELIVERY_LIMIT)

Deaths = list[Table]
"""The events of an x-death header, the newest first."""


def bury(queue: Queue, entries: Sequence[Entry], reason: str) -> None:
    """These messages die: they go to the dead-letter exchange, if there is one, and the queue lets
    go of them. They are in none of its lines any more, and count nowhere. All of it is in one batch
    of the log: after a crash a message is where it was, or where it went."""
    rules = queue.rules
    wants_contents = rules.dead_letter_exchange is not None or rules.max_length_bytes is not None
    if wants_contents and any(map(is_bare, entries)):

        def filled(whole: list[Entry]) -> None:
            if not queue.is_deleted:
                _bury(queue, whole, reason)

        read_contents(queue, list(entries), filled)
    else:
        _bury(queue, entries, reason)


def _bury(queue: Queue, entries: Sequence[Entry], reason: str) -> None:
    dead_letter(queue, [entry[MESSAGE] for entry in entries], reason)
    let_go(queue, entries)


def let_go(queue: Queue, entries: Sequence[Entry]) -> None:
    """The queue lets go of messages that are in none of its lines any more."""
    dying = queue.dying
    for entry in entries:
        if entry[NUMBER] in dying:
            # It must not be read again from now on.
            dying.remove(entry[NUMBER])
            if entry[NUMBER] >= queue.bodies_from:
                forget_bodies(queue, [entry])
            for store in queue.stores:
                store.settled_range(entry[NUMBER], entry[NUMBER] + 1)
    for store in queue.stores:
        store.settled(list(entries))


def without_worn(queue: Queue, entries: list[Entry]) -> list[Entry]:
    """Those of these entries, which come back, that may: the others came back as often as the
    delivery limit of the queue allows, and die."""
    limit = queue.rules.delivery_limit
    assert limit is not None
    worn = [entry for entry in entries if entry[RETURNS] >= limit]
    if not worn:
        return entries
    bury(queue, worn, DELIVERY_LIMIT)
    return [entry for entry in entries if entry[RETURNS] < limit]


def dead_letter(queue: Queue, messages: Sequence[Message], reason: str) -> None:
    """Publishes messages that die in this queue to its dead-letter exchange, in order. Without
    one, or if nothing takes them there, they are gone."""
    broker = queue.broker
    broker.counters.count_dead_letters(reason, len(messages), queue.rules)
    name = queue.rules.dead_letter_exchange
    vhost = broker.vhosts.get(queue.vhost_name)
    exchange = vhost.exchanges.get(name) if vhost is not None and name is not None else None
    if vhost is None or exchange is None:
        return
    letters = _Letters(vhost, exchange, queue, reason, broker.timers.now // 1000, Counter())
    for message in messages:
        letters.send(message)
    if letters.cycles:
        broker.note("dead_letter_cycle", {"queue": queue.name, "targets": dict(letters.cycles)})


class _Letters(NamedTuple):
    """Dead letters of one queue, for one reason."""

    vhost: VHost
    exchange: Exchange
    queue: Queue
    reason: str
    seconds: int
    cycles: Counter[str]
    """Messages that would have gone round and round, by queue."""

    def send(self, message: Message) -> None:
        """Publishes one."""
        content, header_size, origin, framing = message
        header = content[:header_size]
        headers = properties.headers_table(header)
        keys = [origin[1], *carbon_copies(headers)]
        key = self.queue.rules.dead_letter_routing_key
        died = Event(self.queue.name, self.reason, origin[0], keys, self.seconds)
        history = _history(headers, died, properties.text_property(header, properties.EXPIRATION))
        changed = died.headers(headers, history)
        dropped = ["CC"] if key is not None else []
        edited = properties.with_headers(header, changed, dropped)
        edited = properties.replace_property(edited, properties.EXPIRATION, None)
        if key is not None:
            keys = [key]
        found, _ = self.vhost.route(self.exchange, keys, edited)
        targets = self._without_cycles(found, history)
        if not targets:
            return
        broker = self.queue.broker
        origin = make_origin(
            self.exchange.name,
            keys[0],
            persistent=origin[PERSISTENT],
            published=broker.timers.now,
        )
        letter = (edited + content[header_size:], len(edited), origin, framing)
        self.vhost.enqueue(targets, letter)

    def _without_cycles(self, queues: list[Queue], history: Deaths) -> list[Queue]:
        if self.reason == REJECTED:
            return queues
        targets = []
        for queue in queues:
            if _is_cycle(queue.name, history):
                self.cycles[queue.name] += 1
            else:
                targets.append(queue)
        return targets


class Event(NamedTuple):
    """A death. `seconds` are since 1970."""

    queue: str
    reason: str
    exchange: str
    routing_keys: list[str]
    seconds: int

    def headers(self, before: Table, history: Deaths) -> Table:
        """What changes in the headers of a message that dies so."""
        changed: Table = {}
        where = {"reason": self.reason, "queue": self.queue, "exchange": self.exchange}
        for name, value in where.items():
            if f"x-first-death-{name}" not in before:
                changed[f"x-first-death-{name}"] = Field("longstr", value)
            changed[f"x-last-death-{name}"] = Field("longstr", value)
        changed["x-death"] = Field("array", [Field("table", event) for event in history])
        return changed


def _history(headers: Table, died: Event, expiration: str | None) -> Deaths:
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
    field = headers.get("x-death")
    if field is None or field.type != "array":
        return []
    items = cast("list[Field]", field.value)
    return [cast(Table, item.value) for item in items if item.type == "table"]


def _text(event: Table, name: str) -> object:
    field = event.get(name)
    return field.value if field is not None else None


def _is_cycle(queue: str, history: Deaths) -> bool:
    """Whether a message that died so would come to a queue again in which it died before, and
    nobody rejected it on the way."""
    for event in history:
        if _text(event, "reason") == REJECTED:
            return False
        if _text(event, "queue") == queue:
            return True
    return False


def carbon_copies(headers: Table, name: str = "CC") -> Iterable[str]:
    """The further routing keys of a message with these headers."""
    field = headers.get(name)
    if field is None or field.type != "array":
        return []
    items = cast("list[Field]", field.value)
    return [str(item.value) for item in items if item.type == "longstr"]

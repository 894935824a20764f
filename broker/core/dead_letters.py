"""Dead letters: what leaves a queue other than by an acknowledgement goes to its dead-letter
exchange, with the history of its deaths in its headers (RabbitMQ, "Dead Letter Exchanges").

Only the header frame is written anew, and of that only what is about deaths and expiry; the body
and all other octets stay as they came.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from broker.core import deaths
from broker.core.arguments import is_quorum
from broker.core.deaths import Event, history, is_cycle, past_of
from broker.core.exchange import Exchange
from broker.core.limits import MAXLEN, is_full
from broker.core.message import (
    BCC,
    EXCHANGE,
    PERSISTENT,
    PUBLISHED,
    ROUTING_KEY,
    Message,
    Origin,
    make_origin,
    seen,
)
from broker.core.rules import REJECT_PUBLISH_DLX
from broker.wire import properties
from broker.wire.table import Field, Table, encode_table

if TYPE_CHECKING:
    from broker.core.queue import Queue
    from broker.core.vhost import VHost

REJECTED: Final = deaths.REJECTED
EXPIRED: Final = "expired"
DELIVERY_LIMIT: Final = "delivery_limit"
REASONS: Final = (REJECTED, EXPIRED, MAXLEN, DELIVERY_LIMIT)

_MARK: Final = b"-death"
"""What the header frame of a message has that died before."""
_COPIES: Final = (b"\x02CC", b"\x03BCC")
"""What that of a message has that has further routing keys."""


class Letters:
    """Messages that die in one queue for one reason, on their way to its dead-letter exchange."""

    def __init__(self, queue: Queue, reason: str) -> None:
        self._queue = queue
        self._reason = reason
        self._broker = queue.broker
        self._rules = queue.rules
        self._seconds = queue.broker.timers.now // 1000
        # Messages that would have gone round and round, by queue.
        self._cycles: Counter[str] = Counter()
        # The last letter, and what it was made of: many look alike.
        self._last: tuple[object, ...] = ()
        self._letter: _Letter | None = None
        # What all first deaths have in common: where they go, and what their headers say more, by
        # what that depends on.
        self._ways: dict[tuple[object, ...], _Way] = {}
        self._fields: dict[tuple[object, ...], bytes] = {}
        # The same of those that died before, elsewhere.
        self._later_ways: dict[tuple[object, ...], _Way] = {}
        self._events: dict[tuple[object, ...], bytes] = {}
        self._marks: dict[tuple[object, ...], bytes] = {}
        # Messages that go the same way, and what that is.
        self._batch: list[Message] = []
        self._batch_way: _Way | None = None
        self._batch_framing = 0

    def send(self, messages: Sequence[Message]) -> int:
        """Publishes these, in order, and returns how many. Without an exchange, or if nothing takes
        them there, they are gone; but where they must not be lost it stops there
        (`x-dead-letter-strategy`)."""
        way = self._way()
        count = 0
        for message in messages:
            is_sent = way is not None and self._send(*way, message)
            if not is_sent and self._rules.keeps_letters:
                break
            count += 1
        self._flush()
        self._broker.counters.count_dead_letters(self._reason, count, self._rules)
        if self._cycles:
            targets: object = dict(self._cycles)
            details = {"queue": self._queue.name, "targets": targets}
            self._broker.note("dead_letter_cycle", details)
        return count

    def _way(self) -> tuple[VHost, Exchange] | None:
        name = self._rules.dead_letter_exchange
        vhost = self._broker.vhosts.get(self._queue.vhost_name)
        exchange = vhost.exchanges.get(name) if vhost is not None and name is not None else None
        return (vhost, exchange) if vhost is not None and exchange is not None else None

    def _send(self, vhost: VHost, exchange: Exchange, message: Message) -> bool:
        """Publishes one. False if it came to no queue."""
        content, header_size, origin, framing = message
        header = content[:header_size]
        if not origin[PERSISTENT] and self._broker.lasts and properties.says_persistent(header):
            # Its queue does not last, where it goes may.
            exchange_name, key, tail, _, published, ttl = origin
            origin = exchange_name, key, tail, True, published, ttl
        letter = self._letter
        if letter is None or self._last != (header, *origin[:PUBLISHED]) or not letter.way.is_fixed:
            letter = self._letter = self._make_letter(vhost, exchange, header, origin)
            self._last = (header, *origin[:PUBLISHED])
        way = letter.way
        body = letter.header + content[header_size:]
        made = body, len(letter.header), way.origin, framing
        targets = way.targets
        if any(queue.rules.refuses for queue in targets):
            self._flush()
            targets = self._with_room(targets, made)
            if targets:
                vhost.enqueue(targets, made)
        elif targets:
            if self._batch_way is not way or self._batch_framing != framing:
                self._flush()
                self._batch_way, self._batch_framing = way, framing
            self._batch.append(made)
        # One that would go round and round is not kept for that.
        return bool(targets) or way.is_cycle

    def _flush(self) -> None:
        batch, self._batch = self._batch, []
        if not batch or self._batch_way is None:
            return
        targets = self._batch_way.targets
        vhost = self._broker.vhosts[self._queue.vhost_name]
        if not vhost.has_delayed:
            self._broker.enqueue(targets, batch)
            return
        for message in batch:
            vhost.enqueue(targets, message)

    def _with_room(self, targets: list[Queue], letter: Message) -> list[Queue]:
        """Those that take a letter; none, if all must take it and one does not."""
        # Those that came before take their place first.
        full = [queue for queue in targets if queue.rules.refuses and is_full(queue, letter)]
        if full and self._rules.keeps_letters:
            return []
        for queue in full:
            if queue.rules.overflow == REJECT_PUBLISH_DLX:
                self._broker.graves.refuse(queue, letter, MAXLEN)
        return [queue for queue in targets if queue not in full]

    def _make_letter(
        self, vhost: VHost, exchange: Exchange, header: bytes, origin: Origin
    ) -> _Letter:
        expiration = properties.text_property(header, properties.EXPIRATION)
        if not any(mark in header for mark in _COPIES):
            if _MARK not in header:
                return self._make_first_letter(vhost, exchange, header, origin, expiration)
            letter = self._make_later_letter(vhost, exchange, header, origin, expiration)
            if letter is not None:
                return letter
        headers = properties.headers_table(header)
        keys = [origin[ROUTING_KEY], *carbon_copies(headers)]
        blind = carbon_copies(headers, BCC)
        key = self._rules.dead_letter_routing_key
        died = self._event(origin, keys)
        past = history(headers, died, expiration)
        dropped = ["CC", BCC] if key is not None else []
        edited = properties.with_headers(header, died.headers(headers, past), dropped)
        if expiration is not None:
            edited = properties.replace_property(edited, properties.EXPIRATION, None)
        keys = [key] if key is not None else [*keys, *blind]
        way = self._find_way(vhost, exchange, seen(edited), origin, keys, partial(is_cycle, past))
        return _Letter(edited, way)

    def _make_first_letter(
        self,
        vhost: VHost,
        exchange: Exchange,
        header: bytes,
        origin: Origin,
        expiration: str | None,
    ) -> _Letter:
        """The letter of a message that never died before and has no further routing keys: nothing
        of its headers has to be known."""
        octets = (expiration or "").encode("utf-8", "surrogateescape")
        kind = (*origin[:PUBLISHED], None if expiration is None else len(octets))
        fields = self._fields.get(kind)
        keys = [origin[ROUTING_KEY]]
        if fields is None:
            died = self._event(origin, keys)
            # The expiration is the end of it.
            encoded = encode_table(died.headers({}, history({}, died, expiration)))
            fields = self._fields[kind] = encoded[4 : len(encoded) - len(octets)]
        edited = properties.with_more_headers(header, fields + octets)
        way = self._ways.get(kind)
        if way is None or not way.is_fixed:
            if self._rules.dead_letter_routing_key is not None:
                keys = [self._rules.dead_letter_routing_key]
            died_in = self._queue.name.__eq__
            way = self._find_way(vhost, exchange, edited, origin, keys, died_in)
            self._ways[kind] = way
        return _Letter(edited, way)

    def _make_later_letter(
        self,
        vhost: VHost,
        exchange: Exchange,
        header: bytes,
        origin: Origin,
        expiration: str | None,
    ) -> _Letter | None:
        """The letter of a message that died before, in other queues, and has no further routing
        keys: its headers are passed on as octets. None if more has to be known of them."""
        past = past_of(properties.table_octets(header))
        if past is None or past.names(self._queue.name):
            return None
        octets = (expiration or "").encode("utf-8", "surrogateescape")
        place = origin[:PUBLISHED]
        kind = (*place, None if expiration is None else len(octets))
        fields = self._events.get(kind)
        keys = [origin[ROUTING_KEY]]
        if fields is None:
            # The expiration is the end of it.
            encoded = encode_table(history({}, self._event(origin, keys), expiration)[0])
            fields = self._events[kind] = encoded[: len(encoded) - len(octets)]
        past = past.with_event(fields + octets)
        marked = origin[EXCHANGE], past.missing
        marks = self._marks.get(marked)
        if marks is None:
            marks = encode_table(self._event(origin, keys).marks(past.missing))[4:]
            self._marks[marked] = marks
        edited = properties.with_table(header, past.headers(marks))
        way = self._later_ways.get(place)
        if way is None or not way.is_fixed or any(past.names(to.name) for to in way.targets):
            if self._rules.dead_letter_routing_key is not None:
                keys = [self._rules.dead_letter_routing_key]
            way = self._find_way(vhost, exchange, edited, origin, keys, past.is_cycle)
            if not way.is_cycle:
                self._later_ways[place] = way
        return _Letter(edited, way)

    def _event(self, origin: Origin, keys: list[str]) -> Event:
        return Event(self._queue.name, self._reason, origin[EXCHANGE], keys, self._seconds)

    def _find_way(
        self,
        vhost: VHost,
        exchange: Exchange,
        header: bytes,
        origin: Origin,
        keys: list[str],
        died_in: Callable[[str], bool],
    ) -> _Way:
        found, is_fixed = vhost.route(exchange, keys, header)
        targets = self._without_cycles(found, died_in)
        made = make_origin(
            exchange.name,
            keys[0],
            persistent=origin[PERSISTENT] or any(is_quorum(each.arguments) for each in targets),
            published=self._broker.timers.now,
        )
        return _Way(made, targets, len(targets) < len(found), is_fixed)

    def _without_cycles(self, queues: list[Queue], died_in: Callable[[str], bool]) -> list[Queue]:
        if self._reason == REJECTED:
            return queues
        targets = []
        for queue in queues:
            if died_in(queue.name):
                self._cycles[queue.name] += 1
            else:
                targets.append(queue)
        return targets


class _Letter(NamedTuple):
    """What becomes of messages with one header and one origin."""

    header: bytes
    way: _Way


class _Way(NamedTuple):
    """Where letters go."""

    origin: Origin
    targets: list[Queue]
    is_cycle: bool
    """Whether a queue was left out where it died before."""
    is_fixed: bool
    """Whether others go the same way."""


def carbon_copies(headers: Table, name: str = "CC") -> Iterable[str]:
    """The further routing keys of a message with these headers."""
    field = headers.get(name)
    if field is None or field.type != "array":
        return []
    items = cast("list[Field]", field.value)
    return [str(item.value) for item in items if item.type == "longstr"]

"""Delayed messages: what waits at an exchange until it is due, and is routed then.

They are a queue that nobody consumes from and nobody can name. Its messages have their delay for a
time to live, so what holds for messages with an expiration holds for them: any of them may be due
first, they are paged out when memory is short, those that are persistent last if the exchange does,
and after a restart the log says when they are due. But what is due here does not die: it is routed
by the exchange, and the queue lets go of it in the same batch of the log in which it is in others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from broker.core import delay
from broker.core.dead_letters import carbon_copies
from broker.core.deduplication.duplicates import Judged
from broker.core.expiry import Expiry
from broker.core.graves import first_of, let_go
from broker.core.lines import discard, ready_numbers, use_sparse
from broker.core.message import (
    BCC,
    BLIND,
    CONTENT,
    MESSAGE,
    NUMBER,
    ORIGIN,
    PERSISTENT,
    PUBLISHED,
    ROUTING_KEY,
    TTL,
    Entry,
    Message,
    Origin,
    body_bytes,
    header_of,
    seen,
    with_time,
)
from broker.core.queue import Queue
from broker.core.reading import BARE, Again, is_bare, read_contents, where
from broker.core.routing import Passage, find_queues
from broker.wire import properties

if TYPE_CHECKING:
    from broker.core.broker import Broker
    from broker.core.exchange import Exchange

RELEASED_AT_ONCE: Final = 200
"""Messages of one exchange that are routed in one turn, or fewer, if they are large: some 10 ms."""
RELEASED_BYTES: Final = 1 << 22
"""Octets of them that are read, or go into queues, as one."""


class Waiting(NamedTuple):
    """A delayed message. `number` is its id, `due` message time in milliseconds, `size` the octets
    of its body."""

    number: int
    due: int
    routing_keys: list[str]
    size: int


class Release(Expiry):
    """When the messages of one exchange are due."""

    __slots__ = ()

    @property
    def needs_contents(self) -> bool:
        """What is due is routed."""
        return True

    def make_ready(self) -> bool:
        """Nothing is handed out here."""
        return True

    def on_time(self, now: int) -> None:
        """Messages are due."""
        # One slice in each turn.
        self._expire(now)

    def _expire(self, now: int, *, is_final: bool = True) -> None:
        queue = self.queue
        assert isinstance(queue, Delayed)
        if queue.is_releasing:
            # The next ones are not to pass those before them.
            return
        due = self.take_due(now, RELEASED_AT_ONCE)
        if due:
            queue.release(due)


class Delayed(Queue):
    """What waits at one exchange."""

    __slots__ = ("_line", "exchange", "reads")

    def __init__(self, broker: Broker, exchange: Exchange) -> None:
        super().__init__(
            broker,
            exchange.vhost_name,
            f"delayed messages of exchange {exchange.name}",
            durable=exchange.durable,
        )
        self.exchange = exchange
        # How many times messages that are due are being read.
        self.reads = 0
        # Those that are due and have their turns next.
        self._line: list[Entry] = []
        self.expiry = Release(self)
        use_sparse(self)

    def publish(self, messages: list[Message], size: int) -> None:
        """Messages begin to wait; nobody counts that as routing them."""
        super().publish(messages, size)
        self.broker.counters.messages_routed -= len(messages)

    @property
    def is_releasing(self) -> bool:
        """Whether messages that are due are still to be read or to be routed."""
        return bool(self.reads or self._line)

    def release(self, entries: Sequence[Entry]) -> None:
        """These messages, which left the line, are due: they are routed, in order."""
        if not any(map(is_bare, entries)):
            self._route(entries)
            return
        self.reads += 1
        count = self._fitting(entries)

        def filled(whole: list[Entry]) -> None:
            self.reads -= 1
            if self.is_deleted:
                return
            following = entries[count:]
            if not following and not self.reads and self.expiry is not None:
                following = self.expiry.take_due(self.broker.timers.now, RELEASED_AT_ONCE)
            if any(map(is_bare, following)):
                # They are read while these are routed.
                self.release(following)
                self._route(whole)
                return
            self._route([*whole, *following])
            self.touch()

        read_contents(self, list(entries[:count]), filled)

    def _fitting(self, entries: Sequence[Entry]) -> int:
        """How many of these are read as one."""
        size = 0
        for count, entry in enumerate(entries):
            found = where(self, entry[NUMBER]) if is_bare(entry) else None
            size += found[1].share if found is not None else len(entry[MESSAGE][CONTENT])
            if size > RELEASED_BYTES:
                return max(count, 1)
        return len(entries)

    def _route(self, entries: Sequence[Entry]) -> None:
        """It is their turn, behind those that wait for theirs."""
        is_next = not self._line
        self._line += entries
        if is_next:
            self._route_first()

    def _route_first(self) -> None:
        some, _ = first_of(self._line, RELEASED_AT_ONCE)
        routing = _Routing(self)
        for entry in some:
            routing.send(entry[MESSAGE])
        routing.flush()
        let_go(self, some)
        self._line = self._line[len(some) :]
        if self._line:
            self.broker.timers.set(Again(self._route_next), self.broker.timers.now + 1)

    def _route_next(self) -> None:
        if not self.is_deleted:
            self._route_first()
            if not self._line:
                self.touch()

    # For who looks after them

    def browse(
        self, callback: Callable[[list[Waiting]], None], start: int = 0, most: int = 100
    ) -> None:
        """Calls back with the first messages whose ids are `start` or more, at most so many, in the
        order in which they came; later, if some have to be read first."""
        dying = self.dying
        numbers = (n for n in ready_numbers(self) if n >= start and n not in dying)
        wanted = list(islice(numbers, most))
        found = {entry[NUMBER]: entry for entry in self._in_memory(set(wanted))}
        entries = [found.get(number, (number, BARE, 0)) for number in wanted]

        def filled(whole: list[Entry]) -> None:
            callback([_waiting(entry) for entry in whole if not is_bare(entry)])

        read_contents(self, entries, filled)

    def _in_memory(self, numbers: set[int]) -> Iterable[Entry]:
        lines = [self.ready]
        if self.paged is not None:
            lines += [self.paged.tail, self.paged.fresh]
        for line in lines:
            for entry in line:
                if entry[NUMBER] in numbers:
                    yield entry

    def cancel(self, number: int) -> bool:
        """Drops the message with this id. False if it does not wait here (any more)."""
        entry = discard(self, number)
        if entry is not None:
            let_go(self, [entry])
        return entry is not None

    def send_now(self, number: int) -> bool:
        """Routes the message with this id now. False if it does not wait here (any more)."""
        entry = discard(self, number)
        if entry is not None:
            self.release([entry])
        return entry is not None


class _Routing:
    """Messages that are due at one exchange on their way into queues. Those of one origin that go
    to the same queues, one behind the other, go as one."""

    def __init__(self, delayed: Delayed) -> None:
        self._broker = delayed.broker
        self._vhost = delayed.broker.vhosts[delayed.vhost_name]
        self._exchange = delayed.exchange
        # Where messages go that differ in nothing but their headers, by routing key.
        self._known: dict[str, list[Queue]] = {}
        self._origin: Origin | None = None
        self._framing = 0
        self._targets: list[Queue] = []
        self._run: list[Message] = []
        self._size = 0

    def send(self, message: Message) -> None:
        """Routes one."""
        content, header_size, before, framing = message
        raw = content[:header_size]
        header = delay.released(raw)
        if b"\x03BCC" in header:
            framing |= BLIND
        judged = Judged(header) if self._vhost.policies.deduplicating_count else None
        targets = self._targets_of(message, header, judged)
        if judged is not None:
            # This exchange judged it when it came; what is behind it does now.
            if any(queue.present is not None for queue in targets):
                # Those before it have to be there.
                self.flush()
            targets = judged.among(targets)
            judged.remember(targets, persistent=before[PERSISTENT])
        if not targets:
            if judged is None or judged.batch is None:
                self._broker.counters.messages_unroutable_dropped += 1
            return
        expiration = properties.text_property(header, properties.EXPIRATION)
        ttl = None if expiration is None else int(expiration)
        origin = with_time(before, self._broker.timers.now, ttl)
        kind = origin, framing, targets
        is_other = kind != (self._origin, self._framing, self._targets)
        if is_other or self._size > RELEASED_BYTES:
            self.flush()
            self._origin, self._framing, self._targets = origin, framing, targets
        if header is not raw:
            content, header_size = header + content[header_size:], len(header)
        self._run.append((content, header_size, self._origin or origin, framing))
        self._size += len(content)

    def _targets_of(self, message: Message, header: bytes, judged: Judged | None) -> list[Queue]:
        keys = _keys(message)
        if len(keys) == 1 and keys[0] in self._known:
            return self._known[keys[0]]
        passage = Passage(keys, seen(header), self._broker.random_bytes, has_waited=True)
        passage.judged = judged
        targets, is_fixed = find_queues(self._vhost, self._exchange, passage)
        if is_fixed and len(keys) == 1:
            self._known[keys[0]] = targets
        return targets

    def flush(self) -> None:
        """What was routed so far is in its queues."""
        if self._run:
            self._broker.enqueue(self._targets, self._run)
            self._run = []
            self._size = 0


def _waiting(entry: Entry) -> Waiting:
    number, message, _ = entry
    published, ttl = message[ORIGIN][PUBLISHED], message[ORIGIN][TTL]
    assert published is not None
    assert ttl is not None
    return Waiting(number, published + ttl, _keys(message), body_bytes(message))


def _keys(message: Message) -> list[str]:
    """All routing keys of a delayed message."""
    key = message[ORIGIN][ROUTING_KEY]
    header = header_of(message)
    if b"CC" not in header:
        return [key]
    headers = properties.headers_table(header)
    return [key, *carbon_copies(headers), *carbon_copies(headers, BCC)]


def apart(queues: Sequence[Queue]) -> tuple[list[Queue], list[Queue]]:
    """Where a message waits, and the queues that it goes to at once."""
    waiting: list[Queue] = [queue for queue in queues if isinstance(queue, Delayed)]
    return waiting, [queue for queue in queues if not isinstance(queue, Delayed)]


def waiting_from(message: Message, now: int) -> Message:
    """A message that begins to wait now."""
    content, header_size, origin, framing = message
    milliseconds = delay.delay_of(header_of(message), now)
    return content, header_size, with_time(origin, now, milliseconds), framing

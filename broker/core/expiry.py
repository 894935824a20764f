"""Messages and queues that expire.

Theory of operation. A message expires after its queue's TTL or after the expiration it came with,
whichever is less (RabbitMQ, "Time-To-Live and Expiration"); both count from when it was published,
which its origin says. Under a queue's TTL alone messages expire in order, so only the first one is
watched. One with an expiration of its own may be due anywhere in the queue: its deadline is kept by
number, from the end of the batch on in which it came, since most are delivered before that. What
has expired is never delivered, wherever it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import TYPE_CHECKING

from broker.core.dead_letters import EXPIRED
from broker.core.deadlines import DEADLINE_BYTES, Deadlines
from broker.core.foreseen import Foreseen
from broker.core.graves import wants_contents
from broker.core.lines import (
    discard,
    first,
    first_number,
    ready_numbers,
    sparse_bytes,
    take_first,
    take_returned,
    use_sparse,
)
from broker.core.message import (
    MESSAGE,
    NUMBER,
    ORIGIN,
    PUBLISHED,
    RETURNS,
    TTL,
    Entry,
    Message,
    Origin,
    origin_of,
)
from broker.core.reading import fetch, is_bare

if TYPE_CHECKING:
    from broker.core.queue import Queue

EXPIRED_AT_ONCE = 1000
"""Messages of one queue that expire in one turn."""
BUSY_MS = 5
"""After so long it is tried again where many die already."""
_COMPACT_FROM = 1024
"""Deadlines of messages that are gone which are kept anyway."""


class Expiry:
    """When the messages of one queue expire."""

    __slots__ = (
        "_back", "_began", "_came", "_deadlines", "_extra", "_foreseen", "_since", "due",
        "is_behind", "queue",
    )  # fmt: skip

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.due: int | None = None
        # Since when the queue has a TTL: messages that do not say when they were published were
        # there before.
        self._since = queue.broker.timers.now
        # The same for those that say it: the TTL counts from then on for them too, so that messages
        # expire in order.
        self._began = self._since
        # Of messages with an expiration of their own.
        self._deadlines = Deadlines()
        # Those of this batch: (deadline, first number, number behind the last one).
        self._came: list[tuple[int, int, int]] = []
        # Those of messages that came back: (deadline, number).
        self._back: list[tuple[int, int]] = []
        self._foreseen = Foreseen(queue)
        # Whether more was due than one turn takes.
        self.is_behind = False
        # Octets of memory that count for all this.
        self._extra = 0

    def deadline(self, origin: Origin) -> int | None:
        """When a message of this origin expires in the queue; None for never."""
        published, own = origin[PUBLISHED], origin[TTL]
        ttl = self.queue.rules.message_ttl
        deadline = None if own is None or published is None else published + own
        if ttl is None:
            return deadline
        if published is None:
            # Those behind it do not expire before it.
            begin = self._began = self._since
        else:
            begin = max(published, self._began)
        return begin + ttl if deadline is None else min(deadline, begin + ttl)

    def begin_ttl(self) -> None:
        """The queue has a TTL from now on."""
        self._since = self._began = self.queue.broker.timers.now

    def recovered(self) -> None:
        """The queue had its TTL before the broker started, nobody knows since when: for messages
        that were there before, and those behind them, it begins anew."""
        self._began = 0

    def expect(self, messages: Iterable[Message], first: int) -> None:
        """Messages from number `first` on came with an expiration."""
        # They may expire before others that came before them; also under a TTL of the queue that
        # is shorter, since that may change.
        for (*_, published, own), run in groupby(map(origin_of, messages)):
            assert published is not None and own is not None  # noqa: PT018  # always together
            stop = first + sum(1 for _ in run)
            self._came.append((published + own, first, stop))
            first = stop

    def expect_again(self, expiring: Iterable[tuple[int, int, int]]) -> None:
        """Messages were there when the broker started: (deadline, first number, number behind the
        last one)."""
        now = self.queue.broker.timers.now
        use_sparse(self.queue)
        for deadline, start, stop in expiring:
            for number in range(start, stop):
                self._deadlines.add(deadline, number, now)

    def returned(self, entries: Iterable[Entry]) -> None:
        """Messages came back."""
        for number, message, _ in entries:
            *_, published, own = message[ORIGIN]
            if own is not None and published is not None:
                self._back.append((published + own, number))

    @property
    def needs_contents(self) -> bool:
        """Whether what is due is read."""
        return wants_contents(self.queue)

    def make_ready(self) -> bool:
        """Before anything is handed out: what is due expires. False if that is more than one turn
        takes; then nothing may be handed out."""
        now = self.queue.broker.timers.now
        if not self._is_due(now):
            return True
        self._expire(now, is_final=False)
        self.is_behind = self._is_due(now)
        return not self.is_behind

    def _is_due(self, now: int) -> bool:
        if self._deadlines.may_be_due(now):
            return True
        deadline = self._first_deadline(is_final=False)
        return deadline is not None and deadline <= now

    def watch(self, *, is_final: bool) -> None:
        """Watches what is left after what could be delivered was. Unless more will be delivered
        when the disk has answered (`is_final`), what is due expires now."""
        queue = self.queue
        now = queue.broker.timers.now
        if self._came or self._back:
            self._watch_own(now, is_final=is_final)
        self._count()
        due = self._next(is_final=is_final)
        if due is None or due > now:
            queue.broker.timers.set(self, due)
        elif is_final:
            self._expire(now)
        else:
            queue.broker.timers.set(self, now + 1)

    def _watch_own(self, now: int, *, is_final: bool) -> None:
        queue = self.queue
        came, self._came = self._came, []
        least = first_number(queue)
        for each in came if least is not None else ():
            deadline, start, stop = each
            if deadline <= now and not is_final:
                self._came.append(each)
                continue
            for number in range(max(start, least or 0), stop):
                self._deadlines.add(deadline, number, now)
        back, self._back = self._back, []
        for deadline, number in back:
            self._deadlines.add(deadline, number, now)
        if self._deadlines:
            use_sparse(queue)
        if len(self._deadlines) > _COMPACT_FROM + 2 * queue.messages_ready:
            ready = set(ready_numbers(queue))
            self._deadlines.keep(ready.__contains__)
            self._foreseen.keep(ready)

    @property
    def octets(self) -> int:
        """What counts as memory for all this, as of the last turn."""
        return self._extra + self._foreseen.octets

    def _count(self) -> None:
        """Deadlines, and what is kept beside messages for their sake, take memory."""
        extra = len(self._deadlines) * DEADLINE_BYTES + sparse_bytes(self.queue)
        self.queue.broker.memory_used += extra - self._extra
        self._extra = extra

    def _next(self, *, is_final: bool = True) -> int | None:
        first_due = self._first_deadline(is_final=is_final)
        dues = [due for due in (first_due, self._deadlines.next) if due is not None]
        return min(dues, default=None)

    def _first_deadline(self, *, is_final: bool = True) -> int | None:
        """When the first message expires under the TTL of the queue. One that lives no time at all
        is for who has room: unless it is final that nobody has, it is not due yet."""
        queue = self.queue
        ttl = queue.rules.message_ttl
        if ttl is None or queue.reading or (ttl == 0 and not is_final):
            return None
        entry = first(queue)
        if entry is not None:
            origin = entry[MESSAGE][ORIGIN]
            return None if origin[TTL] == 0 and not is_final else self.deadline(origin)
        fetch(queue)
        return None

    def on_time(self, now: int) -> None:
        """Messages are due."""
        self._expire(now, is_final=False)
        # Those who had to wait for that go on.
        self.queue.touch()
        self.queue.tell(is_there=True)

    def _expire(self, now: int, *, is_final: bool = True) -> None:
        queue = self.queue
        if queue.broker.graves.is_full(queue):
            # Nothing is handed out meanwhile.
            queue.broker.timers.set(self, now + BUSY_MS)
            return
        expired = self.take_due(now, EXPIRED_AT_ONCE, is_final=is_final)
        if expired:
            queue.broker.graves.bury(queue, expired, EXPIRED)

    def take_due(self, now: int, most: int, *, is_final: bool = True) -> list[Entry]:
        """Takes messages that are due, at most so many; the others are due in the next turn at the
        earliest."""
        queue = self.queue
        due = self._take(self._deadlines.take(now, most))
        if queue.paged is None or not self._deadlines.has_near or not self.needs_contents:
            self._foreseen.clear()
        else:
            self._foreseen.expect(self._deadlines.near)
            if not self._deadlines.is_behind(now):
                # Those that are due first are known.
                self._foreseen.read_on()
        while len(due) < most:
            deadline = self._first_deadline(is_final=is_final)
            if deadline is None or deadline > now:
                break
            due.append(take_first(queue))
        self._count()
        then = self._next(is_final=is_final)
        queue.broker.timers.set(self, then if then is None else max(then, now + 1))
        return due

    def _take(self, numbers: list[int]) -> list[Entry]:
        """Takes what of these is ready, wherever it is."""
        queue = self.queue
        if not numbers:
            return []
        wanted = set(numbers)
        taken = take_returned(queue, wanted)
        wanted.difference_update(entry[NUMBER] for entry in taken)
        for number in numbers:
            known = self._foreseen.pop(number)
            if number in wanted:
                entry = discard(queue, number)
                if entry is not None and known is not None and is_bare(entry):
                    entry = number, known, entry[RETURNS]
                if entry is not None:
                    taken.append(entry)
        return taken

    def bury_expired(self, entries: list[Entry]) -> list[Entry]:
        """Messages are about to be ready: those that are not due; the others expire now."""
        now = self.queue.broker.timers.now
        alive: list[Entry] = []
        expired: list[Entry] = []
        for entry in entries:
            deadline = self.deadline(entry[MESSAGE][ORIGIN])
            (alive if deadline is None or deadline > now else expired).append(entry)
        if expired:
            self.queue.broker.graves.bury(self.queue, expired, EXPIRED)
        return alive

    def close(self) -> None:
        """The queue is empty, or gone."""
        self._came.clear()
        self._back.clear()
        self._deadlines.clear()
        self._foreseen.clear()
        self._count()
        self.queue.broker.timers.set(self, None)


def expiry_of(queue: Queue, entries: Iterable[Entry]) -> Expiry | None:
    """What watches these messages, which were handed out as they came and never stood in line; None
    if they do not expire by themselves."""
    is_wanted = any(message[ORIGIN][TTL] is not None for _, message, _ in entries)
    return Expiry(queue) if is_wanted else None


class Lease:
    """How long a queue may be unused (`x-expires`): without consumers, basic.get and declarations
    of it. It begins anew when the broker starts."""

    __slots__ = ("due", "queue")

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.due: int | None = None

    def renew(self) -> None:
        """The queue is used, or its last consumer has left."""
        queue = self.queue
        timers = queue.broker.timers
        expires = queue.rules.expires
        is_unused = expires is not None and not len(queue.consumers) and not queue.is_deleted
        timers.set(self, timers.now + expires if is_unused and expires is not None else None)

    def on_time(self, now: int) -> None:
        """It was unused for too long."""
        queue = self.queue
        queue.broker.note("queue_expired", {"vhost": queue.vhost_name, "queue": queue.name})
        queue.broker.vhosts[queue.vhost_name].delete_queue(queue)

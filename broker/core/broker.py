"""The broker: virtual hosts, users, counters, and what is shared by all connections."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from broker.core import priorities
from broker.core.arguments import REQUEUE
from broker.core.consumer import Consumer
from broker.core.counters import Counters
from broker.core.definitions import Definition, user_definition, vhost_definition
from broker.core.graves import BURIED_AT_ONCE, Graves
from broker.core.journal import Journal
from broker.core.lines import ready_numbers
from broker.core.message import ORIGIN, PERSISTENT, Message, size_of
from broker.core.paging import Pager
from broker.core.queue import Queue
from broker.core.redeclare import Redeclare
from broker.core.reply import REPLY_TO_NAME, ReplySink
from broker.core.timers import Timers
from broker.core.users import Permission, User, authenticate, hash_password
from broker.core.vhost import VHost
from broker.errors import AMQPError, ReplyCode, storage_failed
from broker.storage.log import LogState
from broker.wire.frames import FRAME_MAX_SIZE

if TYPE_CHECKING:
    from broker.core.deduplication.duplicates import Duplicates

MEMORY_LOW_SHARE = 0.95
"""Of the memory limit: publishers go on below it. A gap, so that they are not stopped and
started for each message."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What clients are offered at most, and what bounds them."""

    frame_max: int = FRAME_MAX_SIZE
    channel_max: int = 2047
    heartbeat_s: int = 60
    message_size_max: int = 134_217_728
    """Octets of one body: RabbitMQ 3.13's `max_message_size`."""
    connections: int = 0
    """Open connections at a time; 0 for no limit."""
    consumers_per_channel: int = 0
    """0 for no limit, as RabbitMQ's `consumer_max_per_channel`."""
    memory: int = 0
    """Octets of messages above which publishers are paused; 0 for no limit."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What the broker says of itself in connection.start."""

    product_version: str = "3.13.7"
    """RabbitMQ's version that clients are told: they switch behaviour on it."""
    leveret_version: str = "0"
    cluster_name: str = "leveret@localhost"


class Client(Protocol):
    """A connection, as far as the broker knows it."""

    name: str

    def unblock(self, now: float) -> None:
        """Goes on publishing, after it had to wait for memory."""


class Broker:
    """All that one broker holds. `random_bytes` makes the names of server-named things; `note` is
    told, as (event, details), what belongs in a log."""

    def __init__(
        self,
        random_bytes: Callable[[int], bytes],
        *,
        limits: Limits | None = None,
        identity: Identity | None = None,
        note: Callable[[str, dict[str, object]], None] = lambda event, details: None,
    ) -> None:
        self.random_bytes = random_bytes
        self.limits = limits or Limits()
        self.identity = identity or Identity()
        self.note = note
        self.counters = Counters()
        # Message time, and what happens when.
        self.timers = Timers()
        self.timers.on_error = lambda error: self.note(
            "internal_error", {"connection": "a timer", "error": error}
        )
        self.graves = Graves(self)
        self.vhosts: dict[str, VHost] = {}
        self.users: dict[str, User] = {}
        # Queues that want a turn of `Queue.deliver` before this batch ends.
        self.touched: deque[Queue] = deque()
        # Consumers whose queue is gone, and who are not told yet.
        self.cancelled: list[Consumer] = []
        # Channels that consume from amq.rabbitmq.reply-to, by the token in their address.
        self.reply_sinks: dict[str, ReplySink] = {}
        self.memory_used = 0
        # What exchanges and queues remember of publishes, and octets of memory that it takes.
        self.windows: dict[Duplicates, None] = {}
        self.window_bytes = 0
        # Queues that take no message that is like one in them.
        self.present_count = 0
        self.pager = Pager(self)
        # Messages queued, delivered, settled and returned so far: what a turn is measured by.
        self.work = 0
        self.is_memory_short = False
        # There is little room on the disk; who watches it, sets this.
        self.is_disk_short = False
        # Virtual hosts where publishes on channels in confirm mode are refused (basic.nack) while
        # others have to wait.
        self.nack_on_alarm: frozenset[str] = frozenset()
        # What becomes of deliveries that are not settled in time, where neither consumer nor queue
        # says so.
        self.consumer_timeout_action = REQUEUE
        # What a declaration of what is there with other arguments does, by virtual host; where
        # nothing is said, it is refused.
        self.redeclare: dict[str, Redeclare] = {}
        # Somebody publishes to a queue whose consumers do not keep up; who reads it, clears it.
        self.is_behind = False
        # Connections that wait at a publish until there is memory again.
        self.blocked: list[Client] = []
        # Open connections, in the order in which they were opened.
        self.connections: dict[Client, None] = {}
        # Where what must last is written; None if nothing does.
        self.journal: Journal | None = None
        # This one, and that of what is only paged out, if there are any.
        self.journals: list[Journal] = []
        self.next_queue_id = 1
        # Whether a queue with priorities was ever made.
        self.has_priorities = False
        # Changes when permissions do; routes that were checked before count no more.
        self.permission_epoch = 0

    @property
    def lasts(self) -> bool:
        """Whether anything is kept beyond the end of the broker."""
        return self.journal is not None

    def write(self) -> None:
        """Ends a turn: pages out what memory is short for, and hands on what is to be written."""
        self.pager.run()
        for journal in self.journals:
            journal.flush()

    def close_journal(self) -> None:
        """Writes all that must last, exactly as it is, and lets the log go. Blocks."""
        if self.journal is None:
            return
        self.run_deliveries()
        for vhost in self.vhosts.values():
            for queue in vhost.queues.values():
                if queue.keyed is not None and queue.lasting is not None:
                    queue.lasting.note_passed(ready_numbers(queue))
        self.journal.close()

    def define(self, definition: Definition) -> None:
        """Something that lasts was declared: writes it, if anything is written at all. What is
        written already is not written twice."""
        if self.journal is not None:
            self.journal.define(definition.key, definition.kind, definition.table)

    def redefine(self, definition: Definition) -> None:
        """The same, and what was written of it so far holds no more."""
        journal = self.journal
        if journal is not None and definition.key in journal.definitions:
            journal.redefine(definition.key, definition.kind, definition.table)
        else:
            self.define(definition)

    def undefine(self, definition: Definition) -> None:
        """It was deleted; what was never written is no error."""
        if self.journal is not None:
            self.journal.undefine(definition.key, definition.deletion, definition.table)

    @property
    def has_failed(self) -> bool:
        """Whether nothing that is defined or deleted will last any more."""
        return self.journal is not None and self.journal.has_failed

    def check_can_change(self) -> None:
        """Before what lasts is defined or deleted: INTERNAL_ERROR if that would not last."""
        journal = self.journal
        if journal is not None and journal.has_failed:
            raise storage_failed(journal.log.reason)

    def check_is_kept(self, definition: Definition) -> None:
        """Something that lasts is there already: INTERNAL_ERROR if the log may not know of it."""
        journal = self.journal
        if journal is not None and journal.has_failed and definition.key in journal.in_doubt:
            raise storage_failed(journal.log.reason)

    def check_is_gone(self) -> None:
        """Something is not there: INTERNAL_ERROR if the log may still know of it."""
        journal = self.journal
        if journal is not None and journal.has_failed and journal.has_lost_deletion:
            raise storage_failed(journal.log.reason)

    # Virtual hosts and users

    def add_vhost(self, name: str) -> VHost:
        """Makes a virtual host, or returns the one that is there."""
        vhost = self.vhosts.get(name)
        if vhost is None:
            vhost = self.vhosts[name] = VHost(self, name)
            self.define(vhost_definition(name))
        return vhost

    def add_user(
        self,
        name: str,
        password: bytes,
        *,
        tags: frozenset[str] = frozenset(),
        permissions: dict[str, Permission] | None = None,
        loopback_only: bool = False,
    ) -> User:
        """Makes a user, or replaces the one of that name."""
        user = User(
            name,
            hash_password(password, self.random_bytes(4)),
            tags,
            dict(permissions or {}),
            loopback_only,
        )
        self.put_user(user)
        return user

    def put_user(self, user: User) -> None:
        """Adds a user, or replaces the one of that name."""
        self.users[user.name] = user
        self.redefine(user_definition(user))
        self.permission_epoch += 1

    def log_in(self, name: str, password: bytes, peer_host: str) -> User:
        """The user, or ACCESS_REFUSED with the reason for the log as its explanation."""
        self.counters.auth_attempts += 1
        user = self.users.get(name)
        wrong = authenticate(user, password, peer_host)
        if wrong is not None or user is None:
            self.counters.auth_attempts_failed += 1
            raise AMQPError(ReplyCode.ACCESS_REFUSED, wrong or "unknown user")
        return user

    def enter_vhost(self, name: str, user: User) -> VHost:
        """The virtual host, or NOT_ALLOWED with RabbitMQ's text."""
        vhost = self.vhosts.get(name)
        if vhost is None:
            raise AMQPError(ReplyCode.NOT_ALLOWED, f"vhost {name} not found")
        if name not in user.permissions:
            raise AMQPError(
                ReplyCode.NOT_ALLOWED, f"access to vhost '{name}' refused for user '{user.name}'"
            )
        return vhost

    def add_connection(self, connection: Client) -> None:
        """A connection is about to open; NOT_ALLOWED if there are too many."""
        limit = self.limits.connections
        if limit and len(self.connections) >= limit:
            raise AMQPError(
                ReplyCode.NOT_ALLOWED,
                f"connection refused: node connection limit ({limit}) is reached",
            )
        self.connections[connection] = None
        self.counters.connections_opened += 1

    def remove_connection(self, connection: Client) -> None:
        """A connection has ended; one that never opened is no error."""
        if self.connections.pop(connection, False) is None:
            self.counters.connections_closed += 1

    def check_permission(
        self, user: User, operation: str, kind: str, name: str, vhost: str
    ) -> None:
        """Raises ACCESS_REFUSED unless the user may `operation` (configure, write, read) the
        `kind` (exchange, queue) of this name."""
        permission = user.permissions.get(vhost)
        shown = name or "amq.default" if kind == "exchange" else name
        if permission is None or not permission.allows(operation, shown):
            raise AMQPError(
                ReplyCode.ACCESS_REFUSED,
                f"{operation} access to {kind} '{shown}' in vhost '{vhost}' "
                f"refused for user '{user.name}'",
            )

    def make_name(self, prefix: str) -> str:
        """`amq.gen-` or `amq.ctag-` and 128 random bits in 22 URL-safe characters."""
        return prefix + urlsafe_b64encode(self.random_bytes(16)).rstrip(b"=").decode()

    # Direct reply-to

    def add_reply_sink(self, sink: ReplySink) -> str:
        """Makes an address for replies to this channel that cannot be guessed."""
        token = self.make_name("")
        self.reply_sinks[token] = sink
        return token

    def find_reply_sink(self, name: str) -> ReplySink | None:
        """The channel behind `amq.rabbitmq.reply-to.TOKEN`, if it is still there."""
        return self.reply_sinks.get(name.removeprefix(f"{REPLY_TO_NAME}."))

    # The batch

    def run_deliveries(self) -> None:
        """Lets every touched queue deliver, and tells consumers whose queue is gone.

        Runs at the end of a batch, and before anything that reads or changes a queue, so that
        nobody can tell a batch from single steps.
        """
        if self.cancelled:
            cancelled, self.cancelled = self.cancelled, []
            for consumer in cancelled:
                consumer.sink.cancelled(consumer)
        touched = self.touched
        while touched:
            touched.popleft().deliver()
        if self.graves.lines:
            self._bury()

    def _bury(self) -> None:
        """What dies has its turn, and may touch queues, where others die."""
        room = BURIED_AT_ONCE
        while room > 0 and self.graves.is_busy:
            room -= self.graves.run(room)
            while self.touched:
                self.touched.popleft().deliver()

    def enqueue(self, queues: Sequence[Queue], messages: list[Message]) -> bool | None:
        """Adds messages of one origin to the end of these queues, and writes them down where they
        last. None if nowhere; False if they should last and will not, since the log has failed."""
        size = size_of(messages)
        for queue in queues:
            queue.publish(messages, size)
        if self.present_count:
            for queue in queues:
                if queue.present is not None:
                    queue.present.arrive(messages)
        count = len(messages)
        self.counters.messages_routed += count * len(queues)
        journal = self.journal
        if journal is None or not messages[0][ORIGIN][PERSISTENT]:
            return None
        lasting = [queue for queue in queues if queue.lasting is not None]
        if not lasting:
            return None
        if journal.has_failed:
            return False
        if self.has_priorities and priorities.are_there(lasting):
            priorities.put(journal, lasting, messages)
        else:
            stores = [queue.lasting for queue in lasting if queue.lasting is not None]
            journal.put(stores, [queue.next_number - count for queue in lasting], messages)
        return True

    # Memory

    def alarms(self) -> list[str]:
        """What there is too little of, so that publishers must wait: disk, memory."""
        names = ["disk"] if self.is_disk_short or self._is_log_full() else []
        return [*names, "memory"] if self.check_memory() else names

    def has_alarm(self) -> bool:
        """Whether publishers must wait."""
        return self.is_disk_short or self.check_memory() or self._is_log_full()

    def _is_log_full(self) -> bool:
        for journal in self.journals:  # noqa: SIM110  # any() takes twice as long, for each publish
            if journal.log.state is LogState.FULL:
                return True
        return False

    def check_memory(self) -> bool:
        """Whether publishers must wait, by what is held now. It turns on above the limit and off
        below 95 % of it. What waits for the disk counts too, if it is much."""
        limit = self.limits.memory
        used = self.memory_used
        for journal in self.journals:
            if journal.is_behind:
                return True
            used += journal.index_bytes
        if not limit:
            return False
        if self.is_memory_short:
            if used < limit * MEMORY_LOW_SHARE:
                self.is_memory_short = False
                self.note("memory_free", {"used": used})
        elif used > limit:
            self.is_memory_short = True
            self.note("memory_short", {"used": used, "limit": limit})
        return self.is_memory_short

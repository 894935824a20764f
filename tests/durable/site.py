"""A broker on a simulated log, with clients but without sockets.

site = DurableSite()
client = site.connect()
client.queue("q", durable=True)     # answered once the disk has worked
site.settle_down()
site = site.crash()                 # and on with what was durable
"""

from __future__ import annotations

from functools import partial
from typing import Any

from broker.core.broker import Broker, Limits
from broker.core.journal import Journal
from broker.core.recovery import recover
from broker.core.users import Permission
from broker.errors import ReplyCode
from broker.protocol.connection import Connection
from broker.storage.log import LogState, Position
from broker.wire.properties import DELIVERY_MODE
from tests.durable.sim_log import SimLog
from tests.protocol.client import Client, Site, publish_octets

PERSISTENT: dict[str, Any] = {"flags": DELIVERY_MODE, "properties": b"\x02"}
"""What makes a publish of `Client.publish` persistent."""
_FORCED = "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'"


class DurableSite(Site):
    """A site that goes on from a log. Nothing is durable, read or told before the test says so;
    `settle_down` says all of it at once."""

    def __init__(self, log: SimLog | None = None, now: int = 0, **limits: Any) -> None:
        self.log = log or SimLog()
        self.notes = []
        self._dice = 0
        self.outbox: list[Connection] = []
        self.clients: list[Client] = []
        self.greeted = 0
        self.broker = Broker(self._random_bytes, limits=Limits(**limits), note=self._note)
        # Before there is a log: who it is that clients log in as, is not written.
        self.broker.add_user("guest", b"guest", permissions={"/": Permission()})
        self.broker.timers.advance(now)
        recover(self.broker, self.log)
        self.vhost = self.broker.add_vhost("/")
        self.logs = [self.log]
        self.broker.pager.open_scratch = self._open_scratch
        self.journal.on_progress = self._progress
        self.log.on_state = partial(self._log_has_changed, self.journal)
        # Connections that went on, with the batch that was pending then.
        self.unblocked: list[tuple[Connection, Position]] = []
        # Whether something could not be read, and is to be tried again.
        self.is_unread = False

    @property
    def journal(self) -> Journal:
        assert self.broker.journal is not None
        return self.broker.journal

    @property
    def is_full(self) -> bool:
        """Whether publishers have to wait for a disk."""
        return any(log.state is LogState.FULL for log in self.logs)

    def _open_scratch(self) -> Journal:
        log = SimLog()
        journal = Journal(log, is_scratch=True)
        journal.on_progress = self._progress
        log.on_state = partial(self._log_has_changed, journal)
        self.logs.append(log)
        return journal

    def greet(self, peer: str = "127.0.0.1") -> Client:
        """As its base, but no two connections ever have the same name."""
        client = Client(self, peer, 40_000 + self.greeted)
        self.greeted += 1
        self.clients.append(client)
        return client

    def collect(self) -> None:
        """As a server at the end of each chunk: what is to be written goes to the log too, and who
        waited for memory or for the disk goes on."""
        super().collect()
        self.broker.write()
        if self.broker.blocked:
            self.unblock()

    def unblock(self) -> None:
        """Lets connections go on, one after the other."""
        while self.broker.blocked and not self.broker.has_alarm():
            connection = self.broker.blocked.pop(0)
            assert isinstance(connection, Connection)
            self.unblocked.append((connection, self.log.next))
            connection.unblock(0.0)
            self.collect()

    def _progress(self) -> None:
        self.broker.run_deliveries()
        self.collect()

    def _log_has_changed(self, journal: Journal) -> None:
        if journal.has_failed:
            journal.fail()
        self.collect()

    def reads_fail(self) -> None:
        """All that is being read cannot be read."""
        self.is_unread = True
        for log in self.logs:
            if log.reads:
                log.unreadable = ["the test said so"]
            # Of many that failed at once the first one is asked for alone.
            for _ in range(2):
                log.answer(len(log.reads), fail=True)

    def try_again(self) -> None:
        """Queues ask again for what could not be read, as a server has it after a while."""
        self.is_unread = False
        for log in self.logs:
            log.unreadable = []
        for queue in self.vhost.queues.values():
            for lane in queue.lanes:
                if lane.paged is not None or lane.returned or lane.keyed is not None:
                    lane.touch()
        self._progress()

    def step(self) -> bool:
        """The disk does the next thing it has to do, and says so; False if there is none."""
        busy = [log for log in self.logs if log.can_work or log.has_news]
        for log in busy:
            log.work(1)
            log.tell(1)
            log.answer(1)
        self.collect()
        return bool(busy)

    def settle_down(self) -> None:
        """Lets the disk do all it has to do."""
        while self.step():
            pass

    def stop(self) -> DurableSite:
        """A clean stop and a start."""
        for client in self.clients:
            client.connection.close(ReplyCode.CONNECTION_FORCED, _FORCED)
        self.collect()
        self.broker.close_journal()
        assert not self.log.undurable
        return DurableSite(self.log.crashed(), self.broker.timers.now)

    def crash(self, keep: int = 0) -> DurableSite:
        """The end without a warning, and a start with what the disk has: all that is durable, and
        so many batches more."""
        return DurableSite(self.log.crashed(keep), self.broker.timers.now)


def publish_persistent(client: Client, *bodies: bytes, **arguments: Any) -> None:
    """Publishes these in one chunk."""
    arguments.setdefault("frame_max", client.connection.frame_max)
    octets = [publish_octets(body, **PERSISTENT, **arguments) for body in bodies]
    client.feed(b"".join(octets))

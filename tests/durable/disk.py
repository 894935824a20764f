"""A disk that is full now and then, fails, or cannot be read, under the machine."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

from broker.core.message import NUMBER
from broker.storage.log import LogState
from tests.durable.machine import DurableMachine
from tests.durable.peer import Peer
from tests.protocol.client import Basic


class DiskMachine(DurableMachine):
    """All that other disks do too, and trouble. The log of what lasts and the scratch log have a
    disk each."""

    persistent_share = 0.6
    limits: dict[str, Any] = {"memory": 30_000}  # noqa: RUF012  # as its base

    @rule(
        what=st.sampled_from(["fill", "fill", "room", "room", "reads", "fail"]),
        share=st.integers(0, 5),
    )
    def trouble(self, what: str, share: int) -> None:
        if what == "fill":
            self.disk_fills(share)
        elif what == "room":
            self.disk_has_room()
        elif what == "reads":
            self.reads_fail()
        else:
            self.disk_fails(share)

    def disk_fills(self, share: int) -> None:
        """A disk has room for a few batches more, and then for none."""
        logs = self.seen.site.logs
        log = logs[share % len(logs)]
        if log.disk is LogState.OPEN:
            log.become(LogState.FULL, room=share // 2)

    def disk_has_room(self) -> bool:
        """Somebody makes room. False if there was enough."""
        full = [log for log in self.seen.site.logs if log.disk is LogState.FULL]
        for log in full:
            log.become(LogState.OPEN)
        return bool(full)

    def disk_fails(self, share: int) -> None:
        """A disk will never be written again."""
        logs = self.seen.site.logs
        log = logs[share % len(logs)]
        if log.disk is not LogState.FAILED:
            log.become(LogState.FAILED)

    def reads_fail(self) -> None:
        """What is being read cannot be read; who waits for it with basic.get is told so."""
        seen = self.seen
        waiting = [peer for peer in seen.peers if self.waits_for_a_read(peer)]
        seen.at = seen.site.log.next
        seen.site.reads_fail()
        seen.look()
        left = [peer for peer in waiting if peer in seen.peers]
        seen.check("answers", not left, "nobody said that it cannot be read")

    def waits_for_a_read(self, peer: Peer) -> bool:
        """Whether the answer to its basic.get is being read now."""
        wish = peer.wish
        if wish is None or wish.kind is not Basic.GetOk or wish.queue is None:
            return False
        queue = self.seen.site.vhost.queues[wish.queue.name]
        if not queue.waiting:
            return False
        places = [
            (store, run)
            for store in queue.stores
            for entry in queue.reading[:1]
            if (run := store.stored.find(entry[NUMBER])) is not None
        ]
        if queue.paged is not None and queue.paged.is_reading:
            store, runs = queue.paged.next_runs(1)
            places.append((store, runs[0]))
        return any(run.position <= store.journal.durable for store, run in places)

    # What such a disk changes

    def idle(self, number: int) -> Peer:
        while True:
            self.connect()
            for peer in (self.seen.peers[number], *self.seen.peers):
                if peer.is_idle:
                    return peer
            if not self.disk_goes_on():
                # All wait for memory that nobody lets go.
                self.connection_dies(0)

    def disk_goes_on(self) -> bool:
        if super().disk_goes_on() or self.disk_has_room():
            return True
        if not self.seen.site.is_unread:
            return False
        self.seen.at = self.seen.site.log.next
        self.seen.site.try_again()
        self.seen.look()
        return True

    def check_if_quiet(self) -> None:
        is_well = all(log.disk is not LogState.FULL for log in self.seen.site.logs)
        if is_well and not self.seen.site.is_unread:
            super().check_if_quiet()

    def connection_dies(self, number: int, *, closed: bool = False) -> None:
        super().connection_dies(number % len(self.seen.peers), closed=closed)

    def interrupt(self, number: int, what: str, name: str, share: int) -> None:
        self.connect()
        super().interrupt(number=number, what=what, name=name, share=share)

    def start(self, *, stop: bool, keep: int) -> None:
        """A broker whose log has failed stops as after a crash."""
        site = self.seen.site
        if stop and site.log.disk is LogState.FAILED:
            site.broker.close_journal()
            stop = False
        super().start(stop=stop, keep=keep)

"""A broker on a disk that fails, with what its clients know: what the cases are made of."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from conformance.channel import Channel
from conformance.client import Connection
from conformance.crash.checker import Look, judge, settle
from conformance.crash.faults import Faults
from conformance.crash.grounds import Ground
from conformance.crash.look import look_at, seen_in
from conformance.crash.processes import KillableBroker
from conformance.crash.record import Copy, Record
from conformance.crash.steady import SteadyPublisher
from conformance.failure import ConformanceError, check, check_equal

QUEUE = "backlog"
OTHER = "other"
PAUSED = "publishers are paused"
GOES_ON = "publishers go on"
FAILED = "storage has failed"
_PREFETCH = 50
_WAIT_S = 20.0
_DRAIN_S = 120.0


class Site:
    """One data directory. Nothing that a broker has confirmed may be lost in it, whatever case it
    is used for. `faults` is None where no calls fail; raises ConformanceError everywhere."""

    def __init__(self, command: str, folder: Path, ground: Ground, faults: Faults | None) -> None:
        self.record = Record({QUEUE, OTHER}, set())
        self.ground = ground
        self.counts: Counter[str] = Counter()
        self._command = command
        self._folder = folder
        self._faults = faults
        self._broker: KillableBroker | None = None
        self._publishers: list[SteadyPublisher] = []
        self._connections: list[Connection] = []

    @property
    def faults(self) -> Faults:
        """The calls of the broker that are made to fail."""
        assert self._faults is not None
        return self._faults

    @property
    def broker(self) -> KillableBroker:
        """The broker that was started last."""
        assert self._broker is not None
        return self._broker

    # The broker.

    def start(self, flags: str = "--disk-free-min 0") -> None:
        """Starts a broker with these flags; the queues exist then."""
        environment = self._faults.environment if self._faults else {}
        command = f"{self._command} {flags}"
        self._broker = KillableBroker(command, self._folder, self.ground.data, environment)
        try:
            self._broker.start()
        except RuntimeError as error:
            raise ConformanceError(str(error)) from error
        self.counts["starts"] += 1

    def declare(self) -> None:
        """Makes the queues."""
        connection = self.connect()
        channel = connection.channel()
        for queue in self.record.queues:
            channel.declare_queue(queue, durable=True)
        connection.close()

    def connect(self) -> Connection:
        """An open connection, dropped in the end if it was not before."""
        connection = Connection(self.broker.address, timeout_s=_WAIT_S)
        self._connections.append(connection)
        return connection.open()

    def said(self, text: str) -> int:
        """How many lines of the broker's log have this in them."""
        return sum(text in line for line in self.broker.output.splitlines())

    def expect_said(self, text: str, times: int = 1, within_s: float = 10.0) -> None:
        """The broker says this so many times, and no more."""
        deadline = time.monotonic() + within_s
        while self.said(text) < times and time.monotonic() < deadline:
            time.sleep(0.01)
        check_equal(self.said(text), times, f"lines of the log with {text!r}")

    def kill(self) -> None:
        """SIGKILL; what clients were told until then counts."""
        for publisher in self._publishers:
            publisher.ending.set()
        self.broker.kill()
        self._ended()

    def stop(self) -> None:
        """SIGTERM; the broker ends with status 0."""
        for publisher in self._publishers:
            publisher.ending.set()
        check_equal(self.broker.stop(), 0, "exit status after SIGTERM")
        self._ended()

    def _ended(self) -> None:
        self._end_publishers()
        if (trace := self.broker.output.find("Traceback")) >= 0:
            raise ConformanceError(f"the broker wrote {self.broker.output[trace : trace + 2000]}")

    def close(self) -> None:
        """Ends what still runs."""
        if self._broker is not None and self._broker.running:
            self._broker.kill()
        self._end_publishers()
        for connection in self._connections:
            connection.drop()

    def _end_publishers(self) -> None:
        for publisher in self._publishers:
            publisher.end()
            self.counts += publisher.counts
        self._publishers.clear()

    # Its clients.

    def publisher(self, queue: str = QUEUE, *, window: int = 200) -> SteadyPublisher:
        """A publisher on a connection of its own."""
        number = self.counts["publishers"] = self.counts["publishers"] + 1
        publisher = SteadyPublisher(self.broker.address, self.record, queue, number, window=window)
        self._publishers.append(publisher)
        return publisher

    @contextmanager
    def consumer(self, queue: str = QUEUE) -> Iterator[Channel]:
        """A channel that consumes a queue. What was not acked goes back in the end."""
        connection = self.connect()
        channel = connection.channel()
        channel.call("basic.qos", prefetch_count=_PREFETCH)
        channel.consume(queue, "consumer")
        yield channel
        connection.close()

    def take(self, channel: Channel, queue: str = QUEUE, *, ack: bool = True) -> Copy:
        """The next delivery, which is as it was sent and in its place."""
        delivery = channel.expect("basic.deliver")
        self.counts["delivered"] += 1
        copy = self.record.delivery(queue, seen_in(delivery), time.monotonic())
        if self.record.findings or copy is None:
            raise ConformanceError(str(self.record.findings[0]))
        if ack:
            channel.send("basic.ack", delivery_tag=delivery["delivery_tag"])
            copy.acked, copy.held = True, False
        return copy

    def drain(self, until: Callable[[], bool], queue: str = QUEUE) -> None:
        """Consumes and acks until this is so; it is asked after every delivery. The messages of
        each publisher come in order."""
        last: dict[int, int] = {}
        deadline = time.monotonic() + _DRAIN_S
        with self.consumer(queue) as channel:
            while not until():
                check(time.monotonic() < deadline, f"{queue}: not drained within {_DRAIN_S:g} s")
                copy = self.take(channel, queue)
                publisher, number = copy.message.key
                late = f"{queue}: {copy.message.key} was delivered late"
                check(number > last.get(publisher, 0), late)
                last[publisher] = number
            channel.send("queue.declare", queue=queue, passive=True)
            while channel.next_method("queue.declare-ok").name != "queue.declare-ok":
                """What was on its way goes back to the queue."""
        now = time.monotonic()
        for copy in self.record.queues[queue].values():
            if copy.acked and copy.settled_at is None:
                copy.settled_at = now

    def owed(self, queue: str = QUEUE) -> int:
        """Confirmed messages that nobody has acked."""
        return sum(c.promised and not c.acked for c in list(self.record.queues[queue].values()))

    def restart_and_judge(
        self, flags: str = "--disk-free-min 0", *, acks_last: bool = False
    ) -> None:
        """Starts again after an end: what was confirmed is there, exactly as it was sent.

        Unless `acks_last`, what was acked may be back: nobody was promised that it is not.
        """
        self.start(flags)
        look = look_at(self.broker.address, self.record)
        self.judge(look, ended_at=float("inf") if acks_last else float("-inf"))

    def judge(self, look: Look, ended_at: float) -> None:
        """Raises ConformanceError for the first thing that is wrong, with the number of all."""
        promised = sum(self.owed(queue) for queue in self.record.queues)
        found = judge(self.record, look, ended_at, 0.0).findings
        if found:
            kinds = Counter(finding.kind for finding in found)
            numbers = ", ".join(f"{kind.value} {count}" for kind, count in kinds.items())
            raise ConformanceError(f"after a restart: {numbers}; first: {found[0]}")
        self.counts["owed"] += promised
        settle(self.record, look, time.monotonic())

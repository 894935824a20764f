"""A thread of the workload: a connection of its own until the broker ends."""

from __future__ import annotations

import random
import threading
from abc import ABC, abstractmethod
from collections import Counter

from conformance.client import Address, Connection
from conformance.crash.findings import Finding, Kind
from conformance.crash.record import Record
from conformance.failure import ConformanceError

WAIT_S = 20.0
"""How long the broker may leave a client without an answer."""


class Worker(ABC):
    """Runs `work` in a thread. What happens before `ending` is set and ends the connection is a
    finding; afterwards it is the end that was asked for."""

    def __init__(
        self, address: Address, record: Record, ending: threading.Event, chance: random.Random
    ) -> None:
        self.address = address
        self.record = record
        self.ending = ending
        self.chance = chance
        self.counts: Counter[str] = Counter()
        self.thread = threading.Thread(target=self._run)

    @abstractmethod
    def work(self, connection: Connection) -> None:
        """Keeps the broker busy until it ends (ConformanceError or OSError)."""

    def _run(self) -> None:
        try:
            connection = Connection(self.address, timeout_s=WAIT_S)
            try:
                self.work(connection.open())
            finally:
                connection.drop()
        except (ConformanceError, OSError) as error:
            if not self.ending.is_set():
                text = f"{type(self).__name__}: {error}"
                self.record.findings.append(Finding(Kind.FAILED, text))

"""One data directory: rounds of work that end with a kill, a restart and a look."""

from __future__ import annotations

import random
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from conformance.client import Connection
from conformance.crash import features, topology
from conformance.crash.carrier import Carrier
from conformance.crash.checker import ack_window_s, judge, settle
from conformance.crash.consumer import Consumer
from conformance.crash.definer import Definer, Definitions, clear, observe, settle_for_good
from conformance.crash.definitions import Observed, State, judge_definitions
from conformance.crash.features import Features
from conformance.crash.findings import Finding, Kind, Totals
from conformance.crash.grounds import Ground
from conformance.crash.look import drain, look_at
from conformance.crash.processes import KillableBroker
from conformance.crash.publisher import Publisher
from conformance.crash.transactor import Transactor
from conformance.crash.worker import Worker
from conformance.failure import ConformanceError

PUBLISHERS = 3
TRANSACTORS = 2
WORK_S = (0.15, 1.2)
"""The shortest and the longest time between a start and the end."""
KILLED_WHILE_STARTING = 0.1
STOPPED_CLEANLY = 0.04
SAID_MOST = 20_000
"""Characters of the broker's output that are kept."""


class Directory:
    """A broker on one data directory, with what its clients know. Counts in `totals`.

    Everything random comes from `seed`; what the broker makes of it is a matter of timing. `keep`
    is a folder for a copy of the directory as the last end left it. `serves` is false once the
    broker did not come back.
    """

    def __init__(
        self,
        broker: KillableBroker,
        ground: Ground,
        seed: int,
        totals: Totals,
        keep: Path | None = None,
    ) -> None:
        self.broker = broker
        self.ground = ground
        self.seed = seed
        self.totals = totals
        self.keep = keep
        self.record = topology.new_record()
        self.definitions = Definitions()
        self.features = Features()
        self.serves = False
        # What is known of the last findings; what the broker said until its end.
        self.explanation = ""
        self._said = ""
        # What RabbitMQ 3.10 has not, or does not promise.
        self.has_features = not broker.is_rabbitmq
        self._rounds = 0

    def open(self) -> None:
        """First start, and the definitions that stay. Raises RuntimeError, ConformanceError."""
        self.totals.directories += 1
        self.broker.start()
        self._declare()
        self.serves = True

    def _declare(self) -> None:
        connection = Connection(self.broker.address).open()
        topology.declare(connection.channel())
        if self.has_features:
            features.declare(connection.channel())
        connection.close()

    def round(self, *, power_cut: bool = False) -> list[Finding]:
        """Work, an end, a restart, a look: what is wrong."""
        self._rounds += 1
        chance = random.Random(f"{self.seed}/{self._rounds}")
        ending = threading.Event()
        workers = list(self._workers(ending))
        for worker in workers:
            worker.thread.start()
        self._wait(chance.uniform(*WORK_S))
        cleanly = not power_cut and chance.random() < STOPPED_CLEANLY
        ended_at = self._end(ending, cleanly)
        self._said = self.broker.output[-SAID_MOST:]
        if (trace := self.broker.output.find("Traceback")) >= 0:
            text = f"the broker wrote {self.broker.output[trace : trace + 2000]}"
            self.record.findings.append(Finding(Kind.FAILED, text))
        for worker in workers:
            worker.thread.join()
            self._count(worker)
        if not power_cut and chance.random() < KILLED_WHILE_STARTING:
            self._kill_while_starting(chance)
        self.ground.after_kill()
        self.totals.power_cuts += power_cut
        window_s = 0.0 if cleanly else ack_window_s(self.record, ended_at)
        self.totals.windows_s.append(window_s)
        self.features.ended(ended_at, window_s)
        return self._restart_and_judge(ended_at, window_s)

    def _workers(self, ending: threading.Event) -> Iterator[Worker]:
        address, record = self.broker.address, self.record

        def chance(name: str) -> random.Random:
            return random.Random(f"{self.seed}/{self._rounds}/{name}")

        for number in range(1, PUBLISHERS + 1):
            publisher = Publisher(address, record, ending, chance(f"publisher {number}"))
            publisher.number = number
            yield publisher
        for number in range(1, TRANSACTORS + 1):
            transactor = Transactor(address, record, ending, chance(f"transactor {number}"))
            transactor.number = PUBLISHERS + number
            yield transactor
        for queue in topology.QUEUES:
            if queue == topology.LEDGER:
                continue
            for number in range(chance(f"consumers of {queue}").choice([0, 1, 1, 2])):
                consumer = Consumer(address, record, ending, chance(f"consumer {queue} {number}"))
                consumer.queue = queue
                yield consumer
        if self.has_features:
            carrier = Carrier(address, record, ending, chance("carrier"))
            carrier.features = self.features
            yield carrier
        definer = Definer(address, record, ending, chance("definer"))
        definer.definitions = self.definitions
        yield definer

    def _wait(self, seconds: float) -> None:
        """Lets the workload run; not to the end if something failed already."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self.record.findings:
            time.sleep(min(left, 0.05))

    def _end(self, ending: threading.Event, cleanly: bool) -> float:
        if not cleanly:
            ended_at = self.broker.kill(ending)
            self.totals.kills += 1
            return ended_at
        ended_at = time.monotonic()
        ending.set()
        self._stop()
        return ended_at

    def _stop(self) -> None:
        self.totals.clean_stops += 1
        try:
            if (status := self.broker.stop()) != 0:
                text = f"the broker ended with status {status} after SIGTERM"
                self.record.findings.append(Finding(Kind.FAILED, text))
        except subprocess.TimeoutExpired:
            self.broker.kill()
            text = "the broker did not stop after SIGTERM"
            self.record.findings.append(Finding(Kind.FAILED, text))

    def _count(self, worker: Worker) -> None:
        counts = worker.counts
        self.totals.published += counts["published"]
        self.totals.confirmed += counts["confirmed"]
        self.totals.delivered += counts["delivered"]
        self.totals.acked += counts["acked"]
        self.totals.commits += counts["commits"]
        self.totals.definitions += counts["definitions"]
        self.totals.on_roads += counts["on roads"]

    def _kill_while_starting(self, chance: random.Random) -> None:
        """Recovery may itself be killed at any moment."""
        self.broker.launch()
        time.sleep(chance.uniform(0, self.broker.start_s))
        self.broker.kill()
        self.totals.kills += 1
        self.totals.kills_while_starting += 1

    def _restart_and_judge(self, ended_at: float, window_s: float) -> list[Finding]:
        if self.keep is not None:
            shutil.rmtree(self.keep, ignore_errors=True)
            if self.ground.data.exists():
                shutil.copytree(self.ground.data, self.keep)
        try:
            self.totals.restarts_s.append(self.broker.start())
            look = look_at(self.broker.address, self.record)
            observed = observe(self.broker.address)
            self._look_at_features()
        except (RuntimeError, ConformanceError, OSError) as error:
            self.serves = False
            return [*self.record.findings, Finding(Kind.FAILED, f"after a restart: {error}")]
        self._take_features_over()
        verdict = judge(self.record, look, ended_at, window_s)
        self.totals.looked_at += sum(len(seen) for seen in look.values())
        self.totals.acked_came_back += verdict.acked_came_back
        self.totals.oldest_ack_s = max(self.totals.oldest_ack_s, verdict.oldest_ack_s)
        self.totals.commits_in_doubt += verdict.commits_in_doubt
        state, wrong = judge_definitions(self.definitions.state, self.definitions.pending, observed)
        settle(self.record, look, time.monotonic())
        told = [self.definitions.told(text, ended_at) for text in wrong]
        findings = [*verdict.findings, *told]
        if findings:
            self.explanation = self._explain(findings, observed, ended_at)
        self.definitions.restarted(State() if wrong else state.emptied())
        try:
            if wrong:
                clear(self.broker.address)
            if any(finding.kind is Kind.DEFINITION for finding in findings):
                self._declare()
        except (ConformanceError, OSError) as error:
            findings.append(Finding(Kind.FAILED, f"while starting anew: {error}"))
            self.serves = False
        return findings

    def _explain(self, findings: list[Finding], observed: Observed, ended_at: float) -> str:
        """All that is known of what is wrong."""
        parts = {
            "findings": "\n".join(map(str, findings)),
            "definitions before": self.definitions.history(ended_at),
            "definitions after": str(observed),
            "the broker said before": self._said,
            "the broker said after": self.broker.output[-SAID_MOST:],
        }
        return "\n\n".join(f"# {title}\n\n{text}" for title, text in parts.items())

    def _look_at_features(self) -> None:
        """Takes what has come to its end, in a way that lasts."""
        if not self.has_features:
            return
        connection = Connection(self.broker.address).open()
        channel = connection.channel()
        self.totals.letters += self.features.look(channel, features.ROADS)
        settle_for_good(channel)
        connection.close()

    def _take_features_over(self) -> None:
        self.record.findings += self.features.findings
        self.features.findings.clear()

    def _finish_features(self) -> None:
        connection = Connection(self.broker.address).open()
        channel = connection.channel()
        self.totals.letters += self.features.finish(channel, features.ROADS)
        settle_for_good(channel)
        connection.close()

    def finish(self) -> list[Finding]:
        """Acks everything, stops in good order, starts again: nothing may be there."""
        try:
            drain(self.broker.address, self.record)
            if self.has_features:
                self._finish_features()
        except (ConformanceError, OSError) as error:
            return [Finding(Kind.FAILED, f"while draining: {error}")]
        self._stop()
        self._said = self.broker.output[-SAID_MOST:]
        findings = self._restart_and_judge(time.monotonic(), 0.0)
        if self.broker.running:
            self.broker.kill()
        return findings

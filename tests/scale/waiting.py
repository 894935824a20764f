"""`--delayed` and `--expiring`: so many messages wait, each for a time of its own, and more come
and are due meanwhile."""

# ruff: noqa: T201  # figures are what it is for
from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from conformance.channel import Channel
from tests.scale.arrivals import Arrivals
from tests.scale.measured_broker import MeasuredBroker
from tests.scale.phases import Phases, print_phases
from tests.scale.timed_publishes import WAIT_MAX_MS, Kind, TimedPublishes

FEW = 10
"""The first part: with one in so many of all messages waiting, enqueueing is looked at as well."""
PARTS = 20
"""Parts in which half of the first messages, and as many of the last ones, are measured."""
SINGLES = 300
"""Messages that are published one at a time, each confirmed before the next."""
SEND = 1000
"""Messages of one write."""
DUE_SEND = 100
SOON_MS = 1500
SPREAD_MS = 1000
SURE_MS = 20_000
"""Time that is left to publish what takes longer than it should."""
HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Waiting:
    """So many messages of `size` octets wait, `due` more are due within a second, in a broker with
    these flags."""

    kind: Kind
    count: int
    due: int
    size: int
    flags: tuple[str, ...]


def measure_waiting(parent: Path, waiting: Waiting) -> None:
    """Prints what one more costs while few and while many wait, and how late those are that are
    due."""
    kind, count = waiting.kind, waiting.count
    print(f"{count:,} {kind.value} messages of {waiting.size} octets {' '.join(waiting.flags)}:")
    with (
        tempfile.TemporaryDirectory(dir=parent) as folder,
        MeasuredBroker(Path(folder), *waiting.flags, timed=True) as broker,
        Phases(broker.pid, broker.data_dir) as phases,
    ):
        channel = broker.first_connection().channel()
        kind.declare(channel)
        publishing = _Publishing(channel, waiting)
        with phases.phase("few wait"):
            few = publishing.look(count // FEW)
        with phases.phase("publish") as publish:
            between = publishing.send_most(few)
        with phases.phase("many wait"):
            many = publishing.look(count)
        _print_costs(few, many)
        each_us = publish.cpu_ns / between / 1e3
        print(f"  {each_us:.1f} us of CPU time each in between, {waiting.due:,} parts")
        arrivals = Arrivals(broker.connection().channel())
        for name, spread_ms in (
            ("from everywhere in the line, due within a second", 0),
            ("of the last ones, due within a second", SPREAD_MS),
            ("of the last ones, due at once", 1),
        ):
            with phases.phase(name):
                if spread_ms:
                    publishing.send_due(waiting.due, spread_ms)
                before = len(arrivals.late_ns)
                arrivals.receive_until(before + waiting.due)
            _print_lateness(name, arrivals.late_ns[before:])
        channel.connection.drop()
        windows = broker.stop()
    print_phases(phases.phases, windows)


class _Publishing:
    """Publishes until so many wait."""

    def __init__(self, channel: Channel, waiting: Waiting) -> None:
        self._part = waiting.count // FEW // 2 // PARTS
        self._publishes = TimedPublishes(channel, waiting.kind, waiting.size)
        self._random = random.Random(7)
        self._least_ms = HOUR_MS if waiting.kind is Kind.DELAYED else 1
        self._waiting = waiting
        self._sent = 0

    def _waits(self, count: int) -> list[int]:
        choose = self._random.randrange
        return [choose(self._least_ms, WAIT_MAX_MS) for _ in range(count)]

    def _send(self, count: int) -> None:
        for start in range(0, count, SEND):
            self._publishes.send(self._waits(min(SEND, count - start)))
        self._sent += count

    def send_most(self, few: tuple[float, float]) -> int:
        """Publishes all but the last ones, and among them some that are due in any order within one
        second, when all others have come; `few` says how long one takes. Returns how many they
        were. They are durable then."""
        count = self._waiting.count - PARTS * self._part - self._sent
        due = self._waiting.due
        stream, alone = few
        begin_ms = _now_ms() + SURE_MS + int(2000 * (count * stream + due * alone))
        dues = [begin_ms + place * SPREAD_MS // due for place in range(due)]
        self._random.shuffle(dues)
        for place, due_ms in enumerate(dues):
            others = (place + 1) * count // due - place * count // due - 1
            self._publishes.send([due_ms - _now_ms(), *self._waits(others)], watched=1)
            # What stands in line before it is read would begin to wait later than it says.
            self._publishes.wait_until_durable()
        self._sent += count
        _check(begin_ms)
        return count

    def look(self, count: int) -> tuple[float, float]:
        """Seconds that one of the last messages takes until `count` wait, in a stream and alone;
        medians, of messages that are durable."""
        self._send(count - PARTS * self._part - self._sent)
        self._publishes.wait_until_durable()
        parts = [_seconds(self._send_part) / self._part for _ in range(PARTS)]
        singles = [_seconds(self._single) for _ in range(SINGLES)]
        return statistics.median(parts), statistics.median(singles)

    def _send_part(self) -> None:
        self._send(self._part)
        self._publishes.wait_until_durable()

    def _single(self) -> None:
        self._publishes.send(self._waits(1))
        self._publishes.wait_until_durable()

    def send_due(self, count: int, spread_ms: int) -> None:
        """Publishes messages that are due one after the other within `spread_ms`, some time from
        now."""
        begin_ms = _now_ms() + SOON_MS + count // 5
        dues = [begin_ms + place * spread_ms // count for place in range(count)]
        for start in range(0, count, DUE_SEND):
            now_ms = _now_ms()
            waits = [due - now_ms for due in dues[start : start + DUE_SEND]]
            self._publishes.send(waits, watched=len(waits))
            self._publishes.wait_until_durable()
        _check(begin_ms)


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def _check(begin_ms: int) -> None:
    late_ms = _now_ms() - begin_ms
    if late_ms > 0:
        raise RuntimeError(f"publishing took {late_ms} ms longer than there was time for")


def _seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _print_costs(few: tuple[float, float], many: tuple[float, float]) -> None:
    for how, first, last in zip(("in a stream", "alone"), few, many, strict=True):
        print(
            f"  one more {how}, until it is durable: {first * 1e6:.1f} us while few wait,"
            f" {last * 1e6:.1f} us while all do, {last / first:.2f} times"
        )


def _print_lateness(name: str, late_ns: list[int]) -> None:
    ordered = sorted(late_ns)
    count = len(ordered)
    shown = {"earliest": 0, "p50": count // 2, "p99": count * 99 // 100, "latest": count - 1}
    figures = ", ".join(f"{what} {ordered[place] / 1e6:.1f} ms" for what, place in shown.items())
    print(f"  {count:,} {name}: {figures} after their time")

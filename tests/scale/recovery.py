"""`--recovery`: a broker that was killed starts again."""

# ruff: noqa: T201  # figures are what it is for
from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from tests.scale.backlog import BARRIER, QUEUE
from tests.scale.measured_broker import MeasuredBroker
from tests.scale.phases import mib
from tests.scale.publishes import Publishes
from tests.scale.resources import disk_octets, resident_kb

STARTS = 9


def measure_recovery(parent: Path, count: int, size: int, memory: str, run: int) -> None:
    """Prints how long a start takes with so many persistent messages in a queue, which were
    stored `run` in a record (0: as many as came at once), and with none."""
    empty_s = measure_empty(parent)
    with tempfile.TemporaryDirectory(dir=parent) as name:
        folder = Path(name)
        with MeasuredBroker(folder, "--memory", memory) as broker:
            channel = broker.first_connection().channel()
            channel.declare_queue(QUEUE, durable=True)
            Publishes(QUEUE, size, persistent=True, run=run).send(channel, 0, count)
            channel.declare_queue(BARRIER, durable=True)
            broker.kill()
            octets = disk_octets(broker.data_dir)
        with MeasuredBroker(folder, "--memory", memory) as broker:
            channel = broker.first_connection().channel()
            held = channel.message_count(QUEUE)
            told_s = broker.age()
            if held != count:
                raise RuntimeError(f"{held} messages after the crash, {count} were durable")
            resident = resident_kb(broker.pid)
            channel.connection.drop()
    in_records = f"{run} in a record" if run else "as many in a record as came at once"
    print(
        f"start after kill -9 with {count:,} persistent messages of {size} octets ({in_records}):"
    )
    reading_s = broker.answered_s - empty_s
    print(f"  {broker.answered_s:.2f} s to the first AMQP answer")
    print(f"  {told_s:.2f} s until the queue tells its {held:,} messages")
    print(f"  {reading_s:.2f} s of it to read the log: so much more than with an empty folder")
    print(f"  folder {mib(octets)}, resident memory {resident / 1024:.0f} MiB")


def measure_empty(parent: Path) -> float:
    """Prints how long starts on an empty folder and with --transient take, which take turns, and
    returns the seconds with the folder."""
    folder_s, transient_s = [], []
    for _ in range(STARTS):
        folder_s.append(_start_s(parent))
        transient_s.append(_start_s(parent, "--transient"))
    with_folder, without = statistics.median(folder_s), statistics.median(transient_s)
    print(
        f"start to the first AMQP answer, medians of {STARTS}: {with_folder * 1e3:.0f} ms with an"
        f" empty folder, {without * 1e3:.0f} ms with --transient,"
        f" {(with_folder - without) * 1e3:+.0f} ms"
    )
    return with_folder


def _start_s(parent: Path, *flags: str) -> float:
    with (
        tempfile.TemporaryDirectory(dir=parent) as folder,
        MeasuredBroker(Path(folder), *flags) as broker,
    ):
        broker.first_connection().drop()
        broker.stop()
        return broker.answered_s

"""`python -m tests.scale`: what a broker takes at scale.

Prints figures; nothing is judged, since machines differ. Linux only: it reads /proc. Without
one of --backlog, --recovery, --churn, --delayed, --expiring, --machine: memory at rest, memory of
idle connections, cost of many queues.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from tests.scale.backlog import Backlog, measure_backlog
from tests.scale.churn import measure_churn
from tests.scale.idle import measure_idle
from tests.scale.machine import measure_machine
from tests.scale.publishes import SIZE_MAX, SIZE_MIN
from tests.scale.queues import measure_queues
from tests.scale.recovery import measure_empty, measure_recovery
from tests.scale.timed_publishes import Kind
from tests.scale.waiting import Waiting, measure_waiting

COMPARE_MAX = 200_000
"""Messages that are held in memory for comparison, unless told."""
INTERRUPTED_STATUS = 130


def body_size(text: str) -> int:
    """An argument: octets of a body."""
    size = int(text)
    if not SIZE_MIN <= size <= SIZE_MAX:
        raise argparse.ArgumentTypeError(f"{SIZE_MIN} to {SIZE_MAX} octets")
    return size


def command_line() -> argparse.ArgumentParser:
    """All flags."""
    parser = argparse.ArgumentParser(prog="python -m tests.scale", description=__doc__)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--backlog", type=int, metavar="N", help="publish N messages, then drain")
    which.add_argument("--recovery", type=int, metavar="N", help="kill with N messages, start")
    which.add_argument("--churn", type=int, metavar="N", help="N messages pass through a queue")
    which.add_argument("--delayed", type=int, metavar="N", help="N messages wait at an exchange")
    which.add_argument("--expiring", type=int, metavar="N", help="N messages with mixed TTLs")
    which.add_argument("--machine", type=float, metavar="S", help="what the machine alone takes")
    parser.add_argument("--folder", type=Path, help="where folders are made [temporary files]")
    parser.add_argument("--size", type=body_size, default=1000, help="octets of a body [1000]")
    parser.add_argument("--memory", default="256MB", help="the broker's setting [256MB]")

    backlog = parser.add_argument_group("--backlog")
    kind = backlog.add_mutually_exclusive_group()
    kind.add_argument("--persistent", action="store_true", help="the default")
    kind.add_argument("--transient", action="store_true")
    backlog.add_argument("--idle", type=float, default=5, metavar="S", help="seconds it stands [5]")
    backlog.add_argument(
        "--compare",
        type=int,
        nargs="?",
        const=-1,
        default=0,
        metavar="M",
        help=f"compare with M messages in memory [N, at most {COMPARE_MAX}]",
    )
    recovery = parser.add_argument_group("--recovery")
    recovery.add_argument(
        "--runs", type=int, default=0, metavar="K", help="K messages in a record [what comes]"
    )
    churn = parser.add_argument_group("--churn")
    churn.add_argument("--alive", type=int, default=1000, metavar="N", help="at a time [1000]")

    waiting = parser.add_argument_group("--delayed and --expiring")
    waiting.add_argument("--due", type=int, default=10_000, metavar="N", help="in a second [10000]")

    rest = parser.add_argument_group("memory and queues")
    rest.add_argument("--connections", type=int, default=1000)
    rest.add_argument("--queues", type=int, default=10_000)
    rest.add_argument("--pairs", type=int, default=15)
    rest.add_argument("--messages", type=int, default=100_000)
    return parser


def measure(folder: Path, options: argparse.Namespace) -> None:
    """What the flags ask for."""
    size, memory = options.size, options.memory
    if options.backlog is not None:
        count = options.backlog
        compare = min(count, COMPARE_MAX) if options.compare < 0 else options.compare
        backlog = Backlog(count, size, not options.transient, memory, options.idle)
        measure_backlog(folder, backlog, compare)
    elif options.recovery == 0:
        measure_empty(folder)
    elif options.recovery is not None:
        measure_recovery(folder, options.recovery, size, memory, options.runs)
    elif options.churn is not None:
        measure_churn(folder, options.churn, options.alive, size, memory)
    elif options.delayed is not None or options.expiring is not None:
        kind = Kind.EXPIRING if options.delayed is None else Kind.DELAYED
        number = options.delayed or options.expiring
        measure_waiting(folder, Waiting(kind, number, options.due, size, ("--memory", memory)))
    elif options.machine is not None:
        measure_machine(folder, options.machine)
    else:
        measure_idle(folder, options.connections)
        measure_queues(folder, options.queues, options.pairs, options.messages)


def main() -> int:
    """0, or 130 if it was interrupted; all processes have ended then."""
    options = command_line().parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            measure(Path(folder), options)
    except KeyboardInterrupt:
        return INTERRUPTED_STATUS
    return 0


if __name__ == "__main__":
    sys.exit(main())

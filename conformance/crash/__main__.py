"""Command line: `python -m conformance.crash --kills 100 --power-cuts 5`."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from conformance.crash.campaign import RABBITMQ_EXPECTED, Campaign
from conformance.crash.failing_disks import CASES, run_cases
from conformance.crash.findings import Kind
from conformance.crash.unsynced import build_unsynced

SERVE = "leveret serve --port {port} --http-port 0 --data-dir {folder}"
CONTROL_CUTS = 3
UNLIMITED = 1 << 62


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m conformance.crash",
        description="Kills a broker under load, starts it again and checks what it promised.",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--serve",
        metavar="COMMAND",
        default=SERVE,
        help=f"the broker; {{port}} and {{folder}} are replaced (default: {SERVE})",
    )
    which.add_argument(
        "--rabbitmq",
        action="store_true",
        help="Debian's RabbitMQ instead; what it does not promise is counted and fails nothing",
    )
    parser.add_argument("--kills", type=int, help="end after so many kills (default 20)")
    parser.add_argument("--minutes", type=float, help="end after so many minutes")
    parser.add_argument(
        "--power-cuts", type=int, default=0, metavar="N", help="power cuts (needs root)"
    )
    parser.add_argument(
        "--no-sync-control",
        action="store_true",
        help="power cuts with fsync made to do nothing (needs gcc): passes if something is lost",
    )
    parser.add_argument(
        "--failing-disks",
        action="store_true",
        help="disks that are full (needs root) or fail (needs gcc), under Leveret alone",
    )
    parser.add_argument(
        "--case", action="append", metavar="NAME", help="this case of --failing-disks alone"
    )
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument(
        "--most-failures", type=int, default=3, metavar="N", help="failing rounds before giving up"
    )
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="keep each directory as its last end left it"
    )
    return parser.parse_args()


def main() -> int:
    """0 if every promise was kept, 1 if not, 2 if something could not be run here."""
    options = _arguments()
    command = None if options.rabbitmq else _found(options.serve)
    # A word that names what is run, so that a line of a log can be told from another's.
    name = "rabbitmq" if options.rabbitmq else "broker"
    print(f"seed {options.seed}", flush=True)
    statuses = []
    others = options.power_cuts or options.no_sync_control or options.failing_disks
    if options.kills or options.minutes or not others:
        statuses.append(_kills(options, command, name))
    if options.power_cuts:
        statuses.append(_power_cuts(options, command, name))
    if options.no_sync_control:
        statuses.append(_control(options, command, name))
    if options.failing_disks:
        statuses.append(_failing_disks(options, command))
    return max(statuses)


def _campaign(options: argparse.Namespace, command: str | None) -> Campaign:
    return Campaign(
        command,
        options.seed,
        most_failures=options.most_failures,
        keep=options.keep,
        expected=RABBITMQ_EXPECTED if options.rabbitmq else frozenset(),
        say=lambda line: print(line, flush=True),
    )


def _kills(options: argparse.Namespace, command: str | None, name: str) -> int:
    campaign = _campaign(options, command)
    if options.minutes:
        campaign.until = time.monotonic() + options.minutes * 60
    campaign.run(options.kills or (UNLIMITED if options.minutes else 20))
    print(f"{name}\n{campaign.totals.table()}", flush=True)
    return 1 if campaign.failures else 0


def _power_cuts(options: argparse.Namespace, command: str | None, name: str) -> int:
    campaign = _campaign(options, command)
    try:
        campaign.run_power_cuts(options.power_cuts)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"power cuts cannot be run here: {_reason(error)}", file=sys.stderr)
        return 2
    print(f"{name}, power cuts\n{campaign.totals.table()}", flush=True)
    return 1 if campaign.failures else 0


def _control(options: argparse.Namespace, command: str | None, name: str) -> int:
    campaign = _campaign(options, command)
    campaign.most_failures = 1
    try:
        with tempfile.TemporaryDirectory(prefix="crash-control-") as folder:
            Path(folder).chmod(0o755)
            campaign.environment = build_unsynced(Path(folder))
            campaign.run_power_cuts(CONTROL_CUTS)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"the control cannot be run here: {_reason(error)}", file=sys.stderr)
        return 2
    print(f"{name}, control without fsync\n{campaign.totals.table()}", flush=True)
    found = campaign.totals.found
    if not (found[Kind.LOST] or found[Kind.DEFINITION] or found[Kind.FAILED]):
        print("the control lost nothing: power cuts of this kind prove nothing here")
        return 1
    return 0


def _failing_disks(options: argparse.Namespace, command: str | None) -> int:
    names = [case.name for case in CASES]
    unknown = sorted(set(options.case or []) - set(names))
    if command is None or unknown:
        text = "RabbitMQ's" if command is None else f"named {', '.join(unknown)}"
        print(f"there are no cases {text}; cases are {', '.join(names)}", file=sys.stderr)
        return 2
    report = run_cases(command, options.case or names, lambda line: print(line, flush=True))
    print(f"failing disks: {report.line()}", flush=True)
    return 1 if report.broken else 2 if report.not_run else 0


def _reason(error: OSError | subprocess.CalledProcessError) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return f"{error.cmd[0]}: {error.stderr.strip()}"
    return str(error)


def _found(command: str) -> str:
    """The command with its program where this interpreter's programs are, unless it is in PATH."""
    program, _, rest = command.partition(" ")
    beside = Path(sys.executable).parent / program
    if shutil.which(program) is None and beside.exists():
        program = str(beside)
    return f"{program} {rest}"


if __name__ == "__main__":
    sys.exit(main())

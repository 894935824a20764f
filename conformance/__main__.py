"""Command line: `python -m conformance --url amqp://guest:guest@127.0.0.1:5672/`."""

from __future__ import annotations

import argparse
import fnmatch
import sys
import time
import urllib.parse
from collections.abc import Sequence
from pathlib import Path

from conformance import coverage, report
from conformance.client import Address
from conformance.failure import ConformanceError
from conformance.limited import OwnBroker, command_for
from conformance.registry import Scenario, all_scenarios
from conformance.restarts import own_broker, run_on_own
from conformance.runner import FAILED, Result, identify, run, run_one, unknown_types


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m conformance", description="Wire-level conformance suite for AMQP brokers."
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--url", help="broker to test, amqp://user:password@host:port/vhost")
    where.add_argument(
        "--rabbitmq", action="store_true", help="start a private RabbitMQ and test that"
    )
    where.add_argument(
        "--serve",
        metavar="COMMAND",
        help="start this command and test that; {port}, {http}, {folder}, {memory} and {disk_free}"
        " are replaced",
    )
    where.add_argument(
        "--list", action="store_true", help="print the scenarios and what they cover"
    )
    where.add_argument(
        "--coverage", action="store_true", help="print what has no scenario; status 1 if any"
    )
    where.add_argument(
        "--deviations", action="store_true", help="print the list of deviations as in README.md"
    )
    where.add_argument(
        "--update-readme", action="store_true", help="write the list of deviations into README.md"
    )
    parser.add_argument("--area", action="append", help="only this area (repeatable)")
    parser.add_argument("-k", metavar="PATTERN", help="only names with this in them, or fnmatch")
    parser.add_argument("--jobs", type=int, default=4, help="scenarios at a time (default 4)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the results here as well")
    parser.add_argument("--slowest", type=int, default=0, metavar="N", help="print the N slowest")
    return parser.parse_args()


def parse_url(url: str) -> Address:
    """An Address from an amqp:// URL; raises ValueError for another scheme."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "amqp":
        raise ValueError(f"{url} is no amqp:// URL")
    # An empty path after the slash would be the vhost named "": everybody means "/" by it.
    return Address(
        parts.hostname or "127.0.0.1",
        parts.port or 5672,
        urllib.parse.unquote(parts.username or "guest"),
        urllib.parse.unquote(parts.password or "guest"),
        urllib.parse.unquote(parts.path[1:]) or "/",
    )


def choose(scenarios: Sequence[Scenario], pattern: str | None) -> list[Scenario]:
    """Those whose name contains or matches the pattern."""
    return [
        s
        for s in scenarios
        if not pattern or pattern in s.name or fnmatch.fnmatchcase(s.name, pattern)
    ]


def run_suite(
    options: argparse.Namespace,
    chosen: list[Scenario],
    address: Address,
    own: OwnBroker | None,
) -> int:
    """Runs the scenarios and prints the report; the exit status."""
    broker = identify(address)
    unknown = unknown_types(address, chosen)
    foreign = [s for s in chosen if s.exchange_type in unknown]
    chosen = [s for s in chosen if s.exchange_type not in unknown]
    started = time.monotonic()
    results = run([s for s in chosen if not s.needs_own_broker], address, broker, options.jobs)
    if own:
        results += run_on_own(chosen, broker, own, options.serve, options.jobs)
        results += [_run_last(s, own) for s in chosen if s.ends_broker]
    _print(options, results, time.monotonic() - started)
    has_run = {r.scenario.name for r in results}
    if left_out := report.left_out([s for s in chosen if s.name not in has_run]):
        print(left_out)
    if foreign:
        print(report.foreign(foreign))
    print(f"{broker.description} at {address.host}:{address.port}")
    print(report.totals(results, time.monotonic() - started))
    if options.json:
        options.json.write_text(report.as_json(results, broker))
    return 1 if any(r.outcome == FAILED for r in results) else 0


def _run_last(scenario: Scenario, own: OwnBroker) -> Result:
    return run_one(scenario, own.address, identify(own.address), own.terminate)


def _print(options: argparse.Namespace, results: list[Result], seconds: float) -> None:
    print(report.table(results))
    for result in sorted(results, key=lambda r: -r.seconds)[: options.slowest]:
        print(f"{result.seconds:6.2f} s {result.scenario.name}")
    if awaited := report.awaited(results):
        print(f"\n{awaited}")
    if failures := report.failures(results):
        print(f"\n{failures}")
    print()


def main() -> int:
    """Entry point; returns the exit status."""
    options = _arguments()
    everything = all_scenarios(options.area or ())
    chosen = choose(everything, options.k)
    if options.list:
        print(report.listing(chosen))
        return 0
    if options.deviations:
        print(report.deviation_list(everything))
        return 0
    if options.update_readme:
        report.update_readme(everything)
        return 0
    if options.coverage:
        print(coverage.report(everything))
        return 1 if coverage.uncovered(everything) else 0
    if not chosen:
        print("no scenario fits", file=sys.stderr)
        return 2
    try:
        if options.rabbitmq or options.serve:
            with own_broker(command_for(options.serve, None)) as own:
                return run_suite(options, chosen, own.address, own)
        address = parse_url(options.url or "amqp://guest:guest@127.0.0.1:5672/")
        return run_suite(options, chosen, address, None)
    except (OSError, ValueError, RuntimeError, ConformanceError) as error:
        print(f"cannot test: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())

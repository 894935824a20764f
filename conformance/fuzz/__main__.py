"""Command line: `python -m conformance.fuzz --cases 1000000 --seed 1`."""

from __future__ import annotations

import argparse
import sys
import time

from conformance.fuzz.campaign import BLOCK, Totals, run_block

PROGRESS_S = 10.0


def main() -> int:
    """0 if nothing failed, 1 if something did."""
    parser = argparse.ArgumentParser(prog="python -m conformance.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", metavar="BLOCK:NUMBER", help="only this one, with what led to it")
    parser.add_argument("--most-failures", type=int, default=10, metavar="N")
    options = parser.parse_args()
    totals = Totals()
    if options.case:
        block, number = map(int, options.case.split(":"))
        failures = [f for f in run_block(options.seed, block, totals, number) if f.number == number]
        for failure in failures:
            print(failure)
        return 1 if failures else 0
    started = told = time.perf_counter()
    for block in range((options.cases + BLOCK - 1) // BLOCK):
        for failure in run_block(options.seed, block, totals):
            print(failure, flush=True)
            totals.failures.append(failure)
        now = time.perf_counter()
        if now - told > PROGRESS_S:
            told = now
            print(f"{totals.cases} cases, {totals.cases / (now - started):.0f}/s", flush=True)
        if len(totals.failures) >= options.most_failures:
            break
    seconds = time.perf_counter() - started
    print(
        f"seed {options.seed}: {totals.cases} cases ({totals.compared} fed whole and cut alike), "
        f"{totals.octets / 1e6:.1f} MB, {len(totals.failures)} failed, "
        f"{seconds:.0f} s, {totals.cases / seconds:.0f} cases/s"
    )
    return 1 if totals.failures else 0


if __name__ == "__main__":
    sys.exit(main())

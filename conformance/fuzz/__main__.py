"""Command line: `python -m conformance.fuzz --cases 1000000 --seed 1`."""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from conformance.fuzz.campaign import BLOCK, Totals, run_block, whole_block

PROGRESS_S = 10.0


def main() -> int:
    """0 if nothing failed, 1 if something did."""
    parser = argparse.ArgumentParser(prog="python -m conformance.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    parser.add_argument("--case", metavar="BLOCK:NUMBER", help="only this one, with what led to it")
    parser.add_argument("--most-failures", type=int, default=10, metavar="N")
    options = parser.parse_args()
    if options.case:
        block, number = map(int, options.case.split(":"))
        found = [f for f in run_block(options.seed, block, Totals(), number) if f.number == number]
        for failure in found:
            print(failure)
        return 1 if found else 0
    return campaign(options)


def campaign(options: argparse.Namespace) -> int:
    """Runs all blocks, and prints what fails and how fast it goes."""
    totals = Totals()
    blocks = range((options.cases + BLOCK - 1) // BLOCK)
    started = told = time.perf_counter()
    with ProcessPoolExecutor(options.jobs) as pool:
        for found in pool.map(partial(whole_block, options.seed), blocks, chunksize=4):
            totals.add(found)
            for failure in found.failures:
                print(failure, flush=True)
            now = time.perf_counter()
            if now - told > PROGRESS_S:
                told = now
                print(f"{totals.cases} cases, {totals.cases / (now - started):.0f}/s", flush=True)
            if len(totals.failures) >= options.most_failures:
                pool.shutdown(cancel_futures=True)
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

"""Command line: `python -m tests.durable --seeds 0-10000 --steps 300 --kind disk`. What a seed of
`--kind mixed` finds, is told in short with `--seeds 17 --shortest`."""
# ruff: noqa: T201  # findings are what it is for

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from tests.durable.kinds import KINDS, make_small, run
from tests.durable.mixed_judge import MixedMachine
from tests.durable.mixed_play import shorten
from tests.durable.observer import ViolationError

CHUNK = 10
"""Seeds that a process takes at once."""
PROGRESS_S = 10.0
"""Seconds between two lines of progress."""


def seeds_of(text: str) -> range:
    """`5`, or `0-10000` without the last one."""
    first, dash, stop = text.partition("-")
    return range(int(first), int(stop) if dash else int(first) + 1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.durable",
        description="Plays seeded runs of a broker on a simulated disk, and checks its promises.",
    )
    parser.add_argument(
        "--seeds", type=seeds_of, default=seeds_of("0-1000"), metavar="FIRST-STOP", help="or one"
    )
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--kind", choices=list(KINDS), default="play")
    parser.add_argument(
        "--memory", type=int, metavar="OCTETS", help="the limit; 0 for none (default: the kind's)"
    )
    parser.add_argument(
        "--shortest", action="store_true", help="tell the story of one seed (--kind mixed)"
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes")
    return parser.parse_args()


def tell_shortest(kind: str, steps: int, seed: int, memory: int | None) -> int:
    """Tells what a run finds, with its story, without the steps that are not needed for that."""
    make_small(setattr, kind)
    limits = {"limits": {"memory": memory} if memory else {}}
    found = shorten(seed, steps, type("Limited", (MixedMachine,), limits))
    if found is None:
        print(f"seed {seed} finds nothing")
        return 0
    left, violation = found
    print(f"{violation}\n\nsteps {', '.join(map(str, left))} of seed {seed}")
    return 1


def finding_of(kind: str, steps: int, memory: int | None, seed: int) -> tuple[int, str, str]:
    """A seed, the invariant that does not hold in its run (what was raised, if it is none of the
    model's; empty if all is well), and the first line that says more."""
    try:
        run(kind, seed, steps, memory=memory)
    except ViolationError as violation:
        return seed, violation.invariant, str(violation).partition("\n")[0]
    except Exception as error:  # noqa: BLE001  # whatever it is, it is to be known by its seed
        return seed, type(error).__name__, str(error).partition("\n")[0]
    return seed, "", ""


def findings(options: argparse.Namespace) -> Iterator[tuple[int, str, str]]:
    """The results of all seeds, in order."""
    look = partial(finding_of, options.kind, options.steps, options.memory)
    if options.jobs == 1:
        make_small(setattr, options.kind)
        yield from map(look, options.seeds)
        return
    with ProcessPoolExecutor(
        options.jobs, initializer=make_small, initargs=(setattr, options.kind)
    ) as pool:
        yield from pool.map(look, options.seeds, chunksize=CHUNK)


def main() -> int:
    """0 if every promise was kept, 1 if not."""
    options = _arguments()
    if options.shortest:
        return tell_shortest(options.kind, options.steps, options.seeds[0], options.memory)
    again = f"python -m tests.durable --kind {options.kind} --steps {options.steps}"
    if options.memory is not None:
        again += f" --memory {options.memory}"
    broken: Counter[str] = Counter()
    started = told = time.monotonic()
    count = 0
    for seed, invariant, text in findings(options):
        count += 1
        if invariant:
            broken[invariant] += 1
            print(f"seed {seed}: {invariant}\n  {text[:300]}\n  {again} --seeds {seed}", flush=True)
        if time.monotonic() - told > PROGRESS_S:
            told = time.monotonic()
            print(f"{count} of {len(options.seeds)}, {broken.total()} failed", flush=True)
    took = time.monotonic() - started
    kinds = ", ".join(f"{invariant} {times}" for invariant, times in broken.most_common())
    print(
        f"{count} runs of {options.steps} steps ({options.kind}) in {took:.0f} s: "
        f"{broken.total()} failed{f' ({kinds})' if kinds else ''}"
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())

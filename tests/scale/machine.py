"""`--machine`: what the machine alone makes of work that is always the same, beside a program that
writes and reads files.

A virtual machine may take long over memory that its host has to look up anew, and counts that as
CPU time of whatever touches it. Longest callbacks of a broker tell of the broker only where they
are longer, or more, than what is printed here.
"""

# ruff: noqa: T201  # figures are what it is for
from __future__ import annotations

import gc
import itertools
import multiprocessing
import os
import time
from pathlib import Path

from tests.scale.callback_times import LONG_NS

OBJECTS = 200_000
OBJECT_BYTES = 1000
PIECE = 2000
"""Objects of one piece of work: what a turn of the loop hands out when it is busy."""
FILE_BYTES = 5 << 30
BLOCK_BYTES = 2 << 20


def measure_machine(folder: Path, seconds: float) -> None:
    """Prints the CPU times of pieces of work alone, and beside files of 5 GiB in all."""
    objects = [bytes([place % 256]) * OBJECT_BYTES for place in range(OBJECTS)]
    pieces = [objects[start : start + PIECE] for start in range(0, OBJECTS, PIECE)]
    print(f"pieces of work that join {PIECE:,} octets objects of {OBJECT_BYTES:,}, CPU time each:")
    gc.disable()
    try:
        _print("alone", _times(pieces, seconds))
        beside = multiprocessing.get_context("spawn").Process(
            target=write_and_read, args=(folder / "beside",), daemon=True
        )
        beside.start()
        try:
            _print("beside a program that writes, reads and removes files", _times(pieces, seconds))
        finally:
            beside.kill()
            beside.join()
    finally:
        gc.enable()


def _times(pieces: list[list[bytes]], seconds: float) -> list[int]:
    times = []
    end = time.monotonic() + seconds
    for piece in itertools.cycle(pieces):
        began = time.thread_time_ns()
        b"".join(piece)
        times.append(time.thread_time_ns() - began)
        if time.monotonic() >= end:
            return sorted(times)
    raise AssertionError("there are pieces")


def _print(name: str, times: list[int]) -> None:
    too_long = sum(each > LONG_NS for each in times)
    print(
        f"  {name}: {len(times):,} pieces, median {times[len(times) // 2] / 1e6:.2f} ms,"
        f" longest {times[-1] / 1e6:.1f} ms, {too_long} over {LONG_NS / 1e6:.0f} ms"
    )


def write_and_read(path: Path) -> None:
    """Writes a file, reads it and removes it, without end."""
    block = os.urandom(BLOCK_BYTES)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        for _ in range(0, FILE_BYTES, BLOCK_BYTES):
            os.write(descriptor, block)
        for start in range(0, FILE_BYTES, BLOCK_BYTES):
            os.pread(descriptor, BLOCK_BYTES, start)
        os.close(descriptor)
        path.unlink()

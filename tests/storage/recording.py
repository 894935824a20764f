"""A log of about 10 KB in three segments, to be damaged."""

import random
from pathlib import Path
from typing import NamedTuple

from broker.storage.directory import SEAL, Directory, Seal, decode_seal
from broker.storage.files import Files
from tests.storage.owner import Owner, open_log

SEGMENT = 5120
SIZES = [900, 0, 1300, 30, 700, 1500, 1, 1200, 800, 1000, 400, 300, 1100, 600]


class Recording(NamedTuple):
    """A closed log: its files, and what was appended."""

    path: Path
    segments: dict[str, bytes]
    seal: Seal
    batches: list[tuple[int, bytes]]


def record(path: Path) -> Recording:
    """Writes the log and closes it."""
    owner = Owner()
    log = open_log(path, owner, segment_bytes=SEGMENT)
    chance = random.Random(1)
    batches = []
    for size in SIZES:
        batch = chance.randbytes(size)
        batches.append((owner.append(log, batch), batch))
    log.close()
    names = Directory(path, Files(), SEGMENT).names()
    assert len(names) == 3
    segments = {name: (path / name).read_bytes() for name in names}
    seal = decode_seal((path / SEAL).read_bytes(), path / SEAL)
    return Recording(path, segments, seal, batches)


def used(recording: Recording, name: str) -> int:
    """Octets of a segment that were written, marks included."""
    return len(recording.segments[name].rstrip(b"\0"))


def unseal(path: Path) -> None:
    (path / SEAL).unlink()


def overwrite(path: Path, offset: int, octets: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(octets)

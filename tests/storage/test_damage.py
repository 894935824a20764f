"""Torn and damaged files: no wrong batch is ever accepted, and nothing is lost in silence.

A log of about 10 KB is recorded once. It is cut at every octet, and every bit is flipped: the
files are held in memory for that, and opened by the code that opens real ones.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.storage.check import check_directory
from broker.storage.directory import SEAL, Seal, decode_seal
from broker.storage.faulty_files import FaultyFiles
from broker.storage.files import Files
from broker.storage.log import LogDamagedError, LogState
from broker.storage.segment import (
    GROUP_OCTETS,
    HEADER_OCTETS,
    LENGTH_OCTETS,
    Header,
    Scan,
    decode_header,
    encode_group,
    index,
    new_segment,
)
from broker.storage.tail import check_end, replay_segments
from tests.storage.owner import Owner, open_log, replayed
from tests.storage.recording import SEGMENT, SIZES, Recording, overwrite, unseal, used


class Octets(Files):
    """Reads files that are octets in memory. A descriptor is a place in the list."""

    def __init__(self) -> None:
        super().__init__(durable=False)
        self.contents: list[bytes] = []
        self.names: list[str] = []

    def open(self, path: Path, flags: int) -> int:
        assert flags == os.O_RDONLY
        return self.names.index(path.name)

    def close(self, descriptor: int) -> None:
        assert descriptor < len(self.names)

    def size(self, descriptor: int) -> int:
        return len(self.contents[descriptor])

    def read(self, descriptor: int, count: int, offset: int) -> bytes:
        return self.contents[descriptor][offset : offset + count]

    def written_from(self, descriptor: int, offset: int) -> int | None:
        return offset if offset < self.size(descriptor) else None


def opened(contents: dict[str, bytes], seal: Seal | None) -> tuple[list[tuple[int, bytes]], int]:
    """What is replayed of these files, and the octets discarded. Raises LogDamagedError."""
    files = Octets()
    files.names, files.contents = list(contents), list(contents.values())
    segments = [
        new_segment(Path(name), decode_header(octets[:HEADER_OCTETS], Path(name)))
        for name, octets in contents.items()
    ]
    tail = segments[-1]
    scan = Scan(files, len(segments) - 1, tail.header)
    for _ in index(tail, scan.groups()):
        pass
    discarded = check_end(tail, scan, seal)
    return list(replay_segments(files, segments)), discarded.octets if discarded else 0


def flips(octets: bytes, count: int) -> Iterator[tuple[int, bytes]]:
    for offset in range(count):
        for bit in range(8):
            flipped = bytearray(octets)
            flipped[offset] ^= 1 << bit
            yield offset, bytes(flipped)


def is_refused(contents: dict[str, bytes], seal: Seal | None, name: str) -> bool:
    """Whether it is, by a sentence of one line that names the file."""
    try:
        opened(contents, seal)
    except LogDamagedError as error:
        text = str(error)
        assert name in text
        assert "offset" in text
        assert "\n" not in text
        return True
    return False


def test_recording_is_whole(recording: Recording) -> None:
    assert opened(recording.segments, recording.seal) == (recording.batches, 0)
    assert opened(recording.segments, None) == (recording.batches, 0)
    assert sum(used(recording, name) for name in recording.segments) > 9_000


@pytest.mark.parametrize("place", [0, 1])
def test_every_flipped_bit_before_the_last_segment_is_refused(
    recording: Recording, place: int
) -> None:
    """What comes after it does not matter but for its header, nor whether the log was closed."""
    name, following = list(recording.segments)[place : place + 2]
    for offset, flipped in flips(recording.segments[name], used(recording, name)):
        contents = {name: flipped, following: recording.segments[following][:HEADER_OCTETS]}
        assert is_refused(contents, None, name), offset


def test_every_flipped_bit_of_a_sealed_end_is_refused(recording: Recording) -> None:
    *_, name = recording.segments
    for offset, flipped in flips(recording.segments[name], recording.seal.end):
        assert is_refused({name: flipped}, recording.seal, name), offset


def test_flipped_bit_of_an_unsealed_end_is_refused_or_ends_it(recording: Recording) -> None:
    """Only the last group of all can be taken for one that was being written."""
    *_, name = recording.segments
    octets = recording.segments[name]
    first = decode_header(octets, Path(name)).first
    _, last = recording.batches[-1]
    torn_from = recording.seal.end - len(last) - GROUP_OCTETS - LENGTH_OCTETS
    for offset, flipped in flips(octets, recording.seal.end):
        if offset < torn_from:
            assert is_refused({name: flipped}, None, name), offset
        else:
            assert opened({name: flipped}, None)[0] == recording.batches[first - 1 : -1], offset


def test_end_cut_at_every_octet_keeps_every_batch_before_it(recording: Recording) -> None:
    *_, name = recording.segments
    octets = recording.segments[name]
    first = decode_header(octets, Path(name)).first
    ends, at = [], HEADER_OCTETS
    for _, batch in recording.batches[first - 1 :]:
        at += GROUP_OCTETS + LENGTH_OCTETS + len(batch)
        ends.append(at)
    assert ends[-1] == recording.seal.end
    for cut in range(HEADER_OCTETS, recording.seal.end):
        whole = sum(end <= cut for end in ends)
        expected = recording.batches[: first - 1 + whole]
        start = ends[whole - 1] if whole else HEADER_OCTETS
        short = {**recording.segments, name: octets[:cut]}
        torn = {**recording.segments, name: octets[:cut].ljust(len(octets), b"\0")}
        batches, discarded = opened(short, None)
        assert batches == expected
        assert discarded == len(octets[start:cut].rstrip(b"\0")) or discarded == cut - start
        # An octet that was zero is not missed.
        whole = sum(not octets[cut:end].strip(b"\0") for end in ends)
        assert opened(torn, None)[0] == recording.batches[: first - 1 + whole]
        # A log that was closed in good order has no torn end.
        assert is_refused(short, recording.seal, name)
        assert is_refused(torn, recording.seal, name)


def test_cut_within_a_header_or_before_the_last_segment_is_refused(recording: Recording) -> None:
    names = list(recording.segments)
    for place, name in enumerate(names):
        stop = HEADER_OCTETS if place == 2 else used(recording, name)
        for cut in range(stop):
            contents = {**recording.segments, name: recording.segments[name][:cut]}
            assert is_refused(contents, None, name), cut


def test_torn_end_is_discarded_and_reported(recording: Recording, copied: Path) -> None:
    unseal(copied)
    *_, name = recording.segments
    with (copied / name).open("r+b") as file:
        file.truncate(recording.seal.end - 1)
    log = open_log(copied, Owner(), segment_bytes=SEGMENT)
    assert log.discarded is not None
    _, last = recording.batches[-1]
    assert (log.discarded.octets, log.discarded.position) == (47 + len(last), len(SIZES))
    assert log.discarded.path == str(copied / name)
    assert list(log.replay()) == recording.batches[:-1]
    owner = Owner()
    assert log.append([b"again"], owner.done) == len(SIZES)
    log.close()
    assert replayed(copied, segment_bytes=SEGMENT)[-1] == (len(SIZES), b"again")


def test_octets_of_a_recycled_segment_are_never_read_as_batches(tmp_path: Path) -> None:
    """All batches have the same length, so that old groups lie exactly where new ones will."""
    owner, files = Owner(), FaultyFiles()
    log = open_log(tmp_path, owner, files=files)
    # There is room for two segments: the third one is the first one again.
    files.space = 4096
    number = 0
    while not log.segments[-1].header.recycled or log.segments[-1].end < 1000:
        number += 1
        owner.append(log, b"%50d" % number)
        owner.run_all()
        if log.state is LogState.FULL:
            log.truncate(number)
            owner.until(lambda: log.state is LogState.OPEN)
    tail = log.segments[-1]
    log.close()
    unseal(tmp_path)
    behind = tail.path.read_bytes()[tail.end :]
    assert behind.strip(b"\0")
    kept = replayed(tmp_path)
    assert kept == [(each, b"%50d" % each) for each in range(kept[0][0], number + 1)]


@pytest.fixture
def unsealed(recording: Recording, copied: Path) -> tuple[Path, Header, int]:
    """The last segment of an unsealed log, its header, and where it ends."""
    unseal(copied)
    *_, name = recording.segments
    header = decode_header(recording.segments[name], Path(name))
    return copied / name, header, recording.seal.end


def forged(header: Header, position: int) -> bytes:
    return b"".join(encode_group(header, 1, position, [[b"forged"]])[0])


def test_group_that_somebody_hid_in_a_message_is_not_accepted(
    recording: Recording, unsealed: tuple[Path, Header, int]
) -> None:
    """It could lie where a torn one ends, but nobody outside knows the salt."""
    path, header, end = unsealed
    overwrite(path, end, forged(header._replace(salt=b"a guess."), len(SIZES) + 1))
    assert replayed(path.parent, segment_bytes=SEGMENT) == recording.batches


def test_group_that_is_whole_but_not_the_next_one_is_damage(
    unsealed: tuple[Path, Header, int],
) -> None:
    path, header, end = unsealed
    overwrite(path, end, forged(header, len(SIZES) + 2))
    with pytest.raises(LogDamagedError, match=f"batch {len(SIZES) + 1} should be here"):
        replayed(path.parent, segment_bytes=SEGMENT)


def test_group_of_an_older_owner_is_damage(unsealed: tuple[Path, Header, int]) -> None:
    path, header, end = unsealed
    octets = b"".join(encode_group(header, 0, len(SIZES) + 1, [[b"old"]])[0])
    overwrite(path, end, octets)
    with pytest.raises(LogDamagedError):
        replayed(path.parent, segment_bytes=SEGMENT)


@pytest.mark.parametrize("place", [1, 2])
@pytest.mark.parametrize("sealed", [True, False])
def test_lost_segment_is_missed(
    recording: Recording, copied: Path, place: int, sealed: bool
) -> None:
    if not sealed:
        unseal(copied)
    name = list(recording.segments)[place]
    (copied / name).unlink()
    with pytest.raises(LogDamagedError, match=r"missing|closed"):
        replayed(copied, segment_bytes=SEGMENT)
    assert not check_directory(copied).ok


def test_log_that_lost_all_segments_is_refused(recording: Recording, copied: Path) -> None:
    unseal(copied)
    for name in recording.segments:
        (copied / name).unlink()
    with pytest.raises(LogDamagedError, match="segments are missing"):
        open_log(copied, Owner())
    assert check_directory(copied).damage == (f"{copied}: damaged: its segments are missing",)


def test_every_cut_or_flipped_seal_is_refused(recording: Recording) -> None:
    octets = (recording.path / SEAL).read_bytes()
    for cut in range(len(octets)):
        with pytest.raises(LogDamagedError, match="SEAL"):
            decode_seal(octets[:cut], Path("SEAL"))
    for _, flipped in flips(octets, len(octets)):
        with pytest.raises(LogDamagedError, match="SEAL"):
            decode_seal(flipped, Path("SEAL"))

"""Cases of a disk that is full: a real one where it can be mounted, and calls that say so."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from conformance.crash.bodies import make_body
from conformance.crash.faults import SHORT
from conformance.crash.grounds import Disk, MemoryDisk
from conformance.crash.look import look_at
from conformance.crash.site import FAILED, GOES_ON, OTHER, PAUSED, QUEUE, Site
from conformance.crash.steady import BODY_OCTETS, SteadyPublisher
from conformance.failure import ConformanceError, check, check_equal
from conformance.methods import encode_frame, encode_header, encode_method

DISK_OCTETS = 424 << 20
_ROOM_OCTETS = 180 << 20
"""Room for two segments of a log and no third one; more when what others have taken goes."""
_SEGMENT_OCTETS = 64 << 20
_MB = 1_000_000
_NO_SPACE = "No space left on device"
_BALLAST = "ballast"


class SmallDisk:
    """A disk of DISK_OCTETS: ext4 if a loop device is there, else a tmpfs.

    OSError or subprocess.CalledProcessError where neither can be mounted.
    """

    def __init__(self) -> None:
        self._disk: Disk | MemoryDisk = Disk(DISK_OCTETS)

    @property
    def data(self) -> Path:
        """The data directory."""
        return self._disk.data

    @property
    def kind(self) -> str:
        """Which of the two it is."""
        return self._disk.kind

    def after_kill(self) -> None:
        """Nothing is lost."""

    def flush(self) -> None:
        """Nothing to do: no end takes anything away."""

    def __enter__(self) -> Self:
        try:
            self._disk.__enter__()
        except (OSError, subprocess.CalledProcessError):
            self._disk = MemoryDisk(DISK_OCTETS).__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._disk.__exit__(kind, error, trace)


def fill(site: Site, *, leave: int = 0) -> None:
    """Somebody else takes what is free on the disk of a site, but for so many octets."""
    path = _ballast(site)
    with path.open("ab", buffering=0) as ballast:
        size = 64 << 20
        while size >= 1024:
            status = os.statvfs(path)
            free = status.f_bavail * status.f_frsize
            if free - size < leave:
                size //= 2
                continue
            try:
                os.posix_fallocate(ballast.fileno(), path.stat().st_size, size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                size //= 2


def make_room(site: Site) -> None:
    """The same goes away."""
    _ballast(site).unlink()


def _ballast(site: Site) -> Path:
    return site.ground.data.parent / _BALLAST


def _filled(site: Site) -> SteadyPublisher:
    """A publisher that has filled the disk and was told so, which the log says in one line."""
    fill(site, leave=_ROOM_OCTETS)
    site.start()
    site.declare()
    publisher = site.publisher()
    publisher.until(lambda: publisher.blocked, "the publisher is blocked", 60.0)
    site.expect_said(_NO_SPACE)
    site.expect_said(PAUSED)
    fill(site)
    check(publisher.refused == 0, "a full disk refuses nothing")
    return publisher


def _until_it_goes_on(publisher: SteadyPublisher, *, more: int = 400) -> None:
    publisher.limit = publisher.counts["published"] + more
    publisher.until(lambda: not publisher.blocked, "the publisher goes on")
    publisher.until(lambda: publisher.confirmed >= publisher.limit, "messages are confirmed again")
    publisher.finish()


def _begin_to_consume(site: Site) -> None:
    """One message is taken: that many are about to be handed out is noted while it can be."""
    delivered = site.counts["delivered"]
    site.drain(lambda: site.counts["delivered"] > delivered)


def drained_by_consumers(site: Site) -> None:
    """Consumers empty a queue on a full disk, which makes room: publishers go on."""
    publisher = _filled(site)
    site.drain(lambda: not publisher.blocked)
    _until_it_goes_on(publisher, more=100)
    site.expect_said(GOES_ON)
    site.drain(lambda: site.owed() == 0)
    site.stop()
    site.restart_and_judge(acks_last=True)
    check_equal(site.said("Traceback"), 0, "tracebacks")


def drained_after_a_rush(site: Site) -> None:
    """Many publishers are under way when the disk is full: what they have sent takes its room in
    the log, and what is left of that must do for the consumers."""
    fill(site, leave=_ROOM_OCTETS)
    site.start()
    site.declare()
    rush = [site.publisher(window=700) for _ in range(4)]
    site.expect_said(_NO_SPACE, within_s=60.0)
    fill(site)
    site.drain(lambda: site.counts["delivered"] % 50 == 0 and site.said(GOES_ON) > 0)
    confirmed = sum(publisher.confirmed for publisher in rush)
    rush[0].until(
        lambda: sum(publisher.confirmed for publisher in rush) > confirmed, "publishers go on"
    )
    site.kill()
    site.restart_and_judge()


def killed_while_full(site: Site) -> None:
    """A kill on a full disk and a start on it; then room is made, and nobody restarts anything."""
    _filled(site)
    site.kill()
    site.restart_and_judge()
    publisher = site.publisher(window=1000)
    publisher.until(lambda: publisher.blocked, "the publisher is blocked again")
    site.kill()
    site.restart_and_judge()
    publisher = site.publisher()
    publisher.until(lambda: publisher.blocked, "the publisher is blocked once more")
    make_room(site)
    _until_it_goes_on(publisher)
    site.expect_said(GOES_ON)
    site.drain(lambda: site.owed() == 0)
    site.kill()
    site.restart_and_judge()


def early_alarm(site: Site) -> None:
    """Publishers are paused while there still is as much room as the setting says."""
    site.start("--disk-free-min 110MB")
    site.declare()
    publisher = site.publisher()
    publisher.until(lambda: publisher.confirmed > 100, "messages are confirmed")
    publisher.finish()
    fill(site, leave=100 * _MB)
    site.expect_said("less than 110000000")
    publisher = site.publisher()
    publisher.until(lambda: publisher.blocked, "the publisher is blocked")
    site.expect_said(_NO_SPACE, 0)
    taken = site.owed() // 2
    site.drain(lambda: site.owed() <= taken)
    site.kill()
    site.restart_and_judge("--disk-free-min 110MB")
    publisher = site.publisher()
    publisher.until(lambda: publisher.blocked, "the publisher is blocked again")
    make_room(site)
    _until_it_goes_on(publisher)
    site.expect_said(GOES_ON)
    site.kill()
    site.restart_and_judge()


def old_backlog(site: Site) -> None:
    """What is consumed lies behind what nobody consumes, which fills the oldest segment: that has
    to be stored anew before anything can go, and needs room."""
    fill(site, leave=_ROOM_OCTETS + _SEGMENT_OCTETS)
    site.start()
    site.declare()
    old = site.publisher(OTHER)
    old.limit = _SEGMENT_OCTETS // BODY_OCTETS
    old.until(lambda: old.confirmed >= old.limit, "the first segment is full", 60.0)
    old.finish()
    owed = site.owed(OTHER)
    publisher = site.publisher()
    publisher.until(lambda: publisher.blocked, "the publisher is blocked", 60.0)
    site.expect_said(_NO_SPACE)
    fill(site)
    site.drain(lambda: site.owed() == 0)
    site.expect_said(GOES_ON, 0)
    make_room(site)
    _until_it_goes_on(publisher)
    check_equal(site.owed(OTHER), owed, "messages of the old queue")
    site.kill()
    site.restart_and_judge()


def one_of_two_queues(site: Site) -> None:
    """More than half of the log is wanted when one queue is empty: what is left of the oldest
    segment is stored anew, since it fits into the room that is left, and publishers go on."""
    fill(site, leave=_ROOM_OCTETS)
    site.start()
    site.declare()
    publisher = site.publisher()
    publisher.limit = _SEGMENT_OCTETS * 5 // 8 // BODY_OCTETS
    publisher.until(lambda: publisher.confirmed >= publisher.limit, "messages are confirmed", 60.0)
    publisher.finish()
    other = site.publisher(OTHER, window=50)
    other.until(lambda: other.blocked, "the publisher is blocked", 60.0)
    site.expect_said(_NO_SPACE)
    fill(site)
    site.drain(lambda: site.owed() == 0)
    _until_it_goes_on(other, more=100)
    site.expect_said(GOES_ON)
    site.kill()
    site.restart_and_judge()


def held_for_want_of_room(site: Site) -> None:
    """A message that does not fit into what is left is confirmed when there is room, not before."""
    fill(site, leave=_ROOM_OCTETS)
    site.start()
    site.declare()
    large = site.connect()
    channel = large.channel()
    channel.call("confirm.select")
    body = b"".join(make_body(99, number, 200_000) for number in range(1, 351))
    frames = [
        encode_frame(1, channel.number, encode_method("basic.publish", routing_key=OTHER)),
        encode_frame(2, channel.number, encode_header(len(body), {"delivery_mode": 2})),
    ]
    large.send_raw(b"".join(frames))
    publisher = site.publisher()
    publisher.until(lambda: publisher.blocked, "the publisher is blocked", 60.0)
    fill(site)
    _begin_to_consume(site)
    step = large.frame_max - 8
    for start in range(0, len(body), step):
        large.send_frame(3, channel.number, body[start : start + step])
    taken = site.owed() // 8
    site.drain(lambda: site.owed() <= taken * 7)
    confirmed = publisher.confirmed
    try:
        found = channel.next_method("no confirm", timeout_s=1.5)
    except ConformanceError:
        site.counts["held"] += 1
    else:
        raise ConformanceError(f"got {found} on a full disk")
    make_room(site)
    channel.expect("basic.ack", delivery_tag=1)
    publisher.until(lambda: publisher.confirmed > confirmed, "messages are confirmed again")
    site.kill()
    site.start()
    connection = site.connect()
    kept = connection.channel().get(OTHER)
    check(kept is not None and kept.body == body, "the large message is whole")
    connection.close()
    look = look_at(site.broker.address, site.record)
    look[OTHER] = []
    site.judge(look, ended_at=float("-inf"))


def no_room_for_a_segment(site: Site) -> None:
    """The calls that allocate say that the disk is full."""
    site.start()
    site.declare()
    site.faults.fail("fallocate", errno.ENOSPC)
    publisher = site.publisher()
    publisher.until(lambda: publisher.blocked, "the publisher is blocked", 60.0)
    site.expect_said(_NO_SPACE)
    site.kill()
    site.restart_and_judge()
    publisher = site.publisher()
    publisher.until(lambda: publisher.blocked, "the publisher is blocked again", 60.0)
    half = site.owed() // 2
    site.drain(lambda: site.owed() <= half)
    site.faults.heal()
    _until_it_goes_on(publisher)
    site.expect_said(GOES_ON)
    site.kill()
    site.restart_and_judge()


def no_room_in_a_write(site: Site) -> None:
    """A write says that the disk is full, as it may where writing in place takes new blocks."""
    site.start()
    site.declare()
    publisher = site.publisher()
    publisher.until(lambda: publisher.confirmed > 200, "messages are confirmed")
    _begin_to_consume(site)
    site.faults.fail("write", errno.ENOSPC, suffix=".log")
    publisher.until(lambda: publisher.blocked, "the publisher is blocked")
    confirmed = publisher.confirmed
    half = site.owed() // 2
    site.drain(lambda: site.owed() <= half)
    check_equal(publisher.confirmed, confirmed, "confirms while nothing can be written")
    site.faults.heal()
    _until_it_goes_on(publisher)
    check_equal((site.said(PAUSED), site.said(GOES_ON)), (1, 1), "lines of the log")
    publisher = site.publisher()
    publisher.until(lambda: publisher.confirmed > 200, "messages are confirmed")
    site.faults.fail("write", errno.ENOSPC, suffix=".log")
    publisher.until(lambda: publisher.blocked, "the publisher is blocked again")
    site.kill()
    site.faults.heal()
    site.restart_and_judge()
    check_equal(site.said(FAILED), 0, "failures")


def writes_that_stop_short(site: Site) -> None:
    """A write that takes only some of the octets is gone on with."""
    site.start()
    site.declare()
    site.faults.fail("write", SHORT, suffix=".log")
    publisher = site.publisher(QUEUE)
    publisher.until(lambda: publisher.confirmed > 200, "messages are confirmed")
    site.kill()
    site.faults.heal()
    site.restart_and_judge()
    check(any(call.error == SHORT for call in site.faults.calls()), "writes were cut")

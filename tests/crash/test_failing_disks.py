"""The short form of failing disks: a whole broker on a full disk, and with calls that fail."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest

from conformance.crash.failing_disks import CASES, SHORT, run_cases
from conformance.crash.full_disk import SmallDisk

SERVE = shlex.join([sys.executable, "-W", "error", "-m", "broker", "serve"])
OPTIONS = " --port {port} --http-port 0 --data-dir {folder}"
HAS_COMPILER = shutil.which("gcc") is not None


def can_mount() -> bool:
    """Whether this machine lets this process mount a small disk."""
    try:
        with SmallDisk():
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@pytest.mark.parametrize("name", SHORT)
def test_what_was_confirmed_outlives_a_disk_that_is_full_or_fails(
    name: str, record_property: Callable[[str, object], None]
) -> None:
    said: list[str] = []
    report = run_cases(SERVE + OPTIONS, [name], said.append)
    record_property("report", report.line())
    [case] = [case for case in CASES if case.name == name]
    assert report.broken == {}, said
    if HAS_COMPILER if case.fails else can_mount():
        assert report.kept == [name]
        assert min(report.counts["confirmed"], report.counts["delivered"]) > 0
    else:
        assert list(report.not_run) == [name]
        assert "1 could not be run here (nothing ran); 0 starts" in report.line()


def test_broker_that_keeps_nothing_is_found_out_by_a_failing_disk() -> None:
    transient = SERVE + " --transient" + OPTIONS
    report = run_cases(transient, ["fails.write.short"], lambda line: None)
    if HAS_COMPILER:
        assert "lost" in report.broken["fails.write.short"]
    else:
        assert list(report.not_run) == ["fails.write.short"]

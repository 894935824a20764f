"""The short form of the crash harness, on a broker of our own."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from conformance.crash.campaign import Campaign
from conformance.crash.findings import Kind

SERVE = shlex.join([sys.executable, "-W", "error", "-m", "broker", "serve"])
OPTIONS = " --port {port} --http-port 0 --data-dir {folder}"
KILLS = 3


def test_broker_that_is_killed_under_load_keeps_what_it_promised() -> None:
    said: list[str] = []
    campaign = Campaign(SERVE + OPTIONS, seed=2, most_failures=1, say=said.append)
    campaign.run(KILLS)
    totals = campaign.totals
    assert totals.failures == 0, said
    assert totals.kills >= KILLS
    assert min(totals.confirmed, totals.acked, totals.commits, totals.looked_at) > 0
    assert min(totals.on_roads, totals.letters) > 0


@pytest.mark.parametrize("expected", [frozenset(), frozenset(Kind)])
def test_broker_that_keeps_nothing_is_found_out(expected: frozenset[Kind], tmp_path: Path) -> None:
    said: list[str] = []
    transient = SERVE + " --transient" + OPTIONS
    campaign = Campaign(transient, seed=2, most_failures=1, expected=expected, say=said.append)
    campaign.kept = tmp_path
    campaign.run(1)
    assert campaign.totals.found[Kind.LOST] > 0, said
    assert campaign.totals.found[Kind.DEFINITION] > 0, said
    # What is expected of a broker is counted all the same.
    assert campaign.failures == (0 if expected == frozenset(Kind) else 1), said
    assert bool(said) == bool(campaign.failures)
    explained = [path.read_text() for path in tmp_path.glob("*/explanation.txt")]
    assert len(explained) == campaign.failures
    assert all("# definitions before" in text for text in explained)

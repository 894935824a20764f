"""Celery with results in a SQL database: chords, which rpc:// cannot do."""

from collections.abc import Iterator

import pytest
from celery import chord
from celery.exceptions import ChordError

from tests.conftest import RunningBroker

from .celery_session import DEADLINE_SECONDS, Worker, running_worker


@pytest.fixture(scope="module")
def worker(broker: RunningBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    database = tmp_path_factory.mktemp("results") / "results.sqlite"
    options = ("-P", "threads", "-c", "4", "--without-mingle")
    with running_worker(broker, f"db+sqlite:///{database}", *options) as worker:
        yield worker


def test_chord_runs_its_body_when_all_parts_are_done(worker: Worker) -> None:
    parts = [worker.signature("add", number, number) for number in range(10)]
    body = worker.signature("total")
    result = chord(parts, body, app=worker.app).apply_async()
    assert result.get(timeout=DEADLINE_SECONDS, interval=0.02) == 90


def test_chord_with_a_failing_part_fails(worker: Worker) -> None:
    parts = [worker.signature("add", 1, 1), worker.signature("fail", "no")]
    result = chord(parts, worker.signature("total"), app=worker.app).apply_async()
    with pytest.raises(ChordError, match="ValueError"):
        result.get(timeout=DEADLINE_SECONDS, interval=0.02, follow_parents=False)

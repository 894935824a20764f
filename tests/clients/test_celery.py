"""A Celery worker with its default pool, and results over rpc://."""

import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from celery import chain, group
from celery.exceptions import TaskRevokedError

from tests.conftest import RunningBroker

from .celery_session import DEADLINE_SECONDS, Worker, delete_queue, running_worker


@pytest.fixture(scope="module")
def worker(broker: RunningBroker) -> Iterator[Worker]:
    with running_worker(broker, "rpc://", "-c", "2") as worker:
        yield worker


def test_task_returns_its_result(worker: Worker) -> None:
    assert worker.result("add", 2, 3) == 5
    assert worker.result("numbered", 1, "ü" * 200_000) == [1, 200_000]


def test_exception_of_a_task_is_raised_where_its_result_is_read(worker: Worker) -> None:
    with pytest.raises(ValueError, match="out of range"):
        worker.result("fail", "out of range")


def test_failing_task_is_retried_until_it_succeeds(worker: Worker) -> None:
    assert worker.result("flaky", 2) == 3


def test_exceptions_named_for_it_are_retried_by_celery_itself(worker: Worker) -> None:
    assert worker.result("unreachable", 2) == 3
    with pytest.raises(ConnectionError, match="nobody there"):
        worker.result("unreachable", 3)


def test_task_with_countdown_runs_when_it_is_due(worker: Worker) -> None:
    due = time.time() + 0.7
    ran = worker.result("now", countdown=0.7)
    assert due - 0.05 <= ran < due + DEADLINE_SECONDS


def test_tasks_waiting_for_their_time_do_not_keep_others_from_running(worker: Worker) -> None:
    # Each waiting task is unacknowledged; the worker raises its channel-wide prefetch for it.
    waiting = [worker.send("add", 1, 1, countdown=600) for _ in range(8)]
    assert worker.result("add", 4, 4) == 8
    scheduled = {entry["request"]["id"] for entry in worker.inspect("scheduled")}
    assert scheduled == {each.id for each in waiting}
    assert worker.inspect("stats")["prefetch_count"] == 2 + 8


def test_group_collects_all_results_in_order(worker: Worker) -> None:
    signatures = (worker.signature("add", number, number) for number in range(30))
    results = group(signatures, app=worker.app).apply_async()
    assert results.get(timeout=DEADLINE_SECONDS) == [2 * number for number in range(30)]


def test_chain_passes_each_result_on(worker: Worker) -> None:
    steps = [worker.signature("add", 1, 2), worker.signature("add", 10), worker.signature("add", 5)]
    assert chain(*steps, app=worker.app).apply_async().get(timeout=DEADLINE_SECONDS) == 18


def test_revoked_task_does_not_run(worker: Worker) -> None:
    task_id = str(uuid.uuid4())
    worker.control("revoke", task_id)
    revoked = worker.send("add", 1, 1, task_id=task_id)
    with pytest.raises(TaskRevokedError):
        revoked.get(timeout=DEADLINE_SECONDS)


def test_worker_answers_remote_control(worker: Worker) -> None:
    assert worker.inspect("ping") == {"ok": "pong"}
    [queue] = worker.inspect("active_queues")
    assert (queue["name"], queue["durable"]) == (worker.queue, True)
    # To everybody: a reply queue of its own and an answer from each worker there is.
    assert {worker.node: {"ok": "pong"}} in worker.app.control.ping(
        timeout=DEADLINE_SECONDS, limit=1
    )


def test_worker_takes_a_second_queue_while_it_runs(worker: Worker, broker: RunningBroker) -> None:
    other = f"{worker.queue}-other"
    try:
        assert "ok" in worker.control("add_consumer", other)
        assert worker.result("add", 20, 1, queue=other) == 21
        assert "ok" in worker.control("cancel_consumer", other)
        assert worker.result("add", 20, 2) == 22
    finally:
        delete_queue(broker, other)


def test_events_tell_the_life_of_a_task(worker: Worker) -> None:
    kinds: list[str] = []
    workers: set[str] = set()
    task_id = str(uuid.uuid4())
    complete = ["task-received", "task-sent", "task-started", "task-succeeded"]

    def on_event(event: dict[str, Any]) -> None:
        workers.add(event["hostname"])
        if event.get("uuid") == task_id:
            kinds.append(event["type"])

    with worker.app.connection_for_read() as connection:
        receiver = worker.app.events.Receiver(connection, handlers={"*": on_event})
        with receiver.consumer_context() as (consuming, _, _):
            worker.send("add", 1, 2, task_id=task_id)
            while sorted(kinds) != complete:
                consuming.drain_events(timeout=DEADLINE_SECONDS)
    assert worker.node in workers


def test_prefetch_follows_the_size_of_the_pool(worker: Worker) -> None:
    before = worker.inspect("stats")["prefetch_count"]
    assert worker.control("pool_grow", 2) == {"ok": "pool will grow"}
    assert worker.inspect("stats")["prefetch_count"] == before + 2
    assert worker.control("pool_shrink", 2) == {"ok": "pool will shrink"}
    assert worker.inspect("stats")["prefetch_count"] == before

"""Celery when things end: a worker that is killed, a broker that is restarted."""

import uuid
from collections.abc import Callable

from tests.conftest import BrokerProcess, RunningBroker

from .celery_session import (
    DEADLINE_SECONDS,
    application,
    delete_queue,
    running_worker,
    start_worker,
)


def test_task_of_a_killed_worker_runs_again_on_another(broker: RunningBroker) -> None:
    queue = f"celery-{uuid.uuid4()}"
    options = ("-P", "solo", "--without-mingle")
    try:
        with application(broker, "rpc://", queue) as app:
            stuck = app.send_task("stuck")
            with start_worker(broker, "rpc://", queue, *options)[1] as first:
                first.expect("stuck began")
                first.kill()
            with start_worker(broker, "rpc://", queue, *options)[1]:
                assert stuck.get(timeout=DEADLINE_SECONDS) == "redelivered"
    finally:
        delete_queue(broker, queue)


def test_task_whose_process_is_killed_runs_again_on_the_same_worker(broker: RunningBroker) -> None:
    options = ("-P", "prefork", "-c", "1", "--without-mingle")
    with running_worker(broker, "rpc://", *options) as worker:
        assert worker.result("lost") == "redelivered"


def test_worker_returns_to_a_restarted_broker(start_broker: Callable[..., BrokerProcess]) -> None:
    first = start_broker()
    queue = "celery"
    with start_worker(first, "rpc://", queue, "-P", "solo", "--without-mingle")[1] as worker:
        worker.expect(" ready.")
        assert first.stop() == 0
        worker.expect("Trying again in")
        start_broker("--port", str(first.port))
        with application(first, "rpc://", queue) as app:
            assert app.send_task("add", (2, 3)).get(timeout=DEADLINE_SECONDS) == 5

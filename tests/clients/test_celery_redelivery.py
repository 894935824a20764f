"""A Celery task that is acknowledged late survives the death of its worker."""

import uuid

from tests.conftest import RunningBroker

from .celery_session import DEADLINE_SECONDS, application, delete_queue, start_worker


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

"""Celery on queues with arguments: priorities, quorum queues."""

import uuid
from typing import Any

import pytest

from tests.conftest import RunningBroker

from .celery_session import (
    DEADLINE_SECONDS,
    application,
    delete_queue,
    start_worker,
)

OPTIONS = ("-P", "solo", "--without-mingle")


def test_task_with_a_higher_priority_runs_before_those_that_wait(broker: RunningBroker) -> None:
    queue = f"celery-{uuid.uuid4()}"
    arguments = {"x-max-priority": 10}
    try:
        with application(broker, "rpc://", queue, arguments) as app:
            priorities = [0, 3, 9, 3, 5, None, 12, 10]
            sent = [app.send_task("now", priority=priority) for priority in priorities]
            with start_worker(broker, "rpc://", queue, *OPTIONS, arguments=arguments)[1]:
                ran = [result.get(timeout=DEADLINE_SECONDS) for result in sent]
    finally:
        delete_queue(broker, queue)
    order = sorted(range(len(sent)), key=ran.__getitem__)
    # 12 counts as 10; of one priority the first one is first.
    assert [priorities[place] for place in order] == [12, 10, 9, 5, 3, 3, 0, None]
    assert order.index(1) < order.index(3)


@pytest.mark.parametrize("arguments", [{"x-queue-type": "quorum"}, {"x-delivery-limit": 3}])
def test_celery_knows_a_quorum_queue_by_its_argument(
    broker: RunningBroker, arguments: dict[str, Any]
) -> None:
    queue = f"celery-{uuid.uuid4()}"
    try:
        with start_worker(broker, "rpc://", queue, *OPTIONS, arguments=arguments)[1] as worker:
            worker.expect(" ready.")
            with application(broker, "rpc://", queue, arguments) as app:
                assert app.send_task("add", (2, 3)).get(timeout=DEADLINE_SECONDS) == 5
                assert app.send_task("flaky", (2,)).get(timeout=DEADLINE_SECONDS) == 3
            is_static = any("Prefetch count is now static" in line for line in worker.lines)
            assert is_static == ("x-queue-type" in arguments)
    finally:
        delete_queue(broker, queue)

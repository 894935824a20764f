"""The Celery application of the tests, the same in the worker's process and in the test's."""

import os
import signal
import threading
import time
from typing import Any

from celery import Celery, Task
from celery.utils.log import get_task_logger
from kombu.entity import Exchange, Queue

logger = get_task_logger(__name__)


def create_app(
    broker_url: str, backend: str, queue: str, arguments: dict[str, Any] | None = None
) -> Celery:
    """An application whose tasks go to `queue`, with these arguments, and whose results go to
    `backend`."""
    app = Celery("tests", broker=broker_url, backend=backend)
    app.conf.update(
        task_default_queue=queue,
        task_queues=[
            Queue(queue, Exchange(queue), routing_key=queue, queue_arguments=arguments),
        ]
        if arguments
        else None,
        worker_prefetch_multiplier=1,
        worker_send_task_events=True,
        task_send_sent_event=True,
        result_chord_retry_interval=0.05,
        broker_connection_retry_on_startup=True,
        task_default_retry_delay=0,
        # A failing publish is a failing test, not a retry.
        task_publish_retry=False,
    )
    for function in (add, total, fail, now, numbered):
        app.task(name=function.__name__)(function)
    app.task(name="flaky", bind=True, max_retries=3)(flaky)
    app.task(name="stuck", bind=True, acks_late=True)(stuck)
    app.task(name="lost", bind=True, acks_late=True, reject_on_worker_lost=True)(lost)
    app.task(
        name="unreachable",
        bind=True,
        autoretry_for=(ConnectionError,),
        retry_kwargs={"max_retries": 2, "countdown": 0.1},
    )(unreachable)
    return app


def add(x: int, y: int) -> int:
    return x + y


def total(numbers: list[int]) -> int:
    return sum(numbers)


def fail(text: str) -> None:
    raise ValueError(text)


def now() -> float:
    return time.time()


def numbered(number: int, body: str) -> list[Any]:
    return [number, len(body)]


def flaky(self: Task, failures: int) -> int:
    """Fail `failures` times, each time retried after a tenth of a second; return the attempt."""
    if self.request.retries < failures:
        raise self.retry(countdown=0.1)
    return int(self.request.retries) + 1


def stuck(self: Task) -> str:
    """Never end when delivered for the first time; end at once when redelivered."""
    if not self.request.delivery_info["redelivered"]:
        logger.info("stuck began")
        threading.Event().wait()
    return "redelivered"


def lost(self: Task) -> str:
    """End the worker's process when delivered for the first time; return when redelivered."""
    if not self.request.delivery_info["redelivered"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return "redelivered"


def unreachable(self: Task, failures: int) -> int:
    """Fail `failures` times, each time retried by Celery itself; return the attempt."""
    if self.request.retries < failures:
        raise ConnectionError("nobody there")
    return int(self.request.retries) + 1

"""A Celery application: a plain task, one that retries, one that starts later.

    celery -A tasks worker --loglevel INFO          (in this folder; AMQP_URL names the broker)
    python enqueue.py [URL]                         (in another terminal)

Everything here is Celery's standard set-up; nothing in it is special to the broker.
"""

import os
import time

from celery import Celery, Task

app = Celery(
    "tasks",
    broker=os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/"),
    backend="rpc://",
)
app.conf.update(
    # A worker that dies gives its task back, and takes no more tasks than it works on.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    result_expires=600,
    broker_connection_retry_on_startup=True,
)


@app.task
def add(x: int, y: int) -> int:
    """Return the sum."""
    return x + y


@app.task(bind=True, max_retries=3)
def fetch(self: Task, url: str) -> str:
    """Pretend to fetch `url`: the first two attempts fail and are retried a little later."""
    attempt = self.request.retries
    try:
        if attempt < 2:
            raise ConnectionError(f"{url} did not answer")
    except ConnectionError as error:
        raise self.retry(exc=error, countdown=0.2 * 2**attempt) from error
    return f"{url} fetched at attempt {attempt + 1}"


@app.task
def now() -> float:
    """Return the time at which the task ran, in seconds since the epoch."""
    return time.time()

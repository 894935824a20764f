"""A Celery application whose tasks wait in the broker until they are due, not in a worker.

    celery -A tasks worker --loglevel INFO          (in this folder; AMQP_URL names the broker)
    python enqueue.py [URL]                         (in another terminal)

This is Celery's native delayed delivery (Celery 5.5 or newer). It comes with the queue type
`quorum`, and needs a topic exchange: Celery makes 28 queues, `celery_delayed_27` to
`celery_delayed_0`, in which a message waits 2**27 to 1 seconds, and says with the routing key
through which of them a task goes. A worker holds none of those that wait.
"""

import os
import time

from celery import Celery, Task
from kombu.entity import Exchange, Queue

JOBS = "jobs"

app = Celery(
    "tasks",
    broker=os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/"),
    backend="rpc://",
)
app.conf.update(
    task_queues=[
        Queue(
            JOBS,
            Exchange(JOBS, type="topic"),
            routing_key=JOBS,
            queue_arguments={"x-queue-type": "quorum"},
        )
    ],
    task_default_queue=JOBS,
    task_default_exchange=JOBS,
    task_default_exchange_type="topic",
    task_default_routing_key=JOBS,
    broker_native_delayed_delivery_queue_type="quorum",
    # A worker that dies gives its task back, and takes no more tasks than it works on.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    result_expires=600,
    broker_connection_retry_on_startup=True,
)


@app.task
def remind(order: str) -> tuple[str, float]:
    """Return the order and the time at which the task ran, in seconds since the epoch."""
    return order, time.time()


@app.task(bind=True, max_retries=3)
def charge(self: Task, order: str) -> str:
    """Pretend to charge for an order: the first attempt fails and is retried a second later."""
    if not self.request.retries:
        raise self.retry(countdown=1)
    return f"{order} charged at attempt {self.request.retries + 1}"

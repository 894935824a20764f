"""A worker and the application that sends it tasks, for the length of a test."""

import json
import signal
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pika
from celery import Celery
from kombu import pools

from tests.conftest import RunningBroker

from .celery_tasks import create_app
from .program import Program

ROOT = Path(__file__).parents[2]
DEADLINE_SECONDS = 20.0


class Worker(NamedTuple):
    """A running worker, and the application that sends it tasks."""

    app: Celery
    node: str
    queue: str
    program: Program

    def signature(self, task: str, *arguments: Any) -> Any:
        return self.app.signature(task, args=arguments)

    def send(self, task: str, *arguments: Any, **options: Any) -> Any:
        """Send a task; return its AsyncResult."""
        return self.app.send_task(task, args=arguments, **options)

    def result(self, task: str, *arguments: Any, **options: Any) -> Any:
        """Send a task and wait for what it returns."""
        return self.send(task, *arguments, **options).get(timeout=DEADLINE_SECONDS)

    def control(self, command: str, *arguments: Any, **options: Any) -> Any:
        """The answer of this worker to a remote control command."""
        answers = getattr(self.app.control, command)(
            *arguments, destination=[self.node], reply=True, timeout=DEADLINE_SECONDS, **options
        )
        [answer] = answers
        return answer[self.node]

    def inspect(self, command: str) -> Any:
        """The answer of this worker to an inspection."""
        inspect = self.app.control.inspect([self.node], timeout=DEADLINE_SECONDS)
        return getattr(inspect, command)()[self.node]


@contextmanager
def application(
    broker: RunningBroker, backend: str, queue: str, arguments: dict[str, Any] | None = None
) -> Iterator[Celery]:
    """The application in this process, with all its connections closed at the end."""
    with create_app(broker.url, backend, queue, arguments) as app:
        try:
            yield app
        finally:
            consumer = getattr(app.backend, "result_consumer", None)
            if consumer is not None:
                consumer.stop()
            # Producers keep their connections in pools of the process.
            pools.reset()


def start_worker(
    broker: RunningBroker,
    backend: str,
    queue: str,
    *options: str,
    arguments: dict[str, Any] | None = None,
) -> tuple[str, Program]:
    """Start a worker; return its node name and its process, to be used as a context."""
    node = f"{uuid.uuid4()}@localhost"
    module = ("-m", "tests.clients.celery_worker")
    words = (*module, broker.url, backend, queue, "-n", node, *options)
    env = {"QUEUE_ARGUMENTS": json.dumps(arguments)}
    return node, Program(*words, cwd=ROOT, env=env)


@contextmanager
def running_worker(broker: RunningBroker, backend: str, *options: str) -> Iterator[Worker]:
    """A worker that is ready, with a queue of its own; at the end it is asked to stop."""
    queue = f"celery-{uuid.uuid4()}"
    node, program = start_worker(broker, backend, queue, *options)
    try:
        with program, application(broker, backend, queue) as app:
            program.expect(" ready.")
            yield Worker(app, node, queue, program)
            program.interrupt(signal.SIGTERM)
    finally:
        delete_queue(broker, queue)


def delete_queue(broker: RunningBroker, queue: str) -> None:
    """Delete a task queue and the exchange of the same name, which Celery leaves behind."""
    with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        channel = connection.channel()
        channel.queue_delete(queue)
        channel.exchange_delete(queue)

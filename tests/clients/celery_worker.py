"""A Celery worker, started by the tests as a program.

python -m tests.clients.celery_worker BROKER_URL BACKEND QUEUE [OPTIONS OF THE WORKER ...]

QUEUE_ARGUMENTS in the environment are those of the queue, as JSON.
"""

import json
import os
import sys

from tests.clients.celery_tasks import create_app

if __name__ == "__main__":
    broker_url, backend, queue, *options = sys.argv[1:]
    arguments = json.loads(os.environ.get("QUEUE_ARGUMENTS", "null"))
    app = create_app(broker_url, backend, queue, arguments)
    app.worker_main(["worker", "--loglevel", "INFO", *options])

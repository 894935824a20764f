"""A Celery worker, started by the tests as a program.

python -m tests.clients.celery_worker BROKER_URL BACKEND QUEUE [OPTIONS OF THE WORKER ...]
"""

import sys

from tests.clients.celery_tasks import create_app

if __name__ == "__main__":
    broker_url, backend, queue, *options = sys.argv[1:]
    create_app(broker_url, backend, queue).worker_main(["worker", "--loglevel", "INFO", *options])

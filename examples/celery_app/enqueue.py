"""Send work to the Celery worker and print the results.

    python enqueue.py [URL]

Start the worker first: see `tasks.py`.
"""

import sys
import time

from celery import group
from tasks import add, app, fetch, now  # type: ignore[import-not-found]

TIMEOUT_SECONDS = 30


def main() -> None:
    """A single task, a retried one, one that waits, and a group of ten."""
    print(f" [x] add: {add.delay(2, 3).get(timeout=TIMEOUT_SECONDS)}")
    print(f" [x] fetch: {fetch.delay('http://example.com/').get(timeout=TIMEOUT_SECONDS)}")

    sent = time.time()
    ran = now.apply_async(countdown=0.5).get(timeout=TIMEOUT_SECONDS)
    print(f" [x] countdown: ran {'after' if ran - sent >= 0.5 else 'before'} half a second")

    sums = group(add.s(number, number) for number in range(10)).apply_async()
    print(f" [x] group: {sums.get(timeout=TIMEOUT_SECONDS)}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        app.conf.broker_url = sys.argv[1]
    main()

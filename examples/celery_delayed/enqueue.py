"""Send tasks that wait in the broker to the Celery worker, and print when they ran.

    python enqueue.py [URL]

Start the worker first: it makes the queues in which tasks wait. See `tasks.py`.
"""

import sys
import time

from tasks import app, charge, remind  # type: ignore[import-not-found]

TIMEOUT_SECONDS = 30


def main() -> None:
    """Three tasks that wait, the longest first, one that does not, and one that is retried."""
    sent = time.time()
    reminders = [
        remind.apply_async((f"order-{seconds}",), countdown=seconds) for seconds in (3, 2, 1)
    ]
    charged = charge.delay("order-0")
    order, ran = remind.delay("order-0").get(timeout=TIMEOUT_SECONDS)
    print(f" [x] {order}: after {ran - sent:.1f} s")
    for reminder in reversed(reminders):
        order, ran = reminder.get(timeout=TIMEOUT_SECONDS)
        print(f" [x] {order}: after {ran - sent:.1f} s")
    print(f" [x] {charged.get(timeout=TIMEOUT_SECONDS)}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        app.conf.broker_url = sys.argv[1]
    main()

"""queue.declare, queue.delete, queue.purge."""

from conformance.failure import check_equal
from conformance.registry import scenario
from conformance.session import Session


@scenario(
    "queue.declare.passive-missing",
    covers=["method:queue.declare", "error:missing-queue-passive", "method:channel.close.server"],
)
def passive_declare_of_a_missing_queue(s: Session) -> None:
    channel = s.channel()
    queue = s.name("missing")
    channel.send("queue.declare", queue=queue, passive=True)
    channel.expect_close(404, f"NOT_FOUND - no queue '{queue}' in vhost '/'", "queue.declare")
    channel.reopen()


@scenario(
    "queue.delete.missing",
    covers=["method:queue.delete", "method:queue.delete-ok", "error:delete-missing-queue"],
)
def deleting_a_missing_queue_succeeds(s: Session) -> None:
    reply = s.channel().call("queue.delete", queue=s.name("missing"))
    check_equal(reply["message_count"], 0, "message_count")

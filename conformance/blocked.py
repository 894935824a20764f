"""What scenarios of alarms look for: who is blocked, who is not, and that nothing moves then."""

from __future__ import annotations

from conformance.channel import Channel
from conformance.client import Connection
from conformance.failure import check_equal
from conformance.session import Session

_LOOKS = 20


def confirming_channel(s: Session, **options: object) -> Channel:
    """A channel in confirm mode on a connection of its own."""
    channel = s.channel(**options)
    channel.call("confirm.select")
    return channel


def expect_blocked(connection: Connection, reason: str = "low on memory") -> None:
    """The connection was told that it is blocked, for this reason."""
    connection.channel0.expect("connection.blocked", reason=reason)


def expect_unblocked(connection: Connection) -> None:
    """The connection was told that it may go on."""
    connection.channel0.expect("connection.unblocked")


def close_untold(connection: Connection) -> None:
    """Closes a connection that must not have been told of anything."""
    connection.channel0.call("connection.close", reply_code=200, reply_text="bye")


def check_held(s: Session, queue: str, ready: int = 0) -> None:
    """A queue stays as it is while others are served many times."""
    channel = s.channel()
    for _ in range(_LOOKS):
        check_equal(channel.message_count(queue), ready, "messages while publishers are held")
        channel.call("queue.delete", queue=channel.declare_queue(exclusive=True))

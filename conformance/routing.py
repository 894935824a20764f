"""What scenarios about routing have in common: bound queues, and what came into them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from conformance.channel import Channel
from conformance.failure import check_equal
from conformance.session import Session

Headers = Mapping[str, Any]


def bound_queue(
    s: Session, channel: Channel, exchange: str, *keys: str, arguments: Headers | None = None
) -> str:
    """A new queue that is bound by each of these keys."""
    queue = s.queue(channel)
    for key in keys:
        channel.bind(queue, exchange, key, arguments=arguments or {})
    return queue


def check_routes(
    channel: Channel, exchange: str, keys: Iterable[str], expected: Mapping[str, Iterable[str]]
) -> None:
    """Publishes one message for each routing key; `expected` maps queues to the keys, in order,
    of what they must get."""
    for key in keys:
        channel.publish(key.encode(), exchange, key)
    for queue, wanted in expected.items():
        found = [body.decode() for body in channel.get_all(queue)]
        check_equal(found, list(wanted), "routing keys of what the queue got")


def is_routed(
    channel: Channel, exchange: str, queue: str, key: str = "", headers: Headers | None = None
) -> bool:
    """Whether a message with these headers (None: no headers property) reaches the queue."""
    properties = {} if headers is None else {"headers": headers}
    channel.publish(b"message", exchange, key, properties=properties)
    count = len(channel.get_all(queue))
    check_equal(count in (0, 1), True, "one copy at most")
    return count == 1

"""What scenarios have in common about exchanges that give each message to one queue."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from conformance.channel import Channel
from conformance.failure import check_equal
from conformance.session import Session

KEYS = [f"key {number}" for number in range(600)]
Properties = Callable[[str], Mapping[str, Any]]


def queues_at(s: Session, channel: Channel, exchange: str, *keys: str, **options: Any) -> list[str]:
    """New queues, in the order of their names, each bound by one of these keys."""
    queues = sorted(s.name("q") for _ in keys)
    for queue, key in zip(queues, keys, strict=True):
        channel.declare_queue(queue, **options)
        channel.bind(queue, exchange, key)
    return queues


def publish_keys(
    channel: Channel, exchange: str, keys: Iterable[str], properties: Properties | None = None
) -> None:
    """Publishes each key as a body, with it as routing key or in these properties."""
    for key in keys:
        if properties is None:
            channel.publish(key.encode(), exchange, key)
        else:
            channel.publish(key.encode(), exchange, "any", properties=properties(key))


def taken(channel: Channel, queues: Iterable[str]) -> dict[str, list[str]]:
    """The bodies in each queue, which are taken."""
    return {queue: [body.decode() for body in channel.get_all(queue)] for queue in queues}


def owners(channel: Channel, exchange: str, queues: Iterable[str]) -> dict[str, str]:
    """The queue of each key; every message must be in one queue."""
    publish_keys(channel, exchange, KEYS)
    found = taken(channel, queues)
    check_equal(
        sorted(body for bodies in found.values() for body in bodies),
        sorted(KEYS),
        "messages in all queues",
    )
    return {key: queue for queue, bodies in found.items() for key in bodies}


def check_share(part: int, whole: int, wanted: float) -> None:
    """`part` of `whole` is as wanted, within a third of it."""
    check_equal(abs(part / whole - wanted) < wanted / 3, True, f"{part} of {whole} is {wanted:.2f}")

"""Publishes to exchanges and queues that know duplicates: what was published before is confirmed,
when that is durable, and goes nowhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from broker.core.deduplication.duplicates import Duplicates, Judged
from broker.core.history import History
from broker.core.message import ORIGIN, PERSISTENT, Message
from broker.core.queue import Queue

if TYPE_CHECKING:
    from broker.core.exchange import Exchange
    from broker.core.vhost import VHost
    from broker.protocol.channel import Channel


class Sent(NamedTuple):
    """How a message was sent whose properties say something to the broker: its routing keys, and
    the header frame that it came with."""

    keys: list[str]
    header: bytes


def knows_duplicates(
    vhost: VHost, exchange: Exchange, queues: Sequence[Queue], *, is_fixed: bool
) -> bool:
    """Whether anybody on the way to these queues, or to others if it is not fixed, does."""
    if not is_fixed:
        return vhost.policies.deduplicating_count > 0
    return exchange.duplicates is not None or any(queue.duplicates for queue in queues)


def single_judge(exchange: Exchange, queues: Sequence[Queue]) -> Duplicates | None:
    """Who decides alone whether messages on a fixed way go to all of these queues or to none."""
    if any(queue.rules.refuses for queue in queues):
        return None
    known = [exchange.duplicates, *[queue.duplicates for queue in queues]]
    judges = [each for each in known if each is not None]
    if any(queue.present is not None and queue.lanes[0] is not queue for queue in queues):
        # Each message has to come before the next one is judged.
        return None
    is_alone = len(judges) == 1 and (exchange.duplicates is not None or len(queues) == 1)
    return judges[0] if queues and is_alone else None


def is_written(channel: Channel, queues: Sequence[Queue], message: Message) -> bool:
    """Whether a message goes to the log if these queues take it."""
    if not message[ORIGIN][PERSISTENT] or channel.connection.broker.journal is None:
        return False
    return any(queue.lasting is not None for queue in queues)


def is_lost(channel: Channel, queues: Sequence[Queue], message: Message) -> bool:
    """Whether it should last and will not, since the log has failed."""
    return channel.connection.broker.has_failed and is_written(channel, queues, message)


def wait_for(channel: Channel, batch: int) -> None:
    """A duplicate of what is in this batch of the log was published: its confirm waits for that, or
    the answer to the commit."""
    channel.written_to = max(channel.written_to, batch)
    if channel.transaction is not None:
        channel.answer_after = max(channel.answer_after, batch)


def publish_once(
    channel: Channel,
    judged: Judged,
    exchange: Exchange,
    find: Callable[[], list[Queue]],
    hand_out: Callable[[list[Queue]], list[Queue]],
    message: Message,
) -> bool:
    """Publishes a message to those to whom it is new. `find` says where it goes, `hand_out` takes
    it there and returns the queues that refused it. False if there are any."""
    if exchange.duplicates is not None and judged.is_dropped(exchange.duplicates):
        wait_for(channel, judged.batch or 0)
        return True
    taking = judged.among(find())
    if judged.batch is not None:
        wait_for(channel, judged.batch)
        # What is kept for others alone was kept when it came first.
        if not taking or isinstance(taking[0], History):
            return True
    is_kept = not is_lost(channel, taking, message)
    refused = hand_out(taking)
    if is_kept:
        judged.remember(
            [queue for queue in taking if queue not in refused],
            persistent=message[ORIGIN][PERSISTENT],
            is_refused=bool(refused),
        )
    return not refused

"""Consumer timeout: what happens to deliveries that are not settled in time (RabbitMQ,
"Delivery Acknowledgement Timeout").

Theory of operation. A consumer is late in the order of its delivery tags. So all that is kept is a
few marks for each consumer, "whatever it holds below this tag is late at that time", and one timer.
Deliveries that follow each other closely share a mark, which is due when the last one may be: late
is late by a sixteenth of the timeout at most, and nothing is late before its time. Consumers
without a timeout have none of this.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from broker.core.arguments import CANCEL_CONSUMER, CLOSE_CHANNEL, REQUEUE
from broker.core.consumer import Consumer
from broker.core.message import Entry
from broker.errors import AMQPError, ReplyCode
from broker.protocol.late import LateTags, Places

if TYPE_CHECKING:
    from broker.protocol.channel import Channel
    from broker.protocol.unacked import Group

MARKS = 16
"""Marks in the time of one timeout; one more may be due."""
MARK_MIN_MS = 10
"""What shares a mark at least: a tiny timeout must not ring all the time."""
LOOK_AGAIN_MS = 500
"""When to look again at a consumer whose settlements the broker does not read now."""
SWEEP_FROM = 64
"""Watches of one channel, from which on those are looked for that are not needed any more."""
LATE_AT_ONCE = 4096
"""Deliveries of one consumer that are given back in one turn of the loop."""


class Watch:
    """The deliveries of one consumer, and when they are late. A `broker.core.timers.Timed`."""

    __slots__ = ("_marks", "_span", "_timeouts", "consumer", "due", "timeout")

    def __init__(self, timeouts: DeliveryTimeouts, consumer: Consumer) -> None:
        self.due: int | None = None
        self.consumer = consumer
        self.timeout = consumer.timeout
        self._timeouts: DeliveryTimeouts | None = timeouts
        self._span = max(self.timeout // MARKS, MARK_MIN_MS)
        # (tag, when all that it holds below is late), both rising.
        self._marks: deque[tuple[int, int]] = deque()

    def add(self, stop: int, count: int) -> None:
        """It got so many deliveries just now, whose tags end before `stop`."""
        assert self._timeouts is not None
        timers = self._timeouts.channel.connection.broker.timers
        marks = self._marks
        if self.consumer.unacked == count:
            # Nothing is left of what came before.
            marks.clear()
        if marks and marks[-1][1] >= timers.now + self.timeout:
            marks[-1] = stop, marks[-1][1]
        else:
            marks.append((stop, timers.now + self.timeout + self._span))
        timers.set(self, marks[0][1])

    def on_time(self, now: int) -> None:
        """Some of what it holds is late, if it is not settled."""
        timeouts = self._timeouts
        assert timeouts is not None
        channel = timeouts.channel
        timers = channel.connection.broker.timers
        if channel.connection.is_blocked or channel.connection.is_waiting:
            timers.set(self, now + LOOK_AGAIN_MS)
            return
        channel.connection.broker.run_deliveries()
        marks = self._marks
        began = stop = 0
        while marks and marks[0][1] <= now:
            stop, due = marks.popleft()
            began = began or due - self.timeout - self._span
        if stop and not self.consumer.queue.is_deleted:
            more = timeouts.time_out(self, stop, now - began)
            if more is not None and (not marks or more < marks[0][1]):
                # It is among what the next mark is for otherwise.
                marks.appendleft((stop, more))
        if self._timeouts is None:
            return
        if marks:
            timers.set(self, marks[0][1])
        else:
            timeouts.forget(self.consumer)

    def close(self) -> None:
        """It is not watched any more."""
        if self._timeouts is not None:
            self._timeouts.channel.connection.broker.timers.set(self, None)
            # A timer that is off may be remembered for long, a channel should not be.
            self._timeouts = None


class DeliveryTimeouts:
    """What is watched on one channel, and what was late."""

    __slots__ = ("_sweep_at", "channel", "late", "watches")

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.late = LateTags()
        self.watches: dict[Consumer, Watch] = {}
        self._sweep_at = SWEEP_FROM

    def watch(self, consumer: Consumer, count: int) -> None:
        """This consumer, which has a timeout, got so many deliveries just now."""
        watch = self.watches.get(consumer)
        if watch is None:
            if len(self.watches) >= self._sweep_at:
                self._sweep()
            watch = self.watches[consumer] = Watch(self, consumer)
        watch.add(self.channel.unacked.next_tag, count)

    def _sweep(self) -> None:
        """Consumers come and go, and so does who holds what basic.get took: those that hold nothing
        are not timed on."""
        for consumer in [each for each in self.watches if not each.unacked]:
            self.forget(consumer)
        self._sweep_at = SWEEP_FROM + 2 * len(self.watches)

    def restart(self, consumer: Consumer) -> None:
        """The timeout of this consumer has changed: what it holds has all of it from now on."""
        self.forget(consumer)
        if consumer.timeout and consumer.unacked:
            self.watch(consumer, consumer.unacked)

    def forget(self, consumer: Consumer) -> None:
        """Nothing that this consumer holds is timed now."""
        watch = self.watches.pop(consumer, None)
        if watch is not None:
            watch.close()

    def close(self) -> None:
        """The channel ends."""
        for consumer in list(self.watches):
            self.forget(consumer)

    # What is late

    def time_out(self, watch: Watch, stop: int, age: int) -> int | None:
        """All that is unsettled below this tag is late; the oldest of it was delivered `age` ms
        ago. Returns when to look at it again, None for never."""
        consumer, channel = watch.consumer, self.channel
        now = channel.connection.broker.timers.now
        tags = channel.unacked.tags_of(consumer, stop)
        later = None
        if channel.transaction is not None and channel.transaction.settled:
            # These wait for the commit, not for the consumer. A rollback may change that.
            settled = channel.transaction.settled
            late = [tag for tag in tags if tag not in settled]
            later = now + watch.timeout if len(late) < len(tags) else None
            tags = late
        if not tags:
            return later
        action = _action(consumer)
        is_there = channel.consumers.get(consumer.tag) is consumer
        if action == CANCEL_CONSUMER and not is_there:
            action = REQUEUE
        elif action == CANCEL_CONSUMER and not channel.connection.understands(
            "consumer_cancel_notify"
        ):
            action = CLOSE_CHANNEL
        if len(tags) > LATE_AT_ONCE and action != CLOSE_CHANNEL:
            tags = tags[:LATE_AT_ONCE]
            later = now + 1
        self._tell(watch, len(tags), age, action)
        if action == CLOSE_CHANNEL:
            _count(consumer, len(tags))
            channel.connection.fail(_timed_out(channel.number, watch.timeout), channel.number)
            return None
        self._give_back(consumer, tags, is_cancelled=action == CANCEL_CONSUMER)
        return later

    def _tell(self, watch: Watch, count: int, age: int, action: str) -> None:
        consumer, connection = watch.consumer, self.channel.connection
        connection.broker.note(
            "consumer_timeout",
            {
                "connection": connection.name,
                "channel": self.channel.number,
                "consumer": consumer.tag,
                "queue": consumer.queue.name,
                "vhost": consumer.queue.vhost_name,
                "count": count,
                "age": age,
                "timeout": watch.timeout,
                "action": action,
            },
        )

    def _give_back(self, consumer: Consumer, tags: list[int], *, is_cancelled: bool) -> None:
        channel, queue = self.channel, consumer.queue
        entries: list[Entry] = []
        for tag in tags:
            for _, some in channel.unacked.take(tag, multiple=False) or ():
                entries += some
        _count(consumer, len(entries))
        if is_cancelled:
            queue.remove_consumer(consumer)
        # Who is late gets nothing in its place until it has answered, if there are others.
        has_others = len(queue.consumers) > 1 and not queue.consumers.single_active
        keeps = bool(consumer.tag) and has_others and not is_cancelled
        free = self.late.add(tags, consumer if keeps else None)
        if keeps:
            queue.requeue(entries)
        else:
            channel.requeue([(consumer, entries)])
        queue.consumers.step_back(consumer)
        self._set_free(free)
        if is_cancelled:
            channel.cancelled(consumer)
            channel.connection.after_consumer_left(channel.vhost, consumer)

    def _set_free(self, places: Places) -> None:
        for consumer, count in places.items():
            self.channel.release_room(consumer, count)

    def settle(self, tag: int, *, multiple: bool) -> None:
        """The client settles what was late, which counts and changes nothing, but that who was
        late has room again."""
        count, places = self.late.take(tag, multiple=multiple)
        self.channel.connection.broker.counters.messages_settled_late += count
        self._set_free(places)


def timeouts_of(channel: Channel) -> DeliveryTimeouts:
    """What is timed on this channel; made when it is asked for."""
    if channel.timeouts is None:
        channel.timeouts = DeliveryTimeouts(channel)
    return channel.timeouts


def take(channel: Channel, tag: int, *, multiple: bool) -> list[Group]:
    """Settles one tag, or all up to it (all there are for tag 0). Raises PRECONDITION_FAILED for a
    tag that was never given out or is settled, but not for one that was late."""
    groups = channel.unacked.take(tag, multiple=multiple)
    timeouts = channel.timeouts
    if timeouts is not None and (multiple or groups is None):
        if groups is None and tag in timeouts.late:
            groups = channel.unacked.take_to(tag) if multiple else []
        if groups is not None:
            timeouts.settle(tag, multiple=multiple)
    if groups is None:
        raise unknown_delivery_tag(tag)
    return groups


def take_later(channel: Channel, tag: int, *, multiple: bool) -> list[int]:
    """The tags that `take` would settle, for a transaction. What was late is settled at once."""
    transaction, timeouts = channel.transaction, channel.timeouts
    assert transaction is not None
    is_late = timeouts is not None and tag in timeouts.late
    if is_late and multiple:
        tags = channel.unacked.tags_to(tag)
    else:
        tags = channel.unacked.tags(tag, multiple=multiple)
    tags = [known for known in tags if known not in transaction.settled]
    if not tags and not is_late and not (multiple and tag == 0):
        raise unknown_delivery_tag(tag)
    if timeouts is not None and (is_late or multiple):
        transaction.late.append((tag or channel.unacked.next_tag - 1, multiple))
    return tags


def unknown_delivery_tag(tag: int) -> AMQPError:
    """What settling a tag is answered with that was never given out, or is settled."""
    return AMQPError(ReplyCode.PRECONDITION_FAILED, f"unknown delivery tag {tag}")


def _action(consumer: Consumer) -> str:
    own = consumer.arguments.get("x-consumer-timeout-action")
    if own is not None:
        return str(own.value)
    queue = consumer.queue
    return queue.rules.consumer_timeout_action or queue.broker.consumer_timeout_action


def _count(consumer: Consumer, count: int) -> None:
    consumer.queue.consumers.timed_out += count
    consumer.queue.broker.counters.messages_timed_out += count


def _timed_out(channel: int, timeout: int) -> AMQPError:
    return AMQPError(
        ReplyCode.PRECONDITION_FAILED,
        f"delivery acknowledgement on channel {channel} timed out. Timeout value used: {timeout} "
        "ms. This timeout value can be configured, see consumers doc guide to learn more",
        0,
    )

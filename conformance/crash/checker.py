"""Compares what is in the queues after a restart with the client's record. No sockets here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from conformance.crash.bodies import Key
from conformance.crash.findings import Finding, Kind
from conformance.crash.record import Copy, Record, Seen, Stage, Transaction

ACK_WINDOW_S = 0.1
"""An ack that the broker had this long before it was killed must not be undone."""

STALL_S = 0.05
"""A confirm that was due for longer when the broker was killed shows that its disk was slow."""
STALL_MOST_S = 2.0
"""No disk excuses more than this."""

Look = Mapping[str, Sequence[Seen]]
"""What was found in each queue, in order; a queue that is missing has no entry."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is wrong; and how many acked messages came back, whether they may or not, and how long
    before the end the broker had the oldest of these acks, as far as that is known."""

    findings: list[Finding]
    acked_came_back: int
    commits_in_doubt: int
    oldest_ack_s: float = 0.0


def ack_window_s(record: Record, ended_at: float) -> float:
    """How long before the end an ack must have come to last.

    An ack cannot be durable before the messages that came at the same time are, and those the
    broker had not confirmed: on a disk that stalls the window grows by as long as it stalled.
    """
    waited_s = record.waited_s(ended_at)
    return ACK_WINDOW_S + (min(waited_s, STALL_MOST_S) if waited_s > STALL_S else 0.0)


def judge(record: Record, look: Look, ended_at: float, window_s: float = ACK_WINDOW_S) -> Verdict:
    """Judges a look at all queues after the broker ended at `ended_at` (monotonic).

    An ack that the broker had `window_s` before must last.
    """
    findings = list(record.findings)
    came_back = 0
    oldest_s = 0.0
    for queue, copies in record.queues.items():
        if queue not in look:
            findings.append(Finding(Kind.DEFINITION, f"{queue}: the queue is gone"))
        seen = look.get(queue, ())
        findings += _strangers(record, queue, seen)
        marks = {s.key: s.redelivered for s in seen if s.key is not None}
        deadline = ended_at - window_s
        for key, copy in copies.items():
            findings += _judge_copy(queue, key, copy, marks.get(key), deadline, ended_at)
            if copy.acked and copy.transaction is None and key in marks:
                came_back += 1
                oldest_s = max(oldest_s, _age_s(copy.settled_at, ended_at) or 0.0)
        findings += _disorder(record, queue, seen)
    doubtful = [t for t in record.transactions if t.stage is Stage.COMMITTING]
    for transaction in doubtful:
        findings += _tears(record, look, transaction)
    return Verdict(findings, came_back, len(doubtful), oldest_s)


def _age_s(moment: float | None, ended_at: float) -> float | None:
    return None if moment is None else ended_at - moment


def settle(record: Record, look: Look, now: float) -> None:
    """Takes what was found for the truth, so that the next run starts from it.

    `now` is when the look was taken: it has delivered every message once.
    """
    for queue in record.queues:
        seen = [s.key for s in look.get(queue, ()) if s.key is not None]
        copies = record.queues[queue]
        for copy in copies.values():
            copy.message.waits_since = None
        record.queues[queue] = {
            key: Copy(copies[key].message, known=True, delivered_at=now)
            for key in seen
            if key in copies
        }
        record.order[queue] = list(record.queues[queue])
    record.transactions.clear()
    record.findings.clear()


def _strangers(record: Record, queue: str, seen: Sequence[Seen]) -> Iterator[Finding]:
    """What is there and should not be, whatever became of what was sent."""
    copies = record.queues[queue]
    for each in seen:
        if each.key is None:
            yield Finding(Kind.CORRUPTED, f"{queue}: a body is damaged")
        elif each.key not in copies:
            sent = "acked long ago or sent elsewhere" if record.was_sent(each.key) else "never sent"
            yield Finding(Kind.INVENTED, f"{queue}: {each.key} was {sent}")
        else:
            message = copies[each.key].message
            intact = (each.exchange, each.routing_key) == (message.exchange, message.routing_key)
            if not intact or not each.properties_intact:
                text = f"{queue}: {each.key} has another exchange, routing key or properties"
                yield Finding(Kind.CORRUPTED, text)
    counts = Counter(each.key for each in seen if each.key is not None)
    for key, count in counts.items():
        if count > 1:
            yield Finding(Kind.DUPLICATED, f"{queue}: {key} is there {count} times")


def _judge_copy(
    queue: str, key: Key, copy: Copy, mark: bool | None, deadline: float, ended_at: float
) -> Iterator[Finding]:
    """One message that was sent to the queue; `mark` is None if it is not there."""
    present = mark is not None
    publisher = copy.message.transaction
    what = f"{queue}: {key}"
    if present and not copy.message.persistent:
        yield Finding(Kind.TRANSIENT, what)
    if present and publisher and publisher.stage in (Stage.OPEN, Stage.ROLLED_BACK):
        yield Finding(Kind.UNCOMMITTED, f"{what} was published in a transaction not committed")
    acking = copy.transaction
    if acking is not None:
        if acking.stage is Stage.COMMITTED and present:
            age_s = _age_s(acking.committed_at, ended_at)
            yield Finding(Kind.COMMIT_UNDONE, f"{what} was acked and committed", age_s)
        elif acking.stage in (Stage.OPEN, Stage.ROLLED_BACK) and copy.promised and not present:
            yield Finding(Kind.UNCOMMITTED, f"{what} is gone by an ack that was not committed")
    elif not copy.acked:
        if copy.promised and not present:
            yield Finding(Kind.LOST, what)
        delivered = copy.delivered_at
        if mark is False and delivered is not None and delivered < deadline:
            ago = f"{deadline - delivered:.3f} s and the window before the end"
            yield Finding(Kind.UNMARKED, f"{what} was delivered {ago}")
    elif present:
        if copy.settled_at is not None and copy.settled_at < deadline:
            ago = f"{deadline - copy.settled_at:.3f} s and the window before the end"
            age_s = ended_at - copy.settled_at
            yield Finding(Kind.ACK_UNDONE, f"{what} was acked {ago}", age_s)
        if mark is False:
            yield Finding(Kind.UNMARKED, f"{what} was acked just before the end")


def _disorder(record: Record, queue: str, seen: Sequence[Seen]) -> Iterator[Finding]:
    copies = record.queues[queue]
    keys = [s.key for s in seen if s.key is not None and s.key in copies]
    last: dict[tuple[int, int], int] = {}
    for publisher, number in keys:
        lane = (publisher, copies[publisher, number].message.priority)
        if queue not in record.prioritised:
            lane = (publisher, 0)
        before = last.get(lane, 0)
        if number < before:
            text = f"{queue}: {(publisher, number)} is behind number {before}"
            yield Finding(Kind.DISORDERED, text)
        last[lane] = max(number, before)
    if queue in record.prioritised:
        return
    places = {key: place for place, key in enumerate(record.order[queue])}
    old = [index for index, key in enumerate(keys) if key in places]
    highest = -1
    for key in keys[: old[-1] + 1] if old else ():
        # What was there at the last look stays in front of what came later, in the same order.
        if key not in places:
            yield Finding(Kind.DISORDERED, f"{queue}: {key} is newer than what is behind it")
        elif places[key] < highest:
            yield Finding(Kind.DISORDERED, f"{queue}: {key} was farther in front before")
        highest = max(highest, places.get(key, -1))


def _tears(record: Record, look: Look, transaction: Transaction) -> Iterator[Finding]:
    """A commit that was not answered has either happened or not."""
    there = {queue: {s.key for s in seen} for queue, seen in look.items()}
    done: list[str] = []
    undone: list[str] = []
    for queue, key in transaction.published:
        copy = record.queues[queue][key]
        if key in there.get(queue, ()):
            done.append(f"{queue} has {key}")
        elif copy.message.persistent and not copy.acked:
            undone.append(f"{queue} has no {key}")
    for queue, key in transaction.acked:
        if not record.queues[queue][key].promised:
            continue
        if key in there.get(queue, ()):
            undone.append(f"{key} is unacked in {queue}")
        else:
            done.append(f"{key} is acked in {queue}")
    if done and undone:
        text = f"{len(done)} parts done, {len(undone)} not: {done[0]}, but {undone[0]}"
        yield Finding(Kind.TORN, text)

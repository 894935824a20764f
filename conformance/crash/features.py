"""Messages that are retried, delayed or expire: what is known of each, and what must become of it.

They take roads of their own: a queue where some are poison and come back until they are set aside,
an exchange that delays, queues where they expire. Each ends in one place, in its time.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from conformance.channel import Channel
from conformance.crash.findings import Finding, Kind
from conformance.methods import Method

RETRY, DUE, EXPIRING, LASTLY = "f.retry", "f.due", "f.expiring", "f.lastly"
"""Queues: where messages come back, are due, expire one by one, and expire without being lost on
their way."""
LATER = "f.later"
LETTERS = {RETRY: "f.poison", EXPIRING: "f.expired", LASTLY: "f.last"}
REASONS = {RETRY: "delivery_limit", EXPIRING: "expired", LASTLY: "expired"}
ROADS = (RETRY, DUE, EXPIRING, LASTLY)
DELIVERY_LIMIT = 3
RETRY_S = 0.05
"""How much longer each wait is than the one before."""
LIFE_S = 0.3
"""How long messages live in LASTLY."""
EARLY_S = 0.05
"""The broker's clock is read once for what comes together."""
LATE_S = 5.0
"""After so long beyond its time a message is taken for lost: brokers are killed all the time."""


def declare(channel: Channel) -> None:
    """Declares everything; raises ConformanceError if something is there and different."""
    limited = {
        "x-delivery-limit": DELIVERY_LIMIT,
        "x-delayed-retry-type": "all",
        "x-delayed-retry-min": int(RETRY_S * 1000),
    }
    kept = {
        "x-message-ttl": int(LIFE_S * 1000),
        "x-max-length": 1_000_000,
        "x-overflow": "reject-publish",
        "x-dead-letter-strategy": "at-least-once",
    }
    for queue, letters in LETTERS.items():
        more: dict[str, Any] = {RETRY: limited, LASTLY: kept}.get(queue, {})
        ways = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": letters}
        channel.declare_queue(letters, durable=True)
        channel.declare_queue(queue, durable=True, arguments=ways | more)
    channel.declare_queue(DUE, durable=True)
    delayed = {"x-delayed-type": "direct"}
    channel.declare_exchange(LATER, "x-delayed-message", durable=True, arguments=delayed)
    channel.bind(DUE, LATER, DUE)


@dataclass(slots=True)
class Parcel:
    """A message on its road. Times are seconds since 1970, as the broker's are across restarts.
    `wait_s` is for how long it is delayed, or lives; `ends` is how often the broker ended since it
    was sent."""

    number: int
    road: str
    sent_at: float
    wait_s: float = 0.0
    is_poison: bool = False
    confirmed_at: float | None = None
    deliveries: int = 0
    ends: int = 0
    # When it was returned last, and acked.
    returned_at: float | None = None
    acked_at: float | None = None
    # Whether it has come to its end; whether that may be undone by the end of the broker.
    is_over: bool = False
    may_come_back: bool = False


class Features:
    """All parcels of one data directory."""

    def __init__(self) -> None:
        self.parcels: dict[int, Parcel] = {}
        self.findings: list[Finding] = []

    def note(self, kind: Kind, text: str) -> None:
        """Something is wrong."""
        self.findings.append(Finding(kind, text))

    def send(self, road: str, wait_s: float = 0.0, *, is_poison: bool = False) -> Parcel:
        """A message that is about to be sent."""
        number = len(self.parcels) + 1
        parcel = Parcel(number, road, time.time(), wait_s, is_poison)
        self.parcels[number] = parcel
        return parcel

    def delivered(self, queue: str, method: Method, asked_at: float) -> Parcel | None:
        """A message came from one of the roads, after it was asked for then."""
        parcel = self.parcels.get(int(method.body))
        what = f"{queue}: {parcel or method.body!r}"
        if parcel is None or parcel.road != queue:
            self.note(Kind.INVENTED, f"{what} was never sent there")
            return None
        if parcel.is_over and not parcel.may_come_back:
            self.note(Kind.ACK_UNDONE, f"{what} was delivered again")
        parcel.is_over = parcel.may_come_back = False
        if queue == RETRY:
            self._judge_retry(parcel, method)
        elif queue == DUE and time.time() < parcel.sent_at + parcel.wait_s - EARLY_S:
            self.note(Kind.EARLY, f"{what} came at {time.time():.3f}")
        elif parcel.confirmed_at is not None and queue == EXPIRING:
            late_s = asked_at - parcel.confirmed_at - parcel.wait_s
            if late_s > EARLY_S:
                self.note(Kind.EXPIRED, f"{what} was asked for {late_s:.3f} s after its time")
        parcel.deliveries += 1
        return parcel

    def _judge_retry(self, parcel: Parcel, method: Method) -> None:
        count = method.message.headers.get("x-delivery-count", 0)
        least = max(0, parcel.deliveries - parcel.ends)
        # Who has seen what is written ahead of it: one more may be counted after a crash.
        most = parcel.deliveries + (1 if parcel.ends else 0)
        if not least <= count <= min(most, DELIVERY_LIMIT):
            self.note(Kind.DEATHS, f"{parcel} says that it came back {count} times")
        waited_s = time.time() - (parcel.returned_at or 0.0)
        if waited_s < RETRY_S * min(count, parcel.deliveries) - EARLY_S / 2:
            self.note(Kind.EARLY, f"{parcel} waited for {waited_s:.3f} s, after {count} returns")

    def letter(self, queue: str, method: Method) -> None:
        """A message has come to where the dead letters of a road go: for good."""
        parcel = self.parcels.get(int(method.body))
        if parcel is None or LETTERS.get(parcel.road) != queue:
            self.note(Kind.INVENTED, f"{queue}: {parcel or method.body!r} was never sent there")
            return
        if parcel.is_over and not parcel.may_come_back:
            self.note(Kind.DUPLICATED, f"{queue}: {parcel} is there and was settled")
        parcel.is_over, parcel.may_come_back = True, False
        deaths = method.message.headers.get("x-death", [{}])
        found = [(death.get("queue"), death.get("reason"), death.get("count")) for death in deaths]
        if found != [(parcel.road, REASONS[parcel.road], 1)]:
            self.note(Kind.DEATHS, f"{queue}: {parcel} died so: {found}")
        if parcel.road == RETRY:
            tries = DELIVERY_LIMIT + 1
            one_less = 1 if parcel.ends else 0
            if not tries - one_less <= parcel.deliveries <= tries + parcel.ends:
                self.note(Kind.DEATHS, f"{queue}: {parcel} was set aside too early, or too late")
        elif time.time() < parcel.sent_at + parcel.wait_s - EARLY_S:
            self.note(Kind.EARLY, f"{queue}: {parcel} expired at {time.time():.3f}")

    def ended(self, ended_at: float, window_s: float) -> None:
        """The broker ended then (monotonic); what was settled in this time before may be undone."""
        since = time.time() - (time.monotonic() - ended_at) - window_s
        for parcel in self.parcels.values():
            if not parcel.is_over or (parcel.acked_at or 0.0) > since:
                parcel.ends += 1
                parcel.may_come_back = parcel.is_over

    def look(self, channel: Channel, roads: tuple[str, ...]) -> int:
        """Takes what has come to its end, and misses what should have. Returns how many came."""
        began = time.time()
        count = 0
        for road in roads:
            queue = LETTERS.get(road, road)
            if not self._is_there(channel, queue):
                continue
            while (method := channel.get(queue)) is not None:
                count += 1
                if queue == DUE:
                    parcel = self.delivered(DUE, method, time.time())
                    if parcel is not None:
                        parcel.is_over = True
                else:
                    self.letter(queue, method)
        for parcel in self.parcels.values():
            is_late = parcel.sent_at + parcel.wait_s + LATE_S < began
            if parcel.road != RETRY and is_late and self._is_missing(parcel):
                self.note(Kind.LOST, f"{parcel} did not come")
                parcel.is_over = True
        return count

    def _is_there(self, channel: Channel, queue: str) -> bool:
        channel.send("queue.declare", queue=queue, passive=True)
        answer = channel.expect("queue.declare-ok", "channel.close")
        if answer.name == "queue.declare-ok":
            return True
        channel.send("channel.close-ok")
        channel.reopen()
        self.note(Kind.DEFINITION, f"{queue}: the queue is gone")
        return False

    def _is_missing(self, parcel: Parcel) -> bool:
        return parcel.confirmed_at is not None and not parcel.is_over

    def finish(self, channel: Channel, roads: tuple[str, ...]) -> int:
        """Takes all there is until nothing is missing, or it is too late. Returns how many came
        where they end."""
        count = 0
        until = max((p.sent_at + p.wait_s for p in self.parcels.values()), default=0.0)
        until = max(until, time.time()) + LATE_S
        missing = list(self.parcels.values())
        while missing and time.time() < until:
            for road in (RETRY, EXPIRING):
                self.take(channel, road)
            count += self.look(channel, roads)
            missing = [parcel for parcel in missing if self._is_missing(parcel)]
            time.sleep(0.01)
        for parcel in missing:
            if self._is_missing(parcel):
                self.note(Kind.LOST, f"{parcel} is nowhere")
        return count

    def take(self, channel: Channel, road: str) -> bool:
        """Takes a message of a road, acks it, or gives it back if it is poison. Whether there was
        one."""
        asked_at = time.time()
        method = channel.get(road, no_ack=False)
        if method is None:
            return False
        parcel = self.delivered(road, method, asked_at)
        tag = method["delivery_tag"]
        if parcel is not None and parcel.is_poison:
            parcel.returned_at = time.time()
            channel.send("basic.nack", delivery_tag=tag, requeue=True)
            return True
        if parcel is not None:
            parcel.is_over = True
            # Until the broker has it, which is known to be so later.
            parcel.acked_at = float("inf")
        channel.send("basic.ack", delivery_tag=tag)
        channel.settle(road)
        if parcel is not None:
            parcel.acked_at = time.time()
        return True

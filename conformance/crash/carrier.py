"""A client that sends messages along the roads of `features` and takes some of them."""

from __future__ import annotations

import time

from conformance.channel import Channel
from conformance.client import Connection
from conformance.crash.features import DUE, EXPIRING, LASTLY, LATER, RETRY, ROADS, Features, Parcel
from conformance.crash.worker import Worker

UNDERWAY_MOST = 400
"""Messages on all roads above which no more are sent."""


class Carrier(Worker):
    """Does one thing after the other, and is told of each that it is done."""

    features: Features

    def work(self, connection: Connection) -> None:
        channel = connection.channel()
        channel.call("confirm.select")
        self._tag = 0
        underway = sum(not parcel.is_over for parcel in self.features.parcels.values())
        while not self.ending.is_set():
            if underway < UNDERWAY_MOST and self.chance.random() < 0.5:
                self._send(channel, self.chance.choice(ROADS))
                underway += 1
            else:
                taken = self.features.take(channel, self.chance.choice([RETRY, RETRY, DUE]))
                taken |= self.features.take(channel, EXPIRING)
                underway -= taken
            if self.features.findings:
                self.record.findings += self.features.findings
                self.features.findings.clear()

    def _send(self, channel: Channel, road: str) -> None:
        chance = self.chance
        properties: dict[str, object] = {"delivery_mode": 2}
        if road == RETRY:
            parcel = self.features.send(road, is_poison=chance.random() < 0.6)
        elif road == DUE:
            parcel = self.features.send(road, chance.choice([0.02, 0.2, 1.0, 3.0]))
            properties["headers"] = {"x-delay": round(parcel.wait_s * 1000)}
        elif road == EXPIRING:
            parcel = self.features.send(road, chance.choice([0.05, 0.3, 1.0, 3.0]))
            properties["expiration"] = str(round(parcel.wait_s * 1000))
        else:
            parcel = self.features.send(LASTLY, 0.3)
        exchange = LATER if road == DUE else ""
        self._confirm(channel, parcel, exchange, properties)

    def _confirm(
        self, channel: Channel, parcel: Parcel, exchange: str, properties: dict[str, object]
    ) -> None:
        self._tag += 1
        body = b"%d" % parcel.number
        channel.publish(body, exchange, parcel.road, properties=properties)
        channel.expect("basic.ack", delivery_tag=self._tag)
        parcel.confirmed_at = time.time()
        self.counts["on roads"] += 1

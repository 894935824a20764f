"""What the crash harness must find of retries, delays, expiry and dead letters, and what it must
let pass."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from conformance.crash.features import DUE, EXPIRING, LASTLY, LETTERS, RETRY, Features, Parcel
from conformance.crash.findings import Kind
from conformance.methods import Content, Method, encode_header


def came(number: int, **headers: Any) -> Method:
    """A message with these headers, named as they are with underscores."""
    table = {name.replace("_", "-"): value for name, value in headers.items()}
    body = b"%d" % number
    header = encode_header(len(body), {"headers": table} if table else {})
    return Method("basic.get-ok", {"delivery_tag": 1}, Content(header, body))


def death(queue: str, reason: str, count: int = 1) -> list[dict[str, Any]]:
    return [{"queue": queue, "reason": reason, "count": count}]


def tried(parcel: Parcel, times: int) -> None:
    parcel.deliveries = times
    parcel.returned_at = time.time() - 10


POISON = death(RETRY, "delivery_limit")
Play = Callable[[Features], object]


def retried(features: Features, deliveries: int, count: int, *, ends: int = 0) -> None:
    parcel = features.send(RETRY)
    tried(parcel, deliveries)
    parcel.ends = ends
    features.delivered(RETRY, came(1, x_delivery_count=count), time.time())


def set_aside(features: Features, deliveries: int, *, ends: int = 0, **headers: Any) -> None:
    parcel = features.send(RETRY)
    tried(parcel, deliveries)
    parcel.ends = ends
    features.letter(LETTERS[RETRY], came(1, **({"x_death": POISON} | headers)))


def asked_for(features: Features, late_s: float) -> None:
    parcel = features.send(EXPIRING, 1.0)
    parcel.confirmed_at = time.time()
    features.delivered(EXPIRING, came(1), parcel.confirmed_at + 1.0 + late_s)


def twice(features: Features, *, may_come_back: bool) -> None:
    parcel = features.send(DUE)
    parcel.is_over, parcel.may_come_back = True, may_come_back
    features.delivered(DUE, came(1), time.time())


def died_in_two_places(features: Features) -> None:
    features.send(LASTLY)
    for _ in range(2):
        features.letter(LETTERS[LASTLY], came(1, x_death=death(LASTLY, "expired")))


def returned_just_now(features: Features) -> None:
    parcel = features.send(RETRY)
    parcel.deliveries, parcel.returned_at = 3, time.time()
    features.delivered(RETRY, came(1, x_delivery_count=3), time.time())


@pytest.mark.parametrize(
    ("play", "kind"),
    [
        (lambda f: retried(f, 2, 2), None),
        (lambda f: retried(f, 2, 1), Kind.DEATHS),
        (lambda f: retried(f, 2, 3), Kind.DEATHS),
        (lambda f: retried(f, 2, 1, ends=1), None),
        (lambda f: retried(f, 0, 1, ends=1), None),
        (lambda f: retried(f, 2, 0, ends=1), Kind.DEATHS),
        (lambda f: retried(f, 6, 4, ends=3), Kind.DEATHS),
        (returned_just_now, Kind.EARLY),
        (lambda f: set_aside(f, 4), None),
        (lambda f: set_aside(f, 3), Kind.DEATHS),
        (lambda f: set_aside(f, 5), Kind.DEATHS),
        (lambda f: set_aside(f, 3, ends=1), None),
        (lambda f: set_aside(f, 5, ends=1), None),
        (lambda f: set_aside(f, 4, x_death=death(RETRY, "rejected")), Kind.DEATHS),
        (lambda f: set_aside(f, 4, x_death=death(RETRY, "delivery_limit", 2)), Kind.DEATHS),
        (lambda f: asked_for(f, -0.5), None),
        (lambda f: asked_for(f, 0.5), Kind.EXPIRED),
        (lambda f: twice(f, may_come_back=True), None),
        (lambda f: twice(f, may_come_back=False), Kind.ACK_UNDONE),
        (died_in_two_places, Kind.DUPLICATED),
        (lambda f: f.delivered(DUE, came(7), 0.0), Kind.INVENTED),
        (lambda f: f.delivered(DUE, came(f.send(DUE, 9.0).number), 0.0), Kind.EARLY),
    ],
)
def test_judgement(play: Play, kind: Kind | None) -> None:
    features = Features()
    play(features)
    assert [finding.kind for finding in features.findings] == ([kind] if kind else [])


def test_what_was_settled_just_before_the_end_may_come_back() -> None:
    features = Features()
    for ago_s in (0.05, 5.0):
        parcel = features.send(DUE)
        parcel.is_over, parcel.acked_at = True, time.time() - ago_s
    features.ended(time.monotonic(), 0.1)
    assert [parcel.may_come_back for parcel in features.parcels.values()] == [True, False]

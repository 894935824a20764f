"""connection.tune, what may be answered to it, and heartbeats."""

from __future__ import annotations

import time

from conformance.client import HEARTBEAT, Connection
from conformance.failure import ConformanceError, check, check_equal
from conformance.registry import deviation, scenario
from conformance.session import Session

_SILENT_ON_TUNE = deviation(
    "rabbitmq",
    "writes the reason to its log only and closes the socket after 3 s without a frame;"
    " a client that is told can say what to change",
)


def _authenticated(s: Session) -> Connection:
    connection = s.dial()
    connection.start()
    connection.start_ok()
    return connection


def _refused(s: Session, answer: dict[str, int], explanation: str) -> None:
    connection = _authenticated(s)
    connection.tune_ok(**answer)
    if s.deviates:
        connection.expect_end(8)
    else:
        connection.expect_close(530, f"NOT_ALLOWED - {explanation}", "connection.tune-ok")


@scenario("negotiation.tune.offer", covers=["rule:tune-offer"])
def tune_offers_the_usual_limits(s: Session) -> None:
    _authenticated(s).channel0.expect(
        "connection.tune", channel_max=2047, frame_max=131072, heartbeat=60
    )


@scenario("negotiation.tune.lower", covers=["rule:tune-lower"])
def lower_limits_are_accepted(s: Session) -> None:
    connection = s.connect(channel_max=1, frame_max=4096, heartbeat_s=10)
    connection.channel()
    s.connect(channel_max=2047, frame_max=131072)


@scenario(
    "negotiation.tune.frame-max-too-low",
    covers=["error:tune-frame-max-too-low"],
    deviations=[_SILENT_ON_TUNE],
    slow=True,
)
def frame_max_below_the_minimum_is_refused(s: Session) -> None:
    text = "negotiated frame_max = 4095 is lower than the minimum allowed value (4096)"
    _refused(s, {"frame_max": 4095}, text)


@scenario(
    "negotiation.tune.frame-max-too-high",
    covers=["error:tune-frame-max-too-high"],
    deviations=[_SILENT_ON_TUNE],
    slow=True,
)
def frame_max_above_the_offer_is_refused(s: Session) -> None:
    text = "negotiated frame_max = 131073 is higher than the maximum allowed value (131072)"
    _refused(s, {"frame_max": 131073}, text)


@scenario(
    "negotiation.tune.frame-max-unlimited",
    covers=["error:tune-frame-max-unlimited"],
    deviations=[_SILENT_ON_TUNE],
    slow=True,
)
def frame_max_without_limit_is_refused(s: Session) -> None:
    text = "negotiated frame_max = 0 is higher than the maximum allowed value (131072)"
    _refused(s, {"frame_max": 0}, text)


@scenario(
    "negotiation.tune.channel-max-too-high",
    covers=["error:tune-channel-max-too-high"],
    deviations=[_SILENT_ON_TUNE],
    slow=True,
)
def channel_max_above_the_offer_is_refused(s: Session) -> None:
    text = "negotiated channel_max = 2048 is higher than the maximum allowed value (2047)"
    _refused(s, {"channel_max": 2048}, text)


@scenario(
    "negotiation.tune.channel-max-unlimited",
    covers=["error:tune-channel-max-unlimited"],
    deviations=[_SILENT_ON_TUNE],
    slow=True,
)
def channel_max_without_limit_is_refused(s: Session) -> None:
    text = "negotiated channel_max = 0 (no limit) is higher than the maximum allowed value (2047)"
    _refused(s, {"channel_max": 0}, text)


@scenario("negotiation.frame-max.kept", covers=["rule:frame-max-kept", "rule:body-many-frames"])
def bodies_are_cut_to_the_frame_max_of_each_connection(s: Session) -> None:
    publisher = s.channel()
    queue = s.queue(publisher)
    body = bytes(range(256)) * 40
    publisher.publish(body, routing_key=queue)
    small = s.connect(frame_max=4096).channel()
    small.consume(queue, no_ack=True)
    delivery = small.expect_delivery(body)
    check_equal(delivery.message.body_frames, [4088, 4088, 2064], "body frames")
    check_equal(max(delivery.message.body_frames) + 8, 4096, "largest frame")


@scenario("negotiation.frame-max.smaller-than-text", covers=["rule:frame-max-kept"])
def a_small_frame_max_does_not_cut_headers_short(s: Session) -> None:
    publisher = s.channel()
    queue = s.queue(publisher)
    headers = {"long": "x" * 3000}
    publisher.publish(b"body", routing_key=queue, properties={"headers": headers})
    small = s.connect(frame_max=4096).channel()
    found = small.get(queue)
    check(found is not None, "queue is empty")
    if found is not None:
        check_equal(found.message.headers, headers, "headers")


@scenario("negotiation.heartbeat.any-value", covers=["rule:heartbeat-any-value"])
def a_longer_heartbeat_than_offered_is_accepted(s: Session) -> None:
    for heartbeat_s in (61, 3600, 65535):
        s.connect(heartbeat_s=heartbeat_s).channel()


@scenario("negotiation.heartbeat.sent", covers=["rule:heartbeat-sent"], slow=True)
def an_idle_broker_sends_heartbeats_at_half_the_interval(s: Session) -> None:
    connection = s.connect(heartbeat_s=1)
    started = time.monotonic()
    for _ in range(3):
        frame = connection.receive_frame()
        check_equal((frame.kind, frame.channel, frame.payload), (HEARTBEAT, 0, b""), "frame")
        connection.send_heartbeat()
    waited_s = time.monotonic() - started
    check(waited_s < 2.6, f"three heartbeats took {waited_s:.1f} s at an interval of 1 s")
    check(waited_s > 0.9, f"three heartbeats within {waited_s:.1f} s at an interval of 1 s")


@scenario("negotiation.heartbeat.missed", covers=["error:heartbeat-missed"], slow=True)
def a_client_that_is_silent_loses_its_socket_without_a_frame(s: Session) -> None:
    connection = s.connect(heartbeat_s=1)
    channel = connection.channel()
    queue = s.queue(channel, exclusive=True)
    started = time.monotonic()
    connection.expect_end(8)
    waited_s = time.monotonic() - started
    check(1.5 < waited_s < 4.5, f"broker gave up after {waited_s:.1f} s at an interval of 1 s")
    channel = s.channel()
    channel.send("queue.declare", queue=queue, passive=True)
    channel.expect_close(404, f"NOT_FOUND - no queue '{queue}' in vhost '/'", "queue.declare")


@scenario(
    "negotiation.heartbeat.any-traffic",
    covers=["rule:heartbeat-traffic-counts", "rule:heartbeat-zero"],
    slow=True,
)
def octets_of_any_kind_are_a_sign_of_life(s: Session) -> None:
    beating, working, dribbling, without = (
        s.connect(heartbeat_s=seconds) for seconds in (1, 1, 1, 0)
    )
    channel = working.channel()
    body = b"x" * 100
    queue = s.queue(channel)
    dribbling.channel()
    # A method that takes longer to arrive than any heartbeat may.
    slow_octets = b"\x01\x00\x01\x00\x00\x00\x05\x00\x14\x00\x14\x01\xce"
    for octet in slow_octets:
        beating.send_heartbeat()
        channel.publish(body, routing_key=queue)
        dribbling.send_raw(bytes([octet]))
        time.sleep(0.35)
    channel.settle(queue)
    frame = dribbling.frame_for(1, "channel.flow-ok")
    check_equal(frame.payload[:4], b"\x00\x14\x00\x15", "method")
    beating.channel()
    without.channel()
    try:
        frame = without.receive_frame(0)
    except ConformanceError:
        return
    raise ConformanceError(f"heartbeat 0, yet the broker sent {frame}")

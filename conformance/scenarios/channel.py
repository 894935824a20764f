"""channel.open, flow, close, and what follows an error on a channel."""

from __future__ import annotations

from conformance.channel import Channel
from conformance.failure import check, check_equal, eventually
from conformance.registry import deviation, scenario
from conformance.session import Session


@scenario(
    "channel.open",
    covers=["method:channel.open", "method:channel.open-ok", "rule:tx-always-answers"],
)
def channels_of_any_number_open(s: Session) -> None:
    connection = s.connect()
    for number in (1, 2, 7, 2047):
        channel = Channel(connection, number)
        channel.send("channel.open", out_of_band="ignored")
        channel.expect("channel.open-ok", channel_id="")
        channel.call("channel.flow", active=True)


@scenario("channel.open.twice", covers=["error:channel-opened-twice"])
def a_second_open_of_a_channel_is_an_error(s: Session) -> None:
    connection = s.connect()
    connection.channel().send("channel.open")
    connection.expect_close(504, "CHANNEL_ERROR - second 'channel.open' seen", "channel.open")


@scenario("channel.not-open", covers=["error:channel-not-open"])
def methods_on_a_channel_that_is_not_open_are_an_error(s: Session) -> None:
    for name in ("basic.qos", "queue.declare", "channel.close", "channel.flow", "tx.select"):
        connection = s.connect()
        Channel(connection, 5).send(name)
        connection.expect_close(504, "CHANNEL_ERROR - expected 'channel.open'", name)


@scenario("channel.close-ok.not-open", covers=["error:channel-not-open"])
def close_ok_on_a_channel_that_is_not_open_is_an_error(s: Session) -> None:
    connection = s.connect()
    Channel(connection, 5).send("channel.close-ok")
    connection.expect_close(504, "CHANNEL_ERROR - expected 'channel.open'", "channel.close-ok")


@scenario(
    "channel.close",
    covers=["method:channel.close", "method:channel.close-ok.server", "error:channel-not-open"],
)
def a_closed_number_can_be_opened_again(s: Session) -> None:
    connection = s.connect()
    channel = connection.channel()
    for _ in range(3):
        channel.call("channel.close", reply_code=200, reply_text="done")
        channel.reopen()
    channel.call("channel.close")
    channel.send("queue.declare", queue=s.name("q"))
    connection.expect_close(504, "CHANNEL_ERROR - expected 'channel.open'", "queue.declare")


@scenario("channel.close.forgets", covers=["method:channel.close"])
def a_channel_that_was_opened_again_is_a_new_one(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    channel.call("confirm.select")
    channel.publish(b"1", routing_key=queue)
    check_equal(channel.confirms({1}), ({1}, set()), "confirms")
    channel.call("basic.qos", prefetch_count=1)
    channel.consume(queue, "tag")
    channel.expect_delivery(b"1", delivery_tag=1)
    channel.call("channel.close")
    channel.reopen()
    channel.publish(b"2", routing_key=queue)
    channel.expect_silence(queue)
    channel.consume(queue, "tag")
    channel.expect_delivery(b"1", delivery_tag=1, redelivered=True, consumer_tag="tag")
    channel.expect_delivery(b"2", delivery_tag=2, redelivered=False)


@scenario("channel.flow", covers=["method:channel.flow", "method:channel.flow-ok"])
def flow_that_is_active_is_answered(s: Session) -> None:
    channel = s.channel()
    channel.send("channel.flow", active=True)
    channel.expect("channel.flow-ok", active=True)


@scenario("channel.access-request", covers=["method:access.request", "method:access.request-ok"])
def access_of_amqp_0_8_is_granted_to_everybody(s: Session) -> None:
    channel = s.channel()
    channel.send("access.request", realm="/data", active=True, write=True, read=True)
    channel.expect("access.request-ok", ticket=1)


@scenario("channel.flow.inactive", covers=["error:flow-inactive"])
def flow_that_is_not_active_is_not_implemented(s: Session) -> None:
    connection = s.connect()
    connection.channel().send("channel.flow", active=False)
    connection.expect_close(540, "NOT_IMPLEMENTED - active=false", "channel.flow")


@scenario(
    "channel.error.dropped-afterwards",
    covers=[
        "rule:after-channel-close-dropped",
        "method:channel.close.server",
        "method:channel.close-ok",
    ],
)
def after_the_brokers_close_methods_and_content_are_dropped(s: Session) -> None:
    channel = s.channel()
    missing, never = s.name("missing"), s.name("never")
    channel.send("queue.declare", queue=missing, passive=True)
    channel.expect_closing(
        "channel.close", 404, f"NOT_FOUND - no queue '{missing}' in vhost '/'", "queue.declare"
    )
    channel.send("queue.declare", queue=never)
    channel.send("basic.qos", prefetch_size=1)
    channel.publish(b"x", "no-such-exchange", "key")
    channel.send("channel.close-ok")
    channel.reopen()
    channel.send("queue.declare", queue=never, passive=True)
    channel.expect_close(404, f"NOT_FOUND - no queue '{never}' in vhost '/'", "queue.declare")


@scenario("channel.error.close-crosses", covers=["rule:after-channel-close-close-answered"])
def a_close_that_crosses_the_brokers_is_answered(s: Session) -> None:
    channel = s.channel()
    missing = s.name("missing")
    channel.send("queue.declare", queue=missing, passive=True)
    channel.send("channel.close", reply_code=200)
    channel.expect("channel.close", reply_code=404)
    channel.expect("channel.close-ok")
    channel.send("channel.close-ok")
    channel.reopen()


@scenario("channel.error.publish-in-flight", covers=["rule:after-channel-close-dropped"])
def publishes_in_flight_after_an_error_are_dropped(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    channel.publish(b"1", routing_key=queue)
    channel.publish(b"2", s.name("missing"), queue)
    for body in (b"3", b"4"):
        channel.publish(body, routing_key=queue)
    channel.expect_close(404, None, "basic.publish")
    channel.reopen()
    check_equal(channel.get_all(queue), [b"1"], "bodies")


@scenario("channel.error.others-go-on", covers=["method:channel.close.server"])
def an_error_of_one_channel_leaves_the_others_alone(s: Session) -> None:
    connection = s.connect()
    failing, working = connection.channel(), connection.channel()
    queue = s.queue(working)
    working.consume(queue, no_ack=True)
    failing.send("queue.declare", queue=s.name("missing"), passive=True)
    failing.expect_close(404, None, "queue.declare")
    failing.reopen().publish(b"1", routing_key=queue)
    working.expect_delivery(b"1")


@scenario("channel.error.releases", covers=["rule:channel-error-releases"])
def unacked_messages_and_consumers_go_with_the_brokers_close(s: Session) -> None:
    other = s.channel()
    queue = s.queue(other)
    channel = s.channel()
    channel.consume(queue)
    other.publish(b"1", routing_key=queue)
    channel.expect_delivery(b"1")
    channel.send("basic.ack", delivery_tag=99)
    channel.expect_closing(
        "channel.close", 406, "PRECONDITION_FAILED - unknown delivery tag 99", "basic.ack"
    )
    # The client has not answered yet: the broker lets go when it sends, not when it hears.
    eventually(lambda: other.consumer_count(queue) == 0, "consumer goes with its channel")
    found = other.get(queue)
    check(found is not None and found["redelivered"], f"got {found}, not the message again")
    channel.send("channel.close-ok")
    channel.reopen()


@scenario("channel.error.text-cut", covers=["rule:error-text-cut"])
def reply_texts_are_cut_to_255_octets(s: Session) -> None:
    channel = s.channel()
    queue = s.name("q") + "x" * 180
    channel.send("queue.declare", queue=queue + "y" * (255 - len(queue)), passive=True)
    text = f"NOT_FOUND - no queue '{queue}{'y' * (255 - len(queue))}' in vhost '/'"
    channel.expect_close(404, text[:252] + "...", "queue.declare")


@scenario("channel.error.soft-on-channel-0", covers=["rule:soft-error-on-channel-0"])
def a_method_of_a_channel_on_channel_0_closes_the_connection(s: Session) -> None:
    connection = s.connect()
    connection.channel0.send("queue.declare", queue=s.name("missing"), passive=True)
    text = "CHANNEL_ERROR - unexpected method in connection state running"
    connection.expect_close(504, text, "queue.declare")


@scenario(
    "channel.close-ok.unasked",
    covers=["error:unimplemented-method"],
)
def close_ok_that_nobody_asked_for_is_refused(s: Session) -> None:
    connection = s.connect()
    connection.channel().send("channel.close-ok")
    connection.expect_close(503, "COMMAND_INVALID - unimplemented method", "channel.close-ok")


@scenario(
    "channel.open.number-above-max",
    covers=["error:channel-not-open"],
    deviations=[
        deviation(
            "rabbitmq", "creates the channel and waits: only the count of channels is limited"
        )
    ],
)
def a_number_above_channel_max_is_an_error(s: Session) -> None:
    connection = s.connect(channel_max=3)
    channel = Channel(connection, 4)
    channel.send("channel.open")
    if s.deviates:
        channel.expect("channel.open-ok")
    else:
        text = "CHANNEL_ERROR - channel number 4 is above the negotiated channel_max (3)"
        connection.expect_close(504, text, "channel.open")

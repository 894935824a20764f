"""Where Leveret leaves RabbitMQ's rules by queue type behind, and which types it knows."""

from typing import Any

from conformance.channel import Channel
from conformance.failure import check_equal
from conformance.registry import deviation, scenario
from conformance.session import Session
from conformance.texts import cut, invalid_argument

QUORUM = {"x-queue-type": "quorum"}
STREAM = {"x-queue-type": "stream"}


@scenario(
    "queue-types.quorum-properties",
    covers=["rule:quorum-queue-accepted"],
    deviations=[
        deviation(
            "leveret",
            "a quorum queue may be exclusive, auto-delete, transient or named by the server: its"
            " type sets no rules of its own",
        )
    ],
)
def quorum_queue_must_be_durable_shared_and_named(s: Session) -> None:
    channel = s.channel()
    for flags, named in (
        ({}, "non-durable"),
        ({"durable": True, "auto_delete": True}, "auto-delete"),
        ({"durable": True, "exclusive": True}, "exclusive-owner"),
    ):
        queue = s.name("q")
        if s.deviates:
            for _ in range(2):
                channel.declare_queue(queue, arguments=QUORUM, **flags)
            continue
        channel.send("queue.declare", queue=queue, arguments=QUORUM, **flags)
        text = f"PRECONDITION_FAILED - invalid property '{named}' for queue '{queue}' in vhost '/'"
        channel.expect_close(406, text, "queue.declare")
        channel.reopen()
    channel.send("queue.declare", queue="", durable=True, arguments=QUORUM)
    if s.deviates:
        reply = channel.expect("queue.declare-ok")
        check_equal(reply["queue"][:8], "amq.gen-", "beginning of the name")
    else:
        text = "Cannot declare a server-named queue for type rabbit_quorum_queue"
        channel.expect_close(406, f"PRECONDITION_FAILED - {text}", "queue.declare")


@scenario(
    "queue-types.stream",
    covers=["error:stream-queue"],
    deviations=[deviation("leveret", "streams are refused with 406 until they exist")],
)
def stream_can_be_declared(s: Session) -> None:
    channel = s.channel()
    queue = s.name("q")
    channel.send("queue.declare", queue=queue, durable=True, arguments=STREAM)
    if s.deviates:
        text = invalid_argument("x-queue-type", queue, '"streams are not supported by this broker"')
        channel.expect_close(406, text, "queue.declare")
        channel.reopen().send("queue.declare", queue=queue, passive=True)
        channel.expect_close(404, None, "queue.declare")
    else:
        channel.expect("queue.declare-ok", queue=queue)


def _of_queue_type(channel: Channel, queue: str, argument: str, kind: str) -> None:
    text = f"invalid arg '{argument}' for queue '{queue}' in vhost '/' of queue type {kind}"
    channel.expect_close(406, cut(f"PRECONDITION_FAILED - {text}"), "queue.declare")
    channel.reopen()


@scenario(
    "queue-types.arguments-of-other-types",
    covers=["rule:arguments-of-other-types"],
    deviations=[
        deviation(
            "leveret",
            "every known argument is accepted on every queue type, checked and compared",
        )
    ],
)
def arguments_of_other_queue_types_are_refused(s: Session) -> None:
    channel = s.channel()
    classic: dict[str, Any] = {
        "x-delivery-limit": 5,
        "x-dead-letter-strategy": "at-least-once",
        "x-max-in-memory-length": 5,
        "x-max-in-memory-bytes": 5,
        "x-quorum-initial-group-size": 3,
        "x-max-age": "1D",
        "x-stream-max-segment-size-bytes": 5000,
        "x-initial-cluster-size": 3,
        "x-queue-leader-locator": "balanced",
    }
    quorum: dict[str, Any] = {"x-max-priority": 5, "x-queue-mode": "lazy", "x-queue-version": 2}
    for queue_type, kind, arguments in (
        ({}, "rabbit_classic_queue", classic),
        (QUORUM, "rabbit_quorum_queue", quorum),
    ):
        for argument, value in arguments.items():
            queue = s.name("q")
            given = {**queue_type, argument: value}
            channel.send("queue.declare", queue=queue, durable=True, arguments=given)
            if s.deviates:
                channel.expect("queue.declare-ok")
                channel.declare_queue(queue, durable=True, arguments=given)
            else:
                _of_queue_type(channel, queue, argument, kind)
    _bad_values(s, channel)


def _bad_values(s: Session, channel: Channel) -> None:
    for argument, value, wrong in (
        ("x-max-age", "1x", "invalid_max_age"),
        ("x-max-age", "0s", "invalid_max_age"),
        ("x-max-age", 5, "{unacceptable_type,signedint}"),
        ("x-stream-max-segment-size-bytes", -1, "{value_negative,-1}"),
        ("x-initial-cluster-size", 0, "{value_zero,0}"),
        ("x-dead-letter-strategy", "sometimes", "invalid_dlx_strategy"),
        ("x-queue-leader-locator", "nowhere", "invalid_queue_locator_arg"),
    ):
        queue = s.name("q")
        channel.send("queue.declare", queue=queue, arguments={argument: value})
        if s.deviates:
            channel.expect_close(406, invalid_argument(argument, queue, wrong), "queue.declare")
            channel.reopen()
        else:
            _of_queue_type(channel, queue, argument, "rabbit_classic_queue")

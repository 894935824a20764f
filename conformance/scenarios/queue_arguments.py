"""The arguments of queue.declare: values that are accepted, and texts for those that are not."""

from collections.abc import Mapping
from typing import Any

from conformance import fields
from conformance.channel import Channel
from conformance.failure import check_equal
from conformance.registry import scenario
from conformance.session import Session
from conformance.texts import invalid_argument

TEN_YEARS_MS = 315_360_000_000
QUORUM = {"x-queue-type": "quorum"}
NOT_INTEGERS = {
    "longstr": "1",
    "bool": True,
    "float": fields.float32(1.0),
    "double": 1.0,
    "timestamp": fields.timestamp(1),
    "decimal": fields.decimal(0, 1),
    "binary": fields.byte_array(b"1"),
    "void": None,
    "table": {"a": 1},
    "array": [1],
}
NOT_STRINGS = {
    "signedint": 1,
    "long": fields.long(1),
    "bool": True,
    "double": 1.0,
    "timestamp": fields.timestamp(1),
    "void": None,
    "table": {"a": 1},
    "array": ["drop-head"],
}


def accepts(s: Session, channel: Channel, arguments: Mapping[str, Any], **flags: bool) -> str:
    """The declare succeeds, and a passive one finds the queue."""
    queue = channel.declare_queue(s.name("q"), arguments=arguments, **flags)
    channel.settle(queue)
    return queue


def refuses(
    s: Session,
    channel: Channel,
    argument: str,
    value: Any,
    wrong: str,
    others: Mapping[str, Any] | None = None,
) -> None:
    """A durable declare with this value is answered with 406, and no queue is made."""
    queue = s.name("q")
    arguments = {argument: value, **(others or {})}
    channel.send("queue.declare", queue=queue, durable=True, arguments=arguments)
    channel.expect_close(406, invalid_argument(argument, queue, wrong), "queue.declare")
    channel.reopen()


def refuses_other_types(
    s: Session, channel: Channel, argument: str, others: Mapping[str, Any] | None = None
) -> None:
    """Only integers are accepted; the text names the type that came."""
    for kind, value in NOT_INTEGERS.items():
        refuses(s, channel, argument, value, f'"expected integer, got {kind}"', others)


@scenario(
    "queue-arguments.message-ttl",
    covers=["error:invalid-argument-negative", "error:invalid-argument-too-large"],
)
def message_ttl_is_zero_to_ten_years(s: Session) -> None:
    channel = s.channel()
    for value in (0, 1, TEN_YEARS_MS):
        accepts(s, channel, {"x-message-ttl": value})
    refuses(s, channel, "x-message-ttl", -1, "{value_negative,-1}")
    refuses(s, channel, "x-message-ttl", -(2**40), f"{{value_negative,-{2**40}}}")
    for value in (TEN_YEARS_MS + 1, 2**63 - 1):
        refuses(s, channel, "x-message-ttl", value, f"{{value_too_large,{value}}}")


@scenario(
    "queue-arguments.expires",
    covers=["error:invalid-argument-zero", "error:invalid-argument-too-large"],
)
def expires_is_one_to_ten_years(s: Session) -> None:
    channel = s.channel()
    for value in (60_000, TEN_YEARS_MS):
        accepts(s, channel, {"x-expires": value})
    refuses(s, channel, "x-expires", 0, "{value_zero,0}")
    refuses(s, channel, "x-expires", -1, "{value_negative,-1}")
    value = TEN_YEARS_MS + 1
    refuses(s, channel, "x-expires", value, f"{{value_too_large,{value}}}")


@scenario("queue-arguments.max-length", covers=["error:invalid-argument-negative"])
def length_limits_are_zero_or_more(s: Session) -> None:
    channel = s.channel()
    for argument in ("x-max-length", "x-max-length-bytes"):
        for value in (0, 1, 2**63 - 1):
            accepts(s, channel, {argument: value})
        refuses(s, channel, argument, -1, "{value_negative,-1}")


@scenario("queue-arguments.max-priority", covers=["error:invalid-argument-max-priority"])
def max_priority_is_0_to_255(s: Session) -> None:
    channel = s.channel()
    for value in (0, 1, 10, 255):
        accepts(s, channel, {"x-max-priority": value})
    for value in (256, 2**31):
        refuses(s, channel, "x-max-priority", value, f"{{max_value_exceeded,{value}}}")
    refuses(s, channel, "x-max-priority", -1, "{value_negative,-1}")


@scenario("queue-arguments.queue-version", covers=["error:invalid-argument-word"])
def queue_version_is_1_or_2(s: Session) -> None:
    channel = s.channel()
    for value in (1, 2):
        accepts(s, channel, {"x-queue-version": value})
    for value in (0, 3, 256):
        refuses(s, channel, "x-queue-version", value, f"\"unsupported queue version '{value}'\"")
    refuses(s, channel, "x-queue-version", -1, "{value_negative,-1}")


@scenario("queue-arguments.not-integer", covers=["error:invalid-argument-not-integer"])
def what_must_be_an_integer_is_refused_as_anything_else(s: Session) -> None:
    channel = s.channel()
    for argument in (
        "x-message-ttl",
        "x-expires",
        "x-max-length",
        "x-max-length-bytes",
        "x-max-priority",
        "x-queue-version",
    ):
        refuses_other_types(s, channel, argument)


@scenario("queue-arguments.integer-types", covers=["rule:integer-widths-equal"])
def every_integer_type_is_accepted(s: Session) -> None:
    channel = s.channel()
    for kind in "bBsuIil":
        for argument in ("x-message-ttl", "x-max-length", "x-max-priority"):
            accepts(s, channel, {argument: fields.Typed(kind, 100)})
    for kind in "bsIl":
        value = fields.Typed(kind, -1)
        refuses(s, channel, "x-message-ttl", value, "{value_negative,-1}")


@scenario("queue-arguments.overflow", covers=["error:invalid-argument-overflow"])
def overflow_is_one_of_three_words(s: Session) -> None:
    channel = s.channel()
    for word in ("drop-head", "reject-publish", "reject-publish-dlx"):
        accepts(s, channel, {"x-overflow": word})
    for word in ("", "drop-tail", "Drop-Head"):
        refuses(s, channel, "x-overflow", word, "invalid_overflow")


@scenario("queue-arguments.queue-mode", covers=["error:invalid-argument-word"])
def queue_mode_is_default_or_lazy(s: Session) -> None:
    channel = s.channel()
    for word in ("default", "lazy"):
        accepts(s, channel, {"x-queue-mode": word})
    for word in ("", "eager", "é"):
        refuses(s, channel, "x-queue-mode", word, f"\"unsupported queue mode '{word}'\"")
    refuses(s, channel, "x-queue-mode", 'a"b\\', r'''"unsupported queue mode 'a\"b\\'"''')


@scenario("queue-arguments.not-string", covers=["error:invalid-argument-not-string"])
def what_must_be_a_string_is_refused_as_anything_else(s: Session) -> None:
    channel = s.channel()
    for argument in ("x-overflow", "x-queue-mode", "x-queue-type", "x-dead-letter-routing-key"):
        for kind, value in NOT_STRINGS.items():
            refuses(s, channel, argument, value, f"{{unacceptable_type,{kind}}}")


@scenario("queue-arguments.single-active-consumer", covers=["error:invalid-argument-not-boolean"])
def single_active_consumer_is_a_boolean(s: Session) -> None:
    channel = s.channel()
    for value in (True, False):
        accepts(s, channel, {"x-single-active-consumer": value})
    wrong: dict[str, Any] = {
        "longstr": "true",
        "signedint": 1,
        "byte": fields.byte(1),
        "void": None,
    }
    for kind, value in wrong.items():
        argument = "x-single-active-consumer"
        refuses(s, channel, argument, value, f"{{unacceptable_type,{kind}}}")


@scenario("queue-arguments.dead-letter", covers=["rule:dlx-may-be-missing"])
def dead_letter_exchange_need_not_exist(s: Session) -> None:
    channel = s.channel()
    for exchange in ("", "amq.direct", s.name("missing")):
        accepts(s, channel, {"x-dead-letter-exchange": exchange})
        arguments = {"x-dead-letter-exchange": exchange, "x-dead-letter-routing-key": "key"}
        accepts(s, channel, arguments)


@scenario("queue-arguments.dead-letter-exchange-type", covers=["error:invalid-argument-not-string"])
def dead_letter_exchange_that_is_no_string(s: Session) -> None:
    channel = s.channel()
    for kind, value in NOT_STRINGS.items():
        queue = s.name("q")
        # Noticed before every other argument is looked at.
        arguments = {"x-expires": 0, "x-dead-letter-exchange": value, "x-queue-type": "nonsense"}
        channel.send("queue.declare", queue=queue, arguments=arguments)
        text = (
            f"PRECONDITION_FAILED - invalid type '{kind}' for arg 'x-dead-letter-exchange'"
            f" in queue '{queue}' in vhost '/'"
        )
        channel.expect_close(406, text, "queue.declare")
        channel.reopen()


@scenario(
    "queue-arguments.dead-letter-routing-key",
    covers=["error:invalid-argument-routing-key-without-dlx"],
)
def dead_letter_routing_key_needs_an_exchange(s: Session) -> None:
    channel = s.channel()
    wrong = "routing_key_but_no_dlx_defined"
    for key in ("key", ""):
        refuses(s, channel, "x-dead-letter-routing-key", key, wrong)


@scenario("queue-arguments.queue-type", covers=["error:invalid-argument-queue-type"])
def unknown_queue_types_are_refused(s: Session) -> None:
    channel = s.channel()
    accepts(s, channel, {"x-queue-type": "classic"})
    for word in ("", "Classic", "mirrored", "é"):
        refuses(s, channel, "x-queue-type", word, f"\"unsupported queue type '{word}'\"")


@scenario("queue-arguments.order", covers=["error:invalid-argument-queue-type"])
def queue_type_is_looked_at_first_then_the_others_in_a_fixed_order(s: Session) -> None:
    channel = s.channel()
    wrong: dict[str, tuple[Any, str]] = {
        "x-queue-type": ("nonsense", "\"unsupported queue type 'nonsense'\""),
        "x-expires": (0, "{value_zero,0}"),
        "x-message-ttl": (-1, "{value_negative,-1}"),
        "x-dead-letter-routing-key": ("key", "routing_key_but_no_dlx_defined"),
        "x-max-length": (-2, "{value_negative,-2}"),
        "x-max-length-bytes": (-3, "{value_negative,-3}"),
        "x-max-priority": (256, "{max_value_exceeded,256}"),
        "x-overflow": ("none", "invalid_overflow"),
        "x-queue-mode": ("none", "\"unsupported queue mode 'none'\""),
        "x-queue-version": (0, "\"unsupported queue version '0'\""),
        "x-single-active-consumer": ("yes", "{unacceptable_type,longstr}"),
    }
    while wrong:
        first = next(iter(wrong))
        value, text = wrong.pop(first)
        others = {name: other for name, (other, _) in reversed(wrong.items())}
        refuses(s, channel, first, value, text, others)


@scenario("queue-arguments.nothing-declared", covers=["method:queue.declare"])
def refused_declare_makes_no_queue(s: Session) -> None:
    channel = s.channel()
    queue = s.name("q")
    for nowait in (False, True):
        arguments = {"x-max-length": -1}
        channel.send("queue.declare", queue=queue, nowait=nowait, arguments=arguments)
        text = invalid_argument("x-max-length", queue, "{value_negative,-1}")
        channel.expect_close(406, text, "queue.declare")
        channel.reopen()
    channel.send("queue.declare", queue=queue, passive=True)
    channel.expect_close(404, None, "queue.declare")


@scenario("queue-arguments.unknown", covers=["rule:unknown-arguments-ignored"])
def unknown_arguments_are_accepted_with_any_value(s: Session) -> None:
    channel = s.channel()
    for number, value in enumerate([*NOT_INTEGERS.values(), -1, fields.unsignedint(2**32 - 1)]):
        accepts(s, channel, {f"x-unknown-{number}": value, "": value, "X-Max-Length": value})


@scenario("queue-arguments.consumer-timeout", covers=["rule:unknown-arguments-ignored"])
def consumer_timeout_is_accepted(s: Session) -> None:
    channel = s.channel()
    for value in (0, 10_800_000, fields.long(2**40)):
        accepts(s, channel, {"x-consumer-timeout": value})


@scenario("queue-arguments.quorum", covers=["rule:quorum-queue-accepted"])
def quorum_queue_is_declared_and_works(s: Session) -> None:
    channel = s.channel()
    queue = accepts(s, channel, QUORUM, durable=True)
    channel.publish(b"held", "", queue, properties={"delivery_mode": 2})
    channel.consume(queue)
    delivery = channel.expect_delivery(b"held")
    channel.send("basic.ack", delivery_tag=delivery["delivery_tag"])
    channel.declare_queue(queue, durable=True, arguments=QUORUM)
    check_equal(channel.call("queue.delete", queue=queue)["message_count"], 0, "message_count")


@scenario("queue-arguments.quorum-arguments", covers=["rule:quorum-queue-accepted"])
def arguments_of_quorum_queues_are_accepted_on_them(s: Session) -> None:
    channel = s.channel()
    for argument, values in {
        "x-delivery-limit": (0, 20, -1),
        "x-dead-letter-strategy": ("at-most-once", "at-least-once"),
        "x-overflow": ("drop-head", "reject-publish"),
        "x-max-length": (10,),
        "x-single-active-consumer": (True,),
        "x-max-in-memory-length": (0, 100),
        "x-max-in-memory-bytes": (0, 100),
        "x-quorum-initial-group-size": (1, 3),
        "x-queue-leader-locator": ("client-local", "balanced"),
    }.items():
        for value in values:
            accepts(s, channel, {**QUORUM, argument: value}, durable=True)


@scenario(
    "queue-arguments.quorum-refused",
    covers=["error:invalid-argument-word", "error:invalid-argument-zero"],
)
def bad_arguments_of_quorum_queues_are_refused(s: Session) -> None:
    channel = s.channel()
    not_string = "{unacceptable_type,signedint}"
    for argument, value, wrong in (
        ("x-dead-letter-strategy", "sometimes", "invalid_dlx_strategy"),
        ("x-dead-letter-strategy", 1, not_string),
        ("x-queue-leader-locator", "nowhere", "invalid_queue_locator_arg"),
        ("x-queue-leader-locator", 1, not_string),
        ("x-quorum-initial-group-size", 0, "{value_zero,0}"),
        ("x-quorum-initial-group-size", -1, "{value_negative,-1}"),
        ("x-quorum-initial-group-size", "1", '"expected integer, got longstr"'),
        ("x-max-in-memory-length", -1, "{value_negative,-1}"),
        ("x-max-in-memory-bytes", "1", '"expected integer, got longstr"'),
        ("x-overflow", "drop-tail", "invalid_overflow"),
        ("x-max-length", -1, "{value_negative,-1}"),
    ):
        refuses(s, channel, argument, value, wrong, QUORUM)

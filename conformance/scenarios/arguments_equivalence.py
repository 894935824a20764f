"""Redeclaring a queue or an exchange: which arguments are compared, and how a difference reads."""

from collections.abc import Mapping
from typing import Any

from conformance import fields
from conformance.channel import Channel
from conformance.registry import scenario
from conformance.session import Session
from conformance.texts import inequivalent

INTEGERS = {
    "byte": "b",
    "unsignedbyte": "B",
    "short": "s",
    "unsignedshort": "u",
    "signedint": "I",
    "unsignedint": "i",
    "long": "l",
}
# Every argument of a classic queue but x-expires, each with two values, in the order of comparing.
COMPARED: dict[str, tuple[Any, Any]] = {
    "x-message-ttl": (60_000, 60_001),
    "x-dead-letter-exchange": ("a", "b"),
    "x-dead-letter-routing-key": ("a", "b"),
    "x-max-length": (10, 20),
    "x-max-length-bytes": (0, 1),
    "x-max-priority": (10, 5),
    "x-overflow": ("drop-head", "reject-publish"),
    "x-queue-mode": ("default", "lazy"),
    "x-queue-version": (1, 2),
    "x-single-active-consumer": (True, False),
}


def shown(value: Any) -> str:
    """A value as it stands between the quotes."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def described(value: Any) -> str:
    """A value that only one side has."""
    names = {bool: "bool", int: "signedint", str: "longstr"}
    return f"the value '{shown(value)}' of type '{names[type(value)]}'"


def differs(
    channel: Channel,
    queue: str,
    arguments: Mapping[str, Any],
    argument: str,
    received: str,
    current: str,
    **flags: bool,
) -> None:
    """Redeclare with these arguments is answered with 406 and these values."""
    channel.send("queue.declare", queue=queue, arguments=arguments, **flags)
    text = inequivalent(argument, f"queue '{queue}'", received, current)
    channel.expect_close(406, text, "queue.declare")
    channel.reopen()


def others_for(argument: str) -> dict[str, Any]:
    """Arguments that this one needs beside it."""
    return {"x-dead-letter-exchange": "a"} if argument == "x-dead-letter-routing-key" else {}


@scenario("equivalence.equal", covers=["method:queue.declare"])
def equal_arguments_are_equivalent_in_any_order(s: Session) -> None:
    channel = s.channel()
    arguments = {"x-expires": 60_000} | {name: values[0] for name, values in COMPARED.items()}
    queue = s.queue(channel, arguments=arguments)
    backwards = dict(reversed(arguments.items()))
    channel.declare_queue(queue, arguments=backwards)


@scenario("equivalence.other-value", covers=["error:inequivalent-argument-value"])
def other_value_is_shown_without_its_type(s: Session) -> None:
    channel = s.channel()
    for argument, (old, new) in COMPARED.items():
        others = others_for(argument)
        queue = s.queue(channel, arguments={argument: old, **others})
        arguments = {argument: new, **others}
        received, current = f"'{shown(new)}'", f"'{shown(old)}'"
        differs(channel, queue, arguments, argument, received, current)
        channel.declare_queue(queue, arguments={argument: old, **others})


@scenario("equivalence.missing", covers=["error:inequivalent-argument-missing"])
def argument_of_the_original_declare_only(s: Session) -> None:
    channel = s.channel()
    for argument, (old, _) in COMPARED.items():
        others = others_for(argument)
        queue = s.queue(channel, arguments={argument: old, **others})
        differs(channel, queue, others, argument, "none", described(old))


@scenario("equivalence.added", covers=["error:inequivalent-argument-added"])
def argument_of_the_new_declare_only(s: Session) -> None:
    channel = s.channel()
    for argument, (_, new) in COMPARED.items():
        others = others_for(argument)
        queue = s.queue(channel, arguments=others)
        differs(channel, queue, {argument: new, **others}, argument, described(new), "none")


@scenario("equivalence.expires", covers=["error:inequivalent-argument-value"])
def expires_is_compared_first(s: Session) -> None:
    channel = s.channel()
    arguments = {"x-message-ttl": 1, "x-expires": 60_000}
    queue = s.queue(channel, arguments=arguments)
    differs(
        channel, queue, {"x-message-ttl": 2, "x-expires": 50_000}, "x-expires", "'50000'", "'60000'"
    )
    differs(channel, queue, {}, "x-expires", "none", "the value '60000' of type 'signedint'")


@scenario("equivalence.order", covers=["error:inequivalent-argument-value"])
def arguments_are_compared_in_a_fixed_order_after_the_fields(s: Session) -> None:
    channel = s.channel()
    old = {name: values[0] for name, values in COMPARED.items()}
    compared = COMPARED | {"x-queue-type": ("classic", "quorum")}
    new = {name: values[1] for name, values in reversed(compared.items())}
    queue = s.queue(channel, arguments=old | {"x-queue-type": "classic"})
    differs(channel, queue, new, "durable", "'true'", "'false'", durable=True, auto_delete=True)
    differs(channel, queue, new, "auto_delete", "'true'", "'false'", auto_delete=True)
    for argument, (was, asked) in compared.items():
        differs(channel, queue, new, argument, f"'{shown(asked)}'", f"'{shown(was)}'")
        new[argument] = was
    channel.declare_queue(queue, arguments=new)


@scenario("equivalence.integer-types", covers=["rule:integer-widths-equal"])
def integers_of_all_types_are_equivalent(s: Session) -> None:
    channel = s.channel()
    for old in INTEGERS.values():
        queue = s.queue(channel, arguments={"x-max-length": fields.Typed(old, 5)})
        for new in INTEGERS.values():
            channel.declare_queue(queue, arguments={"x-max-length": fields.Typed(new, 5)})


@scenario("equivalence.integer-type-names", covers=["error:inequivalent-argument-types"])
def text_names_the_integer_type_that_came(s: Session) -> None:
    channel = s.channel()
    plain = s.queue(channel)
    for name, tag in INTEGERS.items():
        arguments = {"x-max-length": fields.Typed(tag, 5)}
        value = f"the value '5' of type '{name}'"
        differs(channel, plain, arguments, "x-max-length", value, "none")
        queue = s.queue(channel, arguments=arguments)
        differs(channel, queue, {}, "x-max-length", "none", value)


@scenario("equivalence.other-type-names", covers=["error:inequivalent-argument-types"])
def redeclare_compares_without_asking_whether_a_value_would_be_allowed(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    for value, text, name in (
        ("many", "many", "longstr"),
        (-1, "-1", "signedint"),
        (True, "true", "bool"),
        (1.5, "1.5", "double"),
        (fields.float32(2.0), "2.0", "float"),
        (fields.timestamp(7), "7", "timestamp"),
        (fields.byte_array(b"raw"), "raw", "binary"),
        ({"a": 1}, '[{<<"a">>,signedint,1}]', "table"),
        ([1], "[{signedint,1}]", "array"),
    ):
        received = f"the value '{text}' of type '{name}'"
        differs(channel, queue, {"x-max-length": value}, "x-max-length", received, "none")


@scenario("equivalence.value-of-other-type", covers=["error:inequivalent-argument-value"])
def values_of_other_types_differ_and_are_shown_without_types(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel, arguments={"x-max-length": 5})
    for value, text in (("5", "5"), (True, "true"), (5.0, "5.0"), (-5, "-5")):
        differs(channel, queue, {"x-max-length": value}, "x-max-length", f"'{text}'", "'5'")
    other = s.queue(channel, arguments={"x-dead-letter-exchange": "5"})
    arguments = {"x-dead-letter-exchange": 5}
    differs(channel, other, arguments, "x-dead-letter-exchange", "'5'", "'5'")


@scenario("equivalence.same-value-of-other-type", covers=["rule:integer-widths-equal"])
def same_value_of_another_type_is_equivalent(s: Session) -> None:
    channel = s.channel()
    number = s.queue(channel, arguments={"x-max-length": 5})
    channel.declare_queue(number, arguments={"x-max-length": fields.timestamp(5)})
    arguments = {"x-max-length": fields.timestamp(6)}
    differs(channel, number, arguments, "x-max-length", "'6'", "'5'")
    text = s.queue(channel, arguments={"x-dead-letter-exchange": "a"})
    channel.declare_queue(text, arguments={"x-dead-letter-exchange": fields.byte_array(b"a")})


@scenario("equivalence.consumer-timeout", covers=["rule:unknown-arguments-ignored"])
def consumer_timeout_may_differ(s: Session) -> None:
    channel = s.channel()
    argument = "x-consumer-timeout"
    queue = s.queue(channel, arguments={argument: 1_800_000})
    for arguments in ({}, {argument: 3_600_000}, {argument: fields.long(0)}):
        channel.declare_queue(queue, arguments=arguments)
    channel.declare_queue(s.queue(channel), arguments={argument: 1_800_000})


@scenario("equivalence.queue-type", covers=["rule:queue-type-classic-default"])
def missing_queue_type_is_classic(s: Session) -> None:
    channel = s.channel()
    classic = {"x-queue-type": "classic"}
    channel.declare_queue(s.queue(channel, arguments=classic))
    channel.declare_queue(s.queue(channel), arguments=classic)


@scenario("equivalence.queue-type-other", covers=["error:inequivalent-argument-value"])
def queue_types_are_compared_whatever_they_are(s: Session) -> None:
    channel = s.channel()
    argument = "x-queue-type"
    plain = s.queue(channel)
    for word in ("quorum", "stream", "nonsense"):
        differs(channel, plain, {argument: word}, argument, described(word), "none")
    classic = s.queue(channel, arguments={argument: "classic"})
    differs(channel, classic, {argument: "quorum"}, argument, "'quorum'", "'classic'")
    quorum = s.queue(channel, durable=True, arguments={argument: "quorum"})
    differs(channel, quorum, {}, argument, "none", described("quorum"), durable=True)
    received, current = "'classic'", "'quorum'"
    arguments = {argument: "classic"}
    differs(channel, quorum, arguments, argument, received, current, durable=True)


@scenario("equivalence.quorum-arguments", covers=["error:inequivalent-argument-value"])
def arguments_of_a_quorum_queue_are_compared(s: Session) -> None:
    channel = s.channel()
    quorum = {"x-queue-type": "quorum"}
    for argument, old, new in (
        ("x-delivery-limit", 1, 2),
        ("x-dead-letter-strategy", "at-most-once", "at-least-once"),
        ("x-quorum-initial-group-size", 1, 3),
        ("x-max-in-memory-length", 1, 2),
    ):
        queue = s.queue(channel, durable=True, arguments={**quorum, argument: old})
        arguments = {**quorum, argument: new}
        differs(channel, queue, arguments, argument, f"'{new}'", f"'{old}'", durable=True)
        differs(channel, queue, quorum, argument, "none", described(old), durable=True)


@scenario("equivalence.unknown-arguments", covers=["rule:unknown-arguments-ignored"])
def arguments_that_no_queue_knows_may_differ(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel, arguments={"x-mine": 1, "x-max-length": 5})
    for others in ({}, {"x-mine": 2}, {"x-mine": "one"}, {"x-yours": [1]}):
        channel.declare_queue(queue, arguments={"x-max-length": 5, **others})


@scenario("equivalence.utf8", covers=["rule:names-utf8"])
def values_are_shown_as_utf8(s: Session) -> None:
    channel = s.channel()
    argument = "x-dead-letter-exchange"
    queue = s.queue(channel, arguments={argument: "é"})
    differs(channel, queue, {argument: "ü'"}, argument, "'ü''", "'é'")
    differs(channel, queue, {}, argument, "none", described("é"))


@scenario("equivalence.exclusive-first", covers=["error:locked-before-inequivalent"])
def exclusiveness_is_looked_at_before_everything_else(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel, arguments={"x-max-length": 1})
    channel.send(
        "queue.declare",
        queue=queue,
        exclusive=True,
        durable=True,
        auto_delete=True,
        arguments={"x-max-length": -1},
    )
    channel.expect_close(405, None, "queue.declare")


@scenario("equivalence.alternate-exchange", covers=["error:inequivalent-exchange-argument"])
def alternate_exchange_is_compared_and_nothing_else(s: Session) -> None:
    channel = s.channel()
    argument = "alternate-exchange"
    plain = s.exchange(channel)
    with_alternate = s.exchange(channel, arguments={argument: "a", "x-mine": 1})
    channel.declare_exchange(with_alternate, arguments={argument: "a", "x-mine": "one"})
    for exchange, value, received, current in (
        (plain, "b", described("b"), "none"),
        (plain, 5, described(5), "none"),
        (with_alternate, "b", "'b'", "'a'"),
        (with_alternate, 5, "'5'", "'a'"),
        (with_alternate, None, "none", described("a")),
    ):
        arguments = {} if value is None else {argument: value}
        channel.send("exchange.declare", exchange=exchange, type="direct", arguments=arguments)
        text = inequivalent(argument, f"exchange '{exchange}'", received, current)
        channel.expect_close(406, text, "exchange.declare")
        channel.reopen()

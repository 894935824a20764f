"""Arguments of queues, exchanges and consumers: what each may be, and RabbitMQ's words for what
is wrong with it."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.arguments import (
    COMPARED_ARGUMENTS,
    CONSUMER_ARGUMENTS,
    EXPIRY_MAX_MS,
    QUEUE_ARGUMENTS,
    assert_arguments_equal,
    assert_equal,
    check_expiry,
    check_queue_arguments,
    consumer_priority,
)
from broker.errors import AMQPError, ReplyCode
from broker.wire.table import INTEGER_TYPES, Field, Table
from tests.wire.profiles import examples
from tests.wire.strategies import INT_RANGES, fields

TITLE = "queue 'q' in vhost '/'"


def text(value: str) -> Field:
    return Field("longstr", value)


def number(value: int, kind: str = "signedint") -> Field:
    return Field(kind, value)


def problem(arguments: Table) -> str | None:
    """What is said to be wrong with arguments of a queue, behind the name of the argument."""
    try:
        check_queue_arguments(arguments, "q", "/")
    except AMQPError as error:
        assert error.code is ReplyCode.PRECONDITION_FAILED  # noqa: PT017
        head, _, tail = error.explanation.partition(f" for {TITLE}: ")
        assert head.startswith("invalid arg '")
        return tail
    return None


DURATIONS = ("x-expires", "x-message-ttl", "x-delayed-retry-min", "x-delayed-retry-max")
COUNTS = (
    "x-max-length", "x-max-length-bytes", "x-max-in-memory-length", "x-max-in-memory-bytes",
    "x-stream-max-segment-size-bytes",
)  # fmt: skip
SIZES = ("x-quorum-initial-group-size", "x-initial-cluster-size")
INTEGERS = (
    *DURATIONS, *COUNTS, *SIZES, "x-max-priority", "x-queue-version", "x-delivery-limit",
    "x-consumer-timeout",
)  # fmt: skip
MAY_DIFFER = {"x-consumer-timeout", "x-consumer-timeout-action"}
CHOICES = {
    "x-queue-type": ("classic", "quorum"),
    "x-dead-letter-strategy": ("at-most-once", "at-least-once"),
    "x-overflow": ("drop-head", "reject-publish", "reject-publish-dlx"),
    "x-queue-mode": ("default", "lazy"),
    "x-queue-leader-locator": ("client-local", "balanced", "random", "least-leaders"),
    "x-delayed-retry-type": ("disabled", "all", "failed", "returned"),
    "x-dispatch": ("round-robin", "least-loaded"),
    "x-consumer-timeout-action": ("requeue", "cancel-consumer", "close-channel"),
    "x-cache-persistence": ("disk", "memory"),
}
TEXTS = (*CHOICES, "x-dead-letter-exchange", "x-dead-letter-routing-key", "x-max-age")
WRONG_TEXTS = {
    "x-queue-type": "\"unsupported queue type 'nope'\"",
    "x-dead-letter-strategy": "invalid_dlx_strategy",
    "x-overflow": "invalid_overflow",
    "x-queue-mode": "\"unsupported queue mode 'nope'\"",
    "x-queue-leader-locator": "invalid_queue_locator_arg",
    "x-delayed-retry-type": "invalid_delayed_retry_type",
    "x-dispatch": "invalid_dispatch",
    "x-consumer-timeout-action": "invalid_consumer_timeout_action",
    "x-cache-persistence": "invalid_cache_persistence",
}


KEYS = ("x-group-by", "x-fair-by")


def test_every_argument_is_of_one_of_the_kinds_tested_here() -> None:
    others = {"x-single-active-consumer", "x-delayed-retry-multiplier", *KEYS}
    # Those are tested with what they do.
    others |= {"x-message-deduplication", "x-cache-size", "x-cache-ttl", "x-deduplication-header"}
    assert set(QUEUE_ARGUMENTS) == {*INTEGERS, *TEXTS, *others}
    assert {*COMPARED_ARGUMENTS, *MAY_DIFFER} == set(QUEUE_ARGUMENTS)
    assert len(COMPARED_ARGUMENTS) + len(MAY_DIFFER) == len(QUEUE_ARGUMENTS)


@pytest.mark.parametrize("key", INTEGERS)
@pytest.mark.parametrize("kind", sorted(INTEGER_TYPES))
def test_number_of_every_width_is_taken(key: str, kind: str) -> None:
    assert problem({key: number(1, kind)}) is None


@pytest.mark.parametrize("key", INTEGERS)
@pytest.mark.parametrize(
    "field",
    [text("1"), Field("bool", value=True), Field("double", 1.0), Field("void", None)],
    ids=lambda field: str(field.type),
)
def test_no_number_is_refused_with_its_type(key: str, field: Field) -> None:
    assert problem({key: field}) == f'"expected integer, got {field.type}"'


@pytest.mark.parametrize("key", [key for key in INTEGERS if key != "x-delivery-limit"])
def test_negative_number_is_refused(key: str) -> None:
    assert problem({key: number(-1)}) == "{value_negative,-1}"


@pytest.mark.parametrize("key", TEXTS)
@pytest.mark.parametrize("field", [number(1), Field("binary", b"classic"), Field("void", None)])
def test_no_text_is_refused_with_its_type(key: str, field: Field) -> None:
    assert problem({key: field}) == f"{{unacceptable_type,{field.type}}}"


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, vs in CHOICES.items() for v in vs])
def test_every_choice_is_taken(key: str, value: str) -> None:
    assert problem({key: text(value)}) is None


@pytest.mark.parametrize("key", CHOICES)
def test_other_choice_is_refused(key: str) -> None:
    assert problem({key: text("nope")}) == WRONG_TEXTS[key]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ({"": text("routing-key")}, None),
        ({"": text("tenant"), "x-max-priority": number(0)}, None),
        ({"": text("é" * 127)}, None),
        ({"": number(1)}, "{unacceptable_type,signedint}"),
        ({"": Field("binary", b"tenant")}, "{unacceptable_type,binary}"),
        ({"": text("")}, '"expected the name of a header, or routing-key"'),
        ({"": text("é" * 128)}, '"expected the name of a header, or routing-key"'),
        (
            {"": text("tenant"), "x-max-priority": number(1)},
            '"a queue with x-max-priority has an order of its own"',
        ),
    ],
)
def test_key_is_the_name_of_a_header_and_goes_without_priorities(
    key: str, arguments: Table, wanted: str | None
) -> None:
    assert problem({name or key: field for name, field in arguments.items()}) == wanted


@pytest.mark.parametrize(
    ("field", "wanted"),
    [
        (number(1), None),
        (Field("double", 1.5), None),
        (Field("float", 0.5), '"expected a number from 1 on"'),
        (number(0), '"expected a number from 1 on"'),
        (Field("double", float("inf")), '"expected a number from 1 on"'),
        (Field("double", float("nan")), '"expected a number from 1 on"'),
        (text("2"), '"expected number, got longstr"'),
        (Field("bool", value=True), '"expected number, got bool"'),
    ],
)
def test_multiplier_is_a_number_from_1_on(field: Field, wanted: str | None) -> None:
    assert problem({"x-delayed-retry-multiplier": field}) == wanted


def test_streams_are_refused_with_a_reason() -> None:
    assert problem({"x-queue-type": text("stream")}) == (
        '"streams are not supported by this broker"'
    )


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ({"x-expires": number(0)}, "{value_zero,0}"),
        ({"x-expires": number(1)}, None),
        ({"x-message-ttl": number(0)}, None),
        ({"x-message-ttl": number(EXPIRY_MAX_MS, "long")}, None),
        ({"x-message-ttl": number(EXPIRY_MAX_MS + 1, "long")}, "{value_too_large,315360000001}"),
        ({"x-expires": number(EXPIRY_MAX_MS + 1, "long")}, "{value_too_large,315360000001}"),
        ({"x-max-priority": number(255)}, None),
        ({"x-max-priority": number(0)}, None),
        ({"x-max-priority": number(256)}, "{max_value_exceeded,256}"),
        ({"x-max-length": number(0)}, None),
        ({"x-queue-version": number(2)}, None),
        ({"x-queue-version": number(3)}, "\"unsupported queue version '3'\""),
        ({"x-delivery-limit": number(-1)}, None),
        ({"x-initial-cluster-size": number(0)}, "{value_zero,0}"),
        ({"x-single-active-consumer": Field("bool", value=False)}, None),
        ({"x-single-active-consumer": text("true")}, "{unacceptable_type,longstr}"),
        ({"x-dead-letter-exchange": text("")}, None),
        ({"x-dead-letter-routing-key": text("k")}, "routing_key_but_no_dlx_defined"),
        ({"x-dead-letter-routing-key": text("k"), "x-dead-letter-exchange": text("")}, None),
        ({"x-max-age": text("7D")}, None),
        ({"x-max-age": text("007h")}, None),
        ({"x-max-age": text("0D")}, "invalid_max_age"),
        ({"x-max-age": text("7")}, "invalid_max_age"),
        ({"x-max-age": text("D")}, "invalid_max_age"),
        ({"x-max-age": text("7d")}, "invalid_max_age"),
        ({"x-max-age": text("7D\n")}, "invalid_max_age"),
        ({"x-max-age": text("٣D")}, "invalid_max_age"),
        ({"x-unknown": text("anything"), "X-Max-Length": text("")}, None),
        ({}, None),
    ],
)
def test_value_is_judged_as_rabbitmq_does(arguments: Table, wanted: str | None) -> None:
    assert problem(arguments) == wanted


def test_first_wrong_argument_in_rabbitmqs_order_is_named() -> None:
    wrong = {key: Field("void", None) for key in reversed(QUEUE_ARGUMENTS)}
    with pytest.raises(AMQPError) as caught:
        check_queue_arguments(wrong, "q", "/")
    assert caught.value.explanation == (
        f"invalid arg 'x-queue-type' for {TITLE}: {{unacceptable_type,void}}"
    )


@examples(100)
@given(st.sampled_from(sorted(QUEUE_ARGUMENTS)), fields)
def test_any_value_is_taken_or_refused(key: str, field: Field) -> None:
    problem({key: field})


def test_longest_age_a_frame_has_room_for_is_judged_at_once() -> None:
    begin = time.perf_counter()
    assert problem({"x-max-age": text("1" * 131_000)}) == "invalid_max_age"
    assert problem({"x-max-age": text("1" * 131_000 + "D")}) is None
    assert time.perf_counter() - begin < 1.0


@pytest.mark.parametrize(
    ("milliseconds", "wanted"),
    [
        (0, None),
        (EXPIRY_MAX_MS, None),
        (-1, "{value_negative,-1}"),
        (EXPIRY_MAX_MS + 1, "{value_too_large,315360000001}"),
    ],
)
def test_durations_have_bounds(milliseconds: int, wanted: str | None) -> None:
    assert check_expiry(milliseconds) == wanted


# Consumers


def test_priority_of_a_consumer_is_any_integer_and_0_by_default() -> None:
    assert consumer_priority({}, "q", "/") == 0
    for kind, (low, high) in INT_RANGES.items():
        if kind != "timestamp":
            assert consumer_priority({"x-priority": number(low, kind)}, "q", "/") == low
            assert consumer_priority({"x-priority": number(high, kind)}, "q", "/") == high


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (
            {"x-priority": text("1")},
            f"invalid arg 'x-priority' for {TITLE}: \"expected integer, got longstr\"",
        ),
        (
            {"x-cancel-on-ha-failover": number(1)},
            f"invalid arg 'x-cancel-on-ha-failover' for {TITLE}: {{unacceptable_type,signedint}}",
        ),
        (
            {"x-consumer-timeout": number(-1)},
            f"invalid arg 'x-consumer-timeout' for {TITLE}: {{value_negative,-1}}",
        ),
        (
            {"x-consumer-timeout-action": text("wait")},
            f"invalid arg 'x-consumer-timeout-action' for {TITLE}: invalid_consumer_timeout_action",
        ),
        (
            {"x-stream-offset": text("first")},
            f"invalid arg 'x-stream-offset' for {TITLE} of queue type rabbit_classic_queue",
        ),
    ],
)
def test_wrong_argument_of_a_consumer_is_named(arguments: Table, wanted: str) -> None:
    with pytest.raises(AMQPError) as caught:
        consumer_priority(arguments, "q", "/")
    assert caught.value.code is ReplyCode.PRECONDITION_FAILED
    assert caught.value.explanation == wanted


@examples(60)
@given(st.sampled_from(sorted(CONSUMER_ARGUMENTS)), fields)
def test_any_argument_of_a_consumer_is_taken_or_refused(key: str, field: Field) -> None:
    try:
        consumer_priority({key: field}, "q", "/")
    except AMQPError as error:
        assert error.code is ReplyCode.PRECONDITION_FAILED  # noqa: PT017


# Equivalence


def difference(received: Table, current: Table) -> str | None:
    try:
        assert_arguments_equal(COMPARED_ARGUMENTS, TITLE, received, current)
    except AMQPError as error:
        assert error.code is ReplyCode.PRECONDITION_FAILED  # noqa: PT017
        return error.explanation
    return None


@pytest.mark.parametrize(
    ("received", "current", "wanted"),
    [
        (None, number(1000), "received none but current is the value '1000' of type 'signedint'"),
        (number(1, "long"), None, "received the value '1' of type 'long' but current is none"),
        (None, text("drop"), "received none but current is the value 'drop' of type 'longstr'"),
        (
            None,
            Field("bool", value=True),
            "received none but current is the value 'true' of type 'bool'",
        ),
        (number(20), number(10), "received '20' but current is '10'"),
        (text("a"), text("b"), "received 'a' but current is 'b'"),
        (text("5"), number(5), "received '5' but current is '5'"),
        (Field("bool", value=True), number(1), "received 'true' but current is '1'"),
        (Field("double", 1.0), number(1), "received '1.0' but current is '1'"),
    ],
)
def test_difference_is_told_in_rabbitmqs_words(
    received: Field | None, current: Field | None, wanted: str
) -> None:
    def table(field: Field | None) -> Table:
        return {} if field is None else {"x-max-length": field}

    assert difference(table(received), table(current)) == (
        f"inequivalent arg 'x-max-length' for {TITLE}: {wanted}"
    )


@pytest.mark.parametrize("kind", sorted(INTEGER_TYPES))
def test_integers_of_all_widths_are_the_same_argument(kind: str) -> None:
    arguments = {"x-max-length": number(7, kind)}
    assert difference(arguments, {"x-max-length": number(7, "long")}) is None


def test_no_queue_type_is_the_classic_type() -> None:
    classic = {"x-queue-type": text("classic")}
    quorum = {"x-queue-type": text("quorum")}
    assert difference({}, classic) is None
    assert difference(classic, {}) is None
    assert "x-queue-type" in (difference({}, quorum) or "")
    assert "x-queue-type" in (difference(quorum, {}) or "")


def test_unknown_arguments_are_not_compared() -> None:
    assert difference({"x-mine": number(1), "mode": text("a")}, {"x-mine": number(2)}) is None


def test_queue_type_is_compared_last() -> None:
    received = {"x-queue-type": text("quorum"), "x-max-length": number(1)}
    assert "'x-max-length'" in (difference(received, {}) or "")


@examples(80)
@given(
    st.dictionaries(st.sampled_from(COMPARED_ARGUMENTS), fields, max_size=3),
    st.dictionaries(st.sampled_from(COMPARED_ARGUMENTS), fields, max_size=3),
)
def test_equivalence_is_symmetric_and_every_table_is_equal_to_itself(a: Table, b: Table) -> None:
    assert difference(a, a) is None
    assert (difference(a, b) is None) == (difference(b, a) is None)


def test_flags_are_compared_by_their_erlang_names() -> None:
    assert_equal("durable", TITLE, received=True, current=True)
    with pytest.raises(AMQPError) as caught:
        assert_equal("durable", TITLE, received=False, current=True)
    assert caught.value.explanation == (
        f"inequivalent arg 'durable' for {TITLE}: received 'false' but current is 'true'"
    )
    with pytest.raises(AMQPError) as caught:
        assert_equal("type", "exchange 'x' in vhost '/'", "fanout", "direct")
    assert caught.value.explanation == (
        "inequivalent arg 'type' for exchange 'x' in vhost '/': "
        "received 'fanout' but current is 'direct'"
    )

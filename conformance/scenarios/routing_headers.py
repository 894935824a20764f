"""Headers exchanges."""

from collections.abc import Mapping
from typing import Any

from conformance import fields
from conformance.channel import Channel
from conformance.failure import check_equal
from conformance.registry import scenario
from conformance.routing import Headers, bound_queue, is_routed
from conformance.session import Session

A, B, X = {"a": 1}, {"b": 2}, {"x-c": 3}


def check_matches(
    s: Session, channel: Channel, arguments: Mapping[str, Any], *cases: tuple[Headers | None, bool]
) -> None:
    """Each case is a message's headers (None: no headers property) and whether they match."""
    exchange = s.exchange(channel, "headers")
    queue = bound_queue(s, channel, exchange, "", arguments=arguments)
    for headers, expected in cases:
        found = is_routed(channel, exchange, queue, headers=headers)
        check_equal(found, expected, f"binding {arguments} matches headers {headers}")


@scenario("headers.all", covers=["routing:headers-all"])
def all_arguments_must_be_among_the_headers(s: Session) -> None:
    channel = s.channel()
    cases: tuple[tuple[Headers | None, bool], ...] = (
        (A, False),
        (B, False),
        ({**A, **B}, True),
        ({**B, "z": 1, **A}, True),
        ({"a": 1, "b": 3}, False),
        ({"A": 1, "b": 2}, False),
        ({}, False),
        (None, False),
    )
    check_matches(s, channel, {**A, **B, "x-match": "all"}, *cases)
    check_matches(s, channel, {**A, **B}, *cases)


@scenario("headers.any", covers=["routing:headers-any"])
def any_argument_among_the_headers_is_enough(s: Session) -> None:
    channel = s.channel()
    check_matches(
        s,
        channel,
        {**A, **B, "x-match": "any"},
        (A, True),
        (B, True),
        ({**A, **B}, True),
        ({"a": 2, "b": 1}, False),
        ({"a": 2, "b": 2}, True),
        ({"z": 1}, False),
        ({}, False),
        (None, False),
    )


@scenario("headers.no-arguments", covers=["routing:headers-all", "routing:headers-any"])
def binding_without_arguments_matches_all_or_nothing(s: Session) -> None:
    channel = s.channel()
    for match, expected in (("all", True), ("all-with-x", True), ("any", False)):
        cases = [(headers, expected) for headers in (A, X, {}, None)]
        check_matches(s, channel, {"x-match": match}, *cases)
    check_matches(s, channel, {}, (A, True), ({}, True), (None, True))


@scenario("headers.x-ignored", covers=["routing:headers-all", "routing:headers-any"])
def arguments_that_begin_with_x_are_ignored(s: Session) -> None:
    channel = s.channel()
    check_matches(s, channel, {**A, **X}, (A, True), ({**A, "x-c": 4}, True), (X, False))
    check_matches(s, channel, X, (A, True), (None, True))
    any_match = {**A, **X, "x-match": "any"}
    check_matches(s, channel, any_match, (A, True), (X, False), ({**A, **X}, True))


@scenario("headers.with-x", covers=["routing:headers-with-x"])
def with_x_looks_at_every_argument_but_x_match(s: Session) -> None:
    channel = s.channel()
    every = {**A, **X, "x-match": "all-with-x"}
    both = {**A, **X}
    check_matches(s, channel, every, (A, False), (X, False), (both, True), (None, False))
    any_match = {**A, **X, "x-match": "any-with-x"}
    check_matches(s, channel, any_match, (A, True), (X, True), ({"x-c": 4}, False), (None, False))
    alone = {"x-match": "all-with-x", **A}
    check_matches(s, channel, alone, ({**A, "x-match": "other"}, True))


@scenario("headers.void", covers=["routing:headers-all"])
def argument_without_a_value_asks_for_presence_only(s: Session) -> None:
    channel = s.channel()
    present = [({"a": value}, True) for value in (None, 0, "", [1], {"b": 1})]
    check_matches(s, channel, {"a": None}, *present, ({"b": 1}, False), (None, False))
    check_matches(s, channel, {"a": 1}, ({"a": None}, False))


@scenario("headers.types", covers=["routing:headers-all"])
def values_are_compared_whatever_their_width(s: Session) -> None:
    channel = s.channel()
    same = [fields.Typed(tag, 1) for tag in "bBsuIil"]
    other = ["1", True, 2, -1, [1]]
    cases = [({"a": value}, True) for value in same] + [({"a": value}, False) for value in other]
    for value in same:
        check_matches(s, channel, {"a": value}, *cases)
    check_matches(s, channel, {"a": 1.5}, ({"a": fields.float32(1.5)}, True), ({"a": 1}, False))
    check_matches(s, channel, {"a": 1}, ({"a": fields.timestamp(1)}, True))
    check_matches(s, channel, {"a": "x"}, ({"a": fields.byte_array(b"x")}, True))
    text = [({"a": "é"}, True), ({"a": "e"}, False), ({"a": "É"}, False), ({"a": ""}, False)]
    check_matches(s, channel, {"a": "é"}, *text)
    check_matches(s, channel, {"a": True}, ({"a": True}, True), ({"a": False}, False))


@scenario("headers.nested", covers=["routing:headers-all"])
def tables_and_arrays_are_compared_as_a_whole(s: Session) -> None:
    channel = s.channel()
    table = {"b": 1, "c": "d"}
    others: list[Any] = [{"b": 1}, {"b": 1, "c": "e"}, {}, [1], "b"]
    check_matches(
        s, channel, {"a": table}, ({"a": table}, True), *(({"a": o}, False) for o in others)
    )
    array = [1, "two", [True]]
    others = [array[::-1], [1], [], 1]
    check_matches(
        s, channel, {"a": array}, ({"a": array}, True), *(({"a": o}, False) for o in others)
    )


@scenario("headers.routing-key", covers=["routing:headers-all"])
def routing_key_plays_no_part(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "headers")
    queue = bound_queue(s, channel, exchange, "key", arguments=A)
    for key in ("key", "other", ""):
        check_equal(is_routed(channel, exchange, queue, key, A), True, f"routed by key {key!r}")
    check_equal(is_routed(channel, exchange, queue, "key", B), False, "routed with other headers")


@scenario("headers.unbind", covers=["routing:headers-all", "method:queue.unbind"])
def bindings_are_told_apart_by_their_arguments(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "headers")
    queue = s.queue(channel)
    for arguments in (A, B):
        channel.bind(queue, exchange, arguments=arguments)
    both = {**A, **B}
    check_equal(is_routed(channel, exchange, queue, headers=both), True, "routed once")
    channel.call("queue.unbind", queue=queue, exchange=exchange)
    channel.call("queue.unbind", queue=queue, exchange=exchange, arguments=both)
    for arguments in (A, B):
        check_equal(is_routed(channel, exchange, queue, headers=arguments), True, "still bound")
    channel.call("queue.unbind", queue=queue, exchange=exchange, arguments=A)
    check_equal(is_routed(channel, exchange, queue, headers=A), False, "routed after unbind")
    check_equal(is_routed(channel, exchange, queue, headers=B), True, "the other binding")


@scenario("headers.argument-order", covers=["routing:headers-all", "method:queue.unbind"])
def order_of_the_arguments_does_not_matter(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "headers")
    queue = bound_queue(s, channel, exchange, "", arguments={**A, **B})
    arguments = {**B, **A}
    channel.bind(queue, exchange, arguments=arguments)
    channel.call("queue.unbind", queue=queue, exchange=exchange, arguments=arguments)
    check_equal(is_routed(channel, exchange, queue, headers=arguments), False, "routed")


@scenario("headers.argument-types", covers=["routing:headers-all", "method:queue.unbind"])
def bindings_are_told_apart_by_the_types_of_their_arguments(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "headers")
    queue = bound_queue(s, channel, exchange, "", arguments={"a": 1})
    for value, expected in ((fields.long(1), True), (fields.short(1), True), (1, False)):
        arguments = {"a": value}
        channel.call("queue.unbind", queue=queue, exchange=exchange, arguments=arguments)
        found = is_routed(channel, exchange, queue, headers=A)
        check_equal(found, expected, f"routed after the unbind with {value}")


@scenario("headers.bad-x-match", covers=["error:invalid-x-match"])
def unknown_x_match_is_refused(s: Session) -> None:
    channel = s.channel()
    exchange, destination = s.exchange(channel, "headers"), s.exchange(channel)
    queue = s.queue(channel)
    for value, term in (
        ("foo", '<<"foo">>'),
        ("All", '<<"All">>'),
        ("", "<<>>"),
        ('a"b', '<<"a\\"b">>'),
    ):
        text = (
            f"PRECONDITION_FAILED - Invalid x-match field value {term};"
            " expected all, any, all-with-x, or any-with-x"
        )
        arguments = {"x-match": value}
        channel.send("queue.bind", queue=queue, exchange=exchange, arguments=arguments)
        channel.expect_close(406, text, "queue.bind")
        channel.reopen()
        channel.send("exchange.bind", source=exchange, destination=destination, arguments=arguments)
        channel.expect_close(406, text, "exchange.bind")
        channel.reopen()
    check_equal(is_routed(channel, exchange, queue, headers=A), False, "routed")


@scenario("headers.bad-x-match-type", covers=["error:invalid-x-match"])
def x_match_that_is_no_string_is_refused(s: Session) -> None:
    channel = s.channel()
    exchange = s.exchange(channel, "headers")
    queue = s.queue(channel)
    for value, kind, term in (
        (1, "signedint", "1"),
        (fields.long(-2), "long", "-2"),
        (True, "bool", "true"),
        (None, "void", "undefined"),
    ):
        channel.send("queue.bind", queue=queue, exchange=exchange, arguments={"x-match": value})
        text = f"Invalid x-match field type {kind} (value {term}); expected longstr"
        channel.expect_close(406, f"PRECONDITION_FAILED - {text}", "queue.bind")
        channel.reopen()


@scenario("headers.bad-x-match-elsewhere", covers=["error:invalid-x-match"])
def x_match_means_nothing_to_other_exchanges_and_to_unbind(s: Session) -> None:
    channel = s.channel()
    queue = s.queue(channel)
    arguments = {"x-match": "foo"}
    for kind in ("direct", "fanout", "topic"):
        exchange = s.exchange(channel, kind)
        channel.bind(queue, exchange, "key", arguments=arguments)
        check_equal(is_routed(channel, exchange, queue, "key"), True, f"routed by {kind}")
    headers = s.exchange(channel, "headers")
    channel.call("queue.unbind", queue=queue, exchange=headers, arguments=arguments)

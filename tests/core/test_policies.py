"""Policies by themselves: what is refused and in which words, which one holds, and how both kinds
are merged. The words were read off RabbitMQ 3.10 and its source."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.policies import (
    CLASSIC_QUEUE,
    EXCHANGE,
    NOTHING,
    PATTERN_MAX,
    QUORUM_QUEUE,
    Policies,
    Policy,
    PolicyError,
    check_policy,
    make_policy,
    merge,
    policy_text,
)
from broker.core.policy_keys import OPERATOR_KEYS, without_effect
from tests.wire.profiles import examples

LENGTH = {"max-length": 1}
HA_MODE_MISSING = (
    "ha-mode must be specified to specify ha-params, ha-sync-mode or ha-promote-on-shutdown"
)


def problem(*, is_operator: bool = False, apply_to: str = "all", **value: object) -> str | None:
    """What is said to be wrong with a policy, otherwise without fault."""
    found = {"pattern": ".*", "definition": LENGTH, "apply-to": apply_to, **value}
    try:
        make_policy("a", found, is_operator=is_operator)
    except PolicyError as error:
        return str(error)
    return None


def of(definition: object, *, is_operator: bool = False) -> str | None:
    return problem(definition=definition, is_operator=is_operator)


@pytest.mark.parametrize(
    ("definition", "wanted"),
    [
        ({"message-ttl": -1}, "-1 is not a valid message TTL"),
        ({"message-ttl": 1.5}, "1.5 is not a valid message TTL"),
        ({"message-ttl": True}, "true is not a valid message TTL"),
        ({"expires": 0}, "0 is not a valid queue expiry"),
        ({"max-length": "x"}, '<<"x">> is not a valid maximum length'),
        ({"max-length-bytes": None}, "null is not a valid maximum length in bytes"),
        ({"overflow": "é"}, '<<"é">> is not a valid overflow value'),
        (
            {"overflow": {"a": [1, True, None]}},
            '#{<<"a">> => [1,true,null]} is not a valid overflow value',
        ),
        ({"delivery-limit": "3"}, '<<"3">> is not a valid delivery limit'),
        ({"dead-letter-exchange": 1}, "1 is not a valid dead letter exchange name"),
        ({"dead-letter-routing-key": []}, "[] is not a valid dead letter routing key"),
        ({"dead-letter-strategy": "zz"}, '<<"zz">> is not a valid dead letter strategy'),
        ({"alternate-exchange": {}}, "#{} is not a valid alternate exchange name"),
        ({"queue-version": 3}, "3 is not a valid queue-version value"),
        ({"queue-mode": "x"}, '<<"x">> is not a valid queue-mode value'),
        ({"max-age": "zz"}, '<<"zz">> is not a valid max age'),
        ({"consumer-timeout": -5}, "-5 is not a valid consumer timeout"),
        ({"delayed-message": 1}, "1 is not a valid delayed-message value"),
        ({"delayed-retry-multiplier": 0.5}, "0.5 is not a valid delayed-retry-multiplier value"),
        ({"ha-mode": "z"}, '<<"z">> is not a valid ha-mode value'),
        (
            {"ha-params": 10},
            HA_MODE_MISSING,
        ),
        (
            {"nonsense": 1, "foo": "x"},
            '[{<<"foo">>,<<"x">>},{<<"nonsense">>,1}] are not recognised policy settings',
        ),
        ({"nonsense": 1, "max-length": "x"}, '<<"x">> is not a valid maximum length'),
        ({}, "no policy provided"),
        ([1], "definition must be a dictionary: [1]"),
        (None, "definition must be a dictionary: null"),
    ],
)
def test_bad_definition_is_refused_in_rabbitmqs_words(definition: object, wanted: str) -> None:
    assert of(definition) == wanted


@pytest.mark.parametrize(
    "definition",
    [
        {"message-ttl": 0, "expires": 1, "max-length": 0, "overflow": "reject-publish-dlx"},
        {"dead-letter-exchange": "", "dead-letter-routing-key": "", "delivery-limit": -1},
        {"message-ttl": 999_999_999_999_999},
        {"delayed-retry-type": "all", "delayed-retry-min": 0, "delayed-retry-multiplier": 1.5},
        {"ha-mode": "exactly", "ha-params": 2, "ha-sync-mode": "automatic"},
        {"delayed-message": True, "alternate-exchange": "ü" * 127},
    ],
)
def test_good_definition_is_taken(definition: object) -> None:
    assert of(definition) is None


def test_name_that_no_frame_can_carry_is_refused() -> None:
    for bad in ("ü" * 128, "\ud800"):
        assert str(of({"dead-letter-exchange": bad})).endswith(
            "is not a valid dead letter exchange name"
        )


def test_operator_policy_takes_limits_and_nothing_else() -> None:
    for key in OPERATOR_KEYS - {"overflow", "queue-version"}:
        assert of({key: 1}, is_operator=True) is None
    assert of({"overflow": "drop-head", "queue-version": 2}, is_operator=True) is None
    assert (
        of({"dead-letter-exchange": "x"}, is_operator=True)
        == '[{<<"dead-letter-exchange">>,<<"x">>}] are not recognised policy settings'
    )
    assert of({"max-length": -1}, is_operator=True) == "-1 is not a valid maximum length"


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(", '{"missing ), unterminated subpattern",0}'),
        ("*", '{"nothing to repeat",0}'),
        ("[[:nix:]]", '{"unknown POSIX class name",0}'),
        ("a{1,99999999999}", '{"the repetition number is too large",0}'),
    ],
)
def test_bad_pattern_is_refused_with_its_reason(pattern: str, reason: str) -> None:
    assert problem(pattern=pattern) == (
        f"pattern should be regular expression but is invalid: {reason}"
    )


def test_pattern_that_is_too_long_or_too_deep_or_no_text_is_refused() -> None:
    assert problem(pattern="a" * (PATTERN_MAX + 1)) == (
        "pattern has 1025 characters, it may have at most 1024"
    )
    assert problem(pattern="a" * PATTERN_MAX) is None
    depth = PATTERN_MAX // 2
    deep = problem(pattern="(" * depth + ")" * depth)
    assert deep is None or deep.startswith("pattern should be regular expression but is invalid")
    assert problem(pattern=None) == "pattern should be a binary but was null"


def test_priority_apply_to_and_name_are_checked() -> None:
    assert problem(priority="x") == 'priority should be a number, actually was <<"x">>'
    assert problem(priority=True) == "priority should be a number, actually was true"
    assert problem(apply_to="things") == (
        "apply-to 'things' unrecognised; should be one of: 'queues', 'classic_queues', "
        "'quorum_queues', 'streams', 'exchanges', or 'all'"
    )
    for name in ("", "ü" * 128):
        with pytest.raises(PolicyError, match="1 to 255 bytes"):
            make_policy(name, {"pattern": "", "definition": LENGTH})


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda some: (
            st.lists(some, max_size=3) | st.dictionaries(st.text(max_size=5), some, max_size=3)
        ),
    )
    | st.dictionaries(
        st.sampled_from([*sorted(OPERATOR_KEYS), "dead-letter-exchange", "delayed-message"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    )
)
@examples(200)
def test_any_definition_is_refused_in_one_line_or_comes_back_as_it_was(definition: object) -> None:
    value = {"pattern": "x", "definition": definition, "apply-to": "queues", "priority": 7}
    wrong = of(definition)
    if wrong is not None:
        assert wrong.splitlines() == [wrong]
        return
    made = make_policy("a", value)
    assert make_policy("a", json.loads(policy_text(made))) == made
    assert made.value() == value


# Which one holds


def policy(name: str, pattern: str = "", priority: int = 0, **more: object) -> Policy:
    made = Policy(
        name=name,
        pattern=pattern,
        definition=more.pop("definition", LENGTH),  # type: ignore[arg-type]
        priority=priority,
        **more,  # type: ignore[arg-type]
    )
    check_policy(made)
    return made


def policies(*some: Policy) -> Policies:
    made = Policies()
    for each in some:
        made.set(each)
    return made


def test_highest_priority_that_matches_holds() -> None:
    held = policies(
        policy("low", "^q", -1), policy("none", "^x", 9), policy("high", "q", 2), policy("mid", "q")
    )
    assert held.effective(CLASSIC_QUEUE, "q1").policy == "high"
    held.remove(held.all()[1])
    assert held.effective(CLASSIC_QUEUE, "q1").policy == "mid"
    assert held.effective(CLASSIC_QUEUE, "nothing else") is NOTHING


def test_equal_priorities_go_by_name_whichever_came_first() -> None:
    for names in ("ab", "ba"):
        held = policies(*[policy(name) for name in names])
        assert held.effective(EXCHANGE, "").policy == "a"


@pytest.mark.parametrize(
    ("apply_to", "covered"),
    [
        ("all", {EXCHANGE, CLASSIC_QUEUE, QUORUM_QUEUE}),
        ("queues", {CLASSIC_QUEUE, QUORUM_QUEUE}),
        ("classic_queues", {CLASSIC_QUEUE}),
        ("quorum_queues", {QUORUM_QUEUE}),
        ("exchanges", {EXCHANGE}),
        ("streams", set()),
    ],
)
def test_apply_to_says_what_is_covered(apply_to: str, covered: set[str]) -> None:
    made = policy("a", apply_to=apply_to)
    kinds = {EXCHANGE, CLASSIC_QUEUE, QUORUM_QUEUE}
    assert {kind for kind in kinds if made.covers(kind, "q")} == covered


def test_policy_is_replaced_by_one_of_its_name_and_operator_policies_are_others() -> None:
    held = policies(policy("a", priority=1), policy("a", is_operator=True), policy("a"))
    assert [(each.priority, each.is_operator) for each in held.all()] == [(0, False), (0, True)]
    assert held.effective(CLASSIC_QUEUE, "q")[:2] == ("a", "a")


def test_operator_policy_is_found_apart_and_merged() -> None:
    held = policies(
        policy("p", priority=5, definition={"max-length": 10, "message-ttl": 1}),
        policy("o", is_operator=True, definition={"max-length": 5, "message-ttl": 2}),
    )
    assert held.effective(CLASSIC_QUEUE, "q") == ("p", "o", {"max-length": 5, "message-ttl": 1})
    held.remove(held.all()[0])
    assert held.effective(CLASSIC_QUEUE, "q") == (None, "o", {"max-length": 5, "message-ttl": 2})


def test_merged_definition_has_the_lower_limits_and_else_what_the_operator_says() -> None:
    ours = {"max-length": 5, "overflow": "drop-head", "queue-version": 2, "queue-mode": "lazy"}
    theirs = {"max-length": 9, "overflow": "reject-publish", "queue-version": 1, "expires": 7}
    assert merge(ours, theirs) == {
        "max-length": 5,
        "overflow": "reject-publish",
        "queue-version": 1,
        "queue-mode": "lazy",
        "expires": 7,
    }
    assert merge({"delivery-limit": -1}, {"delivery-limit": 4}) == {"delivery-limit": 4}
    assert merge({"max-in-memory-length": 3}, {"max-in-memory-length": 4}) == {
        "max-in-memory-length": 3
    }


def test_keys_that_do_nothing_are_known() -> None:
    assert without_effect({"ha-mode": "all", "queue-mode": "lazy", "alternate-exchange": "x"}) == [
        "ha-mode",
        "queue-mode",
    ]

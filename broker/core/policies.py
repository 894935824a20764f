"""Policies: rules for all queues and exchanges of a virtual host whose names match a pattern
(RabbitMQ, "Parameters and Policies").

One policy holds for an object, the one of the highest priority that matches; beside it one
operator policy, found in the same way, whose limits hold where they are lower.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from broker.core.patterns import compile_pattern
from broker.core.policy_keys import is_name, is_whole, term, wrong_definition
from broker.core.rules import LEAST, lower
from exchanges.erlang import erlang_string

PATTERN_MAX = 1024
"""Characters of a pattern."""
EXCHANGE = "exchanges"
CLASSIC_QUEUE = "classic_queues"
QUORUM_QUEUE = "quorum_queues"
_COVERED = {
    "all": frozenset({EXCHANGE, CLASSIC_QUEUE, QUORUM_QUEUE}),
    "exchanges": frozenset({EXCHANGE}),
    "queues": frozenset({CLASSIC_QUEUE, QUORUM_QUEUE}),
    "classic_queues": frozenset({CLASSIC_QUEUE}),
    "quorum_queues": frozenset({QUORUM_QUEUE}),
    "streams": frozenset[str](),
}
"""What each value of `apply-to` covers."""
_LEAST = LEAST | {"max-in-memory-length", "max-in-memory-bytes"}


class PolicyError(ValueError):
    """A policy that cannot be. Its text is one sentence that says what is wrong."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy, or an operator policy. `pattern` is searched in names, and not anchored;
    `definition` has values as JSON has them."""

    name: str
    pattern: str
    definition: Mapping[str, object]
    apply_to: str = "all"
    priority: int = 0
    is_operator: bool = False

    def covers(self, kind: str, name: str) -> bool:
        """Whether it may hold for the object of this name and kind (EXCHANGE, CLASSIC_QUEUE or
        QUORUM_QUEUE)."""
        return kind in _COVERED[self.apply_to] and (
            compile_pattern(self.pattern).search(name) is not None
        )

    def value(self) -> dict[str, object]:
        """What RabbitMQ exports of it, beside its name."""
        return {
            "pattern": self.pattern,
            "apply-to": self.apply_to,
            "definition": dict(self.definition),
            "priority": self.priority,
        }


class Effective(NamedTuple):
    """What holds for one queue or exchange: the names of its policy and operator policy, and both
    definitions merged."""

    policy: str | None
    operator_policy: str | None
    definition: dict[str, object]


NOTHING = Effective(None, None, {})


def check_policy(policy: Policy) -> None:
    """Raises PolicyError for the first thing that is wrong."""
    if not is_name(policy.name) or not policy.name:
        raise PolicyError("the name of a policy has 1 to 255 bytes")
    if not is_whole(policy.priority):
        raise PolicyError(f"priority should be a number, actually was {term(policy.priority)}")
    _check_pattern(policy.pattern)
    if policy.apply_to not in _COVERED:
        raise PolicyError(
            f"apply-to '{policy.apply_to}' unrecognised; should be one of: 'queues', "
            "'classic_queues', 'quorum_queues', 'streams', 'exchanges', or 'all'"
        )
    wrong = wrong_definition(policy.definition, is_operator=policy.is_operator)
    if wrong:
        raise PolicyError(wrong)


def _check_pattern(pattern: object) -> None:
    if not isinstance(pattern, str):
        raise PolicyError(f"pattern should be a binary but was {term(pattern)}")
    if len(pattern) > PATTERN_MAX:
        raise PolicyError(
            f"pattern has {len(pattern)} characters, it may have at most {PATTERN_MAX}"
        )
    try:
        compile_pattern(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        reason, place = getattr(error, "msg", str(error)), getattr(error, "pos", 0) or 0
        raise PolicyError(
            "pattern should be regular expression but is invalid: "
            f"{{{erlang_string(reason)},{place}}}"
        ) from None


def make_policy(name: str, value: Mapping[str, object], *, is_operator: bool = False) -> Policy:
    """The policy of this name that `Policy.value` would say so. Raises PolicyError."""
    definition = value.get("definition")
    policy = Policy(
        name=name,
        pattern=value.get("pattern"),  # type: ignore[arg-type]  # all of it is checked here
        definition=definition,  # type: ignore[arg-type]  # the same
        apply_to=str(value.get("apply-to", "all")),
        priority=value.get("priority", 0),  # type: ignore[arg-type]  # the same
        is_operator=is_operator,
    )
    check_policy(policy)
    return policy


def policy_text(policy: Policy) -> str:
    """`value` as JSON, in ASCII."""
    return json.dumps(policy.value(), separators=(",", ":"), sort_keys=True)


class Policies:
    """The policies of one virtual host, and its operator policies, each by name."""

    def __init__(self) -> None:
        self._policies: dict[str, Policy] = {}
        self._operator_policies: dict[str, Policy] = {}
        # The same in the order in which they are tried.
        self._tried: tuple[Policy, ...] = ()
        self._operators_tried: tuple[Policy, ...] = ()

    def __bool__(self) -> bool:
        return bool(self._tried or self._operators_tried)

    def get(self, name: str, *, is_operator: bool = False) -> Policy | None:
        """The one of this name."""
        return (self._operator_policies if is_operator else self._policies).get(name)

    def all(self) -> list[Policy]:
        """All of them, the highest priority first; operator policies last."""
        return [*self._tried, *self._operators_tried]

    def set(self, policy: Policy) -> None:
        """Adds a policy, which has been checked, or replaces the one of its name."""
        (self._operator_policies if policy.is_operator else self._policies)[policy.name] = policy
        self._sort()

    def remove(self, policy: Policy) -> None:
        """Takes one away."""
        del (self._operator_policies if policy.is_operator else self._policies)[policy.name]
        self._sort()

    def _sort(self) -> None:
        self._tried = _in_order(self._policies.values())
        self._operators_tried = _in_order(self._operator_policies.values())

    def effective(self, kind: str, name: str) -> Effective:
        """What holds for the object of this name and kind."""
        policy = _first(self._tried, kind, name)
        operator = _first(self._operators_tried, kind, name)
        if policy is None and operator is None:
            return NOTHING
        return Effective(
            policy.name if policy else None,
            operator.name if operator else None,
            merge(policy.definition if policy else {}, operator.definition if operator else {}),
        )


def _in_order(policies: Iterable[Policy]) -> tuple[Policy, ...]:
    """The highest priority first. RabbitMQ leaves open which one of several equals holds: here it
    is the first by name."""
    return tuple(sorted(policies, key=lambda policy: (-policy.priority, policy.name)))


def _first(policies: Iterable[Policy], kind: str, name: str) -> Policy | None:
    return next((policy for policy in policies if policy.covers(kind, name)), None)


def merge(definition: Mapping[str, object], operator: Mapping[str, object]) -> dict[str, object]:
    """Both definitions as one (rabbit_policy:merge_operator_definitions): the lower limit holds,
    of all else what the operator says."""
    merged = {**definition, **operator}
    for key in _LEAST & definition.keys() & operator.keys():
        merged[key] = lower(key, definition[key], operator[key])
    return merged

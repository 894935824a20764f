"""Policies, declarations and restarts in any order: what holds is always what a few lines of a
model say."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from broker.core.policies import Policy, PolicyError
from broker.core.redeclare import Redeclare
from broker.wire.table import Field, Table
from tests.durable.site import DurableSite
from tests.wire.profiles import steps

QUEUES = ("orders.1", "orders.2", "chat")
EXCHANGES = ("orders", "chat")
DURABLE = st.sampled_from([True, True, False])
PATTERNS = ("", "^orders", "2$", "chat", "nothing", "^$", r"orders\.[[:digit:]]")
LIMITS = {
    "max-length": st.integers(0, 4),
    "message-ttl": st.integers(1, 4),
    "delivery-limit": st.integers(-1, 3),
}
TEXTS = {
    "overflow": st.sampled_from(["drop-head", "reject-publish"]),
    "dead-letter-exchange": st.sampled_from(["x", "y"]),
}
ALTERNATE = {"alternate-exchange": st.sampled_from(["x", "y"])}


def some(values: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Some of these keys, with values."""
    return st.fixed_dictionaries({}, optional=values)


def table(values: dict[str, Any], prefix: str = "x-") -> Table:
    return {
        f"{prefix}{key}": Field("longstr" if isinstance(value, str) else "long", value)
        for key, value in values.items()
    }


class PolicyMachine(RuleBasedStateMachine):
    """A broker, and beside it what was asked for so far."""

    def __init__(self) -> None:
        super().__init__()
        self.site = DurableSite()
        self.site.broker.redeclare = {"/": Redeclare.ADOPT}
        self.policies: dict[tuple[bool, str], Policy] = {}
        # (durable, kind, arguments) of queues, (durable, alternate) of exchanges.
        self.queues: dict[str, tuple[bool, str, dict[str, Any]]] = {}
        self.exchanges: dict[str, tuple[bool, dict[str, Any]]] = {}

    @rule(
        name=st.sampled_from("ab"),
        pattern=st.sampled_from(PATTERNS),
        limits=some(LIMITS),
        rest=some(TEXTS | ALTERNATE),
        apply_to=st.sampled_from(["all", "queues", "quorum_queues", "classic_queues", "exchanges"]),
        priority=st.integers(-1, 1),
        is_operator=st.booleans(),
    )
    def set_policy(
        self,
        name: str,
        pattern: str,
        limits: dict[str, Any],
        rest: dict[str, Any],
        apply_to: str,
        priority: int,
        is_operator: bool,
    ) -> None:
        if is_operator:
            rest.pop("dead-letter-exchange", None)
            rest.pop("alternate-exchange", None)
        policy = Policy(name, pattern, limits | rest, apply_to, priority, is_operator)
        try:
            self.site.vhost.set_policy(policy)
        except PolicyError:
            assert not policy.definition
        else:
            self.policies[is_operator, name] = policy

    @rule(name=st.sampled_from("ab"), is_operator=st.booleans())
    def clear_policy(self, name: str, is_operator: bool) -> None:
        try:
            self.site.vhost.clear_policy(name, is_operator=is_operator)
        except PolicyError:
            assert (is_operator, name) not in self.policies
        else:
            del self.policies[is_operator, name]

    @rule(
        name=st.sampled_from(QUEUES),
        durable=DURABLE,
        is_quorum=st.booleans(),
        values=some(LIMITS | TEXTS),
    )
    def declare_queue(
        self, name: str, durable: bool, is_quorum: bool, values: dict[str, Any]
    ) -> None:
        kind = "quorum" if is_quorum else "classic"
        if name in self.queues:
            durable, kind, _ = self.queues[name]
        arguments = table(values) | {"x-queue-type": Field("longstr", kind)}
        self.site.vhost.declare_queue(name, durable=durable, arguments=arguments)
        self.queues[name] = durable, kind, values

    @rule(name=st.sampled_from(EXCHANGES), durable=DURABLE, values=some(ALTERNATE))
    def declare_exchange(self, name: str, durable: bool, values: dict[str, Any]) -> None:
        if name in self.exchanges:
            durable, _ = self.exchanges[name]
        arguments = table(values, prefix="")
        self.site.vhost.declare_exchange(name, "direct", durable=durable, arguments=arguments)
        self.exchanges[name] = durable, values

    @rule(name=st.sampled_from(QUEUES))
    def delete_queue(self, name: str) -> None:
        if self.queues.pop(name, None):
            self.site.vhost.delete_queue(self.site.vhost.queues[name])

    @rule(is_crash=st.booleans())
    def restart(self, is_crash: bool) -> None:
        self.site.collect()
        self.site.settle_down()
        self.site = self.site.crash() if is_crash else self.site.stop()
        self.site.broker.redeclare = {"/": Redeclare.ADOPT}
        self.queues = {name: known for name, known in self.queues.items() if known[0]}
        self.exchanges = {name: known for name, known in self.exchanges.items() if known[0]}

    def merged(self, covers: set[str], name: str) -> dict[str, Any]:
        """What the policies say of an object to which these values of `apply-to` apply."""
        found: list[dict[str, Any]] = []
        for is_operator in (False, True):
            matching = [
                policy
                for (kind, _), policy in self.policies.items()
                if kind is is_operator
                and policy.apply_to in covers
                and re.search(policy.pattern.replace("[[:digit:]]", "[0-9]"), name)
            ]
            matching.sort(key=lambda policy: policy.name)
            matching.sort(key=lambda policy: policy.priority, reverse=True)
            found.append(dict(matching[0].definition) if matching else {})
        ours, operator = found
        return ours | operator | {key: least(key, ours, operator) for key in LIMITS}

    @invariant()
    def every_queue_has_the_rules_of_the_model(self) -> None:
        vhost = self.site.vhost
        assert vhost.queues.keys() == self.queues.keys()
        for name, (_, kind, values) in self.queues.items():
            policy = self.merged({"all", "queues", f"{kind}_queues"}, name)
            found = policy | values | {key: least(key, policy, values) for key in LIMITS}
            rules = vhost.queues[name].rules
            assert rules.max_length == found["max-length"]
            assert rules.message_ttl == found["message-ttl"]
            assert rules.delivery_limit == found["delivery-limit"]
            assert rules.overflow == found.get("overflow", "drop-head")
            assert rules.dead_letter_exchange == found.get("dead-letter-exchange")

    @invariant()
    def every_exchange_has_the_alternate_of_the_model(self) -> None:
        known: dict[str, tuple[bool, dict[str, Any]]] = {"amq.direct": (True, {}), **self.exchanges}
        for name, (_, values) in known.items():
            policy = self.merged({"all", "exchanges"}, name)
            wanted = values.get("alternate-exchange", policy.get("alternate-exchange"))
            assert self.site.vhost.exchanges[name].alternate == wanted
        assert self.site.vhost.exchanges[""].alternate is None


def least(key: str, *definitions: dict[str, Any]) -> int | None:
    """The lowest limit that any of these has; a negative one is none."""
    limits = [found[key] for found in definitions if found.get(key) is not None]
    return min((limit for limit in limits if limit >= 0), default=None)


def test_what_holds_is_what_was_asked_for_whatever_came_before() -> None:
    run_state_machine_as_test(PolicyMachine, settings=steps(60, 30))

"""The policies of a virtual host in effect: its queues and exchanges follow each change at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.core.arguments import is_quorum
from broker.core.deduplication.owners import follow
from broker.core.definitions import policy_definition
from broker.core.exchange import Exchange
from broker.core.policies import (
    CLASSIC_QUEUE,
    EXCHANGE,
    NOTHING,
    QUORUM_QUEUE,
    Effective,
    Policies,
    Policy,
    PolicyError,
    check_policy,
)
from broker.core.policy_keys import without_effect
from broker.core.queue import Queue
from broker.core.rules import NO_RULES, QueueRules, rules_of

if TYPE_CHECKING:
    from broker.core.vhost import VHost


class LivePolicies:
    """The policies and operator policies of one virtual host."""

    def __init__(self, vhost: VHost) -> None:
        self._vhost = vhost
        # Queues with a TTL for messages, and those that may refuse what is published.
        self.timed_count = self.refusing_count = 0
        # Queues and exchanges that know duplicates.
        self.deduplicating_count = 0
        self._policies = Policies()

    def all(self) -> list[Policy]:
        """All of them, the highest priority first; operator policies last."""
        return self._policies.all()

    def get(self, name: str, *, is_operator: bool = False) -> Policy | None:
        """The one of this name, if there is one."""
        return self._policies.get(name, is_operator=is_operator)

    def set(self, policy: Policy) -> None:
        """Adds a policy or replaces the one of its name. Raises PolicyError for one that cannot
        be, AMQPError (INTERNAL_ERROR) if it would not last."""
        check_policy(policy)
        known = self.get(policy.name, is_operator=policy.is_operator)
        if known == policy:
            return
        self._vhost.broker.check_can_change()
        self._policies.set(policy)
        self._change(policy, known)
        self._vhost.broker.redefine(policy_definition(self._vhost.name, policy))
        self._note("policy_set", policy, ignored=without_effect(policy.definition))

    def clear(self, name: str, *, is_operator: bool = False) -> None:
        """Takes a policy away. Raises PolicyError if there is none of this name, AMQPError
        (INTERNAL_ERROR) if it would come back."""
        policy = self.get(name, is_operator=is_operator)
        if policy is None:
            raise PolicyError("Parameter does not exist")
        self._vhost.broker.check_can_change()
        self._policies.remove(policy)
        self._change(policy)
        self._vhost.broker.undefine(policy_definition(self._vhost.name, policy))
        self._note("policy_cleared", policy)

    def restore(self, policy: Policy) -> None:
        """A policy is there since before the start; nobody follows it yet."""
        self._policies.set(policy)

    def of(self, resource: Queue | Exchange) -> Effective:
        """What holds for a queue or exchange."""
        if not self._policies or resource.name == "":
            return NOTHING
        return self._policies.effective(_kind(resource), resource.name)

    def apply(self, resource: Queue | Exchange) -> None:
        """Tells a queue or exchange what holds for it."""
        definition = self.of(resource).definition
        if isinstance(resource, Exchange):
            resource.apply_policy(definition)
        else:
            before = resource.rules
            resource.apply_rules(rules_of(resource.arguments, definition))
            self._count(before, resource.rules)
        self.deduplicating_count += follow(self._vhost.broker, resource, definition)

    def forget(self, resource: Queue | Exchange) -> None:
        """A queue or exchange is deleted."""
        if isinstance(resource, Queue):
            self._count(resource.rules, NO_RULES)
        if resource.duplicates is not None:
            resource.duplicates.close()
            # A transaction may still have something for it.
            resource.duplicates = None
            self.deduplicating_count -= 1

    def _count(self, before: QueueRules, after: QueueRules) -> None:
        self.timed_count += (after.message_ttl is not None) - (before.message_ttl is not None)
        self.refusing_count += after.refuses - before.refuses

    def _change(self, *changed: Policy | None) -> None:
        """Every queue and exchange that one of these covers or covered follows."""
        vhost = self._vhost
        policies = [policy for policy in changed if policy is not None]
        resources: list[Queue | Exchange] = [*vhost.exchanges.values(), *vhost.queues.values()]
        for resource in resources:
            kind = _kind(resource)
            if any(policy.covers(kind, resource.name) for policy in policies):
                self.apply(resource)
        vhost.epoch += 1

    def _note(self, event: str, policy: Policy, **details: object) -> None:
        about = {"vhost": self._vhost.name, "policy": policy, **details}
        self._vhost.broker.note(event, about)


def _kind(resource: Queue | Exchange) -> str:
    if isinstance(resource, Exchange):
        return EXCHANGE
    return QUORUM_QUEUE if is_quorum(resource.arguments) else CLASSIC_QUEUE

"""Seeded runs with all features at random. Each step has dice of its own, so that a run can be
made shorter: what is left out changes nothing else."""

from __future__ import annotations

from collections.abc import Callable, Collection
from random import Random
from typing import Any

from tests.durable.mixed_end import crash_at_rest, end_in_the_midst, stop_at_rest
from tests.durable.mixed_judge import MixedMachine
from tests.durable.mixed_machine import GET
from tests.durable.mixed_world import DEAD, FANOUT, LATER, ONCE, QUEUES, WORK
from tests.durable.observer import ViolationError

SWARM = (
    "dead-letter-exchange",
    "message-ttl",
    "expires",
    "max-length",
    "delivery-limit",
    "consumer-timeout",
    "consumer-timeout-action",
    "delayed-retry-type",
    "ttl",
    "no_ack",
    LATER,
    ONCE,
    "purge",
    "crash",
)
"""What only about half of the runs have, each: where everything is rare, little meets."""
Action = Callable[[MixedMachine, Random], None]
WEIGHTS: dict[Action, int] = {}
BACKLOG_MAX = 25
ACTIONS = ("cancel-consumer", "close-channel")
ROOMS = (None, "a", "a", "b", "c")
IDENTITIES = (None, None, "1", "2", "3", "4", "5")


def weight(number: int) -> Callable[[Action], Action]:
    def register(function: Action) -> Action:
        WEIGHTS[function] = number
        return function

    return register


@weight(30)
def publish(machine: MixedMachine, dice: Random) -> None:
    queue = dice.choice(WORK)
    ways = [each for each in ["", "", "", LATER, ONCE] if not each or each in machine.swarm]
    by_way = dice.choice(ways)
    ttls = [None, None, None, None, 0, 30, 200, 2000] if "ttl" in machine.swarm else [None]
    count = dice.randint(1, 6)
    family = FANOUT if by_way == ONCE else [queue]
    there = sum(WORK[each.family] in family for each in machine.world.alive)
    broker = machine.site.broker
    used = broker.memory_used + sum(journal.index_bytes for journal in broker.journals)
    limit = broker.limits.memory
    if there + count > BACKLOG_MAX or (limit and used + count * 2500 > 0.9 * limit):
        return
    machine.publish(
        [
            {
                "queue": queue,
                "by_way": by_way,
                "padding": dice.choice([0, 0, 90, 300]),
                "room": dice.choice(ROOMS),
                "tenant": dice.choice(ROOMS),
                "identity": dice.choice(IDENTITIES),
                "priority": dice.randrange(5),
                "persistent": dice.random() < machine.persistent_share,
                "ttl": dice.choice(ttls),
                "delay": dice.choice([0, 40, 150, 1500]),
            }
            for _ in range(count)
        ]
    )


@weight(12)
def consume(machine: MixedMachine, dice: Random) -> None:
    late = "consumer-timeout" in machine.swarm
    machine.consume(
        dice.choice([*QUEUES, *WORK, *WORK]),
        {
            "prefetch": dice.choice([1, 2, 3, 8]),
            "rank": dice.choice([0, 0, 0, 5]),
            "no_ack": "no_ack" in machine.swarm and dice.random() < 0.15,
            "timeout": dice.choice([None, None, 100, 400] if late else [None]),
            "action": dice.choice(["", "", "", *ACTIONS] if late else [""]),
        },
    )


@weight(5)
def cancel(machine: MixedMachine, dice: Random) -> None:
    consumers = [each for facts in machine.world.queues.values() for each in facts.consumers]
    if consumers:
        machine.cancel(dice.choice(consumers))


@weight(6)
def get(machine: MixedMachine, dice: Random) -> None:
    machine.get(dice.choice(QUEUES), no_ack=dice.random() < 0.2)


@weight(34)
def settle(machine: MixedMachine, dice: Random) -> None:
    known = [each for each in machine.held if machine.held[each] or machine.late[each]]
    if known:
        how = dice.choice(["ack", "ack", "reject", "requeue", "requeue", "requeue"])
        share = dice.choice([0, 0, dice.randrange(16)])
        machine.settle(dice.choice(known), share, how, multiple=dice.random() < 0.3)


@weight(3)
def give_back(machine: MixedMachine, dice: Random) -> None:
    known = [each for each in machine.held if machine.held[each]]
    machine.give_back(dice.choice(known or [GET]), leave=dice.random() < 0.5)


@weight(2)
def purge(machine: MixedMachine, dice: Random) -> None:
    if "purge" in machine.swarm:
        machine.purge(dice.choice(QUEUES))


@weight(24)
def wait(machine: MixedMachine, dice: Random) -> None:
    milliseconds = dice.choice([1, 10, 40, 100, 300, 1000])
    machine.pass_time(milliseconds, jump=dice.random() < 0.3)


@weight(3)
def declare(machine: MixedMachine, dice: Random) -> None:
    machine.declare(dice.choice(QUEUES))


@weight(8)
def policy(machine: MixedMachine, dice: Random) -> None:
    queue = dice.choice(QUEUES)
    machine.set_policy(queue, some_policy(dice, machine.swarm, is_dead=queue in DEAD))


def some_policy(dice: Random, swarm: Collection[str], *, is_dead: bool) -> dict[str, object]:
    """Some of the keys that policies have. What is dead is looked at less often."""
    definition: dict[str, object] = {}

    def maybe(share: float, key: str, values: list[Any]) -> None:
        is_wanted = key in swarm or key not in SWARM
        if dice.random() < (share / 2 if is_dead else share) and is_wanted:
            definition[key] = dice.choice(values)

    maybe(0.8, "dead-letter-exchange", [""])
    maybe(0.4, "message-ttl", [0, 50, 400, 3000])
    maybe(0.3, "expires", [300, 1500])
    maybe(0.3, "max-length", [1, 3, 8])
    maybe(0.3, "overflow", ["drop-head", "reject-publish", "reject-publish-dlx"])
    maybe(0.4, "delivery-limit", [0, 1, 2, 5])
    maybe(0.3, "consumer-timeout", [0, 150, 600])
    maybe(0.3, "consumer-timeout-action", ["requeue", "cancel-consumer", "close-channel"])
    maybe(0.2, "dead-letter-strategy", ["at-least-once"])
    maybe(0.4, "delayed-retry-type", ["all", "failed", "returned"])
    if "delayed-retry-type" in definition:
        definition["delayed-retry-min"] = dice.choice([20, 100])
        maybe(0.5, "delayed-retry-max", [150])
        maybe(0.5, "delayed-retry-multiplier", [1, 2, 3])
    return definition


@weight(3)
def restart(machine: MixedMachine, dice: Random) -> None:
    if "crash" not in machine.swarm:
        return
    downtime = dice.choice([0, 0, 20, 500])
    (stop_at_rest if dice.random() < 0.5 else crash_at_rest)(machine, downtime)


@weight(5)
def crash(machine: MixedMachine, dice: Random) -> None:
    """The broker ends while the disk is late."""
    if "crash" not in machine.swarm:
        return
    actions = [publish, settle, settle, consume, give_back, get, cancel]
    end_in_the_midst(machine, dice, [dice.choice(actions) for _ in range(dice.randint(1, 5))])


def play_mixed(
    seed: int, steps: int, machine_type: type[MixedMachine], only: Collection[int] | None = None
) -> MixedMachine:
    """One run, or `only` these steps of it. Raises what the machine finds."""
    dice = Random(f"{seed}")
    machine = machine_type(dice)
    machine.swarm = frozenset(each for each in SWARM if dice.random() < 0.6)
    machine.begin()
    for queue in QUEUES:
        dice = Random(f"{seed} {queue}")
        machine.set_policy(queue, some_policy(dice, machine.swarm, is_dead=queue in DEAD))
    machine.rest()
    actions, weights = list(WEIGHTS), list(WEIGHTS.values())
    for number in range(steps):
        dice = Random(f"{seed} {number}")
        [action] = dice.choices(actions, weights)
        if only is None or number in only:
            action(machine, dice)
            machine.rest()
    return machine


def shorten(
    seed: int, steps: int, machine_type: type[MixedMachine]
) -> tuple[list[int], ViolationError] | None:
    """The steps of a run without which it finds nothing, and what it finds; None if it does not."""

    def finding(only: list[int]) -> ViolationError | None:
        try:
            play_mixed(seed, steps, machine_type, only)
        except ViolationError as violation:
            return violation
        return None

    left = list(range(steps))
    found = finding(left)
    if found is None:
        return None
    size = len(left) // 2
    while size:
        place = 0
        while place < len(left):
            fewer = left[:place] + left[place + size :]
            other = finding(fewer)
            if other is not None and other.invariant == found.invariant:
                left, found = fewer, other
            else:
                place += size
        size //= 2
    return left, found

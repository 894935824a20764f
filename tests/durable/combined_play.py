"""Seeded runs where features meet."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from tests.durable.combined_crash import Midst, crash_at_rest, stop_at_rest
from tests.durable.combined_machine import BACKLOG_MAX, CombinedMachine
from tests.durable.combined_model import BRIEF, DEAD, LETTERS, WORK, State
from tests.durable.combined_observer import CHANNELS, GET

Dice = random.Random
Action = Callable[[Any, Dice], None]
WEIGHTS: dict[Action, int] = {}


def weight(number: int) -> Callable[[Action], Action]:
    def register(function: Action) -> Action:
        WEIGHTS[function] = number
        return function

    return register


def some_queue(dice: Dice) -> str:
    return dice.choice([WORK, WORK, WORK, BRIEF])


@weight(30)
def publish(machine: CombinedMachine, dice: Dice) -> None:
    queue = some_queue(dice)
    alive = machine.model.of(queue, State.READY, State.WAITING, State.DELAYED, State.HELD)
    count = dice.randint(1, 6)
    if machine.has_ranks and machine.model.rules[queue].is_limited:
        # Whether some of a batch are too much is judged once, or more often.
        count = 1
    broker = machine.site.broker
    used = broker.memory_used + sum(journal.index_bytes for journal in broker.journals)
    limit = broker.limits.memory
    if len(alive) + count > BACKLOG_MAX or (limit and used + count * 1500 > 0.9 * limit):
        return
    delayed = dice.random() < 0.3
    # What lives no time at all and is too much may die of either.
    brief = delayed or machine.model.rules[queue].is_limited
    ttls = [None, None, None, None, 30, 200, 2000, 30 if brief else 0]
    machine.publish(
        queue,
        [
            {
                "padding": dice.choice([0, 0, 90, 300]),
                "priority": dice.randrange(5),
                "persistent": dice.random() < machine.persistent_share,
                "ttl": dice.choice(ttls),
                "delay": dice.choice([0, 40, 40, 150, 1500]) if delayed else None,
            }
            for _ in range(count)
        ],
    )


@weight(6)
def consume(machine: CombinedMachine, dice: Dice) -> None:
    machine.consume(dice.choice([*LETTERS, WORK]), dice.choice([1, 2, 3, 8]))


@weight(4)
def cancel(machine: CombinedMachine, dice: Dice) -> None:
    machine.cancel(dice.choice(list(LETTERS)))


@weight(6)
def get(machine: CombinedMachine, dice: Dice) -> None:
    machine.get(dice.choice(list(LETTERS)))


@weight(34)
def settle(machine: CombinedMachine, dice: Dice) -> None:
    channels = [number for number, held in machine.worker.held.items() if held]
    if channels:
        how = dice.choice(["ack", "reject", "requeue", "requeue", "requeue"])
        share = dice.choice([0, 0, dice.randrange(16)])
        machine.settle(dice.choice(channels), share, how, multiple=dice.random() < 0.3)


@weight(3)
def give_back(machine: CombinedMachine, dice: Dice) -> None:
    channel = dice.choice([*CHANNELS.values(), GET])
    if dice.random() < 0.5:
        machine.recover(channel)
    else:
        machine.leave(channel)


@weight(2)
def purge(machine: CombinedMachine, dice: Dice) -> None:
    machine.purge(dice.choice([WORK, BRIEF, DEAD]))


@weight(24)
def wait(machine: CombinedMachine, dice: Dice) -> None:
    machine.pass_time(dice.choice([1, 10, 40, 100, 300, 1000]), jump=dice.random() < 0.4)


@weight(8)
def policy(machine: CombinedMachine, dice: Dice) -> None:
    if dice.random() < 0.3:
        definition: dict[str, object] = {"dead-letter-exchange": ""}
        if dice.random() < 0.3:
            definition["message-ttl"] = dice.choice([50, 500])
        machine.set_policy(DEAD, definition if dice.random() < 0.7 else {})
        return
    definition = some_policy(dice, machine.has_octets)
    if machine.limits and definition.get("message-ttl") == 0:
        # What is paged out before the disk lets it be delivered, expires.
        definition["message-ttl"] = 30
    machine.set_policy(WORK, definition)


def some_policy(dice: Dice, has_octets: bool) -> dict[str, object]:
    """Some of the keys that policies have."""
    definition: dict[str, object] = {}
    if dice.random() < 0.75:
        definition["dead-letter-exchange"] = "dlx"
    if dice.random() < 0.4:
        definition["message-ttl"] = dice.choice([0, 50, 400, 3000])
    # As above.
    limited = definition.get("message-ttl") != 0
    if dice.random() < 0.5 and limited:
        definition["max-length"] = dice.choice([1, 3, 8])
        definition["overflow"] = dice.choice(
            ["drop-head", "drop-head", "reject-publish", "reject-publish-dlx"]
        )
    if dice.random() < 0.2 and limited and has_octets:
        definition["max-length-bytes"] = dice.choice([100, 1000])
    if dice.random() < 0.5:
        definition["delivery-limit"] = dice.choice([0, 1, 2, 5])
    if definition.get("overflow") == "reject-publish" and dice.random() < 0.5:
        definition["dead-letter-strategy"] = "at-least-once"
    if dice.random() < 0.5:
        definition["delayed-retry-type"] = dice.choice(["all", "all", "failed", "returned"])
        definition["delayed-retry-min"] = dice.choice([20, 100])
        if dice.random() < 0.5:
            definition["delayed-retry-max"] = 150
        if dice.random() < 0.5:
            definition["delayed-retry-multiplier"] = dice.choice([1, 2, 3])
    return definition


@weight(3)
def restart(machine: CombinedMachine, dice: Dice) -> None:
    if machine.has_octets:
        return
    downtime = dice.choice([0, 0, 20, 500])
    if dice.random() < 0.5:
        stop_at_rest(machine, downtime)
    else:
        crash_at_rest(machine, downtime)


@weight(7)
def end_in_the_midst(machine: CombinedMachine, dice: Dice) -> None:
    """The broker ends while the disk is late."""
    if machine.has_octets:
        return
    midst = Midst(machine)
    for _ in range(dice.randint(1, 5)):
        midst.hear()
        if dice.random() < 0.2:
            midst.pass_time(dice.choice([1, 40, 200]))
        else:
            dice.choice([publish, settle, settle, consume, give_back])(machine, dice)
        if dice.random() < 0.5:
            midst.disk_works(dice.randint(1, 3))
    if dice.random() < 0.3:
        midst.stop(dice.choice([0, 0, 100]))
    else:
        midst.crash(dice.randint(0, 2), dice.choice([0, 0, 100]))


def play_combined(seed: int, steps: int, machine_type: type[CombinedMachine]) -> Any:
    """One run. Raises what the machine finds."""
    dice = random.Random(seed)
    # Octets of bodies that are in a log alone are not known exactly.
    has_octets = not machine_type.limits and dice.random() < 0.2
    attributes = {"has_ranks": dice.random() < 0.6, "has_octets": has_octets}
    machine = type(machine_type.__name__, (machine_type,), attributes)()
    actions, weights = list(WEIGHTS), list(WEIGHTS.values())
    machine.rest()
    for action in dice.choices(actions, weights, k=steps):
        action(machine, dice)
        machine.rest()
    return machine

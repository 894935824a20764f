"""Seeded runs of the machine: longer than those that can be shrunk, and busier. A seed names the
same run for ever."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from broker.storage.log import LogState
from tests.durable.defining import EXCHANGES, PEERS, QUEUES, SOURCES
from tests.durable.disk import DiskMachine
from tests.durable.machine import DurableMachine
from tests.durable.peer import CONFIRM, CONSUME, TX

Dice = random.Random
Action = Callable[[Any, Dice], None]
WEIGHTS: dict[Action, int] = {}
TROUBLE: dict[Action, int] = {}
"""What happens besides where the disk is in trouble. Apart from the others, whose runs stay."""


def weight(number: int, weights: dict[Action, int] = WEIGHTS) -> Callable[[Action], Action]:
    def register(function: Action) -> Action:
        weights[function] = number
        return function

    return register


def some_queue(dice: Dice) -> str:
    return dice.choice(["q0", "q0", "q0", "q1", "q1", "t0"])


@weight(24)
def publish(machine: DurableMachine, dice: Dice) -> None:
    machine.publish_some(
        dice.randrange(PEERS),
        dice.choice([0, 0, 0, 1, 3, 4, 4, 5]),
        dice.randint(1, 6),
        dice.choice([0, 0, 90, 300]),
        persistent=dice.random() < machine.persistent_share,
        in_tx=dice.random() < 0.25,
    )


@weight(5)
def consume(machine: DurableMachine, dice: Dice) -> None:
    number, prefetch = dice.randrange(PEERS), dice.choice([0, 1, 2, 3, 8])
    machine.consume_from(number, some_queue(dice), prefetch, no_ack=dice.random() < 0.15)


@weight(24)
def settle(machine: DurableMachine, dice: Dice) -> None:
    machine.settle_some(
        dice.randrange(PEERS),
        dice.choice([CONFIRM, CONSUME, CONSUME, CONSUME, CONSUME, TX]),
        dice.choice([0, 0, dice.randrange(16)]),
        dice.choice(["ack", "ack", "ack", "reject", "requeue"]),
        multiple=dice.random() < 0.4,
    )


@weight(6)
def burst(machine: DurableMachine, dice: Dice) -> None:
    """Much happens while the disk does nothing: it comes and goes in one batch."""
    for _ in range(3):
        publish(machine, dice)
    for _ in range(5):
        settle(machine, dice)


@weight(6)
def get(machine: DurableMachine, dice: Dice) -> None:
    machine.get(number=dice.randrange(PEERS), name=some_queue(dice), in_tx=dice.random() < 0.5)


@weight(5)
def end_transaction(machine: DurableMachine, dice: Dice) -> None:
    machine.end_transaction(number=dice.randrange(PEERS), commit=dice.random() < 0.8)


@weight(5)
def declare(machine: DurableMachine, dice: Dice) -> None:
    number = dice.randrange(PEERS)
    if dice.random() < 0.5:
        machine.declare_queue(number, dice.choice(list(QUEUES)))
    else:
        machine.declare_exchange(number, dice.choice(list(EXCHANGES)))


@weight(5)
def bind(machine: DurableMachine, dice: Dice) -> None:
    number = dice.randrange(PEERS)
    if dice.random() < 0.2:
        machine.bind_exchanges(number, dice.choice(list(EXCHANGES)))
    else:
        source, queue = dice.choice(SOURCES), dice.choice(list(QUEUES))
        machine.bind(number, source, queue, unbind=dice.random() < 0.2)


@weight(2)
def delete(machine: DurableMachine, dice: Dice) -> None:
    number = dice.randrange(PEERS)
    if dice.random() < 0.6:
        machine.delete_queue(number, dice.choice(list(QUEUES)))
    else:
        machine.delete_exchange(number, dice.choice(list(EXCHANGES)))


@weight(3)
def interrupt(machine: DurableMachine, dice: Dice) -> None:
    what = dice.choice(["cancel", "cancel", "purge", "death"])
    number, share = dice.randrange(PEERS), dice.randrange(16)
    machine.interrupt(number=number, what=what, name=some_queue(dice), share=share)


@weight(14)
def disk(machine: DurableMachine, dice: Dice) -> None:
    machine.disk_works(count=dice.randint(1, 3), tell=dice.random() < 0.8)


@weight(8)
def reads(machine: DurableMachine, dice: Dice) -> None:
    machine.reads_are_answered(count=dice.randint(1, 2))


@weight(2)
def rest(machine: DurableMachine, dice: Dice) -> None:
    machine.all_is_done()


@weight(2)
def crash(machine: DurableMachine, dice: Dice) -> None:
    machine.start(stop=False, keep=dice.randint(0, 2))


@weight(2)
def crash_behind_a_commit(machine: DurableMachine, dice: Dice) -> None:
    for _ in range(3):
        publish(machine, dice)
    machine.end_transaction(number=dice.randrange(PEERS), commit=True)
    machine.disk_works(count=dice.randint(1, 2), tell=False)
    machine.start(stop=False, keep=dice.randint(0, 1))


@weight(1)
def stop(machine: DurableMachine, dice: Dice) -> None:
    machine.stop_and_start()


@weight(4, TROUBLE)
def disk_fills(machine: DiskMachine, dice: Dice) -> None:
    machine.disk_fills(dice.randrange(6))


@weight(5, TROUBLE)
def disk_has_room(machine: DiskMachine, dice: Dice) -> None:
    machine.disk_has_room()


@weight(5, TROUBLE)
def reads_fail(machine: DiskMachine, dice: Dice) -> None:
    machine.reads_fail()


@weight(2, TROUBLE)
def disk_fails(machine: DiskMachine, dice: Dice) -> None:
    machine.disk_fails(dice.randrange(6))


def play_disk(seed: int, steps: int, machine_type: type[DiskMachine] = DiskMachine) -> Any:
    """A run in which backlogs grow and are worked off, while the disk is full, fails and cannot be
    read now and then. It crashes seldom enough that what is only paged out is read again."""
    dice = random.Random(seed)
    machine = machine_type()
    ends = {crash: 1, crash_behind_a_commit: 1, stop: 0, delete: 1, interrupt: 2}
    grow = {**WEIGHTS, **TROUBLE, **ends, publish: 60, consume: 1, settle: 8, burst: 0}
    shrink = {**WEIGHTS, **TROUBLE, **ends, publish: 6, consume: 20, settle: 70, reads: 20}
    for step in range(steps):
        weighted = shrink if step % 100 > 50 else grow
        if machine.seen.site.log.disk is LogState.FAILED:
            # What is refused then; and there is little left to see before a start.
            weighted = {**weighted, end_transaction: 20, interrupt: 8, crash: 10, stop: 5}
        [action] = dice.choices(list(weighted), list(weighted.values()))
        action(machine, dice)
        machine.check_if_quiet()
    machine.teardown()
    return machine


def play_backlog(seed: int, steps: int, machine_type: type[DurableMachine]) -> Any:
    """A run in which a backlog grows, and is then worked off."""
    dice = random.Random(seed)
    machine = machine_type()
    grow = [publish, publish, publish, disk, disk, reads, get]
    shrink = [consume, settle, settle, settle, settle, disk, reads, publish]
    rare = [crash, rest, interrupt]
    for step in range(steps):
        if not step % 100:
            for number in range(PEERS):
                machine.interrupt(number=number, what="death", name="q0", share=0)
        actions = shrink if step % 100 > 60 else grow
        dice.choice([*actions, *actions, *actions, *actions, *rare])(machine, dice)
        machine.check_if_quiet()
    machine.teardown()
    return machine


def play(seed: int, steps: int, machine_type: type[DurableMachine] = DurableMachine) -> Any:
    """One run. Raises what the machine finds."""
    dice = random.Random(seed)
    machine = machine_type()
    actions, weights = list(WEIGHTS), list(WEIGHTS.values())
    for action in dice.choices(actions, weights, k=steps):
        action(machine, dice)
        machine.check_if_quiet()
    machine.teardown()
    return machine
